//! Whether the store heeds conditional writes (P29): asked of those whose documentation does not say so, once in a
//! process for each endpoint and bucket, before the first creation.
//!
//! A small object is created twice. The second creation must be refused; where it is there from an earlier time, the
//! first one is, and one request is all that it costs. It is never removed: a credential that may not delete is enough.

use super::requests::{Call, Connection};
use crate::error::{Error, Result};
use crate::lock::{Mutex, PerProcess};
use crate::store::{Metadata, Put};
use bytes::Bytes;
use std::collections::HashSet;

/// The object's key, which no listing shows.
pub(super) const KEY: &str = "liblitestream-probe";
const CONTENT: &[u8] =
    b"Created to see whether this store refuses to create an object a second time. It may be removed.\n";
/// What to do about a store without conditions.
pub(super) const ADVICE: &str = "two primaries could overwrite each other: use another store or, if nobody else ever \
                                 writes below this URL, add conditional-writes=false to it";

static PROVEN: PerProcess<Mutex<HashSet<String>>> = PerProcess::new();

/// Proves it, unless the URL says that it does not matter.
pub(super) fn prove(connection: &Connection) -> Result<()> {
    let config = &connection.config;
    if !config.conditional_writes || config.provider.is_conditional {
        return Ok(());
    }
    let place = format!("{}{}", config.origin, config.base_path);
    if PROVEN.get().lock().contains(&place) {
        return Ok(());
    }
    for _ in 0..2 {
        let call = Call::put(KEY).if_absent();
        if connection.put(call, KEY, Bytes::from_static(CONTENT), &Metadata::default())? == Put::Refused {
            PROVEN.get().lock().insert(place);
            return Ok(());
        }
    }
    let (shown, name) = (&config.shown, config.provider.name);
    Err(Error::invalid(format!("{shown}: {name} ignores If-None-Match: it created {KEY} twice; so {ADVICE}")))
}
