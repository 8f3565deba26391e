# switch-to-configuration ACTION, as on NixOS: switch, boot, test, dry-activate,
# check. Exit codes: 0 done, 1 refused or wrong use, 2 activation failed,
# 4 a unit failed, 100 done as far as possible and a reboot is needed.
#
# Only units of the two systems' own folders are looked at: what somebody else
# started, as a transient unit, is left alone.
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
current=$(readlink -f /run/current-system)
old=$current/etc/systemd/system
new=$system/etc/systemd/system
units() { systemctl list-units --all --plain --no-legend "$@" 2>/dev/null; }
active=" $(units --state=active,activating,reloading | awk '{ printf "%s ", $1 }')"
is_active() { case "$active" in *" $1 "*) return 0 ;; esac; return 1; }
says() { grep -q "^$2" "$new/$1"; } # unit, setting

stop=""    # gone, or to be stopped while the old files are there
sockets="" # to be started before the services
restart=""
reload=""
for file in "$old"/*; do
  unit=${file##*/}
  if [ -d "$file" ] || ! is_active "$unit"; then continue; fi
  if [ ! -e "$new/$unit" ]; then
    grep -q '^X-StopOnRemoval=false' "$file" || stop="$stop $unit"
    continue
  fi
  if cmp -s "$file" "$new/$unit" || says "$unit" X-RestartIfChanged=false; then continue; fi
  case "$unit" in
  *.target) ;; # what is new in it is started below
  *.socket)
    # it cannot be bound again while its service has it
    service=$(sed -n 's/^Service=//p' "$new/$unit")
    stop="$stop $unit ${service:-${unit%.socket}.service}"
    sockets="$sockets $unit"
    if is_active "${service:-${unit%.socket}.service}"; then restart="$restart ${service:-${unit%.socket}.service}"; fi
    ;;
  *)
    if says "$unit" X-ReloadIfChanged=true; then
      reload="$reload $unit"
    elif says "$unit" X-StopIfChanged=false; then
      restart="$restart $unit"
    else
      stop="$stop $unit"
      # a service with a socket comes by itself
      if ! is_active "${unit%.service}.socket"; then restart="$restart $unit"; fi
    fi
    ;;
  esac
done
networks() { (cd "$1/etc/systemd/network" 2>/dev/null && cat -- * 2>/dev/null | md5sum); }
if [ "$(networks "$current")" != "$(networks "$system")" ]; then restart="$restart systemd-networkd.service"; fi

if [ "$action" = dry-activate ]; then
  say "would stop the following units:${stop:- none}"
  say "would activate the configuration"
  say "would reload the following units:${reload:- none}"
  say "would start the following units:${sockets}${restart:- none}"
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

run() { # verb, units
  verb=$1
  shift
  [ $# -gt 0 ] || return 0
  say "$verb the following units: $*"
  systemctl "$verb" "$@" || true
}
# shellcheck disable=SC2086
{
  run start $sockets
  run reload $reload
  run restart $restart
}
# what is new and wanted; units that run are left alone
wanted=""
for file in "$new"/sockets.target.wants/* "$new"/multi-user.target.wants/*; do wanted="$wanted ${file##*/}"; done
# shellcheck disable=SC2086
systemctl start multi-user.target $wanted || true

# A service between two starts has failed as well, even if it tries again.
failed=$(units | awk '$3 == "failed" || $4 ~ /^auto-restart/ { printf " %s", $1 }')
if [ -n "$failed" ]; then
  say "the following units failed:$failed"
  [ "$code" -ne 0 ] || code=4
fi
if [ "$code" -eq 0 ] && [ "$interface" != "$(cat "$system/init-interface-version")" ]; then
  say "init-interface-version differs: reboot to start this system"
  code=100
fi
finish "$code"
