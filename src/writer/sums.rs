//! The checksum of each page of the state after one TXID (P12), and their XOR, the rolling checksum (P21).
//!
//! It says which pages differ after a gap. On disk it is one file, written whole, which carries its TXID and its own
//! checksum; newer spool files bring it forward, and a damaged one counts as absent.

use crate::error::{Context, Error, Result};
use crate::ltx::{Decoder, PageSize, Pgno, Rolling, Txid, page_checksum};
use std::io::{BufReader, Write};
use std::path::Path;

const MAGIC: &[u8; 8] = b"lsums\0\0\x01";
const HEAD: usize = 24;

/// One checksum per page; 0 for the lock page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) page_size: PageSize,
    pages: Vec<u64>,
    rolling: Rolling,
}

impl Sums {
    pub(super) fn new(page_size: PageSize) -> Self {
        Self { page_size, pages: Vec::new(), rolling: Rolling::EMPTY }
    }

    /// From a table of checksums by page, 0 where there is none.
    pub(super) fn from_pages(page_size: PageSize, pages: Vec<u64>) -> Self {
        let mut rolling = Rolling::EMPTY;
        for sum in pages.iter().filter(|s| **s != 0) {
            rolling.add(*sum);
        }
        Self { page_size, pages, rolling }
    }

    /// The database's checksum.
    pub(super) fn rolling(&self) -> u64 {
        self.rolling.get()
    }

    /// The database's size in pages.
    pub(super) fn commit(&self) -> u32 {
        self.pages.len() as u32
    }

    /// The page's checksum; 0 if there is none.
    pub(super) fn get(&self, pgno: u32) -> u64 {
        self.pages.get(pgno as usize - 1).copied().unwrap_or(0)
    }

    /// Sets a page's checksum.
    pub(super) fn set(&mut self, pgno: Pgno, sum: u64) {
        if self.pages.len() <= pgno.index() {
            self.pages.resize(pgno.index() + 1, 0);
        }
        let old = std::mem::replace(&mut self.pages[pgno.index()], sum);
        if old != 0 {
            self.rolling.remove(old);
        }
        self.rolling.add(sum);
    }

    /// The database has this many pages now.
    pub(super) fn resize(&mut self, commit: u32) {
        for sum in self.pages.drain((commit as usize).min(self.pages.len())..) {
            if sum != 0 {
                self.rolling.remove(sum);
            }
        }
        self.pages.resize(commit as usize, 0);
    }

    /// Bytes of the file.
    pub(super) fn file_size(&self) -> u64 {
        (HEAD + self.pages.len() * 8 + 8) as u64
    }

    /// Writes the file for the state after `txid`, in place of the former one.
    pub(super) fn write(&self, path: &Path, txid: Txid) -> Result<()> {
        let mut bytes = Vec::with_capacity(self.file_size() as usize);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&txid.get().to_be_bytes());
        bytes.extend_from_slice(&self.page_size.get().to_be_bytes());
        bytes.extend_from_slice(&self.commit().to_be_bytes());
        for sum in &self.pages {
            bytes.extend_from_slice(&sum.to_be_bytes());
        }
        bytes.extend_from_slice(&page_checksum(Pgno::FIRST, &bytes).to_be_bytes());
        super::spool::replace(path, true, |file| file.write_all(&bytes))
    }

    /// Reads the file; `None` if it is absent or damaged.
    pub(super) fn read(path: &Path) -> Option<(Self, Txid)> {
        let bytes = std::fs::read(path).ok()?;
        let (body, sum) = bytes.split_last_chunk::<8>()?;
        if page_checksum(Pgno::FIRST, body) != u64::from_be_bytes(*sum) {
            return None;
        }
        let (head, pages) = body.split_first_chunk::<HEAD>()?;
        let txid = Txid::new(u64::from_be_bytes(*head[8..].first_chunk()?))?;
        let page_size = PageSize::new(u32::from_be_bytes(*head[16..].first_chunk()?)).ok()?;
        let commit = u32::from_be_bytes(*head[20..].first_chunk()?);
        if head[..8] != MAGIC[..] || pages.len() != commit as usize * 8 {
            return None;
        }
        let pages = pages.as_chunks().0.iter().map(|chunk| u64::from_be_bytes(*chunk)).collect();
        Some((Self::from_pages(page_size, pages), txid))
    }

    /// Brings the table forward over an LTX file.
    pub(super) fn apply(&mut self, path: &Path) -> Result<()> {
        let name = || path.display().to_string();
        let file = std::fs::File::open(path).with_context(name)?;
        let mut decoder = Decoder::new(BufReader::new(file)).with_context(name)?;
        let header = *decoder.header();
        if header.page_size != self.page_size {
            return Err(Error::corrupt(format!("{}: another page size", name())));
        }
        let mut page = vec![0; self.page_size.bytes()];
        let mut changes = Vec::new();
        while let Some(pgno) = decoder.next_page(&mut page).with_context(name)? {
            changes.push((pgno, page_checksum(pgno, &page)));
        }
        decoder.finish().with_context(name)?;
        self.resize(header.commit);
        for (pgno, sum) in changes {
            self.set(pgno, sum);
        }
        Ok(())
    }
}
