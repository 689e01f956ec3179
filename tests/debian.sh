# Sourced by set-up scripts: Debian packages, each installed only if what it is for is missing.

fail() {
  printf 'setup: %s\n' "$*" >&2
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

packages=()

# need COMMAND PACKAGE
need() { have "$1" || packages+=("$2"); }

install_packages() {
  ((${#packages[@]})) || return 0
  have apt-get || fail "missing: ${packages[*]} (Debian's names); install them and run this again"
  [[ $(id -u) == 0 ]] || fail "missing: ${packages[*]}; run 'sudo apt-get install ${packages[*]}'"
  printf 'setup: installing %s\n' "${packages[*]}" >&2
  local log
  log=$(mktemp)
  export DEBIAN_FRONTEND=noninteractive
  # The package lists of a fresh image are empty, and those of an old one name files long gone.
  if ! { apt-get update -q && apt-get install -q -y --no-install-recommends "${packages[@]}"; } \
    >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    rm -f "$log"
    fail "apt-get could not install ${packages[*]} (its last lines stand above)"
  fi
  rm -f "$log"
  packages=()
}

# unpack PACKAGE FILE: the files of a package below target/debian/PACKAGE, if FILE of it is not there yet. For
# programs whose package would start a service here.
unpack() {
  local dir=${CARGO_TARGET_DIR:-target}/debian/$1 scratch
  [[ -x $dir/$2 ]] && return
  have apt-get || fail "no $dir/$2, and no apt-get to get Debian's package $1 with"
  scratch=$(mktemp -d)
  if ! (cd "$scratch" && { apt-get download -q "$1" || { apt-get update -q && apt-get download -q "$1"; }; }) \
    >"$scratch/log" 2>&1; then
    tail -n 20 "$scratch/log" >&2
    rm -rf "$scratch"
    fail "apt-get could not download $1 (its last lines stand above)"
  fi
  rm -rf "$dir"
  mkdir -p "$dir"
  dpkg-deb --extract "$scratch"/*.deb "$dir"
  rm -rf "$scratch"
}
