//! Rows that an index leads to (R8): the entries of an index leaf say which rows of its table will be wanted next, and
//! rows of neighbouring entries lie anywhere. With the first row come those of the same key. Who goes on along the index
//! gets the rows of the entries that follow, in windows that double; but as long as the first column is the same, no
//! others.

use super::btree::{self, IndexKey};
use super::cache::Page;
use super::state::State;
use super::trees::{Spot, Trees, at_hand, page_of_row};
use crate::ltx::Pgno;
use std::collections::HashSet;

/// Indexes that a connection walks along at a time.
const WALKS: usize = 8;
/// Rows of the same key that are fetched with the first one.
const SAME_KEY: usize = 32;
/// So many entries apart, two rows are of one walk: those between were at hand.
const NEAR: usize = 32;
/// Rows that are fetched ahead at most.
const WINDOW_MAX: usize = 256;
/// Entries behind the reader, and in front of it, that are kept.
const KEPT: usize = 1024;
/// Leaves whose entries are known to be there.
const LEAVES: usize = 64;

/// A walk along an index, to the rows of its table.
struct Walk {
    index: u32,
    table: u32,
    /// In the direction of the walk.
    entries: Vec<IndexKey>,
    /// The leaves that they are of.
    leaves: Vec<u32>,
    last: Option<Spot>,
    /// The first leaf, until its entries are wanted.
    unread: Option<(Pgno, Page)>,
    /// The entry whose row was read last.
    at: Option<usize>,
    /// Up to here rows were asked for.
    asked: usize,
    /// 1 or -1.
    step: i64,
    window: usize,
    /// It went from one key to another.
    is_range: bool,
}

/// The walks of one connection.
#[derive(Default)]
pub(super) struct Rows(Vec<Walk>);

impl Rows {
    #[cfg(test)]
    pub fn entries_kept(&self) -> usize {
        self.0.iter().map(|walk| walk.entries.len()).sum()
    }

    /// SQLite has read this leaf of an index.
    pub fn saw_index(&mut self, state: &State, trees: &mut Trees, pgno: Pgno, page: &Page) {
        let Some((table, index)) = trees.table_of(pgno.get()) else { return };
        if let Some(n) = self.0.iter().position(|walk| walk.index == index) {
            let mut walk = self.0.remove(n);
            if walk.leaves.contains(&pgno.get()) || walk.goes_on(state, trees, pgno, page) {
                return self.0.push(walk);
            }
        }
        if self.0.len() >= WALKS {
            self.0.remove(0);
        }
        self.0.push(Walk {
            index,
            table,
            entries: Vec::new(),
            leaves: vec![pgno.get()],
            last: trees.spot(pgno.get()),
            unread: Some((pgno, Page::clone(page))),
            at: None,
            asked: 0,
            step: 1,
            window: 0,
            is_range: false,
        });
    }

    /// SQLite has read this leaf of a table: the pages that it will want next, and whether an index leads it.
    pub fn saw_table(
        &mut self,
        state: &State,
        trees: &mut Trees,
        pgno: Pgno,
        page: &[u8],
        wanted: &mut Vec<u32>,
    ) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let Some((low, high)) = btree::rows(pgno, page) else { return false };
        let Some((table, depth)) = trees.root_of(pgno.get()) else { return false };
        let mut is_led = false;
        for walk in self.0.iter_mut().filter(|walk| walk.table == table) {
            if walk.advance(low, high) {
                walk.ask(state, trees, depth, wanted);
                is_led |= walk.window > 0;
            }
        }
        is_led
    }
}

impl Walk {
    /// Whether this leaf comes behind the last one; its entries are added.
    fn goes_on(&mut self, state: &State, trees: &mut Trees, pgno: Pgno, page: &[u8]) -> bool {
        let ahead = self.at.map_or(usize::MAX, |at| self.entries.len() - at);
        // Of an index that is read alone, or whose rows are read from elsewhere, no more entries are kept.
        let Some(last) = self.last.filter(|last| last.0 != 0 && ahead <= KEPT) else { return false };
        match trees.following(state, last, self.step, &mut Vec::new()) {
            Some((next, spot)) if next == pgno.get() => {
                self.add(state, pgno, page, spot);
                true
            }
            _ => false,
        }
    }

    /// Adds the entries of the next leaf, and the one between, which is in their parent.
    fn add(&mut self, state: &State, pgno: Pgno, page: &[u8], spot: Spot) {
        if let Some(last) = self.last.filter(|last| last.0 == spot.0)
            && let Some(parent) = at_hand(state, last.0)
            && let Some(parent_pgno) = Pgno::new(last.0)
        {
            self.entries.extend(btree::entry(parent_pgno, &parent, last.1.min(spot.1)));
        }
        let mut entries = btree::entries(pgno, page);
        if self.step < 0 {
            entries.reverse();
        }
        self.entries.append(&mut entries);
        self.last = Some(spot);
        self.leaves.push(pgno.get());
        self.leaves.drain(..self.leaves.len().saturating_sub(LEAVES));
        if let Some(old) = self.at.and_then(|at| at.checked_sub(KEPT)) {
            self.entries.drain(..old);
            self.at = Some(KEPT);
            self.asked = self.asked.saturating_sub(old);
        }
    }

    /// A leaf of the table with these rows was read. Whether more rows are to be asked for.
    fn advance(&mut self, low: i64, high: i64) -> bool {
        if let Some((pgno, page)) = self.unread.take() {
            self.entries = btree::entries(pgno, &page);
        }
        let is_there = |entry: &IndexKey| (low..=high).contains(&entry.rowid);
        let from = self.at.unwrap_or(0);
        let ahead = self.entries.iter().skip(from).position(is_there).map(|n| n + from);
        let behind = || self.entries.iter().take(from).rposition(is_there);
        let near = ahead.filter(|at| self.at.is_none() || at - from <= NEAR);
        let Some(now) = near.or_else(behind).or(ahead) else { return false };
        let key = |at: usize| self.entries.get(at).map(|entry| entry.first_column);
        let is_other_key = self.at.is_some_and(|before| key(before) != key(now));
        match self.at.replace(now) {
            Some(before) if now >= before && now - before <= NEAR => {
                self.window = (self.window * 2).clamp(4, WINDOW_MAX);
                self.is_range |= is_other_key;
            }
            // The other way round, while the direction is not known yet.
            Some(before) if now < before && before - now <= NEAR && self.window == 0 => {
                self.step = -self.step;
                self.entries.reverse();
                self.at = Some(self.entries.len() - 1 - now);
                self.asked = 0;
                self.window = 4;
                self.is_range = is_other_key;
            }
            Some(_) => (self.window, self.asked, self.is_range) = (0, 0, false),
            None => {}
        }
        true
    }

    /// How many entries behind this one are wanted: those of the same key; of an index of several columns also those of
    /// the same first column, as far as the reader goes on in them.
    fn wanted_behind(&self, at: usize) -> usize {
        if self.is_range {
            return self.window;
        }
        let Some(here) = self.entries.get(at) else { return 0 };
        let behind = |most: usize| self.entries.iter().skip(at + 1).take(most);
        let same_key = behind(self.window.max(SAME_KEY)).take_while(|entry| entry.key == here.key).count();
        same_key.max(behind(self.window).take_while(|entry| entry.first_column == here.first_column).count())
    }

    /// The pages of the rows that are wanted, and what is needed to know them.
    fn ask(&mut self, state: &State, trees: &mut Trees, leaf_depth: usize, wanted: &mut Vec<u32>) {
        let Some(mut at) = self.at else { return };
        let mut behind = self.wanted_behind(at);
        // Half of it is on its way.
        if self.asked > at + behind / 2 {
            return;
        }
        while self.window > 0 && self.entries.len() <= at + behind + 1 {
            let Some(last) = self.last.filter(|last| last.0 != 0) else { break };
            let Some((next, spot)) = trees.following(state, last, self.step, wanted) else { break };
            let (Some(page), Some(pgno)) = (at_hand(state, next), Pgno::new(next)) else {
                wanted.push(next);
                break;
            };
            let known = self.entries.len() - at;
            self.add(state, pgno, &page, spot);
            at = self.at.unwrap_or(at);
            if self.entries.len() - at <= known {
                break;
            }
            behind = self.wanted_behind(at);
        }
        let mut pages = HashSet::new();
        let mut asked = self.asked.max(at + 1);
        let mut is_known = true;
        for entry in self.entries.iter().take(at + behind + 1).skip(asked) {
            let missing = page_of_row(state, self.table, entry.rowid);
            // An interior page comes first: then the row is asked for once more.
            is_known &= missing.is_none_or(|(_, depth)| depth >= leaf_depth);
            asked += usize::from(is_known);
            pages.extend(missing.map(|(page, _)| page));
        }
        self.asked = asked;
        wanted.extend(pages);
    }
}
