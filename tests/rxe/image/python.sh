#!/usr/bin/env bash
# python.sh DIR PYTHON: makes DIR/initrd-python, which is DIR/initrd and, behind it, the interpreter
# PYTHON of a venv with its library and the venv's numpy and mitosis, all at the paths that they have here.
# In the guest's memory: no file system that a guest could mount imports numpy as fast.
set -euo pipefail
readonly DIR=$1 PYTHON=$2
PATH=$PATH:$DIR/host/usr/bin:$DIR/host/bin
readonly TREE=$DIR/python

mapfile -t places < <("$PYTHON" -c '
import os, sys, sysconfig
print(os.path.realpath(sys.executable))
print(sysconfig.get_path("stdlib"))
print(sysconfig.get_path("platlib"))
print(sys.prefix)')
((${#places[@]} == 4)) || { echo "rxe: $PYTHON does not run" >&2; exit 1; }
readonly interpreter=${places[0]} library=${places[1]} packages=${places[2]} venv=${places[3]}

# What the tests import is the standard library alone, and of the rest what runs.
readonly NOT_STDLIB=({site,dist}-packages 'config-*' ensurepip idlelib lib2to3 pydoc_data test tests
  tkinter turtledemo '_tkinter*' '*.opt-[12].pyc')
readonly NOT_PACKAGES=(bin include tests '*.a' '*.pyi')

# copy PATH [TAR OPTION]...: at its own path, a link as it is.
copy() {
  local path=$1
  shift
  tar -c "$@" -C / "${path#/}" | tar -x -C "$TREE"
}

# A link and what it leads to. Directories that are links (/lib) are so in the guests, too.
copy_link() {
  local path=$1 target
  while :; do
    path=$(realpath "$(dirname "$path")")/$(basename "$path")
    copy "$path"
    [[ -L $path ]] || return 0
    target=$(readlink "$path")
    [[ $target == /* ]] || target=$(dirname "$path")/$target
    path=$target
  done
}

# Libraries of $1 that are not among the guests' own.
copy_libraries() {
  local name path
  while read -r name path; do
    [[ -n ${copied[$name]:-} || -e $DIR/root/usr/lib/x86_64-linux-gnu/$name ]] || copy_link "$path"
    copied[$name]=yes
  done < <(ldd "$1" | sed -nE 's/^\s*(\S+) => (\/\S+) .*/\1 \2/p')
}

declare -A copied=()
rm -rf "$TREE"
mkdir "$TREE"
copy "$library" "${NOT_STDLIB[@]/#/--exclude=}"
for name in numpy numpy.libs mitosis; do
  [[ -e $packages/$name ]] || {
    echo "rxe: no $packages/$name; run 'make install-python'" >&2
    exit 1
  }
  copy "$packages/$name" "${NOT_PACKAGES[@]/#/--exclude=}"
done
copy "$venv/pyvenv.cfg"
copy_link "$interpreter"
copy_link "$PYTHON"
while read -r file; do
  copy_libraries "$file"
done < <(echo "$interpreter" && find "$TREE" -name '*.so*' -type f -printf '/%P\n')
{
  cat "$DIR/initrd"
  (cd "$TREE" && find . -print0 | LC_ALL=C sort -z |
    LD_LIBRARY_PATH=$DIR/host/usr/lib/x86_64-linux-gnu cpio -o -0 -H newc -R 0:0 --quiet)
} >"$DIR/initrd-python"
