#!/usr/bin/env bash
# packages.sh DIR: what the guests need from Debian, into DIR; nothing is installed on this machine.
#
#   DIR/debs/    the packages as downloaded, with the name of the kernel in debs/kernel/name
#   DIR/host/    programs for this machine that it has not: an emulator, cpio, depmod, zstd
#   DIR/guest/   programs and libraries for the guests, and headers of these libraries
#
# With RXE_BESIDE=OTHER, a folder that was made so, only the kernel is fetched: guest/ and host/ are OTHER's.
#
# Installing would need root, and on a machine with qemu-utils from backports the emulator of Debian
# 12 would remove these. A private apt state leaves the machine's own package lists alone.
set -euo pipefail

readonly DIR=$1 WANTED_SERIES=${RXE_KERNEL:-} BESIDE=${RXE_BESIDE:-}
# The libraries that these need are here or found on this machine: image.sh looks at each.
readonly GUEST_PACKAGES=(busybox-static iproute2 libbpf1 libelf1 libmnl0 libbsd0 libmd0 libcap2
  libselinux1 libtirpc3 libxtables12 libdb5.3 ibverbs-providers ibverbs-utils libibumad3
  libibverbs1 libnl-3-200 libnl-route-3-200 libpci3 librdmacm1 perftest rdma-core rdmacm-utils)
# Beside them, for what is compiled here against the guests' own libraries.
readonly HEADER_PACKAGES=(libibverbs-dev)
# Tried in this order. A kernel of both series has rdma_rxe as a module.
readonly KERNELS=('linux-image-6\.12\.[0-9]+\+deb[0-9]+-amd64' 'linux-image-6\.1\.0-[0-9]+-amd64')

# The package lists, too.
[[ -z $BESIDE ]] || for shared in apt guest host; do ln -sfn "$BESIDE/$shared" "$DIR/$shared"; done
# shellcheck source=apt.sh
source "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/apt.sh"

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

wanted=()
have qemu-system-x86_64 || wanted+=(qemu-system-x86)
have cpio || wanted+=(cpio)
have depmod || [[ -x /sbin/depmod ]] || wanted+=(kmod)
have zstd || wanted+=(zstd)
have xz || wanted+=(xz-utils)

rm -rf "$DIR/debs"
mkdir -p "$DIR/debs"
refresh
kernel=$(choose_kernel)
if [[ -n $BESIDE ]]; then
  printf 'rxe: downloading %s\n' "$kernel" >&2
  download "$DIR/debs/kernel" "$kernel"
  printf '%s\n' "${kernel#linux-image-}" >"$DIR/debs/kernel/name"
  exit
fi
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
