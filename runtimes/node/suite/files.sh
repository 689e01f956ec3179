#!/usr/bin/env bash
# Node's own test files: those of the source package that Debian has of the major version that is tested, below
# target/node-suite. It is taken by apt, which checks it, without a change to the machine's own lists. Where they cannot
# be had this fails, unless MITOSIS_TEST_NODE_SUITE=optional: then target/node-suite/missing says why, and suite.test.js is
# skipped with that. The first line of target/node-suite/made-from is their version.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."

# Of whatever version: suite.test.js is lenient where it is not the one that known.json tells of.
readonly MAJOR=20
readonly SUITE=trixie
readonly KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
DIR=$(realpath -m "${CARGO_TARGET_DIR:-target}")/node-suite
readonly DIR
# All that decides what stands there.
recipe=$(sha256sum <runtimes/node/suite/files.sh)
readonly recipe

missing() {
  printf '%s\n' "$*" >"$DIR/missing"
  if [[ ${MITOSIS_TEST_NODE_SUITE:-} == optional ]]; then
    printf "Node's own tests will be SKIPPED: %s\n" "$*" >&2
    exit 0
  fi
  printf "Node's own tests cannot be had: %s\nMITOSIS_TEST_NODE_SUITE=optional runs the others without them.\n" "$*" >&2
  exit 1
}

[[ -f $DIR/made-from && $(tail -n 1 "$DIR/made-from") == "$recipe" ]] && exit
rm -rf "$DIR"
mkdir -p "$DIR/apt/lists/partial"
command -v apt-get >/dev/null || missing "no apt-get here, and they are Debian's source package of Node $MAJOR"
[[ -f $KEYRING ]] || missing "no $KEYRING, by which apt knows Debian $SUITE"
# Where this machine has its own packages from.
mirror=$(apt-get update --print-uris 2>/dev/null | sed -n "s#^'\(.*/debian\)/dists/[^/]*/InRelease' .*#\1#p" | sed -n 1p) || true
[[ -n $mirror ]] || missing "apt of this machine names no mirror of Debian"
printf 'deb-src [signed-by=%s] %s %s main\n' "$KEYRING" "$mirror" "$SUITE" >"$DIR/apt/sources.list"

own_apt() {
  apt-get -qq -o Dir::Etc::SourceList="$DIR/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
    -o Dir::State::Lists="$DIR/apt/lists" -o Dir::Cache="$DIR/apt" -o APT::Sandbox::User="$(id -un)" \
    -o Acquire::Retries=5 "$@"
}

cd "$DIR/apt"
own_apt update >log 2>&1 && own_apt source --download-only --tar-only --only-source nodejs >>log 2>&1 ||
  missing "apt could not get the source package nodejs of Debian $SUITE: $(tail -n 1 log)"
archive=$(compgen -G 'nodejs_*.orig.tar.*') || missing "the source package nodejs of Debian $SUITE has no orig.tar"
version=${archive#nodejs_}
version=${version%%[+-]*}
[[ $version == "$MAJOR".* ]] || missing "the nodejs of Debian $SUITE is $version, not of version $MAJOR"
tar --extract --file "$archive" --directory "$DIR" --strip-components 1 \
  "node-v$version"/test/{common,fixtures,parallel} 2>>log || missing "tar could not unpack $archive: $(tail -n 1 log)"
cd "$DIR"
rm -rf apt
printf '%s\n' "$version" "$recipe" >made-from
