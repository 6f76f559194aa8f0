//! Threads of ours, as guests of the host: named, and without its signals (P33).

use crate::error::{Error, Result};
use std::sync::OnceLock;
use std::thread::{Builder, JoinHandle, ScopedJoinHandle};

/// Calls its argument once, with every signal blocked on the calling thread.
type Blocked = fn(&mut dyn FnMut());

static WITHOUT_SIGNALS: OnceLock<Blocked> = OnceLock::new();

/// How signals are blocked. Set once, at load.
pub(crate) fn block_signals_by(without_signals: Blocked) {
    let _ = WITHOUT_SIGNALS.set(without_signals);
}

/// Starts a thread.
pub(crate) fn start<T: Send + 'static>(name: &str, body: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    spawned(name, |builder| builder.spawn(body))
}

/// Does `there` on a thread of its own, and `here` meanwhile.
pub(crate) fn both<A: Send, B>(
    name: &str,
    there: impl FnOnce() -> Result<A> + Send,
    here: impl FnOnce() -> B,
) -> (Result<A>, B) {
    std::thread::scope(|scope| {
        let started = spawned(name, |builder| builder.spawn_scoped(scope, there));
        let here = here();
        (started.and_then(joined), here)
    })
}

/// What `body` makes of each item, each on a thread of its own, in their order; or the first error.
pub(crate) fn each<I: Send, T: Send>(
    name: &str,
    items: impl IntoIterator<Item = I>,
    body: impl Fn(I) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let body = &body;
    std::thread::scope(|scope| {
        let start = |item| spawned(name, |builder| builder.spawn_scoped(scope, move || body(item)));
        let started: Vec<_> = items.into_iter().map(start).collect();
        started.into_iter().map(|started| started.and_then(joined)).collect()
    })
}

fn joined<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|_| Err(Error::bug("a thread panicked")))
}

/// A new thread has the signal mask of the one that starts it, from its first moment on.
fn spawned<H>(name: &str, spawn: impl FnOnce(Builder) -> std::io::Result<H>) -> Result<H> {
    let builder = Builder::new().name(format!("litestream-{name}"));
    let mut spawn = Some(move || spawn(builder));
    let mut handle = None;
    let mut once = || handle = spawn.take().map(|spawn| spawn());
    match WITHOUT_SIGNALS.get() {
        Some(without_signals) => without_signals(&mut once),
        None => once(),
    }
    let handle = handle.ok_or_else(|| Error::bug("a thread that nobody started"))?;
    handle.map_err(|e| Error::io("start a thread", &e))
}
