//! The copies of interior pages that a companion has (R6), and where their children are, as far as that was read.

use super::btree;
use super::index::{Copy, Frame};
use super::object::Object;
use crate::error::Result;
use crate::lock::Mutex;
use crate::ltx::Pgno;
use crate::replica::FileInfo;
use crate::replica::companion::Head;
use crate::store::Entry;
use lru::LruCache;
use std::sync::Arc;

/// Children whose places are remembered, of one object: about 60 bytes each.
const PLACES: usize = if cfg!(test) { 8192 } else { 65_536 };

/// Of one object.
pub(super) struct Copies {
    head: Arc<Head>,
    /// The companion, in which they lie; its pages are those of the object whose companion it is.
    companion: Arc<Object>,
    places: Mutex<LruCache<Pgno, Child>>,
}

/// Where a page is in the object, and its checksum.
#[derive(Clone, Copy)]
struct Child {
    offset: u64,
    len: u32,
    sum: u64,
}

impl Copies {
    /// `None` if there are none, or the store does not tell which content the companion has.
    pub fn new(object: &Object, head: &Arc<Head>, companion: &Entry) -> Option<Arc<Self>> {
        let etag = companion.etag.clone().filter(|_| head.interiors() > 0)?;
        let info = FileInfo { key: companion.key.clone(), size: companion.size, ..object.info.clone() };
        let companion = Arc::new(Object { id: object.id, info, etag, header: object.header });
        Some(Arc::new(Self { head: Arc::clone(head), companion, places: Mutex::new(LruCache::unbounded()) }))
    }

    /// The copy of an interior page.
    pub fn find(self: &Arc<Self>, pgno: Pgno) -> Option<Frame> {
        self.frame(self.head.interior_of(pgno)?)
    }

    /// The one of that number.
    pub fn frame(self: &Arc<Self>, number: usize) -> Option<Frame> {
        let interior = self.head.interior(number)?;
        let range = self.head.record_range(number);
        Some(Frame {
            object: Arc::clone(&self.companion),
            pgno: interior.pgno,
            offset: interior.start,
            len: interior.len,
            sum: Some(interior.checksum),
            copy: Some(Copy { of: Arc::clone(self), number, behind: (range.end - range.start) as u32 - interior.len }),
        })
    }

    /// Where a child is whose parent was read.
    pub fn child(&self, object: &Arc<Object>, pgno: Pgno) -> Option<Frame> {
        let Child { offset, len, sum } = *self.places.lock().get(&pgno)?;
        Some(Frame { object: Arc::clone(object), pgno, offset, len, sum: Some(sum), copy: None })
    }

    /// Remembers where the children of a page are; `behind`: what follows its frame.
    pub fn learn(&self, number: usize, pgno: Pgno, page: &[u8], behind: &[u8]) -> Result<()> {
        let children = btree::children(pgno, page).unwrap_or_default();
        let entries = self.head.parse_children(number, behind, &children)?;
        let mut places = self.places.lock();
        for entry in entries {
            places.put(entry.pgno, Child { offset: entry.offset, len: entry.len, sum: entry.checksum });
        }
        while places.len() > PLACES {
            places.pop_lru();
        }
        Ok(())
    }
}
