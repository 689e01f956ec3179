#!/usr/bin/env bash
# image.sh DIR: makes DIR/vmlinux and DIR/initrd, from what packages.sh has put into DIR.
set -euo pipefail
here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
readonly here
readonly DIR=$1 ROOT=$1/root
readonly LIB=usr/lib/x86_64-linux-gnu
kernel=$(<"$DIR/debs/kernel/name")
readonly kernel

# What the guests load, with all that it depends on. Those of the second list are no modules, or
# have no dependants that name them, in some kernels.
readonly MODULES=(virtio_net 9p 9pnet_virtio overlay rdma_rxe rdma_ucm ib_uverbs unix_diag)
readonly MODULES_IF_ANY=(virtio_pci virtio_console fuse crc32_generic crc32c_generic crc32_pclmul)
readonly MODULE_TREES=(arch/x86/crypto crypto
  drivers/char/virtio_console.ko drivers/infiniband/core drivers/infiniband/sw/rxe drivers/net/net_failover.ko drivers/net/virtio_net.ko drivers/virtio
  fs/9p fs/configfs fs/fscache fs/fuse fs/netfs fs/overlayfs lib
  net/9p net/core net/ipv4/udp_tunnel.ko net/ipv6/ip6_udp_tunnel.ko net/unix)
readonly PROGRAMS=(bin/ip sbin/tc usr/bin/{rdma,ibv_devices,ibv_devinfo,ibv_rc_pingpong,rping}
  usr/bin/ib_{read,write,send,atomic}_{lat,bw})
# Loaded by name at run time, so that no program shows that it needs them. A thread of a C program
# ends by libgcc_s.
readonly LIBRARIES=("$LIB/libmlx5.so.1" "$LIB/libefa.so.1" "$LIB"/libibverbs/lib{rxe,siw}-rdmav34.so
  lib/x86_64-linux-gnu/libgcc_s.so.1 lib/x86_64-linux-gnu/{libdl.so.2,libm.so.6,libpthread.so.0}
  lib/x86_64-linux-gnu/{libresolv.so.2,librt.so.1,libutil.so.1})

fail() {
  printf 'rxe: %s\n' "$*" >&2
  exit 1
}

# The programs that packages.sh found missing on this machine.
PATH=$PATH:/sbin:/usr/sbin:$DIR/host/usr/bin:$DIR/host/bin:$DIR/host/sbin:$DIR/host/usr/sbin
host_libraries=$DIR/host/$LIB:$DIR/host/lib/x86_64-linux-gnu
guest_libraries=$DIR/guest/$LIB:$DIR/guest/lib/x86_64-linux-gnu
on_host() { LD_LIBRARY_PATH=$host_libraries "$@"; }

# --- kernel -------------------------------------------------------------------------------------

# le FILE OFFSET BYTES: a number of the boot header.
le() { od -An -t "u$3" -j "$2" -N "$3" "$1" | tr -d ' '; }

# An emulator starts an ELF twice as fast as a bzImage, which unpacks itself (offsets: the Linux/x86 boot protocol).
unpack_vmlinux() {
  local boot=$1 out=$2 start length
  start=$((($(le "$boot" $((0x1f1)) 1) + 1) * 512 + $(le "$boot" $((0x248)) 4)))
  length=$(le "$boot" $((0x24c)) 4)
  # Behind a zstd or xz stream stand four bytes that tell its length unpacked.
  head -c "$((length - 4))" <(tail -c "+$((start + 1))" "$boot") >"$out.packed"
  case $(od -An -t x1 -N 4 "$out.packed" | tr -d ' ') in
    28b52ffd) on_host zstd -dqcf "$out.packed" >"$out" ;;
    fd377a58) on_host xz -dcf "$out.packed" >"$out" ;;
    *) fail "the kernel of $kernel is packed in a way that is not known here" ;;
  esac
  rm "$out.packed"
}

unpack_kernel() {
  local trees=("${MODULE_TREES[@]/#/./lib/modules/$kernel/kernel/}")
  rm -rf "$DIR/kernel"
  mkdir "$DIR/kernel"
  # A tree that this kernel has not is missed by tar; depmod and modprobe find what matters.
  dpkg-deb --fsys-tarfile "$DIR"/debs/kernel/*.deb | tar -x -C "$DIR/kernel" --wildcards \
    "./boot/vmlinuz-$kernel" "./lib/modules/$kernel/modules.*" "${trees[@]/%/*}" \
    2>"$DIR/kernel/not-there" || grep -q 'Not found in archive' "$DIR/kernel/not-there" ||
    fail "cannot unpack the kernel: $(<"$DIR/kernel/not-there")"
  find "$DIR/kernel/lib" -name '*.ko.xz' -exec env LD_LIBRARY_PATH="$host_libraries" xz -d {} +
  on_host depmod -b "$DIR/kernel" "$kernel"
  unpack_vmlinux "$DIR/kernel/boot/vmlinuz-$kernel" "$DIR/vmlinux"
}

# dependencies MODULE...: paths in the order of loading.
dependencies() {
  local module
  for module in "$@"; do
    on_host modprobe --ignore-install -d "$DIR/kernel" -S "$kernel" --show-depends "$module" |
      sed -n 's/^insmod \([^ ]*\).*/\1/p'
  done
}

copy_modules() {
  local path
  mkdir -p "$ROOT/lib/modules"
  {
    dependencies "${MODULES_IF_ANY[@]}" 2>/dev/null || true
    dependencies "${MODULES[@]}"
  } | awk '!seen[$0]++' >"$DIR/kernel/order"
  while read -r path; do
    cp "$path" "$ROOT/lib/modules/"
    basename "$path"
  done <"$DIR/kernel/order" >"$ROOT/lib/modules/order"
}

# --- root file system ---------------------------------------------------------------------------

# guest_file PATH: where it is: among the packages for the guests, else on this machine.
guest_file() {
  local path
  for path in "$DIR/guest/$1" "$DIR/guest/${1#usr/}" "$DIR/guest/usr/$1" "/$1" "/usr/$1"; do
    [[ -e $path ]] && realpath "$path" && return
  done
  fail "a guest needs /$1, which is in no package for it nor on this machine"
}

copy_programs() {
  local path file
  for path in "${PROGRAMS[@]}"; do
    file=$(guest_file "$path")
    install -m 755 "$file" "$ROOT/bin/${path##*/}"
    needed "$file"
  done
  for path in "${LIBRARIES[@]}"; do
    file=$(guest_file "$path")
    install -D -m 755 "$file" "$ROOT/$LIB/${path##*x86_64-linux-gnu/}"
    needed "$file"
  done | sort -u
}

# Name and place of each library that a program needs, by the host's own loader.
needed() {
  local libraries
  libraries=$(LD_LIBRARY_PATH=$guest_libraries ldd "$1") || return 0
  [[ $libraries != *'not found'* ]] || fail "$1 needs libraries that are nowhere: $libraries"
  sed -nE 's/^\s*(\S+) => (\/\S+) .*/\1 \2/p; s/^\s*(\/\S+) \(.*/\1 \1/p' <<<"$libraries"
}

build_root() {
  rm -rf "$ROOT"
  mkdir -p "$ROOT"/usr/{bin,sbin,lib64} "$ROOT/$LIB" "$ROOT"/{dev,etc,host,proc,root,run,sys,tmp,var}
  chmod 1777 "$ROOT/tmp"
  local directory name path
  for directory in bin sbin lib lib64; do ln -s "usr/$directory" "$ROOT/$directory"; done
  install -m 755 "$(guest_file bin/busybox)" "$ROOT/bin/busybox"
  for name in $("$ROOT/bin/busybox" --list); do
    [[ -e $ROOT/bin/$name ]] || ln -s busybox "$ROOT/bin/$name"
  done
  # In place of the applets, which know neither RDMA nor network namespaces.
  rm -f "$ROOT"/bin/{ip,tc}
  copy_programs >"$DIR/libraries"
  while read -r name path; do
    if [[ $name == /* ]]; then
      install -D -m 755 "$(realpath "$path")" "$ROOT/lib64/${name##*/}"
    else
      install -D -m 755 "$(realpath "$path")" "$ROOT/$LIB/$name"
    fi
  done < <(sort -u "$DIR/libraries")
  install -D -m 644 -t "$ROOT/etc/libibverbs.d" "$DIR"/guest/etc/libibverbs.d/{rxe,siw}.driver
  printf 'root:x:0:0:root:/root:/bin/sh\n' >"$ROOT/etc/passwd"
  printf 'root:x:0:\n' >"$ROOT/etc/group"
  printf '127.0.0.1 localhost\n' >"$ROOT/etc/hosts"
  local node=0
  for name in {a..h}; do
    printf '10.77.0.%d host-%s\n' "$((node += 1))" "$name" >>"$ROOT/etc/hosts"
  done
  install -m 755 "$here/init" "$ROOT/init"
  install -m 755 "$here/barrier" "$ROOT/bin/barrier"
  copy_modules
}

unpack_kernel
build_root
# Not compressed: an emulated CPU would take longer to unpack it than this one to write it.
(cd "$ROOT" && find . -print0 | LC_ALL=C sort -z |
  LD_LIBRARY_PATH=$host_libraries cpio -o -0 -H newc -R 0:0 --quiet) >"$DIR/initrd"
