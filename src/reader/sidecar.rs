//! What lies beside a file that a replica is copied into (R13): of each page the object that it came from, and a
//! checksum over the page, bound to that object.
//!
//! A page counts if it fits its checksum, whatever became of the files since. A process that was killed, a power cut or
//! somebody who wrote into the copy leaves pages that do not, and these are not there. So no write has to come before
//! another one, nothing is synced while pages come, and no end in order is needed.
//!
//! Big-endian words of 8 bytes: magic, page size; then for each page the object's stamp, and the page's checksum XOR that
//! stamp: halves of two entries fit no page.

use super::index::Frame;
use crate::ltx::Pgno;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const MAGIC: u64 = u64::from_be_bytes(*b"LSCOPY\x00\x01");
const HEADER_SIZE: usize = 16;
const ENTRY_SIZE: usize = 16;

/// Names the object that a page came from. It is not 0; its lowest bit is.
pub(super) type Stamp = u64;

pub(super) fn stamp_of(frame: &Frame) -> Stamp {
    let first = frame.object.id.bytes().first_chunk().copied().unwrap_or_default();
    u64::from_be_bytes(first) & !1 | 2
}

/// The file of stamps and checksums.
pub(super) struct Sidecar {
    file: File,
    pub page_size: u32,
}

impl Sidecar {
    /// Of a copy that was made before. Who was killed at the begin of one, or lost power, may have left an empty file, or
    /// zeros.
    pub fn existing(path: &Path) -> io::Result<Option<Self>> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut header = [0; HEADER_SIZE];
        let is_ours = file.read_exact_at(&mut header, 0).is_ok() && words(&header).first() == Some(&MAGIC);
        if header.iter().any(|byte| *byte != 0) && !is_ours {
            return Err(io::Error::other(
                "is there and was not made by hydration: name another hydrate_path, or remove it",
            ));
        }
        let page_size = words(&header).get(1).and_then(|size| u32::try_from(*size).ok());
        Ok(page_size.filter(|_| is_ours).map(|page_size| Self { file, page_size }))
    }

    /// Of a copy that has no page yet. It is durable: without it the copy would be somebody's database after a power cut.
    pub fn new(path: &Path, page_size: u32) -> io::Result<Self> {
        // Another process may have one open, beside a copy that was removed.
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        let header: Vec<u8> = [MAGIC, u64::from(page_size)].into_iter().flat_map(u64::to_be_bytes).collect();
        file.write_all_at(&header, 0)?;
        file.sync_all()?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()?;
        Ok(Self { file, page_size })
    }

    /// The stamps of the first pages, 0 where there is none.
    pub fn stamps(&self, pages: u64) -> io::Result<Vec<Stamp>> {
        let entries = self.file.metadata()?.len().saturating_sub(HEADER_SIZE as u64) / ENTRY_SIZE as u64;
        let mut left = entries.min(pages) as usize;
        let mut stamps = Vec::with_capacity(left);
        let mut bytes = vec![0; 4096 * ENTRY_SIZE];
        while left > 0 {
            let count = left.min(4096);
            let Some(chunk) = bytes.get_mut(..count * ENTRY_SIZE) else { break };
            self.file.read_exact_at(chunk, (HEADER_SIZE + stamps.len() * ENTRY_SIZE) as u64)?;
            stamps.extend(words(chunk).iter().step_by(2).map(|stamp| stamp & !1));
            left -= count;
        }
        Ok(stamps)
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
