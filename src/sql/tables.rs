//! The table-valued functions.

use super::functions::wrong;
use crate::error::{Error, Result};
use crate::replica::Replica;
use crate::sqlite::{Connection, Table, Value};
use crate::store::{self, Counters};
use crate::time::Timestamp;
use crate::vfs::{primary, replica};
use crate::{reader, writer};
use std::time::Duration;

/// `litestream_status`: a row per database of this process. Later columns are added at the end.
pub(super) const STATUS: Table = Table {
    name: "litestream_status",
    columns: &[
        "path TEXT",
        "url TEXT",
        "role TEXT",
        "state TEXT",
        "txid TEXT",
        "durable_txid TEXT",
        "lag_seconds REAL",
        "data_age_seconds REAL",
        "spool_bytes INTEGER",
        "spool_files INTEGER",
        "lease_owner TEXT",
        "lease_generation INTEGER",
        "lease_seconds_left REAL",
        "last_error TEXT",
        "last_error_at TEXT",
        "requests_get INTEGER",
        "requests_put INTEGER",
        "requests_list INTEGER",
        "requests_head INTEGER",
        "requests_delete INTEGER",
        "bytes_in INTEGER",
        "bytes_out INTEGER",
        "cache_hits INTEGER",
        "cache_misses INTEGER",
        "pages_prefetched INTEGER",
        "pages_prefetch_used INTEGER",
        "primary_state TEXT",
        "primary_seen_seconds REAL",
    ],
    argument: None,
    rows: |_, _| {
        let primaries = primary::statuses();
        let replicas = replica::statuses();
        Ok(primaries.iter().map(primary_row).chain(replicas.iter().map(replica_row)).collect())
    },
};

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn count(n: u64) -> Value {
    Value::Integer(i64::try_from(n).unwrap_or(i64::MAX))
}

fn seconds(span: Option<Duration>) -> Value {
    span.map_or(Value::Null, |span| Value::Real(span.as_secs_f64()))
}

fn error_columns(error: Option<&(Error, Timestamp)>) -> [Value; 2] {
    match error {
        Some((error, at)) => [Value::Text(error.to_string()), Value::Text(at.to_string())],
        None => [Value::Null, Value::Null],
    }
}

fn counter_columns(counters: &Counters) -> [Value; 7] {
    let Counters { get, put, list, head, delete, bytes_in, bytes_out } = *counters;
    [get, put, list, head, delete, bytes_in, bytes_out].map(count)
}

fn replica_row(status: &reader::Status) -> Vec<Value> {
    let lag = match (status.lag, status.txid) {
        (None, Some(_)) => Value::Real(-1.0),
        (lag, _) => seconds(lag),
    };
    let mut row = vec![
        text(&status.path),
        text(&status.url),
        text("replica"),
        text(status.state),
        status.txid.map(|t| t.to_string()).into(),
        Value::Null,
        lag,
        seconds(status.data_age),
    ];
    // No spool, and no lease.
    row.extend([Value::Null, Value::Null, Value::Null, Value::Null, Value::Null]);
    row.extend(error_columns(status.last_error.as_ref()));
    row.extend(counter_columns(&status.counters));
    let pages = [status.cache_hits, status.cache_misses, status.pages_prefetched, status.pages_prefetch_used];
    row.extend(pages.map(count));
    row.push(status.primary.map(str::to_owned).into());
    row.push(seconds(status.primary_seen));
    row
}

fn primary_row(status: &writer::Status) -> Vec<Value> {
    let mut row = vec![
        text(&status.path),
        text(&status.url),
        text("primary"),
        text(status.state.name()),
        status.txid.map(|t| t.to_string()).into(),
        status.durable.map(|(t, _)| t.to_string()).into(),
        Value::Real(status.lag.as_secs_f64()),
        // Of a replica only: a primary's data is its own.
        Value::Null,
        count(status.spool_bytes),
        count(status.spool_files),
        // Leases are not there yet.
        Value::Null,
        Value::Null,
        Value::Null,
    ];
    row.extend(error_columns(status.last_error.as_ref()));
    row.extend(counter_columns(&status.counters));
    // Of replicas only.
    row.extend([Value::Null, Value::Null, Value::Null, Value::Null, Value::Null, Value::Null]);
    row
}

/// `litestream_files(url)`: the LTX files of a replica.
pub(super) const FILES: Table = Table {
    name: "litestream_files",
    columns: &["level INTEGER", "min_txid TEXT", "max_txid TEXT", "size INTEGER", "created_at TEXT", "key TEXT"],
    argument: Some("url"),
    rows: files,
};

fn files(connection: Connection, url: Option<&Value>) -> Result<Vec<Vec<Value>>> {
    let Some(Value::Text(url)) = url else {
        return Err(url.map_or_else(|| Error::bug("no URL"), |u| wrong("litestream_files", "a URL", u)));
    };
    let replica = Replica::new(store::open(url)?);
    let listing = replica.list_unless(&|| connection.is_interrupted())?;
    Ok(listing
        .files()
        .iter()
        .map(|file| {
            vec![
                Value::Integer(i64::from(file.level.get())),
                Value::Text(file.txids.min.to_string()),
                Value::Text(file.txids.max.to_string()),
                Value::Integer(i64::try_from(file.size).unwrap_or(i64::MAX)),
                Value::Text(file.created_at.to_string()),
                Value::Text(file.key.clone()),
            ]
        })
        .collect())
}
