//! The companion index of a large object (R6): put after the object is durable and counts as such, by a task of its own,
//! so that shipping neither waits for it nor fails with it. A close waits for it, within its own limit.
//!
//! Memory: 4 bytes a page while an image is streamed, then 20 bytes a page, and on S3 as many again while they are sent;
//! and about as much for the copies of interior pages, 64 MiB at most.

use super::primary::Primary;
use super::sums::Sums;
use crate::config::{COMPANION_PAGES_MIN, IMAGE_COMPANION_PAGES_MIN};
use crate::error::{Context, Error, Result};
use crate::ltx::{Encoded, Header, Level, PageSize, Pgno, TAIL_SIZE, Tail, Txid, TxidRange, count_index};
use crate::replica::companion::{self, Builder, InteriorPages};
use crate::store::{ETag, Metadata};
use crate::time::Timestamp;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// An orphan that is younger may belong to an object that is just being made.
const ORPHAN_AGE_MS: i64 = 24 * 3_600_000;
/// A wait looks this often whether it was interrupted.
const INTERRUPT_INTERVAL: Duration = Duration::from_millis(50);
/// Three numbers.
const INDEX_TUPLE_MIN: u64 = 3;

/// What a companion is made from.
pub(super) enum Source {
    /// It is made.
    Bytes(Vec<u8>),
    /// The spool file, which may have lost its name by now, and the object as the store answered; `None` where the
    /// answer was lost, and the object is ours nevertheless.
    File { file: File, size: u64, etag: Option<ETag> },
}

/// The lengths of an image's frames, page after page, and its interior pages; none are kept of one that gets no companion.
pub(super) struct Frames(Option<(Vec<u32>, InteriorPages)>);

impl Frames {
    pub(super) fn new(page_size: PageSize, commit: u32) -> Self {
        let pages = commit as usize - usize::from(commit >= page_size.lock_page().get());
        let is_wanted = pages >= IMAGE_COMPANION_PAGES_MIN;
        Self(is_wanted.then(|| (Vec::with_capacity(pages), InteriorPages::default())))
    }

    pub(super) fn push(&mut self, pgno: Pgno, page: &[u8], length: u32) -> Result<()> {
        let Some((lengths, interior)) = &mut self.0 else { return Ok(()) };
        lengths.push(length);
        interior.see(pgno, page)
    }
}

/// The pages of a whole database, ascending.
fn pages_of(page_size: PageSize, commit: u32) -> impl Iterator<Item = Pgno> {
    (1..=commit).filter_map(Pgno::new).filter(move |pgno| *pgno != page_size.lock_page())
}

impl Primary {
    /// The companion of an image that is in the store as TXID 1; `None` if it gets none. What fails here is only told.
    pub(super) fn companion_of_image(
        &self,
        header: &Header,
        frames: Frames,
        sums: &Sums,
        encoded: &Encoded,
        etag: Option<ETag>,
    ) -> Option<Source> {
        let (lengths, interior) = frames.0?;
        let key = self.key(header.txids.max);
        let mut builder = Builder::new(header, lengths.len());
        for (pgno, length) in pages_of(header.page_size, header.commit).zip(&lengths) {
            builder.push(pgno, *length, sums.get(pgno.get()));
        }
        let made = self.etag_of(&key, encoded.size, etag).and_then(|etag| match etag {
            Some(etag) => builder.finish(interior, (&key, &etag), encoded.size, encoded.file_checksum),
            None => Ok(None),
        });
        match made {
            Ok(bytes) => bytes.map(Source::Bytes),
            Err(error) => {
                self.companion_failed(&key, error);
                None
            }
        }
    }

    /// The ETag of an object of ours, by HEAD if it is not known; `None` if that is another object.
    fn etag_of(&self, key: &str, size: u64, known: Option<ETag>) -> Result<Option<ETag>> {
        match known {
            Some(etag) => Ok(Some(etag)),
            None => Ok(self.store.head(key)?.filter(|object| object.size == size).map(|object| object.etag)),
        }
    }

    /// Has the companion put, soon, if the object is large enough for one.
    pub(super) fn leave_companion(self: &Arc<Self>, txid: Txid, source: Source) {
        if let Source::File { file, size, .. } = &source
            && !may_have_companion(file, *size)
        {
            return;
        }
        self.companions.fetch_add(1, Ordering::AcqRel);
        let primary = Arc::downgrade(self);
        let scheduled = self.pools.ship.run_at(self.now(), move || {
            if let Some(primary) = primary.upgrade() {
                let put = crate::panic::guard(|| primary.put_companion(txid, source)).and_then(|put| put);
                primary.companion_done(txid, put);
            }
        });
        if scheduled.is_err() {
            self.companion_done(txid, scheduled);
        }
    }

    fn companion_done(&self, txid: Txid, outcome: Result<()>) {
        if let Err(error) = outcome {
            self.companion_failed(&self.key(txid), error);
        }
        self.companions.fetch_sub(1, Ordering::AcqRel);
        self.progressed.notify_all();
    }

    fn companion_failed(&self, key: &str, error: Error) {
        let text = format!("{}: {key} has no companion index, replicas open it by its own", self.url());
        self.fail_visibly(&error.context(text));
    }

    fn put_companion(&self, txid: Txid, source: Source) -> Result<()> {
        let key = self.key(txid);
        let bytes = match source {
            Source::Bytes(bytes) => Some(bytes),
            Source::File { mut file, size, etag } => {
                let pages = page_count(&file, size).context("a spool file")?;
                if pages < COMPANION_PAGES_MIN {
                    return Ok(());
                }
                let Some(etag) = self.etag_of(&key, size, etag)? else { return Ok(()) };
                file.seek(SeekFrom::Start(0)).context("a spool file")?;
                companion::of_file(file, size, pages, &key, &etag)?
            }
        };
        if let (Some(bytes), false) = (bytes, self.is_stopped()) {
            // Its content follows from the object's, so that one of an earlier time may be replaced.
            let companion = companion::key(Level::L0, TxidRange::single(txid));
            self.store.put(&companion, &bytes, &Metadata::default())?;
        }
        Ok(())
    }

    /// Waits until the companions that are under way are put, or have failed.
    pub(super) fn await_companions(&self, deadline: Instant, cancelled: &dyn Fn() -> bool) {
        let mut progress = self.progress.lock();
        while self.companions.load(Ordering::Acquire) > 0 && self.now() < deadline {
            if crate::lock::MutexGuard::unlocked(&mut progress, cancelled) {
                return;
            }
            self.pools.wait(&self.progressed, &mut progress, INTERRUPT_INTERVAL);
        }
    }

    /// Removes companions whose objects are not there any more: a Litestream that compacts knows nothing of them.
    pub(super) fn sweep_companions(&self) -> Result<usize> {
        let now = self.pools.clock.now().0.saturating_add(self.store.clock_offset_ms());
        let before = Timestamp(now.saturating_sub(ORPHAN_AGE_MS));
        let mut old = self.store.list(companion::PREFIX)?;
        old.retain(|entry| entry.modified < before);
        if old.is_empty() {
            return Ok(0);
        }
        let (listing, mut removed) = (self.replica.list()?, 0);
        for entry in old {
            let Some((level, txids)) = companion::parse_key(&entry.key) else { continue };
            if !listing.level(level).iter().any(|file| file.txids == txids) {
                self.store.delete(&entry.key)?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

/// A first look: the index is long enough.
fn may_have_companion(file: &File, size: u64) -> bool {
    tail(file, size).is_ok_and(|tail| tail.index_size >= COMPANION_PAGES_MIN as u64 * INDEX_TUPLE_MIN)
}

fn page_count(file: &File, size: u64) -> std::io::Result<usize> {
    let range = tail(file, size)?.index_range(size);
    // The index of a file of ours, which `Tail` has compared with the file's size.
    let mut index = vec![0; (range.end - range.start) as usize];
    file.read_exact_at(&mut index, range.start)?;
    Ok(count_index(&index))
}

fn tail(file: &File, size: u64) -> std::io::Result<Tail> {
    let mut bytes = [0; TAIL_SIZE];
    file.read_exact_at(&mut bytes, size.saturating_sub(TAIL_SIZE as u64))?;
    Tail::parse(&bytes, size).map_err(std::io::Error::other)
}
