//! One replica for one open file of SQLite.

use super::cache::Page;
use super::disk::Disk;
use super::flight::shared;
use super::prefetch::Tracks;
use super::source::Source;
use super::state::State;
use crate::config::Hydrate;
use crate::error::{Error, Kind, Result};
use crate::lock::{Mutex, PerProcess};
use crate::ltx::{Pgno, Txid};
use crate::replica::{Replica, Target};
use crate::store::{self, Counters};
use crate::time::Timestamp;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// So many other files are tried for a page, where one after another is damaged or goes.
const OTHERS_MAX: usize = 3;

/// How a replica is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How often the store is asked for news.
    pub poll_interval: Duration,
    /// Of the process's page cache, in bytes; the largest that any connection asks for counts.
    pub cache_size: u64,
    /// Where pages are kept between processes.
    pub cache_dir: Option<PathBuf>,
    /// Of that directory, in bytes.
    pub cache_dir_size: u64,
    /// Whether the replica is copied into a local file in the background.
    pub hydrate: Option<Hydrate>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            poll_interval: Duration::from_secs(1),
            cache_size: 64 << 20,
            cache_dir: None,
            cache_dir_size: 1 << 30,
            hydrate: None,
        }
    }
}

/// The replicas that are read in this process, and who reads them.
#[derive(Default)]
struct Process {
    sources: Mutex<BTreeMap<String, Weak<Source>>>,
    connected: Mutex<BTreeMap<u64, Weak<Inner>>>,
    /// Those that nobody reads any more, since when.
    idle: Mutex<Vec<(Instant, Arc<Source>)>>,
    next: AtomicU64,
}

/// For so long a replica that nobody reads is remembered, so that who opens and closes all the time asks for news only.
/// Nothing is asked meanwhile.
const REMEMBERED: Duration = Duration::from_secs(60);
/// How many.
const REMEMBERED_MAX: usize = 64;

impl Process {
    /// Whether it was made by this process, under its URL.
    fn has(&self, source: &Arc<Source>) -> bool {
        self.sources.lock().get(&source.identity).is_some_and(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(source)))
    }

    fn forget_old(&self) {
        let mut old = Vec::new();
        let mut idle = self.idle.lock();
        while idle.len() > REMEMBERED_MAX || idle.first().is_some_and(|(since, _)| since.elapsed() >= REMEMBERED) {
            old.push(idle.remove(0));
        }
        drop(idle);
        // Here they end.
        drop(old);
    }
}

static PROCESS: PerProcess<Process> = PerProcess::new();

/// One replica for one open file.
pub struct Connected(Arc<Inner>);

struct Inner {
    number: u64,
    path: String,
    source: Arc<Source>,
    view: Mutex<View>,
    tracks: Mutex<Tracks>,
}

#[derive(Default)]
struct View {
    /// Another moment than the newest one.
    moment: Option<Arc<State>>,
    /// What the transaction sees (R10).
    pinned: Option<Arc<State>>,
    follows: bool,
    settings: Settings,
}

/// A row of `litestream_status`.
#[derive(Clone, Debug)]
pub struct Status {
    pub path: String,
    pub url: String,
    pub state: &'static str,
    pub txid: Option<Txid>,
    pub lag: Option<Duration>,
    pub data_age: Option<Duration>,
    /// 'alive', 'dead' or 'stopped', and how long ago it was seen.
    pub primary: Option<&'static str>,
    pub primary_seen: Option<Duration>,
    pub last_error: Option<(Error, Timestamp)>,
    pub counters: Counters,
    pub cache_hits: u64,
    pub cache_misses: u64,
    pub pages_prefetched: u64,
    pub pages_prefetch_used: u64,
}

/// Opens a replica at a moment; the latest one follows the primary.
///
/// # Errors
/// A URL that is wrong; a moment that is not there, with what there is; those of the store.
pub fn connect(
    path: &str,
    url: &str,
    target: Target,
    settings: &Settings,
    cancelled: &dyn Fn() -> bool,
) -> Result<Connected> {
    let source = source(PROCESS.get(), url)?;
    connect_to(path, source, target, settings, cancelled)
}

/// The same, with the replica at hand.
pub(super) fn connect_to(
    path: &str,
    source: Arc<Source>,
    target: Target,
    settings: &Settings,
    cancelled: &dyn Fn() -> bool,
) -> Result<Connected> {
    let process = PROCESS.get();
    shared().cache.allow(settings.cache_size);
    // What is local is read where it is.
    if let Some(directory) = settings.cache_dir.as_ref().filter(|_| !source.is_local && source.disk.get().is_none()) {
        let _ = source.disk.set(Disk::open(directory, settings.cache_dir_size)?);
    }
    let number = process.next.fetch_add(1, Ordering::Relaxed);
    let view = View { settings: settings.clone(), ..View::default() };
    let connected = Connected(Arc::new(Inner {
        number,
        path: path.to_owned(),
        source,
        view: Mutex::new(view),
        tracks: Mutex::default(),
    }));
    connected.travel(target, cancelled)?;
    if let Some(wanted) = &settings.hydrate {
        let source = &connected.0.source;
        let others: Vec<_> = process.connected.lock().values().filter_map(Weak::upgrade).collect();
        let is_shared = others.iter().any(|other| Arc::ptr_eq(&other.source, source));
        source.start_hydrating(wanted, &connected.seen()?, is_shared)?;
    }
    process.connected.lock().insert(number, Arc::downgrade(&connected.0));
    Ok(connected)
}

/// The source of a URL; a replica that was begun again is another one.
fn source(process: &Process, url: &str) -> Result<Arc<Source>> {
    let mut sources = process.sources.lock();
    sources.retain(|_, source| source.strong_count() > 0);
    if let Some(source) = sources.get(url).and_then(Weak::upgrade)
        && source.follow.lock().restarted.is_none()
        && source.is_in_place()
    {
        process.idle.lock().retain(|(_, idle)| !Arc::ptr_eq(idle, &source));
        return Ok(source);
    }
    let source = Arc::new(Source::new(Replica::new(store::open(url)?), url));
    sources.insert(url.to_owned(), Arc::downgrade(&source));
    Ok(source)
}

/// Of each open replica of this process, in the order of opening.
pub fn statuses() -> Vec<Status> {
    let connected: Vec<_> = PROCESS.get().connected.lock().values().filter_map(Weak::upgrade).collect();
    let sources = connected.iter().map(|inner| Arc::clone(&inner.source)).collect();
    super::session::look_all(sources);
    connected.into_iter().map(|inner| Connected(inner).status()).collect()
}

impl Connected {
    /// A transaction begins: until its end it sees what is current now (R10).
    ///
    /// # Errors
    /// [`Kind::Diverged`]: the replica was begun again.
    pub fn begin(&self) -> Result<()> {
        let mut view = self.0.view.lock();
        if view.moment.is_none()
            && let Some(error) = self.0.source.follow.lock().restarted.clone()
        {
            return Err(error);
        }
        view.pinned = Some(self.current(&view)?);
        Ok(())
    }

    /// It ends.
    pub fn end(&self) {
        self.0.view.lock().pinned = None;
    }

    fn current(&self, view: &View) -> Result<Arc<State>> {
        let state = view.moment.clone().or_else(|| self.0.source.current.read().clone());
        state.ok_or_else(|| Error::bug("a replica without a state"))
    }

    /// What is seen now.
    fn seen(&self) -> Result<Arc<State>> {
        let view = self.0.view.lock();
        view.pinned.clone().map_or_else(|| self.current(&view), Ok)
    }

    /// The size of the database, in bytes.
    pub fn size(&self) -> u64 {
        self.seen().map_or(0, |state| state.size())
    }

    /// Reads bytes of the database. Whether all of them lie in it; those that do not are zeros.
    ///
    /// # Errors
    /// Those of the store; [`Kind::Corrupt`]; [`Kind::NotFound`] and [`Kind::Conflict`] if a file of the state is gone
    /// and no other has the same pages.
    pub fn read(&self, offset: u64, into: &mut [u8], cancelled: &dyn Fn() -> bool) -> Result<bool> {
        let state = self.seen()?;
        let page_size = state.page_size.bytes() as u64;
        let (mut at, mut rest) = (offset, into);
        while !rest.is_empty() {
            if at >= state.size() {
                rest.fill(0);
                return Ok(false);
            }
            let within = (at % page_size) as usize;
            let count = rest.len().min(page_size as usize - within);
            let (part, after) = rest.split_at_mut(count);
            let number = u32::try_from(at / page_size + 1).ok().and_then(Pgno::new);
            let pgno = number.ok_or_else(|| Error::bug(format!("offset {at}")))?;
            let page = self.page(&state, pgno, cancelled).inspect_err(|error| self.0.source.note(error))?;
            part.copy_from_slice(page.get(within..within + count).ok_or_else(|| Error::bug("a short page"))?);
            (at, rest) = (at + count as u64, after);
        }
        Ok(true)
    }

    fn page(&self, state: &Arc<State>, pgno: Pgno, cancelled: &dyn Fn() -> bool) -> Result<Page> {
        if pgno == Pgno::FIRST {
            // The header is read at the start of every transaction.
            if let Some(page) = state.known_first_page() {
                return Ok(page);
            }
            return state.first_page(|| self.stored(state, pgno, cancelled));
        }
        self.stored(state, pgno, cancelled)
    }

    fn stored(&self, state: &Arc<State>, pgno: Pgno, cancelled: &dyn Fn() -> bool) -> Result<Page> {
        let source = &self.0.source;
        let window = self.0.tracks.lock().window(source, pgno);
        let mut other: Option<Arc<State>> = None;
        let mut others = 0;
        let (page, was_at_hand) = loop {
            let state = other.as_ref().unwrap_or(state);
            match source.page(state, pgno, window, cancelled) {
                Err(error)
                    if others < OTHERS_MAX
                        && matches!(error.kind(), Kind::NotFound | Kind::Conflict | Kind::Corrupt) =>
                {
                    other = Some(self.elsewhere(state, pgno, &error, cancelled)?);
                    others += 1;
                }
                Err(error) => {
                    if others == OTHERS_MAX && error.kind() == Kind::Corrupt {
                        source.give_up(state, pgno, &error);
                    }
                    return Err(error);
                }
                Ok(page) => break page,
            }
        };
        self.0.tracks.lock().saw(source, other.as_ref().unwrap_or(state), pgno, &page, was_at_hand);
        Ok(page)
    }

    /// The same state from other files: one of those that we knew is gone, or damaged (R10).
    fn elsewhere(
        &self,
        state: &Arc<State>,
        pgno: Pgno,
        error: &Error,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Arc<State>> {
        let source = &self.0.source;
        let gone = || source.named(error.clone()).context(format!("TXID {} cannot be read any more", state.txid));
        let other = source.state_again(state, pgno, error, cancelled).map_err(|other| match other.kind() {
            Kind::NotFound | Kind::Corrupt => gone(),
            _ => other,
        })?;
        let mut guard = self.0.view.lock();
        let view = &mut *guard;
        for place in [&mut view.pinned, &mut view.moment].into_iter().flatten() {
            if place.counter == state.counter {
                *place = Arc::clone(&other);
            }
        }
        drop(guard);
        let mut current = source.current.write();
        if let Some(place) = current.as_mut().filter(|place| place.counter == state.counter) {
            *place = Arc::clone(&other);
        }
        Ok(other)
    }

    /// Moves to another moment, from the next transaction on; to the latest: follows again.
    ///
    /// # Errors
    /// As [`connect`]; the connection then stays where it was.
    pub fn travel(&self, target: Target, cancelled: &dyn Fn() -> bool) -> Result<()> {
        let source = &self.0.source;
        let (follows, interval) = {
            let view = self.0.view.lock();
            (view.follows, view.settings.poll_interval)
        };
        let moment = match target {
            Target::Latest if follows => match source.follow.lock().restarted.clone() {
                Some(error) => return Err(error),
                None => None,
            },
            Target::Latest => {
                source.start_following(interval, cancelled)?;
                None
            }
            target => Some(Arc::new(source.state_at(target, cancelled)?.0)),
        };
        let mut view = self.0.view.lock();
        let follows_now = moment.is_none();
        if follows && !follows_now {
            source.stop_following(interval);
        }
        view.follows = follows_now;
        view.moment = moment;
        Ok(())
    }

    /// The TXID and its time of what is seen now.
    ///
    /// # Errors
    /// None once it is open.
    pub fn position(&self) -> Result<(Txid, Timestamp)> {
        self.seen().map(|state| (state.txid, state.timestamp))
    }

    /// Since when the state was last proven to be the newest one; `None` before, and in the past (R12).
    pub fn lag(&self) -> Option<Duration> {
        if self.0.view.lock().moment.is_some() {
            return None;
        }
        self.0.source.follow.lock().proven.map(|proven| proven.elapsed())
    }

    /// Waits until a TXID is visible to the next transaction, and gives the newest that is.
    ///
    /// # Errors
    /// [`Kind::Timeout`]; [`Kind::Interrupted`]; a connection that is in the past, which does not move.
    pub fn wait(&self, txid: Txid, timeout: Duration, cancelled: &dyn Fn() -> bool) -> Result<Txid> {
        if let Some(state) = &self.0.view.lock().moment {
            if state.txid >= txid {
                return Ok(state.txid);
            }
            return Err(Error::invalid(format!(
                "this connection stays at TXID {}: SELECT litestream_set_time('latest') first",
                state.txid
            )));
        }
        self.0.source.wait(txid, timeout, cancelled)
    }

    /// How much of the replica is in the local file, from 0 to 1, and its name, if the user gave it one; `None` if it is
    /// not hydrated.
    pub fn hydration(&self) -> Option<(f64, Option<PathBuf>)> {
        let hydration = self.0.source.hydration.read().clone()?;
        Some((hydration.progress(), hydration.named().map(Path::to_owned)))
    }

    /// For `litestream_status`.
    pub fn status(&self) -> Status {
        let source = &self.0.source;
        let state = self.seen().ok();
        let now = Timestamp::now().0.saturating_add(source.replica.store().clock_offset_ms());
        let age = state.as_ref().map(|state| now.saturating_sub(state.newest.info.created_at.0).max(0).unsigned_abs());
        // An attempt that failed, while its call is being repeated.
        let trouble = source.replica.store().trouble();
        let (failing, restarted) = {
            let follow = source.follow.lock();
            (follow.failing || trouble.is_some(), follow.restarted.is_some())
        };
        let (primary, primary_seen) = source.primary(Timestamp(now));
        let count = |n: &AtomicU64| n.load(Ordering::Relaxed);
        Status {
            path: self.0.path.clone(),
            url: source.url.clone(),
            state: match (restarted, failing) {
                (true, _) => "error",
                (_, true) => "retrying",
                _ if self.hydration().is_some_and(|(part, _)| part < 1.0) => "hydrating",
                _ => "running",
            },
            txid: state.map(|state| state.txid),
            lag: self.lag(),
            data_age: age.map(Duration::from_millis),
            primary,
            primary_seen,
            last_error: trouble.or_else(|| source.last_error.lock().clone()),
            counters: source.replica.store().counters(),
            cache_hits: count(&source.tally.hits),
            cache_misses: count(&source.tally.misses),
            pages_prefetched: count(&source.tally.ahead),
            pages_prefetch_used: count(&source.tally.ahead_used),
        }
    }
}

/// Whether the replica of a URL is kept though nobody reads it.
#[cfg(test)]
pub(super) fn is_remembered(url: &str) -> bool {
    PROCESS.get().idle.lock().iter().any(|(_, source)| source.identity == url)
}

#[cfg(test)]
impl Connected {
    /// Entries of indexes that are remembered.
    pub(super) fn entries_kept(&self) -> usize {
        self.0.tracks.lock().entries_kept()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let (follows, interval) = {
            let view = self.view.lock();
            (view.follows, view.settings.poll_interval)
        };
        if follows {
            self.source.stop_following(interval);
        }
        let process = PROCESS.get();
        // What could not be opened is not remembered: the next try may come with other credentials.
        let was_open = process.connected.lock().remove(&self.number).is_some();
        // A copy is given back at once, for another process. A forked child has nothing to remember.
        let is_last = was_open && Arc::strong_count(&self.source) == 1 && self.source.hydration.read().is_none();
        if is_last && process.has(&self.source) {
            process.idle.lock().push((Instant::now(), Arc::clone(&self.source)));
            let _ = shared().polls.run_at(Instant::now() + REMEMBERED, || PROCESS.get().forget_old());
        }
        process.forget_old();
    }
}
