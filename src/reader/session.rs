//! Whether the primary is alive, for who asks (P28): looked for when `litestream_status` is read, and never else.

use super::flight::shared;
use super::source::Source;
use crate::replica::session::{Sign, age, last_sign};
use crate::time::Timestamp;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What was found holds for so long, so that who asks all the time costs little.
const FRESH: Duration = Duration::from_secs(5);
/// A store that does not answer holds the status up for no longer.
const ANSWER: Duration = Duration::from_secs(2);
/// Who gives no signs, and has shipped something so lately, is alive.
const NEWS: Duration = Duration::from_secs(30);

/// What was found, or that nothing was, and when; and whether somebody looks.
#[derive(Default)]
pub(super) struct Looks {
    found: Option<(Option<Sign>, Instant)>,
    is_looking: bool,
}

/// Looks for the primaries of these replicas, at a time, each once in [`FRESH`].
pub(super) fn look_all(mut sources: Vec<Arc<Source>>) {
    sources.sort_unstable_by_key(Arc::as_ptr);
    sources.dedup_by(|one, other| Arc::ptr_eq(one, other));
    let (done, all_done) = crossbeam_channel::bounded::<()>(0);
    for source in sources {
        let mut looks = source.looks.lock();
        if looks.is_looking || looks.found.is_some_and(|(_, at)| at.elapsed() < FRESH) {
            continue;
        }
        // Whoever asks again and again does not wait each time for a store that has not answered.
        let waits = !matches!(looks.found, Some((None, _)));
        looks.is_looking = true;
        drop(looks);
        let (done, weak) = (waits.then(|| done.clone()), Arc::downgrade(&source));
        let look = move || {
            let _until_the_end = done;
            let Some(source) = weak.upgrade() else { return };
            let sign = crate::panic::guard(|| last_sign(source.replica.store())).and_then(|sign| sign);
            let sign = sign.inspect_err(|error| log::warn!("{}: the primary's session: {error}", source.url)).ok();
            *source.looks.lock() = Looks { found: Some((sign, Instant::now())), is_looking: false };
        };
        if let Err(error) = shared().looks.run_at(Instant::now(), look) {
            log::warn!("{error}");
            source.looks.lock().is_looking = false;
        }
    }
    drop(done);
    // Nothing is sent: it ends with the last look.
    let _ = all_done.recv_timeout(ANSWER);
}

impl Source {
    fn sign(&self) -> Option<Sign> {
        let (sign, at) = self.looks.lock().found?;
        sign.filter(|_| at.elapsed() < FRESH + ANSWER)
    }

    /// 'alive', 'dead' or 'stopped', and how long ago the primary was seen; `now` is the store's.
    pub fn primary(&self, now: Timestamp) -> (Option<&'static str>, Option<Duration>) {
        let news = self.current.read().as_ref().map(|state| state.newest.info.created_at);
        seen(self.sign(), news, now)
    }
}

/// From the sign and the time of the newest object.
fn seen(sign: Option<Sign>, news: Option<Timestamp>, now: Timestamp) -> (Option<&'static str>, Option<Duration>) {
    let told = match sign {
        Some(Sign::Stopped(at)) => Some(at),
        Some(Sign::Session(renewed, _)) => renewed,
        None | Some(Sign::None) => None,
    };
    let last = news.max(told).map(|last| age(now, last));
    let is_within = |span| last.is_some_and(|last| last < span);
    let state = match sign {
        Some(Sign::Stopped(at)) if news.is_none_or(|news| news <= at) => Some("stopped"),
        Some(Sign::Session(_, ttl)) => Some(if is_within(ttl) { "alive" } else { "dead" }),
        _ if is_within(NEWS) => Some("alive"),
        Some(Sign::Stopped(_)) => Some("stopped"),
        None | Some(Sign::None) => None,
    };
    (state, last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p28_alive_dead_stopped_or_not_known() {
        let at = |seconds: i64| Timestamp(seconds * 1000);
        let session = |renewed: i64| Some(Sign::Session(Some(at(renewed)), Duration::from_secs(30)));
        let gone = Some(Sign::Session(None, Duration::from_secs(30)));
        for (sign, news, state, last) in [
            (session(995), 1, Some("alive"), 5),
            (session(965), 1, Some("dead"), 35),
            (session(965), 990, Some("alive"), 10),
            (gone, 1, Some("dead"), 999),
            (gone, 999, Some("alive"), 1),
            (Some(Sign::Stopped(at(900))), 899, Some("stopped"), 100),
            // Another one goes on.
            (Some(Sign::Stopped(at(900))), 990, Some("alive"), 10),
            (Some(Sign::Stopped(at(900))), 920, Some("stopped"), 80),
            (Some(Sign::None), 1, None, 999),
            (Some(Sign::None), 980, Some("alive"), 20),
            (None, 1, None, 999),
            // Its clock is ahead.
            (session(1005), 1, Some("alive"), 0),
        ] {
            let expected = (state, Some(Duration::from_secs(last)));
            assert_eq!(seen(sign, Some(at(news)), at(1000)), expected, "{sign:?} {news}");
        }
        assert_eq!(seen(None, None, at(1000)), (None, None));
    }
}
