//! Glue between SQLite's files and the primary. (The replica's VFS follows.)

mod by_uri;
mod exclusive;
mod files;
pub mod primary;
