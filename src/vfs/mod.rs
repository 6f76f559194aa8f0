//! Glue between SQLite's files and the primary. (The replica's VFS follows.)

pub mod primary;
