#!/usr/bin/env bash
# build.sh DIR OUT: the pair of libraries, into OUT, from the headers and the libraries that
# tests/rxe/image/packages.sh has unpacked in DIR/guest:
#
#   OUT/libibverbs.so.1  ours     OUT/libibverbs.so.R  the real one under another name
#   OUT/libmlx5.so.1     ours     OUT/libmlx5.so.R     likewise
#   OUT/refusals         a program that calls them (tests/refusals.c)
#
# Ours have the version nodes of the real ones, so that whoever names a version finds it, there or in
# what they need.
set -euo pipefail
here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
readonly here DIR=$1 OUT=$2
readonly LIB=$DIR/guest/usr/lib/x86_64-linux-gnu
readonly FLAGS=(-std=gnu11 -D_GNU_SOURCE -O2 -g -fPIC -fvisibility=hidden -Wall -Wextra -Werror -Wmissing-prototypes
  -Wno-unused-parameter -pthread -isystem "$DIR/guest/usr/include")

# renamed LIBRARY: a copy with a name of the same length, in its own head and in all that asks for it.
renamed() {
  LC_ALL=C sed "s/\x00$1\.so\.1\x00/\x00$1.so.R\x00/g" "$LIB/$1.so.1" >"$OUT/$1.so.R"
}

# symbols LIBRARY: those that our object files define and that LIBRARY has, with its versions.
version_script() {
  local library=$1 own=$2
  {
    readelf -W --dyn-syms "$library" | awk '{print $8}' | grep '@@' | tr -s '@' ' '
    nm -D --defined-only "$own" | sed -E 's/^\S+ \S //; s/@.*//; s/$/ OURS/'
  } | sort | awk '
    { version[$1] = $2 == "OURS" ? version[$1] : $2; ours[$1] = ours[$1] || $2 == "OURS" }
    END { for (name in ours) if (ours[name] && version[name]) print version[name], name }'
}

# map LIBRARY PLAIN: a version script for PLAIN, our library linked without one.
map() {
  local library=$1 plain=$2 node symbols
  version_script "$library" "$plain" >"$OUT/symbols"
  readelf -W --version-info "$library" |
    sed -nE '/Version definition/,/Version needs/ s/.*Flags: none .*Name: (\S+).*/\1/p' |
    while read -r node; do
      symbols=$(awk -v node="$node" '$1 == node { printf " %s;", $2 }' "$OUT/symbols")
      printf '%s {%s };\n' "$node" "${symbols:+ global:$symbols}"
    done
  printf 'MITOSIS_DC { global: dc_*; local: *; };\n'
  rm "$OUT/symbols"
}

# link NAME SOURCES -- LIBRARIES
link() {
  local name=$1 sources=()
  shift
  while [[ $1 != -- ]]; do
    sources+=("$here/src/$1")
    shift
  done
  shift
  cc "${FLAGS[@]}" -shared -o "$OUT/$name.plain" "${sources[@]}" "$@"
  map "$LIB/$name" "$OUT/$name.plain" >"$OUT/$name.map"
  cc "${FLAGS[@]}" -shared -o "$OUT/$name" -Wl,-soname,"$name" -Wl,--version-script,"$OUT/$name.map" \
    -Wl,--no-as-needed -Wl,-z,defs "${sources[@]}" "$@"
  rm "$OUT/$name.plain" "$OUT/$name.map"
}

rm -rf "$OUT"
mkdir -p "$OUT"
renamed libibverbs
renamed libmlx5
link libibverbs.so.1 {settings,forward,qp,post,initiator,carrier,target,address,tokens,engine}.c -- \
  "$OUT/libibverbs.so.R"
link libmlx5.so.1 mlx5dv.c -- "$OUT/libibverbs.so.1" "$OUT/libmlx5.so.R"
# As a program is made where rdma-core is installed.
cc "${FLAGS[@]}" -o "$OUT/refusals" "$here/tests/refusals.c" "$LIB/libibverbs.so.1" "$LIB/libmlx5.so.1" \
  -Wl,-rpath-link,"$LIB:$DIR/guest/lib/x86_64-linux-gnu" -Wl,--allow-shlib-undefined
