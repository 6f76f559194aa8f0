//! Newest wins: which file of the plan a page is taken from.

use super::Shape;
use crate::lock::{Condvar, Mutex};
use crate::ltx::{IndexEntry, Pgno};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// One number per page: 0, or 1 + the place of the file in the order of claiming, newest first. Files claim strictly in
/// that order, so what is claimed is final.
pub(super) struct Claims {
    pages: Vec<AtomicU32>,
    /// The file that claims next.
    turn: Mutex<usize>,
    turned: Condvar,
    stopped: AtomicBool,
}

impl Claims {
    pub fn new(shape: Shape) -> Self {
        let pages = (0..shape.commit).map(|_| AtomicU32::new(0)).collect();
        Self { pages, turn: Mutex::new(0), turned: Condvar::new(), stopped: AtomicBool::new(false) }
    }

    /// Waits until all files newer than the one at `first` have claimed, then takes, for it and those that follow it,
    /// the pages of each that nobody has and that are within the database. False if the work was stopped meanwhile.
    pub fn claim<'a>(&self, first: usize, files: impl IntoIterator<Item = &'a [IndexEntry]>) -> bool {
        let mut turn = self.turn.lock();
        while *turn != first && !self.stopped.load(Ordering::Relaxed) {
            self.turned.wait(&mut turn);
        }
        if self.stopped.load(Ordering::Relaxed) {
            return false;
        }
        for entries in files {
            let mark = mark(*turn);
            for page in entries.iter().filter_map(|entry| self.pages.get(entry.pgno.index())) {
                // Only the holder of the turn writes; its lock orders this before the next file's claims.
                if page.load(Ordering::Relaxed) == 0 {
                    page.store(mark, Ordering::Relaxed);
                }
            }
            *turn += 1;
        }
        self.turned.notify_all();
        true
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
