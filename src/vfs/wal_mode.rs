//! A database that was opened by URI and is in rollback mode is put into WAL mode (P16).
//!
//! A thread of ours does it, through a connection that lives for this alone, once the database has content: the page
//! size, the encoding and auto_vacuum of an empty one may still be chosen. So it is after the first commit, or, where
//! there is content already, at the first access.
//!
//! To the host it is what another process doing the same would be, but for SQLITE_BUSY: a program with one connection
//! need not expect that. So connections of this process wait with their locks of the database file while it is tried;
//! and one that is about to begin a transaction lets a try that is due go first, which so finds the file free. A try waits
//! a little for the transactions that are under way: those that begin one after the other would leave it no moment.

use super::by_uri;
use super::primary::{Database, base, known, wal_mode_pool};
use crate::error::{Error, Kind, Result};
use crate::header;
use crate::lock::{Condvar, Mutex};
use crate::sqlite::{BaseFile, Connection, FileRole, has_connections};
use crate::writer::{FileIdentity, OpenFile, Primary};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long a lock waits for a try, which takes as long as a commit.
const LONGEST_TRY: Duration = Duration::from_secs(5);
/// Who has committed may go on at once: it is waited for this long before a thread is woken.
const AFTER_COMMIT: Duration = Duration::from_millis(10);
/// After a try that failed, the next one waits this long at first, and at most.
const PAUSE_FIRST: Duration = Duration::from_millis(10);
const PAUSE_MOST: Duration = Duration::from_secs(5);
/// A try waits as long as the pause before it was for transactions that are under way, at most this long, and looks so
/// often.
const PATIENCE_MOST: Duration = Duration::from_millis(100);
const PATIENCE_STEP: Duration = Duration::from_millis(1);
/// Who waits for a primary tries this often.
const WAIT_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing is to be done.
    Settled,
    /// What is in the file is to be looked at.
    Unknown,
    /// It is empty: the first commit is waited for.
    Empty,
    /// It is to be set, not before this moment.
    Due(Instant),
}

/// What a database file holds.
#[derive(PartialEq, Eq)]
enum Content {
    Nothing,
    Rollback,
    Wal,
}

struct State {
    stage: Stage,
    pause: Duration,
    /// Counts tries.
    tries: u64,
    /// The file as it was opened: by its name another one could be set.
    opened: OpenFile,
}

/// A database file when nothing was in its WAL. Asked by name: nothing is opened (P9).
struct Seen(Option<FileIdentity>);

impl Seen {
    fn of(path: &str) -> Self {
        Self(FileIdentity::of(Path::new(path)).ok())
    }

    fn is_changed(&self, path: &str) -> bool {
        std::fs::metadata(format!("{path}-wal")).is_ok_and(|wal| wal.len() > 0) || Self::of(path).0 != self.0
    }
}

/// How far one database is.
pub(super) struct WalMode {
    state: Mutex<State>,
    tried: Condvar,
    /// Held while it is tried, and by a connection that asks for a lock.
    gate: Mutex<()>,
    /// What was there when replication began so, until a connection of the host opens the WAL: nobody sees before what
    /// other processes write.
    unwatched: Mutex<Option<Seen>>,
}

impl Default for WalMode {
    fn default() -> Self {
        let state = State { stage: Stage::Settled, pause: PAUSE_FIRST, tries: 0, opened: OpenFile::default() };
        Self { state: Mutex::new(state), tried: Condvar::new(), gate: Mutex::new(()), unwatched: Mutex::default() }
    }
}

impl WalMode {
    /// A replica is wanted; whether this is, too.
    pub(super) fn begin(&self, is_wanted: bool) {
        let mut state = self.state.lock();
        (state.stage, state.pause) = (if is_wanted { Stage::Unknown } else { Stage::Settled }, PAUSE_FIRST);
    }

    /// It is in WAL mode, or is no more to be replicated.
    pub(super) fn settle(&self) {
        self.state.lock().stage = Stage::Settled;
    }

    /// The database was opened, and no other connection of this process has it open.
    pub(super) fn database_opened(&self, path: &str) {
        let mut state = self.state.lock();
        if state.stage != Stage::Settled {
            state.stage = Stage::Unknown;
            state.opened = OpenFile::at(PathBuf::from(path));
        }
    }

    /// A connection of the host has opened the WAL. Whether others have written since replication began.
    pub(super) fn watch(&self, path: &str) -> bool {
        self.unwatched.lock().take().is_some_and(|seen| seen.is_changed(path))
    }

    /// Whether others have written since replication began, and no connection has opened the WAL.
    pub(super) fn is_changed(&self, path: &str) -> bool {
        self.unwatched.lock().as_ref().is_some_and(|seen| seen.is_changed(path))
    }

    /// Whether no connection of the host has opened the WAL since replication began.
    pub(super) fn is_unwatched(&self) -> bool {
        self.unwatched.lock().is_some()
    }

    /// Whether the first commit is waited for.
    pub(super) fn awaits_commit(&self) -> bool {
        matches!(self.state.lock().stage, Stage::Unknown | Stage::Empty)
    }

    fn is_due(&self) -> bool {
        matches!(self.state.lock().stage, Stage::Due(at) if at <= Instant::now())
    }
}

/// A connection asks for a lock of the database file, by `lock`. `begins`: it has none yet.
pub(super) fn locking(database: &Database, begins: bool, lock: &mut dyn FnMut()) {
    if database.wal_mode.state.lock().stage == Stage::Settled {
        return lock();
    }
    if begins {
        try_first(database);
    }
    let _gate = database.wal_mode.gate.try_lock_for(LONGEST_TRY);
    lock();
}

/// A commit, which was none in WAL mode; its locks are still held.
pub(super) fn committed(database: &Database) {
    let now = Instant::now();
    {
        let mut state = database.wal_mode.state.lock();
        if !matches!(state.stage, Stage::Unknown | Stage::Empty) {
            return;
        }
        (state.stage, state.pause) = (Stage::Due(now), PAUSE_FIRST);
    }
    schedule(database, now + AFTER_COMMIT);
}

/// The primary, for somebody who waits until something is in the store; `None` if it does not begin by itself.
///
/// # Errors
/// [`Kind::Interrupted`].
pub(super) fn await_primary(
    database: &Database,
    until: Instant,
    cancelled: &dyn Fn() -> bool,
) -> Result<Option<Arc<Primary>>> {
    loop {
        if database.primary().is_some() || !by_uri::is_wanted(database) {
            return Ok(database.primary());
        }
        {
            let mut state = database.wal_mode.state.lock();
            if let Stage::Due(due) = &mut state.stage {
                *due = Instant::now();
            }
        }
        try_first(database);
        let is_tried_again = matches!(database.wal_mode.state.lock().stage, Stage::Due(_));
        if database.primary().is_some() || !is_tried_again || Instant::now() >= until {
            return Ok(database.primary());
        }
        if cancelled() {
            return Err(Error::new(Kind::Interrupted, "interrupted"));
        }
        std::thread::sleep(WAIT_INTERVAL);
    }
}

/// If a try is due, waits for it.
fn try_first(database: &Database) {
    if !look(database) {
        return;
    }
    let wal_mode = &database.wal_mode;
    let before = wal_mode.state.lock().tries;
    if !schedule(database, Instant::now()) {
        return;
    }
    let deadline = Instant::now() + LONGEST_TRY;
    let mut state = wal_mode.state.lock();
    while state.tries == before && Instant::now() < deadline {
        wal_mode.tried.wait_until(&mut state, deadline);
    }
}

/// Whether a try is due: where it may be, looks into the file, so that no thread is woken for one that is empty, or in
/// WAL mode.
fn look(database: &Database) -> bool {
    let before = database.wal_mode.state.lock().stage;
    let may_be_due = match before {
        Stage::Settled | Stage::Empty => false,
        Stage::Unknown => true,
        Stage::Due(at) => at <= Instant::now(),
    };
    // What cannot be looked into now is the next time.
    let Some(content) = may_be_due.then(|| content_of(database).ok()).flatten() else { return false };
    let mut state = database.wal_mode.state.lock();
    if state.stage == before {
        state.stage = match (content, before) {
            (Content::Wal, _) => Stage::Settled,
            (Content::Nothing, _) => Stage::Empty,
            (Content::Rollback, Stage::Due(_)) => before,
            (Content::Rollback, _) => Stage::Due(Instant::now()),
        };
    }
    matches!(state.stage, Stage::Due(at) if at <= Instant::now())
}

/// Reads no more than the file says of itself, under no lock.
fn content_of(database: &Database) -> Result<Content> {
    let file = BaseFile::open(base()?, &database.path, FileRole::Database)?;
    let mut head = [0; header::VERSIONS.end];
    if file.size()? == 0 {
        return Ok(Content::Nothing);
    }
    file.read_at(&mut head, 0)?;
    // Without a header it is encrypted, or a first transaction that did not end: SQLite tells which.
    let is_wal = head.starts_with(header::MAGIC) && head[header::VERSIONS.start] == header::WAL;
    Ok(if is_wal { Content::Wal } else { Content::Rollback })
}

/// `false`: there is no thread for it.
fn schedule(database: &Database, due: Instant) -> bool {
    let Some(database) = known(&database.path) else { return false };
    let task = move || {
        if let Err(error) = crate::panic::guard(|| try_once(&database)) {
            by_uri::fail(&database, &error);
        }
    };
    wal_mode_pool().run_at(due, task).inspect_err(|error| log::warn!("WAL mode cannot be set: {error}")).is_ok()
}

/// On the thread. Without a connection to the database the next one goes on (P33).
fn try_once(database: &Arc<Database>) {
    let wal_mode = &database.wal_mode;
    if wal_mode.is_due() && database.connections.load(Ordering::Acquire) > 0 && has_connections() {
        note(database, set_patiently(database));
    }
    wal_mode.state.lock().tries += 1;
    wal_mode.tried.notify_all();
}

/// Who is about to begin a transaction waits for the end of this, who has begun one goes on.
fn set_patiently(database: &Database) -> Result<Content> {
    let patience = database.wal_mode.state.lock().pause.min(PATIENCE_MOST);
    let end = Instant::now() + patience;
    loop {
        let gate = database.wal_mode.gate.lock();
        let outcome = content_of(database).and_then(|content| match content {
            Content::Rollback => set(database),
            // The application was faster: replication begins with the WAL that it opens.
            content => Ok(content),
        });
        drop(gate);
        match outcome {
            Err(error) if error.kind() == Kind::Busy && Instant::now() < end => std::thread::sleep(PATIENCE_STEP),
            outcome => return outcome,
        }
    }
}

fn note(database: &Arc<Database>, outcome: Result<Content>) {
    let stage = match outcome {
        Ok(Content::Nothing) => Stage::Empty,
        Ok(_) => Stage::Settled,
        Err(error) => {
            by_uri::fail(database, &error);
            let mut state = database.wal_mode.state.lock();
            let due = Instant::now() + state.pause;
            state.pause = (state.pause * 2).min(PAUSE_MOST);
            if matches!(error.kind(), Kind::Busy | Kind::Io | Kind::Full) { Stage::Due(due) } else { Stage::Settled }
        }
    };
    database.wal_mode.state.lock().stage = stage;
    if let Stage::Due(due) = stage {
        schedule(database, due);
    }
}

/// Sets WAL mode, and begins. `Content::Nothing`: what there was has been rolled back.
fn set(database: &Database) -> Result<Content> {
    let path = &database.path;
    if database.wal_mode.state.lock().opened.is_moved() {
        return Err(Error::invalid(format!("{path} was moved or replaced while it was opened: open it anew")));
    }
    let busy = || {
        let text = format!(
            "{path} is to be set to WAL mode, for which nobody else may have a transaction open in it, nor PRAGMA \
             locking_mode = EXCLUSIVE: it is tried again"
        );
        Error::new(Kind::Busy, text)
    };
    // Asked first: SQLite would log a PRAGMA that fails.
    if BaseFile::open(base()?, path, FileRole::Database)?.is_locked() {
        return Err(busy());
    }
    let mode = Connection::with_unseen(base()?, path, |own| {
        // A first transaction whose process died is rolled back by this.
        if own.query("PRAGMA page_count")? == ["0"] {
            return Ok(Vec::new());
        }
        own.query("PRAGMA journal_mode=WAL")
    });
    match mode {
        Ok(mode) if mode.is_empty() => Ok(Content::Nothing),
        Ok(mode) if mode == ["wal"] => {
            *database.wal_mode.unwatched.lock() = Some(Seen::of(path));
            // Before a connection opens the WAL, which could find it begun half.
            by_uri::in_wal_mode(database);
            Ok(Content::Wal)
        }
        Ok(mode) => {
            let mode = mode.join(" ");
            Err(Error::invalid(format!("{path} cannot be set to WAL mode (its journal_mode stays '{mode}')")))
        }
        Err(error) if error.kind() == Kind::Busy => Err(busy()),
        Err(error) => Err(error.context(format!("{path} cannot be set to WAL mode"))),
    }
}
