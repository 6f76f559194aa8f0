//! The functions about a database that is replicated, or read from its replica.

use crate::config::SYNC_TIMEOUT;
use crate::error::{Error, Kind, Result};
use crate::ltx::Txid;
use crate::sqlite::{Connection, Value};
use crate::time::Timestamp;
use crate::vfs::{by_sql, primary, replica};
use crate::writer::Primary;
use std::sync::Arc;
use std::time::Duration;

/// A wait that is longer than this is a mistyped unit.
const LONGEST_WAIT_SECONDS: f64 = 24.0 * 3600.0;

pub(super) fn stop(connection: Connection, arguments: &[Value]) -> Result<Value> {
    let path = match arguments.first() {
        None | Some(Value::Null) if replica::of(connection).is_some() => {
            return Err(Error::invalid(
                "litestream_stop: this connection reads a replica, which is not stopped: close the connection",
            ));
        }
        None | Some(Value::Null) => connection.file_name("main"),
        Some(Value::Text(path)) => primary::full_path(path)?,
        Some(other) => return Err(wrong("litestream_stop", "a path", other)),
    };
    let txid = by_sql::stop(&path, &|| connection.is_interrupted())?;
    Ok(txid.map(|t| t.to_string()).into())
}

pub(super) fn sync(connection: Connection, arguments: &[Value]) -> Result<Value> {
    let timeout = timeout("litestream_sync", arguments.first())?;
    if replica::of(connection).is_some() {
        return Err(Error::invalid(replica::NOTHING_TO_SHIP));
    }
    let txid = await_primary(connection, timeout)?.sync(timeout, &|| connection.is_interrupted())?;
    Ok(txid.map(|t| t.to_string()).into())
}

/// On a primary: until the TXID is durable; on a replica: until it is visible.
pub(super) fn wait(connection: Connection, arguments: &[Value]) -> Result<Value> {
    let txid = match arguments.first() {
        Some(Value::Text(text)) => Txid::parse(text.trim()),
        _ => None,
    };
    let Some(txid) = txid else {
        let got = arguments.first().unwrap_or(&Value::Null);
        return Err(wrong("litestream_wait", "a TXID of 16 hex digits", got));
    };
    let timeout = timeout("litestream_wait", arguments.get(1))?;
    let cancelled = || connection.is_interrupted();
    let reached = match replica::of(connection) {
        Some(replica) => replica.wait(txid, timeout, connection.keeps_reading(), &cancelled)?,
        None => await_primary(connection, timeout)?.wait(txid, timeout, &cancelled)?,
    };
    Ok(Value::Text(reached.to_string()))
}

fn timeout(function: &str, argument: Option<&Value>) -> Result<Duration> {
    match argument {
        None | Some(Value::Null) => Ok(SYNC_TIMEOUT),
        Some(Value::Integer(seconds)) => seconds_of(*seconds as f64),
        Some(Value::Real(seconds)) => seconds_of(*seconds),
        Some(other) => Err(wrong(function, "a number of seconds", other)),
    }
}

fn seconds_of(seconds: f64) -> Result<Duration> {
    if (0.0..=LONGEST_WAIT_SECONDS).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err(Error::invalid(format!("a timeout is a number of seconds from 0 to 86400, not {seconds}")))
    }
}

pub(super) fn txid(connection: Connection, _: &[Value]) -> Result<Value> {
    Ok(position(connection)?.map(|(txid, _)| txid.to_string()).into())
}

pub(super) fn time(connection: Connection, _: &[Value]) -> Result<Value> {
    Ok(position(connection)?.map(|(_, time)| time.to_string()).into())
}

/// Of a replica, the state that is seen; of a primary, the last one that is durable.
fn position(connection: Connection) -> Result<Option<(Txid, Timestamp)>> {
    match replica::of(connection) {
        Some(replica) => replica.position().map(Some),
        None => Ok(main_primary(connection).and_then(|p| p.durable_txid())),
    }
}

pub(super) fn lag(connection: Connection, _: &[Value]) -> Result<Value> {
    if let Some(replica) = replica::of(connection) {
        return Ok(Value::Integer(replica.lag_seconds()));
    }
    Ok(main_primary(connection).map_or(Value::Null, |p| Value::Integer(p.lag().as_secs() as i64)))
}

/// The primary of the connection's main database.
fn main_primary(connection: Connection) -> Option<Arc<Primary>> {
    primary::find(&connection.file_name("main"))
}

/// The same, also where it is about to begin.
fn await_primary(connection: Connection, timeout: Duration) -> Result<Arc<Primary>> {
    let name = connection.file_name("main");
    let mut primary = primary::await_primary(&name, timeout, &|| connection.is_interrupted())?;
    if primary::is_unwatched(&name) {
        // What others have written is seen by who has the WAL open.
        connection.query("PRAGMA main.schema_version")?;
        primary = primary::find(&name);
    }
    primary.ok_or_else(|| not_replicated(connection))
}

fn not_replicated(connection: Connection) -> Error {
    let name = connection.file_name("main");
    if let Some(why) = primary::waits_for(&name) {
        return Error::new(Kind::NotFound, format!("{name} is not replicated yet: {why}"));
    }
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
