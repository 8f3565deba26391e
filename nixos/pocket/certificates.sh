# Builder of the certificate bundle that programs look for below /etc/ssl.
set -eu
mkdir -p "$out"
for source in $sources; do
  for file in "$source"/usr/share/ca-certificates/mozilla/*.crt; do
    cat "$file"
    echo
  done
done >"$out/ca-certificates.crt"
exit 0
