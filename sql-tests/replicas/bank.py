"""A process that writes as fast as 400 changed pages a second: transfers between accounts, whose sum stays, a counter,
and now and then much more, much less, and VACUUM.

    bank.py DATABASE URL SECONDS SEED    URL is - where another program replicates
"""
import pathlib
import random
import sys
import time

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent.parent)]
import lib  # noqa: E402

ACCOUNTS = 300
TOTAL = ACCOUNTS * 1000
PAGES_PER_SECOND = 400
# Three accounts of a page each, their old and new places in the index, the ledger.
PAGES_OF_TRANSFER = 9


def create(path, url):
    """The first state, in the replica if there is a URL."""
    db = lib.connect(path, journal_mode="WAL")
    db.execute("BEGIN")
    db.execute("CREATE TABLE account(id INTEGER PRIMARY KEY, amount INTEGER, last INTEGER, page BLOB)")
    db.execute("CREATE INDEX account_amount ON account(amount)")
    db.execute("CREATE TABLE ledger(n INTEGER, fillers INTEGER)")
    db.execute("CREATE TABLE filler(data BLOB)")
    db.execute("INSERT INTO ledger VALUES (0, 0)")
    db.executemany("INSERT INTO account VALUES (?, 1000, 0, randomblob(2500))", [(n,) for n in range(1, ACCOUNTS + 1)])
    db.execute("COMMIT")
    if url:
        replicate(db, url)
        lib.scalar(db, "SELECT litestream_sync(60)")
        lib.scalar(db, "SELECT litestream_stop()")
    db.close()


def replicate(db, url):
    lib.scalar(db, "SELECT litestream_replicate(NULL, ?, ?)", url, '{"sync_interval": "100ms"}')


def transfer(db, rng, n):
    db.execute("BEGIN IMMEDIATE")
    one, two, three = rng.sample(range(1, ACCOUNTS + 1), 3)
    amount = rng.randrange(1, 100)
    for account, change in ((one, -2 * amount), (two, amount), (three, amount)):
        db.execute("UPDATE account SET amount = amount + ?, last = ? WHERE id = ?", (change, n, account))
    db.execute("UPDATE ledger SET n = ?", (n,))
    if rng.random() < 0.01:
        db.execute("""INSERT INTO filler WITH f(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM f WHERE i < 200)
                      SELECT randomblob(3000) FROM f""")
    elif rng.random() < 0.01:
        db.execute("DELETE FROM filler WHERE rowid % 5 <> 0")
    db.execute("UPDATE ledger SET fillers = (SELECT count(*) FROM filler)")
    db.execute("COMMIT")


def main():
    path, url, seconds, seed = sys.argv[1:]
    if url != "-":
        lib.connect(":memory:", load=True).close()
    db = lib.connect(path)
    if url != "-":
        replicate(db, url)
    rng, started, done = random.Random(int(seed)), time.monotonic(), 0
    n = lib.scalar(db, "SELECT n FROM ledger")
    while time.monotonic() < started + int(seconds):
        n, done = n + 1, done + 1
        transfer(db, rng, n)
        if rng.random() < 0.004:
            db.execute("VACUUM")
        ahead = done * PAGES_OF_TRANSFER / PAGES_PER_SECOND - (time.monotonic() - started)
        time.sleep(max(ahead, 0))
    if url != "-":
        lib.scalar(db, "SELECT litestream_sync(120)")
    print(n)
    db.close()


if __name__ == "__main__":
    main()
