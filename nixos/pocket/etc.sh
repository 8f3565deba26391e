# Builder of /etc: the files of $source, units, and what pulls them in.
set -eu
mkdir -p "$out"
cp -R "$source/." "$out/"
unitFiles="$ownUnits/*"
if [ -n "$agent" ]; then
  cp -R "$agentFiles/etc/." "$out/"
  unitFiles="$unitFiles $agentFiles/units/*"
fi
chmod -R u+w "$out"
unitFolder="$out/systemd/system"
mkdir -p "$unitFolder" "$out/ssl/certs" "$out/xnode"

cat >"$out/os-release" <<EOF
NAME=XnodeOS
ID=xnodeos
PRETTY_NAME="XnodeOS pocket ($label)"
VARIANT_ID=pocket
VERSION_ID="$label"
EOF
: >"$out/NIXOS"
ln -s "$certificates/ca-certificates.crt" "$out/ssl/certs/ca-certificates.crt"
ln -s /run/xnode/resolv.conf "$out/resolv.conf"
ln -s /proc/mounts "$out/mtab"

for word in $moreFiles; do
  mkdir -p "$(dirname "$out/${word%%=*}")"
  rm -f "$out/${word%%=*}"
  cp "${word#*=}" "$out/${word%%=*}"
done

pull() { # unit, target, file that the link names
  mkdir -p "$unitFolder/$2.wants"
  ln -sf "$3" "$unitFolder/$2.wants/$1"
}

for file in $unitFiles; do
  unit=$(basename "$file")
  sed "s|@busybox@|$busybox|g; s|@ssh@|$ssh|g; s|@nix@|$nix|g; s|@scripts@|$scripts|g; s|@label@|$label|g
    s|@xnode@|$agent|g" \
    "$file" >"$unitFolder/$unit"
  sed -n 's/^WantedBy=//p' "$file" | while read -r target; do pull "$unit" "$target" "../$unit"; done
done
for word in $moreUnits; do cp "${word#*=}" "$unitFolder/${word%%=*}"; done
for word in $wantedBy; do pull "${word%%=*}" "${word#*=}" "../${word%%=*}"; done
for word in $debianUnits; do
  file="$systemd/lib/systemd/system/${word%%=*}"
  if [ ! -e "$file" ]; then
    echo "unit ${word%%=*} is pulled in, but files.nix does not take it" >&2
    exit 1
  fi
  pull "${word%%=*}" "${word#*=}" "$file"
done
ln -s "$systemd/lib/systemd/system/multi-user.target" "$unitFolder/default.target"
exit 0
