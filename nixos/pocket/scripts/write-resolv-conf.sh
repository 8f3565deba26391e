# networkd's view of the name servers, as the C library reads it.
set -eu
servers=""
domains=""
if [ -f /run/systemd/netif/state ]; then
  while IFS='=' read -r key value; do
    case "$key" in
    DNS) servers="$value" ;;
    DOMAINS) domains="$value" ;;
    esac
  done </run/systemd/netif/state
fi
mkdir -p /run/xnode
{
  for server in $servers; do echo "nameserver ${server%%#*}"; done
  if [ -n "$domains" ]; then echo "search $domains"; fi
} >/run/xnode/resolv.conf.new
mv /run/xnode/resolv.conf.new /run/xnode/resolv.conf
