//! Makes a companion's bytes.

use super::interior::{INTERIOR_SIZE, InteriorPages, directory_entry, record};
use super::{
    BLOCK_ENTRIES, ENTRY_SIZE, FILE_SIZE_END, FIXED_SIZE, Head, MAGIC, NAME_BYTES_MAX, START_SIZE, SUM_SIZE, VERSION,
    block_salt,
};
use crate::error::{Error, Result};
use crate::ltx::{Checksum, Decoder, HEADER_SIZE, Header, Pgno, page_checksum};
use crate::store::ETag;
use std::io::Read;

/// A companion being made: 20 bytes a page, in one piece of memory, and at the end copies of interior pages.
pub struct Builder {
    header: Header,
    /// Entries with room for each block's checksum; the head goes in front of them at the end.
    blocks: Vec<u8>,
    first_pages: Vec<u32>,
    entries: u32,
    /// Where the next frame begins.
    offset: u64,
}

impl Builder {
    /// For a file with that header and so many pages.
    pub fn new(header: &Header, pages: usize) -> Self {
        let block_count = pages.div_ceil(BLOCK_ENTRIES);
        let head = FIXED_SIZE + 2 * (2 + NAME_BYTES_MAX) + block_count * 4 + SUM_SIZE;
        Self {
            header: *header,
            blocks: Vec::with_capacity(head + pages * ENTRY_SIZE + block_count * SUM_SIZE),
            first_pages: Vec::with_capacity(block_count),
            entries: 0,
            offset: HEADER_SIZE as u64,
        }
    }

    /// The next page of the file: the bytes of its frame, and its [`page_checksum`].
    pub fn push(&mut self, pgno: Pgno, frame_len: u32, checksum: u64) {
        if (self.entries as usize).is_multiple_of(BLOCK_ENTRIES) {
            if self.entries > 0 {
                self.blocks.extend_from_slice(&[0; SUM_SIZE]);
            }
            self.first_pages.push(pgno.get());
        }
        self.blocks.extend_from_slice(&pgno.get().to_be_bytes());
        self.blocks.extend_from_slice(&(self.offset << 24 | u64::from(frame_len)).to_be_bytes());
        self.blocks.extend_from_slice(&checksum.to_be_bytes());
        self.entries += 1;
        self.offset = self.offset.saturating_add(u64::from(frame_len));
    }

    /// The bytes, of a file that is `key` in the store, with that content. `None` of one that is too large: 1 TiB.
    ///
    /// # Errors
    /// [`Kind::Bug`](crate::error::Kind::Bug) if the pages are not those of a file.
    pub fn finish(
        mut self,
        interior: InteriorPages,
        (key, etag): (&str, &ETag),
        size: u64,
        file_checksum: Checksum,
    ) -> Result<Option<Vec<u8>>> {
        if size >= FILE_SIZE_END {
            return Ok(None);
        }
        self.blocks.extend_from_slice(&[0; SUM_SIZE]);
        for (block, bytes) in self.blocks.chunks_mut(BLOCK_ENTRIES * ENTRY_SIZE + SUM_SIZE).enumerate() {
            if let Some((body, sum)) = bytes.split_last_chunk_mut::<SUM_SIZE>() {
                *sum = Checksum::of_parts(&[&block_salt(file_checksum, block), body]).get().to_be_bytes();
            }
        }
        let (pages, upper) = interior.ordered();
        let directory: Vec<u8> = pages.iter().flat_map(directory_entry).collect();
        let mut front = self.head((key, etag), size, file_checksum, (&directory, upper))?;
        // What a reader would refuse is not left for one.
        let head = Head::parse(&front).map_err(Error::bug)?;
        let (blocks, ends) = (self.blocks.len(), (upper..pages.len()).map(|number| head.record_range(number)));
        let behind = ends.map(|range| (range.end - range.start) as usize).sum::<usize>();
        let mut pages = pages.into_iter().enumerate();
        for (number, page) in pages.by_ref().take(upper) {
            front.append(&mut record(number, &page, file_checksum, |pgno| place(&self.blocks, self.entries, pgno)));
        }
        let (mut bytes, start, end) = (self.blocks, front.len(), front.len() + blocks);
        bytes.reserve_exact(start + behind);
        bytes.splice(0..0, front);
        for (number, page) in pages {
            let blocks = bytes.get(start..end).unwrap_or_default();
            let mut record = record(number, &page, file_checksum, |pgno| place(blocks, self.entries, pgno));
            bytes.append(&mut record);
        }
        Ok(Some(bytes))
    }

    /// `interior`: the entries of interior pages, and how many of these are above others.
    fn head(
        &self,
        (key, etag): (&str, &ETag),
        size: u64,
        file_checksum: Checksum,
        (interior, upper): (&[u8], usize),
    ) -> Result<Vec<u8>> {
        let Header { page_size, commit, txids, timestamp, .. } = self.header;
        let mut fixed = Vec::with_capacity(FIXED_SIZE);
        for field in [page_size.get(), commit, self.entries, BLOCK_ENTRIES as u32] {
            fixed.extend_from_slice(&field.to_be_bytes());
        }
        for field in [txids.min.get(), txids.max.get(), timestamp.0.cast_unsigned(), size, file_checksum.get()] {
            fixed.extend_from_slice(&field.to_be_bytes());
        }
        fixed.extend_from_slice(&self.offset.to_be_bytes());
        for count in [interior.len() / INTERIOR_SIZE, upper] {
            fixed.extend_from_slice(&(count as u32).to_be_bytes());
        }
        for name in [key, &etag.0] {
            fixed.extend_from_slice(&u16::try_from(name.len()).map_err(Error::bug)?.to_be_bytes());
            fixed.extend_from_slice(name.as_bytes());
        }
        let length = START_SIZE + fixed.len() + 4 * self.first_pages.len() + interior.len() + SUM_SIZE;
        let mut head = Vec::with_capacity(length);
        head.extend_from_slice(&MAGIC);
        head.extend_from_slice(&VERSION.to_be_bytes());
        head.extend_from_slice(&u32::try_from(length).map_err(Error::bug)?.to_be_bytes());
        head.extend_from_slice(&fixed);
        self.first_pages.iter().for_each(|first| head.extend_from_slice(&first.to_be_bytes()));
        head.extend_from_slice(interior);
        let sum = Checksum::of_parts(&[&head]);
        head.extend_from_slice(&sum.get().to_be_bytes());
        Ok(head)
    }
}

/// What the entry of a page says, behind its number; `blocks` have so many entries.
fn place(blocks: &[u8], entries: u32, pgno: u32) -> Option<&[u8]> {
    let entry = |n: u32| {
        let at = n as usize * ENTRY_SIZE + n as usize / BLOCK_ENTRIES * SUM_SIZE;
        blocks.get(at..at + ENTRY_SIZE)?.split_first_chunk()
    };
    let number_of = |n: u32| entry(n).map(|(number, _)| u32::from_be_bytes(*number));
    let (mut low, mut high) = (0, entries);
    while low < high {
        let middle = low + (high - low) / 2;
        if number_of(middle)? < pgno { low = middle + 1 } else { high = middle }
    }
    entry(low).filter(|(number, _)| **number == pgno.to_be_bytes()).map(|(_, place)| place)
}

/// The companion of an LTX file that is read here, from its first byte to its last, and verified; `pages` is how many it
/// has. `key` and `etag` name it in the store.
///
/// # Errors
/// Those of the decoder.
pub fn of_file(file: impl Read, size: u64, pages: usize, key: &str, etag: &ETag) -> Result<Option<Vec<u8>>> {
    let mut decoder = Decoder::new(file)?;
    let (mut builder, mut interior) = (Builder::new(decoder.header(), pages), InteriorPages::default());
    let mut page = vec![0; decoder.header().page_size.bytes()];
    let mut start = decoder.offset();
    while let Some(pgno) = decoder.next_page(&mut page)? {
        let len = u32::try_from(decoder.offset() - start).map_err(Error::bug)?;
        builder.push(pgno, len, page_checksum(pgno, &page));
        interior.see(pgno, &page)?;
        start = decoder.offset();
    }
    let trailer = decoder.finish()?;
    builder.finish(interior, (key, etag), size, trailer.file_checksum)
}
