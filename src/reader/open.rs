//! From a plan to a state (R5): one wave of listings, one of indexes, and the pages come when they are asked for.
//!
//! Of each object of the plan what tells where its pages are is read, all at a time: a small one comes whole, of a large
//! one the companion's head (R6) or, without a companion, the end, with the LTX index. Page 1, which every reader needs
//! first, is the first page of whatever object has it, so the first bytes of large objects come in the same wave.

use super::cache::Page;
use super::flight::{run, run_all, shared};
use super::index::{Frame, Segment};
use super::lazy::LazyIndex;
use super::object::{Object, ObjectId};
use super::source::{Source, decode};
use super::state::{Layer, Place, State};
use crate::error::{Error, Kind, Result};
use crate::ltx::{Decoder, HEADER_SIZE, Header, Level, Pgno, TAIL_SIZE, Tail, parse_index};
use crate::replica::companion::{self, Head};
use crate::replica::{Excluded, FileInfo, Joint, Listing, Replica, Target, refuse_unjoined};
use crate::store::{ETag, Entry, Store};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// An object up to this size is fetched whole.
const WHOLE_BYTES: u64 = 256 << 10;
/// Of whose pages the first one is kept.
const FIRST_PAGE_BYTES: usize = 64 << 10;
/// The end of a larger one: its index, if it has a few thousand pages.
const END_BYTES: u64 = 64 << 10;
/// The start of a larger one: the header, and page 1 if it is there.
const START_BYTES: u64 = 16 << 10;
/// A companion up to this size comes whole, in pieces that come at a time: every page is then one request away. It is
/// that of about 40,000 pages.
const COMPANION_WHOLE_BYTES: u64 = if cfg!(test) { 96 << 10 } else { 1536 << 10 };
/// The start of a larger one, so that opening does not cost more the larger a database is; and a piece of a smaller one.
const COMPANION_BYTES: u64 = if cfg!(test) { 24 << 10 } else { 64 << 10 };
const COMPANION_PIECE_BYTES: u64 = 384 << 10;
/// Plans for one state at most: files move and vanish, and damaged ones are done without.
const PLANS_MAX: usize = 16;

/// For so long a page that is in no other file is not looked for again: that takes a listing.
const HOPELESS: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 10 });

/// An object, where its pages are, and the first ones.
type Whole = (Arc<Object>, Segment, Vec<(Pgno, Page)>);

/// Where the pages of an object are.
enum Index {
    Read(Segment),
    Lazy(LazyIndex),
}

/// What was read of an object.
struct Loaded {
    object: Arc<Object>,
    joint: Joint,
    index: Index,
}

impl Source {
    /// The state that a user asked for.
    ///
    /// # Errors
    /// Those of planning, with what there is instead; those of the store.
    pub fn state_at(self: &Arc<Self>, target: Target, cancelled: &dyn Fn() -> bool) -> Result<(State, Listing)> {
        self.state_without(target, Excluded::new(), cancelled)
    }

    fn state_without(
        self: &Arc<Self>,
        target: Target,
        mut excluded: Excluded,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(State, Listing)> {
        let mut missing = HashSet::new();
        let mut failure: Option<Error> = None;
        let mut due = None;
        for _ in 0..PLANS_MAX {
            let (replica, without) = (self.replica.clone(), excluded.clone());
            let is_local = self.is_local;
            let (listing, plan, mut companions) = run(cancelled, move || {
                let planned = || replica.listed_plan(target, &without);
                let (companions, planned) = if is_local {
                    let planned = planned();
                    (companions(&replica), planned)
                } else {
                    crate::thread::both("list", || companions(&replica), planned)
                };
                let (listing, plan) = planned?;
                Ok((listing, plan, companions?))
            })
            .map_err(|error| failure.take().filter(|_| error.kind() == Kind::NotFound).unwrap_or(error))?;
            // What was the newest state once must not silently become an earlier one.
            if plan.txid() < *due.get_or_insert(plan.txid()) {
                return Err(failure.unwrap_or_else(|| Error::bug("a plan that shrank without a failure")));
            }
            companions.retain(|key, _| !excluded.contains(key));
            match self.load(plan.files(), &companions, cancelled) {
                Ok(state) => return Ok((state, listing)),
                Err((Some(key), error)) => {
                    match error.kind() {
                        Kind::Corrupt => excluded.insert(key.clone()),
                        // It may have moved up a level since it was listed.
                        Kind::NotFound | Kind::Conflict if missing.insert(key.clone()) => true,
                        Kind::NotFound | Kind::Conflict => excluded.insert(key.clone()),
                        _ => return Err(error.context(key)),
                    };
                    failure.get_or_insert(error.context(key));
                }
                Err((None, error)) => return Err(error),
            }
        }
        Err(failure.unwrap_or_else(|| Error::bug("no plan and no failure")))
    }

    /// The same state by other files, after that of a page was found gone or damaged (R10). Whether it is the same one
    /// is asked of what there is (R1): the files that are still listed, and the time and size of what they give.
    ///
    /// # Errors
    /// [`Kind::NotFound`]: there are none. [`Kind::Diverged`]: the replica was begun again.
    pub fn state_again(
        self: &Arc<Self>,
        state: &State,
        pgno: Pgno,
        error: &Error,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Arc<State>> {
        let hopeless = self.hopeless.lock().get(&(state.counter, pgno)).cloned();
        if let Some((_, error)) = hopeless.filter(|(since, _)| since.elapsed() < HOPELESS) {
            return Err(error);
        }
        let other = self.find_state_again(state, pgno, error, cancelled);
        // Of one that is gone a file may be on its way up a level.
        if let Err(other) = &other
            && error.kind() == Kind::Corrupt
            && matches!(other.kind(), Kind::NotFound | Kind::Corrupt)
        {
            self.give_up(state, pgno, other);
        }
        other
    }

    /// The page is damaged, and in no other file.
    pub fn give_up(&self, state: &State, pgno: Pgno, error: &Error) {
        let mut hopeless = self.hopeless.lock();
        hopeless.retain(|_, (since, _)| since.elapsed() < HOPELESS);
        hopeless.insert((state.counter, pgno), (Instant::now(), error.clone()));
    }

    fn find_state_again(
        self: &Arc<Self>,
        state: &State,
        pgno: Pgno,
        error: &Error,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Arc<State>> {
        let target = Target::Txid(state.txid);
        let (this, all) = self.avoided(state, pgno, error);
        let found = match self.state_without(target, all.clone(), cancelled) {
            // One of the others may be whole: what comes damaged twice need not lie there so.
            Err(error) if all != this && matches!(error.kind(), Kind::NotFound | Kind::Conflict | Kind::Corrupt) => {
                self.state_without(target, this, cancelled)
            }
            found => found,
        };
        let found = found.map_err(|error| self.explained(error));
        let same = match &found {
            Ok((other, listing)) => self.is_the_same(state, listing).and_then(|()| {
                // A snapshot has the time at which it was made.
                let is_snapshot = other.newest.info.level == Level::SNAPSHOT && other.timestamp > state.timestamp;
                if other.commit == state.commit && (other.timestamp == state.timestamp || is_snapshot) {
                    return Ok(());
                }
                Err(self.restarted(format!("TXID {} is of {} now", state.txid, other.timestamp)))
            }),
            // Compacted away, or begun again: what there is tells.
            Err(error) if error.kind() == Kind::NotFound => {
                let replica = self.replica.clone();
                let listing = run(cancelled, move || replica.list())?;
                self.is_the_same(state, &listing)
            }
            Err(error) if error.kind() == Kind::Diverged && !self.is_in_place() => Err(error.clone()),
            Err(_) => Ok(()),
        };
        if let Err(error) = same {
            self.follow.lock().restarted = Some(error.clone());
            return Err(error);
        }
        found.map(|(other, _)| Arc::new(other.in_place_of(state)))
    }

    /// What to do without: that in which a page was found damaged; and, since two files may be, all that were so before.
    fn avoided(&self, state: &State, pgno: Pgno, error: &Error) -> (Excluded, Excluded) {
        let this = match (error.kind(), state.find(pgno)) {
            (Kind::Corrupt, Place::At(frame)) => Some(frame.object.info.key.clone()),
            // Without its companion the object is read by its own index.
            (_, Place::Unread(index, _)) => Some(index.key().to_owned()),
            _ => None,
        };
        let mut all = self.avoided.lock();
        all.extend(this.clone());
        (this.into_iter().collect(), all.clone())
    }

    /// Reads the indexes of a plan's files. The error's key is the file to blame.
    fn load(
        self: &Arc<Self>,
        files: &[FileInfo],
        companions: &Companions,
        cancelled: &dyn Fn() -> bool,
    ) -> std::result::Result<State, (Option<String>, Error)> {
        let loads = files.iter().map(|file| {
            let (source, file) = (Arc::clone(self), file.clone());
            let companion = companions.get(&companion::key(file.level, file.txids)).cloned();
            move || source.load_one(file, companion.as_ref())
        });
        let loaded = if self.is_local {
            loads.map(|load| load()).collect()
        } else {
            run_all(cancelled, loads).map_err(|error| (None, error))?
        };
        let mut layers: Vec<Layer> = Vec::new();
        let mut newest: Option<(&FileInfo, Joint, Arc<Object>)> = None;
        let mut in_a_row: Vec<Segment> = Vec::new();
        let end_row = |row: &mut Vec<Segment>, layers: &mut Vec<Layer>| match row.len() {
            0 => {}
            1 => layers.extend(row.pop().map(|segment| Layer::Read(Arc::new(segment)))),
            _ => {
                let newest_first: Vec<&Segment> = row.iter().rev().collect();
                layers.push(Layer::Read(Arc::new(Segment::union(&newest_first))));
                row.clear();
            }
        };
        for (file, loaded) in files.iter().zip(loaded) {
            let Loaded { object, joint, index } = loaded.map_err(|error| (Some(file.key.clone()), error))?;
            if let Some((older, left, _)) = &newest {
                refuse_unjoined((older, *left), (file, joint)).map_err(|error| (None, error))?;
            }
            newest = Some((file, joint, object));
            match index {
                // A large one stays by itself, so that the small ones that come are not merged with it.
                Index::Read(segment) if segment.len() > 4096 => {
                    end_row(&mut in_a_row, &mut layers);
                    layers.push(Layer::Read(Arc::new(segment)));
                }
                Index::Read(segment) => in_a_row.push(segment),
                Index::Lazy(index) => {
                    end_row(&mut in_a_row, &mut layers);
                    layers.push(Layer::Lazy(Arc::new(index)));
                }
            }
        }
        end_row(&mut in_a_row, &mut layers);
        layers.reverse();
        let (_, joint, newest) = newest.ok_or_else(|| (None, Error::bug("an empty plan")))?;
        Ok(State::new(newest, joint.after, layers))
    }

    fn load_one(&self, info: FileInfo, companion: Option<&Entry>) -> Result<Loaded> {
        let store = self.replica.store();
        let etag = match info.etag.clone() {
            Some(etag) => etag,
            None => match store.head(&info.key)? {
                Some(object) => object.etag,
                None => return Err(Error::new(Kind::NotFound, "it was listed and is gone")),
            },
        };
        if info.size <= WHOLE_BYTES {
            let read = || -> Result<(Whole, Joint)> {
                let start = store.get_start(&info.key, info.size, Some(&etag))?;
                let whole = self.whole(info.clone(), etag.clone(), &start.bytes, FIRST_PAGE_BYTES)?;
                let joint = Joint::of_file(&start, &header_of(&info, &start.bytes)?)?;
                Ok((whole, joint))
            };
            // Damage on the way is not damage in the store: it is looked at once more.
            let ((object, segment, pages), joint) = match read() {
                Err(error) if error.kind() == Kind::Corrupt => read()?,
                read => read?,
            };
            if let Some((pgno, page)) = pages.into_iter().next().filter(|(pgno, _)| *pgno == Pgno::FIRST) {
                shared().cache.put((object.id, pgno), page, false);
            }
            return Ok(Loaded { object, joint, index: Index::Read(segment) });
        }
        if let Some(companion) = companion
            && let Some(loaded) = self.by_companion(&info, &etag, companion)?
        {
            return Ok(loaded);
        }
        let end_start = info.size - END_BYTES;
        let (start, end) = crate::thread::both(
            "open",
            || store.get_start(&info.key, START_BYTES, Some(&etag)),
            || store.get_range(&info.key, end_start..info.size, Some(&etag)),
        );
        let (start, end) = (start?, end?);
        let header = header_of(&info, &start.bytes)?;
        let joint = Joint::of_file(&start, &header)?;
        let tail = tail_of(&end, info.size)?;
        let index = tail.index_range(info.size);
        let index_bytes = match index.start.checked_sub(end_start) {
            Some(from) => end.get(from as usize..(index.end - end_start) as usize).unwrap_or_default().to_vec(),
            None => store.get_range(&info.key, index.clone(), Some(&etag))?,
        };
        let entries = parse_index(&index_bytes, &header, tail.pages_end(info.size))?;
        let object = self.object(info, etag, header);
        let segment = Segment::of(&object, &entries)?;
        if !self.damaged.lock().contains_key(&object.id) {
            keep_first_page(segment.find(Pgno::FIRST), &start.bytes);
        }
        Ok(Loaded { object, joint, index: Index::Read(segment) })
    }

    /// By its companion, unless that is another object's or damaged.
    fn by_companion(&self, info: &FileInfo, etag: &ETag, entry: &Entry) -> Result<Option<Loaded>> {
        let store = self.replica.store();
        let (start, companion) = crate::thread::both(
            "open",
            || store.get_start(&info.key, START_BYTES, Some(etag)),
            || start_of(store.as_ref(), entry),
        );
        let start = start?;
        let header = header_of(info, &start.bytes)?;
        let joint = Joint::of_file(&start, &header)?;
        let key = &entry.key;
        let head = companion.and_then(|mut bytes| {
            let length = Head::length_of(&bytes)?;
            let there = bytes.len() as u64;
            if length > there {
                // With what follows it, as of a shorter one.
                let end = (length + COMPANION_BYTES).min(entry.size);
                bytes.append(&mut store.get_range(key, there..end, entry.etag.as_ref())?);
            }
            Ok((Head::parse(&bytes)?, bytes))
        });
        let (head, bytes) = match head {
            Ok((head, bytes)) if self.describes(&head, info, etag)? => (head, bytes),
            Ok(_) => return Ok(None),
            // It is only a help: without it the LTX index is read.
            Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::NotFound | Kind::Conflict) => {
                log::warn!("{}: {key}: {error}", self.url);
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let object = self.object(info.clone(), etag.clone(), header);
        let Ok(index) = LazyIndex::new(Arc::clone(&object), head, entry, &bytes, self.is_local) else {
            return Ok(None);
        };
        let index = Arc::new(index);
        if let Place::At(frame) = index.find_stored(Pgno::FIRST) {
            keep_first_page(Some(frame), &start.bytes);
        }
        Ok(Arc::into_inner(index).map(|index| Loaded { object, joint, index: Index::Lazy(index) }))
    }

    /// Whether a companion is that of an object. A local file that was copied has another ETag, so there the checksum at
    /// its end tells.
    fn describes(&self, head: &Head, info: &FileInfo, etag: &ETag) -> Result<bool> {
        if head.describes(&FileInfo { etag: Some(etag.clone()), ..info.clone() }) {
            return Ok(true);
        }
        if !self.is_local || !head.describes(&FileInfo { etag: None, ..info.clone() }) {
            return Ok(false);
        }
        let tail = info.size.saturating_sub(TAIL_SIZE as u64)..info.size;
        let tail = self.replica.store().get_range(&info.key, tail, Some(etag))?;
        Ok(tail_of(&tail, info.size)?.trailer.file_checksum == head.file_checksum)
    }

    /// An object of which all bytes are here, with its first pages, of `keep` bytes (what compresses well is many times
    /// larger than its file). The whole of it is verified (R7).
    pub fn whole(&self, info: FileInfo, etag: ETag, bytes: &[u8], keep: usize) -> Result<Whole> {
        let header = header_of(&info, bytes)?;
        let tail = tail_of(bytes, info.size)?;
        let index = tail.index_range(info.size);
        let index = bytes.get(index.start as usize..index.end as usize).unwrap_or_default();
        let entries = parse_index(index, &header, tail.pages_end(info.size))?;
        let mut decoder = Decoder::new(bytes)?;
        let mut page = vec![0; header.page_size.bytes()];
        let at_most = keep / page.len();
        let mut pages = Vec::with_capacity(entries.len().min(at_most));
        while let Some(pgno) = decoder.next_page(&mut page)? {
            if pages.len() < at_most {
                pages.push((pgno, page.as_slice().into()));
            }
        }
        decoder.finish()?;
        let object = self.object(info, etag, header);
        let segment = Segment::of(&object, &entries)?;
        Ok((object, segment, pages))
    }

    pub fn object(&self, info: FileInfo, etag: ETag, header: Header) -> Arc<Object> {
        Arc::new(Object { id: ObjectId::new(&self.identity, &info.key, &etag), info, etag, header })
    }
}

/// Page 1, if it is in the first bytes of its object. What cannot be decoded is fetched again when it is wanted.
fn keep_first_page(frame: Option<Frame>, start: &[u8]) {
    let Some(frame) = frame else { return };
    let page =
        usize::try_from(frame.offset).ok().and_then(|from| start.get(from..from.checked_add(frame.len as usize)?));
    if let Some(Ok(page)) = page.map(|bytes| decode(&frame, bytes)) {
        shared().cache.put((frame.object.id, frame.pgno), page, false);
    }
}

/// The header, which must be the one that the name promises.
pub(super) fn header_of(info: &FileInfo, bytes: &[u8]) -> Result<Header> {
    let header = Header::parse(bytes)?;
    if header.txids != info.txids {
        return Err(Error::corrupt(format!("the header says TXIDs {}", header.txids)));
    }
    if header.commit == 0 {
        return Err(Error::corrupt("the header says that the database has no pages"));
    }
    Ok(header)
}

pub(super) fn tail_of(end: &[u8], size: u64) -> Result<Tail> {
    let tail = end.last_chunk::<TAIL_SIZE>().filter(|_| end.len() >= HEADER_SIZE.min(end.len()));
    Tail::parse(tail.ok_or_else(|| Error::corrupt("LTX file: it ends before its trailer"))?, size)
}

/// The companions that are there, by key.
type Companions = HashMap<String, Entry>;

fn companions(replica: &Replica) -> Result<Companions> {
    Ok(replica.store().list(companion::PREFIX)?.into_iter().map(|entry| (entry.key.clone(), entry)).collect())
}

/// The start of a companion, or all of it.
fn start_of(store: &dyn Store, entry: &Entry) -> Result<Vec<u8>> {
    let end = if entry.size <= COMPANION_WHOLE_BYTES { entry.size } else { COMPANION_BYTES };
    let pieces = (0..end).step_by(COMPANION_PIECE_BYTES as usize);
    let pieces = crate::thread::each("open", pieces, |from| {
        let range = from..end.min(from + COMPANION_PIECE_BYTES);
        store.get_range(&entry.key, range, entry.etag.as_ref())
    })?;
    Ok(pieces.concat())
}
