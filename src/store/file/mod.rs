//! `file://`: a directory, in Litestream's layout (FORMATS 9), on a local or a shared file system.
//!
//! Objects become visible whole: written beside their place as `.….tmp`, synced, then linked (create) or renamed
//! (replace), then the directory is synced. The mtime is the timestamp, in milliseconds, as Litestream has it; further
//! pairs are in `<name>.meta` ([`sidecar`]). `*.tmp`, `*.meta` and `.lock` ([`lock`]) are ours and never listed.
//!
//! There are no retries: a local file system that fails says so at once. ENOSPC is [`Kind::Full`].

mod lock;
mod root;
mod settled;
mod sidecar;
mod staged;

use super::names::{check_key, check_metadata};
use super::tally::Tally;
use super::{Counters, ETag, Ending, Entry, Gate, Metadata, Object, Put, Start, Store, Upload};
use crate::error::{Error, Kind, Result};
use crate::time::Timestamp;
use root::Root;
use settled::settled;
use staged::{Condition, Staged};
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A walk goes no deeper: symbolic links may make circles.
const DEPTH_MAX: usize = 32;

/// A store in a directory.
pub struct FileStore {
    root: Arc<Root>,
    url: String,
    tally: Arc<Tally>,
    gate: Option<Gate>,
}

/// A failed operation on a path of the store.
fn failed(what: &str, path: &Path, error: &io::Error) -> Error {
    if error.kind() == io::ErrorKind::PermissionDenied {
        return Error::new(Kind::Denied, format!("{what} {}: {error}", path.display()));
    }
    Error::io(format!("{what} {}", path.display()), error)
}

/// Whether the error means that no object is there.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// What is the store's own, not an object.
fn is_hidden(name: &str) -> bool {
    name == lock::NAME || name.ends_with(staged::SUFFIX) || name.ends_with(sidecar::SUFFIX)
}

fn etag(stat: &fs::Metadata) -> ETag {
    let mtime_ns = i128::from(stat.mtime()) * 1_000_000_000 + i128::from(stat.mtime_nsec());
    ETag(format!("\"{:x}-{:x}-{mtime_ns:x}\"", stat.ino(), stat.size()))
}

fn modified(stat: &fs::Metadata) -> Timestamp {
    Timestamp(stat.mtime().saturating_mul(1000).saturating_add(stat.mtime_nsec() / 1_000_000))
}

impl FileStore {
    /// A store below `root`, an absolute path, which is created by the first write.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        let url = format!("file://{}", root.display());
        Self { root: Arc::new(Root::new(root)), url, tally: Arc::default(), gate: None }
    }

    /// Asked before each change (P24).
    #[must_use]
    pub fn with_gate(self, gate: Option<Gate>) -> Self {
        Self { gate, ..self }
    }

    fn ask_gate(&self) -> Result<()> {
        self.gate.as_ref().map_or(Ok(()), |gate| gate())
    }

    fn path(&self, key: &str) -> Result<PathBuf> {
        check_key(key)?;
        if key.rsplit('/').next().is_none_or(is_hidden) {
            return Err(Error::invalid(format!(
                "object key {key:?}: names that end in .tmp or .meta, and .lock, are the store's own"
            )));
        }
        Ok(self.root.path().join(key))
    }

    fn open(&self, key: &str) -> Result<Option<(File, fs::Metadata)>> {
        let path = self.path(key)?;
        let opened = File::open(&path).and_then(|file| settled(key, || file.metadata()).map(|stat| (file, stat)));
        match opened {
            Ok((file, stat)) => Ok(stat.is_file().then_some((file, stat))),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(failed("open", &path, &error)),
        }
    }

    /// For one GET.
    fn open_matching(&self, key: &str, if_match: Option<&ETag>) -> Result<(File, fs::Metadata)> {
        Tally::one(&self.tally.get);
        let (file, stat) = self.open(key)?.ok_or_else(|| super::no_object(&self.url, key))?;
        if if_match.is_some_and(|expected| etag(&stat) != *expected) {
            return Err(super::replaced(&self.url, key));
        }
        Ok((file, stat))
    }

    fn write(&self, key: &str, bytes: &[u8], metadata: &Metadata, condition: Condition<'_>) -> Result<Put> {
        check_metadata(metadata)?;
        self.root.check()?;
        Tally::one(&self.tally.put);
        let mut staged = Staged::create(self.path(key)?)?;
        staged.write(bytes)?;
        Tally::bytes(&self.tally.bytes_out, bytes.len());
        self.ask_gate()?;
        let put = staged.publish(metadata, condition)?;
        self.root.saw([key].into_iter());
        Ok(put)
    }

    /// What HEAD tells of an open object.
    fn object(&self, key: &str, file: &File, stat: &fs::Metadata) -> Result<Object> {
        let pairs = sidecar::read(&self.path(key)?, file, stat.size())?.unwrap_or_default();
        let modified = modified(stat);
        let metadata = Metadata { timestamp: Some(modified), pairs };
        Ok(Object { size: stat.size(), modified, etag: etag(stat), metadata })
    }

    /// Reads bytes that its size says are there, which bounds the buffer.
    fn read(&self, key: &str, file: &File, range: Range<u64>) -> Result<Vec<u8>> {
        let length = range.end.saturating_sub(range.start);
        let length =
            usize::try_from(length).map_err(|_| super::too_large(&self.url, key, length, usize::MAX as u64))?;
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, range.start).map_err(|e| failed("read", &self.root.path().join(key), &e))?;
        Tally::bytes(&self.tally.bytes_in, length);
        Ok(bytes)
    }

    /// Collects the objects below `dir`, whose key is `base` (empty or with a slash at its end).
    fn walk(&self, dir: &Path, base: &str, prefix: &str, depth: usize, found: &mut Vec<Entry>) -> Result<()> {
        let rows = match fs::read_dir(dir) {
            Ok(rows) => rows,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed("list", dir, &error)),
        };
        for row in rows {
            let row = row.map_err(|e| failed("list", dir, &e))?;
            // A name that is not UTF-8 cannot be a key of ours.
            let Ok(name) = row.file_name().into_string() else { continue };
            let (key, below) = (format!("{base}{name}"), format!("{base}{name}/"));
            if is_hidden(&name) || !(key.starts_with(prefix) || below.starts_with(prefix) || prefix.starts_with(&below))
            {
                continue;
            }
            let stat = match settled(&name, || fs::metadata(row.path())) {
                Ok(stat) => stat,
                Err(error) if is_absent(&error) => continue, // removed since it was listed
                Err(error) => return Err(failed("stat", &row.path(), &error)),
            };
            if stat.is_dir() && depth < DEPTH_MAX {
                self.walk(&row.path(), &below, prefix, depth + 1, found)?;
            } else if stat.is_file() && key.starts_with(prefix) {
                found.push(Entry { key, size: stat.size(), modified: modified(&stat), etag: Some(etag(&stat)) });
            }
        }
        Ok(())
    }
}

impl Store for FileStore {
    fn url(&self) -> &str {
        &self.url
    }

    fn list(&self, prefix: &str) -> Result<Vec<Entry>> {
        Tally::one(&self.tally.list);
        self.root.check()?;
        let base = prefix.rsplit_once('/').map_or("", |(dir, _)| prefix.get(..=dir.len()).unwrap_or_default());
        let dir = if base.is_empty() {
            self.root.path().to_owned()
        } else {
            check_key(base.trim_end_matches('/'))?;
            self.root.path().join(base)
        };
        let mut found = Vec::new();
        self.walk(&dir, base, prefix, 0, &mut found)?;
        found.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        self.root.saw(found.iter().map(|entry| entry.key.as_str()));
        Ok(found)
    }

    fn head(&self, key: &str) -> Result<Option<Object>> {
        Tally::one(&self.tally.head);
        let Some((file, stat)) = self.open(key)? else { return Ok(None) };
        self.object(key, &file, &stat).map(Some)
    }

    fn get(&self, key: &str, limit: u64) -> Result<Option<(Vec<u8>, ETag)>> {
        Tally::one(&self.tally.get);
        let Some((file, stat)) = self.open(key)? else { return Ok(None) };
        if stat.size() > limit {
            return Err(super::too_large(&self.url, key, stat.size(), limit));
        }
        // One byte more than is expected: the read that finds it missing ends the file.
        let mut bytes = Vec::with_capacity(usize::try_from(stat.size()).unwrap_or(0) + 1);
        let read =
            file.take(limit).read_to_end(&mut bytes).map_err(|e| failed("read", &self.root.path().join(key), &e))?;
        Tally::bytes(&self.tally.bytes_in, read);
        Ok(Some((bytes, etag(&stat))))
    }

    fn get_range(&self, key: &str, range: Range<u64>, if_match: Option<&ETag>) -> Result<Vec<u8>> {
        let (file, stat) = self.open_matching(key, if_match)?;
        self.read(key, &file, range.start..range.end.min(stat.size()))
    }

    fn get_start(&self, key: &str, length: u64, if_match: Option<&ETag>) -> Result<Start> {
        let (file, stat) = self.open_matching(key, if_match)?;
        let bytes = self.read(key, &file, 0..length.min(stat.size()))?;
        // They are a help: what cannot be read keeps nobody from the object.
        let pairs = sidecar::read(&self.path(key)?, &file, stat.size()).unwrap_or_else(|error| {
            log::warn!("{error}");
            Some(Vec::new())
        });
        Ok(Start { bytes, has_strays: pairs.is_none(), pairs: pairs.unwrap_or_default() })
    }

    fn get_end(&self, key: &str, length: u64) -> Result<Option<Ending>> {
        Tally::one(&self.tally.get);
        let Some((file, stat)) = self.open(key)? else { return Ok(None) };
        let bytes = self.read(key, &file, stat.size().saturating_sub(length)..stat.size())?;
        Ok(Some(Ending { object: self.object(key, &file, &stat)?, bytes }))
    }

    fn put(&self, key: &str, bytes: &[u8], metadata: &Metadata) -> Result<ETag> {
        match self.write(key, bytes, metadata, Condition::None)? {
            Put::Done(etag) => Ok(etag),
            Put::Refused => Err(Error::bug("an unconditional write was refused")),
        }
    }

    fn put_if_absent(&self, key: &str, bytes: &[u8], metadata: &Metadata) -> Result<Put> {
        self.write(key, bytes, metadata, Condition::Absent)
    }

    fn put_if_match(&self, key: &str, bytes: &[u8], metadata: &Metadata, etag: &ETag) -> Result<Put> {
        self.write(key, bytes, metadata, Condition::Match(etag))
    }

    fn upload(&self, key: &str, metadata: &Metadata, _expected: u64) -> Result<Box<dyn Upload>> {
        check_metadata(metadata)?;
        self.root.check()?;
        Tally::one(&self.tally.put);
        let staged = Staged::create(self.path(key)?)?;
        Ok(Box::new(FileUpload {
            staged,
            metadata: metadata.clone(),
            tally: Arc::clone(&self.tally),
            gate: self.gate.clone(),
            root: Arc::clone(&self.root),
            key: key.to_owned(),
        }))
    }

    fn delete(&self, key: &str) -> Result<()> {
        Tally::one(&self.tally.delete);
        let path = self.path(key)?;
        self.ask_gate()?;
        staged::remove(&path)
    }

    fn copy(&self, from: &str, to: &str, metadata: &Metadata) -> Result<Put> {
        check_metadata(metadata)?;
        Tally::one(&self.tally.put);
        let (file, _) = self.open(from)?.ok_or_else(|| super::no_object(&self.url, from))?;
        let mut staged = Staged::create(self.path(to)?)?;
        staged.fill(file)?;
        self.ask_gate()?;
        staged.publish(metadata, Condition::Absent)
    }

    fn sweep(&self) -> Result<usize> {
        let before = Timestamp(Timestamp::now().0.saturating_sub(super::SWEEP_AGE_MS));
        staged::remove_older(self.root.path(), before, 0)
    }

    fn clock_offset_ms(&self) -> i64 {
        0
    }

    fn counters(&self) -> Counters {
        self.tally.read()
    }
}

struct FileUpload {
    staged: Staged,
    metadata: Metadata,
    tally: Arc<Tally>,
    gate: Option<Gate>,
    root: Arc<Root>,
    key: String,
}

impl Upload for FileUpload {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.staged.write(bytes)?;
        Tally::bytes(&self.tally.bytes_out, bytes.len());
        Ok(())
    }

    fn finish_if_absent(self: Box<Self>) -> Result<Put> {
        self.gate.as_ref().map_or(Ok(()), |gate| gate())?;
        let put = self.staged.publish(&self.metadata, Condition::Absent)?;
        self.root.saw([self.key.as_str()].into_iter());
        Ok(put)
    }
}
