const { promisify } = require("node:util");
const sqlite3 = require("sqlite3");

const url = process.env.REPLICA_URL;

async function open(...args) {
  const db = await new Promise((resolve, reject) => {
    const opened = new sqlite3.Database(...args, (error) => (error ? reject(error) : resolve(opened)));
  });
  for (const method of ["all", "get", "run", "loadExtension"]) db[method] = promisify(db[method].bind(db));
  return db;
}

async function main() {
  const db = await open("notes.db");
  await db.loadExtension("./dist/liblitestream");

  await db.get("SELECT litestream_replicate(?)", url);
  await db.run("CREATE TABLE IF NOT EXISTS note(text)");
  await db.run("INSERT INTO note VALUES ('milk'), ('bread')");
  const { txid } = await db.get("SELECT litestream_sync() AS txid");
  console.log("shipped", txid);

  const uri = `file:notes?vfs=litestream&replica=${encodeURIComponent(url)}`;
  const replica = await open(uri, sqlite3.OPEN_READONLY | sqlite3.OPEN_URI);
  for (const { text } of await replica.all("SELECT text FROM note")) console.log(text);
  const at = await replica.get("SELECT litestream_txid() AS txid");
  console.log("replica at", at.txid);
}

main();
