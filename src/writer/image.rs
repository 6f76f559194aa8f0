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
use super::capture::{Capture, lost};
use super::files::DatabaseFile;
use crate::error::{Error, Result};
use crate::ltx::PageSize;
use std::collections::HashMap;

/// Pages that an image saves for one write; a truncation that endangers more begins the image again.
const SAVED_AT_ONCE: usize = 1024;

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

impl Capture {
    /// Bytes of the database file are about to change: saves what the image still needs of them (P10).
    pub(super) fn save_for_image(&mut self, offset: u64, length: u64) -> Result<()> {
        let Some(image) = &self.image else { return Ok(()) };
        let endangered = image.endangered(offset, length);
        if endangered.len() > SAVED_AT_ONCE {
            return Err(lost("the image"));
        }
        let mut page = vec![0; self.page_size.bytes()];
        for pgno in endangered {
            let offset = u64::from(pgno - 1) * u64::from(self.page_size.get());
            self.database()?.read_at(&mut page, offset)?;
            if let Some(image) = &mut self.image {
                image.save(pgno, &page)?;
            }
        }
        Ok(())
    }

    /// Reads the next pages of the image with their numbers; how many, 0 at the end.
    pub(super) fn read_image(&mut self, pages: &mut [(u32, Vec<u8>)]) -> Result<usize> {
        self.database()?;
        let database = self.database.as_deref().ok_or_else(|| Error::bug("no database handle"))?;
        let image = self.image.as_mut().ok_or_else(|| lost("the image"))?;
        for (read, (number, page)) in pages.iter_mut().enumerate() {
            match image.next(self.wal.as_deref(), database, page)? {
                Some(pgno) => *number = pgno,
                None => return Ok(read),
            }
        }
        Ok(pages.len())
    }
}
