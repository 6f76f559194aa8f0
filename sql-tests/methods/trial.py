"""One method of one kind of file: its n-th call fails, for many n and each failure that it can have."""
import pathlib
import shutil
import sqlite3
import time

import lib
from faultvfs import FAILURES, FaultVfs

OPTIONS = '{"sync_interval":"1ms"}'
# Ours: one that captures, four that ship, one that is told of writes by others, four that give signs of life; and the
# host's.
MOST_THREADS = 11
# A failure of our own handles that no work needs: what is given back, and what the VFS need not know.
UNNOTICED = {"xClose", "xFileControl", "xUnlock", "xFileSize"}


class Log:
    """What a host sees of the workload: for each statement its rows, or the extended result code."""

    def __init__(self):
        self.entries, self.connections = [], {}

    def open(self, name, path):
        def body():
            self.connections[name] = lib.connect(path)
            return None
        self.attempt(f"open {name}", body)

    def run(self, name, *statements):
        for sql in statements:
            connection = self.connections.get(name)
            if connection is None:
                self.entries.append((f"{name}: {sql}", "no connection"))
            elif not self.attempt(f"{name}: {sql}", lambda: connection.execute(sql).fetchall()) and connection.in_transaction:
                self.attempt(f"{name}: ROLLBACK", lambda: connection.execute("ROLLBACK").fetchall())

    def close(self, name):
        if connection := self.connections.pop(name, None):
            self.attempt(f"close {name}", connection.close)

    def attempt(self, what, body):
        try:
            self.entries.append((what, body()))
            return True
        except (sqlite3.Error, MemoryError) as error:  # the latter is what Python makes of SQLITE_NOMEM
            self.entries.append((what, getattr(error, "sqlite_errorname", None) or repr(error)))
            return False


def rows(first, last, size=300):
    return (f"WITH RECURSIVE n(i) AS (VALUES ({first}) UNION ALL SELECT i + 1 FROM n WHERE i < {last}) "
            f"INSERT INTO t SELECT i, printf('%.*c', {size}, char(65 + i % 26)) FROM n")


def workload(path):
    """Commits, spilled and rolled back transactions, restarts and truncations of the WAL, mapped reads, a VACUUM, two
    connections, the last close."""
    log = Log()
    log.open("a", path)
    log.run("a", "PRAGMA busy_timeout = 0", "PRAGMA synchronous = FULL", "PRAGMA cache_size = 8", "PRAGMA wal_autocheckpoint = 25",
            rows(1001, 1003), "UPDATE t SET b = 'x' WHERE a = 1")
    log.open("b", path)
    log.run("b", "PRAGMA busy_timeout = 0", "PRAGMA mmap_size = 65536", "SELECT count(*), max(a) FROM t", "SELECT sum(length(b)) FROM t")
    log.run("a", "BEGIN", rows(2001, 2100), "COMMIT", "BEGIN", rows(3001, 3100), "DELETE FROM t WHERE a < 50", "ROLLBACK")
    log.run("b", rows(4001, 4002), "BEGIN", rows(4003, 4004), "SAVEPOINT s", rows(4005, 4060), "ROLLBACK TO s", "COMMIT")
    log.run("a", "PRAGMA wal_checkpoint(TRUNCATE)", rows(5001, 5002), "PRAGMA wal_checkpoint(RESTART)", rows(5003, 5004))
    log.run("b", "SELECT count(*), sum(length(b)) FROM t", "DELETE FROM t WHERE a BETWEEN 2001 AND 2090")
    log.run("a", "VACUUM", "CREATE INDEX i ON t(b)", "SELECT count(*) FROM t")
    log.close("b")
    log.close("a")
    return log.entries


def template(path):
    connection = lib.connect(path, page_size=1024, journal_mode="WAL")
    connection.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
    connection.execute(rows(1, 100))
    connection.close()


def state(path):
    """The content after the workload, without faults. A temporary file that was read as zeros may have damaged it: that
    is SQLite's doing, and is the same with us."""
    connection = lib.connect(path)
    try:
        return connection.execute("PRAGMA integrity_check").fetchall(), lib.content_hash(connection)
    except sqlite3.DatabaseError as error:
        return str(error)
    finally:
        connection.close()


class Trials:
    """`plain` runs without the library in the process; afterwards `replicated` runs the same with it."""

    def __init__(self, scratch):
        self.scratch, self.vfs, self.number, self.expected = scratch, FaultVfs(), 0, {}
        template(scratch / "template.db")
        self.vfs.count()
        self.undisturbed = workload(self.copy() / "app.db")
        self.calls = self.vfs.calls()

    def copy(self):
        self.number += 1
        directory = self.scratch / str(self.number)
        directory.mkdir()
        shutil.copy(self.scratch / "template.db", directory / "app.db")
        return directory

    def plain(self, fault):
        directory = self.copy()
        self.vfs.arm(*fault)
        log = workload(directory / "app.db")
        self.vfs.disarm()
        self.expected[fault] = log, state(directory / "app.db")
        shutil.rmtree(directory)

    def load(self):
        lib.connect(":memory:", load=True).close()

    def replicated(self, fault, expected):
        """The workload with the fault; the host must see what is expected, and everything arrives."""
        directory, path = self.begin()
        connection = lib.connect(path)
        replicate(connection, directory)
        connection.execute("SELECT litestream_sync()").fetchall()
        connection.close()
        self.vfs.arm(*fault)
        log = workload(path)
        hits = self.vfs.disarm()
        log_expected, state_expected = expected
        if log != log_expected:
            differ = [f"{what}: without the library {e!r}, with it {f!r}" for (what, e), (_, f) in zip(log_expected, log) if e != f]
            raise AssertionError("\n".join(differ or ["another number of statements"]))
        if state_expected:
            found = state(path)
            lib.check(found == state_expected, "the database: without the library", state_expected, "with it", found)
        self.finish(directory, hits and fault, isinstance(state_expected, str))

    def starting(self, fault):
        """litestream_replicate with the fault: it may fail, and then a second one does not."""
        directory, path = self.begin()
        connection = lib.connect(path)
        self.vfs.arm(*fault)
        try:
            replicate(connection, directory)
            connection.execute("SELECT litestream_sync(0.2)").fetchall()
        except (sqlite3.Error, MemoryError):
            pass
        self.vfs.disarm()
        connection.close()
        self.finish(directory, None)

    def begin(self):
        directory = self.copy()
        return directory, directory / "app.db"

    def finish(self, directory, fault, damaged=False):
        """Everything arrives, a failure of ours was seen, and nothing is left open."""
        path = directory / "app.db"
        connection = lib.connect(path)
        replicate(connection, directory)
        if not damaged:
            connection.execute("CREATE TABLE last(x)")
        connection.execute("SELECT litestream_sync(60)").fetchall()
        status = connection.execute("SELECT state, last_error FROM litestream_status WHERE path = ?", [str(path)]).fetchone()
        lib.check(status[0] == "running", "the state is", *status)
        # A WAL of ours that is not opened is missed only if something is in it.
        if fault and fault[0].startswith("our") and fault[1] not in UNNOTICED and fault[:2] != ("our_wal", "xOpen"):
            lib.check(status[1], "a failure that cannot be seen in litestream_status")
        connection.close()
        connection = lib.connect(":memory:")
        connection.execute("SELECT litestream_stop(?)", [str(path)]).fetchall()
        connection.execute("SELECT litestream_restore(?, ?)", [f"file://{directory}/replica", str(directory / "restored.db")]).fetchall()
        connection.close()
        lib.assert_same_database(path.read_bytes(), (directory / "restored.db").read_bytes(), "the restored database")
        self.nothing_leaks()
        shutil.rmtree(directory)

    def nothing_leaks(self):
        """A step of ours that was under way ends soon, and so do the threads of a restore."""
        deadline = time.monotonic() + 30
        while (self.vfs.open_files() or threads() > MOST_THREADS) and time.monotonic() < deadline:
            time.sleep(0.001)
        lib.check(not self.vfs.open_files() and threads() <= MOST_THREADS, "open files:", self.vfs.open_files(), "threads:", threads())


def threads():
    tasks = pathlib.Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.exists() else 1


def replicate(connection, directory):
    return lib.scalar(connection, "SELECT litestream_replicate(NULL, ?, ?)", f"file://{directory}/replica", OPTIONS)


def faults(kind, method, calls, most):
    """Each failure at the n-th call, once and from then on; `most` values of n, the first and the last among them."""
    if most is None or calls <= most:
        numbers = range(1, calls + 1)
    else:
        numbers = sorted({1 + round(i * (calls - 1) / max(most - 1, 1)) for i in range(most)})
    return [(kind, method, result, n, persistent) for result in FAILURES[method] for n in numbers for persistent in (False, True)]


def explore(kind, method, most):
    """All faults of one method; how many were tried."""
    failures = []
    with lib.directory() as scratch:
        trials = Trials(scratch)
        ours = kind.startswith("our")
        # Ours are as many as our threads make; the first ones are those that matter.
        calls = 12 if ours else trials.calls.get((kind, method), 0)
        chosen = faults(kind, method, calls, most)
        if not ours:
            for fault in chosen:
                trials.plain(fault)
        trials.load()
        runs = [(trials.replicated, fault, trials.expected.get(fault, (trials.undisturbed, None))) for fault in chosen]
        runs += [(trials.starting, fault) for fault in chosen[::max(1, len(chosen) // (most or 24))]]
        for trial, fault, *expected in runs:
            try:
                trial(fault, *expected)
            except (AssertionError, sqlite3.Error, MemoryError) as error:
                failures.append(f"{trial.__name__} {fault}: {error}")
    print(f"{len(runs)} faults, {len(failures)} failures of {kind} {method}")
    for failure in failures:
        print(failure)
    return not failures
