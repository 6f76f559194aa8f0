//! One LTX object, as a reader knows it.

use crate::ltx::{Header, Pgno};
use crate::replica::FileInfo;
use crate::store::ETag;
use sha2::{Digest, Sha256};

/// Names one content of one object of one store: pages in caches belong to it, never to a TXID (R1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ObjectId([u8; 16]);

impl ObjectId {
    pub fn new(url: &str, key: &str, etag: &ETag) -> Self {
        let mut digest = Sha256::new();
        for part in [url, key, &etag.0] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        let digest: [u8; 32] = digest.finalize().into();
        Self(digest.first_chunk().copied().unwrap_or_default())
    }

    /// For names of cache entries.
    pub fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// A page of one content of an object.
pub(super) type PageKey = (ObjectId, Pgno);

/// An object whose header and index were read.
#[derive(Debug)]
pub(super) struct Object {
    pub id: ObjectId,
    pub info: FileInfo,
    pub etag: ETag,
    pub header: Header,
}
