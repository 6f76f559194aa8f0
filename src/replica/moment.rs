//! Which files are older than a time: the header's timestamp decides, as it does in Litestream.
//!
//! A listing does not tell it: on S3 it gives the time of the upload, and a copied `file://` replica has lost its
//! mtimes. Headers are read only where they matter. In one level timestamps do not decrease from file to file (ours are
//! made so, P22; Litestream's are a wall clock's, the last input's after compaction), so a binary search finds the
//! border: 15 headers for 20,000 files, the levels side by side. Should a clock once have been set back, the border
//! found is still one with an older file before it, which is what was asked for.

use crate::error::{Kind, Result};
use crate::ltx::Level;
use crate::replica::{FileInfo, Listing, Replica};
use crate::time::Timestamp;

/// The files with a timestamp strictly before the given one.
pub(super) fn before(replica: &Replica, listing: &Listing, time: Timestamp) -> Result<Listing> {
    let levels: Vec<&[FileInfo]> = Level::all().map(|level| listing.level(level)).filter(|l| !l.is_empty()).collect();
    let older = crate::thread::each("time", levels, |files| older_in_level(replica, files, time))?;
    Ok(Listing::from_files(older.into_iter().flatten().collect()))
}

fn older_in_level(replica: &Replica, files: &[FileInfo], time: Timestamp) -> Result<Vec<FileInfo>> {
    let mut files = files.to_vec();
    files.sort_by_key(|file| file.txids.max);
    // All before `older` are older than `time`, all from `newer` on are not.
    let (mut older, mut newer) = (0, files.len());
    while older < newer {
        let middle = older.midpoint(newer);
        let Some(file) = files.get(middle) else { break };
        if timestamp(replica, file)? < time {
            older = middle + 1;
        } else {
            newer = middle;
        }
    }
    files.truncate(older);
    Ok(files)
}

/// A file that is damaged or gone keeps its place in the order by the store's time: left out silently, the state
/// restored could be an earlier one than was asked for. Whoever reads it finds the damage, and plans again.
fn timestamp(replica: &Replica, file: &FileInfo) -> Result<Timestamp> {
    match replica.header(file) {
        Ok(header) => Ok(header.timestamp),
        Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::NotFound | Kind::Conflict) => Ok(file.created_at),
        Err(error) => Err(error),
    }
}
