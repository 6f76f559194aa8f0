//! A store in memory, for tests: the reference of what the trait means.

use super::names::{check_key, check_metadata, sorted};
use super::tally::Tally;
use super::{Counters, ETag, Ending, Entry, Metadata, Object, Place, Put, Start, Store, Upload};
use crate::error::{Error, Result};
use crate::lock::Mutex;
use crate::time::Timestamp;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

#[derive(Clone)]
struct Kept {
    bytes: Arc<Vec<u8>>,
    object: Object,
}

#[derive(Default)]
struct Inner {
    objects: Mutex<(u64, BTreeMap<String, Kept>)>,
    tally: Tally,
    clock_offset_ms: AtomicI64,
}

/// Objects in a map under one lock; clones share it.
#[derive(Clone, Default)]
pub struct MemoryStore(Arc<Inner>);

enum If<'a> {
    Any,
    Absent,
    Match(&'a ETag),
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// What [`Store::clock_offset_ms`] says from now on.
    pub fn set_clock_offset_ms(&self, offset_ms: i64) {
        self.0.clock_offset_ms.store(offset_ms, Relaxed);
    }

    /// Replaces an object's bytes without any condition and without a new ETag: damage, as a store may do it.
    pub fn damage(&self, key: &str, change: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        let mut guard = self.0.objects.lock();
        let kept = guard.1.get_mut(key).ok_or_else(|| super::no_object("memory:", key))?;
        change(Arc::make_mut(&mut kept.bytes));
        kept.object.size = kept.bytes.len() as u64;
        Ok(())
    }

    fn find(&self, key: &str) -> Result<Option<Kept>> {
        check_key(key)?;
        Ok(self.0.objects.lock().1.get(key).cloned())
    }

    fn write(&self, key: &str, bytes: &[u8], metadata: &Metadata, condition: If<'_>) -> Result<Put> {
        check_key(key)?;
        check_metadata(metadata)?;
        Tally::one(&self.0.tally.put);
        Tally::bytes(&self.0.tally.bytes_out, bytes.len());
        let mut guard = self.0.objects.lock();
        let (serial, objects) = &mut *guard;
        let holds = match (condition, objects.get(key)) {
            (If::Any, _) | (If::Absent, None) => true,
            (If::Match(etag), Some(there)) => there.object.etag == *etag,
            (If::Absent, Some(_)) | (If::Match(_), None) => false,
        };
        if !holds {
            return Ok(Put::Refused);
        }
        *serial += 1;
        let etag = ETag(format!("\"{serial}\""));
        let metadata = Metadata { timestamp: metadata.timestamp, pairs: sorted(metadata.pairs.clone()) };
        let object = Object { size: bytes.len() as u64, modified: Timestamp::now(), etag: etag.clone(), metadata };
        objects.insert(key.to_owned(), Kept { bytes: Arc::new(bytes.to_vec()), object });
        Ok(Put::Done(etag))
    }
}

impl Store for MemoryStore {
    fn url(&self) -> &str {
        "memory:"
    }

    fn list(&self, prefix: &str) -> Result<Vec<Entry>> {
        Tally::one(&self.0.tally.list);
        let objects = self.0.objects.lock();
        let rows = objects.1.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
        Ok(rows
            .map(|(key, kept)| Entry {
                key: key.clone(),
                size: kept.object.size,
                modified: kept.object.modified,
                etag: Some(kept.object.etag.clone()),
            })
            .collect())
    }

    fn head(&self, key: &str) -> Result<Option<Object>> {
        Tally::one(&self.0.tally.head);
        Ok(self.find(key)?.map(|kept| kept.object))
    }

    fn get(&self, key: &str, limit: u64) -> Result<Option<(Vec<u8>, ETag)>> {
        Tally::one(&self.0.tally.get);
        let Some(kept) = self.find(key)? else { return Ok(None) };
        if kept.object.size > limit {
            return Err(super::too_large(self.url(), key, kept.object.size, limit));
        }
        Tally::bytes(&self.0.tally.bytes_in, kept.bytes.len());
        Ok(Some((kept.bytes.to_vec(), kept.object.etag)))
    }

    fn get_range(&self, key: &str, range: Range<u64>, if_match: Option<&ETag>) -> Result<Vec<u8>> {
        Tally::one(&self.0.tally.get);
        let kept = self.find(key)?.ok_or_else(|| super::no_object(self.url(), key))?;
        if if_match.is_some_and(|etag| kept.object.etag != *etag) {
            return Err(super::replaced(self.url(), key));
        }
        let end = usize::try_from(range.end).unwrap_or(usize::MAX).min(kept.bytes.len());
        let start = usize::try_from(range.start).unwrap_or(usize::MAX);
        let bytes = kept.bytes.get(start..end).unwrap_or_default().to_vec();
        Tally::bytes(&self.0.tally.bytes_in, bytes.len());
        Ok(bytes)
    }

    fn get_start(&self, key: &str, length: u64, if_match: Option<&ETag>) -> Result<Start> {
        let bytes = self.get_range(key, 0..length, if_match)?;
        let pairs = self.find(key)?.map(|kept| kept.object.metadata.pairs).unwrap_or_default();
        Ok(Start { bytes, pairs, has_strays: false })
    }

    fn get_end(&self, key: &str, length: u64) -> Result<Option<Ending>> {
        Tally::one(&self.0.tally.get);
        let Some(kept) = self.find(key)? else { return Ok(None) };
        let start = kept.bytes.len().saturating_sub(usize::try_from(length).unwrap_or(usize::MAX));
        let bytes = kept.bytes.get(start..).unwrap_or_default().to_vec();
        Tally::bytes(&self.0.tally.bytes_in, bytes.len());
        Ok(Some(Ending { object: kept.object, bytes }))
    }

    fn put(&self, key: &str, bytes: &[u8], metadata: &Metadata) -> Result<ETag> {
        match self.write(key, bytes, metadata, If::Any)? {
            Put::Done(etag) => Ok(etag),
            Put::Refused => Err(Error::bug("an unconditional write was refused")),
        }
    }

    fn put_if_absent(&self, key: &str, bytes: &[u8], metadata: &Metadata) -> Result<Put> {
        self.write(key, bytes, metadata, If::Absent)
    }

    fn put_if_match(&self, key: &str, bytes: &[u8], metadata: &Metadata, etag: &ETag) -> Result<Put> {
        self.write(key, bytes, metadata, If::Match(etag))
    }

    fn upload(&self, key: &str, metadata: &Metadata, _expected: u64) -> Result<Box<dyn Upload>> {
        check_key(key)?;
        check_metadata(metadata)?;
        let (store, key, metadata) = (self.clone(), key.to_owned(), metadata.clone());
        Ok(Box::new(MemoryUpload { store, key, metadata, bytes: Vec::new() }))
    }

    fn delete(&self, key: &str) -> Result<()> {
        check_key(key)?;
        Tally::one(&self.0.tally.delete);
        self.0.objects.lock().1.remove(key);
        Ok(())
    }

    fn copy(&self, from: &str, to: &str, metadata: &Metadata) -> Result<Put> {
        let kept = self.find(from)?.ok_or_else(|| super::no_object(self.url(), from))?;
        self.write(to, &kept.bytes, metadata, If::Absent)
    }

    /// Stores that do not share their objects are not beside each other.
    fn place(&self) -> Place {
        Place { name: format!("memory:{:p}", Arc::as_ptr(&self.0)), path: String::new() }
    }

    fn clock_offset_ms(&self) -> i64 {
        self.0.clock_offset_ms.load(Relaxed)
    }

    fn counters(&self) -> Counters {
        self.0.tally.read()
    }
}

struct MemoryUpload {
    store: MemoryStore,
    key: String,
    metadata: Metadata,
    bytes: Vec<u8>,
}

impl Upload for MemoryUpload {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn finish_if_absent(self: Box<Self>) -> Result<Put> {
        self.store.put_if_absent(&self.key, &self.bytes, &self.metadata)
    }
}
