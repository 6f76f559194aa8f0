//! The b-trees of a database, as far as they were read. A newer state may have others: hints only.

use super::btree::{self, SchemaRow};
use super::cache::Page;
use super::flight::shared;
use super::state::{Place, State};
use crate::ltx::Pgno;
use lru::LruCache;
use std::num::NonZeroUsize;
use std::sync::Arc;

/// Children whose parents are remembered: about 100 bytes each.
const PARENTS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(if cfg!(test) { 1_535 } else { 65_535 });
/// Interior pages whose children are remembered.
const INTERIORS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1_023);
/// Overflow chains whose lengths are remembered.
const CHAINS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1_023);
/// Tables, and indexes, whose roots are remembered.
const ROOTS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4_095);
/// No tree is deeper (SQLite's BTCURSOR_MAX_DEPTH).
const DEPTH_MAX: usize = 20;
/// Interior pages beside one that is missing which are asked for with it.
const BESIDE: i64 = 16;

/// A place in a tree: the interior page, and which of its children. The parent is 0 where pages follow each other by
/// number (overflow chains).
pub(super) type Spot = (u32, u32);

/// What is known of them.
pub(super) struct Trees {
    children: LruCache<u32, Arc<[u32]>>,
    parents: LruCache<u32, Spot>,
    /// Pages of an overflow chain, by its first one.
    chains: LruCache<u32, u32>,
    /// Roots of tables, by name.
    tables: LruCache<Box<[u8]>, u32>,
    /// Tables that the roots of indexes belong to.
    indexes: LruCache<u32, Box<[u8]>>,
    /// An interior page was read whose siblings lie in a companion.
    pub was_searched: bool,
}

impl Default for Trees {
    fn default() -> Self {
        Self {
            children: LruCache::new(INTERIORS),
            parents: LruCache::new(PARENTS),
            chains: LruCache::new(CHAINS),
            tables: LruCache::new(ROOTS),
            indexes: LruCache::new(ROOTS),
            was_searched: false,
        }
    }
}

impl Trees {
    /// The children of an interior page.
    pub fn learn(&mut self, pgno: u32, children: Vec<u32>) -> Arc<[u32]> {
        for (number, child) in (0..).zip(&children) {
            self.parents.put(*child, (pgno, number));
        }
        let children: Arc<[u32]> = children.into();
        self.children.put(pgno, Arc::clone(&children));
        children
    }

    /// What a leaf of the schema table names.
    pub fn learn_schema(&mut self, rows: Vec<SchemaRow>) {
        for SchemaRow { table, is_index, root } in rows {
            if is_index {
                self.indexes.put(root, table);
            } else {
                self.tables.put(table, root);
            }
        }
    }

    /// The overflow chains that begin in a leaf.
    pub fn learn_chains(&mut self, pgno: Pgno, page: &[u8]) {
        for (first, pages) in btree::chains(pgno, page) {
            self.chains.put(first, pages);
        }
    }

    /// The last page of the overflow chain that begins here, if its pages follow each other.
    pub fn end_of_chain(&mut self, first: u32) -> Option<u32> {
        first.checked_add(self.chains.get(&first)?.checked_sub(1)?)
    }

    /// Whether its children are known.
    pub fn knows(&self, interior: u32) -> bool {
        self.children.contains(&interior)
    }

    /// Where a page is.
    pub fn spot(&mut self, pgno: u32) -> Option<Spot> {
        self.parents.get(&pgno).copied()
    }

    /// Whether this is the last child of its parent.
    pub fn is_last(&self, (parent, at): Spot) -> bool {
        self.children.peek(&parent).is_some_and(|all| all.len() as u32 == at + 1)
    }

    /// The interior page beside this one. Its place stays known: on the way there a walk learns those of many leaves.
    pub fn beside(&mut self, pgno: u32, step: i64) -> Option<u32> {
        let (parent, number) = self.spot(pgno)?;
        let number = u32::try_from(i64::from(number).checked_add(step)?).ok()?;
        let beside = self.children.get(&parent)?.get(number as usize).copied()?;
        self.parents.put(beside, (parent, number));
        Some(beside)
    }

    /// The interior pages on both sides of one, as far as they are worth a request each.
    pub fn nearest(&mut self, pgno: u32) -> Vec<u32> {
        (1..=BESIDE).flat_map(|n| [n, -n]).filter_map(|step| self.beside(pgno, step)).collect()
    }

    /// The root of the table that the index of this page belongs to, and that of the index.
    pub fn table_of(&mut self, page_of_index: u32) -> Option<(u32, u32)> {
        let (root, _) = self.root_of(page_of_index)?;
        let table = self.indexes.get(&root)?;
        Some((*self.tables.get(table)?, root))
    }

    /// The root of the tree that a page is in, and how deep it is below it.
    pub fn root_of(&mut self, pgno: u32) -> Option<(u32, usize)> {
        let mut root = pgno;
        for depth in 0..DEPTH_MAX {
            match self.spot(root) {
                Some((parent, _)) => root = parent,
                None => return Some((root, depth)),
            }
        }
        None
    }

    /// The next page of a walk, and its place; interior pages that it needs are asked for in `wanted`.
    pub fn following(
        &mut self,
        state: &State,
        (parent, at): Spot,
        step: i64,
        wanted: &mut Vec<u32>,
    ) -> Option<(u32, Spot)> {
        let next = u32::try_from(i64::from(at) + step).ok();
        if parent == 0 {
            return next.map(|next| (next, (0, next)));
        }
        let children = self.children.get(&parent)?;
        if let Some(next) = next
            && let Some(child) = children.get(next as usize)
        {
            return Some((*child, (parent, next)));
        }
        let beside = self.cross(state, parent, step, wanted)?;
        let children = self.children.get(&beside)?;
        let next = if step > 0 { 0 } else { children.len().checked_sub(1)? };
        Some((*children.get(next)?, (beside, next as u32)))
    }

    /// The interior page beside, if its children are known. If it is not at hand it is asked for, with those behind it:
    /// they take a request before the walk can go on.
    fn cross(&mut self, state: &State, parent: u32, step: i64, wanted: &mut Vec<u32>) -> Option<u32> {
        let beside = self.beside(parent, step)?;
        if self.knows(beside) {
            return Some(beside);
        }
        if let Some(page) = at_hand(state, beside) {
            self.learn(beside, btree::children(Pgno::new(beside)?, &page)?);
            return Some(beside);
        }
        wanted.extend((1..=BESIDE).filter_map(|n| self.beside(parent, step * n)));
        None
    }
}

/// A page that is in memory; it does not count as used.
pub(super) fn at_hand(state: &State, pgno: u32) -> Option<Page> {
    match state.find(Pgno::new(pgno)?) {
        Place::At(frame) => shared().cache.peek(&(frame.object.id, frame.pgno)),
        _ => None,
    }
}

/// The page on the way to a row of a table that is not at hand, and how deep it is below the root.
pub(super) fn page_of_row(state: &State, table: u32, rowid: i64) -> Option<(u32, usize)> {
    let mut pgno = table;
    for depth in 0..DEPTH_MAX {
        let Some(page) = at_hand(state, pgno) else { return Some((pgno, depth)) };
        // A leaf has no children.
        pgno = btree::child_of_row(Pgno::new(pgno)?, &page, rowid)?;
    }
    None
}
