//! Applies a plan: every file is fetched whole, decoded, verified (R7), and each page of the newest file that has it is
//! handed to a sink. Nothing is encoded again, and no page goes through memory twice.
//!
//! Files are taken newest first. Page numbers are claimed in that order, by the page indexes, before anything of an
//! older file is written; so pages can then be decoded and written by all threads in any order, each once. A file of up
//! to [`CHUNK_BYTES`] comes in one request; of a larger one first header, index and trailer come, then its frames in
//! chunks, in parallel. Chunks come before further files, so that few indexes are in memory at a time.
//!
//! Memory: each thread holds a chunk of at most [`CHUNK_BYTES`] and a run of at most [`RUN_BYTES`]; [`EARLY_BYTES_MAX`]
//! for files that came too early; 4 bytes per page of the database for the claims; and the index of the file that is
//! being read, about 30 bytes per page.

mod claims;
mod decode;
mod source;
mod work;

use crate::error::{Error, Result};
use crate::ltx::{Header, PageSize, Pgno};
use crate::replica::poll::{self, Cancelled};
use crate::replica::{Plan, Replica};
use std::sync::Arc;
use work::Work;

/// What is fetched in one request: large enough that latency does not count, small enough to hold one per thread.
const CHUNK_BYTES: u64 = 4 << 20;
/// What is written at once at most.
const RUN_BYTES: usize = 1 << 20;
/// Threads, where each spends its time waiting for answers.
const THREADS_REMOTE: usize = 16;
/// Threads at most, where the data is local and they compute.
const THREADS_LOCAL_MAX: usize = 4;
/// Of files that have come before those newer than they: no thread waits for a slow answer while there is room.
const EARLY_BYTES_MAX: u64 = 8 << 20;
/// No frame of any page size is shorter: 10 bytes in front of the block, and never an empty one.
const FRAME_BYTES_MIN: u64 = 12;

/// How much is in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub chunk_bytes: u64,
    pub threads: usize,
}

impl Limits {
    /// By where the replica lies.
    pub fn of(url: &str) -> Self {
        let local = url.starts_with("file:") || url.starts_with("memory:");
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if local { processors.clamp(2, THREADS_LOCAL_MAX) } else { THREADS_REMOTE };
        Self { chunk_bytes: CHUNK_BYTES, threads }
    }
}

/// Where pages go. Called by several threads at a time, each page once, never the lock page.
pub trait PageSink: Send + Sync {
    /// Consecutive pages from `first` on, whole ones.
    ///
    /// # Errors
    /// End the whole work; a file of the replica is never blamed for them.
    fn write_run(&self, first: Pgno, pages: &[u8]) -> Result<()>;
}

/// The database that a plan gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub page_size: PageSize,
    /// Pages.
    pub commit: u32,
}

impl Shape {
    /// From the header of the plan's last file.
    pub fn of(plan: &Plan, header: &Header) -> Outcome<Self> {
        let commit = u64::from(header.commit);
        // The lock page is in no file. More pages than there can be frames: refused before memory is asked for.
        if commit == 0 || commit > plan.bytes() / FRAME_BYTES_MIN + 1 {
            let bytes = plan.bytes();
            let error =
                Error::corrupt(format!("a database of {commit} pages does not come from files of {bytes} bytes"));
            return Err(Fault::File(plan.files().len().saturating_sub(1), error));
        }
        Ok(Self { page_size: header.page_size, commit: header.commit })
    }

    /// Of the database file, in bytes.
    pub fn bytes(self) -> u64 {
        u64::from(self.commit) * u64::from(self.page_size.get())
    }
}

/// What went wrong: with a file of the plan, which another one may replace, or with anything else.
#[derive(Debug)]
pub(super) enum Fault {
    /// The plan's file at this index.
    File(usize, Error),
    /// No file is to blame.
    Other(Error),
}

/// The result of what may fail because of a file of the plan.
pub(super) type Outcome<T> = std::result::Result<T, Fault>;

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

/// Hands every page of the plan's state to `sink`. On an error some were handed over.
pub(super) fn apply(
    replica: &Replica,
    plan: &Plan,
    shape: Shape,
    sink: Arc<dyn PageSink>,
    cancelled: Cancelled<'_>,
) -> Outcome<()> {
    let work = Arc::new(Work::new(replica.clone(), plan, shape, sink));
    let (alive, ended) = crossbeam_channel::bounded::<()>(0);
    let jobs = (plan.bytes() / replica.limits.chunk_bytes).saturating_add(plan.files().len() as u64);
    for _ in 0..replica.limits.threads.min(usize::try_from(jobs).unwrap_or(usize::MAX)) {
        let (worker, alive) = (Arc::clone(&work), alive.clone());
        let started = crate::thread::start("apply", move || {
            let _until_the_end = alive;
            worker.run();
        });
        if let Err(error) = started {
            work.fail(Fault::Other(error));
            break;
        }
    }
    drop(alive);
    if let Err(interrupted) = poll::wait(cancelled, &ended) {
        work.stop();
        return Err(interrupted.into());
    }
    work.outcome()
}
