#!/usr/bin/env bash
# fuzz.sh [SECONDS]: runs every fuzz target for that long (an hour), side by side, beginning with the test vectors. What
# they find is left in fuzz/artifacts/. Needs a nightly toolchain; the flags are those of cargo-fuzz.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-3600}
CARGO=${CARGO:-cargo}
target=$(rustc -vV | sed -n 's/^host: //p')
coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares"

RUSTFLAGS="$(echo $coverage) --cfg fuzzing -Zsanitizer=address -Cdebug-assertions" "$CARGO" +nightly build --release \
    --manifest-path fuzz/Cargo.toml --target "$target" --target-dir target/fuzz
status=0 running=()
for source in fuzz/fuzz_targets/*.rs; do
    name=$(basename "$source" .rs)
    mkdir -p "fuzz/corpus/$name" "fuzz/artifacts/$name"
    "target/fuzz/$target/release/$name" "fuzz/corpus/$name" sql-tests/vectors -max_total_time="$seconds" -max_len=65536 \
        -print_final_stats=1 -artifact_prefix="fuzz/artifacts/$name/" >"fuzz/artifacts/$name.log" 2>&1 &
    running+=("$!:$name")
done
for run in "${running[@]}"; do
    if wait "${run%%:*}"; then
        echo "${run#*:}: $(grep -E 'number_of_executed_units' "fuzz/artifacts/${run#*:}.log") without a finding"
    else
        echo "${run#*:}: a finding, see fuzz/artifacts/${run#*:}.log" && status=1
    fi
done
exit $status
