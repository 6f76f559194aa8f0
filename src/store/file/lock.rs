//! The lock of a directory of the store: held while an object is replaced, removed, or created together with its pairs.
//!
//! A POSIX record lock on `.lock`, which a forked child does not inherit and which network file systems keep. It holds
//! between processes only, and closing any descriptor of the file gives it up; so threads of this process are kept
//! apart by a mutex, chosen by the file's inode, and the descriptor is closed before that mutex is released.

use crate::error::{Error, Kind, Result};
use crate::lock::{Mutex, MutexGuard, PerProcess};
use rustix::fs::{FlockOperation, fcntl_lock};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// The file's name, in each directory where it was needed.
pub(super) const NAME: &str = ".lock";
/// The holder does local I/O only; one that is longer is stopped or dead on another machine.
const WAIT_MAX: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// One for each remainder of an inode.
struct Threads([Mutex<()>; 64]);

impl Default for Threads {
    fn default() -> Self {
        Self([const { Mutex::new(()) }; 64])
    }
}

static THREADS: PerProcess<Threads> = PerProcess::new();

/// Held until dropped. The fields are dropped in this order: the descriptor, then the mutex.
pub(super) struct DirectoryLock {
    _file: File,
    _thread: Option<MutexGuard<'static, ()>>,
}

impl DirectoryLock {
    /// Takes the lock of `dir`, which exists. Waits for at most 30 s, then says [`Kind::Busy`].
    pub(super) fn take(dir: &Path) -> Result<Self> {
        let path = dir.join(NAME);
        let busy = || Error::new(Kind::Busy, format!("{} has been held for 30 s by another writer", path.display()));
        let deadline = Instant::now() + WAIT_MAX;
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|e| super::failed("open", &path, &e))?;
        let inode = file.metadata().map_err(|e| super::failed("stat", &path, &e))?.ino();
        let threads = &THREADS.get().0;
        let thread = match threads.get((inode % threads.len() as u64) as usize) {
            Some(mutex) => {
                Some(mutex.try_lock_for(deadline.saturating_duration_since(Instant::now())).ok_or_else(busy)?)
            }
            None => None,
        };
        let lock = Self { _file: file, _thread: thread };
        loop {
            match fcntl_lock(&lock._file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(lock),
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) if Instant::now() < deadline => {
                    std::thread::sleep(POLL_INTERVAL);
                }
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => return Err(busy()),
                Err(errno) => return Err(super::failed("lock", &path, &errno.into())),
            }
        }
    }
}
