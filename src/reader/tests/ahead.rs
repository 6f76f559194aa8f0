//! R8: what an index leads to, and overflow chains, are fetched ahead; nothing else is.

use super::super::btree;
use super::super::flight::{kept_pages, settle};
use super::super::source::Source;
use super::{Connected, Written, open, txid};
use crate::ltx::Pgno;
use crate::replica::Target;
use crate::store::fault::Call;
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub(super) const PAGE: usize = 1024;

/// A reader that does what SQLite does.
pub(super) struct Walker {
    pub written: Written,
    pub source: Arc<Source>,
    pub connected: Connected,
    table: u32,
    pub index: u32,
}

impl Walker {
    /// A table whose rows lie elsewhere than their neighbours in the index.
    fn new(key: &str) -> Self {
        Self::with("x(k)", &format!("{key}, 0"), 3000, 700)
    }

    /// A table `x` of `k`, `v` and some bytes, and an index.
    fn with(index: &str, values: &str, rows: u32, bytes: u32) -> Self {
        Self::with_sql(&format!(
            "CREATE TABLE x(k, v, bytes); CREATE INDEX i ON {index}; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL
             SELECT i + 1 FROM n WHERE i < {rows}) INSERT INTO x SELECT {values}, randomblob({bytes}) FROM n;"
        ))
    }

    /// A database with a table `x`.
    fn with_sql(sql: &str) -> Self {
        let mut written = Written::new(PAGE);
        written.ship(sql);
        Self::of(written)
    }

    /// Of its first state.
    pub fn of(written: Written) -> Self {
        let source = written.source();
        let connected = open(&source, Target::Txid(txid(1))).unwrap();
        let mut walker = Self { written, source, connected, table: 0, index: 0 };
        let schema = btree::schema(Pgno::FIRST, &walker.page(1));
        for row in schema.iter().filter(|row| &*row.table == b"x") {
            *(if row.is_index { &mut walker.index } else { &mut walker.table }) = row.root;
        }
        walker
    }

    fn page(&self, pgno: u32) -> Vec<u8> {
        let mut page = vec![0; PAGE];
        assert!(self.connected.read((pgno as usize - 1) as u64 * PAGE as u64, &mut page, &|| false).unwrap());
        settle();
        page
    }

    /// Reads down to the leaf of a row.
    pub fn row(&self, rowid: i64) {
        let mut pgno = self.table;
        while let Some(child) = btree::child_of_row(Pgno::new(pgno).unwrap(), &self.page(pgno), rowid) {
            pgno = child;
        }
    }

    /// Reads a tree from its first page to its last one, each once, as a scan does.
    fn scan(&self, pgno: u32) {
        let page = self.page(pgno);
        let children = btree::children(Pgno::new(pgno).unwrap(), &page).unwrap_or_default();
        children.into_iter().for_each(|child| self.scan(child));
    }

    /// Reads the leaves of the index and the rows of their entries, some of them, in an order.
    pub fn rows(&self, pgno: u32, is_descending: bool, left: &mut usize) {
        let (number, page) = (Pgno::new(pgno).unwrap(), self.page(pgno));
        let mut steps: Vec<_> = btree::entries(number, &page).iter().map(|entry| Err(entry.rowid)).collect();
        for (n, child) in (0..).zip(btree::children(number, &page).unwrap_or_default()) {
            steps.push(Ok(child));
            steps.extend(btree::entry(number, &page, n).map(|entry| Err(entry.rowid)));
        }
        if is_descending {
            steps.reverse();
        }
        for step in steps {
            match step {
                _ if *left == 0 => return,
                Ok(child) => self.rows(child, is_descending, left),
                Err(rowid) => {
                    *left -= 1;
                    self.row(rowid);
                }
            }
        }
    }

    /// Pages that were waited for, and those that came ahead, since the last call.
    pub fn counted(&self) -> (u64, u64) {
        let tally = &self.source.tally;
        (tally.misses.swap(0, Ordering::Relaxed), tally.ahead.swap(0, Ordering::Relaxed))
    }
}

#[test]
fn r8_rows_come_ahead_along_an_index() {
    let _kept = kept_pages();
    for is_descending in [false, true] {
        let walker = Walker::new("(i * 7919) % 30011");
        walker.page(walker.index);
        walker.counted();
        walker.rows(walker.index, is_descending, &mut 1000);
        let (misses, ahead) = walker.counted();
        assert!(misses < 30, "{misses} of 1000 rows were waited for, {ahead} came ahead");
        assert!(ahead < 2000, "{ahead} came ahead, {misses} were waited for");
        walker.written.assert_sees(&walker.connected, 1);
    }
}

/// Also by an index of several columns, of which many rows share the first.
#[test]
fn r8_a_look_up_by_an_index_brings_no_other_rows() {
    let _kept = kept_pages();
    let mixed = "(i * 7919) % 30011";
    for walker in [Walker::new(mixed), Walker::with("x(k, v)", &format!("'tenant ' || i % 3, {mixed}"), 3000, 700)] {
        walker.rows(walker.index, false, &mut 0);
        walker.row(1);
        walker.counted();
        walker.rows(walker.index, false, &mut 1);
        let (misses, ahead) = walker.counted();
        // The leaf of the index, the row, and what lies beside them in the file.
        assert!(misses <= 3 && ahead < 140, "{misses}, {ahead}");
    }
}

#[test]
fn r8_rows_of_one_key_come_with_the_first() {
    let _kept = kept_pages();
    let walker = Walker::new("i % 300");
    walker.rows(walker.index, false, &mut 1);
    walker.counted();
    walker.rows(walker.index, false, &mut 10);
    let (misses, ahead) = walker.counted();
    assert_eq!(misses, 0, "were waited for");
    // And none of the next one.
    assert!(ahead < 10, "{ahead}");
}

/// Rows in the order of the index are as far ahead as those of a scan.
#[test]
fn r8_an_index_in_the_order_of_the_rows_is_read_in_long_runs() {
    let _kept = kept_pages();
    let walker = Walker::with("x(k)", "i, 0", 10_000, 40);
    walker.counted();
    let before = walker.written.faults.count(Call::GetRange);
    walker.rows(walker.index, false, &mut 10_000);
    let (misses, _) = walker.counted();
    let requests = walker.written.faults.count(Call::GetRange) - before;
    assert!(misses < 20 && requests < 30, "{misses} misses, {requests} requests");
}

/// An index that is read alone: its entries lead nowhere, and are not kept.
#[test]
fn r8_entries_that_lead_to_no_rows_are_not_kept() {
    let _kept = kept_pages();
    let walker = Walker::new("(i * 7919) % 30011");
    walker.rows(walker.index, false, &mut 1);
    let mut leaves = vec![walker.index];
    while let Some(next) = leaves.pop() {
        leaves.extend(btree::children(Pgno::new(next).unwrap(), &walker.page(next)).unwrap_or_default().iter().rev());
    }
    assert!(walker.connected.entries_kept() < 1500, "{}", walker.connected.entries_kept());
}

#[test]
fn r8_an_overflow_chain_is_fetched_to_its_end_and_no_further() {
    let _kept = kept_pages();
    let walker =
        Walker::with_sql("CREATE TABLE x(v); INSERT INTO x VALUES (randomblob(2000000)), (randomblob(2000000));");
    let root = walker.table;
    let leaf = btree::children(Pgno::new(root).unwrap(), &walker.page(root)).map_or(root, |all| all[0]);
    let chains = btree::chains(Pgno::new(leaf).unwrap(), &walker.page(leaf));
    let (first, pages) = chains[0];
    walker.counted();
    (first..first + pages).for_each(|pgno| drop(walker.page(pgno)));
    let (misses, ahead) = walker.counted();
    assert!(misses < 20, "{misses} were waited for");
    assert!(misses + ahead < u64::from(pages) + 140, "{misses} and {ahead} for {pages} pages");
}

/// On its way a walk learns the places of more leaves than are remembered.
#[test]
fn r8_a_walk_along_a_large_table_goes_on_from_one_interior_page_to_the_next() {
    let walker = Walker::with("x(k)", "i, 0", 3000, 700);
    let before = walker.written.faults.count(Call::GetRange);
    walker.scan(walker.table);
    let requests = walker.written.faults.count(Call::GetRange) - before;
    assert!(requests < 30, "{requests}");
}
