#!/usr/bin/env bash
# Installs a library that a peer is linked with, when that peer is wanted and the library is missing:
#   benches/setup.sh LIBRARY
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tests/debian.sh

case $1 in
  fabric) [[ -e /usr/include/rdma/fabric.h ]] || packages+=(libfabric-dev) ;;
  *) fail "no library $1 is known here" ;;
esac
install_packages
