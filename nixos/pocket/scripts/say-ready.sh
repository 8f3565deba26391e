# Says on every console that the system is up, where, and how to get in.
set -u

# Up is: an address that reaches further than this link. A machine without a
# network is up as well, a minute later.
network=
tries=0
while [ "$tries" -lt 600 ]; do
  if [ -r /run/systemd/netif/state ]; then
    while read -r line; do
      case "$line" in OPER_STATE=routable) network=1 ;; esac
    done </run/systemd/netif/state
  fi
  if [ -n "$network" ]; then break; fi
  tries=$((tries + 1))
  usleep 100000
done

read -r uptime _ </proc/uptime
system=$(readlink -f /run/current-system)

read -r consoles </sys/class/tty/console/active
case " $consoles " in *" ttyS0 "*) ;; *) consoles="$consoles ttyS0" ;; esac
say() {
  for console in $consoles; do
    { echo "$1" >"/dev/$console"; } 2>/dev/null || true
  done
}

say "XNODE-READY generation=$LABEL system=$system seconds=$uptime"

addresses=$(ip -o addr show scope global 2>/dev/null | awk '{ sub(/\/.*/, "", $4); print $4 " (" $2 ")" }' | tr '\n' ' ')
if [ -z "$network" ]; then
  say "$LABEL is up, but no network address came within a minute; it is taken when it comes. ${addresses:+addresses: $addresses}"
  exit 0
fi
first=${addresses%% *}
keys=$(grep -c '^[^#]' /run/xnode/node/authorized_keys 2>/dev/null) || keys=0
say "$LABEL is up: ${addresses% }"
if [ "$keys" -gt 0 ]; then
  say "log in: ssh root@$first ($keys key(s) of the node config)"
  host=$(sed -n 's/^HostKey //p' /run/xnode/ssh/host_keys.conf 2>/dev/null | head -n 1)
  if [ -n "$host" ]; then say "host key: $(@ssh@/bin/ssh-keygen -l -f "$host" 2>/dev/null)"; fi
else
  say "nobody can log in: the node config has no authorized_keys"
fi
