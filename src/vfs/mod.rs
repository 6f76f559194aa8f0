//! Glue: between SQLite's files and the primary, and between the VFS `litestream` and the reader.

pub mod by_sql;
mod by_uri;
mod exclusive;
mod files;
pub mod primary;
pub mod replica;
mod wal_mode;
