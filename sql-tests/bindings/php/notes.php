<?php
$url = getenv('REPLICA_URL');

// php -d sqlite3.extension_dir=./dist notes.php
$db = new SQLite3('notes.db');
$db->enableExceptions(true);
$db->loadExtension('liblitestream.so');

$db->querySingle("SELECT litestream_replicate('" . SQLite3::escapeString($url) . "')");
$db->exec('CREATE TABLE IF NOT EXISTS note(text)');
$db->exec("INSERT INTO note VALUES ('milk'), ('bread')");
echo 'shipped ', $db->querySingle('SELECT litestream_sync()'), "\n";

// The class SQLite3 takes no URI, PDO does.
$replica = new PDO('sqlite:file:notes?vfs=litestream&replica=' . rawurlencode($url));
foreach ($replica->query('SELECT text FROM note') as $row) {
    echo $row['text'], "\n";
}
echo 'replica at ', $replica->query('SELECT litestream_txid()')->fetchColumn(), "\n";
