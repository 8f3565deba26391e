# Builder of the agent's folder: its program where systems have programs.
set -eu
mkdir -p "$out/bin"
ln -s "$program" "$out/bin/xnode"
exit 0
