//! One replicated database: what is told by its taps, its tasks, and waiting for it.
//!
//! Lock order: `shipping`, `work`, `capture`, `follow`, `published`, `progress`. A thread that comes with SQLite's locks
//! takes only `capture` (with a timeout, P5), and those after it, which are held for moments.

use super::behind::Look;
use super::capture::Capture;
use super::encode::Work;
use super::files::Files;
use super::follow::Follow;
use super::handover::StateFile;
use super::pool::Pools;
use super::put_back::Found;
use super::spool::{FileIdentity, Record, Spool};
use super::start::Start;
use crate::config::Options;
use crate::error::{Error, Kind, Result};
use crate::lock::{Condvar, Mutex};
use crate::ltx::{PageSize, Txid};
use crate::replica::{Listing, Replica};
use crate::store::{Counters, Store};
use crate::time::Timestamp;
use crate::wal::IndexHeader;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Bytes of shipped spool files that are kept, so that the checksum file is not written at each of them.
pub(super) const SPOOL_KEPT: u64 = 8 << 20;

/// What a primary is doing, as `litestream_status` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The first image, or the search for what differs, is under way.
    Starting,
    /// Commits are shipped.
    Running,
    /// The store is away, or the spool cannot be written; commits go on, attempts too.
    Retrying,
    /// By URI: it begins when SQLite opens the WAL.
    Waiting,
    /// Another primary's object was seen; nothing is shipped any more.
    Fenced,
    /// Something that does not pass by itself.
    Error,
    /// `litestream_stop` was called.
    Stopped,
}

impl State {
    /// Whether it does not pass by itself.
    pub(super) fn is_final(self) -> bool {
        matches!(self, Self::Fenced | Self::Error | Self::Stopped)
    }

    /// As in `litestream_status`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Waiting => "waiting",
            Self::Fenced => "fenced",
            Self::Error => "error",
            Self::Stopped => "stopped",
        }
    }
}

/// What has to be done before batches can be shipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Where to go on is to be found out, for a start that could not wait for the store.
    Decide,
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
pub(super) struct Published {
    pub(super) header: Option<IndexHeader>,
    /// Counts publications.
    pub(super) sequence: u64,
    /// When the oldest commit that may not be durable was noticed.
    pub(super) oldest: Option<Instant>,
}

/// How far shipping is.
pub(super) struct Progress {
    pub(super) state: State,
    pub(super) phase: Phase,
    pub(super) txid: Option<Txid>,
    pub(super) durable: Option<(Txid, Timestamp)>,
    pub(super) durable_sequence: u64,
    pub(super) last_error: Option<(Error, Timestamp)>,
    pub(super) failures: u32,
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
    pub(super) files: Arc<dyn Files>,
    pub(super) store: Arc<dyn Store>,
    pub(super) replica: Replica,
    pub(super) spool: Spool,
    pub(super) node: u64,
    pub(super) options: Options,
    pub(super) page_size: PageSize,
    pub(super) pools: Pools,
    pub(super) capture: Mutex<Capture>,
    pub(super) work: Mutex<Option<Work>>,
    /// Held by the one step that ships.
    pub(super) shipping: Mutex<()>,
    pub(super) published: Mutex<Published>,
    pub(super) progress: Mutex<Progress>,
    pub(super) progressed: Condvar,
    pub(super) image_active: AtomicBool,
    /// What died before us has been swept from the store (P34).
    pub(super) is_swept: AtomicBool,
    pub(super) capture_scheduled: AtomicBool,
    /// The publication up to which the thread that follows has looked.
    pub(super) followed: AtomicU64,
    /// The store was away at the start, or has lost something, and was not looked at since.
    pub(super) store_unseen: AtomicBool,
    /// It has lost something: the object that was shipped last is not where it was.
    pub(super) is_lost: AtomicBool,
    /// When an object that was shipped is looked for next.
    pub(super) look_behind: Mutex<Look>,
    /// A barrier could not be had in time: the next capture is a gap.
    pub(super) missed: AtomicBool,
    /// The last publication came from an exclusive connection (P4).
    pub(super) exclusive: AtomicBool,
    /// Writers in other processes (P15).
    pub(super) follow: Mutex<Follow>,
    /// What is not captured cannot be destroyed by them.
    pub(super) holding: AtomicBool,
    /// When the next look at the wal-index is due, if one is scheduled.
    pub(super) look_due: Mutex<Option<Instant>>,
    pub(super) state_file: StateFile,
    /// When the next shipping step is due, if one is scheduled.
    pub(super) ship_due: Mutex<Option<Instant>>,
    pub(super) stopped: AtomicBool,
    /// How many wait: as long as somebody does, the pace of P23 does not apply.
    pub(super) waiting: AtomicUsize,
    /// No connection of this process has the database open, so no handle of ours is kept longer than it is needed.
    pub(super) unused: AtomicBool,
    /// Counts the steps that ship, from 1.
    pub(super) steps: AtomicU64,
    /// The last of them that could do nothing before the next publication.
    pub(super) stalled_step: AtomicU64,
    pub(super) next_object_at: Mutex<Instant>,
    /// Companion indexes that are to be put, or being put (R6).
    pub(super) companions: AtomicUsize,
    /// The database file at its last close (P11).
    pub(super) closed: Mutex<Option<FileIdentity>>,
    /// Nothing proves yet that the database is still the one that it was (P12): a gap asks.
    pub(super) unproven: AtomicBool,
    /// What was in its file when it was opened so.
    pub(super) as_opened: Mutex<Option<Found>>,
}

/// What a primary is made of.
pub struct Parts {
    pub path: PathBuf,
    pub store: Arc<dyn Store>,
    pub files: Arc<dyn Files>,
    pub options: Options,
    pub page_size: PageSize,
    pub published: Option<IndexHeader>,
    /// What the replica holds; `None` if the store is away ([`prove`]).
    pub listing: Option<Listing>,
    pub pools: Pools,
}

impl Primary {
    /// Finds out where to go on. The database is in WAL mode. Nothing happens before [`activated`](Self::activated).
    ///
    /// # Errors
    /// [`Kind::Busy`](crate::error::Kind::Busy) if another process replicates the database;
    /// [`Kind::Diverged`](crate::error::Kind::Diverged) if database and replica do not belong together; those of the
    /// store and of the local file system.
    pub fn start_new(parts: Parts) -> Result<Arc<Self>> {
        let (listing, published) = (parts.listing.clone(), parts.published);
        let primary = Self::new(parts)?;
        let start = primary.start(listing.as_ref(), published.as_ref())?;
        primary.begin(start, listing.is_none())?;
        Ok(Arc::new(primary))
    }

    /// As [`start_new`](Self::start_new), but waits for no store: where to go on is found out on a thread of ours, after
    /// [`activated`](Self::activated). What is committed until then is found by comparing pages, or is still in the WAL.
    /// `listing` and `published` are not looked at.
    ///
    /// # Errors
    /// [`Kind::Busy`](crate::error::Kind::Busy) as above; those of the local file system.
    pub fn start_later(parts: Parts) -> Result<Arc<Self>> {
        let primary = Self::new(Parts { published: None, ..parts })?;
        *primary.work.lock() = Some(primary.empty_work(None));
        primary.set_phase(Phase::Decide);
        primary.begun_by_uri();
        Ok(Arc::new(primary))
    }

    /// Finds out where to go on. `false`: it must wait until it is known what is published (P2).
    pub(super) fn decide(&self) -> Result<bool> {
        let published = self.last_published().0;
        if published.is_none() && self.published_is_unknown() {
            return Ok(false);
        }
        let listing = prove(&self.path, &self.store, &|| self.is_stopped())?;
        let start = self.start(listing.as_ref(), published.as_ref())?;
        self.begin(start, listing.is_none())?;
        Ok(true)
    }

    fn new(parts: Parts) -> Result<Self> {
        let replica = Replica::new(Arc::clone(&parts.store));
        let spool = Spool::open(&parts.path)?;
        let directory = spool.path().to_owned();
        let now = parts.pools.clock.monotonic();
        let follow = Mutex::new(Follow::new(Arc::clone(&parts.files), parts.page_size));
        let state_file = StateFile::new(&directory);
        let published = Published { header: parts.published, sequence: 1, oldest: None };
        Ok(Self {
            capture: Mutex::new(Capture::new(Arc::clone(&parts.files), directory, parts.page_size)),
            path: parts.path,
            files: parts.files,
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
            is_swept: AtomicBool::new(false),
            capture_scheduled: AtomicBool::new(false),
            followed: AtomicU64::new(0),
            store_unseen: AtomicBool::new(false),
            is_lost: AtomicBool::new(false),
            look_behind: Mutex::new(Look::after(now)),
            missed: AtomicBool::new(false),
            exclusive: AtomicBool::new(false),
            follow,
            holding: AtomicBool::new(false),
            look_due: Mutex::new(None),
            state_file,
            ship_due: Mutex::new(None),
            stopped: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            unused: AtomicBool::new(false),
            steps: AtomicU64::new(0),
            stalled_step: AtomicU64::new(0),
            next_object_at: Mutex::new(now),
            companions: AtomicUsize::new(0),
            closed: Mutex::new(None),
            unproven: AtomicBool::new(false),
            as_opened: Mutex::new(None),
        })
    }

    fn begin(&self, mut start: Start, away: bool) -> Result<()> {
        start.work.record.nodes.dedup();
        self.spool.begin_record(&start.work.record)?;
        let mut work = self.work.lock();
        let mut progress = self.progress.lock();
        progress.phase = start.phase;
        progress.txid = start.work.head;
        progress.durable =
            start.work.head.filter(|_| start.work.staged.is_empty()).map(|t| (t, start.work.last_timestamp));
        progress.state = if away { State::Retrying } else { State::Starting };
        drop(progress);
        if start.phase == Phase::Running {
            *self.as_opened.lock() = None;
        }
        self.store_unseen.store(away, Ordering::Release);
        if !start.work.staged.is_empty() {
            self.published.lock().oldest.get_or_insert_with(|| self.now());
        }
        *work = Some(start.work);
        Ok(())
    }

    /// A start without the store, or one that has lost something: what it holds is looked at before anything else is done
    /// there. What is not as it should be is waited for: one listing may be wrong, and a disk may be mounted again.
    pub(super) fn prove_later(&self) -> Result<()> {
        if !self.store_unseen.load(Ordering::Acquire) {
            return Ok(());
        }
        let listing = self.replica.prove_unless(&|| self.is_stopped())?;
        self.take_back(&listing)?;
        let (head, first) = self.with_work(|work| Ok((work.head, work.staged.front().map(|first| first.txid))))?;
        let sound = match (listing.head(), first.or(head.map(Txid::next))) {
            (None, Some(next)) => Err(self.replica_is_gone(head.unwrap_or(next))),
            // What lies between is neither there nor here.
            (Some(remote), Some(next)) if remote.next() < next => Err(self.missing_here(Some(remote.next()), next)),
            _ => self.replica.refuse_unsound(&listing),
        };
        sound.map_err(|error| match error.kind() {
            Kind::Diverged => Error::new(Kind::Unavailable, error.to_string()),
            _ => error,
        })?;
        self.store_unseen.store(false, Ordering::Release);
        self.is_lost.store(false, Ordering::Release);
        Ok(())
    }

    /// The URL without credentials.
    pub fn url(&self) -> &str {
        self.store.url()
    }

    /// Those that it was started with.
    pub fn options(&self) -> Options {
        self.options
    }

    pub(super) fn page_size(&self) -> PageSize {
        self.page_size
    }

    pub(super) fn now(&self) -> Instant {
        self.pools.clock.monotonic()
    }

    pub(super) fn is_unused(&self) -> bool {
        self.unused.load(Ordering::Acquire)
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
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
        if pending {
            oldest.map_or(Duration::ZERO, |o| self.now().saturating_duration_since(o))
        } else {
            Duration::ZERO
        }
    }

    /// The row of `litestream_status`.
    pub fn status(&self) -> Status {
        let lag = self.lag();
        let files = self.spool.files().unwrap_or_default();
        // A call that is being repeated is a failure already.
        let trouble = self.store.trouble();
        let progress = self.progress.lock();
        let state = match progress.state {
            State::Starting | State::Running if trouble.is_some() => State::Retrying,
            state => state,
        };
        Status {
            path: self.path.display().to_string(),
            url: self.url().to_owned(),
            state,
            txid: progress.txid,
            durable: progress.durable,
            lag,
            spool_bytes: files.iter().map(|(_, size)| size).sum(),
            spool_files: files.len() as u64,
            last_error: trouble.or_else(|| progress.last_error.clone()),
            counters: self.store.counters(),
        }
    }
}

/// Proves URL, credentials and bucket by listing what the replica holds, and that the store heeds conditions. `None`: the store is away, but there is a local
/// record of this replica, with which a primary may start.
///
/// # Errors
/// Those of the store; [`Kind::Interrupted`](crate::error::Kind::Interrupted).
pub fn prove(path: &Path, store: &Arc<dyn Store>, cancelled: &dyn Fn() -> bool) -> Result<Option<Listing>> {
    match Replica::new(Arc::clone(store)).prove_unless(cancelled) {
        Err(error) if error.is_retryable() && has_record(path, store.url()) => Ok(None),
        listing => listing.map(Some),
    }
}

fn has_record(path: &Path, url: &str) -> bool {
    Record::read(&Spool::directory_of(path)).is_some_and(|r| r.url == url && r.txid().is_some())
}
