# First steps of this system in its new root. As "init" it is PID 1 and ends as
# systemd; as "prepare-root" it is run by the first stage, which then starts
# "init" (a copy of systemd).
busybox=@busybox@/bin/busybox
system=@out@

export PATH=@busybox@/bin
[ -e /proc/self ] || { $busybox mkdir -p /proc && $busybox mount -t proc proc /proc; }
[ -e /sys/class ] || { mkdir -p /sys && mount -t sysfs sysfs /sys; }
[ -c /dev/null ] || { mkdir -p /dev && mount -t devtmpfs devtmpfs /dev; }
case "$(cat /proc/mounts)" in
*" /run "*) ;;
*) mkdir -p /run && mount -t tmpfs -o mode=0755,nosuid,nodev tmpfs /run ;;
esac

ln -sfn "$system" /run/booted-system
if [ ! -L /nix/var/nix/profiles/system ]; then
  mkdir -p /nix/var/nix/profiles /nix/var/nix/gcroots
  ln -s "$system" /nix/var/nix/profiles/system-1-link
  ln -s system-1-link /nix/var/nix/profiles/system
  ln -sfn /run/booted-system /nix/var/nix/gcroots/booted-system
  ln -sfn /run/current-system /nix/var/nix/gcroots/current-system
fi
"$system/activate" || echo "activation failed; the system goes on without what is missing" >&2

if [ -z "${IN_NIXOS_SYSTEMD_STAGE1:-}" ]; then
  exec env -i TERM=linux "$system/systemd/lib/systemd/systemd"
fi
exit 0
