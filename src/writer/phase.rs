//! What has to be done before batches can be shipped: the first image, healing a gap, or finding the page checksums.
//! All three read a state of the whole database ([`Image`]); they differ in what they do with its pages.

use super::batch::PageStore;
use super::capture::{Capture, Captured};
use super::companion::Frames;
use super::encode::{Content, Into, PAGES_PER_LOCK, Work};
use super::files::page_size_of;
use super::image::Image;
use super::primary::{Phase, Primary};
use super::put_back::Found;
use super::ship::{FROM_MEMORY, UploadWriter};
use super::sums::Sums;
use crate::error::{Error, Kind, Result};
use crate::ltx::{Encoded, Encoder, Header, PageSize, Pgno, Txid, TxidRange, WalSpan, page_checksum};
use crate::store::{Put, Upload};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A write to the database file that began before the image said that it reads is over by then.
const WRITES_END: Duration = Duration::from_millis(10);

/// The state that an image reads.
struct ImageStart {
    commit: u32,
    captured: Captured,
    wal: WalSpan,
    sequence: u64,
}

/// A first image that was sent.
struct Streamed {
    upload: Box<dyn Upload>,
    encoded: Encoded,
    found: Found,
    frames: Frames,
}

impl Primary {
    /// Does what the phase asks for. `false`: it must wait for the next publication.
    ///
    /// # Errors
    /// [`Kind::Overtaken`]: the state was overtaken, and is to be read anew; those of the store and of the local files.
    pub(super) fn run_phase(self: &Arc<Self>) -> Result<bool> {
        let done = match self.phase() {
            Phase::Running => Ok(true),
            Phase::Decide => self.decide(),
            Phase::FirstImage => self.first_image(),
            Phase::Heal => self.heal(),
            Phase::Scan => self.scan(),
        };
        self.image_active.store(false, Ordering::Release);
        self.capture.lock().image = None;
        self.image_ends();
        done
    }

    /// From here on what overwrites pages of the database file saves them first.
    pub(super) fn watch_writes(&self) {
        self.image_active.store(true, Ordering::Release);
        std::thread::sleep(WRITES_END);
    }

    /// Begins an image of what is published now. `None`: nothing is there to read yet.
    fn begin_anew(&self) -> Result<Option<ImageStart>> {
        self.watch_writes();
        let mut capture = self.capture.lock();
        if !self.image_begins() {
            return Err(Error::new(Kind::Overtaken, "a checkpoint has passed what is published; it is read again"));
        }
        self.clear_missed();
        let (header, sequence) = self.last_published();
        if header.is_none() && self.published_is_unknown() {
            return Ok(None);
        }
        let found = match header.filter(|h| h.max_frame > 0) {
            Some(header) => Some(header.page_size),
            None => page_size_of(capture.database()?)?,
        };
        if let Some(found) = found.filter(|found| *found != self.page_size()) {
            return Err(self.other_page_size(found, self.page_size()));
        }
        if !capture.rebase(header.as_ref())? {
            return Err(Error::new(Kind::Overtaken, "the WAL is not what was published; it is read again"));
        }
        capture.batch.sequence = sequence;
        if capture.batch.commit == 0 {
            return Ok(None);
        }
        Ok(Some(begin(&mut capture)))
    }

    /// P16: the TXIDs of a replica have one page size.
    pub(super) fn other_page_size(&self, found: PageSize, replica: PageSize) -> Error {
        Error::new(
            Kind::Diverged,
            format!(
                "{} has pages of {} bytes now, the replica {} of {}: SELECT litestream_stop(), and replicate it to an \
                 empty URL",
                self.path.display(),
                found.get(),
                self.url(),
                replica.get()
            ),
        )
    }

    /// P2: a WAL whose published end is not known is not read. That nothing is published is known from a wal-index
    /// without frames: what the WAL has then was spilled, and rolled back.
    pub(super) fn published_is_unknown(&self) -> bool {
        self.wal_has_content() && !self.follow.lock().nothing_is_published()
    }

    pub(super) fn wal_has_content(&self) -> bool {
        std::fs::metadata(self.wal_path()).is_ok_and(|m| m.len() > 0)
    }

    /// Gives every page of the image, ascending.
    fn read_image(&self, mut each: impl FnMut(Pgno, &[u8]) -> Result<()>) -> Result<()> {
        let mut pages = vec![(0, vec![0; self.page_size().bytes()]); PAGES_PER_LOCK];
        loop {
            if self.is_stopped() {
                return Err(Error::new(Kind::Interrupted, "stopped"));
            }
            let count = {
                let mut capture = self.capture.lock();
                // A page that could not be saved is a page that cannot be read.
                if !self.image_active.load(Ordering::Acquire) || self.missed_barrier() {
                    return Err(Error::new(Kind::Overtaken, "the image was overtaken by a writer"));
                }
                let count = capture.read_image(&mut pages)?;
                if self.image_is_overtaken() {
                    return Err(Error::new(Kind::Overtaken, "the image was overtaken by a checkpoint"));
                }
                count
            };
            if count == 0 {
                return Ok(());
            }
            for (number, page) in &pages[..count] {
                each(Pgno::new(*number).ok_or_else(|| Error::bug("page 0"))?, page)?;
            }
        }
    }

    /// TXID 1: every page, streamed into the store (P10, P17).
    fn first_image(self: &Arc<Self>) -> Result<bool> {
        let listing = self.replica.list()?;
        if let Some(head) = listing.head() {
            return self.somebody_was_faster(head);
        }
        let Some(start) = self.begin_anew()? else { return Ok(false) };
        let timestamp =
            self.with_work(|work| Ok(work.next_timestamp(self.pools.clock.now(), self.store.clock_offset_ms())))?;
        let txids = TxidRange::single(Txid::FIRST);
        let page_size = self.page_size();
        let header = Header {
            page_size,
            commit: start.commit,
            txids,
            timestamp,
            wal: start.wal,
            node: self.node,
            pre_apply: None,
        };
        let Streamed { upload, encoded, found: Found { sums, first_page }, frames } = self.stream_image(header)?;
        self.sync_source(true)?;
        self.refuse_moved()?;
        let etag = match upload.finish_if_absent()? {
            Put::Done(etag) => Some(etag),
            Put::Refused if self.stored_header(Txid::FIRST)? == Some(header) => None,
            // A former attempt of ours may have arrived late: with an older image.
            Put::Refused => return self.somebody_was_faster(Txid::FIRST),
        };
        log::info!("{}: first image, {} bytes", self.path.display(), encoded.size);
        let companion = self.companion_of_image(&header, frames, &sums, &encoded, etag);
        self.with_work(|work| {
            work.head = Some(Txid::FIRST);
            work.sums = Some(sums);
            work.remember()?;
            work.record.first_page = first_page;
            self.is_in_this_file(work);
            self.record(work, start.commit, start.captured)?;
            self.write_sums(work)
        })?;
        // A replica that was emptied has refused nothing.
        self.spool.accept()?;
        self.set_phase(Phase::Running);
        self.durable(Txid::FIRST, timestamp, start.sequence);
        if let Some(companion) = companion {
            self.leave_companion(Txid::FIRST, companion);
        }
        Ok(true)
    }

    /// Every page of the image as an LTX file, all of it sent, and not visible yet.
    fn stream_image(&self, header: Header) -> Result<Streamed> {
        let Header { page_size, commit, timestamp, .. } = header;
        // An LZ4 block may be a little larger than its page.
        let expected = u64::from(commit) * (u64::from(page_size.get()) * 256 / 255 + 64);
        let key = self.key(Txid::FIRST);
        if expected > FROM_MEMORY {
            self.sweep_once();
        }
        let upload = self.store.upload(&key, &self.metadata(timestamp, None), expected)?;
        let (mut found, mut frames) = (Found::new(page_size), Frames::new(page_size, commit));
        let mut writer = UploadWriter { upload, error: None };
        let encoded = (|| {
            let mut encoder = Encoder::new(std::io::BufWriter::with_capacity(256 << 10, &mut writer), header)?;
            self.read_image(|pgno, page| {
                found.add(pgno, page, page_checksum(pgno, page));
                frames.push(pgno, page, encoder.page(pgno, page)?)
            })?;
            let (buffered, encoded) = encoder.finish()?;
            buffered.into_inner().map_err(|e| Error::io(&key, e.error()))?;
            Ok(encoded)
        })();
        found.sums.resize(commit);
        match encoded {
            Ok(encoded) => Ok(Streamed { upload: writer.upload, encoded, found, frames }),
            Err(error) => Err(writer.error.take().unwrap_or(error)),
        }
    }

    /// The replica was empty when this began, and is not any more.
    fn somebody_was_faster(&self, head: Txid) -> Result<bool> {
        let stored = self.stored_header(Txid::FIRST)?.ok_or_else(|| self.not_found_yet(&self.key(Txid::FIRST)))?;
        // Of a former start, too: its attempt may have arrived late.
        let ours = self.with_work(|work| Ok(work.record.nodes.contains(&stored.node)))?;
        if head != Txid::FIRST || !ours {
            return Err(self.created_by_another(&self.key(Txid::FIRST), Txid::FIRST));
        }
        // Our own first image, whose answer was lost.
        self.with_work(|work| {
            work.head = Some(head);
            Ok(())
        })?;
        self.set_phase(Phase::Heal);
        Ok(true)
    }

    /// P12: the pages that differ from the newest TXID become the next one.
    fn heal(&self) -> Result<bool> {
        let reason = self.capture.lock().gap_reason.take();
        if let Some(reason) = reason {
            let text = format!("continuity was lost ({reason}); the pages that differ are found and shipped");
            self.fail_visibly(&Error::new(Kind::Io, text));
        }
        if self.with_work(|work| Ok(work.sums.is_none()))? {
            let head = self.with_work(|work| work.head.ok_or_else(|| Error::bug("healing before TXID 1")))?;
            let sums = self.remote_sums(head)?;
            self.with_work(|work| {
                work.sums = Some(sums);
                work.remember()
            })?;
        }
        let Some(start) = self.begin_anew()? else { return Ok(false) };
        let mut changed = self.capture.lock().page_store();
        let base = self.with_work(|work| work.sums.clone().ok_or_else(|| Error::bug("no page checksums")))?;
        if base.page_size != self.page_size() {
            return Err(self.other_page_size(self.page_size(), base.page_size));
        }
        let mut found = Found::new(self.page_size());
        self.read_image(|pgno, page| {
            let sum = page_checksum(pgno, page);
            found.add(pgno, page, sum);
            if base.get(pgno.get()) == sum { Ok(()) } else { changed.put(pgno.get(), page) }
        })?;
        found.sums.resize(start.commit);
        if self.unproven.load(Ordering::Acquire) || self.was_refused() {
            // If it holds what was committed here, the WAL was opened before that, and the file was read then.
            let as_opened = self.as_opened.lock().take();
            let judged = self.with_work(|work| self.judge(work, as_opened.as_ref().unwrap_or(&found)));
            if judged.as_ref().is_err_and(|error| error.kind() != Kind::Diverged) {
                *self.as_opened.lock() = as_opened;
            }
            judged?;
        }
        self.sync_source(true)?;
        self.with_work(|work| {
            work.record.first_page = found.first_page;
            self.is_in_this_file(work);
            self.stage_changes(work, &start, &changed)
        })?;
        self.unproven.store(false, Ordering::Release);
        self.set_phase(Phase::Running);
        Ok(true)
    }

    fn stage_changes(&self, work: &mut Work, start: &ImageStart, changed: &PageStore) -> Result<()> {
        let pages = changed.page_numbers();
        let commit_before = work.sums.as_ref().map(Sums::commit);
        log::info!("{}: {} pages differ", self.path.display(), pages.len());
        if pages.is_empty() && commit_before == Some(start.commit) {
            return self.record(work, start.commit, start.captured);
        }
        let ImageStart { commit, captured, wal, sequence } = *start;
        let content = Content { into: Into::Next, commit, pages: &pages, wal, captured, sequence };
        self.stage(work, &content, |numbers, out| {
            numbers.iter().zip(out).try_for_each(|(pgno, page)| changed.read(*pgno, None, page).map(|_| ()))
        })
    }

    /// The position is proven: the page checksums are those of the database at that position.
    fn scan(&self) -> Result<bool> {
        let Some(commit) = self.capture.lock().image.as_ref().map(|i| i.commit) else {
            self.set_phase(Phase::Heal);
            return Ok(true);
        };
        let found = self.content_of_image(commit)?;
        self.with_work(|work| {
            work.sums = Some(found.sums);
            work.record.first_page = found.first_page;
            work.remember()
        })?;
        self.set_phase(Phase::Running);
        Ok(true)
    }

    pub(super) fn content_of_image(&self, commit: u32) -> Result<Found> {
        let mut found = Found::new(self.page_size());
        self.read_image(|pgno, page| {
            found.add(pgno, page, page_checksum(pgno, page));
            Ok(())
        })?;
        found.sums.resize(commit);
        Ok(found)
    }

    /// The page checksums of the database; `None` if there is nothing to read yet. What was captured is given up.
    pub(super) fn sums_of_database(&self) -> Result<Option<Sums>> {
        Ok(self.content_of_database()?.map(|found| found.sums))
    }

    /// The database as it is published now.
    pub(super) fn content_of_database(&self) -> Result<Option<Found>> {
        let Some(start) = self.begin_anew()? else { return Ok(None) };
        let found = self.content_of_image(start.commit);
        self.image_active.store(false, Ordering::Release);
        self.image_ends();
        let mut capture = self.capture.lock();
        capture.image = None;
        capture.gap("the WAL does not continue from the last TXID");
        found.map(Some)
    }
}

/// Begins an image of the captured state, which is that of the newest TXID while the batch is empty.
fn begin(capture: &mut Capture) -> ImageStart {
    let commit = capture.batch.commit;
    let start =
        ImageStart { commit, captured: capture.captured, wal: capture.span(0), sequence: capture.batch.sequence };
    capture.image = Some(Image::new(capture.page_size, commit, capture.frames.clone(), capture.page_store()));
    start
}

/// The same, for a scan, which is begun while the position is being proven.
pub(super) fn begin_scan(capture: &mut Capture) {
    begin(capture);
}
