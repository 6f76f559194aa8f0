#!/usr/bin/env bash
# Two SQLites in one process corrupt databases: each has its own table of POSIX locks. The library must reach SQLite
# through the host's API table alone, so it may neither contain nor import a symbol of SQLite. Stripping hides the
# former, so this looks at the library as it was linked.
set -euo pipefail
library=$1
entry_points='^_?sqlite3_litestream(vfs)?_init$'

symbols=$(nm "$library" | awk '{print $NF}')
foreign=$(grep -E '^_?sqlite3' <<<"$symbols" | grep -vE "$entry_points" | sort -u || true)
if [ -n "$foreign" ]; then
    echo "$library: a second SQLite is linked in, or SQLite is called past the host's API table:" >&2
    head -20 <<<"$foreign" >&2
    exit 1
fi
if ! grep -qE "$entry_points" <<<"$symbols"; then
    echo "$library: the entry point sqlite3_litestream_init is missing, or the library was stripped" >&2
    exit 1
fi
case $library in *.so)
    exported=$(nm -D --defined-only "$library" | awk '{print $NF}' | grep -vE "$entry_points" || true)
    if [ -n "$exported" ]; then
        echo "$library: exports more than its entry points:" >&2
        head -20 <<<"$exported" >&2
        exit 1
    fi ;;
esac
