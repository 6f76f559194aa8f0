const Database = require("better-sqlite3");

const url = process.env.REPLICA_URL;

const db = new Database("notes.db");
db.loadExtension("./dist/liblitestream");

db.prepare("SELECT litestream_replicate(?)").get(url);
db.exec("CREATE TABLE IF NOT EXISTS note(text)");
db.exec("INSERT INTO note VALUES ('milk'), ('bread')");
console.log("shipped", db.prepare("SELECT litestream_sync()").pluck().get());

// URIs are compiled out of the npm package; they are in one that was built by
// CPPFLAGS=-DSQLITE_USE_URI=1 npm install --build-from-source better-sqlite3
const replica = new Database(`file:notes?vfs=litestream&replica=${encodeURIComponent(url)}`);
for (const text of replica.prepare("SELECT text FROM note").pluck().iterate()) console.log(text);
console.log("replica at", replica.prepare("SELECT litestream_txid()").pluck().get());
