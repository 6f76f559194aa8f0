//! Threads that do what is due, a fixed number for each kind of work (DESIGN: idle databases cost no wake-ups).
//!
//! A task is a closure that is due at a moment. Threads start with the first task, sleep until something is due, and end
//! when nothing was for a minute. A forked child has none of them, and makes its own pool if it needs one.

use crate::error::Result;
use crate::lock::{Condvar, Mutex};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A thread that had nothing to do for so long ends.
const IDLE: Duration = Duration::from_secs(60);

type Body = Box<dyn FnOnce() + Send>;
/// Starts a thread of that name.
type StartThread = fn(&str, Body) -> Result<()>;

struct Task {
    due: Instant,
    order: u64,
    body: Body,
}

impl PartialEq for Task {
    fn eq(&self, other: &Self) -> bool {
        (self.due, self.order) == (other.due, other.order)
    }
}
impl Eq for Task {}
impl PartialOrd for Task {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Task {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.order).cmp(&(other.due, other.order))
    }
}

#[derive(Default)]
struct Queue {
    tasks: BinaryHeap<Reverse<Task>>,
    order: u64,
    threads: usize,
    idle: usize,
}

/// Threads and their queue.
pub(crate) struct Pool {
    name: &'static str,
    limit: usize,
    queue: Mutex<Queue>,
    changed: Condvar,
    start: StartThread,
    idle_for: Duration,
}

impl Pool {
    /// At most `limit` threads. None is started yet.
    pub(crate) fn new(name: &'static str, limit: usize) -> Arc<Self> {
        Self::with_start(name, limit, |name, body| crate::thread::start(name, body).map(|_| ()))
    }

    fn with_start(name: &'static str, limit: usize, start: StartThread) -> Arc<Self> {
        Arc::new(Self { name, limit, queue: Mutex::default(), changed: Condvar::new(), start, idle_for: IDLE })
    }

    /// Runs `body` on a thread of the pool, not before `due`.
    ///
    /// # Errors
    /// There is no thread, and none could be started: `body` will not run.
    pub(crate) fn run_at(self: &Arc<Self>, due: Instant, body: impl FnOnce() + Send + 'static) -> Result<()> {
        let mut queue = self.queue.lock();
        if queue.threads < self.limit && queue.idle <= queue.tasks.len() {
            let pool = Arc::clone(self);
            match (self.start)(self.name, Box::new(move || pool.work())) {
                Ok(()) => queue.threads += 1,
                Err(error) if queue.threads == 0 => return Err(error),
                Err(error) => log::warn!("{} threads must do: {error}", queue.threads),
            }
        }
        queue.order += 1;
        let task = Task { due, order: queue.order, body: Box::new(body) };
        queue.tasks.push(Reverse(task));
        drop(queue);
        self.changed.notify_one();
        Ok(())
    }

    fn work(&self) {
        let mut queue = self.queue.lock();
        loop {
            let now = Instant::now();
            match queue.tasks.peek().map(|Reverse(task)| task.due) {
                Some(due) if due <= now => {
                    if let Some(Reverse(task)) = queue.tasks.pop() {
                        crate::lock::MutexGuard::unlocked(&mut queue, task.body);
                    }
                }
                due => {
                    // The last one that waits for a task is woken by nothing else.
                    let enough = now + self.idle_for;
                    let until = due.map_or(enough, |due| if queue.idle == 0 { due } else { due.min(enough) });
                    queue.idle += 1;
                    self.changed.wait_until(&mut queue, until);
                    queue.idle -= 1;
                    let is_needed =
                        queue.tasks.peek().is_some_and(|Reverse(task)| queue.idle == 0 || task.due <= Instant::now());
                    if !is_needed && now.elapsed() >= self.idle_for {
                        queue.threads -= 1;
                        // What woke this one may have been for another one.
                        self.changed.notify_one();
                        return;
                    }
                }
            }
        }
    }
}

/// Without threads: for simulations.
#[cfg(test)]
impl Pool {
    /// When the next task is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.queue.lock().tasks.peek().map(|Reverse(task)| task.due)
    }

    /// Runs the next task here.
    pub(crate) fn run_next(&self) {
        let task = self.queue.lock().tasks.pop();
        if let Some(Reverse(task)) = task {
            (task.body)();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn tasks_run_in_the_order_in_which_they_are_due() {
        let pool = Pool::new("test", 1);
        let (send, receive) = mpsc::channel();
        let now = Instant::now();
        for (delay, name) in [(30, "c"), (20, "b"), (0, "a")] {
            let send = send.clone();
            pool.run_at(now + Duration::from_millis(delay), move || send.send(name).unwrap()).unwrap();
        }
        let order: Vec<_> = receive.iter().take(3).collect();
        assert_eq!(order, ["a", "b", "c"]);
    }

    #[test]
    fn a_pool_starts_no_more_threads_than_its_limit() {
        let pool = Pool::new("test", 2);
        let (send, receive) = mpsc::channel();
        for n in 0..50 {
            let send = send.clone();
            pool.run_at(Instant::now(), move || send.send((n, std::thread::current().id())).unwrap()).unwrap();
        }
        let threads: std::collections::HashSet<_> = receive.iter().take(50).map(|(_, thread)| thread).collect();
        assert!(threads.len() <= 2);
    }

    #[test]
    fn a_thread_without_work_ends_and_another_one_starts() {
        let mut pool = Pool::new("test", 2);
        Arc::get_mut(&mut pool).unwrap().idle_for = Duration::from_millis(5);
        let (send, receive) = mpsc::channel();
        for _ in 0..3 {
            let send = send.clone();
            pool.run_at(Instant::now(), move || send.send(()).unwrap()).unwrap();
            receive.recv_timeout(Duration::from_secs(10)).unwrap();
            while pool.queue.lock().threads > 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Invariant 11: who cannot work says so, and works once it can.
    #[test]
    fn a_thread_that_cannot_be_started_is_an_error_of_who_asks() {
        static MAY: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
        let pool = Pool::with_start("test", 2, |name, body| {
            if MAY.load(std::sync::atomic::Ordering::SeqCst) {
                return crate::thread::start(name, body).map(|_| ());
            }
            Err(crate::error::Error::new(crate::error::Kind::Io, "no threads"))
        });
        assert_eq!(pool.run_at(Instant::now(), || ()).unwrap_err().to_string(), "no threads");
        MAY.store(true, std::sync::atomic::Ordering::SeqCst);
        let (send, receive) = mpsc::channel();
        pool.run_at(Instant::now(), move || send.send(()).unwrap()).unwrap();
        receive.recv_timeout(Duration::from_secs(10)).unwrap();
    }
}
