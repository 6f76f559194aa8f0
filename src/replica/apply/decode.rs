//! Frames to pages: decodes, hashes, and writes the pages that this file owns, in runs.

use super::claims::Claims;
use super::source::slice;
use super::{Fault, Outcome, PageSink, RUN_BYTES, Shape};
use crate::ltx::{IndexEntry, Pgno, SegmentHash, decode_frame};
use std::sync::atomic::{AtomicBool, Ordering};

/// What decoding needs beside the frames.
pub(super) struct Decoding<'a> {
    pub shape: Shape,
    pub claims: &'a Claims,
    pub sink: &'a dyn PageSink,
    pub stopped: &'a AtomicBool,
    /// The file's place in the order of claiming.
    pub place: usize,
    /// The file's index in the plan, for faults.
    pub file: usize,
}

impl Decoding<'_> {
    /// Decodes consecutive frames; `bytes` begins at byte `start` of the file, and `hash` goes on over them. `buffer` is
    /// kept between calls. `None` if the work was stopped.
    pub fn run(
        &self,
        mut hash: SegmentHash,
        bytes: &[u8],
        start: u64,
        entries: &[IndexEntry],
        buffer: &mut Vec<u8>,
    ) -> Outcome<Option<SegmentHash>> {
        let page_size = self.shape.page_size.bytes();
        buffer.resize(RUN_BYTES.max(page_size), 0);
        let mut run = Run { first: None, pages: 0 };
        for entry in entries {
            if self.stopped.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let blame = |error| Fault::File(self.file, error);
            let from = entry.offset.saturating_sub(start);
            let frame = slice(bytes, from..from.saturating_add(u64::from(entry.len))).map_err(blame)?;
            if run.pages > 0 && (!run.is_followed_by(entry.pgno) || (run.pages + 1) * page_size > buffer.len()) {
                self.flush(&mut run, buffer)?;
            }
            // A page that a newer file has is decoded in the same place, for its hash only, and then overwritten.
            let at = run.pages * page_size;
            let page = buffer.get_mut(at..at + page_size).unwrap_or_default();
            decode_frame(frame, entry.pgno, page).map_err(blame)?;
            hash.update_page(frame, page);
            if self.claims.owns(self.place, entry.pgno) {
                run.first.get_or_insert(entry.pgno);
                run.pages += 1;
            }
        }
        self.flush(&mut run, buffer)?;
        Ok(Some(hash))
    }

    fn flush(&self, run: &mut Run, buffer: &[u8]) -> Outcome<()> {
        let pages = buffer.get(..run.pages * self.shape.page_size.bytes()).unwrap_or_default();
        if let Some(first) = run.first.take() {
            self.sink.write_run(first, pages)?;
        }
        run.pages = 0;
        Ok(())
    }
}

/// Consecutive pages that wait in the buffer.
struct Run {
    first: Option<Pgno>,
    pages: usize,
}

impl Run {
    fn is_followed_by(&self, pgno: Pgno) -> bool {
        self.first.is_some_and(|first| first.index() + self.pages == pgno.index())
    }
}
