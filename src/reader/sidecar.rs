//! What lies beside a file that a replica is copied into (R13): of each page the object that it came from, and a
//! checksum over the page, bound to that object.
//!
//! A page counts if it fits its checksum, whatever became of the files since. A process that was killed, a power cut or
//! somebody who wrote into the copy leaves pages that do not, and these are not there. So no write has to come before
//! another one, and nothing is synced while pages come. Only a copy that was closed in order, with all of it synced, and
//! is still the same file is trusted without being read.
//!
//! Big-endian words of 8 bytes: magic, page size, inode, size, mtime and ctime of the copy as it was left (0 while it is
//! written), checksum of these, 0; then for each page the object's stamp, and the page's checksum XOR that stamp: halves
//! of two entries fit no page.

use super::index::Frame;
use crate::ltx::{Checksum, Pgno};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const MAGIC: u64 = u64::from_be_bytes(*b"LSCOPY\x00\x01");
const HEADER_SIZE: usize = 64;
const ENTRY_SIZE: usize = 16;

/// Names the object that a page came from. It is not 0, and its lowest bit is.
pub(super) type Stamp = u64;

pub(super) fn stamp_of(frame: &Frame) -> Stamp {
    let first = frame.object.id.bytes().first_chunk().copied().unwrap_or_default();
    u64::from_be_bytes(first) & !1 | 2
}

/// What tells that a file has the content with which it was left. (Device numbers change at a reboot.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Left([u64; 4]);

impl Left {
    fn of(file: &File) -> io::Result<Self> {
        let stat = file.metadata()?;
        let nanos = |seconds: i64, nanos: i64| (seconds as u64).wrapping_mul(1_000_000_000).wrapping_add(nanos as u64);
        let (modified, changed) = (nanos(stat.mtime(), stat.mtime_nsec()), nanos(stat.ctime(), stat.ctime_nsec()));
        Ok(Self([stat.ino(), stat.size(), modified, changed]))
    }
}

/// The file of stamps and checksums.
pub(super) struct Sidecar {
    file: File,
    pub page_size: u32,
}

impl Sidecar {
    /// Of a copy that was made before.
    pub fn existing(path: &Path) -> io::Result<Option<Self>> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut sidecar = Self { file, page_size: 0 };
        let Some((page_size, _)) = sidecar.header() else { return Ok(None) };
        sidecar.page_size = page_size;
        Ok(Some(sidecar))
    }

    /// Of a copy that has no page yet.
    pub fn new(path: &Path, page_size: u32) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(path)?;
        let sidecar = Self { file, page_size };
        sidecar.write_header(Left::default())?;
        Ok(sidecar)
    }

    fn header(&self) -> Option<(u32, Left)> {
        let mut bytes = [0; HEADER_SIZE];
        self.file.read_exact_at(&mut bytes, 0).ok()?;
        let words = words(&bytes);
        let [magic, page_size, inode, size, modified, changed, sum, _] = *words.first_chunk()?;
        let is_ours = magic == MAGIC && sum == Checksum::of_parts(&[bytes.get(..48)?]).get();
        Some((u32::try_from(page_size).ok().filter(|_| is_ours)?, Left([inode, size, modified, changed])))
    }

    fn write_header(&self, left: Left) -> io::Result<()> {
        let Left([inode, size, modified, changed]) = left;
        let mut bytes = Vec::with_capacity(HEADER_SIZE);
        for word in [MAGIC, u64::from(self.page_size), inode, size, modified, changed] {
            bytes.extend(word.to_be_bytes());
        }
        bytes.extend(Checksum::of_parts(&[&bytes]).get().to_be_bytes());
        bytes.resize(HEADER_SIZE, 0);
        self.file.write_all_at(&bytes, 0)
    }

    /// The stamps of all pages, and whether the copy is the one that was left. From now on it may be another one.
    pub fn begin(&self, copy: &File) -> io::Result<(Vec<Stamp>, bool)> {
        let left = self.header().map_or(Left::default(), |(_, left)| left);
        let is_as_left = left != Left::default() && left == Left::of(copy)?;
        if left != Left::default() {
            self.write_header(Left::default())?;
            self.file.sync_data()?;
        }
        let pages = self.file.metadata()?.len().saturating_sub(HEADER_SIZE as u64) / ENTRY_SIZE as u64;
        let mut stamps = Vec::with_capacity(pages as usize);
        let mut bytes = vec![0; 4096 * ENTRY_SIZE];
        while (stamps.len() as u64) < pages {
            let count = (pages as usize - stamps.len()).min(4096);
            let Some(chunk) = bytes.get_mut(..count * ENTRY_SIZE) else { break };
            self.file.read_exact_at(chunk, (HEADER_SIZE + stamps.len() * ENTRY_SIZE) as u64)?;
            stamps.extend(words(chunk).iter().step_by(2).map(|stamp| stamp & !1));
        }
        Ok((stamps, is_as_left))
    }

    /// The copy is closed, and is trusted as it is now.
    pub fn end(&self, copy: &File) -> io::Result<()> {
        copy.sync_data()?;
        self.file.sync_data()?;
        self.write_header(Left::of(copy)?)?;
        self.file.sync_data()
    }

    /// The checksum that a page has if it came from there.
    pub fn sum(&self, pgno: Pgno, stamp: Stamp) -> io::Result<u64> {
        let mut bytes = [0; ENTRY_SIZE];
        self.file.read_exact_at(&mut bytes, place(pgno))?;
        Ok(words(&bytes).get(1).map_or(0, |bound| bound ^ stamp))
    }

    /// Says of pages, with their checksums, that they came from there.
    pub fn put(&self, stamp: Stamp, pages: &[(Pgno, u64)]) -> io::Result<()> {
        for neighbours in pages.chunk_by(|(left, _), (right, _)| left.get() + 1 == right.get()) {
            let Some((first, _)) = neighbours.first() else { continue };
            let entries = neighbours.iter().flat_map(|(_, sum)| [stamp, sum ^ stamp]);
            self.file.write_all_at(&entries.flat_map(u64::to_be_bytes).collect::<Vec<_>>(), place(*first))?;
        }
        Ok(())
    }

    pub fn truncate(&self, pages: u32) -> io::Result<()> {
        let size = HEADER_SIZE as u64 + u64::from(pages) * ENTRY_SIZE as u64;
        if self.file.metadata()?.len() > size { self.file.set_len(size) } else { Ok(()) }
    }
}

fn place(pgno: Pgno) -> u64 {
    (HEADER_SIZE + pgno.index() * ENTRY_SIZE) as u64
}

fn words(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks_exact(8).filter_map(|word| word.first_chunk().copied().map(u64::from_be_bytes)).collect()
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
