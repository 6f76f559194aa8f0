//! Signs of life (P28): this process renews one session per place, however many databases it replicates there, and
//! leaves a pointer to it beside each replica ([`crate::replica::session`]).
//!
//! The first one comes an interval after the start, so that a process that only looks in leaves none. Nothing depends on
//! them: what fails shows in `last_error`, and is tried again.

use super::primary::Primary;
use crate::error::{Error, Result};
use crate::lock::Mutex;
use crate::pool::Pool;
use crate::replica::session::{POINTER, Pointer, former, has_ended, key, replace};
use crate::store::{Metadata, Store};
use crate::time::Timestamp;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// What a store refuses is tried again after a wait that doubles up to this.
const REFUSED_MOST: Duration = Duration::from_secs(600);
/// How long a stop waits at most until its pointer says so.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
const STOP_LOOKS: Duration = Duration::from_millis(50);
/// For so many renewals it is looked whether the session of the process before has ended.
const LOOKS_AT_FORMER: u32 = 10;

/// The sessions of the process.
pub(super) struct Sessions {
    pub(super) pool: Arc<Pool>,
    by_place: Mutex<BTreeMap<String, Arc<Session>>>,
}

/// What is renewed in one place. `home`, then `members`.
struct Session {
    node: u64,
    /// Where it lies: beside the first database, or another one if it is refused there.
    home: Mutex<Arc<dyn Store>>,
    members: Mutex<Vec<Member>>,
}

struct Member {
    primary: Weak<Primary>,
    store: Arc<dyn Store>,
    interval: Duration,
    /// Its pointer is there.
    is_told: bool,
    /// After so many refusals it is told at this moment.
    refusals: u32,
    tell_at: Option<Instant>,
    /// What the pointer named before, and how often that is looked at.
    former: Option<(Pointer, u32)>,
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
        let member = Member {
            primary: Arc::downgrade(primary),
            store: Arc::clone(&store),
            interval,
            is_told: false,
            refusals: 0,
            tell_at: None,
            former: None,
        };
        let mut by_place = self.by_place.lock();
        if let Some(session) = by_place.get(&place) {
            let mut members = session.members.lock();
            if !members.iter().any(|other| Weak::ptr_eq(&other.primary, &member.primary)) {
                members.push(member);
            }
            return Ok(());
        }
        let node = super::spool::random()?;
        let session = Session { node, home: Mutex::new(store), members: Mutex::new(vec![member]) };
        by_place.insert(place.clone(), Arc::new(session));
        drop(by_place);
        self.renew_at(primary.now() + interval, place, 0)
    }

    /// After so many failures. Without a thread for it the place is given up, and the next primary begins anew.
    fn renew_at(self: &Arc<Self>, due: Instant, place: String, failures: u32) -> Result<()> {
        let (sessions, of) = (Arc::clone(self), place.clone());
        let task = move || {
            let begun = due.max(Instant::now());
            let next = crate::panic::guard(|| sessions.renew(&of, due, failures));
            match next {
                Ok(Some((wait, failures))) => {
                    if let Err(error) = sessions.renew_at(begun + wait, of, failures) {
                        log::warn!("{error}");
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    log::error!("{error}");
                    sessions.by_place.lock().remove(&of);
                }
            }
        };
        self.pool.run_at(due, task).inspect_err(|_| {
            self.by_place.lock().remove(&place);
        })
    }

    /// Renews the session of a place; after how long it does so next, and how often it has failed by then. `None`: no
    /// database is left there.
    fn renew(&self, place: &str, now: Instant, failures: u32) -> Option<(Duration, u32)> {
        let session = Arc::clone(self.by_place.lock().get(place)?);
        let active = session.active();
        let is_over = {
            let mut by_place = self.by_place.lock();
            let mut members = session.members.lock();
            // Who has joined meanwhile stays.
            members.retain(|member| {
                member.primary.strong_count() > 0
                    && !active.iter().any(|(primary, is_active)| {
                        !is_active && std::ptr::eq(member.primary.as_ptr(), Arc::as_ptr(primary))
                    })
            });
            let is_over = members.is_empty();
            if is_over {
                by_place.remove(place);
            }
            is_over
        };
        drop(active);
        if is_over {
            session.remove_object();
            return None;
        }
        let interval = session.interval();
        match session.renew(interval) {
            Ok(()) => {
                let is_late = session.tell_all(now, interval);
                session.remove_former();
                Some((if is_late { interval / 2 } else { interval }, 0))
            }
            Err(error) if error.is_retryable() => {
                log::warn!("{error}");
                Some((interval, failures))
            }
            Err(error) => {
                session.show(&error);
                session.move_home();
                Some((refused(interval, failures), failures + 1))
            }
        }
    }

    /// Says that a primary was stopped, which is no death. It has stopped. Waits no longer than until `deadline`.
    pub(super) fn leave(&self, primary: &Primary, deadline: Instant, cancelled: &dyn Fn() -> bool) {
        let place = primary.store.place().name;
        let Some(session) = self.by_place.lock().get(&place).cloned() else { return };
        let Some(member) = session.remove(primary) else { return };
        if !member.is_told {
            return;
        }
        let (ended, end) = crossbeam_channel::bounded::<()>(0);
        let task = move || {
            let _until_the_end = ended;
            session.say_stopped(&member.store, member.interval);
            if session.members.lock().is_empty() {
                session.remove_object();
            }
        };
        let deadline = deadline.min(Instant::now() + STOP_TIMEOUT);
        if self.pool.run_at(primary.now(), task).is_ok() {
            while Instant::now() < deadline && !cancelled() {
                if end.recv_timeout(STOP_LOOKS) == Err(crossbeam_channel::RecvTimeoutError::Disconnected) {
                    break;
                }
            }
        }
    }
}

/// How long a refusal is waited for.
fn refused(interval: Duration, refusals: u32) -> Duration {
    (interval * 2_u32.pow(refusals.min(10) + 1)).min(REFUSED_MOST.max(interval))
}

impl Session {
    /// The primaries that are still there, and whether they replicate.
    fn active(&self) -> Vec<(Arc<Primary>, bool)> {
        let primaries: Vec<_> = self.members.lock().iter().filter_map(|member| member.primary.upgrade()).collect();
        let is_active = |primary: &Primary| !primary.is_stopped() && !primary.is_final();
        primaries.into_iter().map(|primary| (Arc::clone(&primary), is_active(&primary))).collect()
    }

    fn interval(&self) -> Duration {
        self.members.lock().iter().map(|member| member.interval).min().unwrap_or_default()
    }

    fn pointer(&self, interval: Duration) -> Pointer {
        Pointer::new(&self.home.lock().place().path, self.node, interval)
    }

    fn renew(&self, interval: Duration) -> Result<()> {
        let pointer = self.pointer(interval).to_json();
        let home = Arc::clone(&self.home.lock());
        home.put(&key(self.node), &pointer, &Metadata::default()).map(|_| ())
    }

    /// It is refused where it is: beside another database it may not be.
    fn move_home(&self) {
        let mut home = self.home.lock();
        let mut members = self.members.lock();
        let at = members.iter().position(|member| Arc::ptr_eq(&member.store, &home)).map_or(0, |at| at + 1);
        let Some(next) = members.get(at % members.len().max(1)) else { return };
        if !Arc::ptr_eq(&next.store, &home) {
            *home = Arc::clone(&next.store);
            members.iter_mut().for_each(|member| member.is_told = false);
        }
    }

    /// Leaves the pointers that are not there yet, for half an interval at most, so that the session is renewed in time.
    /// Whether some are left.
    fn tell_all(&self, now: Instant, interval: Duration) -> bool {
        let begun = Instant::now();
        let waits = |member: &Member| !member.is_told && member.tell_at.is_none_or(|at| at <= now);
        let untold: Vec<_> = self
            .members
            .lock()
            .iter()
            .filter(|m| waits(m))
            .map(|m| (Weak::clone(&m.primary), Arc::clone(&m.store)))
            .collect();
        for (primary, store) in untold {
            if begun.elapsed() > interval / 2 {
                return true;
            }
            let told = self.tell(&store, interval);
            let mut members = self.members.lock();
            let Some(member) = members.iter_mut().find(|member| Weak::ptr_eq(&member.primary, &primary)) else {
                drop(members);
                // It was stopped meanwhile.
                self.say_stopped(&store, interval);
                continue;
            };
            match told {
                Ok(former) => {
                    member.is_told = true;
                    member.former = former.map(|former| (former, LOOKS_AT_FORMER));
                }
                Err(error) => {
                    if !error.is_retryable() {
                        member.tell_at = Some(now + refused(interval, member.refusals));
                        member.refusals += 1;
                    }
                    drop(members);
                    if let Some(primary) = primary.upgrade() {
                        primary.fail_visibly(&for_readers(&error));
                    }
                }
            }
        }
        false
    }

    /// Leaves a pointer; what it named before.
    fn tell(&self, store: &Arc<dyn Store>, interval: Duration) -> Result<Option<Pointer>> {
        let pointer = self.pointer(interval);
        let former = former(store)?.filter(|former| !former.names_the_same(&pointer));
        store.put(POINTER, &pointer.to_json(), &Metadata::default())?;
        Ok(former)
    }

    /// What a process that died has left beside these replicas is removed once it does not hold any more: nothing names
    /// it.
    fn remove_former(&self) {
        let former: Vec<_> = {
            let mut members = self.members.lock();
            let looked = members.iter_mut().filter_map(|member| {
                let (former, looks) = member.former.take()?;
                member.former = looks.checked_sub(1).map(|looks| (former.clone(), looks));
                Some((Weak::clone(&member.primary), Arc::clone(&member.store), former))
            });
            looked.collect()
        };
        for (primary, store, former) in former {
            let now = Timestamp(Timestamp::now().0.saturating_add(store.clock_offset_ms()));
            match has_ended(&store, &former, now) {
                Ok(false) => continue,
                Ok(true) => {}
                Err(error) => log::warn!("{error}"),
            }
            for member in self.members.lock().iter_mut().filter(|m| Weak::ptr_eq(&m.primary, &primary)) {
                member.former = None;
            }
        }
    }

    fn remove(&self, primary: &Primary) -> Option<Member> {
        let mut members = self.members.lock();
        let at = members.iter().position(|member| std::ptr::eq(member.primary.as_ptr(), primary))?;
        Some(members.swap_remove(at))
    }

    fn say_stopped(&self, store: &Arc<dyn Store>, interval: Duration) {
        let pointer = self.pointer(interval);
        if let Err(error) = replace(store, &pointer, &pointer.clone().stopped()) {
            log::warn!("{error}");
        }
    }

    fn remove_object(&self) {
        let home = Arc::clone(&self.home.lock());
        if let Err(error) = home.delete(&key(self.node)) {
            log::warn!("{error}");
        }
    }

    fn show(&self, error: &Error) {
        let primaries: Vec<_> = self.members.lock().iter().filter_map(|member| member.primary.upgrade()).collect();
        for primary in primaries {
            primary.fail_visibly(&for_readers(error));
        }
    }
}

fn for_readers(error: &Error) -> Error {
    error.clone().context("the sign of life for readers")
}
