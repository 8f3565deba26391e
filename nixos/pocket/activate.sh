#!@busybox@/bin/busybox sh
# Makes the running root look like this system: /etc, /usr and the folders that
# programs expect. Can be repeated; touches no unit.
set -u
system=@out@
failed=0
set --
umask 022
try() { "$@" || failed=1; }

# a link that is never absent while it is replaced
link() { ln -sfn "$1" "$2.new" && mv -T "$2.new" "$2" 2>/dev/null || ln -sfn "$1" "$2"; }

[ -d /run/nixos ] || try mkdir -p /etc /root /tmp /usr /run/nixos /run/xnode /run/lock /var/empty /var/tmp /var/lib/xnode \
  /nix/var/nix/gcroots/auto /nix/var/nix/profiles/per-user /nix/var/nix/temproots
[ -L /var/run ] || try ln -sfn /run /var/run
try chmod 1777 /tmp /var/tmp
try chmod 0700 /root
try chown 990:990 /var/lib/xnode

# /usr is one link; /bin, /sbin and /lib follow it
usr=$(readlink "$system/sw")
if [ "$(readlink /usr)" != "$usr" ]; then
  [ -L /usr ] || rmdir /usr 2>/dev/null
  try link "$usr" /usr
fi
[ -L /bin ] || try ln -sfn usr/bin usr/sbin usr/lib /

# /etc: links into this system; copies where programs insist on files
etc=$(readlink "$system/etc")
try link "$etc" /etc/static
for entry in "$etc"/*; do
  name=${entry##*/}
  case "$name" in
  passwd | group | shadow) continue ;;
  esac
  [ "$(readlink "/etc/$name")" = "/etc/static/$name" ] || set -- "$@" "/etc/static/$name"
done
[ $# -eq 0 ] || try ln -sfn "$@" /etc/
for entry in /etc/*; do
  # what an earlier system had and this one has not
  if [ -L "$entry" ] && [ ! -e "$entry" ] && [ ! -L "$etc/${entry##*/}" ]; then rm -f "$entry"; fi
done
try cp "$etc/passwd" /etc/passwd.new
try cp "$etc/group" /etc/group.new
(umask 077 && cp "$etc/shadow" /etc/shadow.new) || failed=1
for name in passwd group shadow; do try mv "/etc/$name.new" "/etc/$name"; done
[ -e /etc/machine-id ] || : >/etc/machine-id

# node config
name=xnode
if [ -r /run/xnode/node/hostname ]; then read -r name _ </run/xnode/node/hostname || true; fi
if [ ! -r /etc/hostname ] || [ "$(cat /etc/hostname)" != "$name" ]; then
  echo "$name" >/etc/hostname
  hostname "$name"
fi
if [ -r /run/xnode/node/nix-keys ]; then
  keys=
  while read -r key || [ -n "$key" ]; do
    case "$key" in "" | "#"*) ;; *) keys="$keys $key" ;; esac
  done </run/xnode/node/nix-keys
  echo "trusted-public-keys =$keys" >/run/xnode/nix-keys.conf
fi

try ln -sfn "$system" /run/current-system
if [ "$failed" -ne 0 ]; then
  echo "activate: a step above failed" >&2
  exit 1
fi
@activationEnds@
exit 0
