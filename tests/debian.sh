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
