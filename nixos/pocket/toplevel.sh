# Builder of the toplevel: the names that the NixOS contract wants.
set -eu
mkdir -p "$out/bin"
ln -s "$image" "$out/kernel"
ln -s "$modules" "$out/kernel-modules"
ln -s "$etc" "$out/etc"
ln -s "$sw" "$out/sw"
ln -s "$systemd" "$out/systemd"
printf '%s' "$kernelParams" >"$out/kernel-params"
printf '%s' "$label" >"$out/nixos-version"
printf 'x86_64-linux' >"$out/system"
printf 'systemd 2' >"$out/init-interface-version"

# The live medium's initrd is written by "xnodeos image build"; a loader that
# wants one beside the kernel finds an archive without files.
{
  printf '070701'
  for field in 0 0 0 0 1 0 0 0 0 0 0 11 0; do printf '%08X' "$field"; done
  printf 'TRAILER!!!\0\0\0\0'
} >"$out/initrd"

fill() {
  {
    echo "#!$busybox/bin/busybox sh"
    sed "s|@out@|$out|g; s|@busybox@|$busybox|g; s|@flock@|$flock|g
      s|@activationEnds@|$activationEnds|g; s|@switchEnds@|$switchEnds|g" "$1"
  } >"$2"
  chmod +x "$2"
}
fill "$activate" "$out/activate"
fill "$switch" "$out/bin/switch-to-configuration"
case "$handover" in
script)
  fill "$boot" "$out/init"
  ;;
prepare-root)
  fill "$boot" "$out/prepare-root"
  cp "$systemd/lib/systemd/systemd" "$out/init"
  ;;
esac
printf '#!%s/bin/busybox sh\nexec %s/bin/switch-to-configuration dry-activate\n' "$busybox" "$out" >"$out/dry-activate"
chmod +x "$out/dry-activate"

parameters=$(echo "$kernelParams" | sed 's/[^ ][^ ]*/"&"/g; s/ /,/g')
cat >"$out/boot.json" <<EOF
{
  "org.nixos.bootspec.v1": {
    "init": "$out/init",
    "initrd": "$out/initrd",
    "kernel": "$out/kernel",
    "kernelParams": [$parameters],
    "label": "$label",
    "system": "x86_64-linux",
    "toplevel": "$out"
  },
  "org.nixos.specialisation.v1": {},
  "org.xnodeos.v1": { "medium": "live" }
}
EOF
exit 0
