//! Writes a file, page after page.

use super::checksum::digest;
use super::frame::{BLOCK_SIZE_SIZE, FLAG_BLOCK, FRAME_HEADER_SIZE};
use super::index::IndexBuilder;
use super::order::PageOrder;
use super::segment;
use super::stream::io_error;
use super::{Checksum, END_MARKER_SIZE, HEADER_SIZE, Header, IndexEntry, PageSize, Pgno, TAIL_SIZE};
use crate::error::{Error, Result};
use crc_fast::Digest;
use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};
use std::io::Write;

/// Bytes of a frame before its LZ4 block.
const PREFIX_SIZE: usize = FRAME_HEADER_SIZE + BLOCK_SIZE_SIZE;

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Bytes of the file.
    pub size: u64,
    /// The last field of the file.
    pub file_checksum: Checksum,
    /// Pages in it.
    pub pages: u32,
}

/// A file being written: one `write_all` for the header, one per page, one for the end. What grows is the index, at
/// most 14 bytes per page; nothing is allocated per page beside it.
///
/// A caller that breaks the format's rules gets [`Kind::Bug`](crate::error::Kind::Bug). After an error the file is
/// unusable.
pub struct Encoder<W: Write> {
    writer: W,
    page_size: PageSize,
    order: PageOrder,
    digest: Digest,
    index: IndexBuilder,
    offset: u64,
    pages: u32,
    frame: Vec<u8>,
    table: CompressTable,
}

impl<W: Write> Encoder<W> {
    /// Writes the header. Files never carry database checksums (`pre_apply` is `None`): Litestream's compactor and
    /// restore refuse them. Nor is there a file for a database of no pages.
    pub fn new(mut writer: W, header: Header) -> Result<Self> {
        header.check().map_err(Error::bug)?;
        if header.pre_apply.is_some() || header.commit == 0 {
            return Err(Error::bug("LTX files have no database checksums and at least one page"));
        }
        let bytes = header.to_bytes();
        let mut digest = digest();
        digest.update(&bytes);
        write_all(&mut writer, &bytes)?;
        Ok(Self {
            writer,
            page_size: header.page_size,
            order: PageOrder::new(&header),
            digest,
            index: IndexBuilder::default(),
            offset: HEADER_SIZE as u64,
            pages: 0,
            frame: vec![0; PREFIX_SIZE + get_maximum_output_size(header.page_size.bytes())],
            table: CompressTable::default(),
        })
    }

    /// Writes one page of exactly the page size. Page numbers ascend, are at most the header's `commit`, never name the
    /// lock page, and in a snapshot leave out no other. Gives the bytes of its frame.
    pub fn page(&mut self, pgno: Pgno, page: &[u8]) -> Result<u32> {
        if page.len() != self.page_size.bytes() {
            return Err(Error::bug(format!("page {pgno} has {} bytes", page.len())));
        }
        self.order.accept(pgno).map_err(Error::bug)?;
        let frame = compress(&mut self.frame, &mut self.table, pgno, page)?;
        self.digest.update(segment::hashed_prefix(frame));
        self.digest.update(page);
        write_all(&mut self.writer, frame)?;
        let len = u32::try_from(frame.len()).map_err(Error::bug)?;
        self.index.push(IndexEntry { pgno, offset: self.offset, len });
        self.offset += u64::from(len);
        self.pages += 1;
        Ok(len)
    }

    /// Writes index and trailer, and gives the writer back unflushed.
    pub fn finish(mut self) -> Result<(W, Encoded)> {
        self.order.end().map_err(Error::bug)?;
        let post_apply = 0u64;
        let index = self.index.finish();
        let file_checksum = segment::end(self.digest, &index, post_apply);
        let mut end = Vec::with_capacity(END_MARKER_SIZE + index.len() + TAIL_SIZE);
        end.extend_from_slice(&[0; END_MARKER_SIZE]);
        end.extend_from_slice(&index);
        end.extend_from_slice(&(index.len() as u64).to_be_bytes());
        end.extend_from_slice(&post_apply.to_be_bytes());
        end.extend_from_slice(&file_checksum.get().to_be_bytes());
        write_all(&mut self.writer, &end)?;
        let size = self.offset + end.len() as u64;
        Ok((self.writer, Encoded { size, file_checksum, pages: self.pages }))
    }
}

/// The frame of a page, which has the page size.
///
/// # Errors
/// [`Kind::Bug`](crate::error::Kind::Bug), of no page that there can be.
pub fn encode_frame(pgno: Pgno, page: &[u8]) -> Result<Vec<u8>> {
    let mut buffer = vec![0; PREFIX_SIZE + get_maximum_output_size(page.len())];
    let len = compress(&mut buffer, &mut CompressTable::default(), pgno, page)?.len();
    buffer.truncate(len);
    buffer.shrink_to_fit();
    Ok(buffer)
}

/// Makes the frame of a page at the front of `buffer`.
fn compress<'a>(buffer: &'a mut [u8], table: &mut CompressTable, pgno: Pgno, page: &[u8]) -> Result<&'a [u8]> {
    let short = || Error::bug("LTX frame buffer is too short");
    let (prefix, block) = buffer.split_first_chunk_mut::<PREFIX_SIZE>().ok_or_else(short)?;
    let len = compress_into_with_table(page, block, table).map_err(Error::bug)?;
    let [a, b, c, d] = pgno.get().to_be_bytes();
    let [e, f] = FLAG_BLOCK.to_be_bytes();
    let [g, h, i, j] = u32::try_from(len).map_err(Error::bug)?.to_be_bytes();
    *prefix = [a, b, c, d, e, f, g, h, i, j];
    buffer.get(..PREFIX_SIZE + len).ok_or_else(short)
}

fn write_all(writer: &mut impl Write, bytes: &[u8]) -> Result<()> {
    writer.write_all(bytes).map_err(|e| io_error("write LTX file", &e))
}
