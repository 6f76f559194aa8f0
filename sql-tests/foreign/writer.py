"""A process that writes beside the one that replicates: transfers between accounts, and its own sequence of numbers.

    writer.py DATABASE NAME COUNT SEED [--library] [--checkpoints]

Each transaction moves an amount between two accounts, so that their sum stays, and adds the writer's next number. What
was committed is printed, one number a line.
"""
import pathlib
import random
import sqlite3
import sys

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent.parent)]
import lib  # noqa: E402


def work(db, name, numbers, chance, checkpoints=False, committed=print):
    for number in numbers:
        while True:
            try:
                db.execute("BEGIN IMMEDIATE")
                break
            except sqlite3.OperationalError as error:
                lib.check("locked" in str(error), error)
        amount, (source, target) = chance.randrange(1, 100), chance.sample(range(10), 2)
        db.execute("UPDATE account SET amount = amount - ? WHERE id = ?", (amount, source))
        db.execute("UPDATE account SET amount = amount + ? WHERE id = ?", (amount, target))
        db.execute("INSERT INTO entry VALUES (?, ?, randomblob(?))", (name, number, chance.choice([10, 500, 6000])))
        db.execute("COMMIT")
        committed(number)
        if checkpoints and chance.random() < 0.02:
            db.execute(f"PRAGMA wal_checkpoint({chance.choice(['PASSIVE', 'FULL', 'RESTART', 'TRUNCATE'])})").fetchall()


def main():
    path, name, count, seed, *options = sys.argv[1:]
    if "--library" in options:
        lib.connect(":memory:", load=True).close()
    chance = random.Random(int(seed))
    db = lib.connect(path, synchronous=chance.choice(["NORMAL", "FULL"]), wal_autocheckpoint=chance.choice([20, 100, 1000]))
    work(db, name, range(1, int(count) + 1), chance, "--checkpoints" in options, lambda n: print(n, flush=True))
    db.close()


if __name__ == "__main__":
    main()
