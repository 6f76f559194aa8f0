"""A random workload from a seed: everything that SQLite does to a file in WAL mode, by several connections."""
import random
import sqlite3
import threading

import changes
import lib
import verdict
from source import Source

OPTIONS = ['{"sync_interval":"1ms"}', '{"sync_interval":"50ms"}', "{}"]


def run(seed):
    rng = random.Random(seed)
    with lib.directory() as scratch:
        workload = Workload(rng, scratch)
        workload.open()
        for _ in range(rng.randint(10, 60)):
            workload.step()
        workload.finish()
        for source in workload.sources:
            if source.is_replicated and source.path.exists():
                objects = verdict.judge(source, scratch)
                print(f"{source.path.name}: {len(objects)} objects, ledger {source.floor}: as it should be")


class Workload:
    """`first` stays open between two openings; `others` come and go; all are connections to `main`."""

    def __init__(self, rng, scratch):
        self.rng, self.scratch = rng, scratch
        options = rng.choices(OPTIONS, [8, 2, 1])[0]
        self.main = Source(scratch / "main.db", lib.FileReplica(scratch / "main-replica"), options)
        other_replica = rng.choice([None, lib.FileReplica(scratch / "other-replica")])
        self.other = Source(scratch / "other.db", other_replica, options)
        self.sources = [self.main, self.other]
        self.exclusive = rng.choices([None, "early", "late"], [10, 1, 1])[0]
        self.page_size = rng.choices([512, 1024, 4096, 8192, 32768, 65536], [4, 4, 8, 2, 2, 4])[0]
        self.auto_vacuum = rng.choice([0, 0, 1, 2])
        self.first, self.others, self.reader, self.attached = None, [], None, False
        self.number = 0

    def say(self, *what):
        print(f"{self.number:3}", *what, flush=True)

    # Opening and closing

    def open(self):
        rng = self.rng
        self.say(f"page_size={self.page_size} auto_vacuum={self.auto_vacuum} exclusive={self.exclusive}",
                 f"options={self.main.options} other={'replicated' if self.other.is_replicated else 'plain'}")
        self.loaded_first = rng.random() < 0.5
        if self.loaded_first:  # the extension is in the process before the database is opened
            lib.connect(":memory:", load=True).close()
        self.first = self.connection()
        if rng.random() < 0.5:  # a database that was there before, in rollback mode
            self.say("content before replication")
            self.main.create(self.first)
            self.transaction(self.first)
        if not self.loaded_first:  # the extension comes to the open connection
            lib.load_extension(self.first)
        self.start()

    def connection(self):
        rng = self.rng
        pragmas = {"page_size": self.page_size, "auto_vacuum": self.auto_vacuum}
        if self.exclusive == "early":
            pragmas["locking_mode"] = "EXCLUSIVE"
        pragmas["cache_size"] = rng.choice([5, 10, 50, 2000])
        pragmas["synchronous"] = rng.choice(["OFF", "NORMAL", "FULL"])
        pragmas["wal_autocheckpoint"] = rng.choice([0, 5, 50, 1000])
        pragmas["mmap_size"] = rng.choice([0, 0, 1 << 20])
        connection = lib.connect(self.main.path, **pragmas)
        # Nobody else writes outside of bursts: that a statement finds the database busy is a failure.
        connection.execute("PRAGMA busy_timeout = 0")
        return connection

    def start(self):
        self.say("replicate from", self.main.start(self.first))
        if self.exclusive == "late":
            self.first.execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()
        self.main.create(self.first)
        if not self.exclusive:
            self.others = [self.connection() for _ in range(self.rng.randint(0, 2))]

    def close(self):
        """All connections, and with the last one the WAL."""
        self.detach()
        self.release_reader()
        connections = [self.first, *self.others]
        self.rng.shuffle(connections)
        for connection in connections:
            connection.close()
        self.first, self.others = None, []

    def finish(self):
        self.release_reader()
        self.sync()
        last = {source: max(source.synced) for source in self.sources if source.synced}
        checkpoint = self.first.execute("PRAGMA main.wal_checkpoint(TRUNCATE)").fetchall()
        lib.check(checkpoint == [(0, 0, 0)], "the last checkpoint:", checkpoint)
        self.close()
        newest = max(lib.chain(self.main.replica.objects()))
        lib.check(f"{newest:016x}" == last[self.main], f"nothing was written after {last[self.main]}, yet there is {newest:016x}")

    # Steps

    def step(self):
        self.number += 1
        actions = [(self.write, 40), (self.roll_back, 6), (self.sync, 12), (self.checkpoint, 8), (self.vacuum, 3),
                   (self.incremental_vacuum, 3), (self.reopen, 3)]
        if not self.exclusive:
            actions += [(self.reopen_one, 4), (self.toggle_reader, 4), (self.burst, 3), (self.write_both, 8)]
        functions, weights = zip(*actions)
        self.rng.choices(functions, weights)[0]()

    def some_connection(self):
        return self.rng.choice([self.first, *self.others])

    def write(self):
        self.say("write")
        for _ in range(self.rng.randint(1, 4)):
            self.transaction(self.some_connection())

    def transaction(self, db):
        db.execute("BEGIN IMMEDIATE")
        for _ in range(self.rng.randint(1, 3)):
            changes.one(self.rng, db)
        self.main.commit(db)

    def roll_back(self):
        """A transaction larger than the cache spills into the WAL before it is taken back."""
        self.say("roll back")
        db = self.some_connection()
        db.execute("BEGIN IMMEDIATE")
        for _ in range(self.rng.randint(1, 4)):
            changes.one(self.rng, db)
        changes.insert_many(self.rng, db, "main")
        db.execute("ROLLBACK")

    def sync(self):
        self.say("sync:", self.main.sync(self.first, self.scratch))

    def checkpoint(self):
        mode = self.rng.choice(["PASSIVE", "FULL", "RESTART", "TRUNCATE"])
        self.say("checkpoint", mode, self.some_connection().execute(f"PRAGMA main.wal_checkpoint({mode})").fetchone())

    def vacuum(self):
        self.say("vacuum")
        self.some_connection().execute("VACUUM main")

    def incremental_vacuum(self):
        self.say("incremental vacuum")
        db = self.some_connection()
        db.execute("BEGIN IMMEDIATE")
        changes.delete_some(self.rng, db, "main")
        db.execute(f"PRAGMA main.incremental_vacuum({self.rng.randint(0, 20)})").fetchall()
        self.main.commit(db)

    def toggle_reader(self):
        """An old snapshot, held over many steps, keeps checkpoints from finishing."""
        if self.reader:
            return self.release_reader()
        self.say("a reader begins")
        self.reader = self.connection()
        self.reader.execute("BEGIN")
        self.reader_ledger = lib.scalar(self.reader, "SELECT n FROM ledger")

    def release_reader(self):
        if self.reader:
            self.say("the reader ends")
            lib.check(lib.scalar(self.reader, "SELECT n FROM ledger") == self.reader_ledger, "the reader's snapshot moved")
            self.reader.execute("COMMIT")
            self.reader.close()
            self.reader = None

    def reopen_one(self):
        self.say("one connection closes, one opens")
        if self.others:
            self.others.pop(self.rng.randrange(len(self.others))).close()
        self.others.append(self.connection())

    def reopen(self):
        stop = self.rng.random() < 0.3
        self.say("stop," if stop else "", "close all, open again")
        if stop:
            self.main.sync(self.first, self.scratch, "litestream_stop")
        self.close()
        if self.rng.random() < 0.2:
            self.write_unseen()
        self.first = self.connection()
        self.start()

    def write_unseen(self):
        """As a program without the extension would: past the shim."""
        self.say("written without the extension")
        db = sqlite3.connect(f"file:{self.main.path}?vfs=unix", uri=True, isolation_level=None)
        db.execute(f"PRAGMA wal_autocheckpoint = {self.rng.choice([0, 5, 1000])}").fetchall()
        for _ in range(self.rng.randint(1, 3)):
            self.transaction(db)
        db.close()

    # Several writers, several databases

    def burst(self):
        """Threads that write at once, while this one syncs."""
        self.release_reader()
        self.detach()
        failures = []

        def writer(seed):
            rng = random.Random(seed)
            try:
                db = lib.connect(self.main.path, wal_autocheckpoint=rng.choice([5, 1000]))
                for _ in range(rng.randint(2, 8)):
                    db.execute("BEGIN IMMEDIATE")
                    changes.one(rng, db)
                    self.main.commit(db)
                    if rng.random() < 0.1:
                        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                db.close()
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=writer, args=[self.rng.random()]) for _ in range(self.rng.randint(2, 3))]
        self.say("burst of", len(threads))
        for thread in threads:
            thread.start()
        floor = self.main.floor
        txid = lib.scalar(self.first, "SELECT litestream_sync()")
        self.main.at_least[txid] = max(floor, self.main.at_least.get(txid, 0))
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]

    def write_both(self):
        """A transaction over two files. Each must arrive whole; SQLite promises no more in WAL mode."""
        self.attach()
        db = self.first
        self.say("write both")
        db.execute("BEGIN IMMEDIATE")
        for schema in ("main", "other"):
            changes.one(self.rng, db, schema)
        done = [(source, *source.bump(db, schema)) for source, schema in ((self.main, "main"), (self.other, "other"))]
        db.execute("COMMIT")
        for source, n, content in done:
            source.committed(n, content)
        if self.other.is_replicated and self.rng.random() < 0.3:
            connection = lib.connect(self.other.path)
            self.say("sync other:", self.other.sync(connection, self.scratch))
            connection.close()

    def attach(self):
        if self.attached:
            return
        self.say("attach other")
        if not self.other.path.exists():
            connection = lib.connect(self.other.path, page_size=self.page_size)
            self.other.create(connection)
            connection.close()
        self.first.execute("ATTACH ? AS other", [str(self.other.path)])
        if self.other.is_replicated:
            self.other.start(self.first)
        self.attached = True

    def detach(self):
        if self.attached:
            self.first.execute("DETACH other")
            self.attached = False
