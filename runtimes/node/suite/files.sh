#!/usr/bin/env bash
# Node's own test files: those of the source package that Debian has of the major version that is tested, below
# target/node-suite. It is taken by apt, which checks it, without a change to the machine's own lists. Where they cannot
# be had, target/node-suite/missing says why, and suite.test.js is skipped with that.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."

# known.json tells of these files and no others.
readonly VERSION=20.19.2
readonly SUITE=trixie
readonly KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
DIR=$(realpath -m "${CARGO_TARGET_DIR:-target}")/node-suite
readonly DIR

missing() {
  printf '%s\n' "$*" >"$DIR/missing"
  printf "Node's own tests will be SKIPPED: %s\n" "$*" >&2
  exit 0
}

[[ -f $DIR/made-from && $(<"$DIR/made-from") == "$VERSION" ]] && exit
rm -rf "$DIR"
mkdir -p "$DIR/apt/lists/partial"
command -v apt-get >/dev/null || missing "no apt-get here, and they are Debian's source package of Node $VERSION"
[[ -f $KEYRING ]] || missing "no $KEYRING, by which apt knows Debian $SUITE"
# Where this machine has its own packages from.
mirror=$(apt-get update --print-uris 2>/dev/null | sed -n "s#^'\(.*/debian\)/dists/[^/]*/InRelease' .*#\1#p" | sed -n 1p) || true
[[ -n $mirror ]] || missing "apt of this machine names no mirror of Debian"
printf 'deb-src [signed-by=%s] %s %s main\n' "$KEYRING" "$mirror" "$SUITE" >"$DIR/apt/sources.list"

own_apt() {
  apt-get -qq -o Dir::Etc::SourceList="$DIR/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
    -o Dir::State::Lists="$DIR/apt/lists" -o Dir::Cache="$DIR/apt" -o APT::Sandbox::User="$(id -un)" "$@"
}

cd "$DIR/apt"
own_apt update >log 2>&1 && own_apt source --download-only --tar-only --only-source nodejs >>log 2>&1 ||
  missing "apt could not get the source package nodejs of Debian $SUITE: $(tail -n 1 log)"
archive=nodejs_$VERSION+dfsg.orig.tar.xz
[[ -f $archive ]] || missing "the nodejs of Debian $SUITE is not $VERSION any more: $(compgen -G 'nodejs_*.orig.tar.*')"
tar --extract --file "$archive" --directory "$DIR" --strip-components 1 \
  "node-v$VERSION"/test/{common,fixtures,parallel} 2>>log || missing "tar could not unpack $archive: $(tail -n 1 log)"
cd "$DIR"
rm -rf apt
printf '%s\n' "$VERSION" >made-from
