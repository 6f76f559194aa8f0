//! Copies of the interior pages of b-trees, each with where its children are: so that a look-up in a database of any
//! size takes one request for the interior page above the leaf and one for the leaf, and nothing else of the index.
//!
//! In front of the blocks are page 1 and those above others, which come with the head; behind the blocks are the rest, siblings
//! beside each other.

use super::{CompanionEntry, ENTRY_SIZE, Head, SUM_SIZE, corrupt, parse_entry, verified};
use crate::btree;
use crate::error::Result;
use crate::ltx::{Checksum, Fields, PageSize, Pgno, encode_frame, max_frame_len, page_checksum};
use std::collections::{HashMap, HashSet};
use std::ops::Range;

/// What the head says of one: page, bytes of its frame, children, page checksum.
pub(super) const INTERIOR_SIZE: usize = 20;
/// Offset and length in one; checksum. Zeros for a child that is not in the file.
const CHILD_SIZE: usize = 16;
/// A file with more of them has none in its companion: it is read by its blocks.
pub(super) const INTERIOR_MAX: usize = 8192;
/// In bytes; they are in memory while a companion is made.
const RECORDS_BYTES_MAX: u64 = 64 << 20;
/// Sets the salts of records apart from those of blocks.
const RECORD_SALT: usize = 1 << 31;

/// The interior pages of a file, as they come while it is written or read.
#[derive(Default)]
pub struct InteriorPages {
    pages: Vec<InteriorPage>,
    bytes: u64,
    are_too_many: bool,
}

pub(super) struct InteriorPage {
    pub pgno: Pgno,
    pub frame: Vec<u8>,
    pub children: Vec<u32>,
    pub checksum: u64,
}

impl InteriorPages {
    /// The next page of the file, which is kept if it is one, or page 1.
    ///
    /// # Errors
    /// [`Kind::Bug`](crate::error::Kind::Bug): not a page.
    pub fn see(&mut self, pgno: Pgno, page: &[u8]) -> Result<()> {
        if self.are_too_many {
            return Ok(());
        }
        // Page 1 is what every reader needs first.
        let first = (pgno == Pgno::FIRST).then(Vec::new);
        let Some(children) = btree::children(pgno, page).or(first) else { return Ok(()) };
        let frame = encode_frame(pgno, page)?;
        self.bytes += record_size(frame.len(), children.len());
        if self.pages.len() == INTERIOR_MAX || self.bytes > RECORDS_BYTES_MAX {
            *self = Self { are_too_many: true, ..Self::default() };
            return Ok(());
        }
        self.pages.push(InteriorPage { pgno, frame, children, checksum: page_checksum(pgno, page) });
        Ok(())
    }

    /// In the order of the companion, and how many of them are above others.
    pub(super) fn ordered(self) -> (Vec<InteriorPage>, usize) {
        let numbers: HashSet<u32> = self.pages.iter().map(|page| page.pgno.get()).collect();
        let is_upper = |page: &InteriorPage| {
            page.pgno == Pgno::FIRST || page.children.first().is_some_and(|child| numbers.contains(child))
        };
        let (mut pages, mut lower): (Vec<_>, Vec<_>) = self.pages.into_iter().partition(is_upper);
        let children = pages.iter().flat_map(|page| &page.children);
        let ranks: HashMap<u32, usize> = children.zip(0..).map(|(child, rank)| (*child, rank)).collect();
        lower.sort_by_key(|page| ranks.get(&page.pgno.get()).copied().unwrap_or(usize::MAX));
        let upper = pages.len();
        pages.append(&mut lower);
        (pages, upper)
    }
}

/// Bytes of a frame, of where the children are, and of a checksum over that.
fn record_size(frame: usize, children: usize) -> u64 {
    (frame + children * CHILD_SIZE + SUM_SIZE) as u64
}

/// The record of a page, the `number`th. `place`: 16 bytes of the entry of a page that is in the file.
pub(super) fn record<'a>(
    number: usize,
    page: &InteriorPage,
    file_checksum: Checksum,
    place: impl Fn(u32) -> Option<&'a [u8]>,
) -> Vec<u8> {
    let children = page.children.iter().map(|child| place(*child).unwrap_or(&[0; CHILD_SIZE]));
    let children = children.collect::<Vec<_>>().concat();
    let sum = Checksum::of_parts(&[&super::block_salt(file_checksum, RECORD_SALT | number), &children]);
    [page.frame.as_slice(), &children, &sum.get().to_be_bytes()].concat()
}

/// What the head says of a page that is copied.
pub(super) fn directory_entry(page: &InteriorPage) -> Vec<u8> {
    let numbers = [page.pgno.get(), page.frame.len() as u32, page.children.len() as u32];
    [numbers.map(u32::to_be_bytes).concat(), page.checksum.to_be_bytes().to_vec()].concat()
}

/// A page of which there is a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interior {
    /// The page.
    pub pgno: Pgno,
    /// Bytes of its frame.
    pub len: u32,
    /// [`page_checksum`](crate::ltx::page_checksum) of the page.
    pub checksum: u64,
    /// The frame's first byte in the companion.
    pub start: u64,
    children: u32,
}

/// The pages that are copied: in the order of their records, and by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Directory {
    records: Vec<Interior>,
    by_pgno: Vec<(Pgno, u32)>,
}

impl Directory {
    /// Without the places of the records, which [`Directory::place`] tells.
    pub fn parse(bytes: &[u8], page_size: PageSize, commit: u32) -> Result<Self> {
        let count = bytes.len() / INTERIOR_SIZE;
        if count > INTERIOR_MAX {
            return Err(corrupt(format!("{count} interior pages")));
        }
        let (mut records, mut total) = (Vec::with_capacity(count), 0);
        for bytes in bytes.as_chunks::<INTERIOR_SIZE>().0 {
            let mut fields = Fields(bytes);
            let (pgno, len, children, checksum) = (fields.u32()?, fields.u32()?, fields.u32()?, fields.u64()?);
            let pgno = Pgno::new(pgno).filter(|pgno| *pgno != page_size.lock_page() && pgno.get() <= commit);
            let is_right = (1..=max_frame_len(page_size)).contains(&(len as usize))
                && children <= page_size.get()
                && Checksum::from_u64(checksum).is_some();
            let pgno = pgno.filter(|_| is_right).ok_or_else(|| corrupt("an interior page that no database has"))?;
            total += record_size(len as usize, children as usize);
            records.push(Interior { pgno, len, checksum, start: 0, children });
        }
        let mut by_pgno: Vec<_> = records.iter().zip(0..).map(|(record, number)| (record.pgno, number)).collect();
        by_pgno.sort_unstable();
        let is_twice = by_pgno.array_windows().any(|[left, right]| left.0 == right.0);
        if is_twice || total > RECORDS_BYTES_MAX {
            return Err(corrupt(format!("{count} interior pages of {total} bytes")));
        }
        Ok(Self { records, by_pgno })
    }

    /// The first `upper` records begin there; where they end, `blocks` bytes follow, and then the others.
    pub fn place(&mut self, mut start: u64, upper: usize, blocks: u64) -> u64 {
        let mut blocks_start = start;
        for (number, record) in self.records.iter_mut().enumerate() {
            if number == upper {
                start += blocks;
            }
            record.start = start;
            start += record_size(record.len as usize, record.children as usize);
            if number < upper {
                blocks_start = start;
            }
        }
        blocks_start
    }
}

impl Head {
    /// How many copies of interior pages there are.
    pub fn interiors(&self) -> usize {
        self.interiors.records.len()
    }

    /// One of them.
    pub fn interior(&self, number: usize) -> Option<&Interior> {
        self.interiors.records.get(number)
    }

    /// Which one is that of a page.
    pub fn interior_of(&self, pgno: Pgno) -> Option<usize> {
        let by_pgno = &self.interiors.by_pgno;
        let at = by_pgno.binary_search_by_key(&pgno, |(pgno, _)| *pgno).ok()?;
        by_pgno.get(at).map(|(_, number)| *number as usize)
    }

    /// Where a record is, in bytes of the companion: the frame, and what follows it; of one that is not there, nothing.
    pub fn record_range(&self, number: usize) -> Range<u64> {
        self.interior(number).map_or(0..0, |it| it.start..it.start + record_size(it.len as usize, it.children as usize))
    }

    /// Where the children of an interior page are, those that are in the file. `bytes`: what follows the frame in the
    /// record; `children`: as the page names them.
    ///
    /// # Errors
    /// [`Kind::Corrupt`](crate::error::Kind::Corrupt).
    pub fn parse_children(&self, number: usize, bytes: &[u8], children: &[u32]) -> Result<Vec<CompanionEntry>> {
        let body = verified(bytes, &super::block_salt(self.file_checksum, RECORD_SALT | number))?;
        if body.len() != children.len() * CHILD_SIZE {
            return Err(corrupt(format!("{} children in {} bytes", children.len(), body.len())));
        }
        let mut entries = Vec::with_capacity(children.len());
        for (child, place) in children.iter().zip(body.as_chunks::<CHILD_SIZE>().0) {
            if place.iter().all(|byte| *byte == 0) {
                continue;
            }
            let mut bytes = [0; ENTRY_SIZE];
            let (pgno, rest) = bytes.split_at_mut(ENTRY_SIZE - CHILD_SIZE);
            pgno.copy_from_slice(&child.to_be_bytes());
            rest.copy_from_slice(place);
            let entry = parse_entry(&bytes, self.page_size)?;
            if !self.has_room(&entry) {
                return Err(corrupt(format!("page {child} at {}", entry.offset)));
            }
            entries.push(entry);
        }
        Ok(entries)
    }
}
