//! One replica, as all connections of the process that read it share it: its current state, and how pages are fetched.

use super::cache::Page;
use super::disk::Disk;
use super::flight::{Flight, Numbered, Pages, run, shared};
use super::follow::Follow;
use super::hydrate::Hydration;
use super::index::{Copy, Frame};
use super::lazy::LazyIndex;
use super::object::ObjectId;
use super::prefetch::Deeper;
use super::session;
use super::state::{Place, State};
use super::trees::Trees;
use crate::error::{Error, Kind, Result};
use crate::lock::{Condvar, Mutex, RwLock};
use crate::ltx::{Pgno, decode_frame, page_checksum};
use crate::replica::{Excluded, Replica};
use crate::store;
use crate::time::Timestamp;
use std::collections::HashMap;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// Bytes that nobody wants between two pages of one request: cheaper than a request.
pub(super) const GAP_BYTES: u64 = 16 << 10;
/// Bytes of one request.
pub(super) const RUN_BYTES: u64 = 1 << 20;
/// Bytes of one request for interior pages in a companion, with where their children are: some six pages of 4 KiB.
const COPIES_BYTES: u64 = 64 << 10;
/// Pages behind a wanted one that are looked at for its run.
const RUN_LOOKS: u32 = 256;

/// Counts for `litestream_status`.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub hits: AtomicU64,
    pub misses: AtomicU64,
    pub ahead: AtomicU64,
    pub ahead_used: AtomicU64,
}

/// A replica that is read.
pub(super) struct Source {
    /// Without credentials.
    pub url: String,
    /// As the user wrote it, endpoint included: what names its objects (R1).
    pub identity: String,
    pub replica: Replica,
    /// Whether a request costs nothing worth saving.
    pub is_local: bool,
    /// Device and inode of a local replica's directory.
    place: Option<(u64, u64)>,
    /// The newest state, once somebody follows.
    pub current: RwLock<Option<Arc<State>>>,
    /// A newer state is current, or will never be.
    pub changed: Condvar,
    pub follow: Mutex<Follow>,
    /// Held while the next state is looked for.
    pub polling: Mutex<()>,
    /// Somebody wants it to be looked for once more.
    pub again: AtomicBool,
    pub trees: Mutex<Trees>,
    pub tally: Tally,
    pub last_error: Mutex<Option<(Error, Timestamp)>>,
    /// The last sign of life of the primary that was found.
    pub looks: Mutex<session::Looks>,
    /// The cache on disk, if a connection asked for one.
    pub disk: OnceLock<Arc<Disk>>,
    /// The local copy, if a connection asked for one.
    pub hydration: RwLock<Option<Arc<Hydration>>>,
    /// Held while it is opened.
    pub hydrating: Mutex<()>,
    /// Files without a companion that were read whole, and are not what their checksum says (R7).
    pub damaged: Mutex<HashMap<ObjectId, Error>>,
    /// Keys of those in which a page was damaged: other files are looked for.
    pub avoided: Mutex<Excluded>,
    /// Pages of states for which there are none, and when they were looked for.
    pub hopeless: Mutex<HashMap<(u32, Pgno), (Instant, Error)>>,
}

impl Source {
    pub fn new(replica: Replica, identity: &str) -> Self {
        let url = replica.url().to_owned();
        Self {
            identity: identity.to_owned(),
            is_local: url.starts_with("file:"),
            place: place(&url),
            url,
            replica,
            current: RwLock::default(),
            changed: Condvar::new(),
            follow: Mutex::default(),
            polling: Mutex::default(),
            again: AtomicBool::new(false),
            trees: Mutex::default(),
            tally: Tally::default(),
            last_error: Mutex::default(),
            looks: Mutex::default(),
            disk: OnceLock::new(),
            hydration: RwLock::default(),
            hydrating: Mutex::default(),
            damaged: Mutex::default(),
            avoided: Mutex::default(),
            hopeless: Mutex::default(),
        }
    }

    /// Whether a local replica lies where it lay: an open store reads no other directory.
    pub fn is_in_place(&self) -> bool {
        self.place == place(&self.url)
    }

    /// What an error means if the directory is another one by now. Below a mount point without its disk there is none;
    /// but another replica there tells that this one was begun again (R1).
    pub fn explained(&self, error: Error) -> Error {
        let listing = || Replica::new(store::open(&self.identity)?).list();
        if self.is_in_place() || !listing().is_ok_and(|listing| listing.head().is_some()) {
            return error;
        }
        self.restarted("it lies in another directory".to_owned())
    }

    /// An error that names the replica, once: those of the store do.
    pub fn named(&self, error: Error) -> Error {
        if error.to_string().contains(&self.url) { error } else { error.context(&self.url) }
    }

    /// Remembers it for `litestream_status`.
    pub fn note(&self, error: &Error) {
        *self.last_error.lock() = Some((error.clone(), Timestamp::now()));
    }

    /// A page as it is stored, and whether it was at hand and had been read before. `window`: how many bytes behind it
    /// may come along.
    pub fn page(
        self: &Arc<Self>,
        state: &Arc<State>,
        pgno: Pgno,
        window: u64,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(Page, bool)> {
        let mut blocks_read = 0;
        loop {
            match state.find(pgno) {
                Place::Zeros => return Ok((vec![0; state.page_size.bytes()].into(), true)),
                Place::Nowhere => {
                    return Err(Error::corrupt(format!("page {pgno} of TXID {} is in no file", state.txid)));
                }
                Place::Unread(index, block) if blocks_read < state.blocks_for_a_page() => {
                    blocks_read += 1;
                    let (source, (blocks, may_be_all)) = (Arc::clone(self), index.waiting(block));
                    if !may_be_all {
                        self.read_ahead(&index, blocks.clone());
                    }
                    self.wait_for(cancelled, move || index.read_all(source.replica.store().as_ref(), blocks))?;
                }
                // Other readers' blocks push it out as soon as it is read.
                Place::Unread(..) => return Err(Error::new(Kind::Busy, "no memory is left for the index")),
                Place::At(frame) => return self.framed(state, &frame, window, cancelled),
            }
        }
    }

    fn framed(
        self: &Arc<Self>,
        state: &Arc<State>,
        frame: &Frame,
        window: u64,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(Page, bool)> {
        let key = (frame.object.id, frame.pgno);
        let mut is_new = true;
        loop {
            if let Some((page, first)) = shared().cache.get(&key) {
                self.tally.hits.fetch_add(u64::from(is_new), Ordering::Relaxed);
                self.tally.ahead_used.fetch_add(u64::from(first), Ordering::Relaxed);
                return Ok((page, is_new && !first));
            }
            self.tally.misses.fetch_add(u64::from(std::mem::take(&mut is_new)), Ordering::Relaxed);
            let (flight, run) = {
                let mut flights = shared().flights.lock();
                match flights.get(&key) {
                    Some(flight) => (Arc::clone(flight), None),
                    // It may have landed since.
                    None if shared().cache.has(&key) => continue,
                    None => {
                        let run = self.run_from(state, frame, window, |key| flights.contains_key(key));
                        let flight = Arc::new(Flight::default());
                        for frame in &run {
                            flights.insert((frame.object.id, frame.pgno), Arc::clone(&flight));
                        }
                        (flight, Some(run))
                    }
                }
            };
            let is_own = run.is_some();
            if let Some(run) = run {
                self.ahead_of(run.len().saturating_sub(1));
                self.fly(&flight, run, Some(frame.pgno), None);
            }
            let landed = flight.wait(cancelled);
            // Another one's request may have left this page out, or failed of another page.
            match landed {
                Ok(pages) => {
                    let at = pages.binary_search_by_key(&frame.pgno, |(pgno, _)| *pgno);
                    if let Some((_, page)) = at.ok().and_then(|at| pages.get(at)) {
                        return Ok((Arc::clone(page), false));
                    }
                    if is_own {
                        return Err(Error::bug("a page is lost"));
                    }
                }
                Err(error) if is_own || error.kind() != Kind::Corrupt => return Err(error),
                Err(_) => {}
            }
        }
    }

    pub fn ahead_of(&self, pages: usize) {
        self.tally.ahead.fetch_add(pages as u64, Ordering::Relaxed);
    }

    /// The frame and those behind it in its object that are pages of the state, not at hand, and near enough (R8).
    fn run_from(
        &self,
        state: &State,
        first: &Frame,
        window: u64,
        in_flight: impl Fn(&(ObjectId, Pgno)) -> bool,
    ) -> Vec<Frame> {
        let mut run = vec![first.clone()];
        let mut end = first.end();
        if let Some(Copy { of, number, .. }) = &first.copy {
            let behind = (number + 1..).map_while(|number| of.frame(number));
            run.extend(behind.take_while(|frame| {
                let key = (frame.object.id, frame.pgno);
                let is_near = frame.offset == end && frame.end() - first.offset <= COPIES_BYTES;
                end = frame.end();
                is_near && !shared().cache.has(&key) && !in_flight(&key)
            }));
            return run;
        }
        for next in first.pgno.get() + 1..=first.pgno.get().saturating_add(RUN_LOOKS) {
            if end - first.offset >= window {
                break;
            }
            let frame = match Pgno::new(next).map(|pgno| state.find(pgno)) {
                Some(Place::At(frame)) => frame,
                Some(Place::Unread(..)) => continue,
                _ => break,
            };
            if !frame.is_beside(first) {
                continue;
            }
            if frame.offset < end || frame.offset - end > GAP_BYTES || frame.end() - first.offset > window {
                break;
            }
            let key = (frame.object.id, frame.pgno);
            if !shared().cache.has(&key) && !in_flight(&key) {
                end = frame.end();
                run.push(frame);
            }
        }
        run
    }

    /// Fetches the pages of a run, which `flight` was entered for: here if the store is local, else on a thread.
    pub fn fly(self: &Arc<Self>, flight: &Arc<Flight>, run: Vec<Frame>, wanted: Option<Pgno>, deeper: Option<Deeper>) {
        let only_ahead = wanted.is_none();
        let task = Flying { source: Arc::clone(self), flight: Arc::clone(flight), run, wanted, deeper };
        if self.is_local {
            return task.fly();
        }
        let pool = if only_ahead { &shared().ahead } else { &shared().demand };
        // A task that is not taken is dropped, which lands the flight.
        if let Err(error) = pool.run_at(Instant::now(), move || task.fly()) {
            log::warn!("{}: {error}", self.url);
        }
    }

    /// Reads the blocks of an index but for some, on other threads, once: those in front of these come last.
    pub fn read_ahead(self: &Arc<Self>, index: &Arc<LazyIndex>, but: Range<usize>) {
        if self.is_local || !index.begin_reading_ahead() {
            return;
        }
        for blocks in index.stretches(but) {
            let (source, index) = (Arc::clone(self), Arc::clone(index));
            let _ = shared().ahead.run_at(Instant::now(), move || {
                let store = source.replica.store();
                if let Err(error) = index.read_all(store.as_ref(), blocks) {
                    log::warn!("{}: {}: {error}", source.url, index.key());
                }
            });
        }
    }

    fn wait_for<T: Send + 'static>(
        &self,
        cancelled: &dyn Fn() -> bool,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if self.is_local { work() } else { run(cancelled, work) }
    }

    fn fetch(&self, run: &[Frame], wanted: Option<Pgno>) -> Result<Pages> {
        let Some(first) = run.first() else { return Err(Error::bug("an empty run")) };
        let object = first.object.id;
        if let Some(error) = self.damage_of(first) {
            return Err(error);
        }
        let pages = match self.in_files(run, wanted) {
            Some(pages) => pages,
            None => {
                let (bytes, pages) = self.fetch_run(run)?;
                if let Some(disk) = self.disk.get() {
                    let frames = run.iter().map(|frame| (frame, bytes_of(frame, &bytes, first.offset)));
                    disk.put(&frames.filter_map(|(frame, bytes)| Some((frame, bytes?))).collect::<Vec<_>>());
                }
                pages
            }
        };
        let pages = keep(object, pages, wanted);
        // Meanwhile the whole file may have been read, and its pages forgotten.
        if let Some(error) = self.damage_of(first) {
            shared().cache.forget(object);
            return Err(error);
        }
        Ok(pages)
    }

    /// The bytes of the object from the first frame to the last one, and their pages. One that is damaged fails all: its
    /// neighbours may be damaged in a way that does not show (R7).
    pub fn fetch_run(&self, run: &[Frame]) -> Result<(Vec<u8>, Numbered)> {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { return Err(Error::bug("an empty run")) };
        let object = &first.object;
        let range = first.offset..last.end();
        // Damage on the way is not damage in the store: it is looked at once more.
        let mut again = true;
        loop {
            let bytes = self.replica.store().get_range(&object.info.key, range.clone(), Some(&object.etag))?;
            let all = &bytes;
            let pages = run.iter().map(|frame| {
                let bytes = bytes_of(frame, all, range.start);
                let short = || Error::corrupt(format!("it ends before page {}", frame.pgno));
                let page = decode(frame, bytes.ok_or_else(short)?)?;
                frame.learn(&page, behind(frame, all, range.start).ok_or_else(short)?)?;
                Ok((frame.pgno, page))
            });
            match pages.collect::<Result<Vec<_>>>() {
                Ok(pages) => return Ok((bytes, pages)),
                Err(error) if std::mem::take(&mut again) => log::warn!("{}: {}: {error}", self.url, object.info.key),
                Err(error) => return Err(error.context(&object.info.key)),
            }
        }
    }

    /// The pages of a run that are in local files, if the wanted one is, or all if none is waited for.
    fn in_files(&self, run: &[Frame], wanted: Option<Pgno>) -> Option<Numbered> {
        let hydration = self.hydration.read().clone();
        let disk = self.disk.get();
        if hydration.is_none() && disk.is_none() {
            return None;
        }
        let local = |frame: &Frame| -> Option<Page> {
            let hydrated = hydration.as_ref().and_then(|hydration| hydration.get(frame)).map(Page::from);
            let page = hydrated.or_else(|| decode(frame, &disk?.get(frame)?).ok())?;
            // From the store it comes with where its children are, without which each would take a request for a block.
            frame.copy.as_ref().is_none_or(|copy| copy.of.knows_children(frame.pgno, &page)).then_some(page)
        };
        let mut pages = Vec::new();
        for frame in run {
            match local(frame) {
                Some(page) => pages.push((frame.pgno, page)),
                None if wanted.is_none_or(|wanted| wanted == frame.pgno) => return None,
                None => {}
            }
        }
        Some(pages)
    }
}

fn place(url: &str) -> Option<(u64, u64)> {
    let stat = std::fs::metadata(url.strip_prefix("file://")?).ok()?;
    Some((stat.dev(), stat.ino()))
}

/// Into the cache. In a companion siblings follow each other whatever their numbers.
fn keep(object: ObjectId, mut pages: Numbered, wanted: Option<Pgno>) -> Pages {
    pages.sort_unstable_by_key(|(pgno, _)| *pgno);
    for (pgno, page) in &pages {
        shared().cache.put((object, *pgno), Arc::clone(page), wanted != Some(*pgno));
    }
    Arc::new(pages)
}

/// A frame within bytes of its object from `start` on.
fn bytes_of<'a>(frame: &Frame, bytes: &'a [u8], start: u64) -> Option<&'a [u8]> {
    let from = usize::try_from(frame.offset.checked_sub(start)?).ok()?;
    bytes.get(from..from.checked_add(frame.len as usize)?)
}

/// What follows a frame in bytes of its object from `start` on, and belongs to it.
fn behind<'a>(frame: &Frame, bytes: &'a [u8], start: u64) -> Option<&'a [u8]> {
    let end = usize::try_from(frame.end().checked_sub(start)?).ok()?;
    bytes.get(end - frame.copy.as_ref().map_or(0, |copy| copy.behind as usize)..end)
}

/// The page of a frame, checked by all that is known of it (R7).
pub(super) fn decode(frame: &Frame, bytes: &[u8]) -> Result<Page> {
    let mut page: Page = std::iter::repeat_n(0, frame.object.header.page_size.bytes()).collect();
    decode_frame(bytes, frame.pgno, Arc::make_mut(&mut page))?;
    if frame.sum.is_some_and(|sum| sum != page_checksum(frame.pgno, &page)) {
        return Err(Error::corrupt(format!("page {} is not the one that was written", frame.pgno)));
    }
    Ok(page)
}

/// A request under way. However it ends, whoever waits for it is told.
struct Flying {
    source: Arc<Source>,
    flight: Arc<Flight>,
    run: Vec<Frame>,
    wanted: Option<Pgno>,
    deeper: Option<Deeper>,
}

impl Flying {
    fn fly(mut self) {
        let outcome = crate::panic::guard(|| self.source.fetch(&self.run, self.wanted)).and_then(|outcome| outcome);
        let deeper = self.deeper.take().zip(outcome.as_ref().ok().cloned());
        self.land(outcome.map_err(|error| self.source.named(error)));
        if let Some((deeper, pages)) = deeper {
            let _ = crate::panic::guard(|| deeper.go_on(&self.source, &pages));
        }
    }

    /// Who finds a page missing in what has landed must find no such flight any more.
    fn land(&mut self, outcome: Result<Pages>) {
        let mut flights = shared().flights.lock();
        for frame in self.run.drain(..) {
            flights.remove(&(frame.object.id, frame.pgno));
        }
        drop(flights);
        self.flight.land(outcome);
    }
}

impl Drop for Flying {
    fn drop(&mut self) {
        if !self.run.is_empty() {
            self.land(Err(Error::new(Kind::Busy, "no thread could be started to read")));
        }
    }
}
