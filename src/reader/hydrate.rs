//! Hydration (R13): the replica is copied into a local database file in the background, and pages are read from there.
//!
//! Every page of the file is stamped with the object that it came from, in memory. A page is served only if the state
//! that is read has it in that very object; so what a newer TXID replaced is simply not there for an older transaction,
//! which reads it from the store as before, and no page needs to be kept back.
//!
//! The file survives the process if the user named it. Beside it lies a record (`sidecar`): the state that the file has,
//! or from which to which it is going, synced before the first page is written. If the copy is broken off, only what is
//! the same in all of these states is trusted, and what the record says was copied since, in an order that must be the
//! same one; and only if the file is as it was left. Of one that somebody changed, or whose process was killed while it
//! wrote, only those pages are kept that a companion proves.
//!
//! What is copied is verified (R7): by a companion page by page, else by reading whole files (`verified`).

use super::flight::run_all;
use super::hydrating::frames;
use super::index::Frame;
use super::sidecar::{Kept, Mark, Record, digest, retain_common, with_suffix};
use super::source::Source;
use super::state::State;
use super::verified::{batches, is_streamed, leave_out_damaged, parts};
use crate::config::Hydrate;
use crate::error::{Context, Error, Kind, Result};
use crate::lock::{Mutex, PerProcess, RwLock};
use crate::ltx::{Pgno, Txid, page_checksum};
use crate::replica::Target;
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Requests at a time.
const RUNS: usize = 6;
/// Pages between two records of how far a copy has come.
const RECORD_EVERY: usize = if cfg!(test) { 8 } else { 16_384 };
/// Within that time a file is given back by a replica of this process that nobody reads any more.
const GIVEN_BACK_WITHIN: Duration = Duration::from_secs(3);
/// A program that this process has just started lets go of what was open when it was started.
const STARTED_WITHIN: Duration = Duration::from_millis(200);

/// The files that are open in this process, by device and number.
static HELD: PerProcess<Mutex<BTreeSet<(u64, u64)>>> = PerProcess::new();

/// One of them.
struct Held((u64, u64));

impl Held {
    fn is(file: &File) -> bool {
        file.metadata().is_ok_and(|stat| HELD.get().lock().contains(&(stat.dev(), stat.ino())))
    }

    fn new(file: &File) -> std::io::Result<Self> {
        let stat = file.metadata()?;
        HELD.get().lock().insert((stat.dev(), stat.ino()));
        Ok(Self((stat.dev(), stat.ino())))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        HELD.get().lock().remove(&self.0);
    }
}

/// A copy that was not made, and a page of what failed.
pub(super) struct Failed {
    pub error: Error,
    pub pgno: Option<Pgno>,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { error, pgno: None }
    }
}

/// The file and what is in it.
pub(super) struct Hydration {
    path: PathBuf,
    /// The record's place; `None` for a file without a name.
    record: Option<PathBuf>,
    file: File,
    /// Behind the file, which is unlocked by then.
    _held: Held,
    page_size: u32,
    /// Of each page the object that it came from; 0 for what is not there. Held while a page is read.
    stamps: RwLock<Vec<u64>>,
    done: AtomicU64,
    total: AtomicU64,
    kept: Mutex<Kept>,
}

fn stamp(frame: &Frame) -> u64 {
    frame.object.id.bytes().first_chunk().map_or(1, |bytes| u64::from_be_bytes(*bytes) | 1)
}

impl Hydration {
    /// Opens the file, and trusts what its record lets it.
    pub fn open(source: &Arc<Source>, wanted: &Hydrate, state: &State) -> Result<Self> {
        let is_kept = wanted.path.is_some();
        let (path, file) = match &wanted.path {
            Some(path) => {
                (path.clone(), opened(path, false).with_context(|| format!("hydrate to {}", path.display()))?)
            }
            None => temporary()?,
        };
        let since = Instant::now();
        while rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
            // Who closes a replica and opens it again, or opens one anew that was begun again, meets his own thread.
            let within = if Held::is(&file) { GIVEN_BACK_WITHIN } else { STARTED_WITHIN };
            if since.elapsed() >= within {
                return Err(Error::new(
                    Kind::Busy,
                    format!(
                        "{} is hydrated by another process or replica: give each its own hydrate_path",
                        path.display()
                    ),
                ));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let held = Held::new(&file).with_context(|| path.display().to_string())?;
        let hydration = Self {
            record: is_kept.then(|| with_suffix(&path, ".hydration")),
            path,
            file,
            _held: held,
            page_size: state.page_size.get(),
            stamps: RwLock::default(),
            done: AtomicU64::new(0),
            total: AtomicU64::new(u64::from(state.commit)),
            kept: Mutex::default(),
        };
        let record = hydration
            .read_record()
            .filter(|record| record.replica == replica_name(source) && record.page_size == hydration.page_size);
        match record.map(|record| hydration.trust(source, &record)) {
            Some(Ok(())) => {}
            // A file without a record that fits may be anybody's database.
            None if is_kept
                && hydration.file.metadata().is_ok_and(|stat| stat.len() > 0)
                && hydration.read_record().is_none() =>
            {
                return Err(Error::invalid(format!(
                    "{} is there and was not made by hydration: name another hydrate_path, or remove it",
                    hydration.path.display()
                )));
            }
            outcome => {
                if let Some(Err(error)) = outcome {
                    log::warn!("{} is hydrated anew: {error}", hydration.path.display());
                }
                hydration.stamps.write().clear();
                *hydration.kept.lock() = Kept::default();
                hydration.file.set_len(0).with_context(|| hydration.path.display().to_string())?;
            }
        }
        Ok(hydration)
    }

    /// Stamps what the record says is there.
    fn trust(&self, source: &Arc<Source>, record: &Record) -> Result<()> {
        let state = |mark: &Mark| -> Result<State> {
            let txid = Txid::new(mark.txid).ok_or_else(|| Error::corrupt("TXID 0"))?;
            let (state, _) = source.state_at(Target::Txid(txid), &|| false)?;
            if Mark::of(&state) != *mark {
                return Err(Error::new(Kind::Diverged, format!("TXID {txid} is another one now")));
            }
            Ok(state)
        };
        let mut kept = Kept { has: record.has, towards: record.towards.clone(), whole: None, record: None };
        let last = match record.towards.last() {
            Some(mark) => frames(source, &state(mark)?).map_err(|failed| failed.error)?,
            None => Vec::new(),
        };
        let mut known = Vec::new();
        if let Some(has) = &record.has {
            let all_the_same = || -> Result<Vec<Frame>> {
                let mut same = frames(source, &state(has)?).map_err(|failed| failed.error)?;
                if !record.towards.is_empty() {
                    retain_common(&mut same, &last);
                }
                for mark in record.towards.iter().rev().skip(1) {
                    retain_common(&mut same, &frames(source, &state(mark)?).map_err(|failed| failed.error)?);
                }
                Ok(same)
            };
            match all_the_same() {
                Ok(same) => known = same,
                Err(error) if record.towards.is_empty() => return Err(error),
                // What was copied since is still there.
                Err(error) => {
                    log::warn!("{}: {error}", self.path.display());
                    kept.has = None;
                    kept.towards.drain(..kept.towards.len().saturating_sub(1));
                }
            }
        }
        if record.plan == digest(&last) {
            let done = usize::try_from(record.done).unwrap_or(usize::MAX);
            known.extend(last.into_iter().take(done));
        }
        kept.whole = kept.has.filter(|_| kept.towards.is_empty());
        if !record.is_of(&self.file) {
            log::warn!("{} was changed since, or its process was killed: it is verified", self.path.display());
            known.retain(|frame| self.is_proven(frame));
            kept = Kept::default();
        }
        self.stamp_all(&known);
        *self.kept.lock() = kept;
        Ok(())
    }

    /// Whether the page in the file is what a companion says of it.
    fn is_proven(&self, frame: &Frame) -> bool {
        frame.sum.is_some() && self.page(frame).is_some_and(|page| frame.sum == Some(page_checksum(frame.pgno, &page)))
    }

    fn page(&self, frame: &Frame) -> Option<Vec<u8>> {
        let mut page = vec![0; self.page_size as usize];
        self.file.read_exact_at(&mut page, frame.object.header.page_size.offset_of(frame.pgno)).ok()?;
        Some(page)
    }

    fn stamp_all(&self, frames: &[Frame]) {
        let mut stamps = self.stamps.write();
        for frame in frames {
            if stamps.len() <= frame.pgno.index() {
                stamps.resize(frame.pgno.index() + 1, 0);
            }
            if let Some(place) = stamps.get_mut(frame.pgno.index()) {
                *place = stamp(frame);
            }
        }
    }

    fn unstamp(&self, frames: &[Frame]) {
        let mut stamps = self.stamps.write();
        for frame in frames {
            if let Some(place) = stamps.get_mut(frame.pgno.index()) {
                *place = 0;
            }
        }
    }

    fn has_frame(&self, frame: &Frame) -> bool {
        self.stamps.read().get(frame.pgno.index()) == Some(&stamp(frame))
    }

    /// The page of a frame, if it is in the file.
    pub fn get(&self, frame: &Frame) -> Option<Vec<u8>> {
        let stamps = self.stamps.read();
        if stamps.get(frame.pgno.index()) != Some(&stamp(frame)) {
            return None;
        }
        self.page(frame)
    }

    /// From 0 to 1.
    pub fn progress(&self) -> f64 {
        let (done, total) = (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed));
        if self.kept.lock().whole.is_some() { 1.0 } else { (done as f64 / total.max(1) as f64).min(0.999) }
    }

    #[cfg(test)]
    pub fn txid(&self) -> Option<u64> {
        self.kept.lock().whole.map(|mark| mark.txid)
    }

    #[cfg(test)]
    pub fn links(&self) -> u64 {
        self.file.metadata().map_or(u64::MAX, |stat| stat.nlink())
    }

    /// For messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the user finds it; a file of no name of his has none.
    pub fn named(&self) -> Option<&Path> {
        self.record.is_some().then_some(&self.path)
    }

    /// Makes the file that state.
    pub fn become_state(
        &self,
        source: &Arc<Source>,
        state: &Arc<State>,
        wanted: &dyn Fn() -> bool,
    ) -> std::result::Result<(), Failed> {
        self.copy_state(source, state, wanted).inspect_err(|_| self.rests())
    }

    fn copy_state(
        &self,
        source: &Arc<Source>,
        state: &Arc<State>,
        wanted: &dyn Fn() -> bool,
    ) -> std::result::Result<(), Failed> {
        let mark = Mark::of(state);
        let all = frames(source, state)?;
        let mut missing: Vec<Frame> = all.iter().filter(|frame| !self.has_frame(frame)).cloned().collect();
        self.total.store(all.len() as u64, Ordering::Relaxed);
        self.done.store((all.len() - missing.len()) as u64, Ordering::Relaxed);
        let mut in_a_row = self.count_in_a_row(&all, 0);
        let mut record = {
            let mut kept = self.kept.lock();
            kept.goes_towards(mark);
            Record {
                replica: replica_name(source),
                page_size: self.page_size,
                has: kept.has,
                towards: kept.towards.clone(),
                done: in_a_row as u64,
                plan: digest(&all),
                left: None,
            }
        };
        self.write_record(&record)?;
        if record.has.is_none() {
            self.file.set_len(state.size().max(self.size()?)).with_context(|| self.path.display().to_string())?;
        }
        let mut failed = leave_out_damaged(source, &mut missing);
        let mut recorded = in_a_row;
        for batch in batches(parts(missing), RUNS) {
            if !wanted() {
                return Err(super::flight::interrupted().into());
            }
            let copied = match batch.as_slice() {
                [part] if is_streamed(part) => self.copy_streamed(source, part, wanted)?,
                parts => self.copy(source, parts)?,
            };
            failed = failed.or(copied);
            // A copy is resumed where it was.
            in_a_row = self.count_in_a_row(&all, in_a_row);
            if self.record.is_some() && in_a_row - recorded >= RECORD_EVERY {
                recorded = in_a_row;
                record.done = in_a_row as u64;
                self.write_record(&record)?;
            }
            // Damage of one object does not keep the others away.
            if let Some(failed) = failed.take_if(|failed| failed.error.kind() != Kind::Corrupt) {
                return Err(failed);
            }
        }
        if let Some(failed) = failed {
            return Err(failed);
        }
        if self.size()? != state.size() {
            self.stamps.write().truncate(state.commit as usize);
            self.file.set_len(state.size()).with_context(|| self.path.display().to_string())?;
        }
        record = Record { has: Some(mark), towards: Vec::new(), done: 0, plan: String::new(), ..record };
        self.write_record(&record)?;
        let mut kept = self.kept.lock();
        (kept.has, kept.whole) = (Some(mark), Some(mark));
        kept.towards.clear();
        Ok(())
    }

    /// Copies some parts at a time, and says which failed first; what came beside it is kept.
    fn copy(&self, source: &Arc<Source>, batch: &[Vec<Frame>]) -> Result<Option<Failed>> {
        let mut failed = None;
        let works = batch.iter().map(|part| {
            let (source, part) = (Arc::clone(source), part.clone());
            move || source.fetch_part(&part)
        });
        for (part, pages) in batch.iter().zip(run_all(&|| false, works)?) {
            let pages = match pages {
                Ok(pages) => pages,
                Err(error) => {
                    failed.get_or_insert(source.failed(part, error));
                    continue;
                }
            };
            self.unstamp(part);
            pages.iter().try_for_each(|(pgno, page)| self.write(*pgno, page))?;
            self.stamp_all(part);
            self.done.fetch_add(part.len() as u64, Ordering::Relaxed);
        }
        Ok(failed)
    }

    /// Copies the pages of a large file, of which none counts before the last one came.
    fn copy_streamed(&self, source: &Arc<Source>, part: &[Frame], wanted: &dyn Fn() -> bool) -> Result<Option<Failed>> {
        self.unstamp(part);
        let mut again = true;
        loop {
            match source.stream(part, wanted, &mut |pgno, page| self.write(pgno, page)) {
                Ok(()) => break,
                // Damage on the way is not damage in the store: it is looked at once more.
                Err(error) if error.kind() == Kind::Corrupt && std::mem::take(&mut again) => {}
                Err(error) => return Ok(Some(source.failed(part, error))),
            }
        }
        self.stamp_all(part);
        self.done.fetch_add(part.len() as u64, Ordering::Relaxed);
        Ok(None)
    }

    fn write(&self, pgno: Pgno, page: &[u8]) -> Result<()> {
        let at = u64::from(self.page_size) * pgno.index() as u64;
        self.file.write_all_at(page, at).with_context(|| self.path.display().to_string())
    }

    /// How many frames from the first on are there, of which `at_least` are known to be.
    fn count_in_a_row(&self, frames: &[Frame], at_least: usize) -> usize {
        let rest = frames.get(at_least..).unwrap_or_default();
        at_least + rest.iter().take_while(|frame| self.has_frame(frame)).count()
    }

    fn size(&self) -> Result<u64> {
        Ok(self.file.metadata().with_context(|| self.path.display().to_string())?.len())
    }

    fn read_record(&self) -> Option<Record> {
        Record::read(self.record.as_ref()?)
    }

    /// Durable, and after the pages that it speaks of.
    fn write_record(&self, record: &Record) -> Result<()> {
        let Some(path) = &self.record else { return Ok(()) };
        let record = record.write(path, &self.file).with_context(|| path.display().to_string())?;
        self.kept.lock().record = Some(record);
        Ok(())
    }

    /// Nothing is written for now: the record says so, unless it does.
    fn rests(&self) {
        let record = self.kept.lock().record.clone();
        if let Some(record) = record.filter(|record| !record.is_of(&self.file))
            && let Err(error) = self.write_record(&record)
        {
            log::warn!("{error}");
        }
    }
}

impl Drop for Hydration {
    fn drop(&mut self) {
        self.rests();
    }
}

fn opened(path: &Path, must_be_new: bool) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).create_new(must_be_new).truncate(false).mode(0o600).open(path)
}

/// A file of nobody else, which goes with its descriptor, however the process ends.
fn temporary() -> Result<(PathBuf, File)> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("litestream-{}-{number}.db", std::process::id()));
        match opened(&path, true) {
            Ok(file) => {
                std::fs::remove_file(&path).with_context(|| path.display().to_string())?;
                return Ok((path, file));
            }
            // Left by a process of the same number, that was killed: in a container they repeat.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::io(format!("hydrate to {}", path.display()), &error)),
        }
    }
}

fn replica_name(source: &Source) -> String {
    let id = super::object::ObjectId::new(&source.identity, "", &crate::store::ETag(String::new()));
    id.bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}
