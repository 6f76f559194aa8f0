//! Following the primary (R9): the next TXID's object is asked for by its name, and nothing is listed as long as that
//! works. One follower per replica and process, none without readers.
//!
//! A file that joins makes the next state (R2): by the rolling checksums of its metadata where both sides have them, by
//! the place in the WAL, else because what it follows is still there; and timestamps do not decrease. A listing is asked for after a pause, after a minute without news, and then
//! at intervals that double: it finds what only compacted files hold, and a replica that was begun again.

use super::flight::shared;
use super::open::tail_of;
use super::source::Source;
use super::state::State;
use crate::error::{Error, Kind, Result};
use crate::ltx::{Header, Level, Txid, TxidRange};
use crate::replica::{FileInfo, Joint, Listing, Target};
use crate::store::Ending;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What is fetched of the next object: a small one comes whole, that of a busy second, too; of a large one the index.
const END_BYTES: u64 = 1 << 20;
/// The same while objects are large, so that they still come whole.
const END_BYTES_MAX: u64 = 4 << 20;
/// Of the pages of an object that came whole so many bytes are kept.
const PAGES_BYTES: usize = 8 << 20;
/// After such a pause a listing comes first.
const PAUSE: Duration = Duration::from_secs(30);
/// A listing after so long without news, then at intervals that double up to the longest: 16 in an idle hour.
const FIRST_LISTING: Duration = Duration::from_secs(60);
const LONGEST_LISTING: Duration = Duration::from_secs(300);
/// Files that one poll takes in before others have their turn.
const FILES_AT_ONCE: usize = 64;

/// How often who waits for something looks whether it is there, and is interrupted.
const LOOKS: Duration = Duration::from_millis(20);
/// How often the store is asked while somebody waits for a TXID.
const LOOKS_OF_WAITERS: Duration = Duration::from_millis(100);

/// How the following stands.
#[derive(Default)]
pub(super) struct Follow {
    /// A poll is due or under way.
    pub is_running: bool,
    /// The intervals that the connections which follow ask for.
    followers: Vec<Duration>,
    /// Polls of another number than this one are of no use any more.
    generation: u64,
    /// How many looks were begun, how many of them have ended, and how the last one did.
    begun: u64,
    ended: u64,
    outcome: Option<Error>,
    /// Proven to be the newest state.
    pub proven: Option<Instant>,
    /// The largest TXID that a listing had.
    head: Option<Txid>,
    /// When the last news, or the last listing, came.
    listed: Option<Instant>,
    listing_after: Duration,
    /// Size of the last object.
    last_size: u64,
    /// Polls fail since then.
    pub failing: bool,
    /// The replica was begun again: for good.
    pub restarted: Option<Error>,
}

impl Follow {
    /// The shortest one counts; `None` if nobody follows.
    pub fn interval(&self) -> Option<Duration> {
        self.followers.iter().min().copied()
    }
}

#[cfg(test)]
impl Follow {
    /// As after a long pause.
    pub fn expire(&mut self) {
        self.proven = None;
        self.listed = None;
    }
}

impl Source {
    /// A connection follows from now on. The current state is made by the first one.
    pub fn start_following(self: &Arc<Self>, interval: Duration, cancelled: &dyn Fn() -> bool) -> Result<()> {
        if let Some(error) = self.follow.lock().restarted.clone() {
            return Err(error);
        }
        let is_stale = self.follow.lock().proven.is_none_or(|proven| proven.elapsed() > interval);
        let has_state = self.current.read().is_some();
        if !has_state {
            let asked = Instant::now();
            let (state, _) = self.state_at(Target::Latest, cancelled)?;
            let mut follow = self.follow.lock();
            follow.proven = Some(asked);
            follow.listed = Some(asked);
            follow.listing_after = FIRST_LISTING;
            drop(follow);
            self.current.write().get_or_insert_with(|| Arc::new(state));
        } else if is_stale {
            self.look_now(cancelled)?;
        }
        let mut follow = self.follow.lock();
        let is_shorter = follow.interval().is_none_or(|shortest| interval < shortest);
        follow.followers.push(interval);
        if !follow.is_running || is_shorter {
            follow.is_running = true;
            follow.generation += 1;
            let generation = follow.generation;
            drop(follow);
            return self.poll_after(interval, generation).inspect_err(|_| self.stop_following(interval));
        }
        Ok(())
    }

    /// Looks for news, and waits for how that ends. However many ask at a time, it is looked for once.
    fn look_now(self: &Arc<Self>, cancelled: &dyn Fn() -> bool) -> Result<()> {
        let wanted = self.follow.lock().begun + 1;
        loop {
            self.look_soon()?;
            let mut follow = self.follow.lock();
            if follow.ended >= wanted {
                return follow.outcome.clone().map_or(Ok(()), Err);
            }
            self.changed.wait_for(&mut follow, LOOKS);
            drop(follow);
            if cancelled() {
                return Err(super::flight::interrupted());
            }
        }
    }

    /// Has a thread look for news, unless one is about to.
    fn look_soon(self: &Arc<Self>) -> Result<()> {
        if self.again.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        let source = Arc::clone(self);
        let started = shared().polls.run_at(Instant::now(), move || {
            let _ = source.poll();
        });
        if started.is_err() {
            self.again.store(false, Ordering::SeqCst);
        }
        started
    }

    /// A connection that asked for this interval follows no more.
    pub fn stop_following(&self, interval: Duration) {
        let followers = &mut self.follow.lock().followers;
        if let Some(at) = followers.iter().position(|other| *other == interval) {
            followers.swap_remove(at);
        }
    }

    fn poll_after(self: &Arc<Self>, wait: Duration, generation: u64) -> Result<()> {
        let source = Arc::downgrade(self);
        let task = move || {
            let Some(source) = source.upgrade() else { return };
            {
                let mut follow = source.follow.lock();
                if follow.generation != generation {
                    return;
                }
                if follow.followers.is_empty() {
                    follow.is_running = false;
                    return;
                }
            }
            let _ = source.poll();
            let interval = source.follow.lock().interval().unwrap_or(wait);
            if let Err(error) = source.poll_after(interval, generation) {
                source.note(&error);
            }
        };
        let scheduled = shared().polls.run_at(Instant::now() + wait, task);
        scheduled.inspect_err(|_| self.follow.lock().is_running = false)
    }

    /// Looks for news once, on a thread that may wait for the store; where another one does so already, that one looks
    /// once more.
    pub fn poll(self: &Arc<Self>) -> Result<()> {
        let mut outcome = Ok(());
        self.again.store(true, Ordering::SeqCst);
        while self.again.load(Ordering::SeqCst) {
            let Some(_one_at_a_time) = self.polling.try_lock() else { return outcome };
            self.again.store(false, Ordering::SeqCst);
            outcome = self.poll_once();
        }
        outcome
    }

    fn poll_once(self: &Arc<Self>) -> Result<()> {
        self.follow.lock().begun += 1;
        let outcome = crate::panic::guard(|| self.look()).and_then(|outcome| outcome);
        let outcome = outcome.map_err(|error| self.explained(error));
        let mut follow = self.follow.lock();
        follow.ended = follow.begun;
        follow.outcome = outcome.as_ref().err().cloned();
        match &outcome {
            Ok(()) => follow.failing = false,
            Err(error) => {
                follow.failing = true;
                if error.kind() == Kind::Diverged {
                    follow.restarted = Some(error.clone());
                }
            }
        }
        drop(follow);
        if let Err(error) = &outcome {
            self.note(error);
        }
        self.changed.notify_all();
        outcome
    }

    fn look(self: &Arc<Self>) -> Result<()> {
        let Some(mut state) = self.current.read().clone() else { return Ok(()) };
        let (paused, listing_due) = {
            let follow = self.follow.lock();
            let paused = follow
                .proven
                .is_none_or(|proven| proven.elapsed() > PAUSE.max(follow.interval().unwrap_or_default() * 2));
            (paused, follow.listed.is_none_or(|listed| listed.elapsed() >= follow.listing_after))
        };
        // In another directory that nothing is there says nothing of this replica.
        if paused || !self.is_in_place() {
            state = self.look_by_listing(&state)?;
        }
        let mut news = false;
        for _ in 0..FILES_AT_ONCE {
            let asked = Instant::now();
            match self.next(&state)? {
                Some(next) => {
                    news = true;
                    state = self.becomes(next);
                }
                None => {
                    let mut follow = self.follow.lock();
                    // A listing had more: what it had may be there in a moment.
                    if follow.head.is_none_or(|head| head <= state.txid) {
                        follow.proven = Some(asked);
                    }
                    break;
                }
            }
        }
        if news {
            let mut follow = self.follow.lock();
            follow.listed = Some(Instant::now());
            follow.listing_after = FIRST_LISTING;
        } else if listing_due && !paused {
            self.look_by_listing(&state)?;
            let mut follow = self.follow.lock();
            follow.listing_after = (follow.listing_after * 2).min(LONGEST_LISTING);
        }
        Ok(())
    }

    fn becomes(&self, state: Arc<State>) -> Arc<State> {
        *self.current.write() = Some(Arc::clone(&state));
        self.changed.notify_all();
        state
    }

    /// The state after this one, if its object is there.
    fn next(self: &Arc<Self>, state: &Arc<State>) -> Result<Option<Arc<State>>> {
        let txid = state.txid.next();
        let key = self.replica.layout().key(Level::L0, TxidRange::single(txid));
        let length = (self.follow.lock().last_size * 2).clamp(END_BYTES, END_BYTES_MAX);
        let ending = match self.replica.store().get_end(&key, length) {
            Ok(Some(ending)) => ending,
            Ok(None) => return Ok(None),
            // A key without the permission to list is told 403 of what is not there.
            Err(error) if error.kind() == Kind::Denied => {
                log::warn!("{}: {error}; looking by listing", self.url);
                let next = self.look_by_listing(state)?;
                if next.txid > state.txid {
                    return Ok(Some(next));
                }
                // It is there, and this key may not read it.
                let is_there = self.follow.lock().head.is_some_and(|head| head > state.txid);
                return if is_there { Err(error) } else { Ok(None) };
            }
            Err(error) => return Err(error),
        };
        self.follow.lock().last_size = ending.object.size;
        self.joined(state, txid, key, ending).map(Some)
    }

    /// R2: the state and an object that must be the one behind it.
    fn joined(self: &Arc<Self>, state: &State, txid: Txid, key: String, ending: Ending) -> Result<Arc<State>> {
        let Ending { object: found, bytes } = ending;
        let info = FileInfo {
            level: Level::L0,
            txids: TxidRange::single(txid),
            size: found.size,
            created_at: found.modified,
            key,
            etag: Some(found.etag.clone()),
        };
        let named = |error: Error| match error.to_string().contains(&info.key) {
            true => self.named(error),
            false => self.named(error.context(&info.key)),
        };
        let joint = Joint::of(&found.metadata.pairs);
        let joins_by_sum = state.after.zip(joint.before).map(|(after, before)| after == before);
        if joins_by_sum == Some(false) {
            return Err(self.restarted(format!("{} does not go on from TXID {}", info.key, state.txid)));
        }
        let is_whole = bytes.len() as u64 == found.size;
        let (object, segment, pages) = if is_whole {
            self.whole(info.clone(), found.etag.clone(), &bytes, PAGES_BYTES).map_err(named)?
        } else {
            let (object, segment) = self.by_end(&info, found.etag.clone(), &bytes).map_err(named)?;
            (object, segment, Vec::new())
        };
        // R2: where nothing in the object tells that it joins, what it must join to is asked for. The object was read
        // before that, so in a prefix that was begun again ours is gone by now, or another one.
        if joins_by_sum.is_none() && !goes_on_in_the_wal(&state.newest.header, &object.header) {
            match self.replica.store().head(&state.newest.info.key)? {
                Some(there) if there.etag == state.newest.etag => {}
                Some(_) => {
                    return Err(self.restarted(format!("{} is another object than before", state.newest.info.key)));
                }
                // It moved up a level, perhaps: other files lead to where this one does.
                None => return self.anew(state),
            }
        }
        if object.header.timestamp < state.timestamp && joint.before.is_none() {
            return Err(self.restarted(format!(
                "{} is of {}, older than TXID {} of {}",
                info.key, object.header.timestamp, state.txid, state.timestamp
            )));
        }
        if object.header.page_size != state.page_size {
            return Err(self.restarted(format!("{} has another page size", info.key)));
        }
        // They were fetched already: what is read often changes often.
        for (pgno, page) in pages {
            shared().cache.put((object.id, pgno), page, false);
        }
        Ok(Arc::new(state.with(object, joint.after, segment)))
    }

    /// The newest state from a plan of its own, which must be of the same replica as a state of before.
    fn anew(self: &Arc<Self>, state: &State) -> Result<Arc<State>> {
        let (next, listing) = self.state_at(Target::Latest, &|| false)?;
        self.is_the_same(state, &listing)?;
        if next.page_size != state.page_size {
            return Err(self.restarted(format!("TXID {} has another page size", next.txid)));
        }
        if next.txid < state.txid || next.timestamp < state.timestamp {
            return Err(self.restarted(format!("the newest state is TXID {} of {}", next.txid, next.timestamp)));
        }
        Ok(Arc::new(next))
    }

    /// Looks at what there is: whether this is still the replica that it was, and whether it went on by other files.
    fn look_by_listing(self: &Arc<Self>, state: &Arc<State>) -> Result<Arc<State>> {
        let asked = Instant::now();
        let listing = self.replica.list()?;
        {
            let mut follow = self.follow.lock();
            follow.listed = Some(Instant::now());
            follow.head = listing.head();
        }
        self.is_the_same(state, &listing)?;
        if listing.head().is_none_or(|head| head <= state.txid) {
            self.follow.lock().proven = Some(asked);
            return Ok(Arc::clone(state));
        }
        let next = TxidRange::single(state.txid.next());
        if listing.level(Level::L0).iter().any(|file| file.txids == next) {
            return Ok(Arc::clone(state));
        }
        // What comes next is in compacted files only.
        let next = self.anew(state)?;
        self.follow.lock().proven = Some(asked);
        Ok(self.becomes(next))
    }

    /// R1, R2: the files under our position are the same ones.
    pub fn is_the_same(&self, state: &State, listing: &Listing) -> Result<()> {
        if listing.head().is_none_or(|head| head < state.txid) {
            let there = listing.head().map_or_else(|| "nothing".to_owned(), |head| format!("TXID {head} at most"));
            return Err(self.restarted(format!("TXID {} was read, and there is {there}", state.txid)));
        }
        let listed: HashMap<&str, &FileInfo> = listing.files().iter().map(|file| (file.key.as_str(), file)).collect();
        for object in state.objects() {
            if let Some(file) = listed.get(object.info.key.as_str())
                && file.etag.as_ref().is_some_and(|etag| *etag != object.etag)
            {
                return Err(self.restarted(format!("{} is another object than before", file.key)));
            }
        }
        Ok(())
    }

    pub fn restarted(&self, how: String) -> Error {
        Error::new(
            Kind::Diverged,
            format!("{}: the replica was begun again or overwritten: {how}; open it anew", self.url),
        )
    }

    /// Waits until a TXID is visible.
    pub fn wait(self: &Arc<Self>, txid: Txid, timeout: Duration, cancelled: &dyn Fn() -> bool) -> Result<Txid> {
        let deadline = Instant::now() + timeout;
        let mut looked = None;
        loop {
            let now = self.current.read().as_ref().map(|state| state.txid);
            if let Some(now) = now.filter(|now| *now >= txid) {
                return Ok(now);
            }
            if let Some(error) = self.follow.lock().restarted.clone() {
                return Err(error);
            }
            if Instant::now() >= deadline {
                let now = now.map_or_else(|| "nothing".to_owned(), |now| format!("TXID {now}"));
                let why = self.last_error.lock().as_ref().map(|(error, _)| format!(" (last error: {error})"));
                let why = why.filter(|_| self.follow.lock().failing).unwrap_or_default();
                return Err(Error::new(
                    Kind::Timeout,
                    format!("{}: TXID {txid} is not there yet, {now} is{why}", self.url),
                ));
            }
            if cancelled() {
                return Err(super::flight::interrupted());
            }
            // Somebody waits, so it is looked for at once, and then more often than otherwise.
            if looked.is_none_or(|looked: Instant| looked.elapsed() > LOOKS_OF_WAITERS) {
                looked = Some(Instant::now());
                self.look_soon()?;
            }
            let mut follow = self.follow.lock();
            self.changed.wait_for(&mut follow, LOOKS);
        }
    }
}

impl Source {
    /// An object of which the end is here. Its header is fetched unless the index is longer than what is here.
    fn by_end(
        &self,
        info: &FileInfo,
        etag: crate::store::ETag,
        bytes: &[u8],
    ) -> Result<(Arc<super::object::Object>, super::index::Segment)> {
        let store = self.replica.store();
        let start = store.get_range(&info.key, 0..crate::ltx::HEADER_SIZE as u64, Some(&etag))?;
        let header = super::open::header_of(info, &start)?;
        let tail = tail_of(bytes, info.size)?;
        let range = tail.index_range(info.size);
        let end_start = info.size - bytes.len() as u64;
        let fetched;
        let index = match range.start.checked_sub(end_start) {
            Some(from) => bytes.get(from as usize..(range.end - end_start) as usize).unwrap_or_default(),
            None => {
                fetched = store.get_range(&info.key, range, Some(&etag))?;
                &fetched
            }
        };
        let entries = crate::ltx::parse_index(index, &header, tail.pages_end(info.size))?;
        let object = self.object(info.clone(), etag, header);
        let segment = super::index::Segment::of(&object, &entries)?;
        Ok((object, segment))
    }
}

/// Whether a file holds what the WAL has behind another file.
fn goes_on_in_the_wal(before: &Header, after: &Header) -> bool {
    let (before, after) = (before.wal, after.wal);
    let is_known = before.size != 0 && (before.salt1, before.salt2) != (0, 0);
    is_known
        && (before.salt1, before.salt2) == (after.salt1, after.salt2)
        && before.offset.checked_add(before.size) == Some(after.offset)
}
