//! What a replica is: where its files lie, what it holds, which of them give a state, and restoring that state.
//!
//! Errors name the file and the TXIDs. Which replica it was, the caller puts in front, who also says what was being done.
//!
//! | File | Holds |
//! |---|---|
//! | `layout` | keys |
//! | `listing` | the files of a replica at one moment |
//! | `when` | what users may write for a state |
//! | `plan` | which files give a state |
//! | `moment` | which files are older than a time |
//! | `histories` | two histories under one URL are refused (R3) |
//! | `joint` | whether neighbours of a plan are of one history (R2, R3) |
//! | `apply/` | fetches and decodes the files of a plan, newest page wins, into a `PageSink` |
//! | `companion/` | the index beside a large file, in blocks that are read one by one (R6) |
//! | `attempts` | plans again without files found damaged or gone |
//! | `restore/` | a plan into a new database file |
//! | `session` | signs of life of the primary (P28) |
//! | `sums` | the page checksums of a state, without writing it |
//! | `poll` | the calling thread looks for an interruption while another one works |

mod apply;
mod attempts;
pub mod companion;
mod histories;
mod joint;
mod layout;
mod listing;
mod moment;
mod plan;
mod poll;
mod restore;
pub mod session;
mod sums;
#[cfg(test)]
mod tests;
mod when;

pub use apply::PageSink;
pub use joint::{Joint, refuse_unjoined};
pub use layout::Layout;
pub use listing::{FileInfo, Listing};
pub use plan::{Excluded, Plan};
pub use restore::{IntegrityCheck, Options, Restored, restore};
pub use sums::{Sums, page_checksums};
pub use when::{Target, parse_when};

use crate::error::{Context, Error, Kind, Result};
use crate::ltx::{HEADER_SIZE, Header, Level, Txid};
use crate::store::Store;
use crate::time::Timestamp;
use apply::Limits;
use plan::{Goal, choose};
use std::sync::Arc;

/// The metadata name of the database's rolling checksum before a TXID (P21).
pub const ROLLING_BEFORE: &str = "liblitestream-before";
/// The same after it.
pub const ROLLING_AFTER: &str = "liblitestream-after";

/// A replica in a store.
#[derive(Clone)]
pub struct Replica {
    store: Arc<dyn Store>,
    layout: Layout,
    limits: Limits,
}

impl Replica {
    /// The replica at the store's URL, whose scheme decides the layout.
    pub fn new(store: Arc<dyn Store>) -> Self {
        let layout = Layout::of(store.url());
        let limits = Limits::of(store.url());
        Self { store, layout, limits }
    }

    /// Where it lies.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// How its keys are named.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The URL without credentials, for messages.
    pub fn url(&self) -> &str {
        self.store.url()
    }

    /// The files of all levels. Lower levels are listed first, so that a file that moves up meanwhile is seen twice
    /// rather than never (R4). Object stores list in order of keys, in one request wave (R5); a directory is read in no
    /// order, so there each level is listed by itself.
    ///
    /// # Errors
    /// Those of the store.
    pub fn list(&self) -> Result<Listing> {
        let mut entries = Vec::new();
        if self.url().starts_with("file://") {
            for level in Level::all() {
                entries.extend(self.store.list(&self.layout.level_prefix(level))?);
            }
        } else {
            entries = self.store.list(self.layout.prefix())?;
        }
        Ok(Listing::from_entries(self.layout, entries))
    }

    /// The same, on a thread of its own: `cancelled` is asked on the calling thread, at least every 50 ms.
    ///
    /// # Errors
    /// Those of the store; [`Kind::Interrupted`].
    pub fn list_unless(&self, cancelled: &dyn Fn() -> bool) -> Result<Listing> {
        let replica = self.clone();
        poll::run(cancelled, move || replica.list())
    }

    /// The same, and proof that the store keeps two primaries apart (P29).
    ///
    /// # Errors
    /// Those of the store; [`Kind::Interrupted`].
    pub fn prove_unless(&self, cancelled: &dyn Fn() -> bool) -> Result<Listing> {
        let replica = self.clone();
        poll::run(cancelled, move || {
            let listing = replica.list()?;
            replica.store.prove_conditions()?;
            Ok(listing)
        })
    }

    /// The files that give the target's state.
    ///
    /// # Errors
    /// As [`plan_without`](Self::plan_without).
    pub fn plan(&self, target: Target) -> Result<Plan> {
        self.plan_without(target, &Excluded::new())
    }

    /// The files that give the target's state, without those that are known to be damaged or gone. What is missing
    /// is believed only after a second listing, since a file may move up between two (R4).
    ///
    /// # Errors
    /// [`Kind::NotFound`] if there is nothing, or a gap, or not this TXID; [`Kind::Diverged`] for two histories (R3);
    /// [`Kind::Invalid`] for a replica of Litestream 0.3; those of the store.
    pub fn plan_without(&self, target: Target, excluded: &Excluded) -> Result<Plan> {
        self.listed_plan(target, excluded).map(|(_, plan)| plan)
    }

    /// The same, with the listing that it was chosen from.
    ///
    /// # Errors
    /// As [`plan_without`](Self::plan_without).
    pub fn listed_plan(&self, target: Target, excluded: &Excluded) -> Result<(Listing, Plan)> {
        let first = self.list()?;
        match self.plan_from(&first, target, excluded) {
            Err(error) if error.kind() == Kind::NotFound => {
                let second = self.list()?;
                if second.is_empty() {
                    return Err(self.nothing_there()?);
                }
                let plan = self.plan_from(&second, target, excluded)?;
                Ok((second, plan))
            }
            planned => planned.map(|plan| (first, plan)),
        }
    }

    fn plan_from(&self, listing: &Listing, target: Target, excluded: &Excluded) -> Result<Plan> {
        let plan = match target {
            Target::Latest => choose(listing, Goal::Latest, excluded)?,
            Target::Txid(txid) => choose(listing, Goal::Txid(txid), excluded)?,
            Target::Before(time) => choose(&moment::before(self, listing, time)?, Goal::Furthest, excluded)
                .map_err(|error| self.none_before(listing, time, error))?,
        };
        histories::check(self, listing, &plan)?;
        Ok(plan)
    }

    /// There is no state of before a time: says from when to when there are some.
    fn none_before(&self, listing: &Listing, time: Timestamp, error: Error) -> Error {
        let oldest =
            listing.files().iter().filter(|file| file.txids.min == Txid::FIRST).min_by_key(|file| file.txids.max);
        let newest = listing.files().iter().max_by_key(|file| file.txids.max);
        let of = |file: &FileInfo| {
            self.header(file).map(|header| format!("TXID {} of {}", file.txids.max, header.timestamp))
        };
        let range = oldest.zip(newest).map(|(oldest, newest)| (of(oldest), of(newest)));
        match range {
            Some((Ok(oldest), Ok(newest))) if error.kind() == Kind::NotFound => Error::new(
                Kind::NotFound,
                format!("no state before {time} is there: the oldest is {oldest}, the newest {newest}"),
            ),
            _ => error.context(format!("no state before {time} is there")),
        }
    }

    /// Whether a primary may add to what is listed: it gives a state, and only one (R3). What is missing is believed
    /// only after a second listing (R4).
    ///
    /// # Errors
    /// [`Kind::Diverged`], naming both histories, or what is missing; those of the store.
    pub fn refuse_unsound(&self, listing: &Listing) -> Result<()> {
        let none = Excluded::new();
        if let Ok(plan) = choose(listing, Goal::Latest, &none) {
            return histories::check(self, listing, &plan);
        }
        let second = self.list()?;
        match choose(&second, Goal::Latest, &none) {
            Ok(plan) => histories::check(self, &second, &plan),
            Err(error) => Err(Error::new(
                Kind::Diverged,
                format!(
                    "the replica {} has a hole: {error}. Nothing is added to it: replicate to an empty URL",
                    self.url()
                ),
            )),
        }
    }

    /// Why an empty listing is empty.
    fn nothing_there(&self) -> Result<Error> {
        if self.store.list(layout::GENERATIONS_PREFIX)?.is_empty() {
            return Ok(Error::new(Kind::NotFound, "there is no LTX file: nothing was replicated here"));
        }
        Ok(Error::invalid(
            "this is a replica of Litestream 0.3 (there are generations and no LTX files), which cannot be restored \
             yet; `litestream restore` 0.5 can",
        ))
    }

    /// Reads a file's header, in one ranged GET.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if it is none, or that of another file; [`Kind::NotFound`], [`Kind::Conflict`] and the others
    /// of the store.
    pub fn header(&self, file: &FileInfo) -> Result<Header> {
        let bytes = self.store.get_range(&file.key, 0..HEADER_SIZE as u64, file.etag.as_ref())?;
        parse_header(file, &bytes).with_context(|| file.key.clone())
    }
}

/// A header that is the one the file's name promises.
fn parse_header(file: &FileInfo, bytes: &[u8]) -> Result<Header> {
    let header = Header::parse(bytes)?;
    if header.txids == file.txids {
        return Ok(header);
    }
    Err(Error::corrupt(format!("the header says TXIDs {}", header.txids)))
}
