#!/usr/bin/env bash
# build.sh DIR [PYTHON]: DIR/vmlinux, DIR/initrd and DIR/dc_provider are there and up to date, and with the
# interpreter of a venv DIR/initrd-python; takes no time if they are. With RXE_BESIDE=OTHER, another DIR, the kernel
# and the initrd alone.
set -euo pipefail
here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
readonly here
mkdir -p "$1"
dir=$(realpath "$1")
readonly dir

# Two callers at once build once.
exec 9>"$dir/lock"
flock 9

# stamped NAME INPUT... -- COMMAND...: runs COMMAND unless it has, with the same inputs.
stamped() {
  local stamp=$dir/$1.stamp wanted=
  shift
  while [[ $1 != -- ]]; do
    wanted+="$1"$'\n'
    shift
  done
  shift
  [[ -f $stamp && $(<"$stamp")$'\n' == "$wanted" ]] && return
  rm -f "$stamp"
  "$@" 9>&-
  # Written last: what was interrupted half-way is made again.
  printf '%s' "$wanted" >"$stamp"
}

packages="$(cat "$here"/{apt,packages}.sh | cksum) ${RXE_KERNEL:-}"
# The guests have this machine's own C library, so that what is built here runs there.
libc=$(stat -Lc '%n %s %Y' /lib/x86_64-linux-gnu/libc.so.6)
stamped packages "$packages" -- bash "$here/packages.sh" "$dir"
image="$packages $libc $(cat "$here"/{image.sh,init,barrier} | cksum)"
stamped image "$image" -- bash "$here/image.sh" "$dir"
# Compiled against the guests' own libraries.
[[ -z ${RXE_BESIDE:-} ]] || exit 0
provider=$(realpath "$here/../../dc_provider")
stamped dc_provider "$packages $(cat "$provider"/build.sh "$provider"/src/* "$provider"/tests/* | cksum)" -- \
  bash "$provider/build.sh" "$dir" "$dir/dc_provider"
if [[ -n ${2:-} ]]; then
  installed=$(stat -c '%n %s %Y' "$(dirname "$2")"/../lib/python3.*/site-packages/*.dist-info/RECORD)
  stamped python "$image" "$(cksum <"$here/python.sh")" "$2" "$installed" -- \
    bash "$here/python.sh" "$dir" "$2"
fi
