//! `litestream_replicate(url)`, `(path, url)`, `(path, url, options)`.

use super::functions::wrong;
use crate::config::Options;
use crate::error::{Context, Error, Result};
use crate::ltx::Txid;
use crate::sqlite::{Connection, Value};
use crate::vfs::by_sql::{self, Stores};
use crate::vfs::primary;

pub(super) fn replicate(connection: Connection, arguments: &[Value]) -> Result<Value> {
    let (path, url, options) = match arguments {
        [url] => (&Value::Null, url, &Value::Null),
        [path, url] => (path, url, &Value::Null),
        [path, url, options] => (path, url, options),
        _ => return Err(Error::bug("litestream_replicate with another number of arguments")),
    };
    let Value::Text(url) = url else { return Err(wrong("litestream_replicate", "a URL", url)) };
    let options = match options {
        Value::Null => None,
        Value::Text(text) => Some(Options::parse(text).context("litestream_replicate")?),
        other => return Err(wrong("litestream_replicate", "options as JSON text", other)),
    };
    Connection::need_mutexes()?;
    let stores = &Stores::open(url)?;
    let primary = match path {
        Value::Null => of_schema(connection, "main", stores, options)?,
        Value::Text(path) => of_path(connection, path, stores, options)?,
        other => return Err(wrong("litestream_replicate", "a path or NULL", other)),
    };
    Ok(Value::Text(primary.unwrap_or(Txid::FIRST).to_string()))
}

/// A database that this connection has open under a name.
fn of_schema(connection: Connection, schema: &str, stores: &Stores, options: Option<Options>) -> Result<Option<Txid>> {
    let path = connection.file_name(schema);
    if path.is_empty() {
        return Err(Error::invalid(format!(
            "the database '{schema}' of this connection is in memory or temporary: only a database in a file can be \
             replicated"
        )));
    }
    if path.contains(char::REPLACEMENT_CHARACTER) {
        return Err(Error::invalid(format!("{path}: only a database with a name in UTF-8 can be replicated")));
    }
    if connection.replica(schema).is_some() {
        return Err(Error::invalid(format!(
            "the database '{schema}' of this connection is opened from a replica: replicate it where it is written to"
        )));
    }
    if connection.is_read_only(schema) {
        return Err(Error::invalid(format!("{path} is opened read-only: replicate it where it is written to")));
    }
    if connection.in_transaction() {
        return Err(Error::invalid(
            "litestream_replicate cannot run inside a transaction, since it may have to set WAL mode: COMMIT first",
        ));
    }
    Ok(by_sql::replicate(connection, schema, &path, stores, options)?.txid())
}

/// A database by its path: through this connection if it has it open, else through one of our own.
fn of_path(connection: Connection, path: &str, stores: &Stores, options: Option<Options>) -> Result<Option<Txid>> {
    let path = primary::full_path(path)?;
    for schema in connection.schemas()? {
        if connection.file_name(&schema) == path {
            return of_schema(connection, &schema, stores, options);
        }
    }
    Connection::with_own(&path, |own| of_schema(own, "main", stores, options))
}
