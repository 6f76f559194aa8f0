//! Restores a state of a replica into a new database file.
//!
//! The pages go into a temporary file beside the target, which is synced before it takes the target's name; until then
//! the target is untouched, and whatever fails leaves nothing behind.

mod output;
mod replace;
mod temporary;

use super::apply::{PageSink, Shape, apply};
use super::attempts::with_plans;
use super::poll::{self, Cancelled};
use super::{FileInfo, Replica, Target};
use crate::error::Result;
use crate::ltx::{PageSize, Txid};
use crate::time::Timestamp;
use output::Output;
use std::path::Path;
use std::sync::Arc;
use temporary::Temporary;

/// Checks a database file; an error says what is wrong with it.
pub type IntegrityCheck<'a> = &'a dyn Fn(&Path) -> Result<()>;

/// How to restore.
#[derive(Clone, Copy, Default)]
pub struct Options<'a> {
    /// Replaces an existing database, with its WAL, journal, shared memory and metadata directory.
    pub force: bool,
    /// Only says what would be done; writes nothing.
    pub dry_run: bool,
    /// Called with the finished temporary file before it takes its name: an error ends the restore. Files that SQLite
    /// leaves beside it are removed.
    pub integrity_check: Option<IntegrityCheck<'a>>,
}

/// What was restored, or would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The state.
    pub txid: Txid,
    /// Of the last file applied.
    pub timestamp: Timestamp,
    /// Of the database.
    pub page_size: PageSize,
    /// The database's size in pages.
    pub pages: u32,
    /// The files applied, in that order.
    pub files: Vec<FileInfo>,
    /// Their sizes together, in bytes.
    pub bytes: u64,
}

/// Restores the target's state to `path`. `cancelled` is asked on the calling thread, at least every 50 ms.
///
/// # Errors
/// [`Kind::Conflict`](crate::error::Kind::Conflict) if something is at `path`, without `force`;
/// [`Kind::NotFound`](crate::error::Kind::NotFound) if the replica does not have the state;
/// [`Kind::Corrupt`](crate::error::Kind::Corrupt) if a file is damaged that no other one replaces, naming it and its
/// TXIDs; [`Kind::Interrupted`](crate::error::Kind::Interrupted); those of the store and of the local file system.
pub fn restore(
    replica: &Replica,
    target: Target,
    path: &Path,
    options: Options<'_>,
    cancelled: Cancelled<'_>,
) -> Result<Restored> {
    let output = Output::new(path, options.force)?;
    with_plans(replica, target, cancelled, |plan, header| {
        let shape = Shape::of(plan, header)?;
        if !options.dry_run {
            let temporary = Temporary::create(output.path(), shape)?;
            apply(replica, plan, shape, temporary.sink() as Arc<dyn PageSink>, cancelled)?;
            let file = temporary.sink();
            poll::run(cancelled, move || file.sync())?;
            if let Some(check) = options.integrity_check {
                check(temporary.path())?;
            }
            output.publish(temporary)?;
        }
        Ok(Restored {
            txid: plan.txid(),
            timestamp: header.timestamp,
            page_size: shape.page_size,
            pages: shape.commit,
            files: plan.files().to_vec(),
            bytes: plan.bytes(),
        })
    })
}
