"""A database under test, and what the test knows about it: each state that was committed."""
import pathlib
import sqlite3
import threading

import lib

LEDGER = "CREATE TABLE ledger(id INTEGER PRIMARY KEY, n INTEGER)"


class Source:
    """`states[n]` is the content hash that was committed when the ledger stood at n. `synced` holds, for the TXIDs that
    litestream_sync returned while nobody wrote, the ledger and the file as it was then (or None: see image); `at_least`, for those it
    returned while others wrote, the ledger before the call."""

    def __init__(self, path, replica=None, options="{}"):
        self.path, self.replica, self.options = pathlib.Path(path), replica, options
        self.states, self.synced, self.at_least, self.floor = {}, {}, {}, 0
        self.lock = threading.Lock()

    @property
    def is_replicated(self):
        return self.replica is not None

    def create(self, connection):
        """The ledger, unless the file has it; must run before any other transaction."""
        if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'ledger'").fetchone():
            self.states[0] = lib.content_hash(connection)
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(LEDGER)
            connection.execute("INSERT INTO ledger VALUES (1, 0)")
            self.commit(connection)

    def start(self, connection):
        return lib.scalar(connection, "SELECT litestream_replicate(?, ?, ?)", str(self.path), self.replica.url, self.options)

    def bump(self, connection, schema="main"):
        """Inside a transaction: the ledger's next number, and the content under it."""
        n = connection.execute(f"UPDATE {schema}.ledger SET n = n + 1 RETURNING n").fetchone()[0]
        return n, lib.content_hash(connection, schema)

    def commit(self, connection):
        n, content = self.bump(connection)
        connection.execute("COMMIT")
        self.committed(n, content)

    def committed(self, n, content):
        with self.lock:
            lib.check(n not in self.states, f"ledger {n} was committed twice")
            self.states[n] = content
            self.floor = max(self.floor, n)

    def sync(self, connection, scratch, function="litestream_sync"):
        """Nobody else may be writing. The TXID returned must later restore to just this state."""
        txid = lib.scalar(connection, f"SELECT {function}()")
        lib.check(isinstance(txid, str) and len(txid) == 16, function, "returned", txid)
        image = self.image(scratch)
        before, image_before = self.synced.setdefault(txid, (self.floor, image))
        lib.check(before == self.floor, f"{txid} was returned for ledger {before} and for {self.floor}")
        if image and image_before:
            lib.assert_same_database(image_before, image, f"{txid} was returned for two states of the file")
        lib.check(max(self.synced) == txid, f"{txid} is older than what was synced before")
        return txid

    def image(self, scratch):
        """The file as it is now; None where SQLite's own recovery of a copy falls short of it.

        After a ROLLBACK TO that undoes spilled frames, SQLite 3.40 (3.53 no longer) may write frames without a checksum
        before the first one that it has overwritten, and commit them: the wal-index knows them, a recovery does not."""
        data = lib.image(self.path, scratch)
        copy = scratch / "ledger.db"
        copy.write_bytes(data)
        db = sqlite3.connect(f"file:{copy}?immutable=1", uri=True)
        ledger = lib.scalar(db, "SELECT n FROM ledger")
        db.close()
        return data if ledger == self.floor else None
