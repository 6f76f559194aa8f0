//! What a replica holds: its files, sorted by us.

use crate::ltx::{Level, Txid, TxidRange};
use crate::replica::Layout;
use crate::store::{ETag, Entry};
use crate::time::Timestamp;

/// One LTX file of a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// 0 as shipped, 1 to 8 compacted, 9 snapshots.
    pub level: Level,
    /// The TXIDs that its name says it covers.
    pub txids: TxidRange,
    /// In bytes.
    pub size: u64,
    /// The store's own time of the object. On `file://` the mtime, which Litestream sets to the header's timestamp; on
    /// S3 LastModified, the time of the upload. Restoring by time reads the header instead.
    pub created_at: Timestamp,
    /// Relative to the replica's URL.
    pub key: String,
    /// Where the listing has it.
    pub etag: Option<ETag>,
}

/// The files of a replica at one moment, sorted by level, then first, then last TXID. The order in which a store lists
/// is never relied on (R4).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    files: Vec<FileInfo>,
}

impl Listing {
    /// Takes what is an LTX file by its name; anything else is none of our business.
    pub fn from_entries(layout: Layout, entries: impl IntoIterator<Item = Entry>) -> Self {
        let files = entries.into_iter().filter_map(|entry| {
            let (level, txids) = layout.parse(&entry.key)?;
            let Entry { key, size, modified, etag } = entry;
            Some(FileInfo { level, txids, size, created_at: modified, key, etag })
        });
        Self::from_files(files.collect())
    }

    /// Sorts.
    pub(super) fn from_files(mut files: Vec<FileInfo>) -> Self {
        files.sort_by_key(|file| (file.level, file.txids));
        Self { files }
    }

    /// All files, by level, then first, then last TXID.
    pub fn files(&self) -> &[FileInfo] {
        &self.files
    }

    /// The files of one level, by first, then last TXID.
    pub fn level(&self, level: Level) -> &[FileInfo] {
        let start = self.files.partition_point(|file| file.level < level);
        let end = self.files.partition_point(|file| file.level <= level);
        self.files.get(start..end).unwrap_or_default()
    }

    /// The largest TXID at any level (P17); `None` for an empty replica.
    pub fn head(&self) -> Option<Txid> {
        self.files.iter().map(|file| file.txids.max).max()
    }

    /// Whether there is no LTX file at all.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The file with this key, if it is listed.
    pub fn find(&self, key: &str) -> Option<&FileInfo> {
        self.files.iter().find(|file| file.key == key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str) -> Entry {
        Entry { key: key.to_owned(), size: 1, modified: Timestamp(0), etag: None }
    }

    /// R4: the store's order is not relied on, and other names are passed over.
    #[test]
    fn sorted_by_us_foreign_names_ignored() {
        let listing = Listing::from_entries(
            Layout::Plain,
            [
                entry("ltx/9/0000000000000001-0000000000000002.ltx"),
                entry("ltx/0/0000000000000003-0000000000000003.ltx"),
                entry("ltx/0/0000000000000004-0000000000000004.ltx.tmp"),
                entry("ltx/0/0000000000000002-0000000000000002.ltx"),
                entry("ltx/readme.txt"),
            ],
        );
        let keys: Vec<_> = listing.files().iter().map(|file| file.key.as_str()).collect();
        assert_eq!(
            keys,
            [
                "ltx/0/0000000000000002-0000000000000002.ltx",
                "ltx/0/0000000000000003-0000000000000003.ltx",
                "ltx/9/0000000000000001-0000000000000002.ltx",
            ]
        );
        assert_eq!(listing.head(), Txid::new(3));
        assert_eq!(listing.level(Level::L0).len(), 2);
        assert_eq!(listing.level(Level::SNAPSHOT).len(), 1);
        assert!(listing.level(Level::new(1).unwrap()).is_empty());
        assert_eq!(Listing::default().head(), None);
    }
}
