//! What a page says of the pages that will be wanted next: the children of an interior page, the roots in the schema
//! table. Hints only: bytes that make no sense give none. (SQLite's fileformat, sections 1.6, 2.1 and 2.6.)

use crate::ltx::Pgno;

/// Bytes of the database header, in front of page 1's own.
const DATABASE_HEADER: usize = 100;
const INTERIOR_INDEX: u8 = 2;
const INTERIOR_TABLE: u8 = 5;
const LEAF_TABLE: u8 = 13;

/// The children of an interior page, in order of keys; `None` for any other page.
pub(super) fn children(pgno: Pgno, page: &[u8]) -> Option<Vec<u32>> {
    let start = header_of(pgno);
    let kind = *page.get(start)?;
    if kind != INTERIOR_INDEX && kind != INTERIOR_TABLE {
        return None;
    }
    let count = u16_at(page, start + 3)?;
    let mut children = Vec::with_capacity(usize::from(count) + 1);
    for cell in 0..usize::from(count) {
        let at = u16_at(page, start + 12 + 2 * cell)?;
        children.push(u32_at(page, usize::from(at))?);
    }
    children.push(u32_at(page, start + 8)?);
    // A page of other content may begin with such a byte; then some child would make no sense.
    children.iter().all(|child| *child > 1 && *child < u32::MAX / 2).then_some(children)
}

/// The roots that a leaf of the schema table names.
pub(super) fn roots(pgno: Pgno, page: &[u8]) -> Vec<u32> {
    let start = header_of(pgno);
    if page.get(start) != Some(&LEAF_TABLE) {
        return Vec::new();
    }
    let count = usize::from(u16_at(page, start + 3).unwrap_or(0));
    (0..count).filter_map(|cell| root(page, usize::from(u16_at(page, start + 8 + 2 * cell)?))).collect()
}

/// Column `rootpage` of a row of the schema table: the fourth, after three texts.
fn root(page: &[u8], mut at: usize) -> Option<u32> {
    let _payload = varint(page, &mut at)?;
    let _rowid = varint(page, &mut at)?;
    let header = at;
    let length = varint(page, &mut at)?;
    let mut value = header.checked_add(usize::try_from(length).ok()?)?;
    for _ in 0..3 {
        value = value.checked_add(value_length(varint(page, &mut at)?)?)?;
    }
    let bytes = match varint(page, &mut at)? {
        kind @ 1..=4 => page.get(value..value.checked_add(usize::try_from(kind).ok()?)?)?,
        _ => return None,
    };
    let root = bytes.iter().fold(0_u32, |n, byte| n << 8 | u32::from(*byte));
    (root > 1).then_some(root)
}

fn value_length(kind: u64) -> Option<usize> {
    Some(match kind {
        0 | 8 | 9 => 0,
        1..=4 => kind as usize,
        5 => 6,
        6 | 7 => 8,
        12.. => usize::try_from((kind - 12) / 2).ok()?,
        _ => return None,
    })
}

fn varint(page: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0_u64;
    for n in 0..9 {
        let byte = *page.get(*at)?;
        *at += 1;
        if n == 8 {
            return Some(value << 8 | u64::from(byte));
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn header_of(pgno: Pgno) -> usize {
    if pgno == Pgno::FIRST { DATABASE_HEADER } else { 0 }
}

fn u16_at(page: &[u8], at: usize) -> Option<u16> {
    page.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

fn u32_at(page: &[u8], at: usize) -> Option<u32> {
    page.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database() -> (Vec<u8>, usize) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.db");
        crate::reader::tests::run_sql(
            &path,
            "PRAGMA page_size = 1024; CREATE TABLE t(a, b); CREATE INDEX i ON t(b); CREATE VIEW v AS SELECT 1;
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
             INSERT INTO t SELECT i, hex(randomblob(50)) FROM n;",
        );
        (std::fs::read(&path).unwrap(), 1024)
    }

    /// The b-trees of a real database, walked by these functions alone, have the pages that SQLite says they have.
    #[test]
    fn r8_children_and_roots_are_those_of_sqlite() {
        let (bytes, size) = database();
        let page = |n: u32| &bytes[(n as usize - 1) * size..n as usize * size];
        let roots = roots(Pgno::FIRST, page(1));
        assert_eq!(roots.len(), 2);
        let (mut waiting, mut seen) = (roots.clone(), 1);
        while let Some(next) = waiting.pop() {
            seen += 1;
            waiting.extend(children(Pgno::new(next).unwrap(), page(next)).unwrap_or_default());
        }
        assert_eq!(seen, bytes.len() / size);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic() {
        let (bytes, size) = database();
        for (number, page) in bytes.chunks(size).enumerate() {
            let mut page = page.to_vec();
            for at in 0..page.len() {
                page[at] ^= 0xff;
                let pgno = Pgno::new(number as u32 + 1).unwrap();
                let _ = (children(pgno, &page), roots(pgno, &page), roots(pgno, &page[..at]));
                page[at] ^= 0xff;
            }
        }
    }
}
