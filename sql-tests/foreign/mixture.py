"""Processes with and without the extension write to one database at once, and some are killed."""
import pathlib
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import lib
import writer

HERE = pathlib.Path(__file__).resolve().parent


def run(scratch, seed):
    chance = random.Random(seed)
    path = scratch / "app.db"
    db = lib.connect(path, load=True, page_size=chance.choice([512, 4096]), wal_autocheckpoint=chance.choice([50, 1000]))
    replica = lib.FileReplica(scratch / "replica")
    db.execute("PRAGMA journal_mode = WAL").fetchall()
    setup(db)
    lib.scalar(db, "SELECT litestream_replicate(?, ?, ?)", str(path), replica.url, '{"sync_interval": "50ms"}')
    floors = {}
    count = chance.choice([60, 150])
    processes = [spawn(path, f"process {n}", count, chance) for n in range(chance.randrange(2, 4))]
    readers = [threading.Thread(target=read, args=[process, name, floors]) for name, process in processes]
    if chance.random() < 0.7:
        own = threading.Thread(target=write_here, args=[path, count, chance.randrange(10**6), floors])
        readers.append(own)
    for reader in readers:
        reader.start()
    killed = set()
    if chance.random() < 0.6:
        time.sleep(chance.random())
        name, victim = processes[0]
        victim.send_signal(signal.SIGKILL)
        killed.add(name)
    if chance.random() < 0.5:
        shell(path, "PRAGMA wal_checkpoint(TRUNCATE)", check=False)
    for name, process in processes:
        status = process.wait(timeout=120)
        lib.check(status == 0 or name in killed, f"{name}: exit {status}")
    for reader in readers:
        reader.join()
    lib.check(len(floors) == len(readers), "a writer failed:", floors)
    ends = dict(db.execute("SELECT writer, max(number) FROM entry GROUP BY writer").fetchall())
    for name, floor in floors.items():
        lib.check(ends.get(name, 0) >= floor, f"{name}: {floor} was committed, the database has {ends.get(name)}")
    txid = lib.scalar(db, "SELECT litestream_sync()")
    judge(replica, scratch, ends, txid)
    db.close()
    lib.assert_same_database(path.read_bytes(), restore(replica, scratch / "closed.db").read_bytes(), "after the close")


def setup(db):
    db.execute("BEGIN")
    db.execute("CREATE TABLE account(id INTEGER PRIMARY KEY, amount INTEGER)")
    db.executemany("INSERT INTO account VALUES (?, 1000)", [(n,) for n in range(10)])
    db.execute("CREATE TABLE entry(writer TEXT, number INTEGER, filler BLOB)")
    db.execute("COMMIT")


def spawn(path, name, count, chance):
    options = ["--library"] if chance.random() < 0.5 else []
    options += ["--checkpoints"] if chance.random() < 0.5 else []
    command = [sys.executable, HERE / "writer.py", path, name, count, chance.randrange(10**6), *options]
    return name, subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, text=True)


def read(process, name, floors):
    last = 0
    for line in process.stdout:
        last = int(line) if line.endswith("\n") else last
    floors[name] = last


def write_here(path, count, seed, floors):
    db = lib.connect(path)
    last = []
    writer.work(db, "here", range(1, count + 1), random.Random(seed), committed=last.append)
    db.close()
    floors["here"] = last[-1]


def shell(path, sql, check=True):
    """What a stock shell prints."""
    done = subprocess.run(["sqlite3", "-init", "/dev/null", str(path), sql], stdin=subprocess.DEVNULL, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    lib.check(not check or done.returncode == 0, f"sqlite3 {sql}: {done.stderr}")
    return done.stdout.strip()


def restore(replica, path, *when):
    db = lib.connect(":memory:", load=True)
    path.unlink(missing_ok=True)
    lib.scalar(db, f"SELECT litestream_restore(?, ?{', ?' * len(when)})", replica.url, str(path), *when)
    db.close()
    return path


def judge(replica, scratch, ends, synced):
    """Each TXID is a consistent state, none goes back, and the last has everything."""
    txids = lib.chain(replica.objects())
    lib.check(f"{txids[-1]:016x}" == synced, "the chain ends at", txids[-1], "and not at", synced)
    before = {}
    for txid in txids:
        copy = restore(replica, scratch / "then.db", f"{txid:016x}")
        lib.assert_intact(copy)
        db = sqlite3.connect(copy)
        total = db.execute("SELECT sum(amount) FROM account").fetchone()[0]
        lib.check(total == 10_000, f"{txid}: the accounts hold {total}")
        now = {}
        for name, least, most, count in db.execute(
                "SELECT writer, min(number), max(number), count(*) FROM entry GROUP BY writer"):
            lib.check(least == 1 and most == count, f"{txid}: {name} has {count} numbers from {least} to {most}")
            now[name] = most
        db.close()
        for name, most in before.items():
            lib.check(now.get(name, 0) >= most, f"{txid}: {name} went back from {most} to {now.get(name)}")
        before = now
    lib.check(before == ends, "the last state has", before, "and not", ends)
