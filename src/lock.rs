//! Locks, and values of the process, that a forked child can use.
//!
//! Those of `parking_lot` keep their waiting threads in one table for the whole process. A thread of the parent that was
//! changing the table at the moment of a fork leaves it locked in the child for ever, and the first wait there hangs.
//! The locks of the standard library have no state beside their own, and a child has its own (P33). What they lack,
//! waiting for a limited time and going on after a panic, is added here.
//!
//! A lock in a static is inherited as it is, perhaps held by a thread that the child does not have. So whatever a process
//! has one of is a [`PerProcess`].

use crossbeam_utils::atomic::AtomicCell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{self, PoisonError};
use std::time::{Duration, Instant};

/// How long a thread that locks without a limit gives way to those that have one, and how often it looks.
const GIVES_WAY: Duration = Duration::from_millis(1);
const GIVES_WAY_STEP: Duration = Duration::from_micros(50);
/// A wait with a limit looks at least this often.
const LONGEST_SLEEP: Duration = Duration::from_millis(20);

/// A value that a process has once: made when it is first asked for, and anew in a forked child, which never touches its
/// parent's.
pub(crate) struct PerProcess<T: 'static>(AtomicCell<Place<T>>);

struct Made<T> {
    pid: u32,
    value: T,
}

struct Place<T: 'static>(Option<&'static Made<T>>);

impl<T> Clone for Place<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Place<T> {}
impl<T> PartialEq for Place<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.map(std::ptr::from_ref) == other.0.map(std::ptr::from_ref)
    }
}
impl<T> Eq for Place<T> {}

impl<T: Default + Sync> PerProcess<T> {
    pub(crate) const fn new() -> Self {
        Self(AtomicCell::new(Place(None)))
    }

    pub(crate) fn get(&self) -> &'static T {
        let pid = std::process::id();
        loop {
            let former = self.0.load();
            match former.0 {
                Some(made) if made.pid == pid => return &made.value,
                // Leaked, as the parent's is: it lives as long as the process. Of two threads that come at once, one
                // makes it for nothing.
                _ => {
                    let made: &'static Made<T> = Box::leak(Box::new(Made { pid, value: T::default() }));
                    if self.0.compare_exchange(former, Place(Some(made))).is_ok() {
                        return &made.value;
                    }
                }
            }
        }
    }
}

/// A mutex. A panic of its holder leaves the value as it is.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T> {
    value: sync::Mutex<T>,
    /// Threads that wait with a limit: they come first. One that works in many short steps would starve them.
    waiting: AtomicUsize,
    gate: sync::Mutex<()>,
    freed: sync::Condvar,
}

/// Holds the mutex until it is dropped.
pub(crate) struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    /// `None` only within a method of this module.
    value: Option<sync::MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self {
            value: sync::Mutex::new(value),
            waiting: AtomicUsize::new(0),
            gate: sync::Mutex::new(()),
            freed: sync::Condvar::new(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        if self.waiting.load(Ordering::Relaxed) > 0 {
            let until = Instant::now() + GIVES_WAY;
            while self.waiting.load(Ordering::Relaxed) > 0 && Instant::now() < until {
                std::thread::sleep(GIVES_WAY_STEP);
            }
        }
        self.guard(self.value.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.value.try_lock() {
            Ok(value) => Some(self.guard(value)),
            Err(sync::TryLockError::Poisoned(poisoned)) => Some(self.guard(poisoned.into_inner())),
            Err(sync::TryLockError::WouldBlock) => None,
        }
    }

    /// `None` if it could not be had in time.
    pub(crate) fn try_lock_for(&self, timeout: Duration) -> Option<MutexGuard<'_, T>> {
        if let Some(guard) = self.try_lock() {
            return Some(guard);
        }
        let deadline = Instant::now() + timeout;
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let outcome = loop {
            // Either this sees the mutex free, or its holder sees that somebody waits, and waits itself for the gate.
            fence(Ordering::SeqCst);
            if let Some(guard) = self.try_lock() {
                break Some(guard);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break None;
            }
            let slept = self.freed.wait_timeout(gate, left.min(LONGEST_SLEEP));
            gate = slept.unwrap_or_else(PoisonError::into_inner).0;
        };
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        outcome
    }

    fn guard<'a>(&'a self, value: sync::MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        MutexGuard { mutex: self, value: Some(value) }
    }

    /// The value was given back.
    fn tell(&self) {
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            drop(self.gate.lock());
            self.freed.notify_all();
        }
    }
}

impl<T> MutexGuard<'_, T> {
    /// Gives the mutex back while `body` runs.
    pub(crate) fn unlocked<U>(guard: &mut Self, body: impl FnOnce() -> U) -> U {
        guard.value = None;
        guard.mutex.tell();
        // Also after a panic: whoever has the guard has the mutex.
        struct Relock<'g, 'a, T>(&'g mut MutexGuard<'a, T>);
        impl<T> Drop for Relock<'_, '_, T> {
            fn drop(&mut self) {
                self.0.value = self.0.mutex.lock().value.take();
            }
        }
        let _relock = Relock(guard);
        body()
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        if self.value.take().is_some() {
            self.mutex.tell();
        }
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    #[expect(clippy::expect_used, reason = "the value is absent only within a method of this module")]
    fn deref(&self) -> &T {
        self.value.as_ref().expect("BUG: a guard without its mutex")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    #[expect(clippy::expect_used, reason = "as in deref")]
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("BUG: a guard without its mutex")
    }
}

/// A condition to wait for, with a [`Mutex`] that nobody waits for with a limit: the start of a wait tells nobody.
#[derive(Debug, Default)]
pub(crate) struct Condvar(sync::Condvar);

impl Condvar {
    pub(crate) const fn new() -> Self {
        Self(sync::Condvar::new())
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }

    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        if let Some(value) = guard.value.take() {
            guard.value = Some(self.0.wait(value).unwrap_or_else(PoisonError::into_inner));
        }
    }

    pub(crate) fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, timeout: Duration) {
        if let Some(value) = guard.value.take() {
            guard.value = Some(self.0.wait_timeout(value, timeout).unwrap_or_else(PoisonError::into_inner).0);
        }
    }

    pub(crate) fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, deadline: Instant) {
        self.wait_for(guard, deadline.saturating_duration_since(Instant::now()));
    }
}

/// A lock for many readers or one writer.
#[derive(Debug, Default)]
pub(crate) struct RwLock<T>(sync::RwLock<T>);

impl<T> RwLock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(sync::RwLock::new(value))
    }

    pub(crate) fn read(&self) -> sync::RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> sync::RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn a_wait_with_a_limit_ends_at_it_or_with_the_lock() {
        let mutex = Arc::new(Mutex::new(0));
        let held = mutex.lock();
        assert!(mutex.try_lock().is_none());
        assert!(mutex.try_lock_for(Duration::from_millis(5)).is_none());
        let other = Arc::clone(&mutex);
        let waits =
            std::thread::spawn(move || other.try_lock_for(Duration::from_secs(60)).map(|mut value| *value += 1));
        drop(held);
        assert_eq!(waits.join().unwrap(), Some(()));
        assert_eq!(*mutex.lock(), 1);
    }

    #[test]
    fn a_thread_of_many_short_steps_does_not_starve_one_that_waits_with_a_limit() {
        let mutex = Arc::new(Mutex::new(()));
        let ended = Arc::new(AtomicBool::new(false));
        let worker = {
            let (mutex, ended) = (Arc::clone(&mutex), Arc::clone(&ended));
            std::thread::spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    let _step = mutex.lock();
                    std::thread::sleep(Duration::from_micros(100));
                }
            })
        };
        let got = (0..100).filter(|_| mutex.try_lock_for(Duration::from_secs(60)).is_some()).count();
        ended.store(true, Ordering::Relaxed);
        worker.join().unwrap();
        assert_eq!(got, 100);
    }

    #[test]
    fn a_holder_that_panics_leaves_a_usable_lock() {
        let mutex = Arc::new(Mutex::new(1));
        let other = Arc::clone(&mutex);
        std::thread::spawn(move || {
            let _held = other.lock();
            panic!("of the test");
        })
        .join()
        .unwrap_err();
        assert_eq!(*mutex.lock(), 1);
        assert_eq!(mutex.try_lock_for(Duration::from_millis(1)).map(|v| *v), Some(1));
    }

    #[test]
    fn a_condition_is_waited_for_without_the_lock() {
        let pair = Arc::new((Mutex::new(false), Condvar::new()));
        let other = Arc::clone(&pair);
        let sets = std::thread::spawn(move || {
            *other.0.lock() = true;
            other.1.notify_all();
        });
        let mut ready = pair.0.lock();
        while !*ready {
            pair.1.wait(&mut ready);
        }
        let seen = MutexGuard::unlocked(&mut ready, || pair.0.try_lock().is_some());
        assert!(seen && *ready);
        sets.join().unwrap();
    }
}
