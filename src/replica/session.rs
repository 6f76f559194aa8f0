//! Signs of life of a primary (P28): by them a reader tells one that is idle from one that is dead.
//!
//! A process renews one object per place, its session, however many databases it replicates there. Beside each of their
//! replicas a pointer names it. Both lie under `session/`, where neither Litestream nor a listing of ours looks for
//! files. Their content is not trusted: at worst a primary seems alive or dead.

use crate::error::{Error, Result};
use crate::store::{Metadata, Store};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// The key of the pointer.
pub const POINTER: &str = "session/primary.json";
const PREFIX: &str = "session/";
/// Either object is shorter.
const BYTES_MAX: u64 = 4096;
/// Of which a session may be told to hold; more is damage.
const TTL_MAX: Duration = Duration::from_secs(24 * 3600);
/// A session holds for so many renewals, so that one that is late is no death.
const RENEWALS: u32 = 3;

/// The key of a session, in the store of the replica beside which it lies.
pub fn key(node: u64) -> String {
    format!("{PREFIX}{node:016x}.json")
}

/// Which session a replica's primary belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pointer {
    /// From the root of the place on: path and [`key`].
    session: String,
    ttl_ms: u64,
    /// The primary was stopped, which is no death.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    stopped: bool,
}

impl Pointer {
    /// To the session of a node at a path of the place, which is renewed at an interval.
    pub fn new(path: &str, node: u64, interval: Duration) -> Self {
        let slash = if path.is_empty() { "" } else { "/" };
        let ttl_ms = u64::try_from((interval * RENEWALS).as_millis()).unwrap_or(u64::MAX);
        Self { session: format!("{path}{slash}{}", key(node)), ttl_ms, stopped: false }
    }

    /// The same, of a primary that was stopped.
    pub fn stopped(self) -> Self {
        Self { stopped: true, ..self }
    }

    /// Whether both name one session.
    pub fn names_the_same(&self, other: &Self) -> bool {
        self.session == other.session
    }

    /// As it is stored.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        let pointer: Self =
            serde_json::from_slice(bytes).map_err(|error| Error::corrupt(format!("{POINTER}: {error}")))?;
        match pointer.ttl() <= TTL_MAX {
            true => Ok(pointer),
            false => Err(Error::corrupt(format!("{POINTER}: a ttl_ms of {}", pointer.ttl_ms))),
        }
    }

    fn ttl(&self) -> Duration {
        Duration::from_millis(self.ttl_ms)
    }

    /// Path in the place, and key.
    fn parts(&self) -> Result<(&str, &str)> {
        let climbs = self.session.split('/').any(|part| part == "..");
        let at = self.session.rfind(PREFIX).filter(|at| !climbs && (*at == 0 || self.session[..*at].ends_with('/')));
        let (path, key) = at
            .and_then(|at| self.session.split_at_checked(at))
            .ok_or_else(|| Error::corrupt(format!("{POINTER}: '{}' is no session", self.session)))?;
        Ok((path.trim_end_matches('/'), key))
    }
}

/// What a replica's pointer and its session say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// No pointer: an older version, Litestream, or `heartbeat` is off.
    None,
    /// It was stopped, at this time of the store's clock.
    Stopped(Timestamp),
    /// Its session was renewed last at this time of the store's clock, and holds for so long; `None`: it is gone.
    Session(Option<Timestamp>, Duration),
}

/// Looks for the last sign of life, in two requests at most.
///
/// # Errors
/// Those of the store; [`Kind::Corrupt`](crate::error::Kind::Corrupt).
pub fn last_sign(store: &Arc<dyn Store>) -> Result<Sign> {
    let Some(found) = store.get_end(POINTER, BYTES_MAX)? else { return Ok(Sign::None) };
    let pointer = Pointer::parse(&found.bytes)?;
    if pointer.stopped {
        return Ok(Sign::Stopped(found.object.modified));
    }
    Ok(Sign::Session(renewed(store, &pointer)?, pointer.ttl()))
}

/// When a pointer's session was renewed last; `None`: it is gone.
fn renewed(store: &Arc<dyn Store>, pointer: &Pointer) -> Result<Option<Timestamp>> {
    let (path, key) = pointer.parts()?;
    let store = if path == store.place().path { Some(Arc::clone(store)) } else { store.at_path(path) };
    let Some(store) = store else { return Ok(None) };
    Ok(store.get_end(key, BYTES_MAX)?.map(|found| found.object.modified))
}

/// Replaces a pointer, unless it is another primary's by now.
///
/// # Errors
/// Those of the store.
pub fn replace(store: &Arc<dyn Store>, former: &Pointer, by: &Pointer) -> Result<()> {
    let Some((bytes, etag)) = store.get(POINTER, BYTES_MAX)? else { return Ok(()) };
    // Of another interval it is ours all the same.
    if Pointer::parse(&bytes).is_ok_and(|there| there.names_the_same(former)) {
        store.put_if_match(POINTER, &by.to_json(), &Metadata::default(), &etag)?;
    }
    Ok(())
}

/// What a replica's pointer says before it is replaced; one that is damaged says nothing.
///
/// # Errors
/// Those of the store.
pub fn former(store: &Arc<dyn Store>) -> Result<Option<Pointer>> {
    let found = store.get(POINTER, BYTES_MAX)?;
    Ok(found.and_then(|(bytes, _)| Pointer::parse(&bytes).ok()))
}

/// Whether the session of a former primary has ended. If it lies beside this replica it is then removed: nobody else
/// does.
///
/// # Errors
/// Those of the store.
pub fn has_ended(store: &Arc<dyn Store>, former: &Pointer, now: Timestamp) -> Result<bool> {
    match renewed(store, former)? {
        Some(renewed) if age(now, renewed) <= former.ttl() => return Ok(false),
        Some(_) => {}
        None => return Ok(true),
    }
    let (path, key) = former.parts()?;
    if path == store.place().path && key != POINTER {
        store.delete(key)?;
    }
    Ok(true)
}

/// Zero for what is of the future.
pub fn age(now: Timestamp, then: Timestamp) -> Duration {
    Duration::from_millis(now.0.saturating_sub(then.0).max(0).unsigned_abs())
}
