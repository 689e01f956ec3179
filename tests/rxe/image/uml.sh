#!/usr/bin/env bash
# uml.sh DIR: tells the path of a user-mode kernel with Soft-RoCE and Soft-iWARP, on standard output. Built
# if nobody on this machine has yet: some five minutes on two CPUs, of Debian's kernel source.
#
#   ~/.cache/mitosis/uml-HASH/linux     the kernel; HASH is of what it is built from and by
#   ~/.cache/mitosis/uml-build.XXXXXX   a build that goes on, or was interrupted: the next one removes it
#   DIR/apt                             what apt knows; nothing is installed on this machine
#
# Other clones find it there, and no network is needed then. XDG_CACHE_HOME moves ~/.cache.
set -euo pipefail
here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
readonly here
readonly SERIES=6.12
readonly CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/mitosis
# Of no use to this architecture's build, and two thirds of the source. Kconfig reads all its own files.
readonly NOT_SOURCE=('*/Documentation/*/*' '*/tools/testing/*' '*/drivers/gpu/*.[ch]' '*/sound/*.[ch]'
  '*/drivers/net/ethernet/*.[ch]' '*/drivers/net/wireless/*.[ch]' '*/drivers/media/*.[ch]'
  '*/drivers/staging/*.[ch]' '*/drivers/scsi/*.[ch]' '*/drivers/iio/*.[ch]' '*.dts' '*.dtsi')

mkdir -p "$1" "$CACHE"
dir=$(realpath "$1")
readonly DIR=$dir
# shellcheck source=apt.sh
source "$here/apt.sh"

# --- the build, in a process of its own ---------------------------------------------------------

# What builds it, without what this machine has.
tools() {
  local wanted=() name packages
  for name in flex bison m4 bc; do
    have "$name" || wanted+=("$name")
  done
  mkdir -p "$build/tools"
  ((${#wanted[@]})) || return 0
  mapfile -t packages < <(missing_here "${wanted[@]}")
  download "$build/debs" "${packages[@]}"
  unpack "$build/tools" "$build"/debs/*.deb
  export PATH=$build/tools/usr/bin:$PATH
  export LD_LIBRARY_PATH=$build/tools/usr/lib/x86_64-linux-gnu:$build/tools/lib/x86_64-linux-gnu
  # They look for each other where they would be installed.
  [[ ! -d $build/tools/usr/share/bison ]] || export BISON_PKGDATADIR=$build/tools/usr/share/bison
  [[ ! -x $build/tools/usr/bin/m4 ]] || export M4=$build/tools/usr/bin/m4
}

source_tree() {
  download "$build/source" "linux-source-$SERIES"
  mkdir "$build/tree"
  dpkg-deb --fsys-tarfile "$build"/source/*.deb | tar -xO "./usr/src/linux-source-$SERIES.tar.xz" |
    tar -xJ -C "$build/tree" --strip-components 1 "${NOT_SOURCE[@]/#/--exclude=}"
}

# Of vector state it keeps as much as processors had before AMX (11,008 bytes), and this machine's kernel takes
# back all that its processor has or nothing. Frames that hold it lie on kernel stacks: see uml.config.
make_room_for_vectors() {
  local file=arch/x86/um/user-offsets.c
  grep -q 'HOST_FP_SIZE, 2696' "$file" || return 0
  sed -i 's/HOST_FP_SIZE, 2696/HOST_FP_SIZE, 12288/' "$file"
}

make_linux() {
  local lacks
  cd "$build/tree"
  make_room_for_vectors
  KCONFIG_ALLCONFIG=$here/uml.config make -s ARCH=um allnoconfig
  lacks=$(grep '^CONFIG_' "$here/uml.config" | grep -vxFf .config) || true
  [[ -z $lacks ]] || fail "this kernel cannot have" $lacks
  make -s ARCH=um -j"$(nproc)" linux
  strip linux
  mkdir "$build/result"
  mv linux "$build/result/linux"
  cp .config "$build/result/config"
  # A kernel that starts: of another machine's C library it would not.
  "$build/result/linux" --version >"$build/result/version"
}

if [[ ${2:-} == --build ]]; then
  readonly build=$3
  refresh
  tools
  source_tree
  make_linux
  exit
fi

# --- whoever wants it ---------------------------------------------------------------------------

hash=$(cat "$here"/uml.{sh,config} <(getconf GNU_LIBC_VERSION) | sha256sum | cut -c -16)
readonly RESULT=$CACHE/uml-$hash

found() {
  [[ -x $RESULT/linux ]] || return 1
  printf '%s\n' "$RESULT/linux"
  exit 0
}

found || true
# Two builders at once build once; one that is killed lets go of the lock.
exec 9>"$CACHE/uml.lock"
flock 9
found || true

# Of a build that was killed some process may still write there.
rm -rf "$CACHE"/uml-build.* || true
build=$(mktemp -d "$CACHE/uml-build.XXXXXX")
readonly build
trap 'rm -rf "$build"' EXIT
printf 'rxe: building a user-mode kernel from linux-source-%s, once; some five minutes\n' "$SERIES" >&2
log=$build/log
# It does not hold the lock, and ends with this script.
if ! setpriv --pdeathsig KILL bash "$here/uml.sh" "$1" --build "$build" >"$log" 2>&1 9>&-; then
  tail -n 30 "$log" >&2
  fail "the user-mode kernel could not be built (the last lines of its log stand above)"
fi
mv -T "$build/result" "$RESULT"
found
