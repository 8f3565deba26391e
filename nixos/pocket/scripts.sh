# Builder of the scripts that units run: names of other store paths filled in.
set -eu
mkdir -p "$out"
for file in "$source"/*.sh; do
  name=$(basename "$file" .sh)
  {
    echo "#!$busybox/bin/busybox sh"
    sed "s|@busybox@|$busybox|g; s|@ssh@|$ssh|g" "$file"
  } >"$out/$name"
  chmod +x "$out/$name"
done
exit 0
