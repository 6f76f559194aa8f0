//! Where the files of a replica lie: `docs/design.md`, directory and key layout.
//!
//! Litestream's S3 and OSS clients write `<level as %04x>/<name>`, all its other clients `ltx/<level>/<name>`, so the
//! two cannot be told from a listing alone: the scheme of the URL decides.

use crate::ltx::{Level, TxidRange};

/// The naming of keys below a replica's URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `ltx/<level>/<min>-<max>.ltx`: `file://` and most others.
    Plain,
    /// `<level as %04x>/<min>-<max>.ltx`: `s3://` and `oss://`.
    S3,
}

impl Layout {
    /// The layout that Litestream uses under a URL of this scheme.
    pub fn of(url: &str) -> Self {
        if url.starts_with("s3://") || url.starts_with("oss://") { Self::S3 } else { Self::Plain }
    }

    /// The key of a file, relative to the URL.
    pub fn key(self, level: Level, txids: TxidRange) -> String {
        format!("{}{}", self.level_prefix(level), txids.file_name())
    }

    /// What all keys of a level begin with.
    pub fn level_prefix(self, level: Level) -> String {
        match self {
            Self::Plain => format!("ltx/{level}/"),
            Self::S3 => format!("{:04x}/", level.get()),
        }
    }

    /// What the keys of all levels begin with, and little else does: on S3 other databases and our own companions may
    /// lie below the same URL, which a listing without a prefix would pay for.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Plain => "ltx/",
            Self::S3 => "000",
        }
    }

    /// Level and TXIDs of a key; `None` for any name that Litestream would not have given.
    pub fn parse(self, key: &str) -> Option<(Level, TxidRange)> {
        let (folder, name) = key.rsplit_once('/')?;
        let txids = TxidRange::parse_file_name(name)?;
        let level = match self {
            Self::Plain => folder.strip_prefix("ltx/")?.parse::<u8>().ok()?,
            Self::S3 => u8::from_str_radix(folder, 16).ok()?,
        };
        let level = Level::new(level)?;
        // Leading zeros, signs and the like parse too; only the one canonical spelling is a file of the replica.
        (self.key(level, txids) == key).then_some((level, txids))
    }
}

/// What begins the keys of a Litestream 0.3 replica.
pub(super) const GENERATIONS_PREFIX: &str = "generations/";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ltx::Txid;

    fn range(min: u64, max: u64) -> TxidRange {
        TxidRange::new(Txid::new(min).unwrap(), Txid::new(max).unwrap()).unwrap()
    }

    #[test]
    fn keys_are_those_of_litestream() {
        let plain = "ltx/9/0000000000000001-00000000000000ff.ltx";
        let s3 = "0009/0000000000000001-00000000000000ff.ltx";
        for (url, key) in [("file:///a", plain), ("s3://bucket/a", s3), ("memory://x", plain), ("oss://b/a", s3)] {
            let layout = Layout::of(url);
            assert_eq!(layout.key(Level::SNAPSHOT, range(1, 255)), key);
            assert_eq!(layout.parse(key), Some((Level::SNAPSHOT, range(1, 255))));
            assert!(key.starts_with(layout.prefix()));
        }
    }

    #[test]
    fn foreign_names_are_not_files() {
        for key in [
            "ltx/0/0000000000000001-0000000000000001.ltx.tmp",
            "ltx/0/0000000000000001-0000000000000001.ltx.meta",
            "ltx/00/0000000000000001-0000000000000001.ltx",
            "ltx/+1/0000000000000001-0000000000000001.ltx",
            "ltx/10/0000000000000001-0000000000000001.ltx",
            "ltx/0/0000000000000002-0000000000000001.ltx",
            "ltx/0/0000000000000000-0000000000000001.ltx",
            "ltx/0/000000000000000A-000000000000000A.ltx",
            "ltx/0/sub/0000000000000001-0000000000000001.ltx",
            "0000/0000000000000001-0000000000000001.ltx",
            "0000000000000001-0000000000000001.ltx",
            "",
        ] {
            assert_eq!(Layout::Plain.parse(key), None, "{key}");
        }
        for key in [
            "ltx/0/0000000000000001-0000000000000001.ltx",
            "000a/0000000000000001-0000000000000001.ltx",
            "0/0000000000000001-0000000000000001.ltx",
            "/0000/0000000000000001-0000000000000001.ltx",
        ] {
            assert_eq!(Layout::S3.parse(key), None, "{key}");
        }
    }
}
