//! Writers in other processes (P15): they are noticed, followed, and the WAL is kept until it is captured.
//!
//! As long as only this process writes, nothing here runs but a look at the wal-index when it falls quiet; from then on
//! the system tells of the first write to the WAL. A publication that no tap has told begins *following*: the wal-index
//! is looked at again and again, and a shared lock on one of its read marks keeps what is not captured:
//!
//! - the lock of a mark that is not in use (1 to 4) keeps the WAL from being restarted, and holds no checkpoint up;
//! - the lock of mark 0 keeps checkpoints from copying frames to the database, so that a WAL whose frames are all there
//!   may be restarted, and then not again.
//!
//! The second is taken once everything is captured and copied, before the first is given back, and the other way round:
//! at each moment at least one is held, and whatever a restart destroys was captured. After a second of silence both are
//! given back; what happens then is proven by the count of commits (`capture`), or is a gap.

use super::capture::{Capture, Captured};
use super::checkpoints::Copied;
use super::files::{Files, SharedIndex};
use super::moved::Opened;
use super::primary::Primary;
use crate::ltx::PageSize;
use crate::wal::{CheckpointInfo, IndexHeader};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Writers of ours that were silent for this long are taken for quiet.
const QUIET: Duration = Duration::from_millis(250);
/// The first look after news, and the last: each waits twice as long as the one before.
const LOOK_FIRST: Duration = Duration::from_millis(1);
const LOOK_LAST: Duration = Duration::from_millis(1000);
/// Locks are held for this long after the last news.
const HOLD: Duration = Duration::from_secs(1);
/// A busy writer is chased for this long at once.
const CHASE: Duration = Duration::from_millis(3);
const CHASE_PAUSE: Duration = Duration::from_micros(50);
/// Following ends after this long without news.
const FOLLOW: Duration = Duration::from_secs(10);

/// What keeps the WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    Nothing,
    /// The shared lock of this mark: no restart.
    Restart(u8),
    /// That of mark 0: no copying, so at most one restart.
    Copying,
}

/// What a look at the wal-index has found.
enum Seen {
    /// It is being written to.
    Torn,
    Nothing,
    /// Another process has published this.
    News(IndexHeader),
}

/// What following knows. Its lock is held for moments only, and by nobody who asks for another one but `published`.
pub(super) struct Follow {
    files: Arc<dyn Files>,
    pub(super) page_size: PageSize,
    pub(super) index: Option<Box<dyn SharedIndex>>,
    /// Which files they have open (P9).
    pub(super) opened: Opened,
    pub(super) hold: Hold,
    /// Other processes write.
    on: bool,
    wait: Duration,
    news_at: Instant,
    /// The publication of the last look.
    sequence: u64,
    /// The primary was stopped: its taps tell it nothing any more.
    ended: bool,
    /// The last connection gives the wal-index up: what it says is known, and soon nobody's.
    given_up: bool,
    /// While an image is read: what is known of checkpoints.
    pub(super) copied: Option<Copied>,
    /// A checkpoint of this process runs.
    pub(super) own_checkpoint: bool,
    /// A checkpoint of another process wrote pages of the image.
    pub(super) overtaken: bool,
    /// The mark that an image holds after that happened to the one before.
    pub(super) image_hold: Option<u8>,
}

impl Follow {
    pub(super) fn new(files: Arc<dyn Files>, page_size: PageSize) -> Self {
        Self {
            files,
            page_size,
            index: None,
            opened: Opened::default(),
            hold: Hold::Nothing,
            on: false,
            wait: LOOK_FIRST,
            news_at: Instant::now(),
            sequence: 0,
            ended: false,
            given_up: false,
            copied: None,
            own_checkpoint: false,
            overtaken: false,
            image_hold: None,
        }
    }

    /// The wal-index, if a connection here has it mapped. Not through another file of that name: SQLite would take it for
    /// another database, and begin the wal-index anew under the connections that have it mapped.
    pub(super) fn index(&mut self) -> Option<&mut Box<dyn SharedIndex>> {
        if self.index.is_none() && !self.ended && !self.given_up && !self.opened.database.is_moved() {
            self.index = self.files.open_index().unwrap_or_else(|error| {
                log::warn!("the wal-index cannot be read: {error}");
                None
            });
        }
        self.index.as_mut()
    }

    /// What it says; `Some(None)`: it is torn.
    pub(super) fn read(&mut self) -> Option<Option<(IndexHeader, CheckpointInfo)>> {
        let page_size = self.page_size;
        self.index().map(|index| parse(&index.read(), page_size))
    }

    /// Whether the wal-index is there, and has no frames.
    pub(super) fn nothing_is_published(&mut self) -> bool {
        self.read().flatten().is_some_and(|(header, _)| header.max_frame == 0)
    }

    /// Keeps the WAL from being restarted. `false`: a restart or a close is under way.
    fn hold_restarts(&mut self) -> bool {
        if matches!(self.hold, Hold::Restart(_)) {
            return true;
        }
        let (copying, page_size) = (self.hold == Hold::Copying, self.page_size);
        let Some(index) = self.index() else { return false };
        let marks = parse(&index.read(), page_size).map_or([0; 5], |(_, info)| info.marks);
        // One that is not in use holds no checkpoint up; any keeps the WAL.
        let mut order = [4, 3, 2, 1_u8];
        order.sort_by_key(|mark| std::cmp::Reverse(marks[usize::from(*mark)]));
        let Some(mark) = order.into_iter().find(|mark| index.hold(*mark)) else { return false };
        if copying {
            index.release(0);
        }
        self.hold = Hold::Restart(mark);
        true
    }

    /// Everything up to `captured` is captured and needs the WAL no more: it may be restarted, if all of it was copied.
    fn allow_restart(&mut self, captured: &IndexHeader) {
        let Hold::Restart(mark) = self.hold else { return };
        let page_size = self.page_size;
        let copied = |index: &dyn SharedIndex| {
            parse(&index.read(), page_size).is_some_and(|(h, i)| h == *captured && i.backfilled == h.max_frame)
        };
        let kept = self.image_hold;
        let Some(index) = self.index() else { return };
        if !copied(index.as_ref()) || !index.hold(0) {
            return;
        }
        if copied(index.as_ref()) {
            if kept != Some(mark) {
                index.release(mark);
            }
            self.hold = Hold::Copying;
        } else {
            index.release(0);
        }
    }

    /// Another process writes.
    fn begin(&mut self) {
        self.on = true;
        self.wait = LOOK_FIRST;
        self.news_at = Instant::now();
    }

    /// Gives back what is held.
    fn release(&mut self) {
        let (hold, kept) = (std::mem::replace(&mut self.hold, Hold::Nothing), self.image_hold);
        if let Some(index) = &mut self.index {
            match hold {
                Hold::Restart(mark) if kept != Some(mark) => index.release(mark),
                Hold::Copying => index.release(0),
                _ => {}
            }
        }
    }

    /// After the last look at which nothing was new.
    fn next_wait(&mut self, news: bool) -> Duration {
        self.wait = if news { LOOK_FIRST } else { (self.wait * 2).min(LOOK_LAST) };
        self.wait
    }
}

pub(super) fn parse(bytes: &[u8; 136], page_size: PageSize) -> Option<(IndexHeader, CheckpointInfo)> {
    let (copies, rest) = bytes.split_first_chunk::<{ 2 * IndexHeader::SIZE }>()?;
    Some((IndexHeader::parse_both(copies, Some(page_size))?, CheckpointInfo::parse(rest.first_chunk()?)?))
}

impl Primary {
    pub(super) fn schedule_look(self: &Arc<Self>, due: Instant) {
        let mut scheduled = self.look_due.lock();
        if scheduled.is_none_or(|before| due < before) {
            *scheduled = self.run_at(&self.pools.capture, due, Self::look_task).then_some(due);
        }
    }

    /// A connection of this process has mapped the wal-index.
    pub fn index_mapped(self: &Arc<Self>) {
        self.follow.lock().given_up = false;
        self.exclusive_ended();
        self.schedule_look(self.now() + QUIET);
    }

    /// The last connection here that has it mapped unmaps it: ours goes first.
    pub fn index_unmapped(&self) {
        let mut follow = self.follow.lock();
        self.holding.store(false, Ordering::Release);
        follow.hold = Hold::Nothing;
        follow.image_hold = None;
        follow.index = None;
        follow.on = false;
    }

    /// The last connection gives it up. Whoever looks at it after this finds nothing, and takes nothing for news.
    pub(super) fn give_index_up(&self) {
        self.follow.lock().given_up = true;
        self.index_unmapped();
    }

    /// Nothing is told any more, so nothing may stay open.
    pub(super) fn end_following(&self) {
        self.follow.lock().ended = true;
        self.index_unmapped();
    }

    /// A commit was seen that no tap has told.
    pub(super) fn foreign_commit(self: &Arc<Self>) {
        self.follow.lock().begin();
        self.schedule_look(self.now());
    }

    /// The WAL was written to, by somebody.
    fn touched(self: &Arc<Self>) {
        self.follow.lock().wait = LOOK_FIRST;
        self.schedule_look(self.now() + LOOK_FIRST);
    }

    /// Asks to be told of the next write to the WAL; how soon to look anyway, if nobody will tell.
    fn watch_wal(self: &Arc<Self>) -> Option<Duration> {
        let wal = self.wal_path();
        let primary = Arc::downgrade(self);
        let told = move || {
            if let Some(primary) = primary.upgrade() {
                primary.touched();
            }
        };
        self.pools.notifier.once(wal.as_ref(), told).is_err().then_some(LOOK_LAST)
    }

    fn look_task(self: &Arc<Self>) {
        *self.look_due.lock() = None;
        if self.is_stopped() || self.is_final() {
            return self.end_following();
        }
        let on = self.follow.lock().on;
        let wait = if on { self.follow_on() } else { self.notice() };
        if let Some(wait) = wait {
            self.schedule_look(self.now() + wait);
        }
    }

    /// What another process has published, if it is not known yet. While a connection of ours has the write lock nobody
    /// else publishes, and what it finds when it takes it is told (`write_locked`).
    fn unseen(&self, follow: &mut Follow) -> Option<Seen> {
        let before = follow.files.own_writes();
        let header = follow.read()?;
        let told = self.published.lock().header;
        let Some((header, _)) = header else { return Some(Seen::Torn) };
        let known = told.map_or(header.max_frame == 0, |told| told == header);
        let ours = !before.is_multiple_of(2) || before != follow.files.own_writes();
        Some(if known || ours || self.is_exclusive() { Seen::Nothing } else { Seen::News(header) })
    }

    /// Whether something is published that no tap has told. When to look again; `None`: when told.
    fn notice(self: &Arc<Self>) -> Option<Duration> {
        let sequence = self.published.lock().sequence;
        let mut follow = self.follow.lock();
        follow.index()?;
        let own = std::mem::replace(&mut follow.sequence, sequence) != sequence
            || !follow.files.own_writes().is_multiple_of(2);
        // Asked before looking, so that nothing falls between. Our own writers would only wake us.
        let unwatched = if own { None } else { self.watch_wal() };
        match self.unseen(&mut follow)? {
            Seen::Torn => return Some(LOOK_FIRST),
            Seen::News(_) => {
                follow.begin();
                return Some(Duration::ZERO);
            }
            Seen::Nothing if own => {
                follow.wait = LOOK_LAST;
                return Some(QUIET);
            }
            Seen::Nothing => {}
        }
        // The system tells of the write, and the publication comes after it.
        match follow.next_wait(false) {
            LOOK_LAST => unwatched,
            wait => Some(wait),
        }
    }

    /// Captures what other processes have published, and keeps the WAL for it.
    fn follow_on(self: &Arc<Self>) -> Option<Duration> {
        let mut capture = self.capture.lock();
        let mut follow = self.follow.lock();
        follow.index()?;
        let unwatched = self.watch_wal();
        if !follow.hold_restarts() {
            return Some(LOOK_FIRST);
        }
        let seen = self.unseen(&mut follow)?;
        let news = matches!(seen, Seen::News(_));
        if let Seen::News(header) = seen {
            self.published_elsewhere(&header);
            follow.begin();
        }
        drop(follow);
        self.capture_held(&mut capture);
        let mut follow = self.follow.lock();
        let silence = follow.news_at.elapsed();
        if silence > HOLD {
            follow.release();
            self.holding.store(false, Ordering::Release);
        }
        follow.on = follow.index.is_some() && silence <= FOLLOW;
        let wait = follow.next_wait(news);
        let on = follow.on;
        drop(follow);
        drop(capture);
        if news {
            self.schedule_ship_after_capture();
        }
        if on { Some(wait) } else { unwatched }
    }

    /// Captures under a hold; then allows the restart of what is captured. A busy writer whose checkpoints have copied
    /// all of it is followed until that is so at one moment.
    fn capture_held(&self, capture: &mut Capture) {
        let deadline = Instant::now() + CHASE;
        loop {
            if let Err(error) = self.capture_now(capture) {
                self.fail_visibly(&error);
            }
            if capture.captured == Captured::Gap {
                return;
            }
            {
                let follow = self.follow.lock();
                // The wal-index may have been unmapped meanwhile, and with it what was held.
                self.holding.store(follow.hold != Hold::Nothing, Ordering::Release);
            }
            let (header, _) = self.last_published();
            let Some(header) = header.filter(|h| h.max_frame == 0 || capture.captured.is_end_of(h)) else { break };
            if capture.evacuate().is_err() {
                break;
            }
            let mut follow = self.follow.lock();
            follow.allow_restart(&header);
            let Some(Some((_, info))) = follow.read() else { break };
            if follow.hold == Hold::Copying || info.backfilled == 0 || Instant::now() > deadline {
                break;
            }
            if let Some(Seen::News(header)) = self.unseen(&mut follow) {
                self.published_elsewhere(&header);
                follow.begin();
            } else {
                drop(follow);
                std::thread::sleep(CHASE_PAUSE);
            }
        }
        let at = if let Captured::At(at) = capture.captured { Some(at) } else { None };
        if let Err(error) = self.state_file.tell(true, at.as_ref()) {
            self.fail_visibly(&error);
        }
    }

    /// As `published`, by another process. A restart without content counts too: what was in the WAL before may be lost,
    /// and whoever waits waits until that is known.
    pub(super) fn published_elsewhere(&self, header: &IndexHeader) -> bool {
        let last = self.published.lock().header;
        let restarted = header.max_frame == 0 && last.is_some_and(|last| last.salts != header.salts);
        let news = self.published(header);
        if restarted {
            let mut published = self.published.lock();
            published.sequence += 1;
            published.oldest.get_or_insert_with(|| self.now());
        }
        news || restarted
    }

    /// What other processes have published until now is told, for somebody who waits for it.
    pub(super) fn look_now(self: &Arc<Self>) {
        let mut follow = self.follow.lock();
        if !matches!(self.unseen(&mut follow), Some(Seen::News(_))) || !follow.hold_restarts() {
            return;
        }
        // Read again: what a restart of ours has told until now is older than the hold.
        if let Some(Seen::News(header)) = self.unseen(&mut follow) {
            self.published_elsewhere(&header);
        }
        follow.begin();
        drop(follow);
        self.schedule_look(self.now());
    }

    /// A barrier of ours has captured everything, under the write lock: nothing needs to be kept.
    pub(super) fn release_hold(&self) {
        let mut follow = self.follow.lock();
        self.holding.store(false, Ordering::Release);
        follow.release();
    }

    /// A checkpoint of ours is about to copy frames, which it may: the WAL is kept by another lock.
    pub fn backfilling(&self) {
        let mut follow = self.follow.lock();
        if follow.hold == Hold::Copying {
            follow.hold_restarts();
        }
    }
}
