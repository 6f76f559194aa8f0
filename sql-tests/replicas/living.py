"""An idle primary and a dead one, as litestream_status of a reader tells them apart (P28)."""
import json
import pathlib
import signal
import subprocess
import sys
import time

import lib
import opened

PATIENCE_SECONDS = 60
HEARTBEAT = "1s"
TTL_SECONDS = 3
NAMES = ("one", "two")


def write(_, *paths_and_urls):
    """One process that replicates some databases, writes to each once, and does what it is told."""
    each = list(zip(paths_and_urls[::2], paths_and_urls[1::2]))
    databases = []
    for path, url in each:
        db = lib.connect(path, load=True)
        lib.scalar(db, "SELECT litestream_replicate(NULL, ?, ?)", url, json.dumps({"heartbeat": HEARTBEAT}))
        db.execute("CREATE TABLE IF NOT EXISTS t(x)")
        db.execute("INSERT INTO t VALUES (1)")
        lib.scalar(db, "SELECT litestream_sync()")
        databases.append(db)
    print("running", flush=True)
    sys.stdin.readline()
    for db in databases:
        lib.scalar(db, "SELECT litestream_stop()")


def start(*paths_and_urls):
    command = [sys.executable, pathlib.Path(__file__).with_name("run"), "--case", "write", *paths_and_urls]
    process = subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    lib.check(process.stdout.readline() == "running\n", "the writer did not start")
    return process


def states(readers):
    return [opened.status(db)[number]["primary_state"] for number, db in enumerate(readers)]


def wait_for(readers, *wanted):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while states(readers) != list(wanted):
        lib.check(time.monotonic() < deadline, "they are", states(readers), "and should be", wanted)
        time.sleep(0.2)


def wait_until_idle(readers):
    """Alive, though nothing came for longer than a session holds: the data does not tell life from death."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        rows = opened.status(readers[0])
        if all(row["primary_state"] == "alive" and row["data_age_seconds"] > TTL_SECONDS + 2 for row in rows):
            return
        lib.check(time.monotonic() < deadline, "they are not idle:", rows)
        time.sleep(0.2)


def alive_or_dead(scratch, store):
    """Two databases of one process, whose second replica knows the session beside the first."""
    replicas = [opened.place(scratch, store, name) for name in NAMES]
    opened.loaded()
    places = [(scratch / f"{name}.db", replica.url) for name, replica in zip(NAMES, replicas)]
    both = start(*places[0], *places[1])
    readers = [lib.open_replica(replica.url, name) for name, replica in zip(NAMES, replicas)]
    wait_until_idle(readers)
    # It hangs, which is no sign of life.
    both.send_signal(signal.SIGSTOP)
    wait_for(readers, "dead", "dead")
    both.send_signal(signal.SIGCONT)
    wait_for(readers, "alive", "alive")
    both.kill()
    both.wait()
    wait_for(readers, "dead", "dead")
    # Each goes on in a process of its own; one is stopped.
    one, two = (start(*place) for place in places)
    wait_until_idle(readers)
    one.communicate("stop\n", timeout=PATIENCE_SECONDS)
    lib.check(one.returncode == 0, "the writer: exit", one.returncode)
    wait_for(readers, "stopped", "alive")
    two.kill()
    two.wait()
    wait_for(readers, "stopped", "dead")
    for reader in readers:
        lib.check(reader.execute("SELECT count(*) FROM t").fetchall() == [(2,)], "rows")
        reader.close()


CASES = {f.__name__: f for f in (alive_or_dead, write)}


def wanted(full, seconds):
    return [("alive_or_dead", store) for store in ("file", "seaweed")]
