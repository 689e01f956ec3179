#!/usr/bin/env bash
# libFuzzer on the targets of this crate, two at a time, with the compiler that builds everything else.
#
#   run.sh SECONDS [TARGET...]    so long on each target, or on each that is named
#   run.sh keep [TARGET...]       what was found since, as few files as reach the same, to the corpus in the tree
#
# Finds collect in target/fuzz/TARGET and are where the next run begins. An input on which a property does not hold
# is left in target/fuzz/failed, and this ends with 1:
#   FUZZ_TARGET=read target/x86_64-unknown-linux-gnu/debug/mitosis-fuzz target/fuzz/failed/read-...
set -euo pipefail
cd "$(dirname "$0")/../.."

what=${1:?"run.sh SECONDS [TARGET...]"}
shift
targets=("$@")
[ ${#targets[@]} -gt 0 ] || for folder in tests/fuzz/corpus/*/; do targets+=("$(basename "$folder")"); done

target_dir=${CARGO_TARGET_DIR:-target}
# Named, so that programs that run while it is built are not instrumented; which is also why they are built apart.
triple=$(rustc -vV | sed -n 's/^host: //p')
program=$target_dir/$triple/debug/mitosis-fuzz
# What clang's -fsanitize=fuzzer-no-link asks LLVM for. An argument of rustc's own, of stable Rust.
flags=(-Cpasses=sancov-module)
for option in level=4 inline-8bit-counters pc-table trace-compares; do
    flags+=("-Cllvm-args=-sanitizer-coverage-$option")
done
CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f'; echo "${flags[*]}") \
    cargo build --quiet --package mitosis-fuzz --features libfuzzer --target "$triple"

# One input that takes a minute hangs, on a machine that pauses, too; none is longer than what a few requests take.
limits=(-timeout=60 -rss_limit_mb=2048 -max_len=4096)
found=$target_dir/fuzz
mkdir -p "$found/failed" "$found/log"

if [ "$what" = keep ]; then
    for name in "${targets[@]}"; do
        kept=$(mktemp -d)
        mkdir -p "$found/$name"
        FUZZ_TARGET=$name "$program" "${limits[@]}" -set_cover_merge=1 "$kept" \
            "tests/fuzz/corpus/$name" "$found/$name" 2>"$found/log/$name.merge"
        # Some dozens: long ones reach the most, and what is left out is found again. What has a name is kept.
        find "tests/fuzz/corpus/$name" -regextype egrep -regex '.*/[0-9a-f]{16}' -delete
        mapfile -t longest < <(find "$kept" -type f -printf '%s %f\n' | sort -k 1,1nr -k 2 | cut -d ' ' -f 2)
        for file in "${longest[@]:0:24}"; do
            cp "$kept/$file" "tests/fuzz/corpus/$name/${file:0:16}"
        done
        rm -r "$kept"
        echo "$name: $(ls "tests/fuzz/corpus/$name" | wc -l) inputs"
    done
    exit
fi

# What failed once and does so still.
fails_again() {
    local input
    for input in "$found/failed/$1-"*; do
        [ -e "$input" ] || continue
        FUZZ_TARGET=$1 "$program" "${limits[@]}" "$input" || return 0
        rm "$input"
    done
    return 1
}

# Fuzzers that run.
children=$(mktemp)
trap 'xargs -r kill <"$children" 2>/dev/null || true; rm -f "$children"' EXIT

# One target; prints a line of what was done.
run() {
    local name=$1 log=$found/log/$1 fuzzer
    mkdir -p "$found/$name"
    if fails_again "$name" >"$log" 2>&1; then
        echo "fuzz $name ... FAILED as before"
        grep -m 12 -E "panicked|ERROR|assert|left:|right:" "$log" | cut -c 1-400
        return 1
    fi
    FUZZ_TARGET=$name "$program" "${limits[@]}" -seed="${FUZZ_SEED:-0}" -max_total_time="$what" -print_final_stats=1 \
        -artifact_prefix="$found/failed/$name-" "$found/$name" "tests/fuzz/corpus/$name" >"$log" 2>&1 &
    fuzzer=$!
    echo "$fuzzer" >>"$children"
    if wait "$fuzzer"; then
        local runs covered
        runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
        covered=$(grep -o 'cov: [0-9]*' "$log" | tail -n 1)
        echo "fuzz $name ... ok ($runs runs, ${covered/cov:/edges:})"
    else
        echo "fuzz $name ... FAILED"
        # What it says of itself, without the addresses of libFuzzer's own frames.
        grep -m 12 -E "panicked|ERROR|assert|left:|right:|bytes of|Test unit" "$log" | cut -c 1-400 || tail -n 20 "$log"
        # Where this machine is gone tomorrow, this is all that is left of it.
        find "$found/failed" -name "$name-*" -newer "$children" -exec base64 -w 0 {} \; | cut -c 1-8000
        return 1
    fi
}

begun=$SECONDS
failed=0
for ((at = 0; at < ${#targets[@]}; at += 2)); do
    pids=()
    for name in "${targets[@]:at:2}"; do
        run "$name" &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do wait "$pid" || failed=$((failed + 1)); done
done
verdict=ok
[ "$failed" = 0 ] || verdict=FAILED
echo "test result: $verdict. $((${#targets[@]} - failed)) passed; $failed failed; finished in $((SECONDS - begun))s"
[ "$failed" = 0 ]
