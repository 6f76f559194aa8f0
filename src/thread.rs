//! Threads of ours, as guests of the host: named, and without its signals (P33).

use crate::error::{Error, Result};
use std::sync::OnceLock;
use std::thread::{Builder, JoinHandle};

static PREPARATION: OnceLock<fn()> = OnceLock::new();

/// What every thread does first. Set once, at load.
pub(crate) fn prepare_with(preparation: fn()) {
    let _ = PREPARATION.set(preparation);
}

/// Called first on a thread that is not started by [`start`].
pub(crate) fn prepare() {
    if let Some(preparation) = PREPARATION.get() {
        preparation();
    }
}

/// Starts a thread.
pub(crate) fn start<T: Send + 'static>(name: &str, body: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    let prepared = move || {
        prepare();
        body()
    };
    Builder::new().name(format!("litestream-{name}")).spawn(prepared).map_err(|e| Error::io("start a thread", &e))
}
