//! A database that was put back to an older state, or another one at its path, is refused (P12).
//!
//! Asked where continuity is not proven, before anything is shipped: at a start, and when a gap is healed after the last
//! connection here had been closed. What others wrote meanwhile goes forward, and is healed; a state in which the
//! database was after an older TXID, and is again, is a backup that was copied back, and shipping it would take back what
//! was committed since. Content alone tells: a change that was undone by hand in the database file is taken for one, too.
//!
//! Another database has no page of the former state. That alone says little, since VACUUM leaves none where it was
//! either. So the file, or the first page, must show it too: in another file nothing was left by SQLite, and in the same
//! one SQLite's counters never go back ([`FirstPage::contradicts`]).

use super::capture::Capture;
use super::encode::Work;
use super::files::{DatabaseFile, page_size_of};
use super::primary::{Phase, Primary};
use super::spool::{FileNumber, Refusal};
use super::sums::Sums;
use crate::error::{Error, Kind, Result};
use crate::header;
use crate::ltx::{PageSize, Pgno, Txid, page_checksum};
use crate::replica::{ROLLING_AFTER, ROLLING_BEFORE};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::atomic::Ordering;

/// The largest file that is read under SQLite's locks, and only where it was changed while it was closed here: 58 MiB in
/// the system's cache took 26 ms.
const AS_OPENED_BYTES_MAX: u64 = 64 << 20;

/// Where the local record knows fewer states than this, the replica is asked for so many, some at a time.
const STATES_KNOWN: u64 = 512;
const ASKED_AT_ONCE: usize = 16;

/// Pages that tell whether a refused database was restored, at least.
const TELLING_PAGES: usize = 8;

const PUT_BACK: &str = "the database has the content of the older one: it was put back";
const IS_ANOTHER: &str = "the file is another one than before and has no page of it: it is another database";
const WRITTEN_OVER: &str = "the file has no page as it was, and its header is not a later one: another database was \
                            written over it";

/// What the first page tells of a database's past.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FirstPage {
    /// Counted up when the page is written.
    change_counter: u32,
    /// Counted up at each change of the schema.
    schema_cookie: u32,
    /// A checksum of what follows the header: the root of the schema.
    schema: u64,
}

impl FirstPage {
    /// `None` if it has no header, as that of an encrypted database.
    pub(super) fn of(page: &[u8]) -> Option<Self> {
        let (head, schema) = page.split_at_checked(header::SIZE)?;
        let word = |at| head.get::<Range<usize>>(at)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
        head.starts_with(header::MAGIC).then_some(Self {
            change_counter: word(header::CHANGE_COUNTER)?,
            schema_cookie: word(header::SCHEMA_COOKIE)?,
            schema: page_checksum(Pgno::FIRST, schema),
        })
    }

    /// Whether no work of SQLite leads from `before` to this: neither number goes back, and no schema becomes another
    /// one under the same cookie.
    fn contradicts(&self, before: &Self) -> bool {
        // They wrap.
        let is_back = |now: u32, before: u32| now.wrapping_sub(before) > u32::MAX / 2;
        is_back(self.change_counter, before.change_counter)
            || is_back(self.schema_cookie, before.schema_cookie)
            || (self.schema_cookie == before.schema_cookie && self.schema != before.schema)
    }
}

/// What a reading of the whole database has found.
pub(super) struct Found {
    pub(super) sums: Sums,
    pub(super) first_page: Option<FirstPage>,
}

impl Found {
    pub(super) fn new(page_size: PageSize) -> Self {
        Self { sums: Sums::new(page_size), first_page: None }
    }

    /// A page, with its checksum.
    pub(super) fn add(&mut self, pgno: Pgno, page: &[u8], sum: u64) {
        if pgno == Pgno::FIRST {
            self.first_page = FirstPage::of(page);
        }
        self.sums.set(pgno, sum);
    }
}

impl Primary {
    /// A primary begins, and nothing but the file's identity is known yet.
    pub(super) fn begun_by_uri(&self) {
        let former = self.spool.record().filter(|record| record.url == self.url() && record.txid.is_some());
        if former.is_some_and(|former| former.closed.is_none_or(|closed| !self.is_unchanged(&closed))) {
            self.read_as_opened(&mut self.capture.lock());
        }
    }

    /// What is judged is the file as it is now that SQLite opens the WAL, before anything is committed to it here: that
    /// would hide whose it was. It is read under SQLite's locks, so only a small one is; of a larger one, and where the WAL
    /// holds something already, that is judged which is there when the gap is healed.
    pub(super) fn read_as_opened(&self, capture: &mut Capture) {
        let is_judged = matches!(self.phase(), Phase::Decide | Phase::Heal) && !self.wal_has_content();
        // What cannot be read now, healing fails to read as well, and says so.
        let read = |file: &dyn DatabaseFile| self.content_of_file(file);
        let found = if is_judged { capture.database().and_then(read).ok().flatten() } else { None };
        *self.as_opened.lock() = found;
    }

    fn content_of_file(&self, file: &dyn DatabaseFile) -> Result<Option<Found>> {
        let (page_size, size) = (self.page_size(), file.size()?);
        if size > AS_OPENED_BYTES_MAX || page_size_of(file)? != Some(page_size) {
            return Ok(None);
        }
        let mut found = Found::new(page_size);
        let mut page = vec![0; page_size.bytes()];
        let pages = u32::try_from(size / u64::from(page_size.get())).unwrap_or(0);
        for pgno in (1..=pages).filter_map(Pgno::new) {
            file.read_at(&mut page, page_size.offset_of(pgno))?;
            found.add(pgno, &page, page_checksum(pgno, &page));
        }
        Ok(Some(found))
    }

    /// The file as it was when it was opened, or else the database as it is now.
    fn content_to_judge(&self) -> Result<Option<Found>> {
        let as_opened = self.as_opened.lock().take();
        as_opened.map_or_else(|| self.content_of_database(), |found| Ok(Some(found)))
    }

    /// The newest TXID is here, and the database does not continue from it provably.
    pub(super) fn refuse_put_back(&self, work: &mut Work, head: Txid) -> Result<()> {
        let found = match self.content_to_judge() {
            // Others write all the time, and nothing is saved for this reading before the taps are active.
            Err(error) if error.kind() == Kind::Overtaken => None,
            found => found?,
        };
        // What cannot be told yet is asked when the gap is healed.
        self.unproven.store(found.is_none() || work.sums.is_none(), Ordering::Release);
        let Some(found) = found else { return Ok(()) };
        let outcome = self.judge_at(work, head, &found);
        if outcome.as_ref().is_err_and(|error| error.kind() != Kind::Diverged) {
            // By the next attempt something may have been committed to it.
            *self.as_opened.lock() = Some(found);
        }
        outcome
    }

    /// The same, where the database was read already.
    pub(super) fn judge(&self, work: &mut Work, found: &Found) -> Result<()> {
        work.head.map_or(Ok(()), |head| self.judge_at(work, head, found))
    }

    fn judge_at(&self, work: &mut Work, head: Txid, found: &Found) -> Result<()> {
        let newest = work.sums.as_ref().map(Sums::rolling).or_else(|| work.history.after(head));
        if newest == Some(found.sums.rolling()) {
            return self.spool.accept();
        }
        if newest.is_none() {
            return Ok(());
        }
        if self.was_refused() {
            // Without the checksums it is asked when the gap is healed.
            let Some(newest) = &work.sums else { return Ok(()) };
            self.refuse_again(head, newest, &found.sums)?;
        }
        self.complete_history(work, head)?;
        if let Some(older) = work.history.find(found.sums.rolling()) {
            return Err(self.refuse(found, older, head, PUT_BACK));
        }
        if work.sums.as_ref().is_none_or(|sums| shares_a_page(sums, &found.sums)) {
            return Ok(());
        }
        let files = work.record.file.zip(FileNumber::of(&self.path).ok());
        if files.is_some_and(|(before, now)| now.is_another_than(&before)) {
            return Err(self.refuse(found, head, head, IS_ANOTHER));
        }
        if work.record.first_page.zip(found.first_page).is_some_and(|(before, now)| now.contradicts(&before)) {
            return Err(self.refuse(found, head, head, WRITTEN_OVER));
        }
        Ok(())
    }

    /// A local record that began after a restore, or anew, knows nothing of the states before: the replica tells the
    /// newest of them, each object the state before it and the one after.
    fn complete_history(&self, work: &mut Work, head: Txid) -> Result<()> {
        let (known, oldest) = (work.history.len() as u64, work.history.oldest());
        let last = oldest.map_or(head.get(), |oldest| oldest.get() - 1);
        if known >= STATES_KNOWN || last == 0 {
            return Ok(());
        }
        let txids: Vec<_> = (last.saturating_sub(STATES_KNOWN - 1).max(1)..=last).filter_map(Txid::new).collect();
        let ask = |txids: &[Txid]| txids.iter().map(|txid| self.states_around(*txid)).collect::<Result<Vec<_>>>();
        let share = txids.len().div_ceil(ASKED_AT_ONCE);
        let told = crate::thread::each("states", txids.chunks(share), ask)?;
        let mut older: Vec<_> = told.into_iter().flatten().flatten().collect();
        older.dedup();
        if older.is_empty() { Ok(()) } else { work.history.begin_with(older) }
    }

    /// The states before and after a TXID, as far as its object tells them.
    fn states_around(&self, txid: Txid) -> Result<Vec<(Txid, u64)>> {
        let object = self.store.head(&self.key(txid))?;
        let pairs = object.map(|object| object.metadata.pairs).unwrap_or_default();
        let state = |txid: Option<Txid>, name| {
            let (_, sum) = pairs.iter().find(|(key, _)| key == name)?;
            Some((txid?, u64::from_str_radix(sum, 16).ok()?))
        };
        let before = state(Txid::new(txid.get() - 1), ROLLING_BEFORE);
        Ok(before.into_iter().chain(state(Some(txid), ROLLING_AFTER)).collect())
    }

    /// The first commit after a refusal makes a state that nothing is known of, so the refusal is remembered.
    fn refuse(&self, found: &Found, txid: Txid, head: Txid, why: &str) -> Error {
        let remembered = FileNumber::of(&self.path).and_then(|file| {
            found.sums.write(&self.spool.refused_sums(), txid)?;
            let url = self.url().to_owned();
            self.spool.refuse(&Refusal { url, file, txid: txid.to_string(), why: why.to_owned() })
        });
        if let Err(error) = remembered {
            log::warn!("{}: the refusal is not remembered: {error}", self.path.display());
        }
        self.diverged(Some(txid), head, why)
    }

    pub(super) fn was_refused(&self) -> bool {
        self.spool.refusal(self.url()).is_some()
    }

    /// It holds for what has become of the database that was refused. What has become of the newest state is not refused,
    /// whatever was written since; if the pages tell of neither, what is in another file is not.
    fn refuse_again(&self, head: Txid, newest: &Sums, found: &Sums) -> Result<()> {
        let Some(refusal) = self.spool.refusal(self.url()) else { return Ok(()) };
        let refused = Sums::read(&self.spool.refused_sums()).map(|(sums, _)| sums);
        let told = refused.and_then(|refused| is_of_newest(newest, &refused, found));
        let is_another = || FileNumber::of(&self.path).is_ok_and(|now| now.is_another_than(&refusal.file));
        if told.unwrap_or_else(is_another) {
            return self.spool.accept();
        }
        let why =
            format!("{}; it was refused then, and what was written to it since does not change that", refusal.why);
        Err(self.diverged(Txid::parse(&refusal.txid), head, &why))
    }

    /// The store is ahead of the local record by TXIDs of ours: the record was not written, or the database was put
    /// back together with its metadata directory.
    pub(super) fn refuse_put_back_with_record(&self, work: &Work, local: Option<Txid>, remote: Txid) -> Result<()> {
        // Another database is told when the gap is healed: the checksums of what the store has are not here.
        self.unproven.store(true, Ordering::Release);
        let Some(found) = self.content_to_judge()? else { return Ok(()) };
        match self.find_in_store(work, local, remote, &found) {
            Ok(None) => Ok(()),
            // One that was refused is told apart when the gap is healed.
            Ok(Some(_)) if self.was_refused() => Ok(()),
            Ok(Some(older)) => Err(self.refuse(&found, older, remote, PUT_BACK)),
            Err(error) => {
                // By the next attempt something may have been committed to it.
                *self.as_opened.lock() = Some(found);
                Err(error)
            }
        }
    }

    /// The older TXID that has this state.
    fn find_in_store(&self, work: &Work, local: Option<Txid>, remote: Txid, found: &Found) -> Result<Option<Txid>> {
        let state = found.sums.rolling();
        let mut older = work.history.find(state).filter(|txid| *txid < remote);
        let mut txid = local.map_or(Txid::FIRST, Txid::next);
        while txid <= remote {
            if self.states_around(txid)?.contains(&(txid, state)) {
                // Of several TXIDs with this state, the newest counts.
                older = Some(txid).filter(|txid| *txid < remote);
            }
            txid = txid.next();
        }
        Ok(older)
    }

    /// The record is of the database in this file.
    pub(super) fn is_in_this_file(&self, work: &mut Work) {
        work.record.file = FileNumber::of(&self.path).ok();
    }
}

/// Whether what was found has come of `newest`, or else of `refused`, by the pages in which they differ; `None` if too few
/// tell. (Inner pages of b-trees may become the same by other ways.)
fn is_of_newest(newest: &Sums, refused: &Sums, found: &Sums) -> Option<bool> {
    let differ = |pgno: &u32| newest.get(*pgno) != refused.get(*pgno);
    let differing: Vec<u32> = (1..=found.commit()).filter(differ).collect();
    let has = |sums: &Sums| {
        let same = differing.iter().filter(|pgno| sums.get(**pgno) == found.get(**pgno)).count();
        same >= TELLING_PAGES && same * 4 >= differing.len() * 3
    };
    if has(newest) { Some(true) } else { has(refused).then_some(false) }
}

/// Whether a page is as it was.
fn shares_a_page(before: &Sums, found: &Sums) -> bool {
    let common = before.commit().min(found.commit());
    (1..=common).any(|pgno| before.get(pgno) != 0 && before.get(pgno) == found.get(pgno))
}
