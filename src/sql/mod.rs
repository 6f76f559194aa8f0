//! The SQL surface: the two tables that list it. Arguments are checked here, once.

mod functions;
mod replica;
mod replicate;
mod restore;
mod tables;

use crate::error::Result;
use crate::sqlite::{Connection, Function, Table, Value, define_constant, define_function, define_table};
use std::ffi::CStr;

/// What `litestream_version()` gives.
static VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => c"",
};

/// Every other scalar function, once per number of arguments.
static FUNCTIONS: &[Function] = &[
    acts("litestream_replicate", 1, replicate::replicate),
    acts("litestream_replicate", 2, replicate::replicate),
    acts("litestream_replicate", 3, replicate::replicate),
    acts("litestream_stop", 0, functions::stop),
    acts("litestream_stop", 1, functions::stop),
    acts("litestream_sync", 0, functions::sync),
    acts("litestream_sync", 1, functions::sync),
    acts("litestream_wait", 1, functions::wait),
    acts("litestream_wait", 2, functions::wait),
    acts("litestream_restore", 2, restore::restore),
    acts("litestream_restore", 3, restore::restore),
    acts("litestream_restore", 4, restore::restore),
    acts("litestream_set_time", 1, replica::set_time),
    tells("litestream_txid", functions::txid),
    tells("litestream_time", functions::time),
    tells("litestream_lag", functions::lag),
    tells("litestream_hydration_progress", replica::hydration_progress),
    tells("litestream_hydration_status", replica::hydration_status),
];

type Call = fn(Connection, &[Value]) -> Result<Value>;

const fn acts(name: &'static str, arguments: i32, call: Call) -> Function {
    Function { name, arguments, call, has_effects: true }
}

/// A function without arguments, which only tells.
const fn tells(name: &'static str, call: Call) -> Function {
    Function { name, arguments: 0, call, has_effects: false }
}

/// Every table-valued function.
static TABLES: &[Table] = &[tables::STATUS, tables::FILES];

/// Defines all of it on a connection, unless it is there and in use: `SELECT load_extension(...)` once more.
pub fn define(connection: Connection) -> Result<()> {
    if !define_constant(connection, c"litestream_version", VERSION)? {
        return Ok(());
    }
    FUNCTIONS.iter().try_for_each(|f| define_function(connection, f))?;
    TABLES.iter().try_for_each(|t| define_table(connection, t))
}
