#!/usr/bin/env bash
# Runs every suite, or those named in SUITES, and closes with the sum of what they counted.
#
# A suite is a command that ends with a line "NAME: N passed, N failed" (cargo test with its own), and fails when a
# case failed. All suites run, whatever happens to the first; the whole fails if one did. LITESTREAM_TEST_FULL=1
# makes the random suites longer. Each suite's output is also in .cache/log/.
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-/usr/bin/python3}
CARGO=${CARGO:-cargo}
LOG=${LITESTREAM_TEST_CACHE:-.cache}/log
mkdir -p "$LOG"
total_passed=0 total_failed=0 summary=

# counted LOGFILE: prints "PASSED FAILED", the sum of the closing lines in the log.
counted() {
    sed -nE -e 's/^test result: .* ([0-9]+) passed; ([0-9]+) failed;.*/\1 \2/p' \
        -e 's/^([a-z0-9]+: )?([0-9]+) passed, ([0-9]+) failed.*/\2 \3/p' "$1" |
        awk '{ passed += $1; failed += $2 } END { print passed + 0, failed + 0 }'
}

# suite NAME COMMAND...
suite() {
    local name=$1 started=$SECONDS status passed failed
    shift
    [[ -z ${SUITES:-} || " $SUITES " == *" $name "* ]] || return 0
    echo "== $name: $*"
    "$@" 2>&1 | tee "$LOG/$name.log"
    status=${PIPESTATUS[0]}
    read -r passed failed < <(counted "$LOG/$name.log")
    # A command that counts nothing (a check) is one case; one that fell before it counted is one failure.
    if [ "$status" = 0 ] && [ $((passed + failed)) = 0 ]; then passed=1; fi
    if [ "$status" != 0 ] && [ "$failed" = 0 ]; then failed=1; fi
    total_passed=$((total_passed + passed)) total_failed=$((total_failed + failed))
    summary+=$(printf '%-8s %5d passed %3d failed %5d s' "$name" "$passed" "$failed" $((SECONDS - started)))$'\n'
}

.ci/deps.sh peers sqlite bindings || exit 1

# Real S3 servers for the whole run; the Rust tests find them by LITESTREAM_TEST_S3, the others by themselves.
stores=sql-tests/stores/objstore.sh
servers="seaweed moto"
free_port() {
    local port=$1
    while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do port=$((port + 100)); done
    echo "$port"
}
export LITESTREAM_TEST_SEAWEED_PORT=${LITESTREAM_TEST_SEAWEED_PORT:-$(free_port 18333)}
export LITESTREAM_TEST_MOTO_PORT=${LITESTREAM_TEST_MOTO_PORT:-$(free_port 18336)}
export LITESTREAM_TEST_RCLONE_PORT=${LITESTREAM_TEST_RCLONE_PORT:-$(free_port 18334)}
trap 'for server in $servers rclone; do $stores stop "$server"; done' EXIT
for server in $servers; do
    $stores install "$server" && url=$($stores start "$server") || exit 1
    LITESTREAM_TEST_S3=${LITESTREAM_TEST_S3:+$LITESTREAM_TEST_S3,}$url
done
export LITESTREAM_TEST_S3
# A store that ignores conditions, for the one test of what is made of it.
$stores install rclone && LITESTREAM_TEST_RCLONE=$($stores start rclone) || exit 1
export LITESTREAM_TEST_RCLONE
eval "$($stores env)"

full=${LITESTREAM_TEST_FULL:-}
suite fmt "$CARGO" fmt --check
suite clippy "$CARGO" clippy --locked --all-targets --quiet -- -D warnings
suite cargo "$CARGO" test --locked --quiet
suite sql "$PYTHON" sql-tests/run
suite hosts "$PYTHON" sql-tests/hosts/run
suite methods "$PYTHON" sql-tests/methods/run
suite bindings "$PYTHON" sql-tests/bindings/run
suite foreign "$PYTHON" sql-tests/foreign/run --seeds "1-$([ -n "$full" ] && echo 100 || echo 6)"
suite model "$PYTHON" sql-tests/model/run --seeds "1-$([ -n "$full" ] && echo 1000 || echo 300)"
suite crash "$PYTHON" sql-tests/crash/run --rounds "$([ -n "$full" ] && echo 1000 || echo 200)"
suite steps "$PYTHON" sql-tests/faults/run steps --share "$([ -n "$full" ] && echo 1 || echo 0.01)"
suite power "$PYTHON" sql-tests/faults/run power --seeds "1-$([ -n "$full" ] && echo 25 || echo 2)"
suite disk "$PYTHON" sql-tests/faults/run disk --trials "$([ -n "$full" ] && echo 0 || echo 8)"
suite peers "$PYTHON" sql-tests/peers/run
suite outages "$PYTHON" sql-tests/outages/run
suite replicas "$PYTHON" sql-tests/replicas/run
# shellcheck disable=SC2046  # an option or nothing
suite sqlite "$PYTHON" sql-tests/sqlite/run $([ -n "$full" ] && echo --all)

printf '\n%s' "$summary"
echo "$total_passed passed, $total_failed failed"
[ "$total_failed" = 0 ] && [ "$total_passed" != 0 ]
