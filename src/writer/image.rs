//! A state of the whole database, read while it is written to (P10).
//!
//! The state is the captured one at the moment the image begins; it is read page by page in ascending order, so that it
//! can stream into an LTX file and nothing is copied locally first. A page comes from the WAL frame that was its newest
//! at that moment, else from the database file. What would destroy one of these before it was read saves it first:
//! a restart of the WAL copies the frames still needed, and a checkpoint's write to the database file copies the old
//! page. So neither waits for the image, and no page of it is torn or too new.
//!
//! Saving is preferred over reading fuzzily and overlaying afterwards, which has the same result, since an overlay
//! needs either a second pass over bytes already sent, or a local copy of them.

use super::batch::{PageStore, read_frame};
use super::files::DatabaseFile;
use crate::error::Result;
use crate::ltx::PageSize;
use std::collections::HashMap;

/// An image being read.
pub(super) struct Image {
    page_size: PageSize,
    /// The database's size in pages.
    pub(super) commit: u32,
    /// The next page to read; those before it need no care.
    cursor: u32,
    /// Pages that are read from the WAL.
    frames: HashMap<u32, u32>,
    saved: PageStore,
}

impl Image {
    pub(super) fn new(page_size: PageSize, commit: u32, frames: HashMap<u32, u32>, saved: PageStore) -> Self {
        Self { page_size, commit, cursor: 1, frames, saved }
    }

    /// The WAL is about to be restarted.
    pub(super) fn evacuate(&mut self, wal: Option<&dyn DatabaseFile>) -> Result<()> {
        let mut page = vec![0; self.page_size.bytes()];
        for (pgno, frame) in std::mem::take(&mut self.frames) {
            if pgno >= self.cursor && pgno <= self.commit {
                read_frame(wal, self.page_size, frame, &mut page)?;
                self.saved.put(pgno, &page)?;
            }
        }
        Ok(())
    }

    /// The pages in these bytes of the database file that must be saved before they are overwritten.
    pub(super) fn endangered(&self, offset: u64, length: u64) -> Vec<u32> {
        let size = u64::from(self.page_size.get());
        let first = u32::try_from(offset / size).unwrap_or(u32::MAX).saturating_add(1);
        let last = u32::try_from(offset.saturating_add(length).div_ceil(size)).unwrap_or(u32::MAX);
        (first.max(self.cursor)..=last.min(self.commit))
            .filter(|p| !self.frames.contains_key(p) && !self.saved.contains(*p))
            .collect()
    }

    /// Saves a page of the database file.
    pub(super) fn save(&mut self, pgno: u32, page: &[u8]) -> Result<()> {
        self.saved.put(pgno, page)
    }

    /// Reads the next page; its number, or `None` at the end.
    pub(super) fn next(
        &mut self,
        wal: Option<&dyn DatabaseFile>,
        database: &dyn DatabaseFile,
        page: &mut [u8],
    ) -> Result<Option<u32>> {
        if self.cursor == self.page_size.lock_page().get() {
            self.cursor += 1;
        }
        if self.cursor > self.commit {
            return Ok(None);
        }
        let pgno = self.cursor;
        if let Some(frame) = self.frames.get(&pgno) {
            read_frame(wal, self.page_size, *frame, page)?;
        } else if !self.saved.read(pgno, None, page)? {
            database.read_at(page, u64::from(pgno - 1) * u64::from(self.page_size.get()))?;
        }
        self.cursor += 1;
        Ok(Some(pgno))
    }
}
