//! What was captured and is in no LTX file yet: the newest image of each page, and where it is.
//!
//! Pages are copied to memory as they are read, up to a bound. Beyond it they stay where they are, in the WAL; before
//! the WAL is restarted they are copied to a file (P3: a barrier needs the bytes outside the WAL, nothing more).

use super::capture::Captured;
use super::files::DatabaseFile;
use crate::error::{Context, Error, Result};
use crate::ltx::{PageSize, Pgno, WalSpan};
use crate::wal::{FRAME_HEADER_SIZE, frame_offset};
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Instant;

/// Memory for the pages of one batch, in bytes.
pub(super) const BATCH_MEMORY: usize = 3 << 20;

/// Where the newest image of a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In the pages kept in memory or, past them, in the file; a slot of one page.
    Slot(u32),
    /// In the WAL, frames counted from 1.
    Frame(u32),
}

/// Pages by number, with their places. Used for batches, and for the pages that an image saves.
pub(super) struct PageStore {
    page_size: PageSize,
    places: HashMap<u32, Place>,
    memory: Vec<u8>,
    /// Slots in memory; later slots are in the file.
    memory_slots: u32,
    next_slot: u32,
    free: Vec<u32>,
    file: Option<File>,
    directory: PathBuf,
}

impl PageStore {
    pub(super) fn new(page_size: PageSize, directory: PathBuf) -> Self {
        let memory_slots = (BATCH_MEMORY / page_size.bytes()) as u32;
        Self {
            page_size,
            places: HashMap::new(),
            memory: Vec::new(),
            memory_slots,
            next_slot: 0,
            free: Vec::new(),
            file: None,
            directory,
        }
    }

    pub(super) fn contains(&self, pgno: u32) -> bool {
        self.places.contains_key(&pgno)
    }

    /// How many bytes its pages have.
    pub(super) fn bytes(&self) -> u64 {
        self.places.len() as u64 * u64::from(self.page_size.get())
    }

    /// Whether a page was not copied.
    pub(super) fn is_in_wal(&self) -> bool {
        self.places.values().any(|place| matches!(place, Place::Frame(_)))
    }

    /// The page numbers, ascending.
    pub(super) fn page_numbers(&self) -> Vec<u32> {
        let mut numbers: Vec<u32> = self.places.keys().copied().collect();
        numbers.sort_unstable();
        numbers
    }

    /// Takes a page that is in the WAL at `frame`: copied if there is room in memory, else remembered.
    pub(super) fn put_frame(&mut self, pgno: u32, frame: u32, page: &[u8]) -> Result<()> {
        match self.places.get(&pgno) {
            Some(Place::Slot(slot)) => self.write_slot(*slot, page),
            _ if self.memory_room() => self.put(pgno, page),
            _ => {
                self.places.insert(pgno, Place::Frame(frame));
                Ok(())
            }
        }
    }

    /// Takes a copy of a page.
    pub(super) fn put(&mut self, pgno: u32, page: &[u8]) -> Result<()> {
        let slot = match self.places.get(&pgno) {
            Some(Place::Slot(slot)) => *slot,
            _ => self.free.pop().unwrap_or_else(|| {
                self.next_slot += 1;
                self.next_slot - 1
            }),
        };
        self.write_slot(slot, page)?;
        self.places.insert(pgno, Place::Slot(slot));
        Ok(())
    }

    fn memory_room(&self) -> bool {
        self.free.iter().any(|slot| *slot < self.memory_slots) || self.next_slot < self.memory_slots
    }

    fn write_slot(&mut self, slot: u32, page: &[u8]) -> Result<()> {
        let size = self.page_size.bytes();
        if slot < self.memory_slots {
            let at = slot as usize * size;
            if at == self.memory.len() {
                self.memory.extend_from_slice(page);
            } else {
                self.memory[at..at + size].copy_from_slice(page);
            }
            return Ok(());
        }
        let at = u64::from(slot - self.memory_slots) * size as u64;
        self.spill_file()?.write_all_at(page, at).context("spool: pages that leave the WAL")
    }

    /// A file without a name: it goes when it is closed, or when the process dies.
    fn spill_file(&mut self) -> Result<&File> {
        if self.file.is_none() {
            let path = self.directory.join(format!("pages-{}.tmp", crate::writer::spool::random()?));
            let file = File::options().read(true).write(true).create_new(true).open(&path);
            self.file = Some(file.with_context(|| path.display().to_string())?);
            std::fs::remove_file(&path).with_context(|| path.display().to_string())?;
        }
        self.file.as_ref().ok_or_else(|| Error::bug("no spill file"))
    }

    /// Reads the newest image of a page; `false` if it is not here.
    pub(super) fn read(&self, pgno: u32, wal: Option<&dyn DatabaseFile>, page: &mut [u8]) -> Result<bool> {
        let size = self.page_size.bytes();
        match self.places.get(&pgno) {
            None => return Ok(false),
            Some(Place::Slot(slot)) if *slot < self.memory_slots => {
                let at = *slot as usize * size;
                page.copy_from_slice(&self.memory[at..at + size]);
            }
            Some(Place::Slot(slot)) => {
                let file = self.file.as_ref().ok_or_else(|| Error::bug("a slot without its file"))?;
                let at = u64::from(*slot - self.memory_slots) * size as u64;
                file.read_exact_at(page, at).context("spool: pages that left the WAL")?;
            }
            Some(Place::Frame(frame)) => read_frame(wal, self.page_size, *frame, page)?,
        }
        Ok(true)
    }

    /// Copies out of the WAL all that is only there: it is about to be restarted (P3).
    pub(super) fn evacuate(&mut self, wal: Option<&dyn DatabaseFile>) -> Result<()> {
        let mut page = vec![0; self.page_size.bytes()];
        let in_wal: Vec<(u32, u32)> = self
            .places
            .iter()
            .filter_map(|(pgno, place)| if let Place::Frame(frame) = place { Some((*pgno, *frame)) } else { None })
            .collect();
        for (pgno, frame) in in_wal {
            read_frame(wal, self.page_size, frame, &mut page)?;
            self.put(pgno, &page)?;
        }
        Ok(())
    }

    /// Forgets pages for which `keep` says no.
    pub(super) fn retain(&mut self, keep: impl Fn(u32) -> bool) {
        let free = &mut self.free;
        self.places.retain(|pgno, place| {
            let keep = keep(*pgno);
            if let (false, Place::Slot(slot)) = (keep, place) {
                free.push(*slot);
            }
            keep
        });
    }
}

/// Reads the page of a WAL frame.
pub(super) fn read_frame(
    wal: Option<&dyn DatabaseFile>,
    page_size: PageSize,
    frame: u32,
    page: &mut [u8],
) -> Result<()> {
    let wal = wal.ok_or_else(|| Error::bug("a frame without its WAL"))?;
    let whole = wal.read_at(page, frame_offset(frame, page_size) + FRAME_HEADER_SIZE)?;
    if whole { Ok(()) } else { Err(Error::corrupt(format!("the WAL ends before frame {frame}"))) }
}

/// The commits since the last LTX file.
pub(super) struct Batch {
    pub(super) pages: PageStore,
    /// The database's size in pages after its last commit.
    pub(super) commit: u32,
    /// The smallest size since the last LTX file: pages beyond it that are not in the batch are read at the end.
    pub(super) smallest: u32,
    /// The WAL was restarted since the last LTX file.
    pub(super) restarted: bool,
    /// The frame of the current WAL generation after which the batch begins.
    pub(super) after_frame: u32,
    /// When its first commit was noticed.
    pub(super) first: Option<Instant>,
    /// Publications up to this one are in it.
    pub(super) sequence: u64,
}

impl Batch {
    pub(super) fn new(page_size: PageSize, directory: PathBuf, commit: u32, after_frame: u32) -> Self {
        Self {
            pages: PageStore::new(page_size, directory),
            commit,
            smallest: commit,
            restarted: false,
            after_frame,
            first: None,
            sequence: 0,
        }
    }

    /// Nothing was committed since the last LTX file.
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// A commit frame said that the database has `commit` pages now.
    pub(super) fn committed(&mut self, commit: u32) {
        if commit < self.smallest {
            self.smallest = commit;
            self.pages.retain(|pgno| pgno <= commit);
        }
        self.commit = commit;
    }

    /// The pages that the LTX file must hold although no frame brought them: the database shrank and grew again, or
    /// grew by pages that SQLite never wrote (free pages).
    pub(super) fn holes(&self, lock_page: Pgno) -> Vec<u32> {
        (self.smallest + 1..=self.commit).filter(|p| *p != lock_page.get() && !self.pages.contains(*p)).collect()
    }
}

/// What there is to encode.
pub(super) struct FrozenBatch {
    pub(super) commit: u32,
    /// Ascending.
    pub(super) pages: Vec<u32>,
    pub(super) captured: Captured,
    pub(super) wal: WalSpan,
    pub(super) restarted: bool,
    pub(super) sequence: u64,
}
