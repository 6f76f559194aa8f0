"""The cases. Nothing is decided by how long it took, but that a call which a user waits for ends soon."""
import json
import os
import pathlib
import sqlite3
import subprocess
import sys
import time
import urllib.parse

import lib

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent.parent / "stores")]
import faultproxy  # noqa: E402

COMMITS = 200
DEADLINE_SECONDS = 60
# What a user waits for at most until a name at which nobody answers is an error; the rest is a slow machine's.
SOON_SECONDS = 20


class Outage:
    """A database that replicates through a proxy to one of the servers."""

    def __init__(self, scratch, store, **options):
        os.environ.update(lib.s3_environment())
        server = lib.S3Server(store)
        self.scratch, self.direct = scratch, lib.S3Replica(server, f"outages/{scratch.name}")
        self.proxy = faultproxy.FaultProxy(urllib.parse.urlsplit(server.url).netloc)
        self.url = self.direct.url.replace(server.url, self.proxy.url)
        self.options = json.dumps({"sync_interval": "50ms", "close_timeout": "200ms"} | options)
        self.path, self.rows, self.db = scratch / "app.db", 0, None
        lib.connect(":memory:", load=True).close()
        self.open()
        self.db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
        self.commit(10)
        lib.scalar(self.db, "SELECT litestream_sync(60)")

    def open(self):
        self.db = lib.connect(self.path)
        lib.scalar(self.db, "SELECT litestream_replicate(NULL, ?, ?)", self.url, self.options)

    def commit(self, count):
        for _ in range(count):
            self.db.execute("INSERT INTO t(v) VALUES (randomblob(300))")
            self.rows += 1

    def status(self):
        self.db.row_factory = sqlite3.Row
        row = self.db.execute("SELECT * FROM litestream_status").fetchone()
        self.db.row_factory = None
        return row

    def until(self, holds, what):
        """Commits until the status is as it should be."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not holds(status := self.status()):
            lib.check(time.monotonic() < deadline, what, dict(status))
            self.commit(1)
            time.sleep(0.005)
        return status

    def begins(self, fault, says):
        """The store fails; the status says so, and commits go on."""
        durable = lib.scalar(self.db, "SELECT litestream_txid()")
        self.proxy.fault = fault
        self.commit(1)
        self.until(lambda s: s["state"] == "retrying" and any(word in (s["last_error"] or "") for word in says),
                   "the state does not say that the store is away:")
        self.commit(COMMITS)
        lib.check(lib.scalar(self.db, "SELECT count(*) FROM t") == self.rows, "commits are missing")
        status = self.status()
        lib.check(status["state"] == "retrying" and status["durable_txid"] == durable, dict(status))
        lib.check(status["lag_seconds"] > 0 and status["last_error_at"] and status["spool_files"] <= 3, dict(status))

    def ends(self):
        """The store is back: everything arrives, in order."""
        self.proxy.fault = None
        self.commit(1)
        lib.scalar(self.db, "SELECT litestream_sync(120)")
        status = self.status()
        lib.check(status["state"] == "running" and status["lag_seconds"] == 0, dict(status))
        lib.check(status["txid"] == status["durable_txid"], dict(status))
        objects = self.direct.objects()
        lib.check(lib.chain(objects)[0] == 1 and lib.chain(objects)[-1] == int(status["durable_txid"], 16), sorted(objects))
        self.restores("restored.db")

    def restores(self, name):
        target = self.scratch / name
        lib.scalar(self.db, "SELECT litestream_restore(?, ?)", self.url, str(target))
        expected = lib.image(self.path, self.scratch)
        lib.assert_same_database(expected, target.read_bytes(), name)


def outage_of(fault, *says, **options):
    def case(scratch, store):
        outage = Outage(scratch, store, **options)
        outage.begins(fault, says)
        outage.ends()
        outage.db.close()
    return case


def nobody_listens_over_closes_and_opens(scratch, store):
    """P18: the store is away over many closes; the spool keeps its bound, and afterwards everything arrives."""
    outage = Outage(scratch, store, spool_max="0", close_timeout="1ms")
    outage.begins("refuse", ["refused", "Connect"])
    before = len(outage.direct.objects())
    for _ in range(5):
        outage.db.close()
        outage.open()
        lib.check(outage.status()["state"] in ("retrying", "starting"), dict(outage.status()))
        outage.commit(20)
        lib.check(outage.status()["spool_files"] <= 4, dict(outage.status()))
    lib.check(len(outage.direct.objects()) == before, "objects came through")
    outage.ends()
    outage.db.close()


def calls_that_a_user_waits_for_end_soon_where_nobody_answers(scratch, store):
    outage = Outage(scratch, store)
    outage.proxy.fault = "refuse"
    time.sleep(0.2)
    sqlite3.connect(scratch / "other.db").execute("CREATE TABLE t(a)").connection.close()
    gone = outage.url.replace("http://127.0.0.1", "http://nobody.invalid")
    for sql in ["SELECT litestream_restore(?, 'x.db')", "SELECT count(*) FROM litestream_files(?)",
                f"SELECT litestream_replicate('{scratch}/other.db', ?)"]:
        for url in [outage.url, gone]:
            started = time.monotonic()
            message = lib.error_of(outage.db, sql, url)
            lib.check("Connect" in message or "dns" in message.lower(), message)
            lib.check(time.monotonic() - started < SOON_SECONDS, sql, url, time.monotonic() - started, "s:", message)
            lib.check(message.count("s3://") == 1, "the URL is named twice:", message)
    outage.ends()
    outage.db.close()


def a_name_that_is_gone_from_the_dns(scratch, store):
    """The record is made to know the replica by a name that does not resolve."""
    outage = Outage(scratch, store)
    lib.scalar(outage.db, "SELECT litestream_stop()")
    record = scratch / ".app.db-litestream" / "record"
    known, gone = outage.proxy.url, outage.proxy.url.replace("127.0.0.1", "nobody.invalid")
    record.write_text(record.read_text().replace(known, gone))
    right, outage.url = outage.url, outage.url.replace(known, gone)
    lib.scalar(outage.db, "SELECT litestream_replicate(NULL, ?, ?)", outage.url, outage.options)
    outage.commit(COMMITS)
    status = outage.until(lambda s: s["state"] == "retrying" and s["last_error"], "not retrying:")
    lib.check("dns" in status["last_error"].lower() or "Connect" in status["last_error"], status["last_error"])
    lib.error_of(outage.db, "SELECT litestream_stop()")
    record.write_text(record.read_text().replace(gone, known))
    outage.url = right
    lib.scalar(outage.db, "SELECT litestream_replicate(NULL, ?, ?)", outage.url, outage.options)
    outage.ends()
    outage.db.close()


def a_restore_reads_on_through_cut_and_slow_answers(scratch, store):
    outage = Outage(scratch, store)
    for number, fault in enumerate(["503", "drop", "lose", "truncate", "slow"]):
        outage.commit(20)
        lib.scalar(outage.db, "SELECT litestream_sync(60)")
        outage.proxy.times, outage.proxy.fault, outage.proxy.met = 3, fault, 0
        outage.restores(f"restored-{number}.db")
        lib.check(outage.proxy.met == 3, fault, outage.proxy.met)
        outage.proxy.fault = outage.proxy.times = None
    outage.db.close()


def the_hosts_log_says_it_once(scratch, store):
    """Invariant 11: a host that sets SQLITE_CONFIG_LOG hears of the outage, and of its end, from any thread; nothing
    comes twice a minute, and nothing reaches its streams."""
    script = f"""
import ctypes, sys
sys.path[:0] = [{str(pathlib.Path(__file__).parent)!r}, {str(pathlib.Path(__file__).parent.parent)!r}]
library = ctypes.CDLL('libsqlite3.so.0')
heard = []
Callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p)
callback = Callback(lambda _, code, text: heard.append((code, text.decode())))
assert library.sqlite3_config(16, callback, None) == 0
import cases, pathlib, lib
outage = cases.Outage(pathlib.Path({str(scratch)!r}), {store!r})
outage.begins('503', ['SlowDown'])
outage.commit(200)
outage.ends()
outage.db.close()
ours = [(code, text) for code, text in heard if text.startswith('litestream: ')]
away = [text for code, text in ours if code == 28 and '503 SlowDown' in text]
assert len(away) == 1, ours
assert any(code == 27 and 'again' in text for code, text in ours), ours
# Without a database, after a shutdown, our logger is still no danger; the callback goes before Python does.
library.sqlite3_shutdown()
library.sqlite3_config(16, None, None)
"""
    done = subprocess.run([sys.executable, "-c", script], env=lib.s3_environment(), stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    lib.check(done.returncode == 0 and done.stdout == "", done.returncode, done.stdout)


CASES = {
    "connections_are_refused": outage_of("refuse", "refused", "Connect"),
    "connections_are_dropped": outage_of("drop", "put", "connection"),
    "403": outage_of("403", "403 AccessDenied"),
    "the_bucket_is_gone": outage_of("404", "404 NoSuchBucket"),
    "503": outage_of("503", "503 SlowDown"),
    "answers_are_lost": outage_of("lose", "connection", "put"),
    "answers_stall": outage_of("stall", "timed out", "timeout"),
    "nobody_listens_over_closes_and_opens": nobody_listens_over_closes_and_opens,
    "calls_that_a_user_waits_for_end_soon_where_nobody_answers": calls_that_a_user_waits_for_end_soon_where_nobody_answers,
    "a_name_that_is_gone_from_the_dns": a_name_that_is_gone_from_the_dns,
    "a_restore_reads_on_through_cut_and_slow_answers": a_restore_reads_on_through_cut_and_slow_answers,
    "the_hosts_log_says_it_once": the_hosts_log_says_it_once,
}
