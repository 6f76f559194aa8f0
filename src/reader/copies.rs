//! The copies of interior pages that a companion has (R6), and where their children are, as far as that was read.

use super::btree;
use super::flight::shared;
use super::index::{Copy, Frame};
use super::object::{Object, PageKey};
use crate::error::Result;
use crate::lock::Mutex;
use crate::ltx::Pgno;
use crate::replica::FileInfo;
use crate::replica::companion::Head;
use crate::store::Entry;
use lru::LruCache;
use std::sync::Arc;

/// Children whose places are remembered by the process: about 80 bytes each.
const PLACES: usize = 131_072;

/// Of one object.
pub(super) struct Copies {
    head: Arc<Head>,
    /// The companion, in which they lie; its pages are those of the object whose companion it is.
    companion: Arc<Object>,
}

/// Where children are whose parents were read, those used last: of all objects, as the pages in memory are.
pub(super) struct Places(Mutex<LruCache<PageKey, Child>>);

impl Default for Places {
    fn default() -> Self {
        Self(Mutex::new(LruCache::unbounded()))
    }
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
        Some(Arc::new(Self { head: Arc::clone(head), companion }))
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
    pub fn child(object: &Arc<Object>, pgno: Pgno) -> Option<Frame> {
        let Child { offset, len, sum } = *shared().places.0.lock().get(&(object.id, pgno))?;
        Some(Frame { object: Arc::clone(object), pgno, offset, len, sum: Some(sum), copy: None })
    }

    /// Remembers where the children of a page are; `behind`: what follows its frame.
    pub fn learn(&self, number: usize, pgno: Pgno, page: &[u8], behind: &[u8]) -> Result<()> {
        let children = btree::children(pgno, page).unwrap_or_default();
        let entries = self.head.parse_children(number, behind, &children)?;
        let mut places = shared().places.0.lock();
        for entry in entries {
            places.put(
                (self.companion.id, entry.pgno),
                Child { offset: entry.offset, len: entry.len, sum: entry.checksum },
            );
        }
        while places.len() > PLACES {
            places.pop_lru();
        }
        Ok(())
    }

    /// Whether it is known where the children of a page are.
    pub fn knows_children(&self, pgno: Pgno, page: &[u8]) -> bool {
        let id = self.companion.id;
        let is_known = |child: &u32| {
            let Some(child) = Pgno::new(*child) else { return true };
            let block = self.head.block_of(child);
            shared().places.0.lock().contains(&(id, child))
                || block.is_none_or(|block| shared().blocks.has(&(id, block)))
        };
        let children = btree::children(pgno, page).unwrap_or_default();
        children.first().is_none_or(is_known) && children.last().is_none_or(is_known)
    }
}
