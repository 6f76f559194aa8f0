//! Glue: between SQLite's files and the primary, and between the VFS `litestream` and the reader.

mod by_uri;
mod exclusive;
mod files;
pub mod primary;
pub mod replica;
