//! One replicated database: what is told by its taps, its tasks, and waiting for it.
//!
//! Lock order: `shipping`, `work`, `capture`, `published`, `progress`. A thread that comes with SQLite's locks takes
//! only `capture` (with a timeout, P5), `published` and `progress`.

use super::capture::{Capture, Captured};
use super::encode::Work;
use super::files::Files;
use super::pool::Pool;
use super::spool::{FileIdentity, Record, Spool};
use crate::config::Options;
use crate::error::{Error, Kind, Result};
use crate::ltx::{PageSize, Txid};
use crate::replica::Replica;
use crate::store::{Counters, Store};
use crate::time::Timestamp;
use crate::wal::IndexHeader;
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Bytes of shipped spool files that are kept, so that the checksum file is not written at each of them.
pub(super) const SPOOL_KEPT: u64 = 8 << 20;
/// Capture follows a busy writer at this distance, so that it finds little at a barrier (P12a).
const FOLLOW_INTERVAL: Duration = Duration::from_millis(2);
/// After a failure the next attempt waits this long at first, and at most.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MOST: Duration = Duration::from_secs(30);
/// How long stopping waits for the step that ships.
const STEP_ENDS: Duration = Duration::from_secs(5);
/// A wait looks this often whether it was interrupted.
const INTERRUPT_INTERVAL: Duration = Duration::from_millis(50);

/// What a primary is doing, as `litestream_status` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The first image, or the search for what differs, is under way.
    Starting,
    /// Commits are shipped.
    Running,
    /// The store is away, or the spool cannot be written; commits go on, attempts too.
    Retrying,
    /// Another primary's object was seen; nothing is shipped any more.
    Fenced,
    /// Something that does not pass by itself.
    Error,
    /// `litestream_stop` was called.
    Stopped,
}

impl State {
    /// As in `litestream_status`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Fenced => "fenced",
            Self::Error => "error",
            Self::Stopped => "stopped",
        }
    }
}

/// What has to be done before batches can be shipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// TXID 1: every page.
    FirstImage,
    /// What differs from the newest TXID becomes the next (P12).
    Heal,
    /// The page checksums of the newest TXID are made from the database.
    Scan,
    /// Nothing.
    Running,
}

/// What the taps told last.
struct Published {
    header: Option<IndexHeader>,
    /// Counts publications.
    sequence: u64,
    /// When the oldest commit that may not be durable was noticed.
    oldest: Option<Instant>,
}

/// How far shipping is.
struct Progress {
    state: State,
    phase: Phase,
    txid: Option<Txid>,
    durable: Option<(Txid, Timestamp)>,
    durable_sequence: u64,
    last_error: Option<(Error, Timestamp)>,
    failures: u32,
}

/// A row of `litestream_status`.
#[derive(Clone, Debug)]
pub struct Status {
    pub path: String,
    pub url: String,
    pub state: State,
    pub txid: Option<Txid>,
    pub durable: Option<(Txid, Timestamp)>,
    pub lag: Duration,
    pub spool_bytes: u64,
    pub spool_files: u64,
    pub last_error: Option<(Error, Timestamp)>,
    pub counters: Counters,
}

/// One replicated database.
pub struct Primary {
    pub(super) path: PathBuf,
    pub(super) store: Arc<dyn Store>,
    pub(super) replica: Replica,
    pub(super) spool: Spool,
    pub(super) node: u64,
    options: Options,
    page_size: PageSize,
    pools: Pools,
    pub(super) capture: Mutex<Capture>,
    pub(super) work: Mutex<Option<Work>>,
    /// Held by the one step that ships.
    shipping: Mutex<()>,
    published: Mutex<Published>,
    progress: Mutex<Progress>,
    progressed: Condvar,
    pub(super) image_active: AtomicBool,
    capture_scheduled: AtomicBool,
    ship_scheduled: AtomicBool,
    stopped: AtomicBool,
    /// Somebody waits: the pace of P23 does not apply.
    hurried: AtomicBool,
    next_object_at: Mutex<Instant>,
    /// The database file at its last close (P11).
    closed: Mutex<Option<FileIdentity>>,
}

/// The threads of the process.
#[derive(Clone)]
pub struct Pools {
    capture: Arc<Pool>,
    ship: Arc<Pool>,
}

/// Threads that capture, and threads that ship. One follows all writers: what it does is bounded and local.
const CAPTURE_THREADS: usize = 1;
const SHIP_THREADS: usize = 4;

impl Pools {
    /// No thread is started before the first task. Each calls `on_start` first.
    pub fn new(on_start: fn()) -> Self {
        Self {
            capture: Pool::new("capture", CAPTURE_THREADS, on_start),
            ship: Pool::new("ship", SHIP_THREADS, on_start),
        }
    }
}

/// What a primary is made of.
pub struct Parts {
    pub path: PathBuf,
    pub store: Arc<dyn Store>,
    pub files: Arc<dyn Files>,
    pub options: Options,
    pub page_size: PageSize,
    pub published: Option<IndexHeader>,
    pub pools: Pools,
}

impl Primary {
    /// Proves the store, finds out where to go on, and starts. The database is in WAL mode.
    ///
    /// # Errors
    /// [`Kind::Busy`] if another process replicates the database; [`Kind::Diverged`] if database and replica do not
    /// belong together; those of the store, unless it is merely away and there is a local record of this replica.
    pub fn start_new(parts: Parts) -> Result<Arc<Self>> {
        let replica = Replica::new(Arc::clone(&parts.store));
        let listing = match replica.list() {
            Ok(listing) => Some(listing),
            Err(error) if error.is_retryable() && has_record(&parts) => None,
            Err(error) => return Err(error),
        };
        let away = listing.is_none();
        let spool = Spool::open(&parts.path)?;
        let directory = spool.path().to_owned();
        let published = Published { header: parts.published, sequence: 1, oldest: None };
        let primary = Self {
            capture: Mutex::new(Capture::new(parts.files, directory, parts.page_size)),
            path: parts.path,
            replica,
            node: super::spool::random()?,
            store: parts.store,
            spool,
            options: parts.options,
            page_size: parts.page_size,
            pools: parts.pools,
            work: Mutex::new(None),
            shipping: Mutex::new(()),
            published: Mutex::new(published),
            progress: Mutex::new(Progress {
                state: State::Starting,
                phase: Phase::Running,
                txid: None,
                durable: None,
                durable_sequence: 0,
                last_error: None,
                failures: 0,
            }),
            progressed: Condvar::new(),
            image_active: AtomicBool::new(false),
            capture_scheduled: AtomicBool::new(false),
            ship_scheduled: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            hurried: AtomicBool::new(false),
            next_object_at: Mutex::new(Instant::now()),
            closed: Mutex::new(None),
        };
        let mut start = primary.start(listing.as_ref(), parts.published.as_ref())?;
        primary.spool.write_record(&start.work.record)?;
        {
            let mut progress = primary.progress.lock();
            progress.phase = start.phase;
            progress.txid = start.work.head;
            progress.durable =
                start.work.head.filter(|_| start.work.staged.is_empty()).map(|t| (t, start.work.last_timestamp));
            progress.state = if away { State::Retrying } else { State::Starting };
        }
        start.work.record.nodes.dedup();
        *primary.work.lock() = Some(start.work);
        let primary = Arc::new(primary);
        primary.schedule_capture(Instant::now());
        primary.schedule_ship(Instant::now());
        Ok(primary)
    }

    /// The URL without credentials.
    pub fn url(&self) -> &str {
        self.store.url()
    }

    pub(super) fn page_size(&self) -> PageSize {
        self.page_size
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    // ---- told by the taps, under SQLite's locks ----

    /// P1. Copies the header; whether there is something to capture, for which `wake` is to be called.
    pub fn published(&self, header: &IndexHeader) -> bool {
        let mut published = self.published.lock();
        if let Some(last) = &published.header {
            // An older one may come late from a connection that committed nothing.
            let older = last.salts == header.salts && header.max_frame < last.max_frame;
            if last == header || older {
                return false;
            }
        }
        published.header = Some(*header);
        if header.max_frame == 0 {
            // A restart: what was published before is in the database file now, and nothing is new.
            return false;
        }
        published.sequence += 1;
        published.oldest.get_or_insert_with(Instant::now);
        true
    }

    /// There is something to capture.
    pub fn wake(self: &Arc<Self>) {
        self.schedule_capture(Instant::now());
    }

    /// P3: captures to the end and leaves nothing only in the WAL. Never longer than `barrier_timeout` (P5); what could
    /// not be captured by then is a gap.
    pub fn barrier(self: &Arc<Self>, header: Option<&IndexHeader>) {
        if let Some(header) = header {
            self.published(header);
        }
        let Some(mut capture) = self.capture.try_lock_for(self.options.barrier_timeout) else {
            self.gap_pending("capture did not end within barrier_timeout");
            return;
        };
        if capture.captured == Captured::Gap {
            return;
        }
        let outcome = self.capture_now(&mut capture).and_then(|()| capture.evacuate());
        if let Err(error) = outcome {
            capture.gap(format!("at a barrier: {error}"));
            drop(capture);
            self.failed(&error);
            self.schedule_ship(Instant::now() + RETRY_FIRST);
        }
    }

    /// The capture lock cannot be had: the gap is found by the next capture, since the restart was not witnessed.
    fn gap_pending(&self, reason: &str) {
        log::warn!("{}: {reason}", self.path.display());
        self.fail_visibly(&Error::new(Kind::Timeout, format!("{reason}; what differs is found and shipped")));
    }

    /// A WAL header with these salts is about to be written. The salts are told here once more, after the restart under
    /// its locks: a connection that did not restart the WAL itself draws new ones for its first frame.
    pub fn header_write(self: &Arc<Self>, salts: crate::wal::Salts) {
        self.unlocked_restart(salts);
        if let Some(mut capture) = self.capture.try_lock_for(self.options.barrier_timeout) {
            capture.salts_drawn(salts);
        }
    }

    /// The WAL is about to be truncated: after a restart under its locks, or by an exclusive connection. Which salts
    /// follow is told by the next header.
    pub fn wal_truncate(self: &Arc<Self>) {
        self.unlocked_restart(crate::wal::Salts::default());
    }

    /// P4: if what was published still stands, no restart ran under its locks: the connection is exclusive, and this is
    /// its barrier.
    fn unlocked_restart(self: &Arc<Self>, salts: crate::wal::Salts) {
        let last = self.published.lock().header;
        if let Some(last) = last.filter(|last| last.max_frame > 0 && last.salts != salts) {
            self.barrier(None);
            self.restarted(&IndexHeader { salts, max_frame: 0, ..last });
        }
    }

    /// The restart that the barrier was for has run, under its locks.
    pub fn restarted(&self, header: &IndexHeader) {
        let capture = self.capture.try_lock_for(self.options.barrier_timeout);
        // What was published before is in the database file now.
        self.published.lock().header = Some(*header);
        if let Some(mut capture) = capture {
            capture.restarted(header);
        }
    }

    /// The WAL of the database was opened by SQLite (P9).
    pub fn wal_opened(&self) {
        if let Some(mut capture) = self.capture.try_lock_for(self.options.barrier_timeout)
            && let Err(error) = capture.wal_opened()
        {
            drop(capture);
            self.fail_visibly(&error);
        }
    }

    /// The database file is about to be written to, or cut off: an image saves the pages that it still needs (P10).
    pub fn database_write(&self, offset: u64, length: u64) {
        if !self.image_active.load(Ordering::Acquire) {
            return;
        }
        let Some(mut capture) = self.capture.try_lock_for(self.options.barrier_timeout) else {
            self.image_active.store(false, Ordering::Release);
            return;
        };
        if let Err(error) = capture.save_for_image(offset, length) {
            log::warn!("{}: the image begins again: {error}", self.path.display());
            capture.image = None;
        }
    }

    /// The last connection gives up the shared memory, after the barrier: it will delete the WAL.
    pub fn last_close(&self) {
        if let Some(mut capture) = self.capture.try_lock_for(self.options.barrier_timeout) {
            self.published.lock().header = None;
            capture.wal_deleted();
            if capture.captured == Captured::Fresh {
                *self.closed.lock() = Some(FileIdentity::default());
            }
        }
    }

    /// The database file is about to be closed, still under the locks of its connection.
    pub fn closing(&self) {
        let mut closed = self.closed.lock();
        if closed.is_some() {
            *closed = FileIdentity::of(&self.path).ok();
        }
    }

    /// No connection is left: drains for at most `close_timeout`, and leaves the rest in the spool.
    pub fn all_closed(self: &Arc<Self>) {
        if let Err(error) = self.drain(self.options.close_timeout, &|| false) {
            log::warn!("{}: {error}", self.path.display());
        }
    }

    /// Ships what there is, then leaves everything ready for the next start.
    fn drain(self: &Arc<Self>, timeout: Duration, cancelled: &dyn Fn() -> bool) -> Result<Option<Txid>> {
        let outcome = self.sync(timeout, cancelled);
        let spooled = self.work.try_lock_for(timeout).map(|mut work| match work.as_mut() {
            Some(work) => {
                if self.phase() == Phase::Running {
                    self.encode_batch(work)?;
                    self.write_sums(work)?;
                }
                work.record.closed = self.closed.lock().clone();
                self.spool.write_record(&work.record)
            }
            None => Ok(()),
        });
        if let Some(mut capture) = self.capture.try_lock_for(self.options.barrier_timeout)
            && capture.batch.is_empty()
            && !self.image_active.load(Ordering::Acquire)
        {
            capture.close_files();
        }
        spooled.unwrap_or(Ok(()))?;
        outcome
    }

    /// The database is opened again after its last close: nobody may have touched it in between (P11).
    pub fn reopened(&self) {
        let closed = self.closed.lock().take();
        let same = closed.as_ref().is_some_and(|c| FileIdentity::of(&self.path).is_ok_and(|now| now == *c));
        if let Some(mut capture) = self.capture.try_lock_for(self.options.barrier_timeout)
            && capture.captured == Captured::Fresh
            && closed.is_some()
            && !same
        {
            capture.gap("the database file changed while it was closed here");
            drop(capture);
            // What was written meanwhile is news that no publication told.
            self.published.lock().sequence += 1;
            self.set_phase(Phase::Heal);
        }
    }

    // ---- tasks ----

    fn schedule_capture(self: &Arc<Self>, due: Instant) {
        if !self.capture_scheduled.swap(true, Ordering::AcqRel) {
            let primary = Arc::clone(self);
            self.pools.capture.run_at(due, move || primary.guarded(Self::capture_task));
        }
    }

    pub(super) fn schedule_ship(self: &Arc<Self>, due: Instant) {
        if !self.ship_scheduled.swap(true, Ordering::AcqRel) {
            let primary = Arc::clone(self);
            self.pools.ship.run_at(due, move || primary.guarded(Self::ship_task));
        }
    }

    /// No panic ends a thread of the pool: it becomes the primary's error.
    fn guarded(self: &Arc<Self>, body: fn(&Arc<Self>)) {
        if let Err(error) = crate::panic::guard(|| body(self)) {
            self.failed(&error);
        }
    }

    /// Follows the writer: captures, and comes back soon as long as there is something new.
    fn capture_task(self: &Arc<Self>) {
        let before = self.published.lock().sequence;
        let outcome = {
            let mut capture = self.capture.lock();
            self.capture_now(&mut capture)
        };
        if let Err(error) = &outcome {
            self.fail_visibly(error);
        }
        let due = if self.progress.lock().failures > 0 { None } else { Some(*self.next_object_at.lock()) };
        if let Some(due) = due {
            self.schedule_ship(if self.hurried.load(Ordering::Acquire) { Instant::now() } else { due });
        }
        self.capture_scheduled.store(false, Ordering::Release);
        if self.published.lock().sequence != before {
            self.schedule_capture(Instant::now() + FOLLOW_INTERVAL);
        }
    }

    /// Captures up to the last publication.
    fn capture_now(&self, capture: &mut Capture) -> Result<()> {
        let (header, sequence, noticed) = {
            let published = self.published.lock();
            (published.header, published.sequence, published.oldest.unwrap_or_else(Instant::now))
        };
        match header {
            Some(header) if capture.captured != Captured::Gap => capture.run(&header, sequence, noticed),
            // Nothing was published since the last close, so nothing is missing.
            None if capture.captured != Captured::Gap => {
                capture.batch.sequence = capture.batch.sequence.max(sequence);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn ship_task(self: &Arc<Self>) {
        self.ship_scheduled.store(false, Ordering::Release);
        let Some(_only_one) = self.shipping.try_lock() else { return };
        if self.is_stopped() || self.is_final() {
            return;
        }
        match self.ship_all() {
            Ok(None) => self.recovered(),
            Ok(Some(due)) => {
                self.recovered();
                self.schedule_ship(due);
            }
            Err(error) => {
                self.failed(&error);
                if !self.is_final() {
                    let failures = self.progress.lock().failures.min(10);
                    self.schedule_ship(Instant::now() + (RETRY_FIRST * 2_u32.pow(failures - 1)).min(RETRY_MOST));
                }
            }
        }
    }

    /// Ships until nothing is left (`None`) or the pace asks to wait until a moment (P23).
    fn ship_all(self: &Arc<Self>) -> Result<Option<Instant>> {
        loop {
            if self.is_stopped() {
                return Ok(None);
            }
            if let Some(staged) = self.with_work(|work| Ok(work.staged.front().cloned()))? {
                *self.next_object_at.lock() = Instant::now() + self.options.sync_interval;
                self.ship(&staged)?;
                self.with_work(|work| {
                    work.staged.pop_front();
                    self.durable(staged.txid, staged.timestamp, staged.sequence);
                    self.prune(work)
                })?;
                continue;
            }
            if self.capture.lock().captured == Captured::Gap && self.phase() == Phase::Running {
                self.set_phase(Phase::Heal);
            }
            if self.phase() != Phase::Running {
                if !self.run_phase()? {
                    return Ok(None);
                }
                continue;
            }
            let (empty, sequence) = {
                let mut capture = self.capture.lock();
                self.capture_now(&mut capture)?;
                (capture.batch.is_empty(), capture.batch.sequence)
            };
            if self.capture.lock().captured == Captured::Gap {
                continue;
            }
            if empty {
                self.nothing_pending(sequence);
                self.hurried.store(false, Ordering::Release);
                return Ok(None);
            }
            let due = *self.next_object_at.lock();
            if due > Instant::now() && !self.hurried.load(Ordering::Acquire) {
                return Ok(Some(due));
            }
            self.with_work(|work| {
                self.encode_batch(work)?;
                self.progress.lock().txid = work.head;
                Ok(())
            })?;
        }
    }

    pub(super) fn with_work<T>(&self, body: impl FnOnce(&mut Work) -> Result<T>) -> Result<T> {
        body(self.work.lock().as_mut().ok_or_else(|| Error::bug("a primary that has not started"))?)
    }

    pub(super) fn phase(&self) -> Phase {
        self.progress.lock().phase
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        self.progress.lock().phase = phase;
    }

    /// The published header, and the publication that it is.
    pub(super) fn last_published(&self) -> (Option<IndexHeader>, u64) {
        let published = self.published.lock();
        (published.header, published.sequence)
    }

    // ---- progress ----

    /// Everything up to publication `sequence` is in the store.
    pub(super) fn durable(&self, txid: Txid, timestamp: Timestamp, sequence: u64) {
        let mut progress = self.progress.lock();
        progress.durable = Some((txid, timestamp));
        progress.txid = progress.txid.max(Some(txid));
        progress.durable_sequence = progress.durable_sequence.max(sequence);
        drop(progress);
        self.progressed.notify_all();
    }

    fn nothing_pending(&self, sequence: u64) {
        {
            let mut progress = self.progress.lock();
            progress.durable_sequence = progress.durable_sequence.max(sequence);
        }
        let mut published = self.published.lock();
        if published.sequence <= sequence {
            published.oldest = None;
        }
        drop(published);
        self.progressed.notify_all();
    }

    /// The oldest commit that is in no spool file.
    pub(super) fn note_oldest(&self, first: Option<Instant>) {
        self.published.lock().oldest = first;
    }

    fn recovered(&self) {
        let mut progress = self.progress.lock();
        progress.failures = 0;
        if !self.is_stopped() {
            progress.state = if progress.phase == Phase::Running { State::Running } else { State::Starting };
        }
        drop(progress);
        self.progressed.notify_all();
    }

    fn failed(&self, error: &Error) {
        let mut progress = self.progress.lock();
        progress.failures = progress.failures.saturating_add(1);
        progress.state = match error.kind() {
            Kind::Conflict => State::Fenced,
            Kind::Diverged | Kind::Bug | Kind::Invalid => State::Error,
            _ => State::Retrying,
        };
        drop(progress);
        self.fail_visibly(error);
    }

    /// Into the status, and to those who log.
    pub(super) fn fail_visibly(&self, error: &Error) {
        log::warn!("{}: {error}", self.path.display());
        self.progress.lock().last_error = Some((error.clone(), Timestamp::now()));
        self.progressed.notify_all();
    }

    /// Nothing is shipped any more.
    fn is_final(&self) -> bool {
        matches!(self.progress.lock().state, State::Fenced | State::Error | State::Stopped)
    }

    // ---- asked by SQL functions ----

    /// Waits until all that was committed before the call is in the store; the TXID that is durable then.
    ///
    /// # Errors
    /// [`Kind::Timeout`], naming what is missing; [`Kind::Interrupted`]; what ended shipping.
    pub fn sync(self: &Arc<Self>, timeout: Duration, cancelled: &dyn Fn() -> bool) -> Result<Option<Txid>> {
        let wanted = self.published.lock().sequence;
        let deadline = Instant::now() + timeout;
        self.hurried.store(true, Ordering::Release);
        self.schedule_ship(Instant::now());
        let mut progress = self.progress.lock();
        loop {
            if progress.durable_sequence >= wanted && progress.phase == Phase::Running {
                return Ok(progress.durable.map(|(txid, _)| txid));
            }
            if let (State::Fenced | State::Error | State::Stopped, Some((error, _))) =
                (progress.state, &progress.last_error)
            {
                return Err(error.clone());
            }
            if Instant::now() >= deadline {
                return Err(self.sync_timeout(&progress, timeout));
            }
            self.progressed.wait_for(&mut progress, INTERRUPT_INTERVAL);
            if MutexGuard::unlocked(&mut progress, cancelled) {
                return Err(Error::new(Kind::Interrupted, "interrupted"));
            }
            // A step that began before the call may have ended without seeing it.
            if progress.failures == 0 {
                MutexGuard::unlocked(&mut progress, || self.schedule_ship(Instant::now()));
            }
        }
    }

    fn sync_timeout(&self, progress: &Progress, timeout: Duration) -> Error {
        let durable = progress.durable.map_or_else(|| "nothing".to_owned(), |(txid, _)| format!("TXID {txid}"));
        let why = progress.last_error.as_ref().map_or_else(String::new, |(e, _)| format!("; last error: {e}"));
        let state = progress.state.name();
        Error::new(
            Kind::Timeout,
            format!(
                "not in {} after {:?}: commits after {durable} of {} (state {state}){why}. They are safe here and go on \
                 being shipped",
                self.url(),
                timeout,
                self.path.display()
            ),
        )
    }

    /// Drains, and stops shipping. What could not be shipped stays in the spool.
    pub fn stop(self: &Arc<Self>, cancelled: &dyn Fn() -> bool) -> Result<Option<Txid>> {
        let outcome = self.drain(self.options.close_timeout, cancelled);
        self.stopped.store(true, Ordering::Release);
        self.progress.lock().state = State::Stopped;
        self.progressed.notify_all();
        // The step that may still be running ends before the directory can be claimed anew.
        drop(self.shipping.try_lock_for(STEP_ENDS));
        outcome
    }

    /// The last TXID in the store, and its timestamp.
    pub fn durable_txid(&self) -> Option<(Txid, Timestamp)> {
        self.progress.lock().durable
    }

    /// The newest TXID that was made.
    pub fn txid(&self) -> Option<Txid> {
        self.progress.lock().txid
    }

    /// The age of the oldest commit that is not in the store; zero if there is none.
    pub fn lag(&self) -> Duration {
        let wanted = self.published.lock().sequence;
        let progress = self.progress.lock();
        let pending = progress.durable_sequence < wanted;
        drop(progress);
        let oldest = self.published.lock().oldest;
        if pending { oldest.map_or(Duration::ZERO, |o| o.elapsed()) } else { Duration::ZERO }
    }

    /// The row of `litestream_status`.
    pub fn status(&self) -> Status {
        let lag = self.lag();
        let files = self.spool.files().unwrap_or_default();
        let progress = self.progress.lock();
        Status {
            path: self.path.display().to_string(),
            url: self.url().to_owned(),
            state: progress.state,
            txid: progress.txid,
            durable: progress.durable,
            lag,
            spool_bytes: files.iter().map(|(_, size)| size).sum(),
            spool_files: files.len() as u64,
            last_error: progress.last_error.clone(),
            counters: self.store.counters(),
        }
    }
}

/// Whether there is a local record of this replica, with which a primary may start while the store is away.
fn has_record(parts: &Parts) -> bool {
    let record = std::fs::read(Spool::directory_of(&parts.path).join("record"))
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok());
    record.is_some_and(|r| r.url == parts.store.url() && r.txid().is_some())
}
