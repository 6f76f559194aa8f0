"""The ways in which a host opens databases: before and after the load, shared, exclusive, mapped, beside others, by URI."""
import os
import sqlite3
import subprocess
import sys
import threading
import time

import lib
from host import PRELUDE, assert_restores, cases_of, loaded, replicate, restore, run_threads, sync, wait_for


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


def a_transaction_that_began_before_the_replication(scratch):
    """It has a read lock, or the write lock, of which nobody was told."""
    starter = lib.connect(":memory:", load=True)
    for name, begun in (("reads", "BEGIN; SELECT count(*) FROM t"), ("writes", "BEGIN IMMEDIATE; INSERT INTO t VALUES (0)"),
                        ("becomes exclusive", "PRAGMA locking_mode = EXCLUSIVE; BEGIN; SELECT count(*) FROM t")):
        db = lib.connect(scratch / name)
        db.executescript("PRAGMA journal_mode = WAL; CREATE TABLE t(a)")
        for statement in begun.split("; "):
            db.execute(statement).fetchall()
        replicate(starter, scratch, name)
        db.execute("INSERT INTO t VALUES (1)")
        db.execute("COMMIT")
        sync(db)
        assert_rows(scratch, name, db)
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        for row in range(2, 4):
            db.execute("INSERT INTO t VALUES (?)", (row,))
        sync(db)
        assert_rows(scratch, name, db)
        db.close()


def assert_rows(scratch, name, db):
    restored = restore(scratch, name)
    counted = lib.scalar(sqlite3.connect(restored), "SELECT count(*) FROM t")
    lib.check(counted == lib.scalar(db, "SELECT count(*) FROM t"), name, counted)
    restored.unlink()


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


def by_uri(scratch, name="app.db", **parameters):
    """A connection by URI that never waits for a lock: nothing of ours may cost it SQLITE_BUSY."""
    more = "".join(f"&{key}={value}" for key, value in parameters.items())
    uri = f"file:{scratch}/{name}?replica=file://{scratch}/{name}-replica{more}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=0)


def of_status(db, column):
    return lib.scalar(db, f"SELECT {column} FROM litestream_status WHERE role = 'primary'")


def until(condition, *what, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        lib.check(time.monotonic() < end, *(part() if callable(part) else part for part in what))
        time.sleep(0.01)


def p16_by_uri_wal_mode_is_set_after_the_first_commit(scratch):
    """What must be chosen before it is kept, and no statement meets a lock of ours."""
    loaded()
    db = by_uri(scratch)
    for pragma in ("page_size = 8192", "encoding = 'UTF-16le'"):
        db.execute(f"PRAGMA {pragma}").fetchall()
    lib.check("first commit" in lib.error_of(db, "SELECT litestream_sync()"), "of an empty database")
    rolled_back = by_uri(scratch, "rolled_back.db")
    for sql in ("BEGIN", "CREATE TABLE t(a)", "ROLLBACK"):
        rolled_back.execute(sql)
    time.sleep(0.1)
    lib.check(lib.scalar(rolled_back, "PRAGMA journal_mode") == "delete", "set before the first commit")
    rolled_back.close()
    db.execute("PRAGMA auto_vacuum = FULL").fetchall()  # a commit, where there is nothing yet
    db.execute("CREATE TABLE t(a)")
    for number in range(200):
        db.execute("INSERT INTO t VALUES (?)", (number,))
        lib.check(lib.scalar(db, "SELECT count(*) FROM t") == number + 1, "rows")
    found = [lib.scalar(db, f"PRAGMA {name}") for name in ("journal_mode", "page_size", "auto_vacuum", "encoding")]
    lib.check(found == ["wal", 8192, 1, "UTF-16le"], found)
    sync(db)
    lib.check(of_status(db, "state") == "running", "state", of_status(db, "state"))
    lib.check("refused" in lib.error_of(db, "PRAGMA journal_mode = DELETE"), "left WAL mode")
    db.close()
    assert_restores(scratch, "app.db")


def p16_by_uri_the_first_commit_alone_is_replicated(scratch):
    """Without a further access."""
    loaded()
    db = by_uri(scratch)
    db.execute("CREATE TABLE t(a)")
    loader = lib.connect(":memory:")
    until(lambda: of_status(loader, "durable_txid"), "not shipped:", lambda: of_status(loader, "last_error"))
    lib.check(of_status(loader, "state") == "running", of_status(loader, "state"))
    db.close()
    assert_restores(scratch, "app.db")


def p16_by_uri_sync_waits_for_wal_mode(scratch):
    """By the function and by the PRAGMA, right after the first commit."""
    loaded()
    for name, sql in (("one.db", "SELECT litestream_sync()"), ("two.db", "PRAGMA litestream_sync")):
        db = by_uri(scratch, name)
        lib.check("first commit" in lib.error_of(db, sql), sql)
        db.execute("CREATE TABLE t(a)")
        lib.check(lib.scalar(db, sql) == "0000000000000001", sql)
        db.close()
        assert_restores(scratch, name)


def stock(path, sql):
    """By a shell without the extension, which closes the database."""
    return subprocess.run(["sqlite3", path, sql], check=True, text=True, stdout=subprocess.PIPE).stdout.strip()


def p16_by_uri_what_others_write_right_after_the_first_commit_arrives(scratch):
    """Nobody in this process has opened the WAL since the mode was set."""
    loaded()
    db = by_uri(scratch)
    db.execute("CREATE TABLE t(a)")
    sync(db)
    for number in range(3):
        stock(scratch / "app.db", f"INSERT INTO t VALUES ({number})")
        sync(db)
        restored = restore(scratch, "app.db")
        lib.check(stock(restored, "SELECT count(*) FROM t") == str(number + 1), "rows after", number)
        restored.unlink()
    db.close()


def p16_by_uri_the_pragma_confirms_nothing_that_others_wrote_meanwhile(scratch):
    loaded()
    other = by_uri(scratch, "other.db")
    other.execute("CREATE TABLE t(a)")
    loader = lib.connect(":memory:")
    until(lambda: of_status(loader, "durable_txid"), "not shipped")
    stock(scratch / "other.db", "INSERT INTO t VALUES (1)")
    lib.check("another process" in lib.error_of(other, "PRAGMA litestream_sync"), "the PRAGMA")
    lib.check(lib.scalar(other, "SELECT count(*) FROM t") == 1, "rows")
    lib.scalar(other, "PRAGMA litestream_sync")
    other.close()
    assert_restores(scratch, "other.db")


def p16_by_uri_an_existing_database_is_set_at_its_first_access(scratch):
    lib.connect(scratch / "app.db").executescript("CREATE TABLE t(a); INSERT INTO t VALUES (1)").connection.close()
    loaded()
    db = by_uri(scratch)
    lib.check(lib.scalar(db, "SELECT a FROM t") == 1, "rows")
    lib.check(lib.scalar(db, "PRAGMA journal_mode") == "wal", "not set")
    sync(db)
    db.close()
    assert_restores(scratch, "app.db")


def p16_by_uri_locks_of_others_are_waited_for(scratch):
    """A reader that does not end, and an exclusive connection: the status says so, and afterwards it begins by itself."""
    status = lib.connect(":memory:", load=True)
    for name, hold, let_go in (("read.db", "BEGIN; SELECT * FROM t", "COMMIT"),
                               ("exclusive.db", "PRAGMA locking_mode = EXCLUSIVE; INSERT INTO t VALUES (2)",
                                "PRAGMA locking_mode = NORMAL; SELECT * FROM t")):
        lib.connect(scratch / name).executescript("CREATE TABLE t(a); INSERT INTO t VALUES (1)").connection.close()
        other = lib.connect(scratch / name)
        for sql in hold.split(";"):
            other.execute(sql).fetchall()
        db = by_uri(scratch, name)
        if name == "read.db":
            lib.check(lib.scalar(db, "SELECT a FROM t") == 1, "rows")
            lib.check("set to WAL mode" in lib.error_of(db, "SELECT litestream_sync(0.2)"), "the reason of sync")
        else:
            lib.check("locked" in lib.error_of(db, "SELECT a FROM t"), "an exclusive connection lets others read")
        lib.check(of_status(status, "state") == "waiting", of_status(status, "state"))
        lib.check("EXCLUSIVE" in of_status(status, "last_error"), of_status(status, "last_error"))
        for sql in let_go.split(";"):
            other.execute(sql).fetchall()
        until(lambda: of_status(status, "state") == "running", name, "is not replicated")
        sync(db)
        other.close()
        db.close()
        assert_restores(scratch, name)
        lib.scalar(status, "SELECT litestream_stop(?)", str(scratch / name))


def p16_by_uri_a_database_that_is_closed_at_once_is_replicated_by_the_next_open(scratch):
    loaded()
    for sql in ("CREATE TABLE t(a)", "INSERT INTO t VALUES (1)"):
        db = by_uri(scratch)
        db.execute(sql)
        db.close()
    db = by_uri(scratch)
    lib.check(lib.scalar(db, "PRAGMA journal_mode") == "wal", "not set")
    sync(db)
    db.close()
    assert_restores(scratch, "app.db")


def p16_by_uri_threads_that_write_and_read_meet_no_lock_of_ours(scratch):
    """While it is tried again and again: one connection writes, and its reader has a transaction open all the time."""
    loaded()
    for _ in range(20):
        (scratch / "app.db").unlink(missing_ok=True)
        db, reader = by_uri(scratch, set_wal=0), lib.connect(scratch / "app.db")
        db.execute("CREATE TABLE t(a)")
        db.close()
        db = by_uri(scratch)
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM t").fetchall()
        for number in range(30):  # reads only: a writer would wait for the reader in rollback mode
            lib.scalar(db, "SELECT count(*) FROM t")
            db.execute("BEGIN IMMEDIATE")
            db.execute("ROLLBACK")
        reader.execute("COMMIT")
        until(lambda: of_status(db, "state") in ("running", "starting"), "not begun")
        lib.scalar(db, "SELECT litestream_stop()")
        db.close()
        reader.close()
        subprocess.run(["rm", "-rf", scratch / ".app.db-litestream", scratch / "app.db-replica"], check=True)


def p16_by_uri_writers_without_a_pause_do_not_keep_it_off(scratch):
    """In rollback mode, with transactions that follow each other and overlap, the file is hardly ever free."""
    loaded()
    by_uri(scratch, set_wal=0).execute("CREATE TABLE t(a)").connection.close()
    ended, failures, written = threading.Event(), [], []
    plain = [lib.connect(scratch / "app.db") for _ in range(4)]

    def work(db, number):
        while not ended.is_set():
            try:
                db.execute("INSERT INTO t VALUES (?)", (number,))
                written.append(number)
            except sqlite3.OperationalError as error:
                lib.check("locked" in str(error), error)  # SQLite's busy handler is not fair
            except BaseException as error:
                failures.append(error)

    threads = [threading.Thread(target=work, args=[db, number]) for number, db in enumerate(plain)]
    for thread in threads:
        thread.start()
    until(lambda: len(written) > 50, "nothing is written")
    db = by_uri(scratch)
    db.execute("PRAGMA busy_timeout = 30000").fetchall()
    status = lib.connect(":memory:")
    try:
        lib.scalar(db, "SELECT count(*) FROM t")
        until(lambda: of_status(status, "state") == "running", "not set:", lambda: of_status(status, "last_error"), seconds=10)
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    lib.check(not failures, failures)
    sync(db)
    lib.check(lib.scalar(db, "SELECT count(*) FROM t") == len(written), "rows")
    for connection in [db, *plain]:
        connection.close()
    assert_restores(scratch, "app.db")


def p16_by_uri_set_wal_off_leaves_the_mode_to_the_application(scratch):
    loaded()
    db = by_uri(scratch, set_wal=0)
    db.execute("CREATE TABLE t(a)")
    time.sleep(0.2)
    lib.check(lib.scalar(db, "PRAGMA journal_mode") == "delete", "set")
    lib.check("WAL mode" in lib.error_of(db, "SELECT litestream_sync()"), "the reason")
    db.execute("PRAGMA journal_mode = WAL").fetchall()
    db.execute("INSERT INTO t VALUES (1)")
    sync(db)
    db.close()
    assert_restores(scratch, "app.db")


def p16_by_uri_what_cannot_be_written_to_is_refused_and_left_alone(scratch):
    lib.connect(scratch / "app.db").executescript("CREATE TABLE t(a)").connection.close()
    before = (scratch / "app.db").read_bytes()
    loaded()
    status = lib.connect(":memory:")
    for parameter, reason in (("mode=ro", "read-only"), ("immutable=1", "read-only"), ("nolock=1", "nolock")):
        name, _, value = parameter.partition("=")
        try:
            lib.scalar(by_uri(scratch, **{name: value}), "SELECT * FROM t")
            raise AssertionError(f"opened with {parameter}")
        except sqlite3.OperationalError:
            lib.check(reason in of_status(status, "last_error"), of_status(status, "last_error"))
    lib.check((scratch / "app.db").read_bytes() == before, "changed")
    # SQLite opens a file that may not be written to for reading.
    (scratch / "app.db").chmod(0o444)
    if os.getuid() != 0:
        lib.check(lib.scalar(by_uri(scratch), "SELECT count(*) FROM t") == 0, "rows")
        lib.check((scratch / "app.db").read_bytes() == before, "changed")


def p16_by_uri_a_first_transaction_that_died_leaves_the_choice_of_the_page_size(scratch):
    """Its pages are in the file, and a journal beside it takes them back: there was no commit yet."""
    script = f"""
import os, sqlite3
db = sqlite3.connect({str(scratch / "app.db")!r}, isolation_level=None)
db.executescript("PRAGMA cache_size = 5; BEGIN; CREATE TABLE t(a)")
for _ in range(200): db.execute("INSERT INTO t VALUES (randomblob(3000))")
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    lib.check((scratch / "app.db").stat().st_size > 0 and (scratch / "app.db-journal").exists(), "no hot journal")
    loaded()
    db = by_uri(scratch)
    db.execute("PRAGMA page_size = 8192").fetchall()
    lib.check(lib.scalar(db, "SELECT count(*) FROM sqlite_schema") == 0, "tables")
    db.execute("PRAGMA page_size = 8192").fetchall()
    db.execute("CREATE TABLE t(a)")
    sync(db)
    lib.check(lib.scalar(db, "PRAGMA page_size") == 8192, lib.scalar(db, "PRAGMA page_size"))
    db.close()
    assert_restores(scratch, "app.db")


def p16_by_uri_forks_while_wal_mode_is_set(scratch):
    """A child finds no mutex of SQLite held by our thread."""
    loaded()
    for number in range(30):
        db = by_uri(scratch, f"{number}.db")
        db.execute("CREATE TABLE t(a)")
        time.sleep(number / 2000)
        child = os.fork()
        if child == 0:
            own = sqlite3.connect(scratch / f"child-{number}.db", isolation_level=None)
            own.executescript("CREATE TABLE t(a); INSERT INTO t VALUES (1)")
            own.close()
            os._exit(0)
        lib.check(wait_for(child, 20) == 0, "the child of", number)
        db.execute("INSERT INTO t VALUES (1)")
        sync(db)
        db.close()
        assert_restores(scratch, f"{number}.db")


CASES = cases_of(globals())
