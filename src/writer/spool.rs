//! The metadata directory, `.<dbfile>-litestream/`: staged LTX files in Litestream's own local layout (`ltx/0/`), the
//! local record, and the page checksums.
//!
//! Litestream takes the newest file of `ltx/0/` for its position, so that one is never removed.

use super::put_back::FirstPage;
use crate::error::{Context, Error, Kind, Result};
use crate::lock::{Mutex, PerProcess};
use crate::ltx::{HEADER_SIZE, Header, Txid, TxidRange};
use rustix::fs::{FlockOperation, fcntl_lock};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

/// A number that nobody else has.
pub(super) fn random() -> Result<u64> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|e| Error::io("getrandom", &e.into()))?;
    Ok(u64::from_ne_bytes(bytes))
}

/// Writes a file in place of the former one: whole or not at all. If it is not `durable`, a power cut may leave the
/// former one, none, or one with other content.
pub(super) fn replace(path: &Path, durable: bool, write: impl FnOnce(&mut File) -> std::io::Result<()>) -> Result<()> {
    let name = || path.display().to_string();
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary).with_context(name)?;
    write(&mut file).with_context(name)?;
    if durable {
        file.sync_all().with_context(name)?;
    }
    fs::rename(&temporary, path).with_context(name)?;
    if durable { path.parent().map_or(Ok(()), sync_directory) } else { Ok(()) }
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path.display(), &e)),
        _ => Ok(()),
    }
}

/// Makes the names in a directory durable.
fn sync_directory(directory: &Path) -> Result<()> {
    File::open(directory).and_then(|d| d.sync_all()).with_context(|| directory.display().to_string())
}

/// What tells that a file is still the one it was (P11).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileIdentity {
    device: u64,
    inode: u64,
    size: u64,
    modified_ns: i128,
    changed_ns: i128,
}

impl FileIdentity {
    /// By name, without opening the file.
    ///
    /// # Errors
    /// [`crate::error::Kind::NotFound`], [`crate::error::Kind::Io`].
    pub fn of(path: &Path) -> Result<Self> {
        let m = fs::metadata(path).with_context(|| path.display().to_string())?;
        let ns = |seconds: i64, ns: i64| i128::from(seconds) * 1_000_000_000 + i128::from(ns);
        Ok(Self {
            device: m.dev(),
            inode: m.ino(),
            size: m.size(),
            modified_ns: ns(m.mtime(), m.mtime_nsec()),
            changed_ns: ns(m.ctime(), m.ctime_nsec()),
        })
    }
}

/// Which file it is, whatever it holds: device, inode, and when it was born, in nanoseconds since 1970, where the file
/// system tells. An inode alone does not say: that of a file which was removed is soon given to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileNumber(u64, u64, #[serde(default)] Option<i128>);

impl FileNumber {
    /// By name, without opening the file.
    pub(super) fn of(path: &Path) -> Result<Self> {
        let m = fs::metadata(path).with_context(|| path.display().to_string())?;
        let born = m.created().ok().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
        Ok(Self(m.dev(), m.ino(), born.and_then(|t| i128::try_from(t.as_nanos()).ok())))
    }

    /// Whether it is another file than it was. A device may have another number after a restart of the machine, so where
    /// the births are known they are asked instead.
    pub(super) fn is_another_than(&self, before: &Self) -> bool {
        self.1 != before.1
            || match (self.2, before.2) {
                (Some(now), Some(before)) => now != before,
                _ => self.0 != before.0,
            }
    }
}

/// A captured position, as the record keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RecordedPosition {
    pub(super) salts: (u32, u32),
    pub(super) frame: u32,
    pub(super) checksum: (u32, u32),
}

/// The local record: which replica this directory belongs to, and where capture stood when its newest LTX file was
/// made.
///
/// It is written at each LTX file and not synced: after a power cut it may be old, and then continuity is not proven,
/// which is a gap. But which incarnations are ours must not be forgotten: without it a database that goes on where its
/// replica does not end is taken for another one's and refused. So the record of the start is kept, synced, beside it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) url: String,
    /// The node ids of this directory's incarnations, newest last: whose a file in the store is (P25).
    pub(super) nodes: Vec<u64>,
    /// The newest LTX file made here; absent before the first.
    pub(super) txid: Option<String>,
    pub(super) commit: u32,
    pub(super) position: Option<RecordedPosition>,
    /// The database file at the last close, when everything was in it and in the spool (P11).
    pub(super) closed: Option<FileIdentity>,
    /// Which file the database is in.
    #[serde(default)]
    pub(super) file: Option<FileNumber>,
    /// What its first page said last (P12).
    #[serde(default)]
    pub(super) first_page: Option<FirstPage>,
}

/// Node ids that a record remembers.
const NODES_KEPT: usize = 16;

/// The directory, claimed by this process.
pub(super) struct Spool {
    directory: PathBuf,
    /// Holds the cross-process claim: a POSIX record lock, which a forked child does not inherit (P5).
    claim: Arc<File>,
}

/// The claims of this process. Closing any descriptor of the file drops the lock, so a
/// primary that begins while a stopped one still ends a request shares its descriptor.
static CLAIMS: PerProcess<Mutex<Vec<Claim>>> = PerProcess::new();
type Claim = (PathBuf, Weak<File>);

fn claim(directory: &Path, database: &Path) -> Result<Arc<File>> {
    let mut claims = CLAIMS.get().lock();
    claims.retain(|(_, claim)| claim.strong_count() > 0);
    let held = claims.iter().find(|(place, _)| place == directory);
    if let Some(claim) = held.and_then(|(_, claim)| claim.upgrade()) {
        return Ok(claim);
    }
    let path = directory.join(CLAIM);
    let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let file = Arc::new(file.with_context(|| path.display().to_string())?);
    fcntl_lock(&*file, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
        Error::new(
            Kind::Busy,
            format!("{} is replicated by another process already: one process ships a database", database.display()),
        )
    })?;
    claims.push((directory.to_owned(), Arc::downgrade(&file)));
    Ok(file)
}

impl Spool {
    /// The metadata directory of a database.
    pub(super) fn directory_of(database: &Path) -> PathBuf {
        let name = database.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        database.with_file_name(format!(".{name}-litestream"))
    }

    /// Makes the directory and claims it; another process that replicates the same database is [`Kind::Busy`].
    pub(super) fn open(database: &Path) -> Result<Self> {
        let directory = Self::directory_of(database);
        let levels = directory.join("ltx").join("0");
        fs::create_dir_all(&levels).with_context(|| levels.display().to_string())?;
        // What is synced below them would be lost with them.
        levels.ancestors().skip(1).take(3).try_for_each(sync_directory)?;
        let claim = claim(&directory, database)?;
        let spool = Self { directory, claim };
        spool.remove_leftovers()?;
        Ok(spool)
    }

    fn remove_leftovers(&self) -> Result<()> {
        for directory in [self.directory.clone(), self.level0()] {
            for entry in fs::read_dir(&directory).with_context(|| directory.display().to_string())?.flatten() {
                if entry.path().extension().is_some_and(|e| e == "tmp") {
                    let _ = fs::remove_file(entry.path());
                }
            }
        }
        Ok(())
    }

    pub(super) fn path(&self) -> &Path {
        &self.directory
    }

    /// Whether it is gone, or not the one that was claimed: then nothing keeps another process from claiming it.
    pub(super) fn is_removed(&self) -> bool {
        let Ok(claimed) = self.claim.metadata() else { return false };
        let is_gone = |error: std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
        match fs::metadata(self.directory.join(CLAIM)) {
            Ok(now) if (now.dev(), now.ino()) != (claimed.dev(), claimed.ino()) => true,
            Ok(_) => fs::metadata(self.level0()).is_err_and(is_gone),
            Err(error) => is_gone(error),
        }
    }

    fn level0(&self) -> PathBuf {
        self.directory.join("ltx").join("0")
    }

    /// Where the LTX file of a TXID is, or will be.
    pub(super) fn file(&self, txid: Txid) -> PathBuf {
        self.level0().join(TxidRange::single(txid).file_name())
    }

    /// Where the page checksums are.
    pub(super) fn sums(&self) -> PathBuf {
        self.directory.join("checksums")
    }

    /// Where the states are that the database went through.
    pub(super) fn history(&self) -> PathBuf {
        self.directory.join("history")
    }

    /// The staged files, ascending, with their sizes.
    pub(super) fn files(&self) -> Result<Vec<(Txid, u64)>> {
        let level0 = self.level0();
        let mut files = Vec::new();
        for entry in fs::read_dir(&level0).with_context(|| level0.display().to_string())? {
            let entry = entry.with_context(|| level0.display().to_string())?;
            let name = entry.file_name();
            if let Some(range) = name.to_str().and_then(TxidRange::parse_file_name)
                && range.min == range.max
            {
                files.push((range.max, entry.metadata().map_or(0, |m| m.len())));
            }
        }
        files.sort_unstable();
        Ok(files)
    }

    /// The header of a staged file.
    pub(super) fn header(&self, txid: Txid) -> Result<Header> {
        let path = self.file(txid);
        let mut bytes = [0; HEADER_SIZE];
        let mut file = File::open(&path).with_context(|| path.display().to_string())?;
        file.read_exact(&mut bytes).with_context(|| path.display().to_string())?;
        Header::parse(&bytes).with_context(|| path.display().to_string())
    }

    /// Makes a staged file visible: as Litestream does, synced, renamed, and the directory synced.
    pub(super) fn publish(&self, temporary: &Path, file: &File, txid: Txid) -> Result<()> {
        let path = self.file(txid);
        let name = || path.display().to_string();
        file.sync_all().with_context(name)?;
        fs::rename(temporary, &path).with_context(name)?;
        sync_directory(&self.level0())
    }

    /// Removes a staged file.
    pub(super) fn remove(&self, txid: Txid) -> Result<()> {
        remove_if_there(&self.file(txid))
    }

    /// Forgets the staged files and the checksums. The record stays until the next one takes its place: a process that
    /// dies in between must still know its own.
    pub(super) fn clear(&self) -> Result<()> {
        for (txid, _) in self.files()? {
            self.remove(txid)?;
        }
        let _ = fs::remove_file(self.sums());
        let _ = fs::remove_file(self.open_path());
        Ok(())
    }

    fn open_path(&self) -> PathBuf {
        self.directory.join("open")
    }

    /// The staged file into which more may be merged, since its upload was never begun (P18). Without the mark a file
    /// counts as begun.
    pub(super) fn open_file(&self) -> Option<Txid> {
        Txid::parse(fs::read_to_string(self.open_path()).ok()?.trim())
    }

    /// Marks it, durably.
    pub(super) fn mark_open(&self, txid: Txid) -> Result<()> {
        replace(&self.open_path(), true, |file| std::io::Write::write_all(file, txid.to_string().as_bytes()))
    }

    /// Its upload is about to begin: takes the mark away, durably.
    pub(super) fn close_file(&self) -> Result<()> {
        remove_if_there(&self.open_path())?;
        sync_directory(&self.directory)
    }

    /// The record; `None` if it is absent or damaged.
    pub(super) fn record(&self) -> Option<Record> {
        Record::read(&self.directory)
    }

    /// Writes the record in place of the former one.
    pub(super) fn write_record(&self, record: &Record) -> Result<()> {
        record.write(&self.directory.join(RECORD), false)
    }

    /// Writes the record of a start, before which nothing of this incarnation is shipped.
    pub(super) fn begin_record(&self, record: &Record) -> Result<()> {
        record.write(&self.directory.join(RECORD_AT_START), true)?;
        self.write_record(record)
    }

    /// The refusal of the database by this URL; `None` if there is none, or none that can be read.
    pub(super) fn refusal(&self, url: &str) -> Option<Refusal> {
        let refusal: Refusal = serde_json::from_slice(&fs::read(self.directory.join(REFUSAL)).ok()?).ok()?;
        (refusal.url == url).then_some(refusal)
    }

    /// Where the page checksums of the refused database are.
    pub(super) fn refused_sums(&self) -> PathBuf {
        self.directory.join("refused-checksums")
    }

    /// Remembers a refusal, durably.
    pub(super) fn refuse(&self, refusal: &Refusal) -> Result<()> {
        let text = serde_json::to_vec(refusal).map_err(Error::bug)?;
        replace(&self.directory.join(REFUSAL), true, |file| std::io::Write::write_all(file, &text))
    }

    /// Takes the refusal back, durably.
    pub(super) fn accept(&self) -> Result<()> {
        let path = self.directory.join(REFUSAL);
        if !path.exists() {
            return Ok(());
        }
        remove_if_there(&path)?;
        remove_if_there(&self.refused_sums())?;
        sync_directory(&self.directory)
    }
}

/// Why a database was refused (P12). It is a file by itself, since records are written by every start. Beside it are the
/// page checksums that the database had.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Refusal {
    /// By whom.
    pub(super) url: String,
    /// Which file the database was in.
    pub(super) file: FileNumber,
    /// The TXID that its state was found to be of.
    pub(super) txid: String,
    pub(super) why: String,
}

const CLAIM: &str = "claim";
const RECORD: &str = "record";
const RECORD_AT_START: &str = "record-at-start";
const REFUSAL: &str = "refusal";

impl Record {
    /// A record for a new incarnation, knowing the former ones, and the database as they did.
    pub(super) fn begin(url: &str, node: u64, former: Option<&Self>) -> Self {
        let former = former.filter(|f| f.url == url);
        let mut nodes = former.map(|f| f.nodes.clone()).unwrap_or_default();
        nodes.push(node);
        let surplus = nodes.len().saturating_sub(NODES_KEPT);
        nodes.drain(..surplus);
        Self {
            url: url.to_owned(),
            nodes,
            txid: None,
            commit: 0,
            position: None,
            closed: None,
            file: former.and_then(|f| f.file),
            first_page: former.and_then(|f| f.first_page),
        }
    }

    /// The record of a metadata directory; that of the last start if no later one of that incarnation is there.
    pub(super) fn read(directory: &Path) -> Option<Self> {
        let read = |name| serde_json::from_slice::<Self>(&fs::read(directory.join(name)).ok()?).ok();
        match (read(RECORD), read(RECORD_AT_START)) {
            (Some(record), Some(start)) if record.nodes.last() != start.nodes.last() => Some(start),
            (record, start) => record.or(start),
        }
    }

    fn write(&self, path: &Path, durable: bool) -> Result<()> {
        let text = serde_json::to_vec(self).map_err(Error::bug)?;
        replace(path, durable, |file| std::io::Write::write_all(file, &text))
    }

    pub(super) fn txid(&self) -> Option<Txid> {
        self.txid.as_deref().and_then(Txid::parse)
    }
}
