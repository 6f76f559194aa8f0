"""A replica that is open: warm queries, following a primary, idling, memory. Side by side with Litestream's VFS."""
import time

import lib
from common import US, mib, size, table
from readers import DELAY, SIDES, THEM, Reader, failed, make, new_replica, numbers, proxied, reader_of, upload

AT = f"{DELAY * 1e3:.0f} ms a request"
WARM = {
    "one row, by key": ("SELECT k FROM t WHERE id = 77777", 2000, "SELECT 1"),
    "100 rows, by index": ("SELECT count(v) FROM t WHERE k BETWEEN 'row 7' AND 'row 70090'", 200, "SELECT 1"),
    "scan of 25,000 rows, in SQLite's cache": ("SELECT sum(length(k)) FROM t WHERE id < 25000", 10, "PRAGMA cache_size = -20000"),
    "the same, SQLite's default cache": ("SELECT sum(length(k)) FROM t WHERE id < 25000", 10, "PRAGMA cache_size = -2000"),
    "the same, SQLite's cache too small": ("SELECT sum(length(k)) FROM t WHERE id < 25000", 10, "PRAGMA cache_size = 10"),
}


def warm():
    """A query repeated, warm: its time on the replica as a share of its time on the local file"""
    rounds, rows = size(15, 101), {}
    with lib.directory() as scratch, proxied() as proxy:
        source, replica = scratch / "app.db", new_replica()
        make(source, f"CREATE TABLE t(id INTEGER PRIMARY KEY, k TEXT, v BLOB); CREATE INDEX k ON t(k); {numbers(100_000)} "
             "INSERT INTO t SELECT i, 'row ' || i, randomblob(100) FROM n")
        upload(source, replica)
        for side in SIDES:
            with reader_of(side, replica, proxy, source) as reader:
                reader.open()
                reader.ask("query", sql="SELECT sum(id), sum(length(v)) FROM t WHERE id < 25000" if side == THEM else
                           "SELECT sum(id), sum(length(v)) FROM t")
                for name, (sql, times, pragma) in WARM.items():
                    if side == THEM and "too small" in name:
                        continue  # minutes: it keeps no page itself beyond 10 MiB, and fetches each
                    part = 1 if side == US else 10
                    found = reader.counted("against", sql=sql, times=max(1, times // part),
                                           rounds=max(3, rounds // part), pragma=pragma)
                    rows[f"{name}, {side}"] = {"us": f"{found['us']:.1f}", "local us": f"{found['local_us']:.1f}",
                                              "share": f"{found['share']:.3f}", "requests": found["requests"]}
    table(f"Warm queries, median of {rounds} ratios of neighbouring runs", ["us", "local us", "share", "requests"], rows)


PAGES_A_SECOND, EVERY = 400, 0.1
# A page each, of which about half compresses.
VALUE = "CAST(randomblob(1600) || zeroblob(1900) AS BLOB)"


def f1():
    """F1: a follower of a primary that changes 400 pages a second, which is queried meanwhile"""
    seconds, pages, rows = size(20, 120), 4000, {}
    for side in SIDES:
        with lib.directory() as scratch, proxied() as proxy:
            replica, source = new_replica(), scratch / "app.db"
            make(source, f"CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER, v BLOB); {numbers(pages)} "
                 f"INSERT INTO t SELECT i, 0, {VALUE} FROM n")
            primary = Reader(US)
            try:
                primary.ask("open", uri=f"file:{source}")
                primary.ask("query", sql=f"SELECT litestream_replicate('{replica.url}')")
                primary.ask("query", sql="SELECT litestream_sync(60)")
                rows |= followed(side, primary, replica, proxy, seconds, pages)
                primary.ask("query", sql="SELECT litestream_stop()")
            finally:
                primary.close()
    # The first GET of a file brings its index, or all of it; further ones bring pages that a query asked for, as do those
    # of the image, which was there before.
    table(f"F1: {PAGES_A_SECOND} changed pages a second for {seconds} s by our primary, a row queried every 50 ms, {AT}",
          ["L0 files", "GET", "first", "further", "of the image", "404", "LIST", "MiB", "queries", "failed", "median ms", "max ms"], rows)


def followed(side, primary, replica, proxy, seconds, pages):
    def files():
        return sum(level == 0 for level, _, _ in replica.objects())

    with reader_of(side, replica, proxy) as reader:
        reader.open()
        before = files()
        primary.send("write", seconds=seconds, every=EVERY, rows=int(PAGES_A_SECOND * EVERY), highest=pages, value_sql=VALUE)
        found = reader.counted("loop", sql="SELECT n, length(v) FROM t WHERE id = ?", seconds=seconds, every=0.05, highest=pages)
        primary.answer()
        count = files() - before
    requests = found["counted"]
    image = f"{1:016x}-{1:016x}."
    gets = [r.path for r in requests.log if r.kind == "GET" and r.status in (200, 206)]
    of_l0 = [path for path in gets if "/0000/" in path and image not in path]
    for message, times in found["failures"].items():
        failed(side, f"{times} queries failed", message)
    return {side: {"L0 files": count, "GET": requests.of("GET"), "first": len(set(of_l0)), "further": len(of_l0) - len(set(of_l0)),
                   "of the image": sum(image in path for path in gets),
                   "404": sum(r.status == 404 for r in requests.log), "LIST": requests.of("LIST"),
                   "MiB": mib(requests.bytes), "queries": found["queries"], "failed": sum(found["failures"].values()),
                   "median ms": f"{found['median_ms']:.1f}", "max ms": f"{found['longest_ms']:.0f}"}}


def idle_reader():
    """An idle primary: requests with five open connections, and after they were closed"""
    seconds, rows = size(30, 600), {}
    with lib.directory() as scratch, proxied() as proxy:
        source, replica = scratch / "app.db", new_replica()
        make(source, f"CREATE TABLE t(id INTEGER PRIMARY KEY, v); {numbers(100)} INSERT INTO t SELECT i, randomblob(200) FROM n")
        upload(source, replica)
        for side in SIDES:
            with reader_of(side, replica, proxy) as reader:
                reader.open(count=5)
                for name in ("5 connections", "closed"):
                    proxy.settle()
                    proxy.take()
                    time.sleep(seconds if name != "closed" else seconds / 3)
                    found = proxy.take()
                    rows[f"{name}, {side}"] = {"s": f"{seconds if name != 'closed' else seconds / 3:.0f}", "GET": found.of("GET"),
                                              "LIST": found.of("LIST"), "KiB": f"{found.bytes / 1024:.1f}"}
                    reader.ask("close")
    table("Reader of an idle primary", ["s", "GET", "LIST", "KiB"], rows)


def memory():
    """Memory of the index per million pages: what a larger database takes more, each page's place having been asked for"""
    rows, resident = {}, {side: {} for side in SIDES}
    counts = size((65_536, 262_144), (262_144, 1_048_576))
    for pages in counts:
        with lib.directory() as scratch, proxied(delay=0) as proxy:
            source, replica = scratch / "app.db", new_replica()
            # A row fills a page of 512 bytes, and compresses to nearly nothing.
            make(source, f"PRAGMA page_size = 512; VACUUM; CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB); {numbers(pages)} "
                 "INSERT INTO t SELECT i, zeroblob(450) FROM n")
            upload(source, replica)
            for side in SIDES:
                options = {"cache_size": "1MiB"} if side == US else {}
                with reader_of(side, replica, proxy, **options) as reader:
                    loaded = reader.ask("memory")["rss"]
                    reader.open()
                    opened = reader.ask("memory")["rss"]
                    if side == US:  # Litestream's VFS has read the index by now
                        reader.ask("query", sql="SELECT count(*) FROM t")
                    resident[side][pages] = reader.ask("memory")["rss"] - loaded
                    rows[f"{pages:,} pages, {side}"] = {"loaded MiB": mib(loaded), "opened +MiB": mib(opened - loaded),
                                                       "scanned +MiB": mib(resident[side][pages]) if side == US else ""}
    few, many = counts
    for side, found in resident.items():
        rows[f"per million pages, {side}"] = {"MB": f"{(found[many] - found[few]) / (many - few) * 1e6 / 1e6:.1f}"}
    table("Memory of an open replica, pages of 512 bytes, cache_size=1MiB",
          ["loaded MiB", "opened +MiB", "scanned +MiB", "MB"], rows)
