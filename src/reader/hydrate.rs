//! Hydration (R13): the replica is copied into a local database file in the background, and pages are read from there.
//!
//! Every page of the file is stamped with the object that it came from, in memory. A page is served only if the state
//! that is read has it in that very object; so what a newer TXID replaced is simply not there for an older transaction,
//! which reads it from the store as before, and no page needs to be kept back.
//!
//! The file survives the process if the user named it. Beside it lies a record: the state that the file has, or from
//! which to which it is going, synced before the first page is written. After a crash only what is the same in both
//! states is trusted.

use super::flight::run_all;
use super::index::Frame;
use super::source::{GAP_BYTES, Source};
use super::state::{Place, State};
use crate::config::Hydrate;
use crate::error::{Context, Error, Kind, Result};
use crate::lock::{Mutex, RwLock};
use crate::ltx::{Pgno, Txid};
use crate::replica::Target;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Bytes of one request.
const RUN_BYTES: u64 = 4 << 20;
/// Requests at a time.
const RUNS: usize = 6;
/// Pages between two records of how far the first copy has come.
const RECORD_EVERY: u64 = 16_384;
/// How often the thread looks whether it is still wanted.
const LOOKS: Duration = Duration::from_millis(500);
/// A failure is followed by so long a pause.
const PAUSE: Duration = Duration::from_secs(1);

/// What lies beside the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// Of which replica; a digest.
    replica: String,
    page_size: u32,
    /// The state that the file has, but for what was written towards another one.
    has: Option<Mark>,
    /// The state that is being written.
    towards: Option<Mark>,
    /// Pages of the first copy that are there, in the order of objects and offsets.
    done: u64,
}

/// Names a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    txid: u64,
    timestamp: i64,
    commit: u32,
}

impl Mark {
    fn of(state: &State) -> Self {
        Self { txid: state.txid.get(), timestamp: state.timestamp.0, commit: state.commit }
    }
}

/// The file and what is in it.
pub(super) struct Hydration {
    path: PathBuf,
    /// The record's place; `None` for a file that ends with the process.
    record: Option<PathBuf>,
    file: File,
    page_size: u32,
    /// Of each page the object that it came from; 0 for what is not there. Held while a page is read.
    stamps: RwLock<Vec<u64>>,
    done: AtomicU64,
    total: AtomicU64,
    has: Mutex<Option<Mark>>,
}

fn stamp(frame: &Frame) -> u64 {
    frame.object.id.bytes().first_chunk().map_or(1, |bytes| u64::from_be_bytes(*bytes) | 1)
}

impl Hydration {
    /// Opens the file, and trusts what its record lets it.
    fn open(source: &Arc<Source>, wanted: &Hydrate, state: &State) -> Result<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let path = wanted.path.clone().unwrap_or_else(|| {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            std::env::temp_dir().join(format!("litestream-{}-{number}.db", std::process::id()))
        });
        let is_kept = wanted.path.is_some();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .create_new(!is_kept)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("hydrate to {}", path.display()))?;
        if rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(Error::new(
                Kind::Busy,
                format!("{} is hydrated by another process: give each its own hydrate_path", path.display()),
            ));
        }
        let hydration = Self {
            record: is_kept.then(|| with_suffix(&path, ".hydration")),
            path,
            file,
            page_size: state.page_size.get(),
            stamps: RwLock::default(),
            done: AtomicU64::new(0),
            total: AtomicU64::new(u64::from(state.commit)),
            has: Mutex::default(),
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
                *hydration.has.lock() = None;
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
        let known: Vec<Frame> = match (&record.has, &record.towards) {
            (Some(has), None) => frames(source, &state(has)?)?,
            (Some(has), Some(towards)) => {
                let (has, towards) = (state(has)?, state(towards)?);
                let kept = frames(source, &has)?;
                kept.into_iter()
                    .filter(|frame| matches!(towards.find(frame.pgno), Place::At(new) if stamp(&new) == stamp(frame)))
                    .collect()
            }
            (None, Some(towards)) => {
                let mut all = frames(source, &state(towards)?)?;
                all.truncate(usize::try_from(record.done).unwrap_or(0));
                all
            }
            (None, None) => Vec::new(),
        };
        // Without what it is known to have the file was changed by somebody else.
        let size = self.file.metadata().with_context(|| self.path.display().to_string())?.len();
        let page_size = u64::from(self.page_size);
        if known.iter().any(|frame| u64::from(frame.pgno.get()) * page_size > size) {
            return Err(Error::corrupt(format!("{} is too short", self.path.display())));
        }
        self.stamp_all(&known);
        if record.towards.is_none() {
            *self.has.lock() = record.has;
        }
        Ok(())
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
        let mut page = vec![0; self.page_size as usize];
        let at = frame.object.header.page_size.offset_of(frame.pgno);
        self.file.read_exact_at(&mut page, at).ok()?;
        Some(page)
    }

    /// From 0 to 1.
    pub fn progress(&self) -> f64 {
        let (done, total) = (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed));
        if self.has.lock().is_some() { 1.0 } else { (done as f64 / total.max(1) as f64).min(0.999) }
    }

    #[cfg(test)]
    pub fn txid(&self) -> Option<u64> {
        self.has.lock().map(|mark| mark.txid)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the file that state.
    fn become_state(&self, source: &Arc<Source>, state: &Arc<State>, wanted: &dyn Fn() -> bool) -> Result<()> {
        let all = frames(source, state)?;
        let is_first = self.has.lock().is_none();
        let missing: Vec<Frame> = all.iter().filter(|frame| !self.has_frame(frame)).cloned().collect();
        self.total.store(all.len() as u64, Ordering::Relaxed);
        let mut done = (all.len() - missing.len()) as u64;
        self.done.store(done, Ordering::Relaxed);
        let mut record = Record {
            replica: replica_name(source),
            page_size: self.page_size,
            has: *self.has.lock(),
            towards: Some(Mark::of(state)),
            done,
        };
        self.write_record(&record)?;
        if is_first {
            self.file.set_len(state.size().max(self.size()?)).with_context(|| self.path.display().to_string())?;
        }
        let runs = runs(missing);
        let mut recorded = done;
        for batch in runs.chunks(RUNS) {
            if !wanted() {
                return Err(super::flight::interrupted());
            }
            let works = batch.iter().map(|run| {
                let (source, run) = (Arc::clone(source), run.clone());
                move || source.fetch_run(&run).map(|(_, pages)| pages)
            });
            for (run, pages) in batch.iter().zip(run_all(&|| false, works)?) {
                let pages = pages?;
                self.unstamp(run);
                for ((pgno, page), frame) in pages.iter().zip(run) {
                    let at = frame.object.header.page_size.offset_of(*pgno);
                    self.file.write_all_at(page, at).with_context(|| self.path.display().to_string())?;
                }
                self.stamp_all(run);
                done += run.len() as u64;
                self.done.store(done, Ordering::Relaxed);
            }
            // The first copy is resumed where it was; runs are in the order that the record counts in.
            if is_first && self.record.is_some() && done - recorded >= RECORD_EVERY {
                recorded = done;
                record.done = done;
                self.write_record(&record)?;
            }
        }
        if self.size()? != state.size() {
            self.stamps.write().truncate(state.commit as usize);
            self.file.set_len(state.size()).with_context(|| self.path.display().to_string())?;
        }
        record = Record { has: Some(Mark::of(state)), towards: None, ..record };
        self.write_record(&record)?;
        *self.has.lock() = Some(Mark::of(state));
        Ok(())
    }

    fn size(&self) -> Result<u64> {
        Ok(self.file.metadata().with_context(|| self.path.display().to_string())?.len())
    }

    fn read_record(&self) -> Option<Record> {
        let bytes = fs::read(self.record.as_ref()?).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Durable, and after the pages that it speaks of.
    fn write_record(&self, record: &Record) -> Result<()> {
        let Some(path) = &self.record else { return Ok(()) };
        let bytes = serde_json::to_vec(record).map_err(Error::bug)?;
        let write = || -> std::io::Result<()> {
            self.file.sync_data()?;
            let staged = with_suffix(path, ".tmp");
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&staged)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&staged, path)?;
            File::open(path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")))?
                .sync_all()
        };
        write().with_context(|| path.display().to_string())
    }
}

impl Drop for Hydration {
    fn drop(&mut self) {
        if self.record.is_none() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn replica_name(source: &Source) -> String {
    let id = super::object::ObjectId::new(&source.identity, "", &crate::store::ETag(String::new()));
    id.bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The frames of a state, in the order of objects and offsets.
fn frames(source: &Source, state: &State) -> Result<Vec<Frame>> {
    let mut frames = Vec::new();
    for pgno in (1..=state.commit).filter_map(Pgno::new) {
        let place = match state.find(pgno) {
            Place::Unread(index, block) => {
                index.read(source.replica.store().as_ref(), block)?;
                state.find(pgno)
            }
            place => place,
        };
        match place {
            Place::At(frame) => frames.push(frame),
            Place::Zeros => {}
            Place::Nowhere => return Err(Error::corrupt(format!("page {pgno} of TXID {} is in no file", state.txid))),
            Place::Unread(..) => return Err(Error::new(Kind::Busy, "no memory is left for the index")),
        }
    }
    frames.sort_unstable_by_key(|frame| (*frame.object.id.bytes(), frame.offset));
    Ok(frames)
}

fn runs(frames: Vec<Frame>) -> Vec<Vec<Frame>> {
    let mut runs: Vec<Vec<Frame>> = Vec::new();
    for frame in frames {
        let joins = runs.last().is_some_and(|run| match (run.first(), run.last()) {
            (Some(first), Some(last)) => {
                first.object.id == frame.object.id
                    && frame.offset - last.end() <= GAP_BYTES
                    && frame.end() - first.offset <= RUN_BYTES
            }
            _ => false,
        });
        match runs.last_mut() {
            Some(run) if joins => run.push(frame),
            _ => runs.push(vec![frame]),
        }
    }
    runs
}

impl Source {
    /// Starts copying, once per replica and process. `state`: where to begin.
    pub fn start_hydrating(self: &Arc<Self>, wanted: &Hydrate, state: &Arc<State>) -> Result<()> {
        let mut place = self.hydration.write();
        if place.is_some() {
            return Ok(());
        }
        let hydration = Arc::new(Hydration::open(self, wanted, state)?);
        let (source, state, copied) = (Arc::downgrade(self), Arc::downgrade(state), Arc::downgrade(&hydration));
        crate::thread::start("hydrate", move || {
            let _ = crate::panic::guard(|| hydrate(&source, &state, &copied));
        })?;
        *place = Some(hydration);
        Ok(())
    }
}

/// Follows the newest state, or copies the one that was opened, as long as somebody reads.
fn hydrate(source: &Weak<Source>, opened: &Weak<State>, hydration: &Weak<Hydration>) {
    let wanted = || source.strong_count() > 0;
    let mut copied = None;
    loop {
        let Some((now, hydration)) = source.upgrade().zip(hydration.upgrade()) else { return };
        let state = now.current.read().clone().or_else(|| opened.upgrade());
        let mut pause = LOOKS;
        if let Some(state) = state.filter(|state| copied != Some(state.counter)) {
            match hydration.become_state(&now, &state, &|| source.strong_count() > 1) {
                Ok(()) => copied = Some(state.counter),
                Err(error) if error.kind() == Kind::Interrupted => {}
                Err(error) => {
                    now.note(&error.context(format!("hydrate {}", hydration.path.display())));
                    pause = PAUSE;
                }
            }
        } else if now.current.read().is_some() {
            let mut follow = now.follow.lock();
            now.changed.wait_for(&mut follow, LOOKS);
            continue;
        }
        drop((now, hydration));
        if !wanted() {
            return;
        }
        std::thread::sleep(pause);
    }
}
