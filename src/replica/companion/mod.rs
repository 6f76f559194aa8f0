//! The companion index of an LTX file (R6): where each page is and its checksum, in blocks that are read one by one, so
//! that opening a replica costs the same whatever its size. `docs/design.md` draws the bytes.
//!
//! It lies beside the levels, where Litestream does not look, and is only a help: a reader that finds none, or one that
//! describes another object, reads the index in the LTX file.
//!
//! | File | Holds |
//! |---|---|
//! | `build` | makes the bytes while, or after, the file is written |
//! | `interior` | copies of the interior pages of b-trees, and where their children are |
//!
//! Architecture invariant: no length read from a companion is used before it was compared with what is there.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod build;
mod interior;

pub use build::{Builder, of_file};
pub use interior::{Interior, InteriorPages};

use crate::error::{Error, Result};
use crate::ltx::{
    Checksum, END_MARKER_SIZE, Fields, HEADER_SIZE, Level, PageSize, Pgno, TAIL_SIZE, TxidRange, max_frame_len,
};
use crate::replica::FileInfo;
use crate::store::ETag;
use crate::time::Timestamp;
use interior::{Directory, INTERIOR_MAX, INTERIOR_SIZE};
use std::ops::Range;

/// What all keys begin with.
pub const PREFIX: &str = "index/";
const SUFFIX: &str = ".idx";

const MAGIC: [u8; 4] = *b"LSIX";
const VERSION: u32 = 2;
/// Magic, version, and the head's length.
const START_SIZE: usize = 12;
/// Up to the key.
const FIXED_SIZE: usize = 84;
const SUM_SIZE: usize = 8;
/// Page number; offset and length in one; checksum.
const ENTRY_SIZE: usize = 20;
/// Entries of every block but the last.
const BLOCK_ENTRIES: usize = 1024;
/// The longest key and ETag, in bytes. S3's longest key.
const NAME_BYTES_MAX: usize = 1024;
/// An entry has 40 bits for an offset.
const FILE_SIZE_END: u64 = 1 << 40;
/// Of a file with every page that there can be.
const HEAD_BYTES_MAX: u64 = (FIXED_SIZE + 2 * (2 + NAME_BYTES_MAX) + INTERIOR_MAX * INTERIOR_SIZE + SUM_SIZE) as u64
    + 4 * (u32::MAX as u64).div_ceil(BLOCK_ENTRIES as u64);

/// The key of a file's companion, below the replica's URL, in either layout.
pub fn key(level: Level, txids: TxidRange) -> String {
    format!("{PREFIX}{level}/{txids}{SUFFIX}")
}

/// Level and TXIDs of a companion's key; `None` for any other.
pub fn parse_key(found: &str) -> Option<(Level, TxidRange)> {
    let (level, name) = found.strip_prefix(PREFIX)?.split_once('/')?;
    let txids = TxidRange::parse_file_name(&format!("{}.ltx", name.strip_suffix(SUFFIX)?))?;
    let level = Level::new(level.parse().ok()?)?;
    (key(level, txids) == found).then_some((level, txids))
}

/// Where one page is, and what it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompanionEntry {
    /// The page.
    pub pgno: Pgno,
    /// Bytes of the frame, its header included.
    pub len: u32,
    /// The frame's first byte in the LTX file.
    pub offset: u64,
    /// [`page_checksum`](crate::ltx::page_checksum) of the page.
    pub checksum: u64,
}

/// What a companion says of its file, and which pages are in which of its blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Of the database.
    pub page_size: PageSize,
    /// The database's size in pages after the file.
    pub commit: u32,
    /// The TXIDs that the file covers.
    pub txids: TxidRange,
    /// That of the file's header.
    pub timestamp: Timestamp,
    /// Bytes of the file.
    pub size: u64,
    /// The last field of the file.
    pub file_checksum: Checksum,
    /// The byte after the file's last frame.
    pub pages_end: u64,
    /// Pages in the file.
    pub entries: u32,
    /// The file, relative to the replica's URL.
    pub key: String,
    /// The file, as the store named its content.
    pub etag: ETag,
    /// The first page of each block.
    first_pages: Vec<u32>,
    interiors: Directory,
    length: u64,
    /// Where the first block begins.
    blocks_start: u64,
}

impl Head {
    /// How long the head is, told by its first 12 bytes. `bytes` may be more of it, or less than all.
    ///
    /// # Errors
    /// [`Kind::Corrupt`](crate::error::Kind::Corrupt): not a companion, of another version, or a length that none has.
    pub fn length_of(bytes: &[u8]) -> Result<u64> {
        let mut fields = Fields(bytes);
        if fields.array()? != MAGIC {
            return Err(corrupt("does not begin with LSIX"));
        }
        let version = fields.u32()?;
        if version != VERSION {
            return Err(corrupt(format!("version {version}, known is {VERSION}")));
        }
        let length = u64::from(fields.u32()?);
        if !((FIXED_SIZE + SUM_SIZE) as u64..=HEAD_BYTES_MAX).contains(&length) {
            return Err(corrupt(format!("a head of {length} bytes")));
        }
        Ok(length)
    }

    /// Parses the head at the start of `bytes`; what follows is not looked at.
    ///
    /// # Errors
    /// [`Kind::Corrupt`](crate::error::Kind::Corrupt).
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let length = Self::length_of(bytes)?;
        let head = usize::try_from(length).ok().and_then(|length| bytes.get(..length));
        let head = head.ok_or_else(|| corrupt(format!("{} bytes of a head of {length}", bytes.len())))?;
        let body = verified(head, &[])?;
        let mut fields = Fields(body.get(START_SIZE..).unwrap_or_default());
        let page_size = PageSize::new(fields.u32()?)?;
        let (commit, entries, block_entries) = (fields.u32()?, fields.u32()?, fields.u32()?);
        let txids = txids(fields.u64()?, fields.u64()?)?;
        let timestamp = Timestamp(i64::from_be_bytes(fields.array()?));
        let size = fields.u64()?;
        let file_checksum =
            Checksum::from_u64(fields.u64()?).ok_or_else(|| corrupt("the file's checksum is missing"))?;
        let pages_end = fields.u64()?;
        let (interiors, upper) = (fields.u32()? as usize, fields.u32()? as usize);
        let (key, etag) = (name(&mut fields)?, ETag(name(&mut fields)?));
        let blocks = (entries as usize).div_ceil(BLOCK_ENTRIES);
        let (first_pages, rest) = fields.0.split_at_checked(blocks * 4).unwrap_or_default();
        let sizes = (rest.len(), first_pages.len(), block_entries as usize);
        if sizes != (interiors.saturating_mul(INTERIOR_SIZE), blocks * 4, BLOCK_ENTRIES) || upper > interiors {
            return Err(corrupt(format!("{entries} pages in blocks of {block_entries}, {interiors} interior ones")));
        }
        let first_pages = first_pages.as_chunks().0.iter().map(|bytes| u32::from_be_bytes(*bytes)).collect();
        let mut head = Self {
            page_size,
            commit,
            txids,
            timestamp,
            size,
            file_checksum,
            pages_end,
            entries,
            key,
            etag,
            first_pages,
            interiors: Directory::parse(rest, page_size, commit)?,
            length,
            blocks_start: length,
        };
        head.check()?;
        head.blocks_start =
            head.interiors.place(length, upper, head.block_range(blocks.saturating_sub(1)).end - length);
        Ok(head)
    }

    /// Rules between the fields.
    fn check(&self) -> Result<()> {
        let lock_page = self.page_size.lock_page().get();
        let pages = self.commit - u32::from(self.commit >= lock_page);
        let complete = self.txids.min == crate::ltx::Txid::FIRST;
        if self.entries == 0 || self.entries > pages || (complete && self.entries != pages) {
            return Err(corrupt(format!("{} of {} pages in {}", self.entries, self.commit, self.key)));
        }
        let after_pages = (END_MARKER_SIZE + TAIL_SIZE) as u64;
        let has_room = self.pages_end > HEADER_SIZE as u64 && self.pages_end.saturating_add(after_pages) < self.size;
        if !has_room || self.size >= FILE_SIZE_END {
            return Err(corrupt(format!("pages up to byte {} of a file of {}", self.pages_end, self.size)));
        }
        for (block, first) in self.first_pages.iter().enumerate() {
            let last = first.checked_add(self.block_entries(block) as u32 - 1);
            let next = self.first_pages.get(block + 1).copied().unwrap_or(self.commit.saturating_add(1));
            if *first == 0 || *first == lock_page || last.is_none_or(|last| last >= next) {
                return Err(corrupt(format!("block {block} begins with page {first}, the next one with {next}")));
            }
        }
        Ok(())
    }

    /// Whether it is the companion of that object, with that content (R1).
    pub fn describes(&self, file: &FileInfo) -> bool {
        let same_content = file.etag.as_ref().is_none_or(|etag| *etag == self.etag);
        self.key == file.key && self.txids == file.txids && self.size == file.size && same_content
    }

    /// How many blocks there are; they follow each other without gaps.
    pub fn blocks(&self) -> usize {
        self.first_pages.len()
    }

    /// Bytes of the head.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The block in which a page is, if the file has it.
    pub fn block_of(&self, pgno: Pgno) -> Option<usize> {
        if pgno.get() > self.commit {
            return None;
        }
        self.first_pages.partition_point(|first| *first <= pgno.get()).checked_sub(1)
    }

    /// Where a block is, in bytes of the companion; of a block that is not there, nothing.
    pub fn block_range(&self, block: usize) -> Range<u64> {
        let block_size = |entries: usize| (entries * ENTRY_SIZE + SUM_SIZE) as u64;
        let start = self.blocks_start + block.min(self.blocks()) as u64 * block_size(BLOCK_ENTRIES);
        match self.block_entries(block) {
            0 => start..start,
            entries => start..start + block_size(entries),
        }
    }

    fn block_entries(&self, block: usize) -> usize {
        (self.entries as usize).saturating_sub(block.saturating_mul(BLOCK_ENTRIES)).min(BLOCK_ENTRIES)
    }

    /// Whether a frame lies where frames are.
    fn has_room(&self, entry: &CompanionEntry) -> bool {
        entry.offset >= HEADER_SIZE as u64 && entry.offset + u64::from(entry.len) <= self.pages_end
    }

    /// Parses a block, the bytes of its range. Its pages ascend, and their frames follow each other.
    ///
    /// # Errors
    /// [`Kind::Corrupt`](crate::error::Kind::Corrupt).
    pub fn parse_block(&self, block: usize, bytes: &[u8]) -> Result<Vec<CompanionEntry>> {
        let range = self.block_range(block);
        if range.is_empty() || bytes.len() as u64 != range.end - range.start {
            return Err(corrupt(format!("{} bytes of block {block} of {}", bytes.len(), self.blocks())));
        }
        let body = verified(bytes, &block_salt(self.file_checksum, block))?;
        let next_block = self.first_pages.get(block + 1).copied().unwrap_or(self.commit.saturating_add(1));
        let lock_page = self.page_size.lock_page();
        let mut entries: Vec<CompanionEntry> = Vec::with_capacity(body.len() / ENTRY_SIZE);
        for bytes in body.as_chunks::<ENTRY_SIZE>().0 {
            let entry = parse_entry(bytes, self.page_size)?;
            let follows = match entries.last() {
                Some(last) => last.pgno < entry.pgno && last.offset + u64::from(last.len) == entry.offset,
                None => {
                    let is_first = self.first_pages.get(block) == Some(&entry.pgno.get());
                    is_first && (block > 0 || entry.offset == HEADER_SIZE as u64)
                }
            };
            if !follows || !self.has_room(&entry) || entry.pgno == lock_page || entry.pgno.get() >= next_block {
                return Err(corrupt(format!("block {block}: page {} at {}", entry.pgno, entry.offset)));
            }
            entries.push(entry);
        }
        let end = entries.last().map(|last| last.offset + u64::from(last.len));
        if block + 1 == self.blocks() && end != Some(self.pages_end) {
            return Err(corrupt(format!("the last page does not end at {}", self.pages_end)));
        }
        Ok(entries)
    }
}

fn parse_entry(bytes: &[u8; ENTRY_SIZE], page_size: PageSize) -> Result<CompanionEntry> {
    let mut fields = Fields(bytes);
    let (pgno, place, checksum) = (fields.u32()?, fields.u64()?, fields.u64()?);
    let pgno = Pgno::new(pgno).ok_or_else(|| corrupt("page 0"))?;
    let (offset, len) = (place >> 24, (place & 0xff_ffff) as u32);
    if len == 0 || len as usize > max_frame_len(page_size) || Checksum::from_u64(checksum).is_none() {
        return Err(corrupt(format!("page {pgno} with {len} bytes and checksum {checksum:016x}")));
    }
    Ok(CompanionEntry { pgno, len, offset, checksum })
}

fn txids(min: u64, max: u64) -> Result<TxidRange> {
    let txid = crate::ltx::Txid::new;
    let range = txid(min).zip(txid(max)).and_then(|(min, max)| TxidRange::new(min, max));
    range.ok_or_else(|| corrupt(format!("TXIDs {min} to {max} are not a range")))
}

/// A name behind its length.
fn name(fields: &mut Fields<'_>) -> Result<String> {
    let length = usize::from(u16::from_be_bytes(fields.array()?));
    let (name, rest) = fields.0.split_at_checked(length).ok_or_else(|| corrupt("ends inside a name"))?;
    fields.0 = rest;
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(corrupt(format!("a name of {length} bytes")));
    }
    String::from_utf8(name.to_vec()).map_err(|_| corrupt("a name that is not text"))
}

/// What a block's checksum begins with: a block of another file, or in another place, fails it.
fn block_salt(file_checksum: Checksum, block: usize) -> [u8; 12] {
    let [a, b, c, d, e, f, g, h] = file_checksum.get().to_be_bytes();
    let [i, j, k, l] = (block as u32).to_be_bytes();
    [a, b, c, d, e, f, g, h, i, j, k, l]
}

/// The bytes before the checksum that ends them.
fn verified<'a>(bytes: &'a [u8], salt: &[u8]) -> Result<&'a [u8]> {
    let (body, sum) = bytes.split_last_chunk::<SUM_SIZE>().ok_or_else(|| corrupt("no checksum"))?;
    if Checksum::of_parts(&[salt, body]).get() != u64::from_be_bytes(*sum) {
        return Err(corrupt("checksum mismatch"));
    }
    Ok(body)
}

fn corrupt(reason: impl std::fmt::Display) -> Error {
    Error::corrupt(format!("companion index: {reason}"))
}
