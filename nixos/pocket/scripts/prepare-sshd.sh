# Before sshd starts: host keys of the node config, else one made here.
set -eu
folder=/run/xnode/ssh
mkdir -p "$folder"
config="$folder/host_keys.conf"
: >"$config.new"
for key in /run/xnode/node/ssh_host_*_key; do
  if [ -f "$key" ]; then echo "HostKey $key" >>"$config.new"; fi
done
if [ ! -s "$config.new" ]; then
  own="$folder/ssh_host_ed25519_key"
  if [ ! -f "$own" ]; then @ssh@/bin/ssh-keygen -q -t ed25519 -N "" -C "" -f "$own"; fi
  echo "HostKey $own" >>"$config.new"
fi
mv "$config.new" "$config"
