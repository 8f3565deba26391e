# switch-to-configuration ACTION, as on NixOS: switch, boot, test, dry-activate,
# check. Exit codes: 0 done, 1 refused or wrong use, 2 activation failed,
# 4 a unit failed, 100 done as far as possible and a reboot is needed.
set -u
system=@out@
export PATH=@out@/sw/bin
say() { echo "$1" >&2; }

finish() {
  ends="@switchEnds@" # set for tests of what calls this
  case "$ends" in
  "exit "*) exit "${ends#exit }" ;;
  "signal "*) kill "-${ends#signal }" $$ ;;
  esac
  exit "$1"
}

action=${1:-}
case "$action" in
switch | boot | test | dry-activate | check) ;;
*)
  say "usage: switch-to-configuration switch|boot|test|dry-activate|check"
  exit 1
  ;;
esac
if [ "$(id -u)" -ne 0 ]; then
  say "switch-to-configuration: needs root"
  exit 1
fi
if [ ! -e /etc/NIXOS ]; then
  say "switch-to-configuration: /etc/NIXOS is missing: this is no system of ours"
  exit 1
fi
[ "$action" != check ] || finish 0

mkdir -p /run/nixos
exec 9>>/run/nixos/switch-to-configuration.lock
if ! @flock@ --nonblock 9; then
  say "switch-to-configuration: another one is at work (/run/nixos/switch-to-configuration.lock)"
  exit 1
fi

if [ "$action" = switch ] || [ "$action" = boot ]; then
  say "the live medium has no boot loader: this system is gone at the next boot"
  [ "$action" != boot ] || finish 0
fi

# Units that changed between the two systems' own unit folders.
old=$(readlink -f /run/current-system)/etc/systemd/system
new=$system/etc/systemd/system
active=" $(systemctl list-units --all --plain --no-legend --state=active,activating,reloading 2>/dev/null | awk '{ printf "%s ", $1 }')"
is_active() { case "$active" in *" $1 "*) return 0 ;; esac; return 1; }

stop=""
restart=""
for file in "$old"/*; do
  unit=${file##*/}
  if [ -d "$file" ] || ! is_active "$unit"; then continue; fi
  if [ ! -e "$new/$unit" ]; then
    grep -q '^X-StopOnRemoval=false' "$file" || stop="$stop $unit"
  elif ! cmp -s "$file" "$new/$unit"; then
    grep -q '^X-RestartIfChanged=false' "$new/$unit" || restart="$restart $unit"
  fi
done

if [ "$action" = dry-activate ]; then
  say "would stop the following units:${stop:- none}"
  say "would activate the configuration"
  say "would restart the following units:${restart:- none}"
  finish 0
fi

code=0
if [ -n "$stop" ]; then
  say "stopping the following units:$stop"
  # shellcheck disable=SC2086
  systemctl stop $stop
fi
interface=$(cat /run/current-system/init-interface-version 2>/dev/null)
manager=$(readlink -f /run/current-system/systemd)
say "activating the configuration..."
"$system/activate" || code=2
if [ "$manager" = "$(readlink -f "$system/systemd")" ]; then systemctl daemon-reload; else systemctl daemon-reexec; fi
# what failed before does not count, and what is gone cannot fail any more
systemctl reset-failed

if [ -n "$restart" ]; then
  say "restarting the following units:$restart"
  # shellcheck disable=SC2086
  systemctl restart $restart || true
fi
# what is new and wanted; units that run are left alone
systemctl start multi-user.target || true
wanted=""
for file in "$new"/multi-user.target.wants/* "$new"/sockets.target.wants/*; do wanted="$wanted ${file##*/}"; done
# shellcheck disable=SC2086
systemctl start $wanted || true

failed=$(systemctl list-units --plain --no-legend --state=failed 2>/dev/null | awk '{ printf " %s", $1 }')
if [ -n "$failed" ]; then
  say "the following units failed:$failed"
  [ "$code" -ne 0 ] || code=4
fi
if [ "$code" -eq 0 ] && [ "$interface" != "$(cat "$system/init-interface-version")" ]; then
  say "init-interface-version differs: reboot to start this system"
  code=100
fi
finish "$code"
