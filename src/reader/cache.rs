//! The page cache of the process: the pages used last, whichever connection and replica they are of, bounded in bytes.

use super::object::{ObjectId, PageKey};
use crate::lock::Mutex;
use lru::LruCache;
use std::sync::Arc;

/// What an entry takes beside its page: key, list and map.
const ENTRY_BYTES: usize = 128;

/// A page, decompressed.
pub(super) type Page = Arc<[u8]>;

struct Entry {
    page: Page,
    /// Fetched before anybody asked, and not asked for since.
    ahead: bool,
}

struct Inner {
    pages: LruCache<PageKey, Entry>,
    bytes: usize,
    limit: usize,
}

/// Pages by use.
pub(super) struct Cache(Mutex<Inner>);

impl Default for Cache {
    fn default() -> Self {
        Self(Mutex::new(Inner { pages: LruCache::unbounded(), bytes: 0, limit: 0 }))
    }
}

impl Cache {
    /// The limit is the largest that any connection asked for.
    pub fn allow(&self, bytes: u64) {
        let mut inner = self.0.lock();
        inner.limit = inner.limit.max(usize::try_from(bytes).unwrap_or(usize::MAX));
    }

    /// In bytes.
    pub fn limit(&self) -> usize {
        self.0.lock().limit
    }

    /// A page, and whether this is the first use of one that was fetched ahead.
    pub fn get(&self, key: &PageKey) -> Option<(Page, bool)> {
        let mut inner = self.0.lock();
        let entry = inner.pages.get_mut(key)?;
        Some((Arc::clone(&entry.page), std::mem::take(&mut entry.ahead)))
    }

    /// A page, without counting it as used.
    pub fn peek(&self, key: &PageKey) -> Option<Page> {
        self.0.lock().pages.peek(key).map(|entry| Arc::clone(&entry.page))
    }

    /// Whether a page is there; it stays as long as one that was used now.
    pub fn touch(&self, key: &PageKey) -> bool {
        self.0.lock().pages.get(key).is_some()
    }

    /// Forgets the pages of an object.
    pub fn forget(&self, object: ObjectId) {
        let mut inner = self.0.lock();
        let keys: Vec<PageKey> = inner.pages.iter().map(|(key, _)| *key).filter(|key| key.0 == object).collect();
        for key in keys {
            if let Some(entry) = inner.pages.pop(&key) {
                inner.bytes -= entry.page.len() + ENTRY_BYTES;
            }
        }
    }

    #[cfg(test)]
    pub fn clear(&self) {
        let mut inner = self.0.lock();
        inner.pages.clear();
        inner.bytes = 0;
    }

    /// Whether it is there.
    pub fn has(&self, key: &PageKey) -> bool {
        self.0.lock().pages.contains(key)
    }

    /// Keeps a page; the ones not used for longest make room.
    pub fn put(&self, key: PageKey, page: Page, ahead: bool) {
        let mut inner = self.0.lock();
        inner.bytes += page.len() + ENTRY_BYTES;
        if let Some(former) = inner.pages.put(key, Entry { page, ahead }) {
            inner.bytes -= former.page.len() + ENTRY_BYTES;
        }
        while inner.bytes > inner.limit {
            let Some((_, least)) = inner.pages.pop_lru() else { break };
            inner.bytes -= least.page.len() + ENTRY_BYTES;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::object::ObjectId;
    use super::*;
    use crate::ltx::Pgno;
    use crate::store::ETag;

    #[test]
    fn the_pages_used_last_stay_within_the_limit() {
        let cache = Cache::default();
        cache.allow(10 * (512 + ENTRY_BYTES as u64));
        let id = ObjectId::new("memory:", "a", &ETag("1".into()));
        let key = |n| (id, Pgno::new(n).unwrap());
        for n in 1..=20 {
            cache.put(key(n), vec![n as u8; 512].into(), true);
            assert!(cache.get(&key(1)).is_some(), "used each time");
        }
        assert_eq!((2..=20).filter(|n| cache.has(&key(*n))).count(), 9);
        assert_eq!(cache.get(&key(20)).map(|(page, ahead)| (page[0], ahead)), Some((20, true)));
        assert_eq!(cache.get(&key(20)).map(|(_, ahead)| ahead), Some(false));
    }
}
