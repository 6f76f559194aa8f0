//! Merging forward: the bound of the spool while the store is away (P18).
//!
//! A running primary makes no file before the former one is in the store; what is committed meanwhile stays in the open
//! batch, which holds each page once. But a close must leave everything in files. Below the bound each makes a further
//! one; at the bound the batch is merged into the newest file, which keeps its TXID, if its upload was never begun.
//!
//! Which file that is stands in a mark on disk, made after the file and taken away, durably, before its upload begins: a
//! file without the mark is never changed again. A merge is one rename of a whole file, whose header has its position in
//! the WAL. After a stop right behind it the record has the position before; from there capture reads again what was
//! merged, so the same pages may be shipped once more, by a later TXID, and never older ones. The checksum file never
//! describes a file that is still open.

use super::encode::{Into, Staged, Work};
use super::primary::Primary;
use crate::config::SPOOL_MIN;
use crate::error::{Context, Error, Result};
use crate::ltx::Decoder;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Staged files beyond which none is added while one is open.
const SPOOL_FILES: usize = 64;

impl Primary {
    /// At a close: what was captured goes into the spool.
    pub(super) fn encode_rest(&self, work: &mut Work) -> Result<()> {
        let (batch, commit) = {
            let capture = self.capture.lock();
            if capture.batch.is_empty() {
                return Ok(());
            }
            (capture.batch.pages.bytes(), capture.batch.commit)
        };
        let image = u64::from(commit) * u64::from(self.page_size().get());
        let bound = self.options.spool_max.unwrap_or_else(|| image.max(SPOOL_MIN));
        let full = work.staged.len() >= SPOOL_FILES || self.staged_bytes(work)? + batch > bound;
        if let (Some(open), true) = (work.open, full) {
            self.encode_batch(work, Into::Newest(open))?;
        } else if self.encode_batch(work, Into::Next)? {
            self.open_newest(work)?;
        }
        Ok(())
    }

    /// The newest file was just made, and nobody has begun to send it.
    fn open_newest(&self, work: &mut Work) -> Result<()> {
        let newest = work.staged.back().map(|staged| staged.txid);
        work.open = None;
        if let Some(newest) = newest {
            self.spool.mark_open(newest)?;
            work.open = Some(newest);
        }
        Ok(())
    }

    fn staged_bytes(&self, work: &Work) -> Result<u64> {
        let Some(first) = work.staged.front() else { return Ok(0) };
        let files = self.spool.files()?;
        Ok(files.iter().filter(|(txid, _)| *txid >= first.txid).map(|(_, size)| size).sum())
    }

    /// The file to be sent next. From here on it is what it is.
    pub(super) fn next_to_ship(&self, work: &mut Work) -> Result<Option<Staged>> {
        let Some(staged) = work.staged.front().cloned() else { return Ok(None) };
        if work.open == Some(staged.txid) {
            self.spool.close_file()?;
            work.open = None;
        }
        Ok(Some(staged))
    }
}

/// The file that is merged into, read a second time after all of it was checked.
pub(super) struct Former {
    path: PathBuf,
    decoder: Decoder<File>,
    pages: Vec<u32>,
    /// The page that `buffer` holds.
    at: Option<u32>,
    buffer: Vec<u8>,
}

impl Former {
    /// Checks the file.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let name = || path.display().to_string();
        let open = || Decoder::new(File::open(path).with_context(name)?).with_context(name);
        let mut decoder = open()?;
        let mut buffer = vec![0; decoder.header().page_size.bytes()];
        let mut pages = Vec::new();
        while let Some(pgno) = decoder.next_page(&mut buffer).with_context(name)? {
            pages.push(pgno.get());
        }
        decoder.finish().with_context(name)?;
        Ok(Self { path: path.to_owned(), decoder: open()?, pages, at: None, buffer })
    }

    /// Its pages and these, ascending, none beyond `commit`.
    pub(super) fn union(&self, pages: &[u32], commit: u32) -> Vec<u32> {
        let mut union: Vec<u32> = self.pages.iter().chain(pages).copied().filter(|pgno| *pgno <= commit).collect();
        union.sort_unstable();
        union.dedup();
        union
    }

    /// Reads a page of it. Page numbers ascend from call to call.
    pub(super) fn read(&mut self, pgno: u32, page: &mut [u8]) -> Result<()> {
        while self.at.is_none_or(|at| at < pgno) {
            let next = self.decoder.next_page(&mut self.buffer).with_context(|| self.path.display().to_string())?;
            self.at = next.map(|next| next.get());
            if self.at.is_none() {
                return Err(Error::bug(format!("{}: page {pgno} is gone", self.path.display())));
            }
        }
        page.copy_from_slice(&self.buffer);
        Ok(())
    }
}
