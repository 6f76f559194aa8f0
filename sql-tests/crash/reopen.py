"""`reopen.py DATABASE URL`: what a program does after a crash. Prints the TXID that is durable."""
import pathlib
import sys

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent.parent)]
import lib  # noqa: E402

database, url = sys.argv[1:]
lib.connect(":memory:", load=True).close()
db = lib.connect(database)
db.execute("SELECT litestream_replicate(?)", (url,))
print(lib.scalar(db, "SELECT litestream_sync()"))
db.close()
