//! fork(2) in a host that has one thread, which may fork at any time and use SQLite in the child. Threads of ours must
//! then not be inside a call that holds a mutex of SQLite: the child would find it locked for ever.
//!
//! Of what they call, opening and closing take SQLite's mutexes; reading, syncing and asking for sizes take none. So
//! these two hold a lock of ours, which the fork waits for.

use std::cell::UnsafeCell;
use std::sync::Once;

/// One of the C library: a lock that was taken before the fork can be given back by the child, and has no state beside
/// its own that another thread may have been changing.
struct Lock(UnsafeCell<libc::pthread_mutex_t>);

// SAFETY: a mutex is for many threads.
unsafe impl Sync for Lock {}

static OPENING: Lock = Lock(UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER));

/// Runs `body` while no fork can happen.
pub(super) fn unforked<T>(body: impl FnOnce() -> T) -> T {
    static HANDLERS: Once = Once::new();
    // SAFETY: the handlers are static functions of a library that is never unloaded.
    HANDLERS.call_once(|| unsafe {
        libc::pthread_atfork(Some(before), Some(after), Some(after));
    });
    struct Unlock;
    impl Drop for Unlock {
        fn drop(&mut self) {
            after();
        }
    }
    before();
    let _unlock = Unlock;
    body()
}

extern "C" fn before() {
    // SAFETY: the mutex is initialised, and no thread takes it twice.
    unsafe { libc::pthread_mutex_lock(OPENING.0.get()) };
}

extern "C" fn after() {
    // SAFETY: held by this thread, or by the thread of the parent that this one is the copy of.
    unsafe { libc::pthread_mutex_unlock(OPENING.0.get()) };
}
