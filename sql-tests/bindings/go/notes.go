package main

import (
	"database/sql"
	"fmt"
	"log"
	"net/url"
	"os"

	"github.com/mattn/go-sqlite3"
)

func main() {
	replicaURL := os.Getenv("REPLICA_URL")

	// Each connection of the pool loads the extension; after the first this does nothing.
	sql.Register("litestream", &sqlite3.SQLiteDriver{Extensions: []string{"./dist/liblitestream"}})
	db, err := sql.Open("litestream", "notes.db")
	check(err)
	defer db.Close()

	_, err = db.Exec("SELECT litestream_replicate(?)", replicaURL)
	check(err)
	_, err = db.Exec("CREATE TABLE IF NOT EXISTS note(text)")
	check(err)
	_, err = db.Exec("INSERT INTO note VALUES ('milk'), ('bread')")
	check(err)
	var txid string
	check(db.QueryRow("SELECT litestream_sync()").Scan(&txid))
	fmt.Println("shipped", txid)

	replica, err := sql.Open("sqlite3", "file:notes?vfs=litestream&replica="+url.QueryEscape(replicaURL))
	check(err)
	defer replica.Close()
	rows, err := replica.Query("SELECT text FROM note")
	check(err)
	for rows.Next() {
		var text string
		check(rows.Scan(&text))
		fmt.Println(text)
	}
	check(rows.Err())
	check(replica.QueryRow("SELECT litestream_txid()").Scan(&txid))
	fmt.Println("replica at", txid)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
