//! Opening a file of the plan: header, index and trailer, checked against its name, its size and each other.

use super::Shape;
use crate::error::{Error, Result};
use crate::ltx::{
    Checksum, END_MARKER_SIZE, HEADER_SIZE, Header, IndexEntry, SegmentHash, TAIL_SIZE, Tail, file_checksum,
    parse_index,
};
use crate::replica::{FileInfo, Joint, Replica, parse_header};
use crate::store::Start;
use std::ops::Range;

/// What is read of a large file's end at first: the whole index of up to some 30,000 pages.
const END_BYTES: u64 = 256 << 10;
/// Three varints: a page number, an offset, a length.
const INDEX_ENTRY_BYTES_MAX: u64 = 5 + 10 + 4;

/// What verifies a file once its frames are hashed.
pub(super) struct Seal {
    header: [u8; HEADER_SIZE],
    index: Vec<u8>,
    tail: Tail,
}

/// An opened file.
pub(super) struct Opened {
    pub seal: Seal,
    /// The database's size in pages after the file.
    pub commit: u32,
    pub joint: Joint,
    /// In file order, without gaps.
    pub entries: Vec<IndexEntry>,
    /// The whole file, if it is small.
    pub bytes: Option<Vec<u8>>,
}

impl Opened {
    /// What keeping it costs; no large one is kept.
    pub fn held_bytes(&self) -> u64 {
        self.bytes.as_ref().map_or(u64::MAX, |bytes| bytes.len() as u64)
    }
}

/// Opens a file; a small one is fetched whole.
pub(super) fn open(replica: &Replica, file: &FileInfo, shape: Shape) -> Result<Opened> {
    if file.size <= replica.limits.chunk_bytes {
        open_small(replica, file, shape)
    } else {
        open_large(replica, file, shape)
    }
}

fn open_small(replica: &Replica, file: &FileInfo, shape: Shape) -> Result<Opened> {
    let start = replica.store().get_start(&file.key, file.size, file.etag.as_ref())?;
    let bytes = &start.bytes;
    let size = bytes.len() as u64;
    if size != file.size {
        return Err(Error::corrupt(format!("it has {size} bytes, the listing said {}", file.size)));
    }
    let tail = parse_tail(bytes, size)?;
    let footer = slice(bytes, tail.pages_end(size)..size)?;
    let mut opened = assemble(file, shape, &start, footer, tail)?;
    opened.bytes = Some(start.bytes);
    Ok(opened)
}

fn open_large(replica: &Replica, file: &FileInfo, shape: Shape) -> Result<Opened> {
    let size = file.size;
    let start = replica.store().get_start(&file.key, HEADER_SIZE as u64, file.etag.as_ref())?;
    let commit = parse_header(file, &start.bytes)?.commit;
    let end = size.saturating_sub(END_BYTES.min(replica.limits.chunk_bytes));
    let mut footer = fetch(replica, file, end..size)?;
    let tail = parse_tail(&footer, size)?;
    if tail.index_size > u64::from(commit) * INDEX_ENTRY_BYTES_MAX + 1 {
        return Err(Error::corrupt(format!("an index of {} bytes for {commit} pages", tail.index_size)));
    }
    let pages_end = tail.pages_end(size);
    if pages_end < end {
        let mut whole = fetch(replica, file, pages_end..end)?;
        whole.append(&mut footer);
        footer = whole;
    } else {
        footer.drain(..usize::try_from(pages_end - end).unwrap_or(usize::MAX).min(footer.len()));
    }
    assemble(file, shape, &start, &footer, tail)
}

/// `footer` is all that follows the frames.
fn assemble(file: &FileInfo, shape: Shape, start: &Start, footer: &[u8], tail: Tail) -> Result<Opened> {
    let header = parse_header(file, &start.bytes)?;
    check_header(&header, shape, tail)?;
    let (marker, rest) = footer.split_first_chunk::<END_MARKER_SIZE>().ok_or_else(|| Error::corrupt("no index"))?;
    if *marker != [0; END_MARKER_SIZE] {
        return Err(Error::corrupt("the pages do not end where the index begins"));
    }
    let index = rest.get(..rest.len().saturating_sub(TAIL_SIZE)).unwrap_or_default().to_vec();
    let entries = parse_index(&index, &header, tail.pages_end(file.size))?;
    let head = *start.bytes.first_chunk::<HEADER_SIZE>().ok_or_else(|| Error::corrupt("no header"))?;
    let seal = Seal { header: head, index, tail };
    Ok(Opened { seal, commit: header.commit, joint: Joint::of_file(start, &header)?, entries, bytes: None })
}

fn check_header(header: &Header, shape: Shape, tail: Tail) -> Result<()> {
    if header.page_size != shape.page_size {
        let (here, there) = (header.page_size.get(), shape.page_size.get());
        return Err(Error::corrupt(format!("its page size is {here}, that of the newest file {there}")));
    }
    let sum = tail.trailer.post_apply;
    if header.pre_apply.is_some() == Checksum::from_u64(sum).is_some() && (header.pre_apply.is_some() || sum == 0) {
        return Ok(());
    }
    Err(Error::corrupt(format!("post-apply checksum {sum:016x} does not fit the header")))
}

fn parse_tail(end: &[u8], size: u64) -> Result<Tail> {
    let tail = end.last_chunk::<TAIL_SIZE>().ok_or_else(|| Error::corrupt(format!("it has only {size} bytes")))?;
    Tail::parse(tail, size)
}

impl Seal {
    /// What the hash of the first frames begins with.
    pub fn begin(&self) -> SegmentHash {
        SegmentHash::of_header(&self.header)
    }

    /// Whether the file is what its checksum says; `frames` is over all of them, from [`Self::begin`] on.
    pub fn verify(&self, frames: &SegmentHash) -> Result<()> {
        let trailer = self.tail.trailer;
        if file_checksum(frames, &self.index, trailer.post_apply) == trailer.file_checksum {
            return Ok(());
        }
        Err(Error::corrupt("file checksum mismatch"))
    }
}

/// Exactly these bytes of the object that was listed (R1).
pub(super) fn fetch(replica: &Replica, file: &FileInfo, range: Range<u64>) -> Result<Vec<u8>> {
    let wanted = range.end - range.start;
    let bytes = replica.store().get_range(&file.key, range.clone(), file.etag.as_ref())?;
    if bytes.len() as u64 == wanted {
        return Ok(bytes);
    }
    Err(Error::corrupt(format!(
        "bytes {}-{} are not all there, the listing said {}",
        range.start, range.end, file.size
    )))
}

/// Bytes of what was fetched; out of bounds is corrupt.
pub(super) fn slice(bytes: &[u8], range: Range<u64>) -> Result<&[u8]> {
    let (start, end) = (usize::try_from(range.start), usize::try_from(range.end));
    let found = start.ok().zip(end.ok()).and_then(|(start, end)| bytes.get(start..end));
    found.ok_or_else(|| Error::corrupt(format!("bytes {}-{} are outside the file", range.start, range.end)))
}
