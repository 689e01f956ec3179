# Sourced by the scripts that take Debian packages: fetches and unpacks them under $DIR, installs nothing.
# A private apt state leaves the machine's own package lists alone.

fail() {
  printf 'rxe: %s\n' "$*" >&2
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

have apt-get && have dpkg-deb ||
  fail 'the guests are made of Debian packages; this machine has no apt-get or no dpkg-deb'

mkdir -p "$DIR/apt/lists/partial" "$DIR/apt/cache/archives/partial"
apt_dir=$(realpath "$DIR/apt")
readonly APT=(-q -o "Dir::State::lists=$apt_dir/lists" -o "Dir::Cache=$apt_dir/cache"
  -o APT::Sandbox::User=root -o Debug::NoLocking=1)

# The package lists of the machine's own suites.
refresh() {
  apt-get "${APT[@]}" update >"$DIR/apt/log" 2>&1 || {
    tail -n 20 "$DIR/apt/log" >&2
    fail 'apt-get update failed (its last lines stand above)'
  }
}

# download DIRECTORY PACKAGE[=VERSION]...
download() {
  local directory=$1 log
  shift
  mkdir -p "$directory"
  log=$(mktemp)
  if ! (cd "$directory" && apt-get "${APT[@]}" download "$@") >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    rm -f "$log"
    fail "apt-get could not download $* (its last lines stand above)"
  fi
  rm -f "$log"
}

# What an installation of $@ would bring to this machine, as PACKAGE=VERSION.
missing_here() {
  apt-get "${APT[@]}" install --simulate --no-install-recommends "$@" |
    sed -nE 's/^Inst ([^ ]+) (\[[^]]*\] )?\(([^ ]+) .*/\1=\3/p'
}

# unpack DIRECTORY DEB...
unpack() {
  local directory=$1 deb
  shift
  rm -rf "$directory"
  mkdir -p "$directory"
  for deb in "$@"; do
    dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$directory" --exclude='./usr/share/doc' \
      --exclude='./usr/share/locale' --exclude='./usr/share/man'
  done
  # An absolute link would lead to this machine's own file.
  local link target
  while read -r link target; do
    [[ ! -e $directory$target ]] || ln -sfr "$directory$target" "$link"
  done < <(find "$directory" -type l -lname '/*' -printf '%p %l\n')
}
