#!/usr/bin/env bash
# install.sh LIBRARY PREFIX: copies the library and its header, and says how they are found.
set -euo pipefail
library=$1 prefix=$2 root=${DESTDIR:-}
name=$(basename "$library")

install -d "$root$prefix/lib" "$root$prefix/include"
install -m 755 "$library" "$root$prefix/lib/$name"
install -m 644 include/litestream.h "$root$prefix/include/litestream.h"
echo "$root$prefix/lib/$name"
echo "$root$prefix/include/litestream.h"
[ -z "$root" ] || exit 0

[ "$(id -u)" != 0 ] || ! command -v ldconfig >/dev/null || ldconfig
if sqlite3 :memory: '.load liblitestream' 'SELECT litestream_version()' >/dev/null 2>&1; then
    echo "The loader finds it by its name: .load liblitestream"
else
    echo "The loader does not search $prefix/lib: write .load $prefix/lib/liblitestream,"
    echo "or set LD_LIBRARY_PATH=$prefix/lib (macOS: DYLD_LIBRARY_PATH), and then .load liblitestream"
fi
