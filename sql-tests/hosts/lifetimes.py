"""Loading twice, several SQLites, pools, exits, sqlite3_shutdown: how long things live in a host."""
import ctypes
import ctypes.util
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import time

import lib
from host import HERE, assert_restores, cases_of, loaded, program, replicate, restore, run_threads, sync, thread_count

SINGLETHREAD = 1


def sqlite():
    """The C interface of the SQLite that Debian's Python uses."""
    return ctypes.CDLL(ctypes.util.find_library("sqlite3"))


def default_vfs(c):
    c.sqlite3_vfs_find.restype = ctypes.c_void_p
    vfs = c.sqlite3_vfs_find(None)
    # struct sqlite3_vfs: three ints, pNext, zName.
    return ctypes.cast(vfs + 16 + ctypes.sizeof(ctypes.c_void_p), ctypes.POINTER(ctypes.c_char_p))[0].decode()


def a_second_load_changes_nothing(scratch):
    """By another connection, by the same one, and in the midst of replication."""
    first = lib.connect(scratch / "app.db", load=True)
    replicate(first, scratch, "app.db")
    first.execute("CREATE TABLE t(a)")
    second = lib.connect(scratch / "app.db", load=True)
    for _ in range(3):
        lib.load_extension(first)
    # Within a statement no function can be defined anew.
    for db in (first, second):
        db.enable_load_extension(True)
        for _ in range(2):
            db.execute("SELECT load_extension(?)", [str(lib.LIBRARY)])
    second.execute("INSERT INTO t VALUES (1)")
    first.execute("INSERT INTO t VALUES (2)")
    lib.check(default_vfs(sqlite()) == "litestream-primary", default_vfs(sqlite()))
    sync(first)
    first.close()
    second.close()
    assert_restores(scratch, "app.db")


def a_second_copy_of_the_library_is_refused(scratch):
    """It would have its own list of databases, and ship them once more."""
    db = lib.connect(scratch / "app.db", load=True)
    replicate(db, scratch, "app.db")
    suffix = next(p.suffix for p in lib.LIBRARY.parent.glob("liblitestream.*") if p.suffix in (".so", ".dylib"))
    shutil.copy(lib.LIBRARY.with_suffix(suffix), scratch / f"liblitestream{suffix}")
    other = lib.connect(":memory:")
    other.enable_load_extension(True)
    try:
        other.load_extension(str(scratch / "liblitestream"))
        raise AssertionError("a second copy was loaded")
    except Exception as error:
        lib.check("another copy" in str(error), error)
    db.execute("CREATE TABLE t(a)")
    lib.connect(scratch / "app.db").execute("INSERT INTO t VALUES (1)").close()
    sync(db)
    db.close()
    lib.check(lib.scalar(lib.connect(restore(scratch, "app.db")), "SELECT a FROM t") == 1, "the row is missing")


def a_load_that_is_refused_leaves_the_host_as_it_was(scratch):
    """SQLite unloads a library whose entry point fails: nothing may point into it."""
    script = f"""
{bundled(scratch, "apsw")}
class Other(apsw.VFS):
    def __init__(self):
        super().__init__("litestream", "unix")
other = Other()
for _ in range(2):
    db = apsw.Connection(":memory:"); db.enable_load_extension(True)
    try:
        db.load_extension({str(lib.LIBRARY)!r}, "sqlite3_litestream_init"); print("loaded")
    except apsw.ExtensionLoadingError as error:
        lib.check("has registered the VFS 'litestream'" in str(error), error)
    db.close()
lib.check("litestream-primary" not in apsw.vfs_names(), apsw.vfs_names())
db = apsw.Connection({str(scratch / 'app.db')!r}); db.execute("CREATE TABLE t(a)").fetchall(); db.close()
"""
    lib.check(program(script) == (0, ""), program(script))


def bundled(scratch, module):
    """Python modules that bring a SQLite of their own, installed for the tests."""
    site = subprocess.run([lib.CACHE / "peers" / "bin" / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
                          check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    return f"sys.path.append({site!r}); import {module}"


def a_host_with_a_sqlite_of_its_own(scratch):
    """pysqlite3 and apsw bring newer versions, linked into their modules."""
    pysqlite = f"""
{bundled(scratch, "pysqlite3")}
db = pysqlite3.connect({str(scratch / 'one.db')!r}, isolation_level=None)
db.enable_load_extension(True); db.load_extension({str(lib.LIBRARY)!r})
db.execute("SELECT litestream_replicate('file://{scratch}/one.db-replica')").fetchall()
db.execute("CREATE TABLE t(a)"); db.execute("SELECT litestream_sync()").fetchall(); db.close()
"""
    apsw = f"""
{bundled(scratch, "apsw")}
db = apsw.Connection({str(scratch / 'two.db')!r})
db.enable_load_extension(True); db.load_extension({str(lib.LIBRARY)!r}, "sqlite3_litestream_init")
db.execute("SELECT litestream_replicate('file://{scratch}/two.db-replica')").fetchall()
db.execute("CREATE TABLE t(a)").fetchall(); db.execute("SELECT litestream_sync()").fetchall(); db.close()
"""
    for script in (pysqlite, apsw):
        lib.check(program(script) == (0, ""), program(script))
    loaded()
    for name in ("one.db", "two.db"):
        assert_restores(scratch, name)


def a_second_sqlite_in_the_process_is_refused(scratch):
    """Two SQLites in one process drop each other's locks. The first goes on, and so does its replication."""
    script = f"""
{bundled(scratch, "pysqlite3")}
db = lib.connect({str(scratch / 'app.db')!r}, load=True)
db.execute("SELECT litestream_replicate('file://{scratch}/app.db-replica')").fetchall()
other = pysqlite3.connect(":memory:"); other.enable_load_extension(True)
try:
    other.load_extension({str(lib.LIBRARY)!r}); print("loaded")
except pysqlite3.OperationalError as error:
    lib.check("another copy of SQLite" in str(error), error)
other.execute("CREATE TABLE t(a)"); other.close()
db.execute("CREATE TABLE t(a)"); db.execute("SELECT litestream_sync()").fetchall(); db.close()
"""
    lib.check(program(script) == (0, ""), program(script))
    loaded()
    assert_restores(scratch, "app.db")


def a_pool_that_opens_and_closes_hundreds_of_times(scratch):
    """Threads and open files do not grow with it, and each close leaves the database to the next."""
    loaded()
    db = lib.connect(scratch / "app.db")
    replicate(db, scratch, "app.db")
    db.execute("CREATE TABLE t(a)")
    sync(db)
    files = pathlib.Path("/proc/self/fd")
    open_files = lambda: len(list(files.iterdir())) if files.exists() else 0  # noqa: E731
    before = open_files()
    failures = []

    def work(number):
        try:
            for turn in range(60):
                own = lib.connect(scratch / "app.db")
                own.execute("INSERT INTO t VALUES (?)", (number * 1000 + turn,))
                own.close()
        except BaseException as error:
            failures.append(error)

    run_threads([threading.Thread(target=work, args=[number]) for number in range(4)])
    if failures:
        raise failures[0]
    db.close()
    for turn in range(60):  # each of these is the first to open and the last to close
        own = lib.connect(scratch / "app.db")
        own.execute("INSERT INTO t VALUES (?)", (9000 + turn,))
        own.close()
    # This one, one that captures, four that ship, one for signs of life.
    lib.check(thread_count() <= 7, thread_count(), "threads")
    lib.check(open_files() <= before, open_files(), "open files, before there were", before)
    db = lib.connect(scratch / "app.db")
    lib.check(lib.scalar(db, "SELECT count(*) FROM t") == 300, "rows are missing here")
    sync(db)
    db.close()
    assert_restores(scratch, "app.db")


def a_process_that_ends_without_closing(scratch):
    """By return, by exit in a thread's midst, at once: no crash, no hang, no output; what was committed arrives later."""
    endings = {"return": "", "exit": "sys.exit(0)", "at once": "import os; os._exit(0)",
               "C": "import ctypes; ctypes.CDLL(None).exit(0)"}
    for number, (name, ending) in enumerate(endings.items()):
        script = f"""
import threading, time
db = lib.connect({str(scratch / 'app.db')!r}, load=True)
db.execute("SELECT litestream_replicate('file://{scratch}/app.db-replica')").fetchall()
db.execute("CREATE TABLE IF NOT EXISTS t(a)")
def work():
    own = lib.connect({str(scratch / 'app.db')!r})
    while True:
        time.sleep(0.001)  # the other one is to get the lock within its busy timeout
        own.execute("INSERT INTO t VALUES (-1)"); own.execute("DELETE FROM t WHERE a = -1")
threading.Thread(target=work, daemon=True).start()
for i in range(20): db.execute("INSERT INTO t VALUES (?)", ({number * 100} + i,))
{ending}
"""
        code, output = program(script)
        lib.check((code, output) == (0, ""), name, code, output)
    loaded()
    db = lib.connect(scratch / "app.db")
    replicate(db, scratch, "app.db")
    lib.check(lib.scalar(db, "SELECT count(*) FROM t WHERE a >= 0") == 80, "rows are missing here")
    sync(db)
    db.close()
    assert_restores(scratch, "app.db")


def a_host_that_shuts_sqlite_down_and_begins_anew(scratch):
    """P33: "unix" is the default VFS again, and forgotten are the functions for later connections; a load brings both
    back."""
    c = sqlite()
    for turn in range(3):
        loaded()
        lib.check(default_vfs(c) == "litestream-primary", "after the load:", default_vfs(c))
        db = lib.connect(scratch / "app.db")
        replicate(db, scratch, "app.db")
        db.execute("CREATE TABLE IF NOT EXISTS t(a)")
        db.execute("INSERT INTO t VALUES (?)", (turn,))
        if turn != 1:
            sync(db)
        db.close()
        lib.check(c.sqlite3_shutdown() == 0, "sqlite3_shutdown")
        time.sleep(0.2)
        lib.check(c.sqlite3_initialize() == 0, "sqlite3_initialize")
        lib.check(default_vfs(c) == "unix", "after initialize:", default_vfs(c))
    loaded()
    assert_restores(scratch, "app.db")


def without_a_connection_nothing_of_sqlite_is_called(scratch):
    """P33: the store is away when the last connection closes, and comes back. The image is made once there is a
    connection again; a host may have shut SQLite down in between."""
    sys.path.append(str(HERE.parent / "methods"))
    import faultvfs
    faultvfs.build()
    vfs = faultvfs.FaultVfs()
    loaded()
    db = lib.connect(scratch / "app.db")
    db.execute("CREATE TABLE t(a)")
    db.executemany("INSERT INTO t VALUES (zeroblob(?))", [(1000,)] * 1000)
    replicate(db, scratch, "app.db", close_timeout="100ms", sync_interval="1ms")
    sync(db)
    replica = scratch / "app.db-replica"
    replica.rename(scratch / "away")
    replica.touch()
    db.execute("DELETE FROM t WHERE rowid > 500")
    db.close()
    vfs.count()
    lib.check(not vfs.open_files(), "open files:", vfs.open_files())
    replica.unlink()
    (scratch / "away").rename(replica)
    time.sleep(2)  # an attempt of the threads falls into this
    lib.check(not vfs.calls(), "called without a connection:", vfs.calls())
    db = lib.connect(scratch / "app.db")
    sync(db)
    db.close()
    assert_restores(scratch, "app.db")


def a_host_without_mutexes_is_refused(scratch):
    """P33: sqlite3_threadsafe() says 1 also then."""
    script = f"""
import lifetimes
c = lifetimes.sqlite()
lib.check(c.sqlite3_shutdown() == 0 and c.sqlite3_config({SINGLETHREAD}) == 0 and c.sqlite3_initialize() == 0, "configured")
lib.check(c.sqlite3_threadsafe() == 1, "threadsafe")
db = lib.connect({str(scratch / 'app.db')!r}, load=True)
lib.check("no mutexes" in lib.error_of(db, "SELECT litestream_replicate('file://{scratch}/replica')"), "was not refused")
db.execute("CREATE TABLE t(a)"); db.close()
lib.check(host.thread_count() == 1, "threads")
"""
    lib.check(program(script) == (0, ""), program(script))


CASES = cases_of(globals())
