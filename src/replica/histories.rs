//! Two histories under one URL are refused (R3): a database that began again at TXID 1 beside what an earlier one left,
//! from which a restore would mix pages of both.
//!
//! What is certain: a compacted file or a snapshot carries a timestamp no older than that of any file it was made from
//! (Litestream's: the last input's, or the wall clock of the snapshot; ours: that of the last TXID). A file of a lower
//! level, within the TXIDs of a file of the plan, but newer than it, was therefore not among its sources. Timestamps are
//! those of the headers: a listing's are only a reason to look, because uploads may come late, and files be copied.
//! Two histories that have nothing like that left in the listing cannot be told apart here; where there are database
//! checksums, the chain itself tells (R2).

use crate::error::{Error, Kind, Result};
use crate::ltx::Level;
use crate::replica::{FileInfo, Listing, Plan, Replica};
use crate::time::Timestamp;

/// How far a clock may have been set back within one history, in milliseconds.
const CLOCK_SLACK_MS: i64 = 1000;

/// How many pairs of headers are read for one plan at most. Normally none is.
const MAX_PROOFS: usize = 32;

/// Refuses a plan with a file that was replaced by another history.
pub(super) fn check(replica: &Replica, listing: &Listing, plan: &Plan) -> Result<()> {
    let compacted = plan.files().iter().filter(|file| file.level > Level::L0);
    let suspects = compacted.flat_map(|file| newer_within(listing, file).map(move |newer| (file, newer)));
    for (file, newer) in suspects.take(MAX_PROOFS) {
        let (Some(file_time), Some(newer_time)) = (timestamp(replica, file)?, timestamp(replica, newer)?) else {
            continue;
        };
        if is_newer(newer_time, file_time) {
            return Err(two_histories(file, file_time, newer, newer_time));
        }
    }
    Ok(())
}

/// Of each lower level the file within the TXIDs of `file` that is, by the listing, newest and newer than it.
fn newer_within<'a>(listing: &'a Listing, file: &'a FileInfo) -> impl Iterator<Item = &'a FileInfo> {
    Level::all().take_while(|level| *level < file.level).filter_map(|level| {
        let files = listing.level(level);
        let start = files.partition_point(|other| other.txids.min < file.txids.min);
        let within = files.iter().skip(start).take_while(|other| other.txids.min <= file.txids.max);
        let newest = within.filter(|other| other.txids.max <= file.txids.max).max_by_key(|other| other.created_at);
        newest.filter(|newest| is_newer(newest.created_at, file.created_at))
    })
}

fn is_newer(time: Timestamp, than: Timestamp) -> bool {
    time.0.saturating_sub(than.0) > CLOCK_SLACK_MS
}

/// The header's; `None` if the file is damaged or gone, which is for the restore to find out.
fn timestamp(replica: &Replica, file: &FileInfo) -> Result<Option<Timestamp>> {
    match replica.header(file) {
        Ok(header) => Ok(Some(header.timestamp)),
        Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::NotFound | Kind::Conflict) => Ok(None),
        Err(error) => Err(error),
    }
}

fn two_histories(file: &FileInfo, file_time: Timestamp, newer: &FileInfo, newer_time: Timestamp) -> Error {
    let (covered, within) = (file.txids, newer.txids);
    Error::new(
        Kind::Diverged,
        format!(
            "two histories lie here: {} covers TXIDs {covered} as of {file_time}, but {} (TXIDs {within}) is of \
             {newer_time}, later than what should include it; move the files of one history away",
            file.key, newer.key
        ),
    )
}
