"""A store that fails while a replica is read, through a proxy before a real server: what passes is read again, what
lasts is an error that says so, no row is ever another one; and once it is over the same connection reads on.

No page is kept in memory here, by SQLite or by the library, so that every read meets the store."""
import pathlib
import random
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.parse

import lib
import opened

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent.parent / "stores")]
import faultproxy  # noqa: E402

# Above the number of pages from which a file has a companion, with a checksum for each page.
ROWS = 4500
COMMITS = 3
ROUNDS = 3 if lib.FULL else 1
LONG_ENOUGH_SECONDS = 1.5
# Others are tried again until a minute is over.
AT_ONCE = ("403", "404", "gone", "corrupt")
PAST = "SELECT max(number) FROM t WHERE id < 4"


class Faulty:
    """A replica behind the proxy, with one primary that goes past the proxy."""

    def __init__(self, scratch):
        opened.loaded()
        direct = opened.place(scratch, "seaweed")
        self.proxy = faultproxy.FaultProxy(urllib.parse.urlsplit(direct.server.url).netloc)
        self.url = direct.url.replace(direct.server.url, self.proxy.url)
        db = lib.connect(scratch / "app.db", page_size=1024)
        opened.fill(db, "A", ROWS)
        db.close()
        self.primary = opened.primary(scratch / "app.db", direct)
        self.number = 0
        self.first = self.sync()
        for _ in range(COMMITS):
            self.commit()
        self.rng = random.Random(7)

    def sync(self):
        return lib.scalar(self.primary, "SELECT litestream_sync(60)")

    def commit(self):
        self.number += 1
        self.primary.execute("UPDATE t SET number = ? WHERE id % 500 = ?", (self.number, self.number))
        return self.sync()

    def open(self, **options):
        db = lib.open_replica(self.url, poll_interval="50ms", cache_size="1B", **options)
        db.execute("PRAGMA cache_size = 3")
        return db

    def queries(self):
        start = self.rng.randrange(ROWS - 300)
        yield from [("SELECT * FROM t WHERE id = ?", (self.rng.randrange(1, ROWS),)) for _ in range(2)]
        yield "SELECT id, number, filler FROM t WHERE id BETWEEN ? AND ? ORDER BY id", (start, start + 6)
        yield "SELECT id FROM t INDEXED BY by_tag WHERE tag = 'A' AND number >= ? ORDER BY id", (self.number - 1,)

    def read(self, db, must):
        """Right rows, or, unless they must come, an error with its reason. How many came, and the reasons."""
        came, reasons = 0, set()
        for sql, arguments in self.queries():
            expected = self.primary.execute(sql, arguments).fetchall()
            if must:
                try:
                    found, reason = db.execute(sql, arguments).fetchall(), None
                except sqlite3.Error as error:
                    lib.check(False, f"{sql} failed with {error}:", opened.last_error())
            else:
                found, reason = opened.attempt(db, sql, *arguments)
            lib.check(found is None or found == expected, f"other rows: {sql} {arguments}")
            came += found is not None
            reasons |= {reason} - {None}
        return came, reasons


def faulty_reading(scratch, fault, only=""):
    faulty = Faulty(scratch)
    proxy = faulty.proxy
    db, past = faulty.open(), faulty.open(at=faulty.first)
    faulty.read(db, must=True)
    lib.check(lib.scalar(past, PAST) == 0, "the past is not the past")
    proxy.only = only or None
    # What passes.
    for times in (1, 2):
        for _ in range(ROUNDS):
            met = proxy.met
            proxy.times, proxy.fault = times, fault
            release = threading.Timer(LONG_ENOUGH_SECONDS, lambda: setattr(proxy, "fault", None))
            release.start()
            # What is refused is not asked for again; and one read may meet a corrupted answer twice.
            faulty.read(db, must=fault != "403" and (fault, times) != ("corrupt", 2))
            lib.check(proxy.met > met, "no request met it")
            proxy.fault = None
            release.cancel()
    # What lasts. Whoever waits may interrupt.
    proxy.times, proxy.fault = None, fault
    if fault in AT_ONCE:
        # A byte of each answer that is corrupted may lie between the pages that are wanted.
        for _ in range(10):
            came, reasons = faulty.read(db, must=False)
            if reasons:
                break
        print(f"{came} queries came; reasons:", *sorted(reasons), sep="\n")
        lib.check(reasons, "it lasts, and nobody is told")
    else:
        interrupted(faulty, db)
        if lib.FULL:
            reason = opened.attempt(db, "SELECT * FROM t WHERE id = 7")[1]
            lib.check(reason or fault == "slow", "it lasts, and nobody is told")
    if fault in AT_ONCE or lib.FULL:
        refused_at_the_open(faulty, fault)
    txid = faulty.commit()
    # It is over.
    proxy.fault = None
    lib.check(lib.scalar(db, "SELECT litestream_wait(?, 60)", txid) == txid, "it does not follow any more")
    faulty.read(db, must=True)
    lib.check(lib.scalar(past, PAST) == 0, "the past moved")
    faulty.read(faulty.open(), must=True)
    states = {row["state"] for row in opened.status(db) if row["path"].endswith("any")}
    lib.check(states <= {"running"}, states)


def refused_at_the_open(faulty, fault):
    """A process without any memory of the replica."""
    script = f"""
import sys
sys.path[:0] = [{str(pathlib.Path(__file__).parent)!r}, {str(pathlib.Path(__file__).parent.parent)!r}]
import lib, opened
opened.loaded()
try:
    db = lib.open_replica({faulty.url!r})
    state, reason = opened.attempt(db, "SELECT count(*), min(tag), max(tag) FROM t NOT INDEXED")
    lib.check(state in (None, [({ROWS}, "A", "A")]), state)
except lib.sqlite3.OperationalError as error:
    lib.check("unable to open" in str(error) and opened.last_error(), error)
"""
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
    lib.check(done.returncode == 0, "at the open,", fault, done.stdout)


def interrupted(faulty, db):
    """The library tries again for a minute, unless whoever waits has had enough."""
    timer = threading.Timer(LONG_ENOUGH_SECONDS, db.interrupt)
    timer.start()
    started = time.monotonic()
    sql = "SELECT id, filler FROM t WHERE id % 7 = 3 AND id < 500 ORDER BY id"
    try:
        lib.check(db.execute(sql).fetchall() == faulty.primary.execute(sql).fetchall(), "other rows")
    except sqlite3.OperationalError as error:
        lib.check("interrupt" in str(error), error)
        lib.check(time.monotonic() - started < 20, "the interrupt took", time.monotonic() - started)
    timer.cancel()


CASES = {"faulty_reading": faulty_reading}
# Damage of any answer would be seen in files that are read whole, and in those whose companion has checksums: not in a
# page of a small file that is read again by itself (R7).
VERIFIED = r"index/|0{15}1-0{15}1\.ltx"


def wanted(full, seconds):
    faults = ["503", "403", "drop", "lose", "truncate", "stall", "slow", "refuse"]
    return [("faulty_reading", fault) for fault in faults] + [
        ("faulty_reading", "404", r"\.ltx"), ("faulty_reading", "gone", r"\.ltx"), ("faulty_reading", "corrupt", VERIFIED)]
