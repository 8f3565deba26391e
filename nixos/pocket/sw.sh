# Builder of the folder that /usr points to: all programs of $trees and
# busybox, and the folders that systemd and kmod look for below /lib.
set -eu
mkdir -p "$out/bin" "$out/lib"
for applet in $("$busybox/bin/busybox" --list); do
  ln -s "$busybox/bin/busybox" "$out/bin/$applet"
done
# Debian's programs come after busybox's of the same name, and win
for tree in $trees; do # the later wins
  for program in "$tree"/bin/*; do
    if [ -e "$program" ]; then ln -sf "$program" "$out/bin/"; fi
  done
  if [ -d "$tree/libexec" ]; then
    mkdir -p "$out/libexec"
    ln -s "$tree"/libexec/* "$out/libexec/"
  fi
done
ln -s bin "$out/sbin"
ln -s "$systemd/lib/systemd" "$systemd/lib/udev" "$out/lib/"
# of the kernel that runs, whatever system is current
ln -s /run/booted-system/kernel-modules/lib/modules "$out/lib/modules"
ln -s /run/booted-system/firmware/lib/firmware "$out/lib/firmware"
exit 0
