//! What is fetched before it is asked for (R8): the b-tree tells which pages come next, and how far the reader has gone
//! tells how many of them. Who reads two siblings in a row gets what follows them, in windows that grow with what was
//! read; who looks up one row gets nothing but the interior pages that every look-up needs.

use super::btree;
use super::cache::Page;
use super::flight::{Flight, shared};
use super::index::Frame;
use super::rows::Rows;
use super::source::{GAP_BYTES, RUN_BYTES, Source};
use super::state::{Place, State};
use super::trees::{Spot, Trees};
use crate::ltx::Pgno;
use std::sync::Arc;

/// Bytes that a miss may bring along when nothing is known of what follows.
pub(super) const FIRST_WINDOW: u64 = 32 << 10;
/// The longest way ahead of a reader, in bytes as stored; its pages are never more than a quarter of the cache.
const LONGEST_WINDOW: u64 = 12 << 20;
/// How much further ahead than it has come a reader's window goes, along siblings and overflow chains, and along page
/// numbers whose end nobody knows.
const GROWTH: u64 = 12;
const GROWTH_BY_NUMBER: u64 = 1;
/// The window of who has read two siblings in a row, and of who has read three: one more request, which takes hardly
/// longer for being long.
const SECOND_WINDOW: u64 = 256 << 10;
const THIRD_WINDOW: u64 = RUN_BYTES;
/// The longest one along page numbers.
const LONGEST_BY_NUMBER: u64 = 4 << 20;
/// After so many pages in a row that were at hand, nothing is to be learnt from those that follow.
const WARM: u32 = 256;
/// Roots that are fetched ahead at most, and what is below them.
const FEW: usize = 256;
/// Places in trees at which a connection reads at a time: joins, several cursors.
const TRACKS: usize = 16;

/// One walk along siblings.
#[derive(Clone, Copy, Debug)]
struct Track {
    /// The interior page, or 0 for pages that follow each other by number (overflow chains).
    parent: u32,
    at: u32,
    /// 1 or -1; 0 while only one page was read.
    step: i64,
    /// Bytes read in a row, and pages.
    read: u64,
    pages: u32,
    /// Up to where pages were asked for.
    asked: Spot,
    /// The last page of an overflow chain.
    end: Option<u32>,
    /// Bytes asked for and not yet read.
    ahead: u64,
}

impl Track {
    /// How many bytes ahead of the reader may be asked for.
    fn window(&self, longest: u64) -> u64 {
        match (self.parent, self.end) {
            (0, None) => (self.read * GROWTH_BY_NUMBER).min(longest.min(LONGEST_BY_NUMBER)),
            _ if self.pages < 3 => SECOND_WINDOW.min(longest),
            _ => (self.read * GROWTH).max(THIRD_WINDOW).min(longest),
        }
    }
}

/// What one connection reads.
#[derive(Default)]
pub(super) struct Tracks {
    /// Used last, last.
    tracks: Vec<Track>,
    rows: Rows,
    /// Pages in a row that were at hand.
    warm: u32,
}

impl Tracks {
    #[cfg(test)]
    pub fn entries_kept(&self) -> usize {
        self.rows.entries_kept()
    }

    /// How many bytes a miss of this page may bring along.
    pub fn window(&self, source: &Source, pgno: Pgno) -> u64 {
        if source.is_local {
            return 0;
        }
        let in_a_row = self.tracks.iter().rev().find(|track| track.parent == 0 && track.at + 1 == pgno.get());
        in_a_row.map_or(FIRST_WINDOW, |track| track.window(RUN_BYTES).max(FIRST_WINDOW))
    }

    /// SQLite has read this page. `was_at_hand`: somebody read it before.
    pub fn saw(&mut self, source: &Arc<Source>, state: &Arc<State>, pgno: Pgno, page: &Page, was_at_hand: bool) {
        self.warm = if was_at_hand { self.warm.saturating_add(1) } else { 0 };
        if source.is_local || self.warm > WARM {
            return;
        }
        let mut roots = Vec::new();
        let wanted = {
            let mut trees = source.trees.lock();
            let mut wanted = Vec::new();
            if let Some(children) = btree::children(pgno, page) {
                self.interior(state, &mut trees, pgno, children, &mut wanted);
            }
            let parent = trees.spot(pgno.get());
            if let Some((1, _)) = parent.or((pgno == Pgno::FIRST).then_some((1, 0))) {
                let rows = btree::schema(pgno, page);
                roots.extend(rows.iter().map(|row| row.root).take(FEW));
                trees.learn_schema(rows);
            }
            let mut is_led = false;
            if btree::is_index_leaf(pgno, page) {
                self.rows.saw_index(state, &mut trees, pgno, page);
            } else if !was_at_hand {
                trees.learn_chains(pgno, page);
                is_led = self.rows.saw_table(state, &mut trees, pgno, page, &mut wanted);
            }
            self.along(source, state, &mut trees, (pgno, page), is_led, &mut wanted);
            wanted
        };
        if !roots.is_empty() {
            fetch(source, state, &roots, Some(Deeper { state: Arc::clone(state), step: DeeperStep::Roots }));
        }
        if !wanted.is_empty() {
            fetch(source, state, &wanted, None);
        }
    }

    /// An interior page whose parent is one, too: each look-up goes through it or one of its siblings.
    fn interior(&self, state: &State, trees: &mut Trees, pgno: Pgno, children: Vec<u32>, wanted: &mut Vec<u32>) {
        let is_known = trees.knows(pgno.get());
        trees.learn(pgno.get(), children);
        if !is_known {
            // Those that were read before are known, if they are not even at hand any more.
            let nearest = trees.nearest(pgno.get());
            // The first look-up may be the only one, and with a copy come others.
            let is_first = !trees.was_searched;
            trees.was_searched |= nearest.iter().any(|sibling| is_far_copy(state, *sibling));
            let is_spared = |sibling| is_first && is_far_copy(state, sibling);
            wanted.extend(nearest.into_iter().filter(|sibling| !trees.knows(*sibling) && !is_spared(*sibling)));
        }
    }

    /// Goes on with the walk that this page belongs to. Two rows that an index leads to are siblings by chance, three in
    /// a row are not.
    fn along(
        &mut self,
        source: &Arc<Source>,
        state: &State,
        trees: &mut Trees,
        (pgno, page): (Pgno, &[u8]),
        is_led: bool,
        wanted: &mut Vec<u32>,
    ) {
        // A page without a parent, as of an overflow chain, is child n of nothing.
        let (parent, at) = trees.spot(pgno.get()).unwrap_or((0, pgno.get()));
        // The same page again is no step.
        if let Some(n) = self.tracks.iter().position(|track| (track.parent, track.at) == (parent, at)) {
            let track = self.tracks.remove(n);
            return self.tracks.push(track);
        }
        let bytes = match state.find(pgno) {
            Place::At(frame) => u64::from(frame.len),
            _ => 0,
        };
        let here = Track { parent, at, step: 0, read: bytes, pages: 1, asked: (parent, at), end: None, ahead: 0 };
        // An overflow page names the next one first.
        let is_consecutive = page.first_chunk().is_some_and(|next| u32::from_be_bytes(*next) == pgno.get() + 1);
        let begun = trees.end_of_chain(pgno.get()).filter(|_| parent == 0 && is_consecutive);
        let former = self.take(parent, at, trees);
        let is_chance = is_led && former.as_ref().is_some_and(|(track, _)| track.step == 0);
        let mut track = match former {
            // A chain is read forward, and often another one after it.
            former if begun.is_some() => {
                let (read, pages) = former.map_or((0, 0), |(track, _)| (track.read, track.pages));
                Track { step: 1, read: read + bytes, pages: pages.saturating_add(1), end: begun, ..here }
            }
            Some((track, step)) if track.step == 0 || track.step == step => Track {
                parent,
                at,
                step,
                read: track.read + bytes,
                pages: track.pages.saturating_add(1),
                ahead: track.ahead.saturating_sub(bytes),
                asked: if track.step == 0 { (parent, at) } else { track.asked },
                end: track.end,
            },
            _ => here,
        };
        let window = track.window(longest_window(&track, page.len()));
        if track.step != 0 && !is_chance && track.ahead <= window / 4 * 3 {
            ask(source, state, trees, &mut track, window, wanted);
        }
        self.tracks.push(track);
    }

    /// The walk whose next page this is, with its direction; else the oldest makes room.
    fn take(&mut self, parent: u32, at: u32, trees: &mut Trees) -> Option<(Track, i64)> {
        let found = self.tracks.iter().enumerate().rev().find_map(|(n, track)| {
            if track.parent == parent {
                let step = i64::from(at) - i64::from(track.at);
                return (step.abs() == 1).then_some((n, step));
            }
            // From the last child of one parent to the first of the next one, or back.
            if track.parent == 0 || parent == 0 {
                return None;
            }
            if at == 0 && trees.beside(track.parent, 1) == Some(parent) {
                return Some((n, 1));
            }
            (trees.is_last((parent, at)) && trees.beside(track.parent, -1) == Some(parent)).then_some((n, -1))
        });
        if let Some((n, step)) = found {
            return Some((self.tracks.remove(n), step));
        }
        if self.tracks.len() >= TRACKS {
            self.tracks.remove(0);
        }
        None
    }
}

/// In bytes as stored: the pages, which the cache must hold until they are read, may be many times larger.
fn longest_window(track: &Track, page_size: usize) -> u64 {
    let pages = u64::from(track.pages.max(1)) * page_size as u64;
    let held = shared().cache.limit() as u64 / 4;
    LONGEST_WINDOW.min((u128::from(held) * u128::from(track.read) / u128::from(pages)) as u64)
}

/// Asks for the pages of a walk up to the end of its window.
fn ask(source: &Arc<Source>, state: &State, trees: &mut Trees, track: &mut Track, window: u64, wanted: &mut Vec<u32>) {
    while track.ahead < window {
        let Some((page, place)) = trees.following(state, track.asked, track.step, wanted) else { break };
        let frame = match Pgno::new(page).map(|pgno| state.find(pgno)) {
            Some(Place::At(frame)) => frame,
            // The walk goes on when the index is there.
            Some(Place::Unread(index, block)) => {
                source.read_ahead(&index, block..block);
                break;
            }
            _ => break,
        };
        if track.parent == 0 && track.end.is_some_and(|end| page > end) {
            break;
        }
        // The walk goes through its parent, which came long before and would be pushed out by what comes now.
        if place.0 != track.asked.0 && !touch(state, place.0) {
            wanted.push(place.0);
        }
        track.ahead += u64::from(frame.len);
        track.asked = place;
        if !shared().cache.has(&(frame.object.id, frame.pgno)) {
            wanted.push(page);
        }
    }
}

/// Keeps a page in memory; whether it is there, or nowhere to be had.
fn touch(state: &State, page: u32) -> bool {
    match Pgno::new(page).map(|pgno| state.find(pgno)) {
        Some(Place::At(frame)) => shared().cache.touch(&(frame.object.id, frame.pgno)),
        _ => true,
    }
}

/// What is fetched after pages that nobody asked for have come: each look-up in a tree goes through its interior pages,
/// so they are there before the first one.
#[derive(Clone)]
pub(super) struct Deeper {
    state: Arc<State>,
    step: DeeperStep,
}

/// Which pages have come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum DeeperStep {
    /// Roots: then a child of each, which tells whether it is a leaf.
    Roots,
    /// The first child of roots: then its siblings, if it is none.
    Children,
}

impl Deeper {
    pub fn go_on(self, source: &Arc<Source>, pages: &[(Pgno, Page)]) {
        let mut wanted = Vec::new();
        {
            let mut trees = source.trees.lock();
            for (pgno, page) in pages {
                // Many copies come at a time, with where their children are, when one is wanted.
                if copy_of(&self.state, pgno.get()).is_some() {
                    continue;
                }
                let Some(children) = btree::children(*pgno, page) else { continue };
                let children = trees.learn(pgno.get(), children);
                match self.step {
                    DeeperStep::Roots => wanted.extend(children.first()),
                    DeeperStep::Children => wanted.extend(trees.nearest(pgno.get())),
                }
            }
        }
        wanted.truncate(FEW);
        let next = (self.step == DeeperStep::Roots).then(|| Self { step: DeeperStep::Children, ..self.clone() });
        fetch(source, &self.state, &wanted, next);
    }
}

/// Where an interior page lies in a companion.
fn copy_of(state: &State, page: u32) -> Option<Frame> {
    match state.find(Pgno::new(page)?) {
        Place::At(frame) => Some(frame).filter(|frame| frame.copy.is_some()),
        _ => None,
    }
}

/// Whether it does, and is not in memory.
fn is_far_copy(state: &State, page: u32) -> bool {
    copy_of(state, page).is_some_and(|frame| !shared().cache.has(&(frame.object.id, frame.pgno)))
}

/// Fetches pages, in runs, unless they are at hand or under way.
fn fetch(source: &Arc<Source>, state: &State, wanted: &[u32], deeper: Option<Deeper>) {
    let mut frames: Vec<Frame> = wanted
        .iter()
        .filter_map(|page| match state.find(Pgno::new(*page)?) {
            Place::At(frame) => Some(frame),
            Place::Unread(index, block) => {
                // Of roots that are leaves. Who wants one waits for a block.
                if deeper.is_none() || !index.has_copies() {
                    source.read_ahead(&index, block..block);
                }
                None
            }
            _ => None,
        })
        .filter(|frame| !shared().cache.has(&(frame.object.id, frame.pgno)))
        .collect();
    frames.sort_unstable_by_key(|frame| (*frame.object.id.bytes(), frame.copy.is_some(), frame.offset));
    frames.dedup_by_key(|frame| (frame.object.id, frame.pgno));
    let mut flights = shared().flights.lock();
    frames.retain(|frame| !flights.contains_key(&(frame.object.id, frame.pgno)));
    let mut runs: Vec<Vec<Frame>> = Vec::new();
    for frame in frames {
        match runs.last_mut() {
            Some(run) if joins(run, &frame) => run.push(frame),
            _ => runs.push(vec![frame]),
        }
    }
    let runs: Vec<_> = runs
        .into_iter()
        .map(|run| {
            let flight = Arc::new(Flight::default());
            for frame in &run {
                flights.insert((frame.object.id, frame.pgno), Arc::clone(&flight));
            }
            (flight, run)
        })
        .collect();
    drop(flights);
    for (flight, run) in runs {
        source.ahead_of(run.len());
        source.fly(&flight, run, None, deeper.clone());
    }
}

fn joins(run: &[Frame], frame: &Frame) -> bool {
    let (Some(first), Some(last)) = (run.first(), run.last()) else { return false };
    first.is_beside(frame)
        && frame.offset.checked_sub(last.end()).is_some_and(|gap| gap <= GAP_BYTES)
        && frame.end() - first.offset <= RUN_BYTES
}
