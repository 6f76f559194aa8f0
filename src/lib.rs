//! liblitestream: a SQLite extension that replicates databases to object storage from inside the process.
//!
//! This file is the map of the code. `README.md` says what it does, `docs/design.md` why it does it that way: the rules
//! (P7, R4) that comments name, the bytes, and what SQLite does that one must know.
//!
//! # Layers
//!
//! Imports point down only; `tests/tidy.rs` checks it.
//!
//! | Module | Holds |
//! |---|---|
//! | `sql` | the SQL surface: two tables that list it in `sql/mod.rs`, and one file per family of functions |
//! | `vfs` | glue: which databases are open in the process, which are replicated, what their taps tell whom; which replica a URI names |
//! | `sqlite` | the only unsafe code: entry points, the host's API table, the shim VFS, taps on open files, our own file handles, the VFS of replicas. Knows nothing of replication |
//! | `writer` | the primary: capture, batch, spool, ship; its threads. Knows the database only as `writer::Files` |
//! | `reader` | the replica: states of it, read page by page from the store, and followed |
//! | `replica` | what a replica is: keys, listing, the restore plan, two histories; applying a plan; restore |
//! | `store` | the trait `Store` and what is behind it: `memory`, `file`, `s3`, `http`, faults for tests |
//! | `wal` | the WAL and the wal-index: pure, bytes in, values out |
//! | `ltx` | the LTX format: pure, bytes in, bytes out |
//! | `header`, `btree` | where things stand in the header of a database file, and in a page of a b-tree |
//! | `config` | what users can set, as validated values |
//! | `time`, `error` | timestamps and the clock; one error type, whose messages name the thing, the place and the way out |
//! | `panic`, `thread`, `lock` | as guests of the host: panics kept in, threads named and without its signals, locks that survive a fork |
//!
//! # Start reading here
//!
//! - **A commit becomes an object.** `sqlite/shm.rs`, `x_shm_lock`: SQLite gives back the WAL write lock. Then
//!   `writer/told.rs`, `published`; on a thread of ours `writer/tasks.rs`, `capture_task` and `ship_all`; in that order
//!   `writer/capture.rs`, `run`; `writer/encode.rs`, `encode_batch`; `writer/ship.rs`, `ship`.
//! - **The WAL is about to be restarted.** `x_shm_lock` again, then `writer/told.rs`, `barrier`.
//! - **A replication starts.** `sql/replicate.rs`, `vfs/by_sql.rs`, `replicate`, then the table in `writer/start.rs`.
//!   By URI: `vfs/by_uri.rs`, `opening` and `wal_opened`; then `decide` in `writer/primary.rs`. A database in rollback
//!   mode is put into WAL mode before: `vfs/wal_mode.rs`.
//! - **A gap is healed, a first image is made.** `writer/phase.rs`.
//! - **A restore.** `sql/restore.rs`, then `replica/restore/mod.rs`: plan, temporary file, apply, rename.
//! - **A replica is opened and read.** `sqlite/read_vfs.rs`, `x_open`; `vfs/replica.rs`, `Opened`; then `reader`.
//! - **The library is loaded.** `sqlite/entry.rs`, then `load` below.
//!
//! # Invariants
//!
//! Architecture invariant: nothing committed is lost. Before SQLite destroys WAL content, capture has taken what is
//! only there; what it could not take is a gap, and a gap is healed by comparing pages (`writer/told.rs`,
//! `writer/phase.rs`).
//!
//! Architecture invariant: nothing is read of a WAL beyond what SQLite has published (`writer/capture.rs`).
//!
//! Architecture invariant: on the commit path 48 bytes are copied and at most a thread is woken. No I/O, no HTTP, no
//! compression; only a barrier, and a checkpoint while an image is read, do bounded local work (`sqlite/shm.rs`,
//! `writer/told.rs`).
//!
//! Architecture invariant: no LTX object is ever created but if absent, and none is ever replaced or deleted
//! (`writer/ship.rs`).
//!
//! Architecture invariant: SQLite is reached through the host's API table alone; no second SQLite is linked in
//! (`sqlite/api.rs`, `.ci/check-symbols.sh`). `unsafe` stands in `sqlite/` only.
//!
//! Architecture invariant: no panic, no output on the host's streams, no signal handler, and no thread before the first
//! task (`panic.rs`, `thread.rs`, `writer/pool.rs`). A forked child begins with its own state (`lock.rs`).
//!
//! Architecture invariant: `ltx` and `wal` open, name and fetch nothing, and use no length before it is checked.
//!
//! Architecture invariant: a store's call is complete in itself. Deadlines and retries are inside it (`store/http`);
//! layers above see a result, or an error that says whether the same call may succeed later.

#![deny(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)
)]

mod btree;
mod config;
pub mod error;
mod header;
mod lock;
pub mod ltx;
mod panic;
mod pool;
mod reader;
pub mod replica;
mod sql;
mod sqlite;
pub mod store;
mod thread;
pub mod time;
mod vfs;
pub mod wal;
mod writer;

/// What an entry point does on the connection that loads the extension: registers the shim as the default VFS and that
/// of replicas beside it, and defines the SQL surface. Called again by each further load.
fn load(connection: sqlite::Connection) -> error::Result<()> {
    sqlite::refuse_others()?;
    sqlite::log_to_host();
    thread::block_signals_by(sqlite::without_signals);
    vfs::replica::log_as_asked()?;
    vfs::primary::install()?;
    vfs::replica::install()?;
    sqlite::listen(vfs::primary::connections_changed);
    sql::define(connection)
}
