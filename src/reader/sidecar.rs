//! What lies beside a file that a replica is copied into (R13): which state it has, or between which ones it is, and what
//! tells that it is still the file that was left.

use super::index::Frame;
use super::state::State;
use crate::ltx::Pgno;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// States on the way to which a copy may have been broken off, and what it had before is still of use.
const TOWARDS_MAX: usize = 4;

/// The record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Of which replica; a digest.
    pub replica: String,
    pub page_size: u32,
    /// The state that the file has, but for what was written towards others.
    pub has: Option<Mark>,
    /// The states that were being written since, the last one until now. Without `has` there is one at most.
    pub towards: Vec<Mark>,
    /// Of the frames of the last one, in their order, so many from the first on are there.
    pub done: u64,
    /// A digest of these frames: another plan for the same state has others, in another order.
    pub plan: String,
    /// The file, when this was written.
    pub left: Option<Left>,
}

/// What tells that a file is the one that was left, with the same content. Device numbers change at a reboot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Left {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Left {
    fn of(file: &File) -> io::Result<Self> {
        let stat = file.metadata()?;
        Ok(Self {
            inode: stat.ino(),
            size: stat.size(),
            modified: (stat.mtime(), stat.mtime_nsec()),
            changed: (stat.ctime(), stat.ctime_nsec()),
        })
    }
}

impl Record {
    /// Whether nothing was written to the file since.
    pub fn is_of(&self, file: &File) -> bool {
        self.left.is_some() && self.left == Left::of(file).ok()
    }

    pub fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    /// Durable, and after the pages of the file, as which it is left. Gives what was written.
    pub fn write(&self, path: &Path, file: &File) -> io::Result<Self> {
        file.sync_data()?;
        let record = Self { left: Some(Left::of(file)?), ..self.clone() };
        let staged = with_suffix(path, ".tmp");
        let mut staging = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&staged)?;
        staging.write_all(&serde_json::to_vec(&record)?)?;
        staging.sync_all()?;
        fs::rename(&staged, path)?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()?;
        Ok(record)
    }
}

/// Names a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    pub txid: u64,
    pub timestamp: i64,
    pub commit: u32,
}

impl Mark {
    pub fn of(state: &State) -> Self {
        Self { txid: state.txid.get(), timestamp: state.timestamp.0, commit: state.commit }
    }
}

/// What of the record counts until the next one.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub has: Option<Mark>,
    pub towards: Vec<Mark>,
    /// The last state that was whole here.
    pub whole: Option<Mark>,
    /// The record that was written last.
    pub record: Option<Record>,
}

impl Kept {
    /// Before the first page of a state is written.
    pub fn goes_towards(&mut self, mark: Mark) {
        self.towards.retain(|other| *other != mark);
        if self.has.is_none() || self.towards.len() >= TOWARDS_MAX {
            self.has = None;
            self.towards.clear();
        }
        self.towards.push(mark);
    }
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Of objects, and of offsets within one.
pub(super) fn order(frame: &Frame) -> ([u8; 16], u64, Pgno) {
    (*frame.object.id.bytes(), frame.offset, frame.pgno)
}

/// Leaves the frames that are among the others, too; both are in order.
pub(super) fn retain_common(frames: &mut Vec<Frame>, others: &[Frame]) {
    frames.retain(|frame| others.binary_search_by_key(&order(frame), order).is_ok());
}

/// Names frames in an order.
pub(super) fn digest(frames: &[Frame]) -> String {
    let mut digest = Sha256::new();
    for frame in frames {
        digest.update(frame.object.id.bytes());
        digest.update(frame.offset.to_be_bytes());
        digest.update(frame.pgno.get().to_be_bytes());
    }
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
