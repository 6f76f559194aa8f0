//! All that touches SQLite's C interface, and all `unsafe` code of the crate.
//!
//! The host's API table is the only way to SQLite: no `sqlite3_*` symbol is linked in, since two copies of SQLite in
//! one process corrupt databases. Above this module nothing knows a raw pointer but as the opaque [`Connection`].
//!
//! Architecture invariant: no panic leaves a function that SQLite calls (`crate::panic`), and nothing here knows about
//! replication: taps tell an [`Observer`] what SQLite does.
#![allow(unsafe_code, reason = "this is the one place for it")]

mod api;
mod base_file;
mod connection;
mod control;
mod entry;
mod fork;
mod lifetime;
mod log;
mod read_file;
mod read_vfs;
mod scalar;
mod shared_index;
mod shim;
mod shm;
mod signals;
mod table;
mod tap;

pub use base_file::{BaseFile, FileRole};
pub use connection::Connection;
pub use lifetime::{define_constant, has_connections, listen};
pub use log::{log_to_file, log_to_host};
pub use read_file::ReplicaFile;
pub use read_vfs::{ReplicaVfs, install as install_read_vfs, refuse_others};
pub use scalar::{Function, Value, define_function};
pub use shared_index::{SharedIndex, WalIndexStart};
pub use shim::{BaseVfs, Shim, install as install_shim};
pub use signals::without_signals;
pub use table::{Table, define_table};
pub use tap::{Observer, PragmaAnswer, WalIndexHeader};
