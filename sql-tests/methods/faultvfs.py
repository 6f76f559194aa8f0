"""The VFS of faultvfs.c: building it, arming it, and what of it can fail with what."""
import ctypes
import pathlib
import subprocess

import lib

SOURCE = pathlib.Path(__file__).resolve().parent / "faultvfs.c"
LIBRARY = lib.CACHE / "methods" / "faultvfs.so"

KINDS = ["database", "wal", "other", "our_database", "our_wal", "whole"]
METHODS = ["xOpen", "xClose", "xRead", "xWrite", "xTruncate", "xSync", "xFileSize", "xLock", "xUnlock", "xCheckReservedLock", "xFileControl",
           "xShmMap", "xShmLock", "xShmLock_unlock", "xShmUnmap", "xFetch", "xUnfetch", "xDelete", "xAccess", "xFullPathname"]
ALWAYS = 2 ** 31 - 1


def ioerr(number):
    return 10 | number << 8


BUSY, NOMEM, FULL, CANTOPEN = 5, 7, 13, 14
FAILURES = {
    "xOpen": [CANTOPEN, NOMEM, ioerr(0)],
    "xClose": [ioerr(16)],
    "xRead": [ioerr(1), ioerr(2), ioerr(12), ioerr(33)],  # READ, SHORT_READ (zeros), NOMEM, CORRUPTFS
    "xWrite": [ioerr(3), ioerr(0), FULL],  # ioerr(0): half of it is written
    "xTruncate": [ioerr(6)],
    "xSync": [ioerr(4), FULL],
    "xFileSize": [ioerr(7)],
    "xLock": [BUSY, ioerr(15), NOMEM],
    "xUnlock": [ioerr(8)],
    "xCheckReservedLock": [ioerr(14)],
    "xFileControl": [1, ioerr(0)],
    "xShmMap": [ioerr(21), ioerr(19), NOMEM, CANTOPEN],
    "xShmLock": [BUSY, ioerr(20)],
    "xShmLock_unlock": [ioerr(20)],
    "xShmUnmap": [ioerr(0)],
    "xFetch": [ioerr(24), NOMEM],
    "xUnfetch": [ioerr(24)],
    "xDelete": [ioerr(10)],
    "xAccess": [ioerr(13)],
    "xFullPathname": [CANTOPEN, NOMEM],
}


def build():
    LIBRARY.parent.mkdir(parents=True, exist_ok=True)
    if not LIBRARY.exists() or LIBRARY.stat().st_mtime < SOURCE.stat().st_mtime:
        new = LIBRARY.with_suffix(".new")
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(new), str(SOURCE)], check=True)
        new.rename(LIBRARY)


class FaultVfs:
    """The VFS, loaded into this process as the default one."""

    def __init__(self):
        connection = lib.connect(":memory:")
        connection.enable_load_extension(True)
        connection.load_extension(str(LIBRARY))
        connection.close()
        self.c = ctypes.CDLL(str(LIBRARY))

    def arm(self, kind, method, result, nth, persistent):
        """From now on calls are counted anew, and the n-th fails; with `persistent`, those after it too."""
        self.c.fault_arm(KINDS.index(kind), METHODS.index(method), nth, ALWAYS if persistent else nth, result)

    def count(self):
        """From now on calls are counted anew, and none fails."""
        self.c.fault_arm(-1, -1, 0, 0, 0)

    def disarm(self):
        """How many calls failed."""
        return self.c.fault_disarm()

    def calls(self):
        """{(kind, method): calls} since the last arming."""
        found = {(k, m): self.c.fault_calls(i, j) for i, k in enumerate(KINDS) for j, m in enumerate(METHODS)}
        return {key: count for key, count in found.items() if count}

    def open_files(self):
        return {k: n for i, k in enumerate(KINDS) if (n := self.c.fault_open_files(i))}
