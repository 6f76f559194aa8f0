//! The functions about a replica that is open: those of Litestream's VFS.

use super::functions::wrong;
use crate::error::{Error, Result};
use crate::sqlite::{Connection, Value};
use crate::vfs::replica::{self, Opened};
use std::sync::Arc;

/// `litestream_set_time(when)`.
pub(super) fn set_time(connection: Connection, arguments: &[Value]) -> Result<Value> {
    let Some(Value::Text(when)) = arguments.first() else {
        let got = arguments.first().unwrap_or(&Value::Null);
        return Err(wrong("litestream_set_time", "a time, a TXID or 'latest'", got));
    };
    opened(connection)?.travel(when, connection.keeps_reading(), &|| connection.is_interrupted())?;
    Ok(Value::Null)
}

/// `litestream_hydration_progress()`: percent; NULL where there is no replica.
pub(super) fn hydration_progress(connection: Connection, _: &[Value]) -> Result<Value> {
    let replica = replica::of(connection);
    Ok(replica.map_or(Value::Null, |replica| Value::Real(replica.hydration().map_or(0.0, |(part, _)| part * 100.0))))
}

/// `litestream_hydration_status()`: 'off', 'hydrating', 'complete'; NULL where there is no replica.
pub(super) fn hydration_status(connection: Connection, _: &[Value]) -> Result<Value> {
    let Some(replica) = replica::of(connection) else { return Ok(Value::Null) };
    let status = match replica.hydration() {
        None => "off",
        Some((part, _)) if part < 1.0 => "hydrating",
        Some(_) => "complete",
    };
    Ok(Value::Text(status.to_owned()))
}

fn opened(connection: Connection) -> Result<Arc<Opened>> {
    replica::of(connection).ok_or_else(|| {
        Error::invalid(
            "the main database of this connection is not opened from a replica: open \
             'file:NAME?vfs=litestream&replica=URL'; for an attached one, PRAGMA NAME.litestream_time = '…'",
        )
    })
}
