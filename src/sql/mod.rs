//! The SQL surface: the two tables that list it. Arguments are checked here, once.

mod functions;
mod replicate;
mod restore;
mod tables;

use crate::error::Result;
use crate::sqlite::{Connection, Function, Table, define_constant, define_function, define_table};
use std::ffi::CStr;

/// What `litestream_version()` gives.
static VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => c"",
};

/// Every other scalar function, once per number of arguments.
static FUNCTIONS: &[Function] = &[
    Function { name: "litestream_replicate", arguments: 1, call: replicate::replicate },
    Function { name: "litestream_replicate", arguments: 2, call: replicate::replicate },
    Function { name: "litestream_replicate", arguments: 3, call: replicate::replicate },
    Function { name: "litestream_stop", arguments: 0, call: functions::stop },
    Function { name: "litestream_stop", arguments: 1, call: functions::stop },
    Function { name: "litestream_sync", arguments: 0, call: functions::sync },
    Function { name: "litestream_sync", arguments: 1, call: functions::sync },
    Function { name: "litestream_restore", arguments: 2, call: restore::restore },
    Function { name: "litestream_restore", arguments: 3, call: restore::restore },
    Function { name: "litestream_restore", arguments: 4, call: restore::restore },
    Function { name: "litestream_txid", arguments: 0, call: functions::txid },
    Function { name: "litestream_time", arguments: 0, call: functions::time },
    Function { name: "litestream_lag", arguments: 0, call: functions::lag },
];

/// Every table-valued function.
static TABLES: &[Table] = &[tables::STATUS, tables::FILES];

/// Defines all of it on a connection.
pub fn define(connection: Connection) -> Result<()> {
    define_constant(connection, c"litestream_version", VERSION)?;
    FUNCTIONS.iter().try_for_each(|f| define_function(connection, f))?;
    TABLES.iter().try_for_each(|t| define_table(connection, t))
}
