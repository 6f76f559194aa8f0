use v5.14;
use warnings;
use DBI;

my $url = $ENV{REPLICA_URL};

my $db = DBI->connect('dbi:SQLite:notes.db', '', '', { RaiseError => 1 });
$db->sqlite_enable_load_extension(1);
$db->sqlite_load_extension('./dist/liblitestream');

$db->selectrow_array('SELECT litestream_replicate(?)', undef, $url);
$db->do('CREATE TABLE IF NOT EXISTS note(text)');
$db->do("INSERT INTO note VALUES ('milk'), ('bread')");
say 'shipped ', $db->selectrow_array('SELECT litestream_sync()');

my $parameter = $url =~ s/([^\w.~-])/sprintf '%%%02X', ord $1/aegr;
my $replica = DBI->connect("dbi:SQLite:uri=file:notes?vfs=litestream&replica=$parameter", '', '', { RaiseError => 1 });
say for @{ $replica->selectcol_arrayref('SELECT text FROM note') };
say 'replica at ', $replica->selectrow_array('SELECT litestream_txid()');
