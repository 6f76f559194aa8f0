//! One state of a replica: what a transaction sees (R10). Immutable and shared; the next state shares its segments.

use super::cache::Page;
use super::index::{Frame, Segment};
use super::lazy::LazyIndex;
use super::object::Object;
use crate::header;
use crate::ltx::{PageSize, Pgno, Txid};
use crate::time::Timestamp;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

/// Where a page of a state is.
pub(super) enum Place {
    /// In this frame.
    At(Frame),
    /// This block of an index, which is not in memory, tells.
    Unread(Arc<LazyIndex>, usize),
    /// The lock page, of which nothing is stored.
    Zeros,
    /// In no object, which is damage.
    Nowhere,
}

/// The index of some objects.
#[derive(Clone)]
pub(super) enum Layer {
    Read(Arc<Segment>),
    Lazy(Arc<LazyIndex>),
}

/// A state.
pub(super) struct State {
    /// What page 1 shows as its change counter: another one for every state of the process, so that SQLite drops its
    /// pages when the data moved, and only then (R11).
    pub counter: u32,
    pub txid: Txid,
    pub timestamp: Timestamp,
    pub page_size: PageSize,
    /// The database's size in pages.
    pub commit: u32,
    /// The object that made it.
    pub newest: Arc<Object>,
    /// The database's rolling checksum, where it is known (R2).
    pub after: Option<u64>,
    /// Newest first.
    layers: Vec<Layer>,
    first_page: OnceLock<Page>,
}

static NEXT_COUNTER: AtomicU32 = AtomicU32::new(1);

impl State {
    /// The state that `newest` made, whose pages `layers` have, newest first.
    pub fn new(newest: Arc<Object>, after: Option<u64>, layers: Vec<Layer>) -> Self {
        let header = newest.header;
        Self {
            counter: NEXT_COUNTER.fetch_add(1, Ordering::Relaxed),
            txid: header.txids.max,
            timestamp: header.timestamp,
            page_size: header.page_size,
            commit: header.commit,
            newest,
            after,
            layers: compacted(layers),
            first_page: OnceLock::new(),
        }
    }

    /// The next state: this one, and an object that begins right behind it.
    pub fn with(&self, newest: Arc<Object>, after: Option<u64>, segment: Segment) -> Self {
        let mut layers = vec![Layer::Read(Arc::new(segment))];
        layers.extend(self.layers.iter().cloned());
        Self::new(newest, after, layers)
    }

    /// The same pages from other objects: SQLite has nothing to drop.
    pub fn in_place_of(self, former: &Self) -> Self {
        Self { counter: former.counter, ..self }
    }

    /// Where a page is: an interior page in a companion, if there is a copy. Memory only.
    pub fn find(&self, pgno: Pgno) -> Place {
        self.find_by(pgno, LazyIndex::find)
    }

    /// Where a page is, in an object that is part of the state.
    pub fn find_stored(&self, pgno: Pgno) -> Place {
        self.find_by(pgno, LazyIndex::find_stored)
    }

    fn find_by(&self, pgno: Pgno, in_index: impl Fn(&Arc<LazyIndex>, Pgno) -> Place) -> Place {
        if pgno == self.page_size.lock_page() {
            return Place::Zeros;
        }
        if pgno.get() > self.commit {
            return Place::Nowhere;
        }
        for layer in &self.layers {
            match layer {
                Layer::Read(segment) => {
                    if let Some(frame) = segment.find(pgno) {
                        return Place::At(frame);
                    }
                }
                Layer::Lazy(index) => match in_index(index, pgno) {
                    Place::Nowhere => {}
                    place => return place,
                },
            }
        }
        Place::Nowhere
    }

    /// How many blocks of indexes may be read to find one page: each layer has one for it, which other pages may push
    /// out again.
    pub fn blocks_for_a_page(&self) -> usize {
        3 + 2 * self.layers.iter().filter(|layer| matches!(layer, Layer::Lazy(_))).count()
    }

    /// In bytes.
    pub fn size(&self) -> u64 {
        u64::from(self.commit) * u64::from(self.page_size.get())
    }

    /// The objects that have pages of it.
    pub fn objects(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.layers
            .iter()
            .flat_map(|layer| match layer {
                Layer::Read(segment) => segment.objects(),
                Layer::Lazy(index) => std::slice::from_ref(index.object()),
            })
            .chain([&self.newest])
    }

    /// Page 1 as SQLite is to see it, made of the stored one: in rollback mode, since there is no WAL here, and with
    /// this state's change counter and size.
    pub fn first_page(&self, stored: impl FnOnce() -> crate::error::Result<Page>) -> crate::error::Result<Page> {
        if let Some(page) = self.first_page.get() {
            return Ok(Arc::clone(page));
        }
        let mut page = stored()?.to_vec();
        let counter = self.counter.to_be_bytes();
        for (place, bytes) in [
            (header::VERSIONS, [header::ROLLBACK; 2].as_slice()),
            (header::CHANGE_COUNTER, &counter),
            (header::PAGES, &self.commit.to_be_bytes()),
            (header::VALID_FOR, &counter),
        ] {
            if let Some(place) = page.get_mut(place) {
                place.copy_from_slice(bytes);
            }
        }
        Ok(Arc::clone(self.first_page.get_or_init(|| page.into())))
    }

    /// Page 1, if it was asked for before.
    pub fn known_first_page(&self) -> Option<Page> {
        self.first_page.get().cloned()
    }
}

/// Merges segments in front that are not much shorter than the one behind them, so that their number grows with the
/// logarithm of the number of objects.
fn compacted(mut layers: Vec<Layer>) -> Vec<Layer> {
    loop {
        let merged = match layers.as_slice() {
            [Layer::Read(newer), Layer::Read(older), ..] if newer.len() * 2 >= older.len() => {
                Segment::union(&[newer, older])
            }
            _ => return layers,
        };
        layers.splice(..2, [Layer::Read(Arc::new(merged))]);
    }
}
