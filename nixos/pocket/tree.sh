# Builder of one group of Debian programs and libraries: bin/ and lib/ of $out
# from the package folders $sources. Programs get the store's program loader
# and library path; needs names other such trees.
set -eu
mkdir -p "$out/bin" "$out/lib"

for source in $sources; do
  for folder in lib/x86_64-linux-gnu usr/lib/x86_64-linux-gnu usr/lib/x86_64-linux-gnu/systemd usr/lib/nix; do
    for file in "$source/$folder"/*.so*; do
      if [ -e "$file" ] || [ -L "$file" ]; then cp -P "$file" "$out/lib/"; fi
    done
  done
  for folder in bin sbin usr/bin usr/sbin; do
    for file in "$source/$folder"/*; do
      if [ -L "$file" ]; then
        # all links between programs stay within one folder here
        ln -s "$(basename "$(readlink "$file")")" "$out/bin/$(basename "$file")"
      elif [ -e "$file" ]; then
        cp "$file" "$out/bin/"
      fi
    done
  done
  for file in "$source"/usr/libexec/*/*; do
    # links of the package to its own programs, by their place on Debian
    if [ -L "$file" ]; then
      link="$out/libexec/${file#"$source/usr/libexec/"}"
      mkdir -p "$(dirname "$link")"
      ln -s "$out/bin/$(basename "$(readlink "$file")")" "$link"
    fi
  done
  for folder in lib/systemd lib/udev; do
    if [ -d "$source/$folder" ]; then
      mkdir -p "$out/$folder"
      cp -R "$source/$folder/." "$out/$folder/"
      chmod -R u+w "$out/$folder" # folders of the store cannot be written; the next package brings the same ones
    fi
  done
done
chmod -R u+w "$out"

# ICU's 31 MB of tables serve one thing here: nix unpacks archives by
# libarchive, which reads the xar format by libxml2, which turns odd character
# sets into UTF-8 by ICU. Without tables ICU says that it has none. The pages
# between the first and the last of the table are blanked, so that they take
# neither payload nor memory.
for file in "$out"/lib/libicudata.so.*.*; do
  if [ ! -e "$file" ]; then continue; fi
  magic=$(dd if="$file" bs=1 skip=8204 count=4 2>/dev/null)
  if [ "$magic" != CmnD ]; then
    echo "$(basename "$file") does not begin with its table at byte 8192: adapt tree.sh" >&2
    exit 1
  fi
  pages=$(($(stat -c %s "$file") / 4096))
  dd if=/dev/zero of="$file" bs=4096 seek=3 count=$((pages - 6)) conv=notrunc 2>/dev/null
done

libraries="$out/lib"
for need in $needs; do libraries="$libraries:$need/lib"; done
loader=$(for d in $(echo "$libraries" | tr : ' '); do ls "$d/ld-linux-x86-64.so.2" 2>/dev/null || true; done)

find "$out" -type f | while read -r file; do
  [ "$(head -c 4 "$file")" = "$(printf '\177ELF')" ] || continue
  case "$file" in */ld-linux-x86-64.so.2 | */libc.so.6) continue ;; esac
  if $patchelf --print-interpreter "$file" >/dev/null 2>&1; then
    $patchelf --force-rpath --set-rpath "$libraries" --set-interpreter "$loader" "$file"
  elif [ -n "$($patchelf --print-rpath "$file")" ]; then
    $patchelf --force-rpath --set-rpath "$libraries" "$file"
  fi
  for library in $($patchelf --print-needed "$file"); do
    found=
    for folder in $(echo "$libraries" | tr : ' '); do
      if [ -e "$folder/$library" ]; then found=1; fi
    done
    if [ -z "$found" ]; then
      echo "$(basename "$file") needs $library, which no package of this tree brings: name its package in packages.txt" >&2
      echo "$file $library" >>"$TMPDIR/missing"
    fi
  done
done
if [ -e "$TMPDIR/missing" ]; then exit 1; fi

# One rule runs systemd-sysctl for every network link; there are no settings for it
rules="$out/lib/udev/rules.d/99-systemd.rules"
if [ -f "$rules" ]; then sed -i '/systemd-sysctl/d' "$rules"; fi

# Debian's units and rules name programs by their place on Debian
for file in "$out"/lib/systemd/system/*.service "$out"/lib/udev/rules.d/*.rules; do
  if [ -f "$file" ]; then sed -i "s| /lib/systemd/| $out/lib/systemd/|g; s|=\([-!@:+]*\)/lib/systemd/|=\1$out/lib/systemd/|g" "$file"; fi
done
rmdir "$out/bin" 2>/dev/null || true
exit 0
