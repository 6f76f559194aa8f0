//! The pages of b-trees, as bytes say of themselves (SQLite's fileformat, section 1.6). Bytes that make no sense give
//! nothing: another page may begin as one of a tree does.

use crate::header;
use crate::ltx::Pgno;

/// What an interior page of an index begins with.
pub const INTERIOR_INDEX: u8 = 2;
/// What an interior page of a table begins with.
pub const INTERIOR_TABLE: u8 = 5;

/// The children of an interior page, in order of keys; `None` for any other page.
pub fn children(pgno: Pgno, page: &[u8]) -> Option<Vec<u32>> {
    let start = header_of(pgno);
    let kind = *page.get(start)?;
    if kind != INTERIOR_INDEX && kind != INTERIOR_TABLE {
        return None;
    }
    let mut children = cells(pgno, page, 12).map(|at| u32_at(page, at)).collect::<Option<Vec<_>>>()?;
    children.push(u32_at(page, start + 8)?);
    // A page of other content may begin with such a byte; then some child would make no sense.
    children.iter().all(|child| *child > 1 && *child < u32::MAX / 2).then_some(children)
}

/// Where the cells of a page are, whose header has so many bytes.
pub fn cells(pgno: Pgno, page: &[u8], header: usize) -> impl Iterator<Item = usize> + '_ {
    let start = header_of(pgno);
    let count = usize::from(u16_at(page, start + 3).unwrap_or(0));
    (0..count).map_while(move |n| u16_at(page, start + header + 2 * n).map(usize::from))
}

/// Where the page's own header begins: on page 1 behind that of the database.
pub fn header_of(pgno: Pgno) -> usize {
    if pgno == Pgno::FIRST { header::SIZE } else { 0 }
}

/// A big-endian number.
pub fn u16_at(page: &[u8], at: usize) -> Option<u16> {
    page.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

/// A big-endian number.
pub fn u32_at(page: &[u8], at: usize) -> Option<u32> {
    page.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}
