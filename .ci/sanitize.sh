#!/usr/bin/env bash
# Runs the suites that load the library with one that is built with AddressSanitizer, the shell's also with
# LeakSanitizer; and with "threads" the unit tests of what runs on several threads with ThreadSanitizer.
#
#   sanitize.sh [address|threads]...        both without an argument
#
# A nightly toolchain is needed, its standard library's sources are not: that library is then not instrumented, and
# ThreadSanitizer does not see the order that its locks make (.ci/tsan.supp). The runtime is that of the C compiler,
# loaded before the host's.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-/usr/bin/python3}
CARGO=${CARGO:-cargo}
target=$(rustc -vV | sed -n 's/^host: //p')
build=target/sanitize
[ $# -gt 0 ] || set -- address threads
if ! rustc +nightly -V >/dev/null 2>&1; then
    echo "sanitize: a nightly toolchain is missing: rustup toolchain install nightly" >&2
    exit 1
fi

address() {
    local runtime failed=0
    runtime=$(cc -print-file-name=libasan.so)
    [ -e "$runtime" ] || { echo "sanitize: the C compiler has no libasan" >&2; return 1; }
    RUSTFLAGS="-Zsanitizer=address" "$CARGO" +nightly build --locked --lib --target "$target" --target-dir $build/address
    export LITESTREAM_TEST_LIBRARY=$PWD/$build/address/$target/debug/liblitestream LITESTREAM_TEST_SANITIZER=$runtime
    "$PYTHON" sql-tests/run || failed=1
    "$PYTHON" sql-tests/hosts/run || failed=1
    "$PYTHON" sql-tests/methods/run || failed=1
    return $failed
}

threads() {
    RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer" \
        TSAN_OPTIONS="suppressions=$PWD/.ci/tsan.supp history_size=4" \
        "$CARGO" +nightly test --locked --lib --target "$target" --target-dir $build/threads -- \
        lock:: writer:: store::memory store::file
}

status=0
for which in "$@"; do "$which" || status=1; done
exit $status
