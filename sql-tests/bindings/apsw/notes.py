import os
from urllib.parse import quote

import apsw

url = os.environ["REPLICA_URL"]

db = apsw.Connection("notes.db")
db.enable_load_extension(True)
db.load_extension("./dist/liblitestream")
db.enable_load_extension(False)

db.execute("SELECT litestream_replicate(?)", [url]).get
db.execute("CREATE TABLE IF NOT EXISTS note(text)")
db.execute("INSERT INTO note VALUES ('milk'), ('bread')")
print("shipped", db.execute("SELECT litestream_sync()").get)

replica = apsw.Connection(f"file:notes?vfs=litestream&replica={quote(url, safe='')}",
                          flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
for (text,) in replica.execute("SELECT text FROM note"):
    print(text)
print("replica at", replica.execute("SELECT litestream_txid()").get)
