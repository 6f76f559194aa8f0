//! The functions about a database that is replicated.

use crate::config::SYNC_TIMEOUT;
use crate::error::{Error, Kind, Result};
use crate::sqlite::{Connection, Value};
use crate::vfs::primary;
use crate::writer::Primary;
use std::sync::Arc;
use std::time::Duration;

/// A wait that is longer than this is a mistyped unit.
const LONGEST_WAIT_SECONDS: f64 = 24.0 * 3600.0;

pub(super) fn stop(connection: Connection, arguments: &[Value]) -> Result<Value> {
    let path = match arguments.first() {
        None | Some(Value::Null) => connection.file_name("main"),
        Some(Value::Text(path)) => primary::full_path(path)?,
        Some(other) => return Err(wrong("litestream_stop", "a path", other)),
    };
    let txid = primary::stop(&path, &|| connection.is_interrupted())?;
    Ok(txid.map(|t| t.to_string()).into())
}

pub(super) fn sync(connection: Connection, arguments: &[Value]) -> Result<Value> {
    let timeout = match arguments.first() {
        None | Some(Value::Null) => SYNC_TIMEOUT,
        Some(Value::Integer(seconds)) => seconds_of(*seconds as f64)?,
        Some(Value::Real(seconds)) => seconds_of(*seconds)?,
        Some(other) => return Err(wrong("litestream_sync", "a number of seconds", other)),
    };
    let primary = main_primary(connection)?.ok_or_else(|| not_replicated(connection))?;
    let txid = primary.sync(timeout, &|| connection.is_interrupted())?;
    Ok(txid.map(|t| t.to_string()).into())
}

fn seconds_of(seconds: f64) -> Result<Duration> {
    if (0.0..=LONGEST_WAIT_SECONDS).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err(Error::invalid(format!("a timeout is a number of seconds from 0 to 86400, not {seconds}")))
    }
}

pub(super) fn txid(connection: Connection, _: &[Value]) -> Result<Value> {
    let durable = main_primary(connection)?.and_then(|p| p.durable_txid());
    Ok(durable.map(|(txid, _)| txid.to_string()).into())
}

pub(super) fn time(connection: Connection, _: &[Value]) -> Result<Value> {
    let durable = main_primary(connection)?.and_then(|p| p.durable_txid());
    Ok(durable.map(|(_, time)| time.to_string()).into())
}

pub(super) fn lag(connection: Connection, _: &[Value]) -> Result<Value> {
    Ok(main_primary(connection)?.map_or(Value::Null, |p| Value::Integer(p.lag().as_secs() as i64)))
}

/// The primary of the connection's main database.
fn main_primary(connection: Connection) -> Result<Option<Arc<Primary>>> {
    Ok(primary::find(&connection.file_name("main")))
}

fn not_replicated(connection: Connection) -> Error {
    let name = connection.file_name("main");
    let name = if name.is_empty() { "this in-memory database".to_owned() } else { name };
    Error::new(
        Kind::NotFound,
        format!("{name} is not replicated by this process: SELECT litestream_replicate('file:///…') first"),
    )
}

/// An argument of the wrong type.
pub(super) fn wrong(function: &str, wanted: &str, got: &Value) -> Error {
    let got = match got {
        Value::Null => "NULL".to_owned(),
        Value::Integer(i) => i.to_string(),
        Value::Real(r) => r.to_string(),
        Value::Text(text) => format!("'{text}'"),
    };
    Error::invalid(format!("{function}: expected {wanted}, got {got}"))
}
