//! Pages kept on disk between processes (R14): frames as they came, in files of one stretch of one object each.
//!
//! A file is only appended to, one write for all frames of a request, and every record carries a checksum over its
//! object, page and bytes. So processes share a directory without locks: what was torn by a crash, written by another
//! program, or belongs to something else fails its checksum and is a miss. The files used last stay within the bound.

use super::index::Frame;
use super::object::ObjectId;
use crate::error::{Error, Result};
use crate::lock::{Mutex, PerProcess};
use crc_fast::{CrcAlgorithm, Digest};
use lru::LruCache;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write;
use std::num::NonZeroUsize;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

/// Bytes of an object whose frames share a file.
const STRETCH: u64 = 4 << 20;
const MAGIC: [u8; 4] = *b"LSPG";
/// Magic, page number, length, checksum.
const RECORD_HEADER: usize = 20;
/// No frame is longer.
const FRAME_BYTES_MAX: usize = 66_000;
/// A stretch takes little more than its bytes, or a few times that if processes write the same frames at the same time.
const FILE_BYTES_MAX: u64 = 8 * STRETCH;
/// Files that are kept open.
const OPEN_FILES: NonZeroUsize = NonZeroUsize::MIN.saturating_add(63);
/// A file that ends in the middle of a record is being written, or was left by a crash, if it is older than that.
const WRITTEN_WITHIN: Duration = Duration::from_secs(60);
/// How exact the time of the last use is.
const TOUCHED_EVERY: Duration = Duration::from_secs(60);
const SUFFIX: &str = ".pages";

/// A directory of pages.
pub(super) struct Disk {
    directory: PathBuf,
    limit: u64,
    state: Mutex<State>,
}

struct State {
    files: LruCache<(ObjectId, u64), Arc<Mutex<Stretch>>>,
    /// Bytes in the directory, as far as this process knows.
    bytes: u64,
    /// What was added since they were counted.
    added: u64,
}

struct Stretch {
    file: File,
    /// Bytes whose records are known.
    known: u64,
    /// Bytes that there were. What is between is a record that another process is writing, or was killed in.
    length: u64,
    frames: HashMap<u32, (u64, u32)>,
}

type Directories = Mutex<BTreeMap<PathBuf, Weak<Disk>>>;
static DIRECTORIES: PerProcess<Directories> = PerProcess::new();

impl Disk {
    /// The cache in a directory, made if it is not there, of `limit` bytes.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn open(directory: &Path, limit: u64) -> Result<Arc<Self>> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .and_then(|()| fs::read_dir(directory).map(|_| ()))
            .map_err(|error| Error::io(format!("the cache directory {}", directory.display()), &error))?;
        let mut directories = DIRECTORIES.get().lock();
        if let Some(disk) = directories.get(directory).and_then(Weak::upgrade) {
            return Ok(disk);
        }
        let state = State { files: LruCache::new(OPEN_FILES), bytes: 0, added: 0 };
        let disk = Arc::new(Self { directory: directory.to_owned(), limit, state: Mutex::new(state) });
        disk.make_room();
        directories.insert(directory.to_owned(), Arc::downgrade(&disk));
        Ok(disk)
    }

    /// The bytes of a frame, if they are here and are what was stored.
    pub fn get(&self, frame: &Frame) -> Option<Vec<u8>> {
        let stretch = self.stretch(frame, false)?;
        let mut stretch = stretch.lock();
        if !stretch.frames.contains_key(&frame.pgno.get()) && stretch.read_on(&frame.object.id).is_none() {
            drop(stretch);
            self.forget(frame);
            return None;
        }
        let (at, len) = *stretch.frames.get(&frame.pgno.get())?;
        if len != frame.len {
            return None;
        }
        let mut bytes = vec![0; RECORD_HEADER + len as usize];
        stretch.file.read_exact_at(&mut bytes, at).ok()?;
        if let Parsed::Record(pgno, frame_bytes) = parse(&frame.object.id, &bytes)
            && pgno == frame.pgno.get()
        {
            return Some(frame_bytes.to_vec());
        }
        // It was changed since its records were read.
        drop(stretch);
        self.forget(frame);
        None
    }

    /// Keeps frames. What cannot be written is not kept: a cache is no reason to fail.
    pub fn put(&self, frames: &[(&Frame, &[u8])]) {
        let mut rest = frames;
        while let Some((first, _)) = rest.first() {
            let number = first.offset / STRETCH;
            let count = rest.iter().take_while(|(frame, _)| frame.offset / STRETCH == number).count();
            let (now, after) = rest.split_at(count);
            if let Err(error) = self.append(first, now) {
                log::warn!("{}: {error}", self.directory.display());
            }
            rest = after;
        }
    }

    fn append(&self, first: &Frame, frames: &[(&Frame, &[u8])]) -> std::io::Result<()> {
        let Some(stretch) = self.stretch(first, true) else { return Ok(()) };
        let mut records = Vec::new();
        let written = {
            let mut stretch = stretch.lock();
            let is_ours = stretch.read_on(&first.object.id).is_some();
            for (frame, bytes) in frames.iter().filter(|(frame, _)| !stretch.frames.contains_key(&frame.pgno.get())) {
                record(&mut records, frame, bytes);
            }
            if !is_ours {
                Err(None)
            } else if stretch.known < stretch.length || stretch.length + records.len() as u64 > FILE_BYTES_MAX {
                // Behind a record that stays torn nothing would be found, and the file would never be seen to be old.
                return Ok(());
            } else {
                // One write, at the end of the file, wherever other processes have moved it.
                stretch.file.write_all(&records).map_err(Some)
            }
        };
        if let Err(error) = written {
            self.forget(first);
            return error.map_or(Ok(()), Err);
        }
        let is_much = {
            let mut state = self.state.lock();
            state.bytes += records.len() as u64;
            state.added += records.len() as u64;
            state.bytes > self.limit || state.added > self.limit / 8
        };
        if is_much {
            self.make_room();
        }
        Ok(())
    }

    /// The open file of the stretch that a frame is in.
    fn stretch(&self, frame: &Frame, create: bool) -> Option<Arc<Mutex<Stretch>>> {
        let key = (frame.object.id, frame.offset / STRETCH);
        if let Some(stretch) = self.state.lock().files.get(&key) {
            return Some(Arc::clone(stretch));
        }
        let path = self.path(&key);
        // What is found to be something else is removed; then it is made anew.
        for _ in 0..2 {
            let opened = OpenOptions::new().read(true).append(true).create(create).mode(0o600).open(&path);
            let file = match opened {
                Ok(file) => file,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
                Err(error) => {
                    log::warn!("{}: {error}", path.display());
                    return None;
                }
            };
            let mut stretch = Stretch { file, known: 0, length: 0, frames: HashMap::new() };
            if stretch.read_on(&key.0).is_some() {
                stretch.touch();
                let stretch = Arc::new(Mutex::new(stretch));
                self.state.lock().files.put(key, Arc::clone(&stretch));
                return Some(stretch);
            }
            self.forget(frame);
        }
        None
    }

    fn path(&self, (id, number): &(ObjectId, u64)) -> PathBuf {
        let id: String = id.bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        self.directory.join(format!("{id}-{number:x}{SUFFIX}"))
    }

    /// Removes a file that has something else in it.
    fn forget(&self, frame: &Frame) {
        let key = (frame.object.id, frame.offset / STRETCH);
        self.state.lock().files.pop(&key);
        let _ = fs::remove_file(self.path(&key));
    }

    /// Counts what is there, whichever process made it, and removes what was not used for longest.
    fn make_room(&self) {
        let Ok(rows) = fs::read_dir(&self.directory) else { return };
        let mut files: Vec<_> = rows
            .filter_map(std::result::Result::ok)
            .filter(|row| row.file_name().to_str().is_some_and(|name| name.ends_with(SUFFIX)))
            .filter_map(|row| {
                let stat = row.metadata().ok()?;
                Some((stat.modified().ok()?, stat.len(), row.path()))
            })
            .collect();
        files.sort();
        let mut bytes: u64 = files.iter().map(|(_, size, _)| size).sum();
        let mut removed = false;
        // A tenth less than the bound, so that it is not done for every page.
        let wanted = if bytes > self.limit { self.limit / 10 * 9 } else { self.limit };
        for (_, size, path) in files {
            if bytes <= wanted {
                break;
            }
            if fs::remove_file(&path).is_ok() {
                bytes -= size;
                removed = true;
            }
        }
        let mut state = self.state.lock();
        (state.bytes, state.added) = (bytes, 0);
        if removed {
            // Open files that have no name any more would grow unseen.
            state.files.clear();
        }
    }
}

impl Stretch {
    /// Takes in the records that were appended, by whomever; `None` if the file holds something else.
    fn read_on(&mut self, id: &ObjectId) -> Option<()> {
        let stat = self.file.metadata().ok()?;
        self.length = stat.len();
        if self.length > FILE_BYTES_MAX {
            return None;
        }
        let length = usize::try_from(self.length.checked_sub(self.known)?).ok()?;
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, self.known).ok()?;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            match parse(id, rest) {
                Parsed::Record(pgno, frame) => {
                    self.frames.insert(pgno, (self.known, frame.len() as u32));
                    let record = RECORD_HEADER + frame.len();
                    self.known += record as u64;
                    rest = rest.get(record..)?;
                }
                Parsed::Start => {
                    let age = stat.modified().ok().and_then(|time| SystemTime::now().duration_since(time).ok());
                    // Perhaps another process is in the middle of its write.
                    return age.is_none_or(|age| age < WRITTEN_WITHIN).then_some(());
                }
                Parsed::Else => return None,
            }
        }
        Some(())
    }

    /// It is used. One that ends in the middle of a record keeps its time, which tells what to think of that.
    fn touch(&self) {
        let now = SystemTime::now();
        let used = self.file.metadata().and_then(|stat| stat.modified()).unwrap_or(now);
        if self.known == self.length && now.duration_since(used).is_ok_and(|age| age > TOUCHED_EVERY) {
            let _ = self.file.set_modified(now);
        }
    }
}

fn record(records: &mut Vec<u8>, frame: &Frame, bytes: &[u8]) {
    records.extend_from_slice(&MAGIC);
    records.extend_from_slice(&frame.pgno.get().to_be_bytes());
    records.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    records.extend_from_slice(&checksum(&frame.object.id, frame.pgno.get(), bytes).to_be_bytes());
    records.extend_from_slice(bytes);
}

/// What bytes begin with.
enum Parsed<'a> {
    /// A record: its page, and its frame.
    Record(u32, &'a [u8]),
    /// The start of one.
    Start,
    /// Something else.
    Else,
}

fn parse<'a>(id: &ObjectId, bytes: &'a [u8]) -> Parsed<'a> {
    let Some((header, rest)) = bytes.split_first_chunk::<RECORD_HEADER>() else {
        return if bytes.iter().zip(&MAGIC).all(|(byte, magic)| byte == magic) { Parsed::Start } else { Parsed::Else };
    };
    let [m0, m1, m2, m3, p0, p1, p2, p3, l0, l1, l2, l3, sum @ ..] = *header;
    let (pgno, length) = (u32::from_be_bytes([p0, p1, p2, p3]), u32::from_be_bytes([l0, l1, l2, l3]) as usize);
    if [m0, m1, m2, m3] != MAGIC || length > FRAME_BYTES_MAX {
        return Parsed::Else;
    }
    match rest.get(..length) {
        None => Parsed::Start,
        Some(frame) if u64::from_be_bytes(sum) == checksum(id, pgno, frame) => Parsed::Record(pgno, frame),
        Some(_) => Parsed::Else,
    }
}

fn checksum(id: &ObjectId, pgno: u32, frame: &[u8]) -> u64 {
    let mut digest = Digest::new(CrcAlgorithm::Crc64GoIso);
    digest.update(id.bytes());
    digest.update(&pgno.to_be_bytes());
    digest.update(frame);
    digest.finalize()
}
