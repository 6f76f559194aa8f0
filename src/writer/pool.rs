//! The fixed number of threads that run the tasks of all databases (DESIGN: idle databases cost no wake-ups).
//!
//! A task is a closure that is due at a moment. Threads start with the first task, sleep until something is due, and
//! live as long as the process: a thread of a library that cannot be unloaded needs no end. A forked child has none of
//! them, and makes its own pool if it needs one.

use crate::lock::{Condvar, Mutex};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Instant;

type Body = Box<dyn FnOnce() + Send>;

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
pub(super) struct Pool {
    name: &'static str,
    limit: usize,
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Pool {
    /// At most `limit` threads. None is started yet.
    pub(super) fn new(name: &'static str, limit: usize) -> Arc<Self> {
        Arc::new(Self { name, limit, queue: Mutex::default(), changed: Condvar::new() })
    }

    /// Runs `body` on a thread of the pool, not before `due`.
    pub(super) fn run_at(self: &Arc<Self>, due: Instant, body: impl FnOnce() + Send + 'static) {
        let mut queue = self.queue.lock();
        queue.order += 1;
        let task = Task { due, order: queue.order, body: Box::new(body) };
        queue.tasks.push(Reverse(task));
        if queue.threads < self.limit && queue.idle < queue.tasks.len() {
            let pool = Arc::clone(self);
            match crate::thread::start(self.name, move || pool.work()) {
                Ok(_) => queue.threads += 1,
                Err(error) => log::error!("no thread could be started: {error}"),
            }
        }
        drop(queue);
        self.changed.notify_one();
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
                Some(due) => {
                    queue.idle += 1;
                    self.changed.wait_until(&mut queue, due);
                    queue.idle -= 1;
                }
                None => {
                    queue.idle += 1;
                    self.changed.wait(&mut queue);
                    queue.idle -= 1;
                }
            }
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
            pool.run_at(now + Duration::from_millis(delay), move || send.send(name).unwrap());
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
            pool.run_at(Instant::now(), move || send.send((n, std::thread::current().id())).unwrap());
        }
        let threads: std::collections::HashSet<_> = receive.iter().take(50).map(|(_, thread)| thread).collect();
        assert!(threads.len() <= 2);
    }
}
