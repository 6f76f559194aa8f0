//! Reads a file front to back and verifies all of it.

use super::checksum::digest;
use super::frame::{BLOCK_SIZE_SIZE, Encoding, FRAME_HEADER_SIZE, FrameHeader, block_len, decode_block, max_block_len};
use super::index::IndexBuilder;
use super::order::PageOrder;
use super::stream::{at_end, read_exact};
use super::{Checksum, Fields, HEADER_SIZE, Header, IndexEntry, Pgno, Rolling, TRAILER_SIZE, Trailer};
use super::{lz4_frame, page_checksum, segment};
use crate::error::{Error, Result};
use crc_fast::Digest;
use std::io::{BufReader, Read};

/// A file being read. Every error is [`Kind::Corrupt`](crate::error::Kind::Corrupt) unless reading itself failed.
///
/// Pages are only proven by [`Self::finish`]: blocks carry no checksum of their own, so a page must not be used, or must
/// be undone, if the end of the file does not pass.
pub struct Decoder<R: Read> {
    reader: BufReader<R>,
    header: Header,
    order: PageOrder,
    digest: Digest,
    index: IndexBuilder,
    offset: u64,
    rolling: Option<Rolling>,
    compressed: Vec<u8>,
    ended: bool,
}

impl<R: Read> Decoder<R> {
    /// Reads the header. The reader is buffered here and need not be.
    pub fn new(reader: R) -> Result<Self> {
        let mut reader = BufReader::with_capacity(1 << 16, reader);
        let mut bytes = [0; HEADER_SIZE];
        read_exact(&mut reader, &mut bytes, "its header")?;
        let header = Header::parse(&bytes)?;
        let mut digest = digest();
        digest.update(&bytes);
        Ok(Self {
            reader,
            header,
            order: PageOrder::new(&header),
            digest,
            index: IndexBuilder::default(),
            offset: HEADER_SIZE as u64,
            // The only case in which the file alone determines the database's checksum.
            rolling: (header.pre_apply.is_some() && header.is_snapshot()).then_some(Rolling::EMPTY),
            compressed: Vec::new(),
            ended: false,
        })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The byte after the last frame that was read.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Decodes the next page into `page`, which has the page size; `None` after the last one.
    pub fn next_page(&mut self, page: &mut [u8]) -> Result<Option<Pgno>> {
        if page.len() != self.header.page_size.bytes() {
            return Err(Error::bug(format!("page buffer of {} bytes", page.len())));
        }
        if self.ended {
            return Ok(None);
        }
        let mut bytes = [0; FRAME_HEADER_SIZE];
        read_exact(&mut self.reader, &mut bytes, "a page header")?;
        let Some(FrameHeader { pgno, encoding }) = FrameHeader::parse(&bytes)? else {
            self.order.end().map_err(|e| Error::corrupt(format!("LTX pages: {e}")))?;
            self.ended = true;
            return Ok(None);
        };
        self.order.accept(pgno).map_err(|e| Error::corrupt(format!("LTX pages: {e}")))?;
        self.digest.update(&bytes);
        let body = match encoding {
            Encoding::Block => self.block(page),
            Encoding::Lz4Frame => self.lz4_frame(page),
        }
        .map_err(|e| e.context(format_args!("page {pgno}")))?;
        self.digest.update(page);
        if let Some(rolling) = &mut self.rolling {
            rolling.add(page_checksum(pgno, page));
        }
        let len = u32::try_from(FRAME_HEADER_SIZE + body).map_err(Error::bug)?;
        self.index.push(IndexEntry { pgno, offset: self.offset, len });
        self.offset += u64::from(len);
        Ok(Some(pgno))
    }

    /// After the last page: checks that the index is that of the pages seen, the checksums, and that nothing follows.
    pub fn finish(mut self) -> Result<Trailer> {
        if !self.ended {
            return Err(Error::bug("LTX decoder finished before its last page"));
        }
        let index = self.index.finish();
        expect_bytes(&mut self.reader, &index, "its page index")?;
        expect_bytes(&mut self.reader, &(index.len() as u64).to_be_bytes(), "its index size")?;
        let mut bytes = [0; TRAILER_SIZE];
        read_exact(&mut self.reader, &mut bytes, "its trailer")?;
        let trailer = Trailer::from_fields(Fields(&bytes))?;
        if segment::end(self.digest, &index, trailer.post_apply) != trailer.file_checksum {
            return Err(Error::corrupt("LTX file checksum mismatch"));
        }
        check_post_apply(&self.header, trailer.post_apply, self.rolling)?;
        if !at_end(&mut self.reader)? {
            return Err(Error::corrupt("bytes after the LTX trailer"));
        }
        Ok(trailer)
    }

    /// The number of bytes read, as for [`Self::lz4_frame`].
    fn block(&mut self, page: &mut [u8]) -> Result<usize> {
        let mut field = [0; BLOCK_SIZE_SIZE];
        read_exact(&mut self.reader, &mut field, "a page")?;
        self.digest.update(&field);
        let len = block_len(field, self.header.page_size)?;
        self.compressed.resize(len, 0);
        read_exact(&mut self.reader, &mut self.compressed, "a page")?;
        decode_block(&self.compressed, page)?;
        Ok(BLOCK_SIZE_SIZE + len)
    }

    fn lz4_frame(&mut self, page: &mut [u8]) -> Result<usize> {
        lz4_frame::read(&mut self.reader, &mut self.compressed, max_block_len(self.header.page_size))?;
        lz4_frame::decode(&self.compressed, page)?;
        Ok(self.compressed.len())
    }
}

/// Reads as many bytes as `expected` has and compares.
fn expect_bytes(reader: &mut impl Read, expected: &[u8], part: &str) -> Result<()> {
    let mut buffer = [0; 4096];
    for chunk in expected.chunks(buffer.len()) {
        let read = buffer.get_mut(..chunk.len()).unwrap_or_default();
        read_exact(reader, read, part)?;
        if read != chunk {
            return Err(Error::corrupt(format!("LTX file: {part} is not that of its pages")));
        }
    }
    Ok(())
}

/// Without database checksums the field is 0. With them it is one, and a snapshot's pages must have it.
fn check_post_apply(header: &Header, post_apply: u64, rolling: Option<Rolling>) -> Result<()> {
    let sound = match (header.pre_apply, rolling) {
        (None, _) => post_apply == 0,
        (Some(_), Some(rolling)) => post_apply == rolling.get(),
        (Some(_), None) if header.commit == 0 => post_apply == Checksum::EMPTY.get(),
        (Some(_), None) => Checksum::from_u64(post_apply).is_some(),
    };
    if sound { Ok(()) } else { Err(Error::corrupt(format!("LTX trailer: post-apply checksum {post_apply:016x}"))) }
}
