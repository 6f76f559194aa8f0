//! Hydration (R13): the replica is copied into a local database file in the background, and pages are read from there.
//!
//! Every page of the file is stamped, in memory, with the object that it came from. A page is served only if the state
//! that is read has it in that very object; so what a newer TXID replaced is simply not there for an older transaction,
//! which reads it from the store as before, and no page needs to be kept back.
//!
//! The file survives the process if the user named it. Beside it lie the stamps, with checksums (`sidecar`): however the
//! copy was broken off, and whoever wrote into it since, a page that fits its checksum is there, and no other one.
//!
//! What is copied is verified (R7): by a companion page by page, else by reading whole files (`verified`).

use super::flight::run_all;
use super::hydrating::frames;
use super::index::Frame;
use super::sidecar::{Sidecar, Stamp, stamp_of, with_suffix};
use super::source::Source;
use super::state::State;
use super::verified::{batches, is_streamed, leave_out_damaged, parts};
use crate::config::Hydrate;
use crate::error::{Context, Error, Kind, Result};
use crate::lock::{Mutex, PerProcess, RwLock};
use crate::ltx::{Pgno, page_checksum};
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Requests at a time.
const RUNS: usize = 6;
/// In a stamp in memory: the page was compared with its checksum, or written, since the file was opened.
const CHECKED: Stamp = 1;
/// Pages between two looks whether the copy is still wanted.
const LOOKS_EVERY: usize = 1024;
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
    file: File,
    /// Behind the file, which is unlocked by then.
    _held: Held,
    /// `None` for a file without a name.
    sidecar: Option<Sidecar>,
    page_size: u32,
    /// Of each page the object that it came from, and [`CHECKED`]; 0 for what is not there. Held while a page is read.
    stamps: RwLock<Vec<AtomicU64>>,
    done: AtomicU64,
    total: AtomicU64,
    /// The last TXID of which all was here; 0 before the first.
    whole: AtomicU64,
}

impl Hydration {
    /// Opens the file with what is in it.
    pub fn open(wanted: &Hydrate, state: &State) -> Result<Self> {
        let (path, file) = match &wanted.path {
            Some(path) => {
                (path.clone(), opened(path, false).with_context(|| format!("hydrate to {}", path.display()))?)
            }
            None => temporary()?,
        };
        let held = locked(&path, &file)?;
        let page_size = state.page_size.get();
        let sidecar = match &wanted.path {
            Some(_) => Some(beside(&path, &file, page_size)?),
            None => None,
        };
        let stamps = match &sidecar {
            Some(sidecar) => {
                let pages = file.metadata().map(|stat| stat.len() / u64::from(page_size));
                pages.and_then(|pages| sidecar.stamps(pages)).with_context(|| path.display().to_string())?
            }
            None => Vec::new(),
        };
        Ok(Self {
            path,
            file,
            _held: held,
            sidecar,
            page_size,
            stamps: RwLock::new(stamps.into_iter().map(AtomicU64::new).collect()),
            done: AtomicU64::new(0),
            total: AtomicU64::new(u64::from(state.commit)),
            whole: AtomicU64::new(0),
        })
    }

    /// The page of a frame, if it is in the file.
    pub fn get(&self, frame: &Frame) -> Option<Vec<u8>> {
        let stamps = self.stamps.read();
        let place = stamps.get(frame.pgno.index())?;
        let (stamp, stamped) = (stamp_of(frame), place.load(Ordering::Relaxed));
        if stamped & !CHECKED != stamp {
            return None;
        }
        let page = self.page(frame)?;
        if stamped & CHECKED == 0 {
            let sum = self.sidecar.as_ref()?.sum(frame.pgno, stamp).ok()?;
            let is_right = sum == page_checksum(frame.pgno, &page);
            place.store(if is_right { stamp | CHECKED } else { 0 }, Ordering::Relaxed);
            return is_right.then_some(page);
        }
        Some(page)
    }

    /// Whether the page of a frame is in the file, which is read if it was not yet.
    fn has(&self, frame: &Frame) -> bool {
        let stamped = self.stamps.read().get(frame.pgno.index()).map_or(0, |place| place.load(Ordering::Relaxed));
        stamped == stamp_of(frame) | CHECKED || self.get(frame).is_some() || self.has_by_another_object(frame)
    }

    /// Compacted files, and snapshots, hold pages that came from others: a companion tells that they are the same ones.
    fn has_by_another_object(&self, frame: &Frame) -> bool {
        let Some(sum) = frame.sum else { return false };
        self.page(frame).is_some_and(|page| page_checksum(frame.pgno, &page) == sum)
            && self.stamp(stamp_of(frame), &[(frame.pgno, sum)]).is_ok()
    }

    fn page(&self, frame: &Frame) -> Option<Vec<u8>> {
        let mut page = vec![0; self.page_size as usize];
        self.file.read_exact_at(&mut page, frame.object.header.page_size.offset_of(frame.pgno)).ok()?;
        Some(page)
    }

    /// Pages that were written, with their checksums, are there.
    fn stamp(&self, stamp: Stamp, pages: &[(Pgno, u64)]) -> Result<()> {
        let Some(last) = pages.iter().map(|(pgno, _)| pgno.index()).max() else { return Ok(()) };
        if let Some(sidecar) = &self.sidecar {
            sidecar.put(stamp, pages).with_context(|| self.path.display().to_string())?;
        }
        let mut stamps = self.stamps.write();
        if stamps.len() <= last {
            stamps.resize_with(last + 1, AtomicU64::default);
        }
        for (pgno, _) in pages {
            if let Some(place) = stamps.get_mut(pgno.index()) {
                *place.get_mut() = stamp | CHECKED;
            }
        }
        Ok(())
    }

    /// Pages that are about to be written are not there.
    fn unstamp(&self, frames: &[Frame]) {
        let mut stamps = self.stamps.write();
        for frame in frames {
            if let Some(place) = stamps.get_mut(frame.pgno.index()) {
                *place.get_mut() = 0;
            }
        }
    }

    /// From 0 to 1.
    pub fn progress(&self) -> f64 {
        let (done, total) = (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed));
        if self.is_whole() { 1.0 } else { (done as f64 / total.max(1) as f64).min(0.999) }
    }

    fn is_whole(&self) -> bool {
        self.whole.load(Ordering::Relaxed) != 0
    }

    #[cfg(test)]
    pub fn txid(&self) -> Option<u64> {
        self.is_whole().then(|| self.whole.load(Ordering::Relaxed))
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
        self.sidecar.is_some().then_some(&self.path)
    }

    /// Makes the file that state.
    pub fn become_state(
        &self,
        source: &Arc<Source>,
        state: &Arc<State>,
        wanted: &dyn Fn() -> bool,
    ) -> std::result::Result<(), Failed> {
        let mut missing = self.missing(frames(source, state)?, wanted)?;
        let mut failed = leave_out_damaged(source, &mut missing);
        for batch in batches(parts(missing), RUNS) {
            if !wanted() {
                return Err(super::flight::interrupted().into());
            }
            let copied = match batch.as_slice() {
                [part] if is_streamed(part) => self.copy_streamed(source, part, wanted)?,
                parts => self.copy(source, parts)?,
            };
            failed = failed.or(copied);
            // Damage of one object does not keep the others away.
            if let Some(failed) = failed.take_if(|failed| failed.error.kind() != Kind::Corrupt) {
                return Err(failed);
            }
        }
        if let Some(failed) = failed {
            return Err(failed);
        }
        self.is_complete(state).with_context(|| self.path.display().to_string())?;
        Ok(())
    }

    /// Those frames whose pages are not in the file.
    fn missing(&self, frames: Vec<Frame>, wanted: &dyn Fn() -> bool) -> Result<Vec<Frame>> {
        self.total.store(frames.len() as u64, Ordering::Relaxed);
        self.done.store(0, Ordering::Relaxed);
        let mut missing = Vec::new();
        for (number, frame) in frames.into_iter().enumerate() {
            if number % LOOKS_EVERY == 0 && !wanted() {
                return Err(super::flight::interrupted());
            }
            if self.has(&frame) {
                self.done.fetch_add(1, Ordering::Relaxed);
            } else {
                missing.push(frame);
            }
        }
        Ok(missing)
    }

    fn is_complete(&self, state: &State) -> std::io::Result<()> {
        self.stamps.write().truncate(state.commit as usize);
        if self.file.metadata()?.len() != state.size() {
            self.sidecar.as_ref().map_or(Ok(()), |sidecar| sidecar.truncate(state.commit))?;
            self.file.set_len(state.size())?;
        }
        self.whole.store(state.txid.get(), Ordering::Relaxed);
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
            let written = pages.iter().map(|(pgno, page)| self.write(*pgno, page)).collect::<Result<Vec<_>>>()?;
            self.came_from(part, &written)?;
        }
        Ok(failed)
    }

    /// Copies the pages of a large file, of which none counts before the last one came.
    fn copy_streamed(&self, source: &Arc<Source>, part: &[Frame], wanted: &dyn Fn() -> bool) -> Result<Option<Failed>> {
        self.unstamp(part);
        let done = self.done.load(Ordering::Relaxed);
        let mut again = true;
        loop {
            let mut written = Vec::with_capacity(part.len());
            let outcome = source.stream(part, wanted, &mut |pgno, page| {
                written.push(self.write(pgno, page)?);
                Ok(())
            });
            let Err(error) = outcome else {
                self.came_from(part, &written)?;
                return Ok(None);
            };
            self.done.store(done, Ordering::Relaxed);
            // Damage on the way is not damage in the store: it is looked at once more.
            if error.kind() != Kind::Corrupt || !std::mem::take(&mut again) {
                return Ok(Some(source.failed(part, error)));
            }
        }
    }

    /// Writes a page, which does not count yet, and gives its checksum.
    fn write(&self, pgno: Pgno, page: &[u8]) -> Result<(Pgno, u64)> {
        let at = u64::from(self.page_size) * pgno.index() as u64;
        self.file.write_all_at(page, at).with_context(|| self.path.display().to_string())?;
        self.done.fetch_add(1, Ordering::Relaxed);
        Ok((pgno, page_checksum(pgno, page)))
    }

    /// All pages of a part were written.
    fn came_from(&self, part: &[Frame], written: &[(Pgno, u64)]) -> Result<()> {
        part.first().map_or(Ok(()), |first| self.stamp(stamp_of(first), written))
    }
}

/// Takes the file for this replica alone.
fn locked(path: &Path, file: &File) -> Result<Held> {
    let since = Instant::now();
    while rustix::fs::flock(file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
        // Who closes a replica and opens it again, or opens one anew that was begun again, meets his own thread.
        let within = if Held::is(file) { GIVEN_BACK_WITHIN } else { STARTED_WITHIN };
        if since.elapsed() >= within {
            return Err(Error::new(
                Kind::Busy,
                format!("{} is hydrated by another process or replica: give each its own hydrate_path", path.display()),
            ));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Held::new(file).with_context(|| path.display().to_string())
}

/// What lies beside a file. One without it may be anybody's database.
fn beside(path: &Path, file: &File, page_size: u32) -> Result<Sidecar> {
    let beside = with_suffix(path, ".hydration");
    let named = || beside.display().to_string();
    let is_empty = file.metadata().with_context(|| path.display().to_string())?.len() == 0;
    match Sidecar::existing(&beside).with_context(named)? {
        Some(sidecar) if sidecar.page_size == page_size && !is_empty => return Ok(sidecar),
        None if !is_empty => {
            return Err(Error::invalid(format!(
                "{} is there and was not made by hydration: name another hydrate_path, or remove it",
                path.display()
            )));
        }
        _ => {}
    }
    file.set_len(0).with_context(|| path.display().to_string())?;
    Sidecar::new(&beside, page_size).with_context(named)
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
