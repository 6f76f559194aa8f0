require "sqlite3"
require "erb"

url = ENV.fetch("REPLICA_URL")

db = SQLite3::Database.new("notes.db")
db.enable_load_extension(true)
db.load_extension("./dist/liblitestream")
db.enable_load_extension(false)

db.get_first_value("SELECT litestream_replicate(?)", [url])
db.execute("CREATE TABLE IF NOT EXISTS note(text)")
db.execute("INSERT INTO note VALUES ('milk'), ('bread')")
puts "shipped #{db.get_first_value("SELECT litestream_sync()")}"

open = SQLite3::Constants::Open
replica = SQLite3::Database.new("file:notes?vfs=litestream&replica=#{ERB::Util.url_encode(url)}",
                                flags: open::READONLY | open::URI)
replica.execute("SELECT text FROM note") { |row| puts row }
puts "replica at #{replica.get_first_value("SELECT litestream_txid()")}"
