//! The primary: what is committed becomes LTX files in object storage.
//!
//! | File | Concept |
//! |---|---|
//! | `files` | the database and its WAL, as this layer reads them |
//! | `capture` | from the captured position to the published end: the newest image of each page (P1, P2, P6, P7) |
//! | `position` | how far capture is, and what proves it (P7) |
//! | `batch` | what was captured and is in no LTX file yet |
//! | `image` | a state of the whole database, read while it is written to (P10) |
//! | `sums` | the checksum of each page of the last spooled state (P12, P21) |
//! | `history` | the states that the database went through (P12) |
//! | `spool` | the metadata directory: staged files and the local record |
//! | `phase` | what comes before shipping: the first image, healing a gap (P12) |
//! | `start` | where a primary begins, given the local record and the replica |
//! | `moved` | files that were moved or removed while they are open (P9) |
//! | `put_back` | an older state, or another database, is refused (P12) |
//! | `encode` | a batch becomes the next TXID in the spool |
//! | `merge` | the bound of the spool while the store is away (P18) |
//! | `ship` | the spool becomes objects in the store (P17, P19, P20) |
//! | `behind` | what was shipped is still there (P17) |
//! | `companion` | the index beside a large object, for replicas (R6) |
//! | `primary` | one replicated database: its parts, and starting it |
//! | `told` | what the taps tell it |
//! | `follow` | writers in other processes (P15) |
//! | `checkpoints` | those of other processes, while an image is read |
//! | `notify` | being told that a file was written to |
//! | `handover` | what they are told, where they have the extension (P13) |
//! | `tasks` | what the threads do for it |
//! | `progress` | how far it is, and waiting for it |
//! | `session` | signs of life, for readers (P28) |
//! | `pool` | the fixed number of threads that run the tasks |
//!
//! Architecture invariant: nothing here calls SQLite but through the handles of `files`, and nothing on the commit path
//! does more than to copy 48 bytes and, after quiet, wake a thread.

mod batch;
mod behind;
mod capture;
mod checkpoints;
mod companion;
mod encode;
mod files;
mod follow;
mod handover;
mod history;
mod image;
mod merge;
mod moved;
mod notify;
mod phase;
mod pool;
mod position;
mod primary;
mod progress;
mod put_back;
mod session;
mod ship;
mod spool;
mod start;
mod sums;
mod tasks;
#[cfg(test)]
mod tests;
mod told;

pub use files::{DatabaseFile, Files, SharedIndex, page_size_of};
pub use handover::Handover;
pub use moved::OpenFile;
pub use pool::Pools;
pub use primary::{Parts, Primary, State, Status, prove};
pub use spool::FileIdentity;
