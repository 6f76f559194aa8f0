//! The databases that are open in this process, which of them are replicated, and what their taps tell.

use super::by_uri::{self, Refused, Wanted};
use super::exclusive::Exclusive;
use super::files::Usage;
use super::wal_mode::{self, WalMode};
use crate::config::{Options, SYNC_TIMEOUT};
use crate::error::{Error, Kind, Result};
use crate::lock::{Mutex, PerProcess, RwLock};
use crate::pool::Pool;
use crate::sqlite::{
    BaseFile, BaseVfs, FileRole, Observer, PragmaAnswer, Shim, WalIndexHeader, WalIndexStart, install_shim,
};
use crate::wal::{IndexHeader, WAL_HEADER_SIZE};
use crate::writer::{Handover, Pools, Primary, Status};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

static BASE: OnceLock<BaseVfs> = OnceLock::new();

/// What belongs to one process. A forked child has copies of the parent's locks, in whatever state they were, and none
/// of its threads: it never touches them and begins with its own.
struct Process {
    pid: u32,
    databases: Mutex<BTreeMap<String, Arc<Database>>>,
    pools: Pools,
    /// Sets WAL mode (P16).
    wal_mode_pool: Arc<Pool>,
}

static PROCESS: PerProcess<Process> = PerProcess::new();

impl Default for Process {
    fn default() -> Self {
        let wal_mode_pool = Pool::new("wal", 1);
        Self { pid: std::process::id(), databases: Mutex::default(), pools: Pools::new(), wal_mode_pool }
    }
}

fn process() -> &'static Process {
    PROCESS.get()
}

/// One database file, by its full path, from its first open on.
pub(super) struct Database {
    pub(super) path: String,
    pid: u32,
    pub(super) connections: AtomicUsize,
    pub(super) usage: Arc<Usage>,
    /// P13: for the barriers, while another process has the primary.
    handover: Handover,
    /// Held while replication is started or stopped.
    pub(super) control: Mutex<()>,
    /// The replica that a URI named.
    pub(super) wanted: Mutex<Option<Wanted>>,
    /// The last open by a URI that named one, if it failed.
    pub(super) refused: Mutex<Option<Refused>>,
    /// P16: of one that is to have a replica.
    pub(super) wal_mode: WalMode,
    active: AtomicBool,
    primary: RwLock<Option<Arc<Primary>>>,
    /// P4: the last commit frame that was written to the WAL, for a connection without shared memory.
    exclusive: Mutex<Exclusive>,
}

impl Database {
    /// The primary, unless this is a forked child: it never ships.
    pub(super) fn primary(&self) -> Option<Arc<Primary>> {
        if self.pid != std::process::id() {
            return None;
        }
        self.primary.read().clone()
    }

    /// Also told when a replica is wanted, or no more: something is to be told then, too.
    pub(super) fn set_primary(&self, primary: Option<Arc<Primary>>) {
        self.active.store(primary.is_some() || self.wanted.lock().is_some(), Ordering::Release);
        *self.primary.write() = primary;
    }

    /// The published end of a WAL that only an exclusive connection uses.
    fn exclusive_header(&self) -> Option<IndexHeader> {
        self.exclusive.lock().published()
    }
}

impl Observer for Database {
    fn active(&self) -> &AtomicBool {
        &self.active
    }

    fn published(&self, header: &WalIndexHeader) -> bool {
        match (self.primary(), IndexHeader::parse(header)) {
            (Some(primary), Some(header)) => primary.published(&header),
            _ => false,
        }
    }

    fn reading(&self, header: &WalIndexHeader) {
        if let (Some(primary), Some(header)) = (self.primary(), IndexHeader::parse(header)) {
            primary.reading(&header);
        }
    }

    fn wake(&self) {
        if let Some(primary) = self.primary() {
            primary.wake();
        }
    }

    fn barrier(&self, header: Option<&WalIndexHeader>) {
        let Some(primary) = self.primary() else {
            if let Some(header) = header.and_then(IndexHeader::parse) {
                self.handover.wait(self.path.as_ref(), &header, Options::default().barrier_timeout);
            }
            return;
        };
        let published = match header {
            Some(header) => IndexHeader::parse(header),
            None => self.exclusive_header(),
        };
        primary.barrier(published.as_ref());
    }

    fn restarted(&self, header: &WalIndexHeader) {
        if let (Some(primary), Some(header)) = (self.primary(), IndexHeader::parse(header)) {
            primary.restarted(&header);
        }
    }

    fn wal_write(&self, offset: u64, bytes: &[u8]) {
        if self.pid != std::process::id() {
            return;
        }
        let mut exclusive = self.exclusive.lock();
        if offset == 0 && bytes.len() as u64 == WAL_HEADER_SIZE {
            drop(exclusive);
            self.wal_header_write(bytes);
            return;
        }
        exclusive.frame_write(offset, bytes);
    }

    fn wal_failed(&self) {
        if self.pid == std::process::id() {
            self.exclusive.lock().failed();
        }
    }

    fn index_mapped(&self) {
        self.usage.mapped.fetch_add(1, Ordering::SeqCst);
        if let Some(primary) = self.primary() {
            primary.index_mapped();
        }
    }

    fn index_unmapping(&self) {
        if self.usage.mapped.fetch_sub(1, Ordering::SeqCst) == 1
            && let Some(primary) = self.primary()
        {
            primary.index_unmapped();
        }
    }

    fn backfilling(&self) {
        if let Some(primary) = self.primary() {
            primary.backfilling();
        }
    }

    fn checkpoint(&self, begins: bool, index: &WalIndexStart) {
        if let Some(primary) = self.primary() {
            primary.checkpoint(begins, index);
        }
    }

    fn locking(&self, begins: bool, lock: &mut dyn FnMut()) {
        if self.pid == std::process::id() { wal_mode::locking(self, begins, lock) } else { lock() }
    }

    fn refuses_to_leave_wal(&self) -> bool {
        self.primary().is_some_and(|primary| primary.refuses_to_leave_wal())
    }

    fn rollback_commit(&self) {
        if let Some(primary) = self.primary() {
            primary.rollback_commit();
        }
    }

    fn wal_truncate(&self) {
        if let Some(primary) = self.primary() {
            primary.wal_truncate();
        }
    }

    fn write_unlocking(&self) {
        self.usage.writes.fetch_add(1, Ordering::SeqCst);
    }

    fn write_locked(&self, header: &WalIndexHeader) {
        self.usage.writes.fetch_add(1, Ordering::SeqCst);
        if let (Some(primary), Some(header)) = (self.primary(), IndexHeader::parse(header)) {
            primary.write_locked(&header);
        }
    }

    fn wal_closing(&self) {
        // The last commit was an exclusive one; whoever has the wal-index mapped is not, and another one may close.
        let is_mapped = self.usage.mapped.load(Ordering::SeqCst) > 0;
        if let Some(primary) = self.primary().filter(|primary| !is_mapped && primary.is_exclusive()) {
            primary.barrier(self.exclusive_header().as_ref());
            self.last_close();
        }
    }

    fn committed_exclusively(&self, header: Option<&WalIndexHeader>) -> bool {
        let Some(primary) = self.primary() else {
            if self.pid == std::process::id() {
                wal_mode::committed(self);
            }
            return false;
        };
        let published = match header {
            Some(header) => IndexHeader::parse(header),
            None => self.exclusive_header(),
        };
        published.is_some_and(|header| primary.committed_exclusively(&header))
    }

    fn exclusive_ended(&self) {
        if let Some(primary) = self.primary() {
            primary.exclusive_ended();
        }
    }

    fn database_write(&self, offset: u64, length: u64) {
        if let Some(primary) = self.primary() {
            primary.database_write(offset, length);
        }
    }

    fn last_close(&self) {
        if let Some(primary) = self.primary() {
            *self.exclusive.lock() = Exclusive::default();
            primary.last_close();
        }
    }

    fn closed(&self) {
        if self.connections.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(primary) = self.primary()
        {
            primary.all_closed();
        }
    }

    fn pragma(&self, name: &str, argument: Option<&str>, cancelled: &dyn Fn() -> bool) -> PragmaAnswer {
        let name = name.to_ascii_lowercase();
        let primary = match name.as_str() {
            "litestream_sync" => match await_primary(&self.path, SYNC_TIMEOUT, cancelled) {
                Ok(primary) => primary,
                Err(error) => return refusal(&error),
            },
            _ => self.primary(),
        };
        let Some(primary) = primary else {
            // A database that is to be replicated, and is not yet, has nothing in the store.
            let is_asked = name == "litestream_sync" && self.pid == std::process::id();
            return match by_uri::waits_for(self) {
                _ if !is_asked => PragmaAnswer::Forward,
                Some(why) => PragmaAnswer::Refuse(format!("{} is not replicated yet: {why}", self.path)),
                None => PragmaAnswer::Refuse(format!("{} is not replicated by this process", self.path)),
            };
        };
        match (name.as_str(), argument) {
            ("journal_mode", Some(mode)) if !mode.eq_ignore_ascii_case("wal") => PragmaAnswer::Refuse(format!(
                "journal_mode={mode} is refused while {} is replicated: replication needs the WAL; \
                 SELECT litestream_stop() first",
                self.path
            )),
            // The function looks; a PRAGMA cannot.
            ("litestream_sync", _) if self.wal_mode.is_changed(&self.path) => PragmaAnswer::Refuse(format!(
                "another process has written to {}: read it once, or SELECT litestream_sync()",
                self.path
            )),
            ("litestream_sync", _) => match primary.sync(SYNC_TIMEOUT, cancelled) {
                Ok(txid) => PragmaAnswer::Row(txid.map(|t| t.to_string())),
                Err(error) => refusal(&error),
            },
            _ => PragmaAnswer::Forward,
        }
    }
}

fn refusal(error: &Error) -> PragmaAnswer {
    match error.kind() {
        Kind::Interrupted => PragmaAnswer::Interrupted,
        _ => PragmaAnswer::Refuse(error.to_string()),
    }
}

impl Database {
    /// A WAL header is written: a new generation begins.
    fn wal_header_write(&self, bytes: &[u8]) {
        let Some(header) = bytes.first_chunk().and_then(|b| crate::wal::WalHeader::parse(b).ok()) else { return };
        if let Some(primary) = self.primary() {
            primary.header_write(header.salts);
        }
        *self.exclusive.lock() = Exclusive::begin(&header);
    }
}

struct PrimaryShim;

impl Shim for PrimaryShim {
    fn opening(&self, path: &str, parameters: &[(String, String)], is_read_only: bool) -> Result<()> {
        by_uri::opening(path, parameters, is_read_only)
    }

    fn database_opened(&self, path: &str) -> Option<Arc<dyn Observer>> {
        let database = database(path);
        if database.connections.fetch_add(1, Ordering::AcqRel) == 0 {
            database.wal_mode.database_opened(path);
            if let Some(primary) = database.primary() {
                primary.reopened();
            }
        }
        Some(database)
    }

    fn wal_opened(&self, path: &str) -> Option<Arc<dyn Observer>> {
        let database = database(path);
        database.wal_mode.settle();
        by_uri::in_wal_mode(&database);
        let others_wrote = database.wal_mode.watch(path);
        if let Some(primary) = database.primary() {
            if others_wrote {
                primary.reopened();
            }
            primary.wal_opened();
        }
        Some(database)
    }
}

/// The entry of a database; made when it is first opened.
pub(super) fn database(path: &str) -> Arc<Database> {
    let process = process();
    let mut databases = process.databases.lock();
    let database = databases.entry(path.to_owned()).or_insert_with(|| {
        Arc::new(Database {
            path: path.to_owned(),
            pid: process.pid,
            connections: AtomicUsize::new(0),
            usage: Arc::default(),
            handover: Handover::default(),
            control: Mutex::new(()),
            wanted: Mutex::new(None),
            refused: Mutex::new(None),
            wal_mode: WalMode::default(),
            active: AtomicBool::new(false),
            primary: RwLock::new(None),
            exclusive: Mutex::default(),
        })
    });
    Arc::clone(database)
}

/// Registers the shim as the host's default VFS.
pub fn install() -> Result<()> {
    let base = install_shim(Arc::new(PrimaryShim))?;
    let _ = BASE.set(base);
    Ok(())
}

/// Whether no connection of this process looks yet at what others write to a database that is replicated (P16).
pub fn is_unwatched(path: &str) -> bool {
    known(path).is_some_and(|database| database.wal_mode.is_unwatched())
}

/// What a database waits for that was opened with a replica which has not begun (P16).
pub fn waits_for(path: &str) -> Option<String> {
    by_uri::waits_for(known(path)?.as_ref())
}

/// The primary of a database, also of one that was opened with a replica and is about to begin.
///
/// # Errors
/// [`Kind::Interrupted`].
pub fn await_primary(path: &str, timeout: Duration, cancelled: &dyn Fn() -> bool) -> Result<Option<Arc<Primary>>> {
    let Some(database) = known(path) else { return Ok(None) };
    wal_mode::await_primary(&database, Instant::now() + timeout, cancelled)
}

/// The thread that sets WAL mode.
pub(super) fn wal_mode_pool() -> &'static Arc<Pool> {
    &process().wal_mode_pool
}

/// The threads of this process.
pub(super) fn pools() -> Pools {
    process().pools.clone()
}

pub(super) fn base() -> Result<BaseVfs> {
    BASE.get().copied().ok_or_else(|| Error::bug("the shim is not installed"))
}

/// The full path of what a user wrote.
pub fn full_path(path: &str) -> Result<String> {
    base()?.full_path(path)
}

/// Whether a connection of this process has the database open.
pub fn is_open(path: &str) -> bool {
    process().databases.lock().get(path).is_some_and(|d| d.connections.load(Ordering::Acquire) > 0)
}

/// Whether a connection of any process has a lock on the database, whoever opened it.
pub fn is_locked(path: &str) -> bool {
    // A file that is not there, or cannot be opened, is for the restore to judge.
    std::path::Path::new(path).is_file()
        && base().and_then(|base| BaseFile::open(base, path, FileRole::Database)).is_ok_and(|file| file.is_locked())
}

/// The process has its first connection, or has none any more (P33).
pub fn connections_changed(open: bool) {
    let primaries: Vec<_> = process().databases.lock().values().filter_map(|d| d.primary()).collect();
    for primary in primaries {
        if open { primary.resume() } else { primary.rest() }
    }
}

/// The entry of a database that was opened.
pub(super) fn known(path: &str) -> Option<Arc<Database>> {
    process().databases.lock().get(path).cloned()
}

/// The primary of a database, if it has one.
pub fn find(path: &str) -> Option<Arc<Primary>> {
    known(path)?.primary()
}

/// A row of `litestream_status` for each database that has a primary or is to have one, by path.
pub fn statuses() -> Vec<Status> {
    let databases: Vec<_> = process().databases.lock().values().cloned().collect();
    let status = |database: &Arc<Database>| match database.primary() {
        Some(primary) => Some(primary.status()),
        None => by_uri::status(database),
    };
    databases.iter().filter_map(status).collect()
}
