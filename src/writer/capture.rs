//! Capture: from the captured position to the published end, the newest image of each page (P6).
//!
//! The invariant: after a capture without a gap, `batch` on top of the last LTX file is exactly the database as it was
//! published. Whatever cannot be proven is a gap, and a gap is healed by comparing pages (P12), never guessed over.

use super::batch::{Batch, FrozenBatch, PageStore, read_frame};
use super::files::{DatabaseFile, Files};
use super::image::Image;
pub(super) use super::position::{Captured, Position};
use super::position::{Commits, follows, is_forgotten};
use crate::error::{Error, Result};
use crate::ltx::{PageSize, WalSpan};
use crate::wal::{FRAME_HEADER_SIZE, FrameHeader, IndexHeader, Salts, WAL_HEADER_SIZE, WalHeader, frame_offset};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// Bytes of WAL read at once.
const CHUNK: usize = 64 << 10;

/// The state of capture of one database; guarded by the capture lock (P5).
pub(super) struct Capture {
    files: Arc<dyn Files>,
    directory: PathBuf,
    pub(super) page_size: PageSize,
    pub(super) captured: Captured,
    /// A restart that was seen under its locks, after everything before it had been captured: the salts that follow.
    continues_with: Option<Salts>,
    /// A barrier captured everything, and nothing was captured since: what destroys the WAL now destroys nothing (P3).
    sealed: bool,
    /// While other processes write: a restart of the WAL destroys only what is captured (`follow`).
    pub(super) held: bool,
    /// The count of commits at the captured position, where it is known: it proves that a restart which nobody has
    /// witnessed has destroyed nothing else.
    change: Option<u32>,
    pub(super) wal: Option<Box<dyn DatabaseFile>>,
    pub(super) database: Option<Box<dyn DatabaseFile>>,
    /// The newest frame of each page, of the current generation up to the captured position.
    pub(super) frames: HashMap<u32, u32>,
    pub(super) batch: Batch,
    /// The batch that is being encoded.
    pub(super) frozen: Option<Batch>,
    pub(super) image: Option<Image>,
    /// The database file is to be read when SQLite opens the WAL (P12).
    pub(super) to_read: bool,
    /// Why there is a gap, for the status.
    pub(super) gap_reason: Option<String>,
}

impl Capture {
    pub(super) fn new(files: Arc<dyn Files>, directory: PathBuf, page_size: PageSize) -> Self {
        Self {
            files,
            batch: Batch::new(page_size, directory.clone(), 0, 0),
            directory,
            page_size,
            captured: Captured::Gap,
            continues_with: None,
            sealed: false,
            held: false,
            change: None,
            wal: None,
            database: None,
            frames: HashMap::new(),
            frozen: None,
            image: None,
            to_read: false,
            gap_reason: None,
        }
    }

    /// A WAL was opened by SQLite: ours is opened beside it, while the name is certain (P9).
    /// One that is open already may be of a file that is gone, which the VFS cannot tell of a WAL.
    pub(super) fn wal_opened(&mut self) -> Result<()> {
        self.wal = Some(self.files.open_wal()?);
        Ok(())
    }

    /// The WAL is deleted by the last connection, after the barrier has captured it.
    pub(super) fn wal_deleted(&mut self) {
        if !std::mem::take(&mut self.sealed) && self.captured != Captured::Gap {
            self.gap("the last connection closed before everything was captured");
        }
        self.wal = None;
        self.frames.clear();
        if self.captured != Captured::Gap {
            self.captured = Captured::Fresh;
            // The next wal-index counts from the start.
            self.change = Some(0);
        }
        self.continues_with = None;
    }

    /// A handle of the WAL of its own, before capture has begun.
    pub(super) fn open_wal_for_reading(&self) -> Result<Box<dyn DatabaseFile>> {
        self.files.open_wal()
    }

    /// Closes the handles; they are opened again when they are needed.
    pub(super) fn close_files(&mut self) {
        self.wal = None;
        self.database = None;
    }

    pub(super) fn wal(&self) -> Option<&dyn DatabaseFile> {
        self.wal.as_deref()
    }

    /// The database's handle, opened when first needed.
    pub(super) fn database(&mut self) -> Result<&dyn DatabaseFile> {
        if self.database.is_none() {
            self.database = Some(self.files.open_database()?);
        }
        self.database.as_deref().ok_or_else(|| Error::bug("no database handle"))
    }

    /// Gives up continuity: the batch is dropped, since healing finds its pages again.
    pub(super) fn gap(&mut self, reason: impl Into<String>) {
        self.gap_reason = Some(reason.into());
        self.captured = Captured::Gap;
        self.continues_with = None;
        self.sealed = false;
        self.frames.clear();
        self.image = None;
        self.batch = Batch::new(self.page_size, self.directory.clone(), 0, 0);
        self.batch.restarted = true;
        // What a frozen batch has only in the WAL may be gone.
        self.frozen = None;
    }

    /// Captures up to `published`, which was the wal-index header at publication `sequence` (P1, P2).
    /// A gap is recorded in `captured`, not an error; errors are failed reads, after which the position stands.
    pub(super) fn run(&mut self, published: &IndexHeader, sequence: u64, noticed: Instant) -> Result<()> {
        if published.page_size != self.page_size {
            self.gap("the page size changed");
            return Ok(());
        }
        if published.max_frame == 0 {
            // P1: after a restart this is no publication; its content is that of before, if nothing was lost with it.
            match self.captured {
                Captured::At(at) if at.salts != published.salts && !self.continues(published.salts) => {
                    if self.change.is_none() || self.change != published.change || !self.needs_no_wal() {
                        self.gap("the WAL was restarted unseen");
                        return Ok(());
                    }
                    self.restarted_unseen(published.salts);
                }
                Captured::Fresh if self.change.is_some_and(|c| published.change.is_some_and(|p| p != c)) => {
                    self.gap("the WAL was written and restarted unseen");
                    return Ok(());
                }
                _ => {}
            }
            self.batch.sequence = self.batch.sequence.max(sequence);
            return Ok(());
        }
        if self.captured.is_end_of(published) {
            // Nothing is new. The WAL is not looked at: it may be about to be truncated, under the locks of a restart.
            self.batch.sequence = self.batch.sequence.max(sequence);
            return Ok(());
        }
        if self.wal.is_none() {
            self.wal = Some(self.files.open_wal()?);
        }
        let Some((mut position, header)) = self.resume(published)? else { return Ok(()) };
        // Where nobody saw how this generation began, all commits must be in it that were made since.
        let unseen = position.frame == 0 && !self.continues(published.salts);
        let before = self.change.filter(|_| unseen);
        let mut commits = before.map(|_| Commits::default());
        if position.frame == published.max_frame {
            if position.checksum != published.frame_checksum {
                self.gap("the WAL has the same length and other content");
            }
            self.batch.sequence = self.batch.sequence.max(sequence);
            return Ok(());
        }
        self.sealed = false;
        self.batch.first = self.batch.first.or(Some(noticed));
        let read = self.read_frames(&mut position, published, header.big_endian, commits.as_mut());
        let made = before.zip(published.change).map(|(before, now)| now.wrapping_sub(before));
        match read {
            Ok(true) if commits.is_some_and(|c| made.is_some_and(|made| made != c.count)) => {
                self.gap("the WAL was restarted unseen");
            }
            Ok(true) => {
                self.captured = Captured::At(position);
                self.continues_with = None;
                self.change = published.change;
                self.batch.sequence = sequence;
            }
            Ok(false) => self.gap(format!("the WAL is not what was published at frame {}", position.frame + 1)),
            Err(error) => {
                // Pages of the half that was read are of real commits, but not of whole ones.
                self.gap(format!("the WAL could not be read: {error}"));
                return Err(error);
            }
        }
        Ok(())
    }

    /// Finds where to go on, proving that it is where the last capture ended (P7).
    fn resume(&mut self, published: &IndexHeader) -> Result<Option<(Position, WalHeader)>> {
        let wal = self.wal().ok_or_else(|| Error::bug("no WAL handle"))?;
        let mut bytes = [0; WAL_HEADER_SIZE as usize];
        wal.read_at(&mut bytes, 0)?;
        let header = match WalHeader::parse(&bytes) {
            Ok(header) if header.salts == published.salts => header,
            _ => {
                self.gap("the WAL's header is not that of the published generation");
                return Ok(None);
            }
        };
        let start = Position { salts: header.salts, frame: 0, checksum: header.checksum };
        let position = match self.captured {
            Captured::Gap => return Ok(None),
            Captured::Fresh => start,
            Captured::At(at) if at.salts == published.salts && at.frame > 0 => {
                if at.frame > published.max_frame || !self.frame_is(&at)? {
                    self.gap("the frame before the captured position is another one");
                    return Ok(None);
                }
                at
            }
            Captured::At(at) if at.salts == published.salts => Position { checksum: header.checksum, ..at },
            Captured::At(_) if self.continues(published.salts) => start,
            Captured::At(_) if self.change.is_some() && published.change.is_some() && self.needs_no_wal() => {
                self.restarted_unseen(published.salts);
                self.continues_with = None;
                start
            }
            Captured::At(_) => {
                self.gap("the WAL was restarted unseen");
                return Ok(None);
            }
        };
        if position.frame == 0 {
            self.frames.clear();
            self.batch.after_frame = 0;
        }
        Ok(Some((position, header)))
    }

    /// Whether a generation with these salts goes on where capture is: a restart that was witnessed, or one that could
    /// destroy nothing.
    fn continues(&self, salts: Salts) -> bool {
        let same = matches!(self.captured, Captured::At(at) if at.salts == salts);
        same || self.continues_with == Some(salts) || (self.held && matches!(self.captured, Captured::At(_)))
    }

    /// Nothing that was captured is only in the WAL.
    fn needs_no_wal(&self) -> bool {
        !self.batch.pages.is_in_wal() && !self.frozen.as_ref().is_some_and(|frozen| frozen.pages.is_in_wal())
    }

    /// The WAL was restarted, and nothing is lost but what an image still needed of it.
    fn restarted_unseen(&mut self, salts: Salts) {
        self.image = None;
        self.frames.clear();
        self.batch.restarted = true;
        self.continues_with = Some(salts);
    }

    /// Whether the frame before the position has its salts and checksum.
    fn frame_is(&self, at: &Position) -> Result<bool> {
        let wal = self.wal().ok_or_else(|| Error::bug("no WAL handle"))?;
        let mut bytes = [0; FRAME_HEADER_SIZE as usize];
        wal.read_at(&mut bytes, frame_offset(at.frame, self.page_size))?;
        let is_there = |f: FrameHeader| (f.salts == at.salts && f.checksum == at.checksum) || is_forgotten(&f);
        Ok(FrameHeader::parse(&bytes).is_ok_and(is_there))
    }

    /// Reads frames up to the published end into the batch; `false` if they are not a chain that ends there.
    fn read_frames(
        &mut self,
        position: &mut Position,
        published: &IndexHeader,
        big_endian: bool,
        mut commits: Option<&mut Commits>,
    ) -> Result<bool> {
        let frame_size = FRAME_HEADER_SIZE as usize + self.page_size.bytes();
        let at_once = (CHUNK / frame_size).clamp(1, (published.max_frame - position.frame).max(1) as usize);
        let mut chunk = vec![0; at_once * frame_size];
        while position.frame < published.max_frame {
            let count = at_once.min((published.max_frame - position.frame) as usize);
            let chunk = &mut chunk[..count * frame_size];
            let wal = self.wal().ok_or_else(|| Error::bug("no WAL handle"))?;
            if !wal.read_at(chunk, frame_offset(position.frame + 1, self.page_size))? {
                return Ok(false);
            }
            for frame in chunk.chunks_exact(frame_size) {
                let Some((head, page)) = frame.split_first_chunk() else { return Ok(false) };
                let Ok(parsed) = FrameHeader::parse(head) else { return Ok(false) };
                let Some(checksum) = follows(position, &parsed, big_endian, head, page) else { return Ok(false) };
                position.checksum = checksum;
                position.frame += 1;
                let is_end = position.frame == published.max_frame && parsed.commit == published.page_count;
                if is_end && is_forgotten(&parsed) {
                    position.checksum = published.frame_checksum;
                }
                let pgno = parsed.pgno.get();
                self.frames.insert(pgno, position.frame);
                self.batch.pages.put_frame(pgno, position.frame, page)?;
                if parsed.commit != 0 {
                    self.batch.committed(parsed.commit);
                    if let Some(commits) = &mut commits {
                        commits.add(pgno, page);
                    }
                }
            }
        }
        // P7: nobody restarted the WAL while it was read.
        let mut bytes = [0; WAL_HEADER_SIZE as usize];
        self.wal().ok_or_else(|| Error::bug("no WAL handle"))?.read_at(&mut bytes, 0)?;
        let same = WalHeader::parse(&bytes).is_ok_and(|h| h.salts == published.salts);
        Ok(same && position.checksum == published.frame_checksum)
    }

    /// Before the WAL is restarted or deleted, after capture ran to the end: nothing may be only in the WAL (P3).
    pub(super) fn evacuate(&mut self) -> Result<()> {
        let wal = self.wal.as_deref();
        self.batch.pages.evacuate(wal)?;
        self.batch.restarted = true;
        if let Some(frozen) = &mut self.frozen {
            frozen.pages.evacuate(wal)?;
        }
        if let Some(image) = &mut self.image {
            image.evacuate(wal)?;
        }
        self.sealed = true;
        Ok(())
    }

    /// A restart ran under its locks: the generation that was captured to its end goes on with these salts.
    pub(super) fn restarted(&mut self, header: &IndexHeader) {
        let same = matches!(self.captured, Captured::At(at) if at.salts == header.salts);
        if header.max_frame != 0 || same || self.captured == Captured::Gap {
            return;
        }
        if !std::mem::take(&mut self.sealed) {
            return self.gap("the WAL was restarted before everything was captured");
        }
        self.frames.clear();
        if matches!(self.captured, Captured::At(_)) {
            self.continues_with = Some(header.salts);
        }
    }

    /// The generation that follows a witnessed restart has other salts than the restart gave it.
    pub(super) fn salts_drawn(&mut self, salts: Salts) {
        if self.continues_with.is_some() {
            self.continues_with = Some(salts);
        }
    }

    /// Takes the published WAL as it is for the position, after a gap: reads all of it, and only proves that it is
    /// whole. What it holds is for the image to compare.
    pub(super) fn rebase(&mut self, published: Option<&IndexHeader>) -> Result<bool> {
        self.gap_reason = None;
        self.frames.clear();
        self.batch = Batch::new(self.page_size, self.directory.clone(), 0, 0);
        self.captured = Captured::Fresh;
        self.change = published.filter(|p| p.max_frame == 0).and_then(|p| p.change);
        let Some(published) = published.filter(|p| p.max_frame > 0) else {
            let size = self.database()?.size()?;
            let pages = u32::try_from(size / u64::from(self.page_size.get())).unwrap_or(u32::MAX);
            self.batch = Batch::new(self.page_size, self.directory.clone(), pages, 0);
            return Ok(true);
        };
        self.run(published, 0, Instant::now())?;
        if self.captured == Captured::Gap {
            return Ok(false);
        }
        let commit = self.batch.commit;
        self.batch = Batch::new(self.page_size, self.directory.clone(), commit, published.max_frame);
        Ok(true)
    }

    /// Goes on at a position that a record or an LTX file tells, if the WAL bears it out; the frames before it are read
    /// for their places. `false`: it does not.
    pub(super) fn adopt_position(&mut self, position: Position, commit: u32, published: &IndexHeader) -> Result<bool> {
        if position.salts != published.salts || position.frame > published.max_frame || position.frame == 0 {
            return Ok(false);
        }
        let until = IndexHeader { max_frame: position.frame, frame_checksum: position.checksum, ..*published };
        if !self.rebase(Some(&until))? {
            return Ok(false);
        }
        self.change = published.change.filter(|_| position.is_end_of(published));
        self.batch = Batch::new(self.page_size, self.directory.clone(), commit, position.frame);
        Ok(true)
    }

    /// Ends the batch and begins the next: the pages that no frame brought are read now (a free page's content is
    /// whatever SQLite would read: the newest frame of this generation, else the database file).
    pub(super) fn freeze(&mut self) -> Result<FrozenBatch> {
        let lock_page = self.page_size.lock_page();
        let mut page = vec![0; self.page_size.bytes()];
        for pgno in self.batch.holes(lock_page) {
            if let Some(frame) = self.frames.get(&pgno) {
                read_frame(self.wal(), self.page_size, *frame, &mut page)?;
            } else {
                let offset = u64::from(pgno - 1) * u64::from(self.page_size.get());
                self.database()?.read_at(&mut page, offset)?;
            }
            self.batch.pages.put(pgno, &page)?;
        }
        let commit = self.batch.commit;
        let end = if let Captured::At(at) = self.captured { at.frame } else { 0 };
        let next = Batch::new(self.page_size, self.directory.clone(), commit, end);
        let batch = std::mem::replace(&mut self.batch, next);
        let pages = batch.pages.page_numbers().into_iter().filter(|p| *p <= commit && *p != lock_page.get()).collect();
        let frozen = FrozenBatch {
            commit,
            pages,
            captured: self.captured,
            wal: self.span(batch.after_frame),
            restarted: batch.restarted,
            sequence: batch.sequence,
        };
        self.batch.sequence = batch.sequence;
        self.frozen = Some(batch);
        Ok(frozen)
    }

    /// The bookkeeping fields of an LTX file that ends here: `offset + size` is where reading goes on.
    pub(super) fn span(&self, after_frame: u32) -> WalSpan {
        match self.captured {
            Captured::At(at) if at.frame > 0 => {
                let start = if after_frame < at.frame { after_frame } else { 0 };
                let offset = frame_offset(start + 1, self.page_size);
                let end = frame_offset(at.frame + 1, self.page_size);
                WalSpan { offset, size: end - offset, salt1: at.salts.0, salt2: at.salts.1 }
            }
            _ => WalSpan::default(),
        }
    }

    /// Whether the frozen batch has a page.
    pub(super) fn is_frozen(&self, pgno: u32) -> bool {
        self.frozen.as_ref().is_none_or(|frozen| frozen.pages.contains(pgno))
    }

    /// Reads a page of the frozen batch.
    pub(super) fn read_frozen(&self, pgno: u32, page: &mut [u8]) -> Result<()> {
        let frozen = self.frozen.as_ref().ok_or_else(|| lost("the batch"))?;
        if frozen.pages.read(pgno, self.wal(), page)? { Ok(()) } else { Err(lost("a page of the batch")) }
    }

    /// The encoding of the frozen batch failed, or it was overtaken by a gap: its pages go back under newer ones.
    /// If that fails too, as on a full disk, it is a gap.
    pub(super) fn thaw(&mut self) {
        if let Err(error) = self.merge_frozen() {
            self.gap(format!("captured pages were lost: {error}"));
        }
    }

    fn merge_frozen(&mut self) -> Result<()> {
        let Some(frozen) = self.frozen.take() else { return Ok(()) };
        let mut page = vec![0; self.page_size.bytes()];
        for pgno in frozen.pages.page_numbers() {
            if pgno <= self.batch.smallest && !self.batch.pages.contains(pgno) {
                frozen.pages.read(pgno, self.wal(), &mut page)?;
                self.batch.pages.put(pgno, &page)?;
            }
        }
        self.batch.smallest = self.batch.smallest.min(frozen.smallest);
        self.batch.restarted |= frozen.restarted;
        self.batch.first = frozen.first.or(self.batch.first);
        if !frozen.restarted && !self.batch.restarted {
            self.batch.after_frame = frozen.after_frame;
        }
        Ok(())
    }

    /// A place for pages, as a batch has it.
    pub(super) fn page_store(&self) -> PageStore {
        PageStore::new(self.page_size, self.directory.clone())
    }
}

pub(super) fn lost(what: &str) -> Error {
    Error::new(crate::error::Kind::Overtaken, format!("{what} was overtaken by a gap"))
}
