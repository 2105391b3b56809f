#!/usr/bin/env bash
# Runs the fuzz targets of tests/fuzz, guided by coverage (libFuzzer), and prints a line for each.
#
#   scripts/fuzz.sh [TARGET...] [--seconds N] [--keep]
#
#   TARGET       a target by name (tests/fuzz/src/lib.rs); all by default
#   --seconds N  for each target; 60 by default
#   --keep       add the smallest set of inputs that covers what was found to tests/fuzz/corpus
#
# It needs a C++ compiler. A finding ends the run of its target: its input is in target/fuzz/findings.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=60 keep='' targets=()
while (($#)); do
    case $1 in
        --seconds) seconds=${2:?--seconds needs a number}; shift 2 ;;
        --keep) keep=1; shift ;;
        -*) sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
        *) targets+=("$1"); shift ;;
    esac
done
((${#targets[@]})) || mapfile -t targets < <(ls tests/fuzz/corpus)

# What cargo-fuzz passes, without a sanitizer, which needs a nightly compiler. Overflow checks are on in release.
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
export CARGO_PROFILE_RELEASE_DEBUG=none CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true
flags=(-Cpasses=sancov-module)
for option in level=4 inline-8bit-counters pc-table trace-compares; do
    flags+=("-Cllvm-args=-sanitizer-coverage-$option")
done
folder=${CARGO_TARGET_DIR:-target}/fuzz
triple=x86_64-unknown-linux-gnu
# With --target, build scripts and procedural macros are not instrumented.
RUSTFLAGS="${flags[*]}" CARGO_TARGET_DIR=$folder \
    cargo build --release --locked --package fuzz --features libfuzzer --bin fuzz --target $triple
program=$folder/$triple/release/fuzz

status=0
for target in "${targets[@]}"; do
    corpus=tests/fuzz/corpus/$target
    [[ -d $corpus ]] || { echo "$target: no such target" >&2; exit 2; }
    found=$folder/corpus/$target log=$folder/$target.log
    mkdir -p "$found" "$folder/findings"
    result=0
    FUZZ_TARGET=$target "$program" "$found" "$corpus" -max_total_time="$seconds" -timeout=10 \
        -rss_limit_mb=2048 -max_len=8192 -print_final_stats=1 \
        -artifact_prefix="$folder/findings/$target-" >"$log" 2>&1 || result=$?
    inputs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    edges=$(grep -o ' cov: [0-9]*' "$log" | tail -1 || true)
    if ((result)); then
        status=1
        echo "$target: FAILED after ${inputs:-0} inputs, see $log"
    else
        echo "$target: $inputs inputs,$edges, no finding"
    fi
    if [[ $keep ]]; then
        FUZZ_TARGET=$target "$program" -merge=1 -max_len=1024 "$corpus" "$found" >>"$log" 2>&1
    fi
done
exit "$status"
