# Builder of a program from a text.
set -eu
cp "$source" "$out"
chmod +x "$out"
exit 0
