//! Whether neighbours in a chain are of one history, by what our objects say of themselves (R2, R3): the database's
//! rolling checksum before and after, and times that never go back (P22). Litestream's say neither.

use crate::error::{Error, Kind, Result};
use crate::ltx::Header;
use crate::replica::{FileInfo, NODE, ROLLING_AFTER, ROLLING_BEFORE};

/// What the metadata of an object says of what it joins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Joint {
    /// The database's rolling checksum before it, and after.
    pub before: Option<u64>,
    /// See `before`. A first image has none: it is streamed.
    pub after: Option<u64>,
    is_ours: bool,
}

impl Joint {
    /// From the pairs of an object's metadata. What is not a checksum counts as none.
    pub fn of(pairs: &[(String, String)]) -> Self {
        let value = |name| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value);
        let sum = |name| u64::from_str_radix(value(name)?, 16).ok();
        Self { before: sum(ROLLING_BEFORE), after: sum(ROLLING_AFTER), is_ours: value(NODE).is_some() }
    }

    /// Whether `next` goes on from here; `None` where the checksums do not tell.
    pub fn joins(&self, next: &Self) -> Option<bool> {
        Some(self.after? == next.before?)
    }
}

/// What was read of a file of a plan.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// Its header.
    pub header: Header,
    /// Of its metadata.
    pub joint: Joint,
}

/// Refuses two files of a plan, one behind the other, that are of two histories.
///
/// # Errors
/// [`Kind::Diverged`], naming both.
pub fn refuse_unjoined((left, older): (&FileInfo, &Link), (right, newer): (&FileInfo, &Link)) -> Result<()> {
    if older.header.txids.max.next() != newer.header.txids.min {
        return Ok(());
    }
    let went_back = || {
        let are_ours = older.joint.is_ours && newer.joint.is_ours;
        are_ours && newer.header.timestamp < older.header.timestamp
    };
    let why = match older.joint.joins(&newer.joint) {
        Some(false) => "by its checksum it goes on from another state".to_owned(),
        None if went_back() => {
            format!("it is of {}, and what it follows of {}", newer.header.timestamp, older.header.timestamp)
        }
        _ => return Ok(()),
    };
    Err(Error::new(
        Kind::Diverged,
        format!(
            "two histories lie here: {} (TXIDs {}) does not follow {} (TXIDs {}): {why}. Move the files of one history \
             away, or take a state up to TXID {}",
            right.key, right.txids, left.key, left.txids, left.txids.max
        ),
    ))
}
