//! The calling thread asks for an interruption while other threads work.
//!
//! A thread that is inside a request cannot be stopped; it is left to end by itself, and whoever interrupted goes on at
//! once. So what such threads need is owned by them.

use crate::error::{Error, Kind, Result};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// How often `cancelled` is asked.
const INTERVAL: Duration = Duration::from_millis(20);

/// Asked on the calling thread; true ends the work with [`Kind::Interrupted`].
pub(super) type Cancelled<'a> = &'a dyn Fn() -> bool;

/// Runs `work` on a thread of its own and waits for it.
pub(super) fn run<T: Send + 'static>(
    cancelled: Cancelled<'_>,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (sender, receiver) = crossbeam_channel::bounded(1);
    let _thread = crate::thread::start("restore", move || {
        // Nobody waits any more after an interruption.
        let _ = sender.send(work());
    })?;
    wait(cancelled, &receiver)?.unwrap_or_else(|| Err(Error::bug("a thread of a restore panicked")))
}

/// Waits for a message; `None` once all senders are gone.
pub(super) fn wait<T>(cancelled: Cancelled<'_>, receiver: &Receiver<T>) -> Result<Option<T>> {
    loop {
        if cancelled() {
            return Err(Error::new(Kind::Interrupted, "interrupted"));
        }
        match receiver.recv_timeout(INTERVAL) {
            Ok(message) => return Ok(Some(message)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
        }
    }
}
