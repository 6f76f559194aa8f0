package require sqlite3
package require http ;# for quoteString

set url $env(REPLICA_URL)

sqlite3 db notes.db
db enable_load_extension 1
db eval {SELECT load_extension('./dist/liblitestream')}

db eval {SELECT litestream_replicate($url)}
db eval {CREATE TABLE IF NOT EXISTS note(text)}
db eval {INSERT INTO note VALUES ('milk'), ('bread')}
puts "shipped [db onecolumn {SELECT litestream_sync()}]"

sqlite3 replica "file:notes?vfs=litestream&replica=[http::quoteString $url]" -uri 1 -readonly 1
replica eval {SELECT text FROM note} {
    puts $text
}
puts "replica at [replica onecolumn {SELECT litestream_txid()}]"
replica close
db close
