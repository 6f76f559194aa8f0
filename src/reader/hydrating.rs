//! Hydration goes on (R13): which pages are copied in which order, and the thread that does it as long as somebody reads.

use super::hydrate::{Failed, Hydration};
use super::index::Frame;
use super::source::Source;
use super::state::{Place, State};
use crate::config::Hydrate;
use crate::error::{Error, Kind, Result};
use crate::ltx::Pgno;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// How often the thread looks whether it is still wanted.
const LOOKS: Duration = Duration::from_millis(500);
/// A failure is followed by so long a pause, the next one by twice that, up to the longest.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The frames of a state, in the order of objects and offsets.
pub(super) fn frames(source: &Source, state: &State) -> std::result::Result<Vec<Frame>, Failed> {
    // Of each index a block at most; what another reader pushes out meanwhile is read again.
    let blocks_max = state.blocks_for_a_page();
    let mut frames = Vec::new();
    for pgno in (1..=state.commit).filter_map(Pgno::new) {
        let mut blocks_read = 0;
        loop {
            let error = match state.find_stored(pgno) {
                Place::At(frame) => {
                    frames.push(frame);
                    break;
                }
                Place::Zeros => break,
                Place::Unread(index, block) if blocks_read < blocks_max => {
                    blocks_read += 1;
                    match index.read(source.replica.store().as_ref(), block) {
                        Ok(()) => continue,
                        Err(error) => error,
                    }
                }
                Place::Unread(..) => Error::new(Kind::Busy, "no memory is left for the index"),
                Place::Nowhere => Error::corrupt(format!("page {pgno} of TXID {} is in no file", state.txid)),
            };
            return Err(Failed { error, pgno: Some(pgno) });
        }
    }
    frames.sort_unstable_by_key(|frame| (*frame.object.id.bytes(), frame.offset, frame.pgno));
    Ok(frames)
}

impl Source {
    /// Starts copying, once per replica and process. `state`: where to begin. `is_shared`: others read the replica, too,
    /// so that a copy in another place is theirs.
    pub fn start_hydrating(self: &Arc<Self>, wanted: &Hydrate, state: &Arc<State>, is_shared: bool) -> Result<()> {
        // Not under the lock that every read takes: the file may be another one's for a while.
        let _one_at_a_time = self.hydrating.lock();
        let there = self.hydration.read().clone();
        let other =
            wanted.path.as_deref().filter(|path| there.as_ref().is_some_and(|there| there.named() != Some(path)));
        match (there, other) {
            (Some(_), None) => return Ok(()),
            (Some(there), Some(path)) if is_shared => {
                let (path, there) = (path.display(), there.path().display());
                self.note(&Error::invalid(format!(
                    "hydrate to {path}: another connection of this process has it hydrated to {there}, which serves both"
                )));
                return Ok(());
            }
            _ => *self.hydration.write() = None,
        }
        let hydration = Arc::new(Hydration::open(wanted, state)?);
        let (source, state, copied) = (Arc::downgrade(self), Arc::downgrade(state), Arc::downgrade(&hydration));
        *self.hydration.write() = Some(hydration);
        let started = crate::thread::start("hydrate", move || {
            let _ = crate::panic::guard(|| hydrate(&source, &state, &copied));
        });
        started.map(|_| ()).inspect_err(|_| *self.hydration.write() = None)
    }

    fn was_restarted(&self) -> bool {
        self.follow.lock().restarted.is_some()
    }

    /// The same state by other files, for all who follow, after the copy found one gone or damaged.
    pub fn copied_elsewhere(self: &Arc<Self>, state: &State, failed: &Failed) -> Option<Arc<State>> {
        if !matches!(failed.error.kind(), Kind::NotFound | Kind::Conflict | Kind::Corrupt) {
            return None;
        }
        let pgno = failed.pgno.unwrap_or(Pgno::FIRST);
        let other = self
            .state_again(state, pgno, &failed.error, &|| false)
            .inspect_err(|error| log::warn!("{}: {error}", self.url))
            .ok()?;
        let mut current = self.current.write();
        if let Some(place) = current.as_mut().filter(|place| place.counter == state.counter) {
            *place = Arc::clone(&other);
        }
        Some(other)
    }
}

/// Follows the newest state, or copies the one that was opened, as long as somebody reads.
fn hydrate(source: &Weak<Source>, opened: &Weak<State>, hydration: &Weak<Hydration>) {
    let mut copied = None;
    // The state that was opened, by other files than it was opened by.
    let mut elsewhere: Option<Arc<State>> = None;
    let (mut pause, mut due) = (PAUSE, Instant::now());
    loop {
        let Some((now, hydration)) = source.upgrade().zip(hydration.upgrade()) else { return };
        if now.was_restarted() {
            // Who opens the replica anew wants the file.
            *now.hydration.write() = None;
            return;
        }
        let state = now.current.read().clone().or_else(|| opened.upgrade());
        elsewhere = elsewhere.filter(|other| state.as_ref().is_some_and(|state| state.counter == other.counter));
        let todo = state.filter(|state| copied != Some(state.counter) && Instant::now() >= due);
        if let Some(state) = todo {
            let is_current = now.current.read().is_some();
            let state = elsewhere.clone().filter(|_| !is_current).unwrap_or(state);
            let is_wanted = || source.strong_count() > 1 && !now.was_restarted();
            match hydration.become_state(&now, &state, &is_wanted) {
                Ok(()) => (copied, pause) = (Some(state.counter), PAUSE),
                Err(failed) if failed.error.kind() == Kind::Interrupted => {}
                Err(failed) => {
                    elsewhere = now.copied_elsewhere(&state, &failed).or(elsewhere);
                    now.note(&failed.error.context(format!("hydrate {}", hydration.path().display())));
                    due = Instant::now() + pause;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        } else if now.current.read().is_some() {
            let mut follow = now.follow.lock();
            now.changed.wait_for(&mut follow, LOOKS);
            continue;
        }
        drop((now, hydration));
        if source.strong_count() == 0 {
            return;
        }
        std::thread::sleep(LOOKS);
    }
}
