"""What the cases share: where a replica is, how it is opened, and a database whose every state proves itself."""
import json
import os
import sqlite3

import lib

# SQLITE_IOERR, of which ours are kinds, in the words of SQLite.
IO_ERROR = "disk I/O error"


def place(scratch, store, name="replica"):
    """A replica that is not there yet; the environment of this process is as the store needs it."""
    if store == "file":
        return lib.FileReplica(scratch / name)
    os.environ.update(lib.s3_environment())
    return lib.S3Replica(lib.S3Server(store), f"replicas/{scratch.name}/{name}")


def loaded():
    lib.connect(":memory:", load=True).close()


def primary(path, replica, sync_interval="1ms", **pragmas):
    """A connection to a database that this process replicates."""
    db = lib.connect(path, **pragmas)
    lib.scalar(db, "SELECT litestream_replicate(NULL, ?, ?)", replica.url, json.dumps({"sync_interval": sync_interval}))
    return db


def status(db):
    """The rows of the open replicas of this process."""
    names = [row[1] for row in db.execute("PRAGMA table_info(litestream_status)")]
    return [dict(zip(names, row)) for row in db.execute("SELECT * FROM litestream_status WHERE role = 'replica'")]


def last_error():
    db = lib.connect(":memory:")
    found = [row["last_error"] for row in status(db) if row["last_error"]]
    db.close()
    return found


def attempt(db, sql, *arguments):
    """The rows, or None and the message where the store is to blame. Any other error is a failure."""
    try:
        return db.execute(sql, arguments).fetchall(), None
    except sqlite3.Error as error:
        lib.check(IO_ERROR in str(error), "not an error of the store:", repr(error), sql)
        found = last_error()
        lib.check(found, "an error without a reason in litestream_status:", repr(error), sql)
        lib.check(found[-1].count("://") == found[-1].count("http://") + 1, "the URL is named more than once:", found[-1])
        return None, found[-1]


# Databases whose rows all say whose they are. `tag` says which history, `number` which commit of it.

def fill(db, tag, rows=400, bytes_of_row=700):
    """The same rows, in the same places, for each tag."""
    db.execute("CREATE TABLE IF NOT EXISTS whose(tag TEXT, number INTEGER)")
    db.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, tag TEXT, number INTEGER, filler BLOB)")
    db.execute("CREATE INDEX IF NOT EXISTS by_tag ON t(tag, number)")
    db.execute("BEGIN")
    db.execute("DELETE FROM t")
    db.execute("DELETE FROM whose")
    db.execute("INSERT INTO whose VALUES (?, 0)", (tag,))
    db.executemany("INSERT INTO t VALUES (?, ?, 0, ?)", [(n, tag, os.urandom(bytes_of_row)) for n in range(1, rows + 1)])
    db.execute("COMMIT")


def renumber(db, number):
    """The next commit: a third of the rows, and the counter."""
    db.execute("BEGIN")
    db.execute("UPDATE whose SET number = ?", (number,))
    db.execute("UPDATE t SET number = ?1 WHERE id % 3 = ?1 % 3", (number,))
    db.execute("COMMIT")


WHOSE = """SELECT (SELECT group_concat(DISTINCT tag) FROM t NOT INDEXED), (SELECT group_concat(DISTINCT tag) FROM t INDEXED BY by_tag),
    (SELECT tag FROM whose), (SELECT number FROM whose), (SELECT max(number) FROM t NOT INDEXED),
    (SELECT count(*) FROM t NOT INDEXED WHERE length(filler) > 9), (SELECT count(*) FROM t INDEXED BY by_tag WHERE tag >= ''),
    (SELECT count(*) FROM t NOT INDEXED WHERE number <> (SELECT number FROM whose) AND id % 3 = (SELECT number FROM whose) % 3)"""


def whose(db, rows=400):
    """(tag, number) of one whole state, or None and the reason. A mixture of states is a failure."""
    found, reason = attempt(db, WHOSE)
    if found is None:
        return None, reason
    by_table, by_index, tag, number, newest, count, entries, stale = found[0]
    lib.check(by_table == by_index == tag and number == newest and count == entries == rows and stale == 0,
              "a mixture of states:", found[0])
    return (tag, number), None
