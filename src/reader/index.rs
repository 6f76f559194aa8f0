//! Where the pages of a state are: segments, sorted by page number, each the union of a few LTX objects.
//!
//! A new object becomes a segment of its own in front of the others; neighbours of similar length are merged, so that a
//! state has few segments whatever the number of objects, and the next state shares all the old ones (R10). A page
//! takes 12 bytes in a segment of one object, 16 in another.

use super::copies::Copies;
use super::object::Object;
use crate::error::{Error, Result};
use crate::ltx::{IndexEntry, Pgno};
use std::collections::HashMap;
use std::sync::Arc;

/// Frames are shorter than 2^24 bytes; an object is shorter than 2^40.
const LENGTH_BITS: u32 = 24;

/// Where a page's frame is.
#[derive(Clone)]
pub(super) struct Frame {
    pub object: Arc<Object>,
    pub pgno: Pgno,
    pub offset: u64,
    pub len: u32,
    /// The page's checksum, where the companion tells it (R7).
    pub sum: Option<u64>,
    /// Of one in a companion.
    pub copy: Option<Copy>,
}

/// What is known of a frame in a companion.
#[derive(Clone)]
pub(super) struct Copy {
    pub of: Arc<Copies>,
    pub number: usize,
    /// Bytes that follow the frame, and tell where the page's children are.
    pub behind: u32,
}

impl Frame {
    /// The byte after all that is read of it.
    pub fn end(&self) -> u64 {
        self.offset + u64::from(self.len) + self.copy.as_ref().map_or(0, |copy| u64::from(copy.behind))
    }

    /// Of a copy: remembers where the page's children are, which the bytes behind it tell.
    pub fn learn(&self, page: &[u8], behind: &[u8]) -> Result<()> {
        self.copy.as_ref().map_or(Ok(()), |copy| copy.of.learn(copy.number, self.pgno, page, behind))
    }

    /// Whether both are in one object of the store.
    pub fn is_beside(&self, other: &Self) -> bool {
        self.object.id == other.object.id && self.copy.is_some() == other.copy.is_some()
    }
}

/// The pages of some objects, the newest of each.
pub(super) struct Segment {
    objects: Vec<Arc<Object>>,
    pgnos: Vec<u32>,
    frames: Vec<u64>,
    /// Indexes into `objects`; empty if there is one object.
    owners: Vec<u32>,
}

impl Segment {
    /// Of one object.
    ///
    /// # Errors
    /// An object of a TiB or more.
    pub fn of(object: &Arc<Object>, entries: &[IndexEntry]) -> Result<Self> {
        let frames = entries.iter().map(packed).collect::<Result<_>>()?;
        let pgnos = entries.iter().map(|entry| entry.pgno.get()).collect();
        Ok(Self { objects: vec![Arc::clone(object)], pgnos, frames, owners: Vec::new() })
    }

    /// Of several, of which earlier ones win. Objects that have no page left are let go.
    pub fn union(newest_first: &[&Self]) -> Self {
        let mut owner_of: HashMap<*const Object, u32> = HashMap::new();
        let (mut objects, mut rows) = (Vec::new(), Vec::new());
        let mut taken = std::collections::HashSet::new();
        for segment in newest_first {
            for at in 0..segment.pgnos.len() {
                let Some((pgno, object, frame)) = segment.row(at) else { continue };
                if !taken.insert(pgno) {
                    continue;
                }
                let owner = *owner_of.entry(Arc::as_ptr(object)).or_insert_with(|| {
                    objects.push(Arc::clone(object));
                    objects.len() as u32 - 1
                });
                rows.push((pgno, owner, frame));
            }
        }
        rows.sort_unstable_by_key(|(pgno, ..)| *pgno);
        Self {
            pgnos: rows.iter().map(|row| row.0).collect(),
            owners: if objects.len() > 1 { rows.iter().map(|row| row.1).collect() } else { Vec::new() },
            frames: rows.iter().map(|row| row.2).collect(),
            objects,
        }
    }

    fn row(&self, at: usize) -> Option<(u32, &Arc<Object>, u64)> {
        let owner = self.owners.get(at).map_or(0, |owner| *owner as usize);
        Some((*self.pgnos.get(at)?, self.objects.get(owner)?, *self.frames.get(at)?))
    }

    /// The page's frame, if one of the objects has it.
    pub fn find(&self, pgno: Pgno) -> Option<Frame> {
        // Of an image page n is entry n - 1, or one less behind the lock page.
        let guess = pgno.index();
        let at = match self.pgnos.get(guess) {
            Some(there) if *there == pgno.get() => guess,
            _ => self.pgnos.binary_search(&pgno.get()).ok()?,
        };
        let (_, object, frame) = self.row(at)?;
        Some(Frame {
            object: Arc::clone(object),
            pgno,
            offset: frame >> LENGTH_BITS,
            len: (frame & ((1 << LENGTH_BITS) - 1)) as u32,
            sum: None,
            copy: None,
        })
    }

    /// Pages in it.
    pub fn len(&self) -> usize {
        self.pgnos.len()
    }

    /// The objects that have pages here.
    pub fn objects(&self) -> &[Arc<Object>] {
        &self.objects
    }
}

fn packed(entry: &IndexEntry) -> Result<u64> {
    if entry.offset >> (64 - LENGTH_BITS) != 0 || entry.len >> LENGTH_BITS != 0 {
        return Err(Error::corrupt(format!("page {} at {} with {} bytes", entry.pgno, entry.offset, entry.len)));
    }
    Ok(entry.offset << LENGTH_BITS | u64::from(entry.len))
}
