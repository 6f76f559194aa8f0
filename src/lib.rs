//! liblitestream: replicates SQLite databases to object storage from inside the process.
//!
//! This file is the map of the code.

#![deny(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)
)]

mod config;
pub mod error;
pub mod ltx;
mod panic;
pub mod replica;
mod sql;
mod sqlite;
pub mod store;
mod thread;
pub mod time;
mod vfs;
pub mod wal;
mod writer;

/// What an entry point does on the connection that loads the extension: registers the shim as the default VFS, and
/// defines the SQL surface. Called again by each further load.
fn load(connection: sqlite::Connection) -> error::Result<()> {
    thread::prepare_with(sqlite::block_all_signals);
    vfs::primary::install()?;
    sql::define(connection)
}
