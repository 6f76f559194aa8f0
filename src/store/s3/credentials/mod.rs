//! AWS credentials: looked for once, renewed before they end and after a refusal, shared by the process's databases.
//!
//! Credentials that end are renewed when a quarter of their life is left, at most five minutes. A renewal that fails
//! leaves the old ones in use as long as they hold, so that a metadata service that is away for a minute is not felt. A
//! store that refuses the credentials themselves (`ExpiredToken`, keys that were rotated) is asked once more with those
//! that a new look finds, if they are others.

mod chain;
mod profile;
mod sts;

use crate::error::{Error, Kind, Result};
use crate::lock::{Mutex, PerProcess};
use crate::time::Timestamp;
use chain::Chain;
use reqsign_aws_v4::Credential;
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::{Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// Credentials are renewed when less of their life is left, or a quarter of it if that is less.
const RENEW_AHEAD_MS: i64 = 5 * 60_000;
/// Credentials are not used for a request that may come when they have ended, nor in the last eighth of a short life.
const LAST_USE_AHEAD_MS: i64 = 10_000;
/// A renewal that failed, or that followed a refusal, is not followed by another one sooner.
const RENEWAL_PAUSE: Duration = Duration::from_secs(2);
/// Longer than all sources together.
const LOCK_TIMEOUT: Duration = Duration::from_secs(60);

/// Those of this process, by the variables that they were looked for with.
static SHARED: PerProcess<Mutex<HashMap<Key, Weak<Credentials>>>> = PerProcess::new();
type Key = (String, BTreeMap<String, String>);

/// Credentials as they were found.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) credential: Credential,
    renew_at: Option<Timestamp>,
    unusable_at: Option<Timestamp>,
}

impl Held {
    /// `now` by the store's clock, where that is known to differ.
    fn new(credential: Credential, now: Timestamp) -> Self {
        let ends = credential.expires_in.map(|ends| Timestamp::from_system(ends.as_system_time()).0);
        let before = |ahead: i64, share: i64| {
            ends.map(|ends| Timestamp(ends - ahead.min(ends.saturating_sub(now.0).max(0) / share)))
        };
        Self { renew_at: before(RENEW_AHEAD_MS, 4), unusable_at: before(LAST_USE_AHEAD_MS, 8), credential }
    }

    fn is_same(&self, other: &Credential) -> bool {
        let ours = &self.credential;
        (&ours.access_key_id, &ours.secret_access_key, &ours.session_token)
            == (&other.access_key_id, &other.secret_access_key, &other.session_token)
    }
}

/// The credentials of one set of variables.
pub(super) struct Credentials {
    chain: Chain,
    held: Mutex<Option<Arc<Held>>>,
    /// Held while they are looked for: when that was last begun and failed, or followed a refusal.
    looking: Mutex<Option<Instant>>,
}

impl Credentials {
    /// Those of these variables; nothing is looked for yet. `region` is where a token service is asked if no variable
    /// says so.
    pub(super) fn of(region: &str, env: HashMap<String, String>) -> Arc<Self> {
        let named = |name: &String| name.starts_with("AWS_") || name.starts_with("LITESTREAM_") || name == "HOME";
        let telling: BTreeMap<_, _> = env.iter().filter(|(name, _)| named(name)).map(own).collect();
        let key = (region.to_owned(), telling);
        let mut shared = SHARED.get().lock();
        if let Some(found) = shared.get(&key).and_then(Weak::upgrade) {
            return found;
        }
        shared.retain(|_, credentials| credentials.strong_count() > 0);
        let made = Arc::new(Self { chain: Chain::new(region, env), held: Mutex::default(), looking: Mutex::default() });
        shared.insert(key, Arc::downgrade(&made));
        made
    }

    /// Credentials that hold at `now`, the store's time.
    ///
    /// # Errors
    /// [`Kind::Denied`]: there are none, and what was looked for. [`Kind::Unavailable`]: their source is away.
    pub(super) fn get(&self, now: Timestamp) -> Result<Arc<Held>> {
        let holds = |until: Option<Timestamp>| until.is_none_or(|until| now < until);
        let held = self.held.lock().clone();
        if let Some(fresh) = held.as_ref().filter(|held| holds(held.renew_at)) {
            return Ok(Arc::clone(fresh));
        }
        let usable = held.filter(|held| holds(held.unusable_at));
        let looking = match &usable {
            // Others go on with what there is while one looks.
            Some(_) => self.looking.try_lock(),
            None => Some(self.looking.try_lock_for(LOCK_TIMEOUT).ok_or_else(still_looking)?),
        };
        let (Some(mut looking), usable) = (looking, usable) else {
            return usable_or_bug(self.held.lock().clone());
        };
        // Another thread may have been faster.
        if let Some(fresh) = self.held.lock().clone().filter(|held| holds(held.renew_at)) {
            return Ok(fresh);
        }
        if let Some(usable) = usable.as_ref().filter(|_| looking.is_some_and(|at| at.elapsed() < RENEWAL_PAUSE)) {
            return Ok(Arc::clone(usable));
        }
        *looking = Some(Instant::now());
        match (self.chain.look(), usable) {
            (Ok(credential), _) => {
                *looking = None;
                Ok(self.hold(credential, now))
            }
            (Err(error), Some(usable)) => {
                log::warn!("AWS credentials were not renewed, those before hold for some time: {error}");
                Ok(usable)
            }
            (Err(error), None) => Err(error),
        }
    }

    /// Looks again because the store refused `used`: whether there are others now.
    pub(super) fn replace(&self, used: &Held, now: Timestamp) -> bool {
        let Some(mut looking) = self.looking.try_lock_for(LOCK_TIMEOUT) else { return false };
        if self.held.lock().as_ref().is_some_and(|held| !held.is_same(&used.credential)) {
            return true;
        }
        if looking.is_some_and(|at| at.elapsed() < RENEWAL_PAUSE) {
            return false;
        }
        *looking = Some(Instant::now());
        match self.chain.look() {
            Ok(credential) if !used.is_same(&credential) => {
                self.hold(credential, now);
                true
            }
            _ => false,
        }
    }

    fn hold(&self, credential: Credential, now: Timestamp) -> Arc<Held> {
        let held = Arc::new(Held::new(credential, now));
        *self.held.lock() = Some(Arc::clone(&held));
        held
    }
}

fn own((name, value): (&String, &String)) -> (String, String) {
    (name.clone(), value.clone())
}

fn usable_or_bug(held: Option<Arc<Held>>) -> Result<Arc<Held>> {
    held.ok_or_else(|| Error::bug("credentials vanished"))
}

fn still_looking() -> Error {
    Error::new(Kind::Unavailable, "AWS credentials are still being looked for")
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future of the signing library on this thread. All that it does blocks.
pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}
