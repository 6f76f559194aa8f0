//! Signals belong to the host: our threads take none (P33).

/// Calls `body` with every signal blocked on the calling thread, so that a thread that it starts never takes one: it
/// inherits the mask. What arrives meanwhile is delivered afterwards.
pub fn without_signals(body: &mut dyn FnMut()) {
    let _restored = Blocked::all();
    body();
}

/// The mask to go back to.
struct Blocked(std::mem::MaybeUninit<libc::sigset_t>);

impl Blocked {
    fn all() -> Self {
        let mut before = std::mem::MaybeUninit::zeroed();
        // SAFETY: the set is initialised by sigfillset before use, the old one is zeroed memory for pthread_sigmask to
        // fill; the calls touch only this thread and these two.
        unsafe {
            let mut all = std::mem::MaybeUninit::uninit();
            libc::sigfillset(all.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        }
        Self(before)
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: the set was filled by pthread_sigmask on this thread, which fails with wrong arguments only.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, self.0.as_ptr(), std::ptr::null_mut()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_blocked(signal: libc::c_int) -> bool {
        let mut mask = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
        // SAFETY: without a new set the call only fills the old one, which is then looked at.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, std::ptr::null(), mask.as_mut_ptr());
            libc::sigismember(mask.as_ptr(), signal) == 1
        }
    }

    /// P33: a thread takes no signal of the host, from its first moment on; who starts it takes them as before.
    #[test]
    fn a_thread_that_is_started_inherits_the_mask() {
        let mut there = None;
        without_signals(&mut || there = std::thread::spawn(|| is_blocked(libc::SIGTERM)).join().ok());
        assert_eq!((there, is_blocked(libc::SIGTERM)), (Some(true), false));
    }
}
