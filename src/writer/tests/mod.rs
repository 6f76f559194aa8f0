//! The primary without a host: SQLite writes the database through its own VFS, and the tests tell what a tap would.

mod behind;
mod capture;
mod companion;
mod moved;
mod put_back;
mod random;
mod refusal;
mod session;
mod shipping;
mod simulation;
mod spool;
mod starting;

use crate::config::Options;
use crate::error::{Context, Error, Kind, Result};
use crate::lock::Mutex;
use crate::ltx::PageSize;
use crate::replica::{Options as RestoreOptions, Replica, Target, restore};
use crate::store::Store;
use crate::wal::IndexHeader;
use crate::writer::{DatabaseFile, Files, Parts, Pools, Primary, SharedIndex};
use rusqlite::Connection;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tempfile::TempDir;

const PAGE_SIZE: u32 = 1024;
const TIMEOUT: Duration = Duration::from_secs(20);

/// Plain files: the test process holds no lock that closing them could drop. Syncing them fails while `broken`.
struct PlainFile(File, Arc<AtomicBool>, Arc<Host>);

impl DatabaseFile for PlainFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<bool> {
        let happens = self.2.at_next_read.lock().take();
        if let Some(happens) = happens {
            happens();
        }
        buffer.fill(0);
        let mut read = 0;
        while read < buffer.len() {
            match self.0.read_at(&mut buffer[read..], offset + read as u64).context("read")? {
                0 => return Ok(false),
                n => read += n,
            }
        }
        Ok(true)
    }
    fn size(&self) -> Result<u64> {
        Ok(self.0.metadata().context("size")?.len())
    }
    fn sync(&self) -> Result<()> {
        if self.1.load(Ordering::Relaxed) {
            return Err(Error::new(Kind::Io, "sync: the disk is broken"));
        }
        self.0.sync_data().context("sync")
    }
}

struct PlainFiles(PathBuf, Arc<AtomicBool>, Arc<Host>);

/// What the connections of the host do.
#[derive(Default)]
struct Host {
    /// The wal-index, while one has it mapped.
    mapped: Mutex<Option<[u8; 136]>>,
    /// What happens while we read a file.
    at_next_read: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

/// What a connection has mapped, without locks.
struct Index([u8; 136]);

impl SharedIndex for Index {
    fn read(&self) -> [u8; 136] {
        self.0
    }
    fn hold(&mut self, _: u8) -> bool {
        true
    }
    fn release(&mut self, _: u8) {}
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

impl Files for PlainFiles {
    fn may_be_opened(&self) -> bool {
        true
    }
    fn open_database(&self) -> Result<Box<dyn DatabaseFile>> {
        Ok(Box::new(PlainFile(File::open(&self.0).context("open")?, Arc::clone(&self.1), Arc::clone(&self.2))))
    }
    fn open_wal(&self) -> Result<Box<dyn DatabaseFile>> {
        Ok(Box::new(PlainFile(
            File::open(beside(&self.0, "-wal")).context("open")?,
            Arc::clone(&self.1),
            Arc::clone(&self.2),
        )))
    }
    fn open_index(&self) -> Result<Option<Box<dyn SharedIndex>>> {
        Ok(self.2.mapped.lock().map(|bytes| Box::new(Index(bytes)) as _))
    }
    fn own_writes(&self) -> u64 {
        0
    }
}

/// A database that SQLite writes.
struct Source {
    directory: TempDir,
    path: PathBuf,
    db: Connection,
    /// Its files cannot be synced.
    broken: Arc<AtomicBool>,
    host: Arc<Host>,
}

impl Source {
    fn new() -> Self {
        Self::new_in(tempfile::tempdir().unwrap())
    }

    fn new_in(directory: TempDir) -> Self {
        let path = directory.path().join("app.db");
        let db = Connection::open(&path).unwrap();
        db.execute_batch(&format!(
            "PRAGMA page_size={PAGE_SIZE}; PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0;
             CREATE TABLE t(id INTEGER PRIMARY KEY, v)"
        ))
        .unwrap();
        Self { directory, path, db, broken: Arc::default(), host: Arc::default() }
    }

    fn insert(&self, rows: u32) {
        self.db
            .execute_batch(&format!(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<{rows})
                 INSERT INTO t(v) SELECT hex(randomblob(100)) FROM n"
            ))
            .unwrap();
    }

    /// What a tap copies at the unlock of the write lock.
    fn header(&self) -> IndexHeader {
        self.published().unwrap()
    }

    /// `None` before the first frame of a WAL that was just opened.
    fn published(&self) -> Option<IndexHeader> {
        let mut bytes = [0; IndexHeader::SIZE];
        File::open(beside(&self.path, "-shm")).unwrap().read_exact_at(&mut bytes, 0).unwrap();
        IndexHeader::parse(&bytes)
    }

    /// The database as readers see it, as bytes.
    fn image(&self) -> Vec<u8> {
        let copy = self.directory.path().join("image.db");
        let _ = std::fs::remove_file(&copy);
        let mut target = Connection::open(&copy).unwrap();
        rusqlite::backup::Backup::new(&self.db, &mut target)
            .unwrap()
            .run_to_completion(10_000, Duration::ZERO, None)
            .unwrap();
        drop(target);
        std::fs::read(&copy).unwrap()
    }

    fn start(&self, store: &Arc<dyn Store>) -> Result<Arc<Primary>> {
        self.start_with(store, Options { sync_interval: Duration::from_millis(1), ..Options::default() })
    }

    fn start_with(&self, store: &Arc<dyn Store>, options: Options) -> Result<Arc<Primary>> {
        self.start_on(store, options, Pools::new())
    }

    fn start_on(&self, store: &Arc<dyn Store>, options: Options, pools: Pools) -> Result<Arc<Primary>> {
        let listing = crate::writer::prove(&self.path, store, &|| false)?;
        let header = self.published();
        let primary = Primary::start_new(Parts {
            path: self.path.clone(),
            store: Arc::clone(store),
            files: Arc::new(PlainFiles(self.path.clone(), Arc::clone(&self.broken), Arc::clone(&self.host))),
            options,
            page_size: PageSize::new(PAGE_SIZE).unwrap(),
            published: header,
            listing,
            pools,
        })?;
        primary.activated(header.as_ref(), self.published().as_ref());
        Ok(primary)
    }

    /// A connection maps the wal-index, of which we have a copy.
    fn map_index(&self) {
        let mut bytes = [0; 136];
        File::open(beside(&self.path, "-shm")).unwrap().read_exact_at(&mut bytes, 0).unwrap();
        *self.host.mapped.lock() = Some(bytes);
    }

    /// A commit, as the taps tell it.
    fn commit(&self, primary: &Arc<Primary>, rows: u32) {
        self.insert(rows);
        primary.published(&self.header());
        primary.wake();
    }

    /// What the replica restores to.
    fn restored(&self, store: &Arc<dyn Store>, target: Target) -> Vec<u8> {
        let path = self.directory.path().join("restored.db");
        let _ = std::fs::remove_file(&path);
        restore(&Replica::new(Arc::clone(store)), target, &path, RestoreOptions::default(), &|| false).unwrap();
        std::fs::read(&path).unwrap()
    }
}

/// Equal but for what a backup changes in the header: the change counter (24..28) and what was valid for it (92..100).
/// What is to be in the store is not there, and it is said why once it is known.
fn assert_it_says(primary: &Arc<Primary>, why: &str) {
    let deadline = std::time::Instant::now() + TIMEOUT;
    let mut error = primary.sync(Duration::from_millis(100), &|| false).unwrap_err();
    while !error.to_string().contains(why) {
        assert!(std::time::Instant::now() < deadline, "{error}");
        error = primary.sync(Duration::from_millis(100), &|| false).unwrap_err();
    }
}

fn assert_same(found: &[u8], expected: &[u8]) {
    let mask = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        bytes[18..28].fill(0);
        bytes[40..44].fill(0);
        bytes[92..100].fill(0);
        bytes
    };
    assert_eq!(found.len(), expected.len());
    assert!(mask(found) == mask(expected), "the bytes differ");
}
