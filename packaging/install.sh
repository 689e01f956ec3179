#!/usr/bin/env bash
# Puts what `cargo build --release` has made below a prefix, or takes it away again:
#
#     packaging/install.sh install|uninstall TARGET PREFIX [DESTDIR]
#
# TARGET is cargo's target folder. DESTDIR, for packagers, stands before each path and in no file. `make install` builds first.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly verb=$1 release=$2/release prefix=$3 destdir=${4:-}
[[ $prefix == /* && $prefix != *[[:space:]:]* ]] || {
  echo "PREFIX is '$prefix': give an absolute path without spaces and colons, as LD_PRELOAD has to name a file in it" >&2
  exit 1
}
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -1)
readonly version soname=libmitosis.so.${version%%.*} doc=share/doc/mitosis

# file MODE SOURCE PATH: a copy of SOURCE at PATH below the prefix.
# link TARGET PATH, made PATH COMMAND...: likewise a symbolic link, and what a command prints.
case $verb in
  install)
    file() { install -D --mode "$1" "$2" "$destdir$prefix/$3"; }
    link() { ln -sfn "$1" "$destdir$prefix/$2"; }
    made() {
      install -D --mode 644 /dev/null "$destdir$prefix/$1"
      "${@:2}" >"$destdir$prefix/$1"
    }
    ;;
  uninstall)
    gone() { rm -f "$destdir$prefix/$1"; }
    file() { gone "$3"; }
    link() { gone "$2"; }
    made() { gone "$1"; }
    ;;
  *)
    echo "'$verb' is neither install nor uninstall" >&2
    exit 1
    ;;
esac

filled() { sed -e "s|@PREFIX@|$prefix|g" -e "s|@VERSION@|$version|g" "$1"; }

file 755 "$release/mitosis" bin/mitosis
file 755 "$release/libmitosis_preload.so" lib/libmitosis_preload.so
file 755 "$release/libmitosis.so" "lib/libmitosis.so.$version"
link "libmitosis.so.$version" "lib/$soname"
link "$soname" lib/libmitosis.so
file 644 "$release/libmitosis.a" lib/libmitosis.a
file 644 include/mitosis.h include/mitosis.h
file 644 include/mitosis_preload.h include/mitosis_preload.h
made lib/pkgconfig/mitosis.pc filled packaging/mitosis.pc.in
made lib/systemd/system/mitosis-agent.service filled packaging/mitosis-agent.service.in
made share/bash-completion/completions/mitosis "$release/mitosis" completion bash
made share/zsh/site-functions/_mitosis "$release/mitosis" completion zsh
made share/fish/vendor_completions.d/mitosis.fish "$release/mitosis" completion fish
for page in LICENSE README.md CHANGELOG.md docs/*.md; do
  file 644 "$page" "$doc/$(basename "$page")"
done
# The other folders may be anybody's.
[[ $verb == install || ! -d $destdir$prefix/$doc ]] || rmdir --ignore-fail-on-non-empty "$destdir$prefix/$doc"
