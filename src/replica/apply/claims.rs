//! Newest wins: which file of the plan a page is taken from.

use super::source::Opened;
use super::{EARLY_BYTES_MAX, Shape};
use crate::lock::{Condvar, Mutex};
use crate::ltx::Pgno;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// One number per page: 0, or 1 + the place of the file in the order of claiming, newest first. Files claim strictly in
/// that order, so what is claimed is final.
pub(super) struct Claims {
    pages: Vec<AtomicU32>,
    turn: Mutex<Turn>,
    turned: Condvar,
    stopped: AtomicBool,
}

#[derive(Default)]
struct Turn {
    /// The file that claims next.
    next: usize,
    /// Files whose turn has not come, and the size in bytes of those that were kept so and are not applied yet.
    early: BTreeMap<usize, Opened>,
    early_bytes: u64,
}

impl Claims {
    pub fn new(shape: Shape) -> Self {
        let pages = (0..shape.commit).map(|_| AtomicU32::new(0)).collect();
        Self { pages, turn: Mutex::default(), turned: Condvar::new(), stopped: AtomicBool::new(false) }
    }

    /// Takes a file in; gives those, with their places, whose turn has come with it. Each has then taken the pages that
    /// no newer file has and that are within the database. A file that is early is kept for whoever brings the one
    /// before it, or waits if too much is kept. `None` if the work was stopped.
    pub fn claim(&self, place: usize, file: Opened) -> Option<Vec<(usize, Opened)>> {
        let mut turn = self.turn.lock();
        let kept = turn.early_bytes.saturating_add(file.held_bytes());
        if turn.next != place && kept <= EARLY_BYTES_MAX {
            turn.early_bytes = kept;
            turn.early.insert(place, file);
            return Some(Vec::new());
        }
        while turn.next != place && !self.stopped.load(Ordering::Relaxed) {
            self.turned.wait(&mut turn);
        }
        if self.stopped.load(Ordering::Relaxed) {
            return None;
        }
        let mut claimed = vec![(place, file)];
        while let Some((place, file)) = claimed.last() {
            self.take(*place, file);
            turn.next += 1;
            let next = turn.next;
            let Some(file) = turn.early.remove(&next) else { break };
            claimed.push((next, file));
        }
        self.turned.notify_all();
        Some(claimed)
    }

    /// Files that were kept were applied.
    pub fn applied(&self, bytes: u64) {
        let mut turn = self.turn.lock();
        turn.early_bytes = turn.early_bytes.saturating_sub(bytes);
    }

    /// Only the holder of the turn writes; its lock orders this before the next file's claims.
    fn take(&self, place: usize, file: &Opened) {
        let mark = mark(place);
        for page in file.entries.iter().filter_map(|entry| self.pages.get(entry.pgno.index())) {
            if page.load(Ordering::Relaxed) == 0 {
                page.store(mark, Ordering::Relaxed);
            }
        }
    }

    /// Whether the page is taken from this file, which has claimed.
    pub fn owns(&self, place: usize, pgno: Pgno) -> bool {
        self.pages.get(pgno.index()).is_some_and(|page| page.load(Ordering::Relaxed) == mark(place))
    }

    /// The first page that no file supplies, the lock page aside. For when all files have claimed.
    pub fn hole(&self, lock_page: Pgno) -> Option<Pgno> {
        let empty = |page: &AtomicU32| page.load(Ordering::Relaxed) == 0;
        let holes = self.pages.iter().zip(1u32..).filter(|(page, _)| empty(page));
        holes.filter_map(|(_, number)| Pgno::new(number)).find(|pgno| *pgno != lock_page)
    }

    /// Wakes whoever waits.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        let _turn = self.turn.lock();
        self.turned.notify_all();
    }
}

/// A listing of 4 billion files does not fit in memory.
fn mark(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX).saturating_add(1)
}
