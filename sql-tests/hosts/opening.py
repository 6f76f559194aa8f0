"""The ways in which a host opens databases: before and after the load, shared, exclusive, mapped, beside others."""
import sqlite3
import subprocess
import threading

import lib
from host import assert_restores, cases_of, loaded, replicate, run_threads, sync


def a_connection_from_before_the_load_and_one_from_after_it(scratch):
    """P14: the one that loads is adopted; others that were there before count as those of another process."""
    before = lib.connect(scratch / "app.db", journal_mode="WAL")
    before.execute("CREATE TABLE t(a)")
    lib.load_extension(before)
    replicate(before, scratch, "app.db")
    after = lib.connect(scratch / "app.db")
    for number in range(20):
        (before, after)[number % 2].execute("INSERT INTO t VALUES (?)", (number,))
    sync(before)
    before.close()
    after.close()
    assert_restores(scratch, "app.db")


def other_databases_beside_a_replicated_one(scratch):
    """In memory, temporary, attached, in rollback mode, read-only: they work as ever, and nothing of them is shipped."""
    lib.connect(scratch / "fixed.db").executescript("CREATE TABLE f(a); INSERT INTO f VALUES (1)").connection.close()
    loaded()
    db = lib.connect(scratch / "app.db")
    replicate(db, scratch, "app.db")
    db.execute("CREATE TABLE t(a)")
    db.execute("ATTACH ':memory:' AS mem")
    db.execute("ATTACH ? AS old", (str(scratch / "old.db"),))
    db.execute("CREATE TABLE mem.t(a)")
    db.execute("CREATE TABLE old.t(a)")
    db.execute("CREATE TEMP TABLE mine(a)")
    for table in ("main.t", "mem.t", "old.t", "mine"):
        db.execute(f"INSERT INTO {table} VALUES (?)", (table,))
    lib.check(lib.scalar(db, "PRAGMA old.journal_mode") == "delete", "the attached database was changed")
    db.execute("BEGIN")
    for table in ("main.t", "old.t"):
        db.execute(f"INSERT INTO {table} VALUES ('both')")
    db.execute("COMMIT")
    fixed = lib.connect(f"file:{scratch}/fixed.db?mode=ro", uri=True)
    lib.check(lib.scalar(fixed, "SELECT a FROM f") == 1, "the read-only database")
    lib.check("read-only" in lib.error_of(fixed, "SELECT litestream_replicate(?)", f"file://{scratch}/none"), "a read-only database was replicated")
    lib.check(db.execute("SELECT count(*), max(path) FROM litestream_status").fetchone() == (1, str(scratch / "app.db")), "other rows in the status")
    sync(db)
    db.close()
    fixed.close()
    assert_restores(scratch, "app.db")
    lib.check(sorted(p.name for p in scratch.iterdir() if "litestream" in p.name or "replica" in p.name) == [".app.db-litestream", "app.db-replica"],
              "something else was written:", list(scratch.iterdir()))


def threads_share_one_cache(scratch):
    """cache=shared, opened after the load: each commit is seen, whichever connection makes it."""
    loaded()
    first = lib.connect(f"file:{scratch}/app.db?cache=shared", uri=True)
    replicate(first, scratch, "app.db")
    first.execute("CREATE TABLE t(a)")
    failures = []

    def work(number):
        try:
            db = lib.connect(f"file:{scratch}/app.db?cache=shared", uri=True)
            for _ in range(30):
                while True:  # a shared cache answers SQLITE_LOCKED at once, whatever the timeout
                    try:
                        db.execute("INSERT INTO t VALUES (?)", (number,))
                        break
                    except sqlite3.OperationalError as error:
                        lib.check("locked" in str(error), error)
            replicate(db, scratch, "app.db")  # once more, while others use the cache
            db.close()
        except BaseException as error:
            failures.append(error)

    run_threads([threading.Thread(target=work, args=[number]) for number in range(4)])
    if failures:
        raise failures[0]
    sync(first)
    first.close()
    assert_restores(scratch, "app.db")


def a_shared_cache_from_before_the_load_is_refused_while_others_use_it(scratch):
    """Its files are used under the mutex of the cache, so they cannot be adopted beside another connection."""
    uri = f"file:{scratch}/app.db?cache=shared"
    first = lib.connect(uri, uri=True, journal_mode="WAL")
    first.execute("CREATE TABLE t(a)")
    second = lib.connect(uri, uri=True)
    second.execute("SELECT * FROM t").fetchall()
    lib.load_extension(first)
    message = lib.error_of(first, "SELECT litestream_replicate(?)", f"file://{scratch}/app.db-replica")
    lib.check("cache=shared" in message, message)
    second.close()
    replicate(first, scratch, "app.db")
    first.execute("INSERT INTO t VALUES (1)")
    sync(first)
    first.close()
    assert_restores(scratch, "app.db")


def an_exclusive_connection(scratch):
    """P4, in both forms: set before the WAL is opened there is no shared memory, set later there is."""
    loaded()
    for name, early in (("early.db", True), ("late.db", False)):
        db = lib.connect(scratch / name, **({"locking_mode": "EXCLUSIVE"} if early else {}))
        replicate(db, scratch, name)
        if not early:
            db.execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()
        db.execute("PRAGMA wal_autocheckpoint = 5").fetchall()
        db.execute("CREATE TABLE t(a)")
        for number in range(50):
            db.execute("INSERT INTO t VALUES (?)", (number,))
        sync(db)
        db.execute("INSERT INTO t VALUES ('last')")
        sync(db)
        db.close()
        assert_restores(scratch, name)


def mapped_reads(scratch):
    loaded()
    db = lib.connect(scratch / "app.db", mmap_size=1 << 24)
    replicate(db, scratch, "app.db")
    db.execute("CREATE TABLE t(a)")
    for _ in range(30):
        db.execute("INSERT INTO t VALUES (randomblob(20000))")
        lib.scalar(db, "SELECT sum(length(a)) FROM t")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    db.execute("DELETE FROM t WHERE rowid % 2")
    db.execute("VACUUM")
    sync(db)
    db.close()
    assert_restores(scratch, "app.db")


def a_forced_restore_is_refused_while_any_connection_holds_the_database(scratch):
    """Also one from before the load that was never adopted, and one of another process: SQLite's locks tell."""
    loaded()
    source = lib.connect(scratch / "app.db")
    replicate(source, scratch, "app.db")
    source.execute("CREATE TABLE t(a)")
    sync(source)
    source.close()
    lib.connect(scratch / "target.db", journal_mode="WAL").executescript("CREATE TABLE mine(a)").connection.close()
    past_the_shim = sqlite3.connect(f"file:{scratch}/target.db?vfs=unix", uri=True)
    past_the_shim.execute("SELECT * FROM mine").fetchall()
    db = lib.connect(":memory:")
    force = ("SELECT litestream_restore(?, ?, NULL, '{\"force\":true}')", f"file://{scratch}/app.db-replica", str(scratch / "target.db"))
    message = lib.error_of(db, *force)
    lib.check("in use" in message, "of this process:", message)
    lib.check(past_the_shim.execute("SELECT count(*) FROM mine").fetchone() == (0,), "the connection lost its database")
    past_the_shim.close()
    other = subprocess.Popen(["sqlite3", scratch / "target.db"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    other.stdin.write("SELECT count(*) FROM mine;\n")
    other.stdin.flush()
    other.stdout.readline()
    lib.check("in use" in lib.error_of(db, *force), "replaced under a connection of another process")
    other.stdin.close()
    other.wait()
    db.execute(*force[:1], force[1:]).fetchall()
    lib.check(lib.scalar(lib.connect(scratch / "target.db"), "SELECT count(*) FROM t") == 0, "not restored")


CASES = cases_of(globals())
