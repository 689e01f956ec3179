#!/usr/bin/env bash
# packages.sh DIR: what the guests need from Debian, into DIR; nothing is installed on this machine.
#
#   DIR/debs/    the packages as downloaded, with the name of the kernel in debs/kernel/name
#   DIR/host/    programs for this machine that it has not: an emulator, cpio, depmod, zstd
#   DIR/guest/   programs and libraries for the guests, and headers of these libraries
#
# Installing would need root, and on a machine with qemu-utils from backports the emulator of Debian
# 12 would remove these. A private apt state leaves the machine's own package lists alone.
set -euo pipefail

readonly DIR=$1 WANTED_SERIES=${RXE_KERNEL:-}
# The libraries that these need are here or found on this machine: image.sh looks at each.
readonly GUEST_PACKAGES=(busybox-static iproute2 libbpf1 libelf1 libmnl0 libbsd0 libmd0 libcap2
  libselinux1 libtirpc3 libxtables12 libdb5.3 ibverbs-providers ibverbs-utils libibumad3
  libibverbs1 libnl-3-200 libnl-route-3-200 libpci3 librdmacm1 perftest rdma-core rdmacm-utils)
# Beside them, for what is compiled here against the guests' own libraries.
readonly HEADER_PACKAGES=(libibverbs-dev)
# Tried in this order. A kernel of both series has rdma_rxe as a module.
readonly KERNELS=('linux-image-6\.12\.[0-9]+\+deb[0-9]+-amd64' 'linux-image-6\.1\.0-[0-9]+-amd64')

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

# The newest kernel of the first series that is there.
choose_kernel() {
  local series name
  for series in "${KERNELS[@]}"; do
    # The caller may want one of them, by a number such as 6.1.
    [[ $series == "linux-image-${WANTED_SERIES:+${WANTED_SERIES//./\\.}\\.}"* ]] || continue
    name=$(apt-cache "${APT[@]}" pkgnames linux-image-6. | grep -xE "$series" | sort -V | tail -n 1)
    [[ -z $name ]] || { printf '%s\n' "$name"; return; }
  done
  fail "the configured suites have no kernel ${WANTED_SERIES:-"like ${KERNELS[*]}"}"
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

wanted=()
have qemu-system-x86_64 || wanted+=(qemu-system-x86)
have cpio || wanted+=(cpio)
have depmod || [[ -x /sbin/depmod ]] || wanted+=(kmod)
have zstd || wanted+=(zstd)
have xz || wanted+=(xz-utils)

rm -rf "$DIR/debs"
mkdir -p "$DIR/debs"
apt-get "${APT[@]}" update >"$DIR/apt/log" 2>&1 || {
  tail -n 20 "$DIR/apt/log" >&2
  fail 'apt-get update failed (its last lines stand above)'
}
kernel=$(choose_kernel)
printf 'rxe: downloading %s, %s\n' "$kernel" "${wanted[*]:+${wanted[*]}, }programs for the guests" >&2
download "$DIR/debs/kernel" "$kernel"
printf '%s\n' "${kernel#linux-image-}" >"$DIR/debs/kernel/name"
download "$DIR/debs/guest" "${GUEST_PACKAGES[@]}" "${HEADER_PACKAGES[@]}"
unpack "$DIR/guest" "$DIR"/debs/guest/*.deb
rm -rf "$DIR/host"
mkdir -p "$DIR/host"
if ((${#wanted[@]})); then
  mapfile -t packages < <(missing_here "${wanted[@]}")
  download "$DIR/debs/host" "${packages[@]}"
  unpack "$DIR/host" "$DIR"/debs/host/*.deb
fi
