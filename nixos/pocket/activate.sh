# Makes the running root look like this system: /etc, /usr and the folders that
# programs expect. Can be repeated; touches no unit.
set -u
system=@out@
failed=0
set --
umask 022
try() { "$@" || failed=1; }

[ -d /run/nixos ] || try mkdir -p /etc /root /tmp /usr /run/nixos /run/xnode /run/lock /var/empty /var/tmp /var/lib/xnode \
  /nix/var/nix/gcroots/auto /nix/var/nix/gcroots/xnode /nix/var/nix/profiles/per-user /nix/var/nix/temproots
[ -L /var/run ] || try ln -sfn /run /var/run
try chmod 1777 /tmp /var/tmp
try chmod 0700 /root
# The state of the agent: root's, but for what the follower keeps. A link here is
# nothing that we made.
own_folder() { # path, owner, mode
  if [ -L "$1" ] || { [ -e "$1" ] && [ ! -d "$1" ]; }; then rm -f "$1"; fi
  [ -d "$1" ] || mkdir -p "$1" || return
  chown "$2" "$1" && chmod "$3" "$1"
}
own_folder /var/lib/xnode 0:0 0755 || failed=1
own_folder /var/lib/xnode/applier 0:0 0755 || failed=1
own_folder /var/lib/xnode/follower 990:990 0700 || failed=1
own_folder /var/lib/xnode/cache 990:990 0755 || failed=1
# what the follower says while it runs; the message of the day is one of it
own_folder /run/xnode/agent 990:990 0755 || failed=1
[ -L /run/xnode/motd ] || try ln -sfn agent/motd /run/xnode/motd

# /usr is one link; /bin, /sbin and /lib follow it
usr=$(readlink "$system/sw")
if [ "$(readlink /usr)" != "$usr" ]; then
  [ -L /usr ] || rmdir /usr 2>/dev/null
  try ln -sfn "$usr" /usr.new
  try mv -T /usr.new /usr # never absent
fi
[ -L /bin ] || try ln -sfn usr/bin usr/sbin usr/lib /

# /etc: links into this system; copies where programs insist on files
etc=$(readlink "$system/etc")
try ln -sfn "$etc" /etc/static.new
try mv -T /etc/static.new /etc/static
for entry in "$etc"/*; do
  name=${entry##*/}
  case "$name" in
  passwd | group | shadow) continue ;;
  esac
  # shellcheck disable=SC3013 # the sh is busybox, always
  if [ -L "/etc/$name" ] && [ "/etc/$name" -ef "$entry" ]; then continue; fi
  set -- "$@" "/etc/static/$name"
done
[ $# -eq 0 ] || try ln -sfn "$@" /etc/
for entry in /etc/*; do
  # what an earlier system had and this one has not
  if [ -L "$entry" ] && [ ! -e "$entry" ] && [ ! -L "$etc/${entry##*/}" ]; then rm -f "$entry"; fi
done
try mkdir -p /etc/.new
try cp "$etc/passwd" "$etc/group" "$etc/shadow" /etc/.new/
try chmod 0400 /etc/.new/shadow
try mv /etc/.new/passwd /etc/.new/group /etc/.new/shadow /etc/
[ -e /etc/machine-id ] || : >/etc/machine-id

# node config
name=xnode
if [ -r /run/xnode/node/hostname ]; then read -r name _ </run/xnode/node/hostname || true; fi
if [ -z "$name" ]; then name=xnode; fi
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
