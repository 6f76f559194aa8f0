//! Signals belong to the host: our threads take none (P33).

/// Blocks every signal on the calling thread. Called first on each thread that we start.
pub fn block_all_signals() {
    // SAFETY: the set is initialised by sigfillset before use; both calls only touch this thread and the local set.
    unsafe {
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigfillset(set.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut());
    }
}
