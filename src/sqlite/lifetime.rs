//! Whether a connection is open in the process (P33): only then SQLite may be called. After the last one a host may
//! call `sqlite3_shutdown`, so by then our handles are closed, and none is opened until there is a connection again.
//!
//! A connection is counted by one of its functions: SQLite calls the function's destructor when the connection ends.

use super::api::call;
use super::connection::Connection;
use crate::error::{Error, Kind, Result};
use crate::panic::guard;
use sqlite3ext_sys as ffi;
use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

static CONNECTIONS: AtomicUsize = AtomicUsize::new(0);
static HANDLES: AtomicUsize = AtomicUsize::new(0);
static LISTENER: OnceLock<fn(bool)> = OnceLock::new();

/// How long the end of the last connection waits for a call of ours that is under way.
const CALLS_END: Duration = Duration::from_secs(5);

/// Who is told when the first connection is open (`true`) and when the last one ends (`false`). Set once, at load.
pub fn listen(listener: fn(bool)) {
    let _ = LISTENER.set(listener);
}

/// Whether SQLite may be called from a thread of ours.
pub fn has_connections() -> bool {
    CONNECTIONS.load(Ordering::SeqCst) > 0
}

/// Defines a function without arguments that gives a fixed text, and counts the connection by it; `false` if it is there
/// already and cannot be defined anew, since a statement runs.
pub fn define_constant(db: Connection, name: &CStr, text: &'static CStr) -> Result<bool> {
    if CONNECTIONS.fetch_add(1, Ordering::SeqCst) == 0 {
        tell(true);
    }
    let flags = ffi::SQLITE_UTF8 | ffi::SQLITE_DIRECTONLY;
    // SAFETY: the connection is open; the text is static; SQLite calls `ended` once, also if this fails.
    let rc = unsafe {
        let text = text.as_ptr().cast_mut().cast::<c_void>();
        call!(create_function_v2(db.raw(), name.as_ptr(), 0, flags as c_int, text, Some(give), None, None, Some(ended)))
    };
    let name = name.to_string_lossy();
    if rc == ffi::SQLITE_BUSY as c_int {
        let there = db.query(&format!("SELECT {name}()"))?;
        if there.first().is_some_and(|there| there.as_bytes() == text.to_bytes()) {
            return Ok(false);
        }
    }
    if rc == 0 { Ok(true) } else { Err(Error::bug(format!("{name}: SQLite result {rc}"))) }
}

unsafe extern "C" fn give(context: *mut ffi::sqlite3_context, _: c_int, _: *mut *mut ffi::sqlite3_value) {
    // SAFETY: called by SQLite for the function above, whose user data is a static text.
    let _ = guard(|| unsafe {
        let text = call!(user_data(context)).cast();
        call!(result_text(context, text, -1, None));
    });
}

unsafe extern "C" fn ended(_: *mut c_void) {
    if CONNECTIONS.fetch_sub(1, Ordering::SeqCst) != 1 {
        return;
    }
    super::connection::HAS_MUTEXES.store(false, Ordering::Release);
    tell(false);
    let deadline = Instant::now() + CALLS_END;
    while HANDLES.load(Ordering::SeqCst) > 0 && !has_connections() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn tell(open: bool) {
    if let Some(listener) = LISTENER.get() {
        let _ = guard(|| listener(open));
    }
}

thread_local! {
    static UNSEEN: Cell<bool> = const { Cell::new(false) };
}

/// Runs `body`, which opens a connection of ours: it is not the host's, so it has none of our functions and does not
/// count.
pub(super) fn unseen<T>(body: impl FnOnce() -> T) -> T {
    struct Restore;
    impl Drop for Restore {
        fn drop(&mut self) {
            UNSEEN.set(false);
        }
    }
    UNSEEN.set(true);
    let _restore = Restore;
    body()
}

/// Whether the connection that is being opened is ours.
pub(super) fn is_unseen() -> bool {
    UNSEEN.get()
}

/// Held by each handle of ours.
pub(super) struct Ticket(());

impl Ticket {
    /// # Errors
    /// [`Kind::Busy`] without a connection in the process.
    pub(super) fn new() -> Result<Self> {
        // Counted first, so that the end of the last connection sees either the handle or is seen here.
        HANDLES.fetch_add(1, Ordering::SeqCst);
        let ticket = Self(());
        if has_connections() {
            return Ok(ticket);
        }
        Err(Error::new(Kind::Busy, "no connection is open in this process; the next one lets replication go on"))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        HANDLES.fetch_sub(1, Ordering::SeqCst);
    }
}
