# shellcheck shell=bash
# What the four scripts share: the folder of the project, a Go that is new
# enough, and words on the terminal. Sourced, never run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck disable=SC2034 # read by the scripts that source this
cache=${XDG_CACHE_HOME:-${HOME:-$root/build}/.cache}/xnodeos

say() { printf '==> %s\n' "$*"; }
note() { printf '    %s\n' "$*"; }
die() {
	printf '%s: error: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

# usage_error ends with the code of a wrong command line.
usage_error() {
	printf '%s: %s\nTry: %s --help\n' "${0##*/}" "$1" "$0" >&2
	exit 2
}

# now prints seconds with three decimals; elapsed START the seconds since then.
now() { date +%s.%3N; }
elapsed() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.1f", b - a }'; }

# find_go puts a Go that satisfies go.mod first on PATH. It asks inside the
# module, so that a Go with GOTOOLCHAIN=auto counts as what it would switch to.
find_go() {
	local want dir have tried=""
	want=$(awk '$1 == "go" { print $2; exit }' "$root/go.mod")
	for dir in "$(dirname "$(command -v go || echo /nowhere/go)")" /usr/local/go/bin "${HOME:-/nowhere}"/go/bin /usr/lib/go-1.*/bin; do
		[ -x "$dir/go" ] || continue
		have=$(cd "$root" && "$dir/go" env GOVERSION 2>/dev/null) || have=""
		have=${have#go}
		if [ -n "$have" ] && [ "$(printf '%s\n%s\n' "$want" "$have" | sort -V | head -n 1)" = "$want" ]; then
			export PATH="$dir:$PATH"
			return 0
		fi
		tried="$tried $dir/go"
	done
	die "no Go $want or newer found${tried:+ (too old:$tried)}; unpack one to /usr/local/go or put it on PATH"
}
