"""One directory for pages, shared by processes that are killed in the middle: right rows, always, and a bounded size."""
import json
import pathlib
import random
import signal
import subprocess
import sys
import threading
import time

import lib
import opened

ROWS = 3000
LIMIT = 1 << 20  # as 1MiB below
# A process may add to a file before it looks at what others have added: one stretch of a file each.
SLACK = 1 << 20
PROCESSES = 3


def cache_of_processes_that_are_killed(scratch, rounds):
    rounds = int(rounds)
    replica = opened.place(scratch, "seaweed")
    opened.loaded()
    primary = opened.primary(scratch / "app.db", replica, page_size=1024)
    opened.fill(primary, "A", ROWS)
    primary.execute("SELECT litestream_sync(60)").fetchall()
    rng, cache, sizes, commits = random.Random(5), scratch / "cache", [], 0
    for number in range(rounds):
        # Every other round the replica moves on while it is read.
        readers = [start(replica.url, cache, rng.randrange(10**6)) for _ in range(PROCESSES)]
        end = time.monotonic() + rng.uniform(0.5, 2)
        while time.monotonic() < end:
            if number % 2:
                commits += 1
                opened.renumber(primary, commits)
            sizes.append(size_of(cache))
            time.sleep(0.1)
        if number % 3 == 2:
            tear(rng, cache)
        for reader in readers[1:]:
            reader.send_signal(signal.SIGKILL)
        readers[0].send_signal(signal.SIGTERM)
        for which, reader in enumerate(readers):
            out, status = reader.communicate(timeout=60)[0], reader.returncode
            lib.check(status in (-signal.SIGKILL, -signal.SIGTERM), f"round {number}, reader {which}: exit {status}\n{out}")
    lib.check(max(sizes) > LIMIT // 2, "the cache was hardly used:", max(sizes))
    lib.check(max(sizes) <= LIMIT + PROCESSES * SLACK, "bytes in the cache:", max(sizes))
    # What is there afterwards is whole, or a miss.
    txid = lib.scalar(primary, "SELECT litestream_sync(60)")
    db = lib.open_replica(replica.url, cache_dir=cache, cache_dir_size="1MiB", at=txid)
    expected = primary.execute("SELECT * FROM t ORDER BY id").fetchall()
    lib.check(db.execute("SELECT * FROM t ORDER BY id").fetchall() == expected, "other rows")
    lib.check(lib.scalar(db, "PRAGMA integrity_check") == "ok", "integrity")
    print("bytes in the cache at most:", max(sizes))


def a_warm_cache_outlives_the_process(scratch, rounds):
    """A second process reads what the first one read, with the requests of an open alone."""
    replica = opened.place(scratch, "seaweed")
    opened.loaded()
    primary = opened.primary(scratch / "app.db", replica, page_size=4096)
    opened.fill(primary, "A", ROWS)
    primary.execute("SELECT litestream_sync(60)").fetchall()
    counts = []
    for _ in range(3):
        out = subprocess.run(command("read_and_count", replica.url, scratch / "cache"), check=True, stdout=subprocess.PIPE, text=True).stdout
        counts.append(json.loads(out))
    print("GETs, misses in memory:", counts)
    lib.check(counts[1][0] < counts[0][0] and counts[1][0] == counts[2][0] <= 8, "requests:", counts)


def command(name, *arguments):
    return [sys.executable, str(pathlib.Path(__file__).with_name("run")), "--case", name, *map(str, arguments)]


def start(url, cache, seed):
    return subprocess.Popen(command("read_for_ever", url, cache, seed), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def read_for_ever(_, url, cache, seed):
    """Threads that read at random; the first wrong row ends it."""
    rng = random.Random(int(seed))
    opened.loaded()

    def reader(seed):
        rng = random.Random(seed)
        db = lib.open_replica(url, "any", cache_dir=cache, cache_dir_size="1MiB", cache_size="100KiB", poll_interval="100ms")
        db.execute("PRAGMA cache_size = 5")
        while True:
            db.execute("BEGIN")
            number = lib.scalar(db, "SELECT number FROM whose")
            first = rng.randrange(1, ROWS)
            for row, tag, least, size in db.execute("SELECT id, tag, number, length(filler) FROM t WHERE id BETWEEN ? AND ?",
                                                    (first, first + rng.choice([0, 5, 300]))):
                lib.check(tag == "A" and least <= number and size == 700, row, tag, least, number, size)
                lib.check(row % 3 != number % 3 or least == number, "row", row, "is of", least, "in state", number)
            if rng.random() < 0.05:
                lib.check(opened.whose(db, ROWS) == (("A", number), None), "no whole state")
            db.execute("COMMIT")

    def ends_with_it():
        try:
            reader(rng.randrange(10**6))
        except BaseException as error:
            print(repr(error), opened.last_error(), flush=True)
            lib.os._exit(1)

    for _ in range(2):
        threading.Thread(target=ends_with_it, daemon=True).start()
    threading.Event().wait()


def read_and_count(_, url, cache):
    opened.loaded()
    db = lib.open_replica(url, cache_dir=cache)
    lib.check(opened.whose(db, ROWS) == (("A", 0), None), "no whole state")
    row = opened.status(db)[0]
    print(json.dumps([row["requests_get"], row["cache_misses"]]))


def size_of(cache):
    total = 0
    for path in cache.glob("*") if cache.exists() else []:
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            pass  # another process made room
    return total


def tear(rng, cache):
    """As after a power cut: files that end somewhere, and sectors that never came."""
    for path in sorted(cache.glob("*")):
        if rng.random() < 0.3:
            try:
                with open(path, "r+b") as file:
                    size = path.stat().st_size
                    if rng.random() < 0.5:
                        file.truncate(rng.randrange(size + 1))
                    elif size > 600:
                        file.seek(rng.randrange(size - 512))
                        file.write(bytes(512))
            except FileNotFoundError:
                pass


CASES = {f.__name__: f for f in (cache_of_processes_that_are_killed, a_warm_cache_outlives_the_process, read_for_ever, read_and_count)}


def wanted(full, seconds):
    return [("cache_of_processes_that_are_killed", 60 if full else 6), ("a_warm_cache_outlives_the_process", 1)]
