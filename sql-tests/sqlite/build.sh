#!/usr/bin/env bash
# build.sh: SQLite's test fixture, with fixture.c linked in; prints its path. Done once, below .cache/.
#
# SQLite's Tcl tests come with Debian's source package, from the mirror that apt is configured with. A mirror that is
# configured for binaries only serves the sources too, so a list with a deb-src line is made here, and apt keeps its
# state below .cache/: nothing of the system's is changed, and no root is needed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
version=3.40.1 suite=bookworm
cache=$(mkdir -p "${LITESTREAM_TEST_CACHE:-$here/../../.cache}" && cd "${LITESTREAM_TEST_CACHE:-$here/../../.cache}" && pwd)
place=$cache/sqlite-$version
source=$place/source build=$place/build
log=$place/build.log
mkdir -p "$place"
exec 9>"$place/lock"
! command -v flock >/dev/null || flock 9 # of two that build at once one waits

fetch() {
    local mirror apt=$place/apt
    mirror=$(sed -nE -e 's/^URIs: *([^ ]+).*/\1/p' -e 's/^deb (\[[^]]*\] )?(https?:[^ ]+).*/\2/p' \
        /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null | head -1)
    [ -n "$mirror" ] || { echo "build.sh: no Debian mirror is configured for apt" >&2; return 1; }
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/state"
    echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$apt/sources.list"
    local options=(-qq -o Dir::Etc::SourceList="$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
        -o Dir::State="$apt/state" -o Dir::State::Lists="$apt/lists" -o Dir::Cache="$apt/cache"
        -o Dir::State::Status=/var/lib/dpkg/status -o APT::Sandbox::User="$(id -un)")
    apt-get "${options[@]}" update
    (cd "$place" && apt-get "${options[@]}" source --download-only sqlite3)
    mkdir -p "$source.new"
    tar -xf "$place/sqlite3_$version.orig.tar.xz" -C "$source.new" --strip-components=1
    mv "$source.new" "$source"
}

# patched FILE PATTERN REPLACEMENT: every line that matches; there must be one.
patched() {
    grep -q -- "$2" "$1" || { echo "build.sh: $1 has no line: $2" >&2; return 1; }
    sed -i "s/$2/$3/" "$1"
}

# The fixture counts what SQLite does with its files, and makes the n-th of it fail. What the library does through file
# handles of its own is not meant: see fixture.c. The count of open files is made atomic, since threads change it.
count_only_sqlite() {
    patched sqlite3.c 'define SimulateIOError(CODE)  \\' 'define SimulateIOError(CODE) if( !fixture_quiet ) \\'
    patched sqlite3.c 'define SimulateDiskfullError(CODE) \\' 'define SimulateDiskfullError(CODE) if( !fixture_quiet ) \\'
    patched sqlite3.c '^  sqlite3_sync_count++;' '  if( !fixture_quiet ) sqlite3_sync_count++;'
    patched sqlite3.c 'if( fullSync ) sqlite3_fullsync_count++' 'if( fullSync \&\& !fixture_quiet ) sqlite3_fullsync_count++'
    patched sqlite3.c 'define OpenCounter(X)  sqlite3_open_file_count+=(X)' \
        'define OpenCounter(X) if( !fixture_quiet ) __atomic_fetch_add(\&sqlite3_open_file_count,(X),__ATOMIC_SEQ_CST)'
    sed -i '1i extern __thread int fixture_quiet;' sqlite3.c
    cp "$source/src/test_malloc.c" "$source/src/test_malloc.c.orig"
    patched "$source/src/test_malloc.c" '^static int faultsimStep(void){' \
        'extern __thread int fixture_quiet;\nstatic int faultsimStep(void){\n  if( fixture_quiet ) return 0;'
}

compile() {
    rm -rf "$build"
    mkdir -p "$build"
    cd "$build"
    [ ! -f "$source/src/test_malloc.c.orig" ] || mv "$source/src/test_malloc.c.orig" "$source/src/test_malloc.c"
    "$source/configure" --with-tcl="$(dirname "$(find /usr/lib -name tclConfig.sh | sort | head -1)")"
    make sqlite3.c
    count_only_sqlite
    ours # the fixture needs it to be linked
    make testfixture CFLAGS="-O2 -DSQLITE_OS_UNIX=1 -DSQLITE_EXTRA_INIT=fixture_init" \
        LIBTCL="-Wl,-export-dynamic -L$build -lfixture -Wl,-rpath,$build -ltcl8.6"
    sha256sum "$here/build.sh" >made-of
}

# Apart, as a shared library that finds SQLite in the program, so that a change of it is quick.
ours() {
    cc -O2 -Wall -Werror -fPIC -shared -I"$build" -o "$build/libfixture.so" "$here/fixture.c"
}

[ -f "$source/test/wal.test" ] || fetch >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
if ! sha256sum --quiet -c "$build/made-of" >/dev/null 2>&1; then
    (compile) >"$log" 2>&1 || { tail -20 "$log" >&2; exit 1; }
elif [ "$here/fixture.c" -nt "$build/libfixture.so" ]; then
    ours
fi
echo "$build/testfixture"
