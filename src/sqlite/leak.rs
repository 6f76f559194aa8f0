//! Values that live as long as the process, replaced when a forked child finds its parent's.

use std::sync::atomic::{AtomicPtr, Ordering};

/// The value, if there is one.
pub fn leaked<T: Sync>(place: &AtomicPtr<T>) -> Option<&'static T> {
    // SAFETY: only `leak_into` stores here, pointers to leaked boxes, which are never freed.
    unsafe { place.load(Ordering::Acquire).as_ref() }
}

/// Stores a value; a former one stays where it is, since a forked child must not touch it. Of two threads that come at
/// once with the same `former` one wins.
pub fn leak_into<T: Sync>(place: &AtomicPtr<T>, former: Option<&'static T>, value: T) -> &'static T {
    let before = former.map_or(std::ptr::null_mut(), |former| std::ptr::from_ref(former).cast_mut());
    let new = Box::into_raw(Box::new(value));
    match place.compare_exchange(before, new, Ordering::AcqRel, Ordering::Acquire) {
        // SAFETY: a leaked box.
        Ok(_) => unsafe { &*new },
        Err(winner) => {
            // SAFETY: `new` was not stored anywhere; `winner` is a leaked box that another thread stored.
            unsafe {
                drop(Box::from_raw(new));
                &*winner
            }
        }
    }
}
