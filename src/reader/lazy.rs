//! The index of a large object, read block by block from its companion (R6).

use super::copies::Copies;
use super::flight::shared;
use super::index::Frame;
use super::object::Object;
use super::source::decode;
use super::state::Place;
use crate::error::Result;
use crate::ltx::Pgno;
use crate::replica::companion::{CompanionEntry, Head};
use crate::store::{ETag, Entry, Store};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Blocks of the first request, which may remain the only one: 40 KiB.
const BLOCKS_AT_FIRST: usize = 2;
/// Blocks of one request: 320 KiB, about as quick as one block, and 16,384 pages.
const BLOCKS_AT_ONCE: usize = 16;
/// Blocks that are read ahead at most: 640,000 pages, whose blocks take 10 MiB of memory.
const BLOCKS_AHEAD: usize = 640;

/// An index of which blocks are read when a page of theirs is wanted.
pub(super) struct LazyIndex {
    object: Arc<Object>,
    head: Arc<Head>,
    /// The copies of interior pages: only of a store where requests are worth saving.
    copies: Option<Arc<Copies>>,
    key: String,
    etag: Option<ETag>,
    /// The block that somebody waited for first, counted from 1.
    waited: AtomicUsize,
    /// The blocks are being read ahead, or were.
    ahead: AtomicBool,
}

/// A block: 12 bytes a page where no page number is left out, else 16.
pub(super) struct Block {
    first: u32,
    /// Empty if none is left out.
    pgnos: Vec<u32>,
    base: u64,
    /// Ends of the frames, counted from `base`.
    ends: Vec<u32>,
    sums: Vec<u64>,
}

impl Block {
    fn new(entries: &[CompanionEntry]) -> Self {
        let first = entries.first().map_or(0, |entry| entry.pgno.get());
        let base = entries.first().map_or(0, |entry| entry.offset);
        let is_dense = entries.iter().zip(first..).all(|(entry, pgno)| entry.pgno.get() == pgno);
        Self {
            first,
            pgnos: if is_dense { Vec::new() } else { entries.iter().map(|entry| entry.pgno.get()).collect() },
            base,
            ends: entries.iter().map(|entry| (entry.offset - base) as u32 + entry.len).collect(),
            sums: entries.iter().map(|entry| entry.checksum).collect(),
        }
    }

    fn find(&self, object: &Arc<Object>, pgno: Pgno) -> Option<Frame> {
        let at = if self.pgnos.is_empty() {
            pgno.get().checked_sub(self.first)? as usize
        } else {
            self.pgnos.binary_search(&pgno.get()).ok()?
        };
        let start = at.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied())?;
        let end = *self.ends.get(at)?;
        Some(Frame {
            object: Arc::clone(object),
            pgno,
            offset: self.base + u64::from(start),
            len: end.checked_sub(start)?,
            sum: self.sums.get(at).copied(),
            copy: None,
        })
    }

    /// In memory, about.
    pub fn bytes(&self) -> usize {
        self.pgnos.len() * 4 + self.ends.len() * 4 + self.sums.len() * 8 + 128
    }
}

impl LazyIndex {
    /// `start` are the first bytes of the companion; what is whole in it is kept.
    pub fn new(object: Arc<Object>, head: Head, companion: &Entry, start: &[u8], is_local: bool) -> Result<Self> {
        let head = Arc::new(head);
        let index = Self {
            copies: if is_local { None } else { Copies::new(&object, &head, companion) },
            object,
            head,
            key: companion.key.clone(),
            etag: companion.etag.clone(),
            waited: AtomicUsize::new(0),
            ahead: AtomicBool::new(false),
        };
        for block in 0..index.head.blocks() {
            let range = index.head.block_range(block);
            let Some(bytes) = start.get(range.start as usize..range.end as usize) else { break };
            index.keep(block, bytes)?;
        }
        for frame in index.copies.iter().flat_map(|copies| (0..index.head.interiors()).map_while(|n| copies.frame(n))) {
            let Some(record) = start.get(frame.offset as usize..frame.end() as usize) else { break };
            let (bytes, behind) = record.split_at_checked(frame.len as usize).unwrap_or_default();
            let page = decode(&frame, bytes)?;
            frame.learn(&page, behind)?;
            shared().cache.put((frame.object.id, frame.pgno), page, false);
        }
        Ok(index)
    }

    /// The companion's key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Whose index it is.
    pub fn object(&self) -> &Arc<Object> {
        &self.object
    }

    /// Where a page is: an interior page in the companion, if there is a copy. Memory only.
    pub fn find(self: &Arc<Self>, pgno: Pgno) -> Place {
        match self.copies.as_ref().and_then(|copies| copies.find(pgno)) {
            Some(frame) => Place::At(frame),
            None => self.find_stored(pgno),
        }
    }

    /// Where a page is in the object.
    pub fn find_stored(self: &Arc<Self>, pgno: Pgno) -> Place {
        let Some(number) = self.head.block_of(pgno) else { return Place::Nowhere };
        match shared().blocks.get(&(self.object.id, number)) {
            Some(block) => block.find(&self.object, pgno).map_or(Place::Nowhere, Place::At),
            None => match Copies::child(&self.object, pgno) {
                Some(frame) => Place::At(frame),
                None => Place::Unread(Arc::clone(self), number),
            },
        }
    }

    /// Whether a look-up needs little of it: where the children of interior pages are is in the companion.
    pub fn has_copies(&self) -> bool {
        self.copies.is_some()
    }

    /// What is read for somebody who waits for a block, and whether it may be all: whoever needs a second one soon needs
    /// others.
    pub fn waiting(&self, block: usize) -> (Range<usize>, bool) {
        let first = self.waited.compare_exchange(0, block + 1, Ordering::Relaxed, Ordering::Relaxed);
        let may_be_all = self.has_copies() && first.map_or_else(|first| first == block + 1, |_| true);
        (self.from(block, if may_be_all { BLOCKS_AT_FIRST } else { BLOCKS_AT_ONCE }), may_be_all)
    }

    /// Whether nobody has read it ahead before.
    pub fn begin_reading_ahead(&self) -> bool {
        !self.ahead.swap(true, Ordering::Relaxed)
    }

    /// The blocks behind those that somebody reads, and then those in front, as many at a time as a request takes.
    pub fn stretches(&self, read: Range<usize>) -> Vec<Range<usize>> {
        let count = self.head.blocks();
        let up_to = |start: usize, end: usize| {
            (start..end).step_by(BLOCKS_AT_ONCE).map(move |start| start..(start + BLOCKS_AT_ONCE).min(end))
        };
        up_to(read.end, count).chain(up_to(0, read.start)).take(BLOCKS_AHEAD / BLOCKS_AT_ONCE).collect()
    }

    /// A block, and those behind it that come with it.
    fn from(&self, number: usize, blocks: usize) -> Range<usize> {
        number..(number + blocks).min(self.head.blocks())
    }

    /// Reads a block, and some behind it.
    pub fn read(&self, store: &dyn Store, number: usize) -> Result<()> {
        self.read_all(store, self.from(number, BLOCKS_AT_ONCE))
    }

    /// Reads these blocks.
    pub fn read_all(&self, store: &dyn Store, Range { start: number, end }: Range<usize>) -> Result<()> {
        let (first, last) = (self.head.block_range(number), self.head.block_range(end.saturating_sub(1)));
        let bytes = store.get_range(&self.key, first.start..last.end, self.etag.as_ref())?;
        for block in number..end {
            let range = self.head.block_range(block);
            let place = (range.start - first.start) as usize..(range.end - first.start) as usize;
            self.keep(block, bytes.get(place).unwrap_or_default())?;
        }
        Ok(())
    }

    fn keep(&self, number: usize, bytes: &[u8]) -> Result<()> {
        let block = Block::new(&self.head.parse_block(number, bytes)?);
        shared().blocks.put((self.object.id, number), Arc::new(block));
        Ok(())
    }
}
