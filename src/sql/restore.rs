//! `litestream_restore(url, path)`, `(url, path, when)`, `(url, path, when, options)`.

use super::functions::wrong;
use crate::config::RestoreOptions;
use crate::error::{Context, Error, Kind, Result};
use crate::replica::{self, Options, Replica, Target, parse_when};
use crate::sqlite::{Connection, Value};
use crate::store;
use crate::time::SystemClock;
use crate::vfs::primary;
use std::path::Path;

pub(super) fn restore(connection: Connection, arguments: &[Value]) -> Result<Value> {
    let [url, path, optional @ ..] = arguments else { return Err(Error::bug("litestream_restore without arguments")) };
    let Value::Text(url) = url else { return Err(wrong("litestream_restore", "a URL", url)) };
    let Value::Text(path) = path else { return Err(wrong("litestream_restore", "a path", path)) };
    let target = match optional.first() {
        None | Some(Value::Null) => Target::Latest,
        Some(Value::Text(when)) => parse_when(when, &SystemClock)?,
        Some(other) => return Err(wrong("litestream_restore", "a time, a TXID or 'latest'", other)),
    };
    let options = match optional.get(1) {
        None | Some(Value::Null) => RestoreOptions::default(),
        Some(Value::Text(text)) => RestoreOptions::parse(text).context("litestream_restore")?,
        Some(other) => return Err(wrong("litestream_restore", "options as JSON text", other)),
    };
    if path.is_empty() || path == ":memory:" {
        return Err(Error::invalid(format!("litestream_restore: the path is '{path}'; name the file to be made")));
    }
    let path = primary::full_path(path)?;
    if options.force && primary::is_open(&path) {
        return Err(Error::new(Kind::Busy, format!("{path} is open in this process: close it before it is replaced")));
    }
    if options.force && primary::find(&path).is_some() {
        let text =
            format!("{path} is replicated by this process: SELECT litestream_stop('{path}') before it is replaced");
        return Err(Error::new(Kind::Busy, text));
    }
    if options.force && primary::is_locked(&path) {
        return Err(Error::new(
            Kind::Busy,
            format!("{path} is in use by a connection: close it before it is replaced"),
        ));
    }
    let replica = Replica::new(store::open(url)?);
    let check: &dyn Fn(&Path) -> Result<()> = &integrity_check;
    let how = Options {
        force: options.force,
        dry_run: options.dry_run,
        integrity_check: options.integrity_check.then_some(check),
    };
    let cancelled = || connection.is_interrupted();
    let restored = replica::restore(&replica, target, Path::new(&path), how, &cancelled).map_err(|error| {
        // What a store says names it already.
        let what =
            if error.to_string().contains(replica.url()) { String::new() } else { format!(" from {}", replica.url()) };
        error.context(format!("restore{what}"))
    })?;
    Ok(Value::Text(restored.txid.to_string()))
}

/// PRAGMA integrity_check on the restored file, before it takes its name.
fn integrity_check(path: &Path) -> Result<()> {
    let rows = Connection::with_own(&path.to_string_lossy(), |own| own.query("PRAGMA integrity_check"))?;
    if rows == ["ok"] {
        return Ok(());
    }
    Err(Error::corrupt(format!("the restored database fails integrity_check: {}", rows.join("; "))))
}
