import os
import sqlite3
from urllib.parse import quote

url = os.environ["REPLICA_URL"]  # file:///tmp/replica, s3://bucket/notes?region=eu-central-1

# Loaded once, the extension is there for every connection that the process opens later.
db = sqlite3.connect("notes.db", isolation_level=None)
db.enable_load_extension(True)
db.load_extension("./dist/liblitestream")
db.enable_load_extension(False)

# The primary: replicated from here on.
db.execute("SELECT litestream_replicate(?)", [url]).fetchone()
db.execute("CREATE TABLE IF NOT EXISTS note(text)")
db.execute("INSERT INTO note VALUES ('milk'), ('bread')")
print("shipped", db.execute("SELECT litestream_sync()").fetchone()[0])

# A replica: read-only, straight from the store.
replica = sqlite3.connect(f"file:notes?vfs=litestream&replica={quote(url, safe='')}", uri=True)
for (text,) in replica.execute("SELECT text FROM note"):
    print(text)
print("replica at", replica.execute("SELECT litestream_txid()").fetchone()[0])
