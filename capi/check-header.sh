#!/usr/bin/env bash
# Compares include/mitosis.h with what the source of capi makes; --write puts it there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly HEADER=include/mitosis.h
made=$(mktemp)
trap 'rm -f "$made"' EXIT
"${CARGO:-cargo}" run --quiet --package mitosis-header >"$made"
if [[ ${1:-} == --write ]]; then
  cp "$made" "$HEADER"
  chmod 644 "$HEADER"
elif ! diff -u "$HEADER" "$made"; then
  echo "$HEADER is not what capi/src makes: run 'capi/check-header.sh --write' and commit it" >&2
  exit 1
fi
echo "$HEADER: 1 passed, 0 failed"
