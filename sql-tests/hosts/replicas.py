"""Replicas that a host opens through the VFS `litestream`."""
import os
import pathlib
import sqlite3
import subprocess
import threading
import time
import urllib.parse

import lib
from host import cases_of, loaded, program, replicate, run_threads, sync, wait_for
from lifetimes import bundled
from tiny_s3 import TinyS3


def replica_of(scratch, name="app.db", rows=100):
    """A replica of a table `t` of so many rows, at TXID 1; its URL."""
    loaded()
    db = lib.connect(scratch / name)
    db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, a)")
    db.execute("WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) INSERT INTO t SELECT i, randomblob(500) FROM n", (rows,))
    replicate(db, scratch, name)
    sync(db)
    db.execute("SELECT litestream_stop()").fetchall()
    db.close()
    return f"file://{scratch}/{name}-replica"


def open_replica(url, name="any", **parameters):
    query = urllib.parse.urlencode({"vfs": "litestream", "replica": url} | parameters, quote_via=urllib.parse.quote)
    return lib.connect(f"file:{name}?{query}", uri=True)


def shell(scratch, script, *load, **variables):
    """What the sqlite3 shell prints, in a fresh process."""
    done = subprocess.run(["sqlite3", "-batch", "-init", os.devnull, "-cmd", " ".join([".load", str(lib.LIBRARY), *load])],
                          input=script, cwd=scratch, text=True, env=lib.sanitized(lib.clean_environment(**variables)),
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
    return done.stdout


def litestreams_examples_run_in_a_fresh_process(scratch):
    """Those of its guide and its reference: entry point, variable, functions, PRAGMAs."""
    url = replica_of(scratch)
    script = """.open 'file:prod.db?vfs=litestream'
SELECT count(*) FROM t LIMIT 10;
PRAGMA litestream_txid;
PRAGMA litestream_lag;
PRAGMA litestream_time;
PRAGMA litestream_time = '2000-01-01T00:00:00Z';
PRAGMA litestream_time = 'latest';
SELECT litestream_txid(), litestream_lag() BETWEEN 0 AND 60, litestream_time() LIKE '20%Z';
SELECT litestream_set_time('LATEST');
PRAGMA litestream_hydration_progress;
PRAGMA litestream_hydration_file;
PRAGMA litestream_write_enabled;
INSERT INTO t(a) VALUES (1);
"""
    found = shell(scratch, script, "sqlite3_litestreamvfs_init", LITESTREAM_REPLICA_URL=url).splitlines()
    lag, time_shown, refused, readonly = found.pop(2), found.pop(2), found.pop(2), found.pop()
    lib.check(found == ["100", "0000000000000001", "0000000000000001|1|1", "", "0", "", "0"], found)
    lib.check(0 <= int(lag) <= 60, lag)
    lib.check(time_shown.startswith("20") and time_shown.endswith("Z"), time_shown)
    lib.check("no state before 2000" in refused, refused)
    lib.check("attempt to write a readonly database" in readonly, readonly)
    python = f"""
loader = lib.connect(":memory:", load=True)
loader.close()
conn = lib.connect("file:prod.db?vfs=litestream", uri=True)
lib.check(len(conn.execute("SELECT id, a FROM t LIMIT 5").fetchall()) == 5)
lib.check(conn.execute("PRAGMA litestream_time = 'LATEST'").fetchall() == [])
memory = lib.connect("file::memory:", uri=True)
memory.execute("ATTACH DATABASE 'file:replica.db?vfs=litestream' AS replica")
lib.check(memory.execute("PRAGMA replica.litestream_txid").fetchall() == [("0000000000000001",)])
lib.check(lib.scalar(memory, "SELECT count(*) FROM replica.t") == 100)
"""
    done = program(python, lib.clean_environment(LITESTREAM_REPLICA_URL=url))
    lib.check(done == (0, ""), done)
    lib.check(not list(scratch.glob("prod*")) and not list(pathlib.Path.cwd().glob("prod.db*")), "a file was made")


def litestreams_other_variables(scratch):
    """Writing is refused at load, where there is a message, and at the open; the log goes to a file, never to stdout."""
    url = replica_of(scratch)
    refused = shell(scratch, "", "sqlite3_litestreamvfs_init", LITESTREAM_REPLICA_URL=url, LITESTREAM_WRITE_ENABLED="true")
    lib.check("LITESTREAM_WRITE_ENABLED is set: a replica is read-only" in refused, refused)
    script = ".open file:a?vfs=litestream\nSELECT 1 FROM t;\n.open :memory:\nSELECT last_error FROM litestream_status;\n"
    refused = shell(scratch, script, LITESTREAM_REPLICA_URL=url, LITESTREAM_WRITE_ENABLED="true")
    lib.check("LITESTREAM_WRITE_ENABLED is set" in refused, refused)
    script = ".open file:a?vfs=litestream\nSELECT count(*) FROM t;\n"
    log = {"LITESTREAM_LOG_FILE": scratch / "log.txt", "LITESTREAM_LOG_LEVEL": "DEBUG"}
    found = shell(scratch, script, LITESTREAM_REPLICA_URL=url, LITESTREAM_HYDRATION_ENABLED="false", **log)
    lib.check(found == "100\n", found)
    text = (scratch / "log.txt").read_text()
    lib.check("level=DEBUG" in text and "is opened from file://" in text, text)
    refused = shell(scratch, "SELECT 1;", LITESTREAM_LOG_FILE=scratch / "no" / "log.txt")
    lib.check("the log file" in refused, refused)


def replicas_under_one_name_with_one_cache(scratch):
    """With cache=shared SQLite takes files of one name for one file: other URLs and other moments have other names."""
    urls = [replica_of(scratch, name, rows) for name, rows in (("one.db", 10), ("two.db", 20))]
    first, again, other = (open_replica(url, cache="shared") for url in (urls[0], urls[0], urls[1]))
    past = open_replica(urls[1], cache="shared", at="0000000000000001")
    for db, rows in ((first, 10), (again, 10), (other, 20), (past, 20)):
        lib.check(lib.scalar(db, "SELECT count(*) FROM t") == rows, db.execute("PRAGMA database_list").fetchall())
    opened = [row[0] for row in first.execute("SELECT url FROM litestream_status WHERE role = 'replica'")]
    lib.check(sorted(opened) == [urls[0], urls[1], urls[1]], "not one file for one cache:", opened)
    failures = []

    def read(db):
        for _ in range(50):
            if lib.scalar(db, "SELECT count(*) FROM t WHERE length(a) = 500") != 10:
                failures.append("another number of rows")

    threads = [open_replica(urls[0], cache="shared") for _ in range(4)]
    run_threads([threading.Thread(target=read, args=(db,)) for db in threads])
    lib.check(not failures, failures[:3])


def many_replicas_in_one_process(scratch):
    urls = [replica_of(scratch, f"{number}.db", number + 1) for number in range(12)]
    every = [(number, open_replica(url, f"label{copy}")) for number, url in enumerate(urls) for copy in range(3)]
    for number, db in every:
        lib.check(lib.scalar(db, "SELECT count(*) FROM t") == number + 1, "rows of another replica")
    lib.check(lib.scalar(every[0][1], "SELECT count(*) FROM litestream_status WHERE role = 'replica'") == 36, "rows of the status")
    for _, db in every[1:]:
        db.close()
    lib.check(lib.scalar(every[0][1], "SELECT count(*) FROM litestream_status WHERE role = 'replica'") == 1, "a closed one stays")


def journals_and_wals_that_lie_beside(scratch):
    """A replica has neither, whatever lies there under such a name; and nothing of it is touched."""
    url = replica_of(scratch)
    label = scratch / "any.db"
    db = open_replica(url, label)
    name = db.execute("PRAGMA database_list").fetchone()[2]
    db.close()
    lib.check(name.startswith(f"{label}-replica-"), name)
    beside = [pathlib.Path(f"{path}{suffix}") for path in (label, name) for suffix in ("-journal", "-wal", "-shm")]
    for path in beside:
        path.write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + bytes(1000))
    label.write_bytes(b"not a database")
    db = open_replica(url, label)
    lib.check(lib.scalar(db, "SELECT count(*) FROM t") == 100, "rows")
    lib.check(lib.scalar(db, "PRAGMA integrity_check") == "ok", "integrity")
    db.execute("PRAGMA journal_mode = PERSIST").fetchall()
    db.execute("PRAGMA journal_mode = DELETE").fetchall()
    db.close()
    for path in beside:
        lib.check(len(path.read_bytes()) == 1008, f"{path} was touched")
    lib.check(label.read_bytes() == b"not a database", "the file of that name was touched")


def without_sqlites_locks_one_state_is_shown(scratch):
    """nolock and immutable: nothing tells where a transaction ends, so the state stays that of the open."""
    url = replica_of(scratch)
    still = [open_replica(url, poll_interval="10ms", **{name: "1"}) for name in ("nolock", "immutable")]
    follows = open_replica(url, poll_interval="10ms")
    db = lib.connect(scratch / "app.db")
    replicate(db, scratch, "app.db", sync_interval="10ms")
    db.execute("DELETE FROM t WHERE id > 5")
    txid = sync(db)
    lib.scalar(follows, "SELECT litestream_wait(?)", txid)
    lib.check(lib.scalar(follows, "SELECT count(*) FROM t") == 5, "it does not follow")
    for one in still:
        lib.check(lib.scalar(one, "SELECT count(*) FROM t") == 100, "it moved")
        lib.check("nolock" in lib.error_of(one, "SELECT litestream_set_time('latest')"), "it was moved")


def a_lock_that_outlives_its_statement_keeps_the_state(scratch):
    """In exclusive mode, and where another connection reads through the same cache; a statement's own does not."""
    url = replica_of(scratch)
    moves = ("SELECT litestream_set_time('0000000000000001')", "SELECT litestream_wait('0000000000000063', 0)")

    def is_kept(db, why):
        for sql in moves:
            lib.check("keeps TXID 0000000000000001" in lib.error_of(db, sql), why, sql)

    db = open_replica(url)
    db.execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()
    db.execute(moves[0]).fetchall()
    lib.scalar(db, "SELECT count(*) FROM t")
    is_kept(db, "exclusive")
    db.execute("PRAGMA locking_mode = NORMAL").fetchall()
    is_kept(db, "it was exclusive, and nothing was read since")
    lib.scalar(db, "SELECT count(*) FROM t")
    db.execute(moves[0]).fetchall()
    db.execute("SELECT litestream_set_time('latest') FROM t").fetchall()
    one, other = (open_replica(url, cache="shared") for _ in range(2))
    other.execute("BEGIN")
    lib.scalar(other, "SELECT count(*) FROM t")
    is_kept(one, "a shared cache")
    other.execute("COMMIT")
    one.execute(moves[0]).fetchall()


def a_store_that_is_away_shows_at_the_first_attempt(scratch):
    """A request is repeated for most of a minute before it fails."""
    replica_of(scratch)
    os.environ.update(lib.s3_environment())
    server = TinyS3(scratch / "app.db-replica")
    db = open_replica(server.url, poll_interval="10ms")
    state = "SELECT state FROM litestream_status WHERE role = 'replica'"
    lib.check(lib.scalar(db, state) == "running", "not running")
    server.answer = lambda key: 503
    until(lambda: lib.scalar(db, state) == "retrying")
    lib.check("503" in lib.scalar(db, "SELECT last_error FROM litestream_status"), "no reason")
    server.answer = lambda key: None
    until(lambda: lib.scalar(db, state) == "running")


def until(condition):
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come to that")


def what_fails_is_told(scratch):
    """An open gives a code only; the reason stands in the status of any connection."""
    loaded()
    db = lib.connect(":memory:")
    for number in range(20):
        try:
            open_replica(f"file://{scratch}/nothing", f"label{number}")
            raise AssertionError("a replica of nothing was opened")
        except sqlite3.OperationalError as error:
            lib.check("unable to open database file" in str(error), error)
    rows = db.execute("SELECT path, state, last_error FROM litestream_status").fetchall()
    lib.check(len(rows) == 16 and rows[-1][0].endswith("/label19") and rows[-1][1] == "error", rows)
    lib.check("nothing was replicated here" in rows[-1][2], rows[-1])
    # Under one label another replica is another row.
    for name in ("nothing", "nowhere"):
        lib.check(lib.error_of(db, f"ATTACH 'file:label19?vfs=litestream&replica=file://{scratch}/{name}' AS a"), name)
    open_replica(replica_of(scratch), "label19")
    rows = db.execute("SELECT url FROM litestream_status WHERE state = 'error'").fetchall()
    lib.check([row[0] for row in rows[-2:]] == [f"file://{scratch}/{name}" for name in ("nothing", "nowhere")], rows)


def a_replica_is_not_stopped(scratch):
    db = open_replica(replica_of(scratch))
    lib.check("close the connection" in lib.error_of(db, "SELECT litestream_stop()"), "another message")


def a_forked_child_opens_its_own(scratch):
    """What the parent has open is the parent's: the child is told so, and can neither hang nor disturb it."""
    url = replica_of(scratch)
    db = open_replica(url, poll_interval="10ms")
    lib.check(lib.scalar(db, "SELECT count(*) FROM t") == 100, "rows")
    for _ in range(10):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                own = open_replica(url, "own")
                status = 2 if lib.scalar(own, "SELECT count(*) FROM t") != 100 else 0
                try:
                    db.execute("SELECT sum(length(a)) FROM t").fetchall()
                    status = 3
                except sqlite3.OperationalError as error:
                    status = status or ("disk I/O error" not in str(error)) * 4
                own.close()
                db.close()
            finally:
                os._exit(status)
        status = wait_for(child, 20)
        lib.check(status == 0, "the child:", status)
    lib.check(lib.scalar(db, "SELECT sum(length(a)) FROM t") == 50000, "the parent reads on")


def hydration_is_told(scratch):
    """By parameter, and by Litestream's variables; a second connection shares the copy."""
    url = replica_of(scratch, rows=2000)

    def complete(db, path):
        for _ in range(500):
            if lib.scalar(db, "PRAGMA litestream_hydration_progress") == "100.0":
                break
            time.sleep(0.02)
        lib.check(lib.scalar(db, "SELECT litestream_hydration_status()") == "complete", "status")
        lib.check(lib.scalar(db, "SELECT litestream_hydration_progress()") == 100, "progress")
        lib.check(lib.scalar(db, "PRAGMA litestream_hydration_file") == str(path), "file")
        lib.check(path.stat().st_size > 1000000, "the file's size")
        lib.check(lib.scalar(db, "SELECT sum(length(a)) FROM t") == 1000000, "rows")

    complete(open_replica(url, hydrate="1", hydrate_path=scratch / "copy.db"), scratch / "copy.db")
    os.environ.update(LITESTREAM_REPLICA_URL=replica_of(scratch, "other.db", 2000), LITESTREAM_HYDRATION_ENABLED="true",
                      LITESTREAM_HYDRATION_PATH=str(scratch / "other-copy.db"))
    complete(lib.connect("file:other?vfs=litestream", uri=True), scratch / "other-copy.db")


STALLED = """
import threading, time, urllib.parse
from tiny_s3 import TinyS3
{imports}
server = TinyS3({directory!r})
query = urllib.parse.urlencode(dict(vfs="litestream", replica=server.url, poll_interval="1h"))
loader = {connect}(":memory:")
loader.enable_load_extension(True); loader.load_extension({library!r}); loader.close()
db = {connect}("file:any?" + query, uri=True, check_same_thread=False)
lib.check(db.execute("SELECT id FROM t WHERE id = 1").fetchone() == (1,))
stop = threading.Event()
server.answer = lambda key: stop.wait(60) and None
can_ask = db.execute("SELECT sqlite_version() >= '3.41'").fetchone()[0]
for sql in ["SELECT sum(length(a)) FROM t"] + can_ask * ["PRAGMA litestream_time = '0000000000000001'"]:
    threading.Timer(1, db.interrupt).start()
    started = time.monotonic()
    try:
        print(db.execute(sql).fetchall())
    except Exception as error:
        lib.check("interrupt" in str(error).lower(), repr(error))
        lib.check(getattr(error, "sqlite_errorname", "SQLITE_INTERRUPT") == "SQLITE_INTERRUPT", repr(error))
    lib.check(0.5 < time.monotonic() - started < 10, sql, time.monotonic() - started)
stop.set()
server.answer = lambda key: None
lib.check(db.execute("SELECT sum(length(a)) FROM t").fetchone() == (4000000,))
"""


def an_interrupt_ends_a_read_that_waits_for_the_store(scratch):
    """Of a host that can be asked (3.41), and of one where a nested statement tells."""
    replica_of(scratch, rows=8000)
    for imports, connect in (("import sqlite3", "sqlite3.connect"), (bundled(scratch, "pysqlite3"), "pysqlite3.connect")):
        script = STALLED.format(imports=imports, connect=connect, library=str(lib.LIBRARY), directory=f"{scratch}/app.db-replica")
        done = program(script, lib.s3_environment())
        lib.check(done == (0, ""), connect, done)


def codes_of_ours(scratch):
    """include/litestream.h names them."""
    replica_of(scratch, rows=8000)
    header = (lib.ROOT / "include" / "litestream.h").read_text()
    numbers = {name: 10 | int(header.split(f"LITESTREAM_IOERR_{name} (SQLITE_IOERR | (")[1].split(" ")[0]) << 8
               for name in ("GONE", "RESTARTED", "CORRUPT", "UNAVAILABLE")}
    os.environ.update(lib.s3_environment())
    server = TinyS3(scratch / "app.db-replica")
    for status, name in ((404, "GONE"), (412, "RESTARTED"), (403, "UNAVAILABLE")):
        db = open_replica(server.url, poll_interval="1h", cache_size="1B")
        lib.scalar(db, "SELECT id FROM t WHERE id = 1")
        server.answer = lambda key: status
        try:
            db.execute("SELECT sum(length(a)) FROM t").fetchall()
            raise AssertionError(f"{status}: no error")
        except sqlite3.OperationalError as error:
            found = error.sqlite_errorcode if hasattr(error, "sqlite_errorcode") else numbers[name]
            lib.check(found == numbers[name], status, error, found)
        told = lib.scalar(db, "SELECT last_error FROM litestream_status WHERE role = 'replica'")
        lib.check(told, "no last_error")
        server.answer = lambda key: None
        db.close()


CASES = cases_of(globals())
