"""The cases. Each is named after what the host may rely on."""
import ctypes
import os
import pathlib
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time

import lib
from host import HERE, assert_restores, cases_of, program, replicate, restore, run_threads, sync, thread_count, wait_for
from lifetimes import bundled


def a_process_without_a_replicated_database_has_no_thread_of_ours(scratch):
    lib.connect(":memory:", load=True).close()
    db = lib.connect(scratch / "plain.db")
    db.execute("PRAGMA journal_mode = WAL").fetchall()
    db.execute("CREATE TABLE t(a)")
    lib.check(thread_count() == 1, thread_count(), "threads")
    replicate(db, scratch, "plain.db")
    lib.check(thread_count() > 1, "replicating, yet no thread")
    db.close()


def databases_in_one_process_do_not_mix(scratch):
    """State that is global across databases (litestream#1513): parallel writers, and each restores to itself."""
    lib.connect(":memory:", load=True).close()
    names, failures = [f"{n}.db" for n in range(4)], []

    def work(name):
        try:
            db = lib.connect(scratch / name, page_size=[512, 1024, 4096, 65536][int(name[0])])
            replicate(db, scratch, name)
            db.execute("CREATE TABLE t(a, b)")
            for number in range(100):
                db.execute("INSERT INTO t VALUES (?, randomblob(500))", (f"{name} {number}",))
            lib.check(lib.scalar(db, "SELECT litestream_sync()") == lib.scalar(db, "SELECT litestream_txid()"), "another TXID")
            db.close()
        except BaseException as error:
            failures.append(error)

    run_threads([threading.Thread(target=work, args=[name]) for name in names])
    if failures:
        raise failures[0]
    for name in names:
        restored = restore(scratch, name)
        lib.assert_same_database((scratch / name).read_bytes(), restored.read_bytes(), name)


def a_database_opened_by_uri_ships_what_a_crash_left_in_its_wal(scratch):
    """P16, P2: a primary that begins without a connection learns what is published when SQLite first reads."""
    subprocess.run([sys.executable, "-c", """if True:
        import os, sqlite3
        db = sqlite3.connect("app.db", isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL").fetchall()
        db.execute("CREATE TABLE t(a)")
        db.execute("INSERT INTO t VALUES ('left in the WAL')")
        os._exit(0)
        """], cwd=scratch, check=True)
    lib.check((scratch / "app.db-wal").stat().st_size > 0, "no WAL was left")
    lib.connect(":memory:", load=True).close()
    db = sqlite3.connect(f"file:{scratch}/app.db?replica=file://{scratch}/app.db-replica", uri=True, isolation_level=None)
    lib.check(db.execute("SELECT a FROM t").fetchall() == [("left in the WAL",)])
    lib.scalar(db, "SELECT litestream_sync()")
    restored = restore(scratch, "app.db")
    lib.assert_same_database(lib.image(scratch / "app.db", scratch), restored.read_bytes(), "app.db")
    db.close()


def a_database_opened_by_uri_waits_while_another_process_ships_it(scratch):
    """P16: the open succeeds, the status says why nothing begins, and the next opening of the WAL tries again."""
    other = subprocess.Popen(["sqlite3", scratch / "app.db", "-cmd", f".load {lib.LIBRARY}"], text=True,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    other.stdin.write(f"SELECT litestream_replicate('file://{scratch}/app.db-replica'); CREATE TABLE t(a);\n")
    other.stdin.flush()
    lib.check(other.stdout.readline().strip() == "0000000000000001", "the other process does not replicate")
    lib.connect(":memory:", load=True).close()
    uri = f"file:{scratch}/app.db?replica=file://{scratch}/app.db-replica"
    db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=30)
    db.execute("SELECT * FROM sqlite_schema").fetchall()
    state, error = db.execute("SELECT state, last_error FROM litestream_status").fetchone()
    lib.check(state == "waiting" and "another process" in error, state, error)
    db.close()
    other.communicate()
    db = sqlite3.connect(uri, uri=True, isolation_level=None)
    db.execute("INSERT INTO t VALUES (1)")
    lib.check(lib.scalar(db, "SELECT litestream_sync()") > "0000000000000001", "nothing was shipped")
    db.close()
    restored = sqlite3.connect(restore(scratch, "app.db"))
    lib.check(restored.execute("SELECT a FROM t").fetchall() == [(1,)], "another content")


def a_close_does_not_wait_for_what_cannot_come(scratch):
    """A database that is empty now has nothing to ship; the close would wait for the whole close_timeout."""
    lib.connect(":memory:", load=True).close()
    db = lib.connect(scratch / "app.db")
    replicate(db, scratch, "app.db", close_timeout="1h")
    db.execute("CREATE TABLE t(a)")
    db.close()
    open(scratch / "app.db", "w").close()
    db = lib.connect(scratch / "app.db")
    lib.check(db.execute("SELECT * FROM sqlite_schema").fetchall() == [])
    db.close()


def another_process_is_followed_after_an_exclusive_connection(scratch):
    """P4, P15: its commit was the last; then another connection closes, and another process writes."""
    lib.connect(":memory:", load=True).close()
    db = lib.connect(scratch / "app.db")
    replicate(db, scratch, "app.db", sync_interval="1ms")
    db.execute("CREATE TABLE t(a)")
    db.execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()
    db.execute("INSERT INTO t VALUES (1)")
    db.execute("PRAGMA locking_mode = NORMAL").fetchall()
    lib.check(lib.scalar(db, "SELECT count(*) FROM t") == 1)
    other = lib.connect(scratch / "app.db")
    lib.check(lib.scalar(other, "SELECT count(*) FROM t") == 1)
    other.close()
    subprocess.run(["sqlite3", scratch / "app.db", "INSERT INTO t VALUES (2)"], check=True)
    db.execute("SELECT litestream_sync(20)").fetchall()
    restored = sqlite3.connect(restore(scratch, "app.db"))
    lib.check(restored.execute("SELECT a FROM t").fetchall() == [(1,), (2,)], "rows are missing")
    db.close()


def connections_of_other_threads_are_replicated(scratch):
    lib.connect(":memory:", load=True).close()
    first = lib.connect(scratch / "app.db")
    replicate(first, scratch, "app.db")
    first.execute("CREATE TABLE t(a)")

    def work(number):
        db = lib.connect(scratch / "app.db")
        for _ in range(50):
            db.execute("INSERT INTO t VALUES (?)", (number,))
        db.close()

    run_threads([threading.Thread(target=work, args=[number]) for number in range(4)])
    first.execute("SELECT litestream_sync()").fetchall()
    db = sqlite3.connect(restore(scratch, "app.db"))
    lib.check(db.execute("SELECT a, count(*) FROM t GROUP BY a").fetchall() == [(n, 50) for n in range(4)], "rows are missing")


def a_forked_child_never_hangs_never_ships_and_the_parent_goes_on(scratch):
    lib.connect(":memory:", load=True).close()
    db = lib.connect(scratch / "app.db")
    replicate(db, scratch, "app.db")
    db.execute("CREATE TABLE t(a)")
    db.execute("SELECT litestream_sync()").fetchall()
    before = lib.FileReplica(scratch / "app.db-replica").objects()
    child = os.fork()
    if child == 0:
        # SQLite forbids the use of the inherited connection; what a child may do is open others, and leave.
        own = lib.connect(scratch / "child.db")
        own.execute("CREATE TABLE t(a)")
        own.close()
        lib.connect(":memory:").execute("SELECT count(*) FROM litestream_status").fetchall()
        ctypes.CDLL(None).exit(0)  # runs the handlers that a library may have left behind
    lib.check(wait_for(child, 20) == 0, "the child hangs, or failed")
    lib.check(lib.FileReplica(scratch / "app.db-replica").objects().keys() == before.keys(), "the child shipped")
    db.execute("INSERT INTO t VALUES ('parent')")
    db.execute("SELECT litestream_sync()").fetchall()
    db.close()
    restored = restore(scratch, "app.db")
    lib.assert_same_database((scratch / "app.db").read_bytes(), restored.read_bytes(), "after the fork")


def a_program_without_the_extension_writes_and_restarts_the_wal(scratch):
    """Its commits go from the WAL into the database unseen: a gap, and the next sync heals it."""
    lib.connect(":memory:", load=True).close()
    db = lib.connect(scratch / "app.db")
    replicate(db, scratch, "app.db")
    db.execute("CREATE TABLE t(a)")
    db.execute("SELECT litestream_sync()").fetchall()
    foreign = subprocess.Popen(["sqlite3", scratch / "app.db"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    foreign.stdin.write("INSERT INTO t VALUES (1), (2), (3); PRAGMA wal_checkpoint(TRUNCATE);\n")
    foreign.stdin.flush()
    lib.check(foreign.stdout.readline().strip() == "0|0|0", "the checkpoint did not finish")
    db.execute("INSERT INTO t VALUES (4)")
    db.execute("SELECT litestream_sync()").fetchall()
    rows = sqlite3.connect(restore(scratch, "app.db")).execute("SELECT a FROM t ORDER BY a").fetchall()
    lib.check(rows == [(1,), (2,), (3,), (4,)], "restored:", rows)
    foreign.stdin.close()
    foreign.wait()
    db.close()


def another_process_with_the_extension_writes_too(scratch):
    """It has no URL; what it commits is in the replica all the same once the primary has seen it."""
    lib.connect(":memory:", load=True).close()
    db = lib.connect(scratch / "app.db")
    replicate(db, scratch, "app.db")
    db.execute("CREATE TABLE t(a)")
    db.execute("SELECT litestream_sync()").fetchall()
    script = f"import sys; sys.path[:0] = [{str(HERE.parent)!r}]; import lib; lib.connect(':memory:', load=True).close();" \
             f"db = lib.connect({str(scratch / 'app.db')!r}); db.execute('INSERT INTO t VALUES (2)'); db.close()"
    subprocess.run([sys.executable, "-c", script], check=True)
    db.execute("INSERT INTO t VALUES (1)")
    db.execute("SELECT litestream_sync()").fetchall()
    db.close()
    restored = sqlite3.connect(restore(scratch, "app.db"))
    lib.check(sorted(restored.execute("SELECT a FROM t")) == [(1,), (2,)], "rows are missing")


def nothing_is_written_to_the_hosts_streams(scratch):
    """Also not when the store fails."""
    script = f"""
import sys; sys.path[:0] = [{str(HERE.parent)!r}]; import lib
db = lib.connect({str(scratch / 'app.db')!r}, load=True)
db.execute("SELECT litestream_replicate('file://{scratch}/replica')").fetchall()
db.execute("CREATE TABLE t(a)"); db.execute("SELECT litestream_sync()").fetchall()
import os; os.rename({str(scratch / 'replica')!r}, {str(scratch / 'away')!r}); open({str(scratch / 'replica')!r}, 'w').close()
db.execute("INSERT INTO t VALUES (1)")
lib.error_of(db, "SELECT litestream_sync(0.3)")
lib.error_of(db, "SELECT litestream_restore('s3://b/p?endpoint=http://127.0.0.1:9', 'x.db')")
os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", script], env=lib.clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lib.check(done.returncode == 0 and done.stdout == "", done.returncode, done.stdout)


def an_interrupt_ends_a_wait(scratch):
    lib.connect(":memory:", load=True).close()
    db = lib.connect(scratch / "app.db")
    replicate(db, scratch, "app.db", close_timeout="100ms")
    db.execute("CREATE TABLE t(a)")
    db.execute("SELECT litestream_sync()").fetchall()
    os.rename(scratch / "app.db-replica", scratch / "away")
    (scratch / "app.db-replica").touch()
    db.execute("INSERT INTO t VALUES (1)")
    timer = threading.Timer(0.5, db.interrupt)
    timer.start()
    started = time.monotonic()
    message = lib.error_of(db, "SELECT litestream_sync(60)")
    lib.check(time.monotonic() - started < 10 and "interrupt" in message.lower(), time.monotonic() - started, "s:", message)


def an_interrupt_ends_a_listing_that_waits_for_the_store(scratch):
    db = lib.connect(":memory:", load=True)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"s3://bucket/app?endpoint=http://127.0.0.1:{silent.getsockname()[1]}&region=any"
        os.environ.update(lib.s3_environment())
        threading.Timer(0.5, db.interrupt).start()
        started = time.monotonic()
        message = lib.error_of(db, "SELECT count(*) FROM litestream_files(?)", url)
        lib.check(time.monotonic() - started < 10 and "interrupt" in message, time.monotonic() - started, "s:", message)


def an_interrupt_ends_a_pragma_that_waits(scratch):
    """Of a host that can be asked while nothing runs (3.41), and a connection that was opened after the load."""
    script = f"""
import os, threading, time
{bundled(scratch, "pysqlite3")}
def connect(path):
    return pysqlite3.connect(path, isolation_level=None, check_same_thread=False)
loader = connect(":memory:")
loader.enable_load_extension(True); loader.load_extension({str(lib.LIBRARY)!r})
db = connect({str(scratch / "app.db")!r})
db.execute("SELECT litestream_replicate(NULL, 'file://{scratch}/app.db-replica', ?)", ('{{"close_timeout":"100ms"}}',)).fetchall()
db.execute("CREATE TABLE t(a)")
db.execute("PRAGMA litestream_sync").fetchall()
os.rename({str(scratch / "app.db-replica")!r}, {str(scratch / "away")!r})
open({str(scratch / "app.db-replica")!r}, "w").close()
db.execute("INSERT INTO t VALUES (1)")
threading.Timer(0.5, db.interrupt).start()
started = time.monotonic()
try:
    print(db.execute("PRAGMA litestream_sync").fetchall())
except Exception as error:
    lib.check("interrupt" in str(error).lower(), repr(error))
lib.check(0.3 < time.monotonic() - started < 10, time.monotonic() - started)
lib.check(db.execute("SELECT count(*) FROM t").fetchall() == [(1,)])
"""
    lib.check(program(script) == (0, ""), program(script))


def p12_starts_beside_a_busy_writer_succeed(scratch):
    """What is compared with the replica is written to and checkpointed meanwhile, by a connection that nobody watches yet."""
    lib.connect(":memory:", load=True).close()
    db = lib.connect(scratch / "app.db")
    replicate(db, scratch, "app.db")
    db.execute("CREATE TABLE t(v)")
    ended = threading.Event()

    def write():
        writer = lib.connect(scratch / "app.db")
        writer.execute("PRAGMA wal_autocheckpoint = 10").fetchall()
        while not ended.is_set():
            writer.execute("INSERT INTO t VALUES (randomblob(3000))")
        writer.close()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(10):
            db.execute("SELECT litestream_stop()").fetchall()
            time.sleep(0.02)  # meanwhile commits are made that are a gap
            replicate(db, scratch, "app.db")
    finally:
        ended.set()
        thread.join()
    sync(db)
    db.close()
    assert_restores(scratch, "app.db")


def signals_reach_the_host_alone(scratch):
    """Our threads block all signals, so that a handler runs where the host expects it."""
    lib.connect(":memory:", load=True).close()
    db = lib.connect(scratch / "app.db")
    replicate(db, scratch, "app.db")
    tasks = pathlib.Path("/proc/self/task")
    if not tasks.exists():
        return
    for task in tasks.iterdir():
        if int(task.name) != os.getpid():
            status = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line)
            blocked = int(status["SigBlk"], 16)
            lib.check(blocked >> (signal.SIGTERM - 1) & 1 and blocked >> (signal.SIGINT - 1) & 1,
                      f"the thread {status['Name']} takes signals: {status['SigBlk']}")
    db.close()


CASES = cases_of(globals())
