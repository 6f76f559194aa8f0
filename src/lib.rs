//! liblitestream: replicates SQLite databases to object storage from inside the process.
//!
//! This file is the map of the code.

#![deny(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::print_stdout,
        clippy::print_stderr
    )
)]

pub mod error;
pub mod ltx;
pub mod replica;
pub mod store;
pub mod time;
pub mod wal;
