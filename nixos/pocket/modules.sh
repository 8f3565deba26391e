# Builder of the kernel's modules: what modules.txt wants of $source, all that
# it depends on, packed, with its index. $version is the kernel's.
set -eu
all="$TMPDIR/all"
mkdir -p "$all/lib/modules"
cp -R "$source/lib/modules/$version" "$all/lib/modules/"
chmod -R u+w "$all"
$depmod -b "$all" "$version"
cd "$all/lib/modules/$version"

# The dependency lists of depmod are whole; soft dependencies come on top.
closure() {
  awk -v wanted="$1" '
    function plain(path) { sub(/.*\//, "", path); sub(/\.ko.*/, "", path); gsub(/-/, "_", path); return path }
    FILENAME == "modules.dep" { split($0, half, ": *"); needs[half[1]] = half[2]; path[plain(half[1])] = half[1]; next }
    FILENAME == "modules.softdep" {
      for (i = 3; i <= NF; i++) if ($i !~ /:$/) soft[$2] = soft[$2] " " $i
      next
    }
    { queue[++last] = $0 }
    END {
      for (i = 1; i <= last; i++) {
        module = queue[i]
        if (module in seen) continue
        seen[module] = 1
        print module
        n = split(needs[module], list, " ")
        for (j = 1; j <= n; j++) queue[++last] = list[j]
        n = split(soft[plain(module)], list, " ")
        for (j = 1; j <= n; j++) { name = list[j]; gsub(/-/, "_", name); if (name in path) queue[++last] = path[name] }
      }
    }' modules.dep modules.softdep "$1" | sort
}

tr ' ' '\n' <"$wantedPath" | sort -u >"$TMPDIR/wanted"
closure "$TMPDIR/wanted" >"$TMPDIR/keep"

# depmod drops what it does not find: ask the modules themselves.
sed 's/.*\///; s/\.ko$//; y/-/_/' "$TMPDIR/keep" modules.builtin >"$TMPDIR/have"
# shellcheck disable=SC2046
$modinfo -F depends $(cat "$TMPDIR/keep") | tr ',' '\n' | sed '/^$/d; y/-/_/' | sort -u >"$TMPDIR/need"
if grep -vxFf "$TMPDIR/have" "$TMPDIR/need"; then
  echo "the modules above are needed and match no line of modules.txt: add a \"may\" line" >&2
  exit 1
fi

folder="$out/lib/modules/$version"
mkdir -p "$folder"
cp modules.builtin modules.builtin.modinfo modules.order "$folder/"
while read -r module; do
  mkdir -p "$folder/$(dirname "$module")"
  cp "$module" "$folder/$module"
done <"$TMPDIR/keep"
# shellcheck disable=SC2046
(cd "$folder" && $zstd -q -15 --rm $(cat "$TMPDIR/keep"))
$depmod -b "$out" "$version"
rm -f "$folder"/modules.symbols "$folder"/modules.symbols.bin
exit 0
