//! What is shared by all replicas of the process: the page cache, requests under way, and threads.

use super::cache::{Cache, Page};
use super::copies::Places;
use super::lazy::Block;
use super::object::{ObjectId, PageKey};
use crate::error::{Error, Kind, Result};
use crate::lock::{Condvar, Mutex, PerProcess};
use crate::ltx::Pgno;
use crate::pool::Pool;
use lru::LruCache;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Requests at a time for what somebody waits for, for what nobody asked for yet, and polls. They wait, mostly.
const DEMAND_THREADS: usize = 128;
const AHEAD_THREADS: usize = 48;
const POLL_THREADS: usize = 16;
/// For what `litestream_status` asks of the stores.
const LOOK_THREADS: usize = 8;
/// Memory for blocks of indexes.
const INDEX_BYTES: usize = 64 << 20;
/// How often a waiting thread asks whether it was interrupted.
const INTERVAL: Duration = Duration::from_millis(20);

pub(super) struct Shared {
    pub cache: Cache,
    pub blocks: Blocks,
    pub places: Places,
    pub flights: Mutex<HashMap<PageKey, Arc<Flight>>>,
    pub demand: Arc<Pool>,
    pub ahead: Arc<Pool>,
    pub polls: Arc<Pool>,
    pub looks: Arc<Pool>,
}

static SHARED: PerProcess<Shared> = PerProcess::new();

impl Default for Shared {
    fn default() -> Self {
        Self {
            cache: Cache::default(),
            blocks: Blocks::default(),
            places: Places::default(),
            flights: Mutex::default(),
            demand: Pool::new("read", DEMAND_THREADS),
            ahead: Pool::new("ahead", AHEAD_THREADS),
            polls: Pool::new("follow", POLL_THREADS),
            looks: Pool::new("look", LOOK_THREADS),
        }
    }
}

/// Blocks of indexes, the ones used last, bounded in bytes.
pub(super) struct Blocks(Mutex<(LruCache<BlockKey, Arc<Block>>, usize)>);

/// Which block of which object's index.
type BlockKey = (ObjectId, usize);

impl Default for Blocks {
    fn default() -> Self {
        Self(Mutex::new((LruCache::unbounded(), 0)))
    }
}

impl Blocks {
    pub fn get(&self, key: &BlockKey) -> Option<Arc<Block>> {
        self.0.lock().0.get(key).cloned()
    }

    pub fn has(&self, key: &BlockKey) -> bool {
        self.0.lock().0.contains(key)
    }

    pub fn put(&self, key: BlockKey, block: Arc<Block>) {
        let mut guard = self.0.lock();
        let (blocks, bytes) = &mut *guard;
        *bytes += block.bytes();
        if let Some(former) = blocks.put(key, block) {
            *bytes -= former.bytes();
        }
        while *bytes > INDEX_BYTES {
            let Some((_, least)) = blocks.pop_lru() else { break };
            *bytes -= least.bytes();
        }
    }
}

#[cfg(test)]
pub(super) fn forget_blocks(object: super::object::ObjectId) {
    let mut blocks = shared().blocks.0.lock();
    let keys: Vec<_> = blocks.0.iter().map(|(key, _)| *key).filter(|key| key.0 == object).collect();
    for key in keys {
        if let Some(block) = blocks.0.pop(&key) {
            blocks.1 -= block.bytes();
        }
    }
}

pub(super) fn shared() -> &'static Shared {
    SHARED.get()
}

/// Runs `work` on a thread of the pool and waits for it; an interruption leaves it to end by itself.
pub(super) fn run<T: Send + 'static>(
    cancelled: &dyn Fn() -> bool,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let mut all = run_all(cancelled, [work])?;
    all.pop().unwrap_or_else(|| Err(Error::bug("a task without a result")))
}

/// Runs all at a time, and gives their results in order.
pub(super) fn run_all<T: Send + 'static, W: FnOnce() -> Result<T> + Send + 'static>(
    cancelled: &dyn Fn() -> bool,
    works: impl IntoIterator<Item = W>,
) -> Result<Vec<Result<T>>> {
    let (sender, receiver) = crossbeam_channel::unbounded();
    let mut results = Vec::new();
    for (number, work) in works.into_iter().enumerate() {
        let sender = sender.clone();
        results.push(Err(Error::bug("a reading thread panicked")));
        shared().demand.run_at(Instant::now(), move || {
            let result = crate::panic::guard(work).and_then(|result| result);
            // Nobody waits any more after an interruption.
            let _ = sender.send((number, result));
        })?;
    }
    drop(sender);
    loop {
        if cancelled() {
            return Err(interrupted());
        }
        match receiver.recv_timeout(INTERVAL) {
            Ok((number, result)) => {
                if let Some(place) = results.get_mut(number) {
                    *place = result;
                }
            }
            Err(crossbeam_channel::RecvTimeoutError::Timeout) => {}
            Err(crossbeam_channel::RecvTimeoutError::Disconnected) => return Ok(results),
        }
    }
}

pub(super) fn interrupted() -> Error {
    Error::new(Kind::Interrupted, "interrupted")
}

/// Pages, in order of numbers.
pub(super) type Numbered = Vec<(Pgno, Page)>;
/// Those of one request, for all who wait for it.
pub(super) type Pages = Arc<Numbered>;

/// A request under way, for whoever wants a page of it (R8: one fetch per page, however many ask).
#[derive(Default)]
pub(super) struct Flight {
    outcome: Mutex<Option<Result<Pages>>>,
    landed: Condvar,
}

impl Flight {
    pub fn land(&self, outcome: Result<Pages>) {
        self.outcome.lock().get_or_insert(outcome);
        self.landed.notify_all();
    }

    pub fn wait(&self, cancelled: &dyn Fn() -> bool) -> Result<Pages> {
        let mut outcome = self.outcome.lock();
        loop {
            if let Some(outcome) = &*outcome {
                return outcome.clone();
            }
            self.landed.wait_for(&mut outcome, INTERVAL);
            if outcome.is_none() && crate::lock::MutexGuard::unlocked(&mut outcome, cancelled) {
                return Err(interrupted());
            }
        }
    }
}

/// Until all requests have ended.
#[cfg(test)]
pub(super) fn settle() {
    while !shared().flights.lock().is_empty() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Held by tests that count what is in memory.
#[cfg(test)]
static KEPT: PerProcess<crate::lock::RwLock<()>> = PerProcess::new();

/// Nobody forgets all pages meanwhile.
#[cfg(test)]
pub(super) fn kept_pages() -> impl Drop {
    KEPT.get().read()
}

/// As in a new process.
#[cfg(test)]
pub(super) fn forget_pages() {
    let _alone = KEPT.get().write();
    settle();
    shared().cache.clear();
}
