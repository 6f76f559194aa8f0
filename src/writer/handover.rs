//! The state file (P13): what the process that captures tells those that only write.
//!
//! A process with the extension but without a primary reads it at each barrier. If it says that a primary is active, the
//! barrier waits until the file's position is what is published, for a bounded time; what is not captured by then is a
//! gap. So the file is written wherever capture has followed another process's commits.
//!
//! | Bytes | |
//! |---|---|
//! | 0..8 | magic `lstate` 00 01 |
//! | 8..12 | 1 while a connection of the primary's process has the database open, else 0 |
//! | 12..32 | salts, frame and running checksum of the captured position, big-endian; zeros: none |
//!
//! It is not synced, and nothing is proven by it but to who waits: the position names one content of the WAL.

use super::capture::Position;
use super::spool::Spool;
use crate::error::{Context, Result};
use crate::lock::Mutex;
use crate::wal::IndexHeader;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const MAGIC: &[u8; 8] = b"lstate\0\x01";
/// Bytes of the file.
const SIZE: usize = 32;
/// A barrier that waits looks this often.
const LOOK: Duration = Duration::from_millis(1);

type State = [u8; SIZE];

fn path_of(directory: &Path) -> PathBuf {
    directory.join("state")
}

fn encode(active: bool, position: Option<(u32, u32, u32, u32, u32)>) -> State {
    let (salt1, salt2, frame, sum1, sum2) = position.unwrap_or_default();
    let mut state = [0; SIZE];
    state[..8].copy_from_slice(MAGIC);
    for (field, value) in state[8..].chunks_exact_mut(4).zip([u32::from(active), salt1, salt2, frame, sum1, sum2]) {
        field.copy_from_slice(&value.to_be_bytes());
    }
    state
}

/// The writing side, of the primary.
pub(super) struct StateFile {
    directory: PathBuf,
    written: Mutex<Option<(File, State)>>,
}

impl StateFile {
    pub(super) fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), written: Mutex::new(None) }
    }

    /// Tells whether the primary is active, and what is captured. Costs nothing if that is what was told last.
    pub(super) fn tell(&self, active: bool, position: Option<&Position>) -> Result<()> {
        let fields = position.map(|p| (p.salts.0, p.salts.1, p.frame, p.checksum.0, p.checksum.1));
        let state = encode(active, fields);
        let mut written = self.written.lock();
        if written.as_ref().is_some_and(|(_, last)| *last == state) {
            return Ok(());
        }
        let path = path_of(&self.directory);
        let name = || path.display().to_string();
        let file = match written.take() {
            Some((file, _)) => file,
            None => File::options().write(true).create(true).truncate(false).open(&path).with_context(name)?,
        };
        file.write_all_at(&state, 0).with_context(name)?;
        *written = Some((file, state));
        Ok(())
    }
}

/// The waiting side, of a process that has the extension and no primary.
#[derive(Default)]
pub struct Handover {
    /// What the file said when waiting for it was in vain: its primary is gone, or stuck. It is not waited for again
    /// before it has said something else.
    in_vain: Mutex<Option<State>>,
}

impl Handover {
    /// P13: waits until the primary in another process has captured what is published. At once if there is none.
    pub fn wait(&self, database: &Path, published: &IndexHeader, timeout: Duration) {
        let path = path_of(&Spool::directory_of(database));
        let deadline = Instant::now() + timeout;
        while let Some(state) = read(&path) {
            let at = (published.salts.0, published.salts.1, published.max_frame);
            let captured =
                encode(true, Some((at.0, at.1, at.2, published.frame_checksum.0, published.frame_checksum.1)));
            let active = state[..12] == captured[..12];
            if !active || state == captured || published.max_frame == 0 || *self.in_vain.lock() == Some(state) {
                return;
            }
            if Instant::now() >= deadline {
                *self.in_vain.lock() = Some(state);
                return;
            }
            std::thread::sleep(LOOK);
        }
    }
}

fn read(path: &Path) -> Option<State> {
    let mut state = [0; SIZE];
    File::open(path).ok()?.read_exact_at(&mut state, 0).ok()?;
    (state[..8] == MAGIC[..]).then_some(state)
}
