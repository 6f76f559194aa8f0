#!/usr/bin/env bash
# Runs the suites that load the library with one that is built with AddressSanitizer; where the host is the shell, also
# with LeakSanitizer (Python leaks by itself).
#
# A nightly toolchain is needed, its standard library's sources are not. The runtime is that of the C compiler, loaded
# before the host's code.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-/usr/bin/python3}
CARGO=${CARGO:-cargo}
target=$(rustc -vV | sed -n 's/^host: //p')
build=target/address

if ! rustc +nightly -V >/dev/null 2>&1; then
    echo "sanitize: a nightly toolchain is missing: rustup toolchain install nightly" >&2
    exit 1
fi
runtime=$(cc -print-file-name=libasan.so)
[ -e "$runtime" ] || { echo "sanitize: the C compiler has no libasan" >&2; exit 1; }

RUSTFLAGS="-Zsanitizer=address" "$CARGO" +nightly build --locked --lib --target "$target" --target-dir $build
export LITESTREAM_TEST_LIBRARY=$PWD/$build/$target/debug/liblitestream LITESTREAM_TEST_SANITIZER=$runtime
status=0
for suite in sql-tests/run sql-tests/hosts/run sql-tests/methods/run; do
    "$PYTHON" "$suite" || status=1
done
exit $status
