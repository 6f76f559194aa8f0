//! Signs of life (P28): this process renews one session per place, however many databases it replicates there, and
//! leaves a pointer to it beside each replica ([`crate::replica::session`]).
//!
//! The first one comes an interval after the start, so that a process that only looks in leaves none. Nothing waits for
//! them, and nothing depends on them: what fails shows in `last_error`.

use super::primary::Primary;
use crate::error::{Error, Result};
use crate::lock::Mutex;
use crate::pool::Pool;
use crate::replica::session::{POINTER, Pointer, key, replace, sweep};
use crate::store::{Metadata, Store};
use crate::time::Timestamp;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// A store that refuses them is asked again so late.
const REFUSED: Duration = Duration::from_secs(600);
/// How long a stop waits until its pointer says so.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// The sessions of the process.
pub(super) struct Sessions {
    pub(super) pool: Arc<Pool>,
    by_place: Mutex<BTreeMap<String, Arc<Session>>>,
}

/// What is renewed in one place.
struct Session {
    node: u64,
    /// That of the first database, where the session lies.
    store: Arc<dyn Store>,
    members: Mutex<Vec<Member>>,
}

struct Member {
    primary: Weak<Primary>,
    store: Arc<dyn Store>,
    interval: Duration,
    /// Its pointer is there.
    is_told: bool,
}

impl Member {
    fn is_active(&self) -> bool {
        self.primary.upgrade().is_some_and(|primary| !primary.is_stopped() && !primary.is_final())
    }
}

impl Sessions {
    pub(super) fn new(threads: usize) -> Arc<Self> {
        Arc::new(Self { pool: Pool::new("session", threads), by_place: Mutex::default() })
    }

    /// Gives signs of life for a primary from now on, unless its options say otherwise.
    pub(super) fn join(self: &Arc<Self>, primary: &Arc<Primary>) -> Result<()> {
        let interval = primary.options.heartbeat;
        if interval.is_zero() {
            return Ok(());
        }
        let store = Arc::clone(&primary.store);
        let place = store.place().name;
        let primary_ = Arc::downgrade(primary);
        let member = Member { primary: primary_, store: Arc::clone(&store), interval, is_told: false };
        let mut by_place = self.by_place.lock();
        if let Some(session) = by_place.get(&place) {
            let mut members = session.members.lock();
            if !members.iter().any(|other| Weak::ptr_eq(&other.primary, &member.primary)) {
                members.push(member);
            }
            return Ok(());
        }
        let node = super::spool::random()?;
        let session = Arc::new(Session { node, store, members: Mutex::new(vec![member]) });
        by_place.insert(place.clone(), session);
        drop(by_place);
        self.renew_at(primary.now() + interval, place)
    }

    fn renew_at(self: &Arc<Self>, due: Instant, place: String) -> Result<()> {
        let sessions = Arc::clone(self);
        self.pool.run_at(due, move || {
            let begun = due.max(Instant::now());
            match crate::panic::guard(|| sessions.renew(&place)) {
                Ok(Some(wait)) => {
                    let _ = sessions.renew_at(begun + wait, place);
                }
                Ok(None) => {}
                Err(error) => log::error!("{error}"),
            }
        })
    }

    /// Renews the session of a place; when it does so next, unless nobody is left.
    fn renew(&self, place: &str) -> Option<Duration> {
        let session = {
            let mut by_place = self.by_place.lock();
            let session = Arc::clone(by_place.get(place)?);
            let mut members = session.members.lock();
            members.retain(Member::is_active);
            if members.is_empty() {
                by_place.remove(place);
                return None;
            }
            drop(members);
            session
        };
        let interval = session.interval();
        match session.renew(interval) {
            Ok(()) => Some(interval),
            Err(error) if error.is_retryable() => {
                log::warn!("{error}");
                Some(interval)
            }
            Err(error) => {
                session.tell(&error);
                Some(interval.max(REFUSED))
            }
        }
    }

    /// Says that a primary was stopped, which is no death. It has stopped.
    pub(super) fn leave(&self, primary: &Primary) {
        let place = primary.store.place().name;
        let Some(session) = self.by_place.lock().get(&place).cloned() else { return };
        let Some((member, is_last)) = session.remove(primary) else { return };
        if !member.is_told {
            return;
        }
        let (ended, end) = crossbeam_channel::bounded(1);
        let task = move || {
            if let Err(error) = session.end(&member, is_last) {
                log::warn!("{error}");
            }
            let _ = ended.send(());
        };
        if self.pool.run_at(primary.now(), task).is_ok() {
            let _ = end.recv_timeout(STOP_TIMEOUT);
        }
    }
}

impl Session {
    fn interval(&self) -> Duration {
        self.members.lock().iter().map(|member| member.interval).min().unwrap_or_default()
    }

    fn pointer(&self, interval: Duration) -> Pointer {
        Pointer::new(&self.store.place().path, self.node, interval)
    }

    /// The session first, so that no pointer names nothing.
    fn renew(&self, interval: Duration) -> Result<()> {
        let pointer = self.pointer(interval).to_json();
        self.store.put(&key(self.node), &pointer, &Metadata::default())?;
        let untold: Vec<_> = {
            let members = self.members.lock();
            members.iter().filter(|member| !member.is_told).map(|member| Arc::clone(&member.store)).collect()
        };
        for store in untold {
            if let Err(error) = sweep(&store, Timestamp(Timestamp::now().0 + store.clock_offset_ms())) {
                log::warn!("{error}");
            }
            store.put(POINTER, &pointer, &Metadata::default())?;
            for member in self.members.lock().iter_mut().filter(|member| Arc::ptr_eq(&member.store, &store)) {
                member.is_told = true;
            }
        }
        Ok(())
    }

    fn remove(&self, primary: &Primary) -> Option<(Member, bool)> {
        let mut members = self.members.lock();
        let at = members.iter().position(|member| std::ptr::eq(member.primary.as_ptr(), primary))?;
        let member = members.swap_remove(at);
        Some((member, members.is_empty()))
    }

    fn end(&self, member: &Member, is_last: bool) -> Result<()> {
        let pointer = self.pointer(member.interval);
        replace(&member.store, &pointer, &pointer.clone().stopped())?;
        if is_last && self.members.lock().is_empty() {
            self.store.delete(&key(self.node))?;
        }
        Ok(())
    }

    fn tell(&self, error: &Error) {
        let primaries: Vec<_> = self.members.lock().iter().filter_map(|member| member.primary.upgrade()).collect();
        for primary in primaries {
            primary.fail_visibly(&error.clone().context("the sign of life for readers"));
        }
    }
}
