//! What a page says of the pages that will be wanted next: the children of an interior page, the roots in the schema
//! table, the rows that an index leads to, the overflow chains that begin in a leaf. Hints only: bytes that make no
//! sense give none. (SQLite's fileformat, sections 1.6, 2.1 and 2.6; no bytes are reserved at the end of a page.)

pub(super) use crate::btree::children;
use crate::btree::{INTERIOR_INDEX, INTERIOR_TABLE, cells, header_of, u16_at, u32_at};
use crate::ltx::Pgno;
use std::hash::{DefaultHasher, Hash, Hasher};

const LEAF_INDEX: u8 = 10;
const LEAF_TABLE: u8 = 13;

/// A row of the schema table that has a b-tree.
pub(super) struct SchemaRow {
    /// The table's name, also of an index.
    pub table: Box<[u8]>,
    pub is_index: bool,
    pub root: u32,
}

/// The b-trees that a leaf of the schema table names.
pub(super) fn schema(pgno: Pgno, page: &[u8]) -> Vec<SchemaRow> {
    let start = header_of(pgno);
    if page.get(start) != Some(&LEAF_TABLE) {
        return Vec::new();
    }
    let mut left = page.len();
    cells(pgno, page, 8).filter_map(|at| schema_row(page, at, &mut left)).collect()
}

/// Columns `type`, `tbl_name` and `rootpage`: the first, third and fourth. `left` as below.
fn schema_row(page: &[u8], mut at: usize, left: &mut usize) -> Option<SchemaRow> {
    let _payload = varint(page, &mut at)?;
    let _rowid = varint(page, &mut at)?;
    let header = at;
    let length = varint(page, &mut at)?;
    let mut value = header.checked_add(usize::try_from(length).ok()?)?;
    let mut column = || {
        let kind = varint(page, &mut at)?;
        let bytes = page.get(value..value.checked_add(value_length(kind)?)?)?;
        value += bytes.len();
        Some(bytes)
    };
    let (kind, _name, table, root) = (column()?, column()?, column()?, column()?);
    *left = left.checked_sub(table.len())?;
    let root = if root.len() <= 4 { root.iter().fold(0_u32, |n, byte| n << 8 | u32::from(*byte)) } else { 0 };
    (root > 1).then(|| SchemaRow { table: table.into(), is_index: kind == b"index", root })
}

/// An entry of an index of a table with rowids.
pub(super) struct IndexKey {
    /// Hashes of its first column, and of all but the rowid.
    pub first_column: u64,
    pub key: u64,
    pub rowid: i64,
}

/// Whether this is a leaf of an index.
pub(super) fn is_index_leaf(pgno: Pgno, page: &[u8]) -> bool {
    page.get(header_of(pgno)) == Some(&LEAF_INDEX)
}

/// The entries of a leaf of an index, in order, but for those that go on in an overflow page.
pub(super) fn entries(pgno: Pgno, page: &[u8]) -> Vec<IndexKey> {
    if !is_index_leaf(pgno, page) {
        return Vec::new();
    }
    let mut left = page.len();
    cells(pgno, page, 8).filter_map(|at| index_key(page, at, &mut left)).collect()
}

/// The entry between two children of an interior page of an index.
pub(super) fn entry(pgno: Pgno, page: &[u8], cell: u32) -> Option<IndexKey> {
    if page.get(header_of(pgno)) != Some(&INTERIOR_INDEX) {
        return None;
    }
    index_key(page, cells(pgno, page, 12).nth(cell as usize)? + 4, &mut page.len())
}

/// The rowid is the last column. `left`: bytes that the cells of the page may still have; they do not overlap.
fn index_key(page: &[u8], mut at: usize, left: &mut usize) -> Option<IndexKey> {
    let payload = usize::try_from(varint(page, &mut at)?).ok()?;
    // What lies in overflow pages is not here.
    if payload > (page.len().checked_sub(12)? * 64 / 255).checked_sub(23)? {
        return None;
    }
    *left = left.checked_sub(payload)?;
    let end = at.checked_add(payload)?;
    let mut value = at.checked_add(usize::try_from(varint(page, &mut at)?).ok()?)?;
    let header = value.min(end);
    let (mut first_column, mut hasher, mut last) = (None, DefaultHasher::new(), None);
    while at < header {
        let kind = varint(page, &mut at)?;
        let bytes = page.get(value..value.checked_add(value_length(kind)?)?)?;
        value += bytes.len();
        if let Some(column) = last.replace((kind, bytes)) {
            column.hash(&mut hasher);
            first_column.get_or_insert_with(|| hasher.finish());
        }
    }
    let rowid = last.and_then(|(kind, bytes)| integer(kind, bytes)).filter(|_| value == end)?;
    Some(IndexKey { first_column: first_column?, key: hasher.finish(), rowid })
}

fn integer(kind: u64, bytes: &[u8]) -> Option<i64> {
    match kind {
        8 => Some(0),
        9 => Some(1),
        1..=6 => {
            let sign = if bytes.first()? & 0x80 == 0 { 0 } else { -1 };
            Some(bytes.iter().fold(sign, |n, byte| n << 8 | i64::from(*byte)))
        }
        _ => None,
    }
}

/// The lowest and the highest rowid of a leaf of a table.
pub(super) fn rows(pgno: Pgno, page: &[u8]) -> Option<(i64, i64)> {
    if page.get(header_of(pgno)) != Some(&LEAF_TABLE) {
        return None;
    }
    let rowid = |mut at: usize| {
        let _payload = varint(page, &mut at)?;
        varint(page, &mut at).map(u64::cast_signed)
    };
    let mut all = cells(pgno, page, 8);
    let first = all.next()?;
    Some((rowid(first)?, rowid(all.last().unwrap_or(first))?))
}

/// The child of an interior page of a table that a row is in or below; `None` for any other page.
pub(super) fn child_of_row(pgno: Pgno, page: &[u8], rowid: i64) -> Option<u32> {
    let start = header_of(pgno);
    if page.get(start) != Some(&INTERIOR_TABLE) {
        return None;
    }
    let cell = |n: usize| -> Option<(u32, i64)> {
        let at = usize::from(u16_at(page, start + 12 + 2 * n)?);
        let mut key = at + 4;
        Some((u32_at(page, at)?, varint(page, &mut key)?.cast_signed()))
    };
    let (mut low, mut high) = (0, usize::from(u16_at(page, start + 3)?));
    let mut found = u32_at(page, start + 8)?;
    while low < high {
        let middle = (low + high) / 2;
        let (child, key) = cell(middle)?;
        if rowid <= key {
            (found, high) = (child, middle);
        } else {
            low = middle + 1;
        }
    }
    (found > 1).then_some(found)
}

/// The overflow chains that begin in a leaf of a table: their first pages, and how many pages they have.
pub(super) fn chains(pgno: Pgno, page: &[u8]) -> Vec<(u32, u32)> {
    let start = header_of(pgno);
    // A page with so many cells has no large ones.
    if page.get(start) != Some(&LEAF_TABLE) || u16_at(page, start + 3).is_none_or(|count| count > CELLS_WITH_CHAINS) {
        return Vec::new();
    }
    cells(pgno, page, 8).filter_map(|at| chain(page, at)).collect()
}

/// With an overflow chain a cell takes about an eighth of the page at least.
const CELLS_WITH_CHAINS: u16 = 16;

fn chain(page: &[u8], mut at: usize) -> Option<(u32, u32)> {
    let payload = usize::try_from(varint(page, &mut at)?).ok()?;
    let _rowid = varint(page, &mut at)?;
    let usable = page.len();
    if payload <= usable.checked_sub(35)? {
        return None;
    }
    let least = ((usable - 12) * 32 / 255).checked_sub(23)?;
    let wanted = least + (payload - least) % (usable - 4);
    let local = if wanted <= usable - 35 { wanted } else { least };
    let pages = u32::try_from((payload - local).div_ceil(usable - 4)).ok()?;
    Some((u32_at(page, at.checked_add(local)?)?, pages))
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
             INSERT INTO t SELECT i, hex(randomblob(50)) FROM n;
             INSERT INTO t(rowid, a, b) VALUES (5000000000, randomblob(100000), 'b');",
        );
        (std::fs::read(&path).unwrap(), 1024)
    }

    /// The b-trees of a real database, walked by these functions alone, have the pages that SQLite says they have.
    #[test]
    fn r8_children_and_roots_are_those_of_sqlite() {
        let (bytes, size) = database();
        let page = |n: u32| &bytes[(n as usize - 1) * size..n as usize * size];
        let roots = schema(Pgno::FIRST, page(1));
        assert_eq!(
            roots.iter().map(|row| (&*row.table, row.is_index)).collect::<Vec<_>>(),
            [(b"t".as_slice(), false), (b"t", true)]
        );
        let (mut waiting, mut seen) = (roots.iter().map(|row| row.root).collect::<Vec<_>>(), 1);
        while let Some(next) = waiting.pop() {
            seen += 1;
            let pgno = Pgno::new(next).unwrap();
            waiting.extend(children(pgno, page(next)).unwrap_or_default());
            waiting.extend(chains(pgno, page(next)).iter().flat_map(|(first, pages)| *first..first + pages));
        }
        assert_eq!(seen, bytes.len() / size);
    }

    /// Each entry of the index leads to the leaf that has its row.
    #[test]
    fn r8_entries_of_an_index_lead_to_their_rows() {
        let (bytes, size) = database();
        let page = |n: u32| &bytes[(n as usize - 1) * size..n as usize * size];
        let roots = schema(Pgno::FIRST, page(1));
        let (mut waiting, mut rowids) = (vec![roots[1].root], Vec::new());
        while let Some(next) = waiting.pop() {
            let pgno = Pgno::new(next).unwrap();
            let all = children(pgno, page(next)).unwrap_or_default();
            rowids.extend((0..all.len().saturating_sub(1) as u32).map(|n| entry(pgno, page(next), n).unwrap().rowid));
            rowids.extend(entries(pgno, page(next)).iter().map(|entry| entry.rowid));
            waiting.extend(all);
        }
        for rowid in &rowids {
            let mut at = roots[0].root;
            while let Some(child) = child_of_row(Pgno::new(at).unwrap(), page(at), *rowid) {
                at = child;
            }
            let (low, high) = rows(Pgno::new(at).unwrap(), page(at)).unwrap();
            assert!((low..=high).contains(rowid), "{rowid}: {low} to {high}");
        }
        rowids.sort_unstable();
        assert_eq!(rowids, (1..=2000).chain([5_000_000_000]).collect::<Vec<_>>());
    }

    #[test]
    fn any_bytes_are_read_without_a_panic() {
        let (bytes, size) = database();
        for (number, page) in bytes.chunks(size).enumerate() {
            let mut page = page.to_vec();
            let pgno = Pgno::new(number as u32 + 1).unwrap();
            for at in 0..page.len() {
                page[at] ^= 0xff;
                for page in [&page, &page[..at]] {
                    let _ = (children(pgno, page), schema(pgno, page), entries(pgno, page), entry(pgno, page, 3));
                    let _ = (rows(pgno, page), child_of_row(pgno, page, 77), chains(pgno, page));
                }
                page[at] ^= 0xff;
            }
        }
    }
}
