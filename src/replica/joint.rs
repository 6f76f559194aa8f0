//! Whether neighbours in a chain are of one history, by what our objects say of themselves (R2, R3): the database's
//! rolling checksum before and after. Litestream's objects, a first image, and what a primary found in its spool when it
//! started do not say it, and join with anything. Times prove nothing: a clock may have been set back.

use crate::error::{Error, Kind, Result};
use crate::ltx::Header;
use crate::replica::{FileInfo, ROLLING_AFTER, ROLLING_BEFORE};
use crate::store::Start;

/// The database's rolling checksum around an object, where its metadata has it (P21).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Joint {
    /// Of the state that it follows.
    pub before: Option<u64>,
    /// Of the state that it makes.
    pub after: Option<u64>,
}

impl Joint {
    /// Of a file of a plan, which is of ours or of another program.
    ///
    /// # Errors
    /// [`Kind::Corrupt`]: it is of ours, and the metadata beside it are of another one. We put them in place together;
    /// what lies over those of a file of ours that never came to be is another program's.
    pub fn of_file(start: &Start, header: &Header) -> Result<Self> {
        if start.has_strays && header.node != 0 {
            return Err(Error::corrupt("the metadata beside it are of another file: one of the two was replaced"));
        }
        Ok(Self::of(&start.pairs))
    }

    /// From the pairs of an object's metadata. What is not a checksum counts as none.
    pub fn of(pairs: &[(String, String)]) -> Self {
        let sum = |name| {
            let (_, value) = pairs.iter().find(|(key, _)| key == name)?;
            u64::from_str_radix(value, 16).ok()
        };
        Self { before: sum(ROLLING_BEFORE), after: sum(ROLLING_AFTER) }
    }
}

/// Refuses two files of a plan, one behind the other, that are of two histories.
///
/// # Errors
/// [`Kind::Diverged`], naming both.
pub fn refuse_unjoined((older, left): (&FileInfo, Joint), (newer, right): (&FileInfo, Joint)) -> Result<()> {
    let are_neighbours = older.txids.max.next() == newer.txids.min;
    match left.after.zip(right.before) {
        Some((after, before)) if are_neighbours && after != before => Err(Error::new(
            Kind::Diverged,
            format!(
                "two histories lie here: {} (TXIDs {}) does not go on from {} (TXIDs {}), by the checksums in their \
                 metadata. Move the files of one history away, or take a state up to TXID {}",
                newer.key, newer.txids, older.key, older.txids, older.txids.max
            ),
        )),
        _ => Ok(()),
    }
}
