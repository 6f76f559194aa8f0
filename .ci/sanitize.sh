#!/usr/bin/env bash
# sanitize.sh [address] [thread]: runs both, or one.
#
# address: the suites that load the library, with one that is built with AddressSanitizer; where the host is the shell,
# also with LeakSanitizer (Python leaks by itself). The runtime is that of the C compiler, loaded before the host's code.
#
# thread: the library's own tests of what has threads, with ThreadSanitizer. The standard library is built with it too: else the order that
# its locks make is not seen, and each use of them is reported.
#
# A nightly toolchain is needed, for thread also the standard library's sources.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-/usr/bin/python3}
CARGO=${CARGO:-cargo}
target=$(rustc -vV | sed -n 's/^host: //p')

if ! rustc +nightly -V >/dev/null 2>&1; then
    echo "sanitize: a nightly toolchain is missing: rustup toolchain install nightly" >&2
    exit 1
fi

address() {
    local runtime build=target/address status=0
    runtime=$(cc -print-file-name=libasan.so)
    [ -e "$runtime" ] || { echo "sanitize: the C compiler has no libasan" >&2; exit 1; }
    RUSTFLAGS="-Zsanitizer=address" "$CARGO" +nightly build --locked --lib --target "$target" --target-dir $build || return 1
    export LITESTREAM_TEST_LIBRARY=$PWD/$build/$target/debug/liblitestream LITESTREAM_TEST_SANITIZER=$runtime
    for suite in sql-tests/run sql-tests/hosts/run sql-tests/methods/run; do
        "$PYTHON" "$suite" || status=1
    done
    return $status
}

thread() {
    if [ ! -d "$(rustc +nightly --print sysroot)/lib/rustlib/src/rust/library" ]; then
        echo "sanitize: the standard library's sources are missing: rustup component add rust-src --toolchain nightly" >&2
        exit 1
    fi
    # The runtime does not know newer kernels' wide randomisation of addresses.
    TSAN_OPTIONS="suppressions=$PWD/.ci/tsan.supp" RUSTFLAGS="-Zsanitizer=thread" CFLAGS="-fsanitize=thread" setarch -R \
        "$CARGO" +nightly test --locked --lib -Zbuild-std --target "$target" --target-dir target/thread -- \
        lock:: pool:: store:: writer:: reader:: vfs::
}

[ $# -gt 0 ] || set -- address thread
status=0
for sanitizer in "$@"; do
    "$sanitizer" || status=1
done
exit $status
