"""The cases. Each is named after what may be relied on where several processes write."""
import os
import pathlib
import sqlite3
import subprocess
import sys
import threading
import time

import lib
from mixture import HERE, restore, shell

CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


def start(scratch, rows=100, **pragmas):
    """A database that this process replicates and has open, with everything shipped."""
    path, replica = scratch / "app.db", lib.FileReplica(scratch / "replica")
    db = lib.connect(path, load=True, **pragmas)
    db.execute("PRAGMA journal_mode = WAL").fetchall()
    db.execute("CREATE TABLE t(a, filler)")
    fill(db, rows)
    lib.scalar(db, "SELECT litestream_replicate(?)", replica.url)
    lib.scalar(db, "SELECT litestream_sync()")
    return db, path, replica


def fill(db, rows):
    db.execute("WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
               "INSERT INTO t SELECT i, randomblob(300) FROM n", (rows,))


def last_error(db):
    return lib.scalar(db, "SELECT coalesce(last_error, '') FROM litestream_status")


def assert_no_gap(db):
    """Nothing had to be found by comparing."""
    lib.check(last_error(db) == "", "a gap:", last_error(db))


def wait(what, until, seconds=60):
    deadline = time.monotonic() + seconds
    while not until():
        lib.check(time.monotonic() < deadline, "never:", what)
        time.sleep(0.01)


def rows_of(replica, scratch, table="t"):
    db = sqlite3.connect(restore(replica, scratch / "now.db"))
    rows = db.execute(f"SELECT a FROM {table} ORDER BY rowid").fetchall()
    db.close()
    return [a for a, in rows]


def is_restored(replica, scratch, value):
    return value in rows_of(replica, scratch)


def objects(replica):
    return len(replica.objects())


@case
def p15_one_commit_by_the_stock_shell_then_silence_is_shipped(scratch):
    """At synchronous=FULL the last write to the WAL is long before the publication. The time is told, not judged."""
    db, path, replica = start(scratch)
    time.sleep(1.5)  # quiet, and the last object is older than sync_interval
    for number in range(5):
        before, began = objects(replica), time.monotonic()
        shell(path, f"PRAGMA synchronous = FULL; INSERT INTO t VALUES ('shell {number}', 1)")
        wait("shipped", lambda: objects(replica) > before)
        print(f"{time.monotonic() - began:.3f} s from the shell's start to the object")
        lib.check(is_restored(replica, scratch, f"shell {number}"), "it is not in the replica")
        time.sleep(1.2 * number)
    assert_no_gap(db)


@case
def sync_waits_for_what_other_processes_have_committed(scratch):
    db, path, replica = start(scratch)
    for number in range(20):
        shell(path, f"INSERT INTO t VALUES ({1000 + number}, 1)")
        lib.scalar(db, "SELECT litestream_sync()")
        lib.check(is_restored(replica, scratch, 1000 + number), number, "was committed before sync")
    assert_no_gap(db)


@case
def p15_a_restart_of_the_wal_by_another_process_is_no_gap(scratch):
    """Everything is in the database file when the shell writes, so that its first frame restarts the WAL: nobody here
    sees that, and the count of commits proves that nothing was lost by it."""
    db, path, replica = start(scratch)
    for number in range(5):
        db.execute("PRAGMA wal_checkpoint(FULL)").fetchall()
        lib.scalar(db, "SELECT litestream_sync()")
        time.sleep(0.5)
        before = salts(path)
        shell(path, f"INSERT INTO t VALUES ({1000 + number}, 1)")
        lib.check(salts(path) != before, "the WAL was not restarted")
        lib.scalar(db, "SELECT litestream_sync()")
        lib.check(is_restored(replica, scratch, 1000 + number), number, "is missing")
    assert_no_gap(db)


def salts(path):
    return subprocess.run(["head", "-c", "24", f"{path}-wal"], stdout=subprocess.PIPE, check=True).stdout[16:]


@case
def p15_a_truncate_checkpoint_by_another_process_is_no_gap(scratch):
    db, path, replica = start(scratch)
    for number in range(5):
        db.execute("INSERT INTO t VALUES (?, 1)", (1000 + number,))
        lib.scalar(db, "SELECT litestream_sync()")
        found = shell(path, "PRAGMA busy_timeout = 20000; PRAGMA wal_checkpoint(TRUNCATE)").splitlines()[-1]
        lib.check(found == "0|0|0", "the checkpoint says", found)
        time.sleep(0.3 * number)
    db.execute("INSERT INTO t VALUES ('last', 1)")
    lib.scalar(db, "SELECT litestream_sync()")
    lib.check(rows_of(replica, scratch)[100:] == [1000, 1001, 1002, 1003, 1004, "last"], "rows are missing")
    assert_no_gap(db)


@case
def a_commit_and_truncate_in_one_breath_is_found(scratch):
    """Nobody can have captured it: a gap, which is healed."""
    db, path, replica = start(scratch)
    for number in range(5):
        time.sleep(0.4)
        shell(path, f"INSERT INTO t VALUES ({number}, 1); PRAGMA wal_checkpoint(TRUNCATE)")
        lib.scalar(db, "SELECT litestream_sync()")
        lib.check(rows_of(replica, scratch)[100:] == list(range(number + 1)), "rows are missing")


@case
def p15_a_busy_writer_of_another_process_makes_no_gap_and_its_wal_stays_small(scratch):
    """Many restarts of the WAL, all by the other process: the locks on the read marks keep each until it is captured."""
    db, path, replica = start(scratch)
    shell(path, "INSERT INTO t VALUES ('first', 1)")
    lib.scalar(db, "SELECT litestream_sync()")
    script = "PRAGMA synchronous = NORMAL; PRAGMA busy_timeout = 30000; PRAGMA wal_autocheckpoint = 200;\n" + "".join(
        f"INSERT INTO t VALUES ({n}, randomblob(2000));\n" for n in range(8000))
    subprocess.run(["sqlite3", "-init", "/dev/null", str(path)], input=script, text=True, check=True, stdout=subprocess.DEVNULL)
    lib.scalar(db, "SELECT litestream_sync()")
    lib.check(rows_of(replica, scratch)[101:] == list(range(8000)), "rows are missing")
    size = os.stat(f"{path}-wal").st_size
    print("the WAL has", size, "bytes at the end")
    lib.check(size < 20_000_000, "the WAL has", size, "bytes")
    assert_no_gap(db)


@case
def p15_writers_of_this_process_alone_are_never_followed(scratch):
    """Invariant 10: no read mark is held for them (the state file tells a position only when others are followed), and
    an idle database costs no wake-up."""
    db, path, replica = start(scratch)
    for burst in (1, 300, 20, 1, 500, 5):
        for _ in range(burst):
            db.execute("INSERT INTO t VALUES (1, randomblob(300))")
        time.sleep(0.4)
    state = (path.parent / f".{path.name}-litestream" / "state").read_bytes()
    lib.check(state[8:] == b"\0\0\0\1" + bytes(20), "others were followed:", state)
    wait("no wake-up for two seconds", lambda: (before := wakes(), time.sleep(2), wakes() == before)[2])
    assert_no_gap(db)


def wakes():
    """How often each thread of ours has slept."""
    found = {}
    for task in pathlib.Path("/proc/self/task").iterdir():
        if (task / "comm").read_text().startswith("litestream"):
            found[task.name] = (task / "status").read_text().split("voluntary_ctxt_switches:")[1].split()[0]
    return found


@case
def p15_following_ends_and_pins_nothing(scratch):
    """Invariant 10: once the others are silent no read mark is held, and checkpoints do all they can."""
    db, path, replica = start(scratch)
    shell(path, "INSERT INTO t VALUES (1, 1)")
    lib.scalar(db, "SELECT litestream_sync()")
    wait("a TRUNCATE checkpoint without a busy timeout",
         lambda: shell(path, "PRAGMA wal_checkpoint(TRUNCATE)") == "0|0|0", 20)
    assert_no_gap(db)


@case
def a_vacuum_by_another_process_arrives(scratch):
    db, path, replica = start(scratch, rows=2000)
    shell(path, "DELETE FROM t WHERE rowid % 3 = 0; VACUUM; INSERT INTO t VALUES ('after', 1)")
    lib.scalar(db, "SELECT litestream_sync()")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    copy = restore(replica, scratch / "now.db")
    found = subprocess.run(["cmp", path, copy], stdout=subprocess.PIPE, text=True)
    lib.check(found.returncode == 0, "the restored database differs:", found.stdout)


@case
def writes_while_the_application_is_closed_arrive_at_its_next_open(scratch):
    """The other process has the last close of all, and then none at all."""
    db, path, replica = start(scratch)
    other = subprocess.Popen(["sqlite3", "-init", "/dev/null", str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    tell(other, "INSERT INTO t VALUES ('both open', 1);")
    db.close()
    tell(other, "INSERT INTO t VALUES ('only the other', 1);")
    db = lib.connect(path)
    db.execute("SELECT count(*) FROM t").fetchall()
    tell(other, "INSERT INTO t VALUES ('both again', 1);")
    db.close()
    other.communicate("INSERT INTO t VALUES ('before its last close', 1);\n")
    lib.check(not os.path.exists(f"{path}-wal"), "the other's close was not the last")
    db = lib.connect(path)
    db.execute("INSERT INTO t VALUES ('at the end', 1)")
    lib.scalar(db, "SELECT litestream_sync()")
    lib.check(rows_of(replica, scratch)[100:] == ["both open", "only the other", "both again", "before its last close", "at the end"],
              rows_of(replica, scratch)[100:])


def tell(process, sql):
    """Lets a shell run SQL to its end."""
    process.stdin.write(sql + "\nSELECT 'done';\n")
    process.stdin.flush()
    lib.check(process.stdout.readline() == "done\n", "the shell did not do", sql)


@case
def the_last_close_of_the_application_deletes_the_wal_while_following(scratch):
    """P9: what we have open is no obstacle, also right after another process wrote."""
    db, path, replica = start(scratch)
    for number in range(10):
        shell(path, f"INSERT INTO t VALUES ({number}, 1)")
        db.execute("SELECT count(*) FROM t").fetchall()
        db.close()
        left = [p.name for p in path.parent.glob("app.db-*")]
        lib.check(not left, number, "left behind:", left)
        db = lib.connect(path)
        db.execute("INSERT INTO t VALUES ('here', 1)")
    lib.scalar(db, "SELECT litestream_sync()")
    lib.check(len(rows_of(replica, scratch)) == 120, "rows are missing")
    assert_no_gap(db)


@case
def p13_barriers_of_a_process_without_a_url_wait_for_capture(scratch):
    """It was opened before replication began, and restarts the WAL again and again."""
    db, path, replica = start(scratch)
    command = [sys.executable, HERE / "writer.py", path, "other", 300, 1, "--library", "--checkpoints"]
    db.executescript("""CREATE TABLE account(id INTEGER PRIMARY KEY, amount INTEGER);
        CREATE TABLE entry(writer TEXT, number INTEGER, filler BLOB);
        INSERT INTO account SELECT value, 1000 FROM json_each('[0,1,2,3,4,5,6,7,8,9]')""")
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
    lib.scalar(db, "SELECT litestream_sync()")
    state = (path.parent / f".{path.name}-litestream" / "state").read_bytes()
    lib.check(state[:12] == b"lstate\0\x01\0\0\0\x01", "the state file says", state[:12])
    copy = sqlite3.connect(restore(replica, scratch / "now.db"))
    lib.check(copy.execute("SELECT count(*), max(number) FROM entry").fetchone() == (300, 300), "rows are missing")
    assert_no_gap(db)
    db.execute("SELECT litestream_stop()").fetchall()
    state = (path.parent / f".{path.name}-litestream" / "state").read_bytes()
    lib.check(state[8:12] == bytes(4), "the state file still says active")


@case
def p13_a_primary_that_was_killed_is_not_waited_for_again_and_again(scratch):
    path, replica = scratch / "app.db", lib.FileReplica(scratch / "replica")
    script = (f"import sys, os, signal; sys.path[:0] = ['{lib.ROOT}/sql-tests']; import lib\n"
              f"db = lib.connect('{path}', load=True); db.execute('CREATE TABLE t(a, filler)')\n"
              f"db.execute('SELECT litestream_replicate(?)', ('{replica.url}',)).fetchall()\n"
              "os.kill(os.getpid(), signal.SIGKILL)\n")
    subprocess.run([sys.executable, "-c", script])
    db = lib.connect(path, load=True, wal_autocheckpoint=1)
    began = time.monotonic()
    for number in range(100):
        db.execute("INSERT INTO t VALUES (?, 1)", (number,))
    seconds = time.monotonic() - began
    lib.check(seconds < 30, "100 restarts took", seconds, "s")
    lib.scalar(db, "SELECT litestream_replicate(?)", replica.url)
    lib.scalar(db, "SELECT litestream_sync()")
    lib.check(rows_of(replica, scratch) == list(range(100)), "rows are missing")


@case
def p14_a_connection_is_adopted_as_it_is(scratch):
    """It has written, has prepared statements and one in progress, is exclusive, has databases attached."""
    path, replica = scratch / "app.db", lib.FileReplica(scratch / "replica")
    db = lib.connect(path)
    db.execute("PRAGMA journal_mode = WAL").fetchall()
    db.execute("CREATE TABLE t(a, filler)")
    fill(db, 300)
    db.execute("ATTACH ? AS other", (str(scratch / "other.db"),))
    db.execute("CREATE TABLE other.o(x)")
    prepared = db.cursor()
    prepared.execute("INSERT INTO t VALUES (?, 1)", ("prepared before",))
    lib.load_extension(db)
    progress = db.execute("SELECT a FROM t ORDER BY rowid")
    lib.check(progress.fetchone() == (1,), "no statement is in progress")
    lib.scalar(db, "SELECT litestream_replicate(?)", replica.url)
    lib.check(len(progress.fetchall()) == 300, "the statement in progress lost its rows")
    prepared.execute("INSERT INTO t VALUES (?, 1)", ("prepared after",))
    lib.scalar(db, "SELECT litestream_replicate(?, ?)", str(scratch / "other.db"), f"{replica.url}-other")
    db.execute("BEGIN")
    db.execute("INSERT INTO t VALUES ('both', 1)")
    db.execute("INSERT INTO other.o VALUES ('both')")
    db.execute("COMMIT")
    lib.scalar(db, "SELECT litestream_sync()")
    lib.check(rows_of(replica, scratch)[300:] == ["prepared before", "prepared after", "both"], "rows are missing")
    db.close()
    copy = sqlite3.connect(restore(lib.FileReplica(f"{replica.path}-other"), scratch / "o.db"))
    lib.check(copy.execute("SELECT x FROM o").fetchall() == [("both",)], "the attached database is not replicated")


@case
def p14_an_exclusive_connection_is_adopted(scratch):
    for order in ("locking_mode = EXCLUSIVE", "journal_mode = WAL"), ("journal_mode = WAL", "locking_mode = EXCLUSIVE"):
        there = scratch / order[0][:4]
        there.mkdir()
        replica = lib.FileReplica(there / "replica")
        db = lib.connect(there / "app.db")
        for pragma in order:
            db.execute(f"PRAGMA {pragma}").fetchall()
        db.execute("CREATE TABLE t(a, filler)")
        db.execute("INSERT INTO t VALUES ('before', 1)")
        lib.load_extension(db)
        lib.scalar(db, "SELECT litestream_replicate(?)", replica.url)
        db.execute("INSERT INTO t VALUES ('after', 1)")
        lib.scalar(db, "SELECT litestream_sync()")
        lib.check(rows_of(replica, there) == ["before", "after"], order, rows_of(replica, there))
        db.close()


@case
def p16_an_attached_database_stays_in_wal_mode(scratch):
    """The PRAGMA without a schema is for all attached databases, and SQLite asks only main for leave."""
    db, path, replica = start(scratch)
    plain = lib.connect(scratch / "plain.db")
    plain.execute("CREATE TABLE p(x)")
    db.close()
    plain.execute("ATTACH ? AS app", (str(path),))
    plain.execute("SELECT count(*) FROM app.t").fetchall()
    for mode in ("DELETE", "TRUNCATE", "MEMORY", "OFF"):
        message = lib.error_of(plain, f"PRAGMA journal_mode = {mode}")
        lib.check("locked" in message, message)
        lib.check("journal_mode" in last_error(plain), last_error(plain))
        lib.check(lib.scalar(plain, "PRAGMA app.journal_mode") == "wal", "it has left WAL mode")
        plain.execute("INSERT INTO app.t VALUES (?, 1)", (mode,))
    plain.execute("PRAGMA app.locking_mode = EXCLUSIVE").fetchall()
    plain.execute("INSERT INTO app.t VALUES ('exclusive', 1)")
    plain.execute("PRAGMA app.locking_mode = NORMAL").fetchall()
    plain.execute("SELECT count(*) FROM app.t").fetchall()
    plain.execute("DETACH app")
    lib.check(not os.path.exists(f"{path}-wal"), "the last close left the WAL behind")
    lib.check(rows_of(replica, scratch)[100:] == ["DELETE", "TRUNCATE", "MEMORY", "OFF", "exclusive"], "rows are missing")


@case
def p16_a_commit_in_rollback_mode_is_an_error_that_says_so(scratch):
    """Another process took the database out of WAL mode while nobody here had it open."""
    db, path, replica = start(scratch)
    db.close()
    lib.check(shell(path, "PRAGMA journal_mode = DELETE") == "delete", "not in rollback mode")
    db = lib.connect(path)
    db.execute("INSERT INTO t VALUES ('rollback', 1)")
    state, error = db.execute("SELECT state, last_error FROM litestream_status").fetchone()
    lib.check(state == "error" and "WAL mode" in error, state, error)
    lib.check("WAL mode" in lib.error_of(db, "SELECT litestream_sync()"), "sync says nothing")
    lib.scalar(db, "SELECT litestream_stop()")
    lib.scalar(db, "SELECT litestream_replicate(?)", replica.url)
    db.execute("INSERT INTO t VALUES ('wal', 1)")
    lib.scalar(db, "SELECT litestream_sync()")
    lib.check(rows_of(replica, scratch)[100:] == ["rollback", "wal"], "rows are missing")


@case
def p16_another_page_size_stops_replication(scratch):
    db, path, replica = start(scratch)
    db.close()
    before = replica.objects()
    shell(path, "PRAGMA journal_mode = DELETE; PRAGMA page_size = 8192; VACUUM; PRAGMA journal_mode = WAL")
    db = lib.connect(path)
    db.execute("INSERT INTO t VALUES (1, 1)")
    wait("an error", lambda: lib.scalar(db, "SELECT state FROM litestream_status") == "error")
    lib.check("pages of 8192 bytes" in last_error(db), last_error(db))
    lib.scalar(db, "SELECT litestream_stop()")
    message = lib.error_of(db, "SELECT litestream_replicate(?)", replica.url) if refused(db, replica) else last_error(db)
    lib.check("of 4096" in message and "empty URL" in message, message)
    lib.check(replica.objects() == before, "the replica has changed")


def refused(db, replica):
    """Whether replication does not start; if it does, it ends at the comparison."""
    try:
        lib.scalar(db, "SELECT litestream_replicate(?)", replica.url)
    except sqlite3.Error:
        return True
    wait("an error", lambda: lib.scalar(db, "SELECT state FROM litestream_status") == "error")
    return False


@case
def p9_a_database_that_is_replaced_while_it_is_open_ends_replication(scratch):
    """Nothing of the other file is shipped, nor opened in a way that disturbs the connections to the one before."""
    db, path, replica = start(scratch)
    before = replica.objects()
    shell(scratch / "other.db", "PRAGMA journal_mode = WAL; CREATE TABLE t(a, filler)")
    (scratch / "other.db").rename(path)
    for number in range(3):
        db.execute("INSERT INTO t VALUES (?, 1)", (number,))
        message = lib.error_of(db, "SELECT litestream_sync()")
        lib.check("moved, removed or replaced" in message, message)
    lib.check(lib.scalar(db, "SELECT state FROM litestream_status") == "error", "the state")
    lib.check("moved, removed or replaced" in last_error(db), last_error(db))
    lib.scalar(db, "SELECT litestream_stop()")
    message = lib.error_of(db, "SELECT litestream_replicate(?)", f"file://{scratch}/anew")
    lib.check("open the database anew" in message, message)
    lib.check(lib.scalar(db, "SELECT count(*) FROM t") == 103, "the connection does not go on")
    lib.check(replica.objects() == before, "the replica has changed")


@case
def p12_a_backup_that_is_copied_back_between_two_connections_is_refused(scratch):
    """The first commit after the opening does not hide it."""
    db, path, replica = start(scratch)
    db.close()
    (scratch / "backup.db").write_bytes(path.read_bytes())
    db = lib.connect(path)
    db.execute("INSERT INTO t VALUES (1, 1)")
    lib.scalar(db, "SELECT litestream_sync()")
    db.close()
    before = replica.objects()
    path.write_bytes((scratch / "backup.db").read_bytes())
    db = lib.connect(path)
    db.execute("INSERT INTO t VALUES (2, 2)")
    message = lib.error_of(db, "SELECT litestream_sync()")
    lib.check("put back" in message, message)
    lib.check(replica.objects() == before, "the replica has changed")


@case
def p10_a_checkpoint_by_another_process_during_an_image_is_noticed(scratch):
    """Each state that is shipped while shells write and checkpoint is one that the database was in: each of their
    transactions sets all rows to one number."""
    path, replica = scratch / "app.db", lib.FileReplica(scratch / "replica")
    shell(path, "PRAGMA journal_mode = WAL; CREATE TABLE t(a, filler); CREATE TABLE entry(x);"
                "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 8000) INSERT INTO t SELECT 0, randomblob(3000) FROM n")
    db = lib.connect(path, load=True)
    db.execute("SELECT count(*) FROM t").fetchall()
    script = "PRAGMA busy_timeout = 30000; PRAGMA synchronous = OFF;\n" + "".join(
        f"UPDATE t SET a = {n} WHERE rowid % 20 = 0; PRAGMA wal_checkpoint(FULL);\n" for n in range(1, 40))
    other = subprocess.Popen(["sqlite3", "-init", "/dev/null", str(path)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    feeder = threading.Thread(target=other.communicate, args=[script])
    feeder.start()
    lib.scalar(db, "SELECT litestream_replicate(?)", replica.url)
    lib.scalar(db, "SELECT litestream_sync(120)")
    feeder.join()
    lib.check(other.returncode == 0, "the shell failed")
    lib.scalar(db, "SELECT litestream_sync(120)")
    for txid in lib.chain(replica.objects()):
        copy = sqlite3.connect(restore(replica, scratch / "then.db", f"{txid:016x}"))
        numbers = copy.execute("SELECT DISTINCT a FROM t WHERE rowid % 20 = 0").fetchall()
        lib.check(len(numbers) == 1, f"{txid}: a state that never was: {numbers}")
        copy.close()
    lib.check(numbers == [(39,)], "the last state has", numbers)
