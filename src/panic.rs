//! No panic reaches the host, and none prints on its stderr.

use crate::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

/// Runs `body`; a panic becomes [`Kind::Bug`](crate::error::Kind::Bug) with its message.
pub(crate) fn guard<T>(body: impl FnOnce() -> T) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(body)).map_err(|payload| {
        let text = payload
            .downcast_ref::<&str>()
            .map(|s| (*s).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "a panic without a message".to_owned());
        Error::bug(text)
    })
}

/// Replaces the hook that prints panics. It is this library's own: a cdylib carries its own copy of std, so a host
/// written in Rust keeps its hook.
pub(crate) fn silence() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(|info| log::error!("{info}"))));
}
