//! Who does what: files to open, newest first, and chunks of the opened ones, which go before further files.

use super::claims::Claims;
use super::decode::Decoding;
use super::source::{Opened, Seal, fetch, open};
use super::{Fault, Outcome, PageSink, Shape};
use crate::error::{Error, Result};
use crate::lock::{Condvar, Mutex};
use crate::ltx::{IndexEntry, SegmentHash};
use crate::replica::{FileInfo, Joint, Plan, Replica, refuse_unjoined};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// All threads of one application of a plan share it.
pub(super) struct Work {
    replica: Replica,
    /// In the plan's order; places count from its end.
    files: Vec<FileInfo>,
    shape: Shape,
    sink: Arc<dyn PageSink>,
    claims: Claims,
    /// By place, of the files that were opened: neighbours must be of one history.
    joints: Mutex<BTreeMap<usize, Joint>>,
    queue: Mutex<Queue>,
    changed: Condvar,
    stopped: AtomicBool,
}

#[derive(Default)]
struct Queue {
    /// Places of files that were given out.
    opened: usize,
    chunks: VecDeque<Chunk>,
    /// Whether the index of a large file is being read: one at a time, for memory's sake.
    opening_large: bool,
    /// Jobs being done, which may yet add chunks.
    busy: usize,
    fault: Option<Fault>,
}

enum Job {
    Open(usize),
    Decode(Chunk),
}

/// Consecutive frames of a large file.
struct Chunk {
    file: Arc<LargeFile>,
    number: usize,
    entries: Vec<IndexEntry>,
}

struct LargeFile {
    place: usize,
    seal: Seal,
    /// Per chunk, and how many are missing.
    hashes: Mutex<(Vec<Option<SegmentHash>>, usize)>,
}

impl Work {
    pub fn new(replica: Replica, plan: &Plan, shape: Shape, sink: Arc<dyn PageSink>) -> Self {
        Self {
            replica,
            files: plan.files().to_vec(),
            shape,
            sink,
            claims: Claims::new(shape),
            joints: Mutex::default(),
            queue: Mutex::default(),
            changed: Condvar::new(),
            stopped: AtomicBool::new(false),
        }
    }

    /// What each thread does, until all is done or something failed.
    pub fn run(&self) {
        let _guard = PanicGuard(self);
        let mut buffer = Vec::new();
        while let Some(job) = self.next() {
            let large = matches!(job, Job::Open(place) if self.is_large(place));
            let done = match job {
                Job::Open(place) => self.open(place, &mut buffer),
                Job::Decode(chunk) => self.decode(chunk, &mut buffer),
            };
            if let Err(fault) = done {
                self.fail(fault);
            }
            let mut queue = self.queue.lock();
            queue.busy -= 1;
            queue.opening_large &= !large;
            self.changed.notify_all();
        }
    }

    fn next(&self) -> Option<Job> {
        let mut queue = self.queue.lock();
        loop {
            if self.stopped.load(Ordering::Relaxed) {
                return None;
            }
            if let Some(chunk) = queue.chunks.pop_front() {
                queue.busy += 1;
                return Some(Job::Decode(chunk));
            }
            let place = queue.opened;
            let large = self.is_large(place);
            if place < self.files.len() && !(large && queue.opening_large) {
                queue.opened += 1;
                queue.busy += 1;
                queue.opening_large |= large;
                return Some(Job::Open(place));
            }
            if place >= self.files.len() && queue.busy == 0 {
                return None;
            }
            self.changed.wait(&mut queue);
        }
    }

    fn open(&self, place: usize, buffer: &mut Vec<u8>) -> Outcome<()> {
        let (number, file) = self.file(place)?;
        let opened = open(&self.replica, file, self.shape).map_err(|error| Fault::File(number, error))?;
        if place == 0 && opened.commit != self.shape.commit {
            return Err(Fault::File(number, Error::corrupt("its header has changed since it was read")));
        }
        self.join(place, opened.joint)?;
        let Some(claimed) = self.claims.claim(place, opened) else { return Ok(()) };
        // The first one was not kept: it has come in its turn.
        let kept = claimed.iter().skip(1).map(|(_, opened)| opened.held_bytes()).sum();
        claimed.into_iter().try_for_each(|(place, opened)| self.apply(place, opened, buffer))?;
        self.claims.applied(kept);
        Ok(())
    }

    /// R3: before any page of the file is written.
    fn join(&self, place: usize, joint: Joint) -> Result<()> {
        let mut joints = self.joints.lock();
        joints.insert(place, joint);
        for older in [place, place + 1] {
            let newer = older.checked_sub(1).and_then(|newer| Some((newer, *joints.get(&newer)?)));
            if let (Some(left), Some((newer, right))) = (joints.get(&older), newer) {
                refuse_unjoined((self.file(older)?.1, *left), (self.file(newer)?.1, right))?;
            }
        }
        Ok(())
    }

    /// A file that has claimed its pages.
    fn apply(&self, place: usize, opened: Opened, buffer: &mut Vec<u8>) -> Outcome<()> {
        let (number, _) = self.file(place)?;
        let blame = |error| Fault::File(number, error);
        let Opened { seal, entries, bytes, .. } = opened;
        let Some(bytes) = bytes else { return self.split(place, seal, entries).map_err(blame) };
        let hash = self.decoding(place, number).run(seal.begin(), &bytes, 0, &entries, buffer)?;
        hash.map_or(Ok(()), |hash| seal.verify(&hash)).map_err(blame)
    }

    /// Queues a large file's frames.
    fn split(&self, place: usize, seal: Seal, entries: Vec<IndexEntry>) -> Result<()> {
        if entries.is_empty() {
            return seal.verify(&seal.begin());
        }
        let mut parts: Vec<Vec<IndexEntry>> = Vec::new();
        let mut room = 0;
        for entry in entries {
            let len = u64::from(entry.len);
            match parts.last_mut() {
                Some(part) if len <= room => part.push(entry),
                _ => {
                    parts.push(vec![entry]);
                    room = self.replica.limits.chunk_bytes;
                }
            }
            room = room.saturating_sub(len);
        }
        let file = LargeFile { place, seal, hashes: Mutex::new((vec![None; parts.len()], parts.len())) };
        let file = Arc::new(file);
        let chunk = |(number, entries)| Chunk { file: Arc::clone(&file), number, entries };
        self.queue.lock().chunks.extend(parts.into_iter().enumerate().map(chunk));
        self.changed.notify_all();
        Ok(())
    }

    fn decode(&self, chunk: Chunk, buffer: &mut Vec<u8>) -> Outcome<()> {
        let (number, file) = self.file(chunk.file.place)?;
        let blame = |error| Fault::File(number, error);
        let (Some(first), Some(last)) = (chunk.entries.first(), chunk.entries.last()) else { return Ok(()) };
        let bytes = fetch(&self.replica, file, first.offset..last.offset + u64::from(last.len)).map_err(blame)?;
        let decoding = self.decoding(chunk.file.place, number);
        let begin = if chunk.number == 0 { chunk.file.seal.begin() } else { SegmentHash::new() };
        let Some(hash) = decoding.run(begin, &bytes, first.offset, &chunk.entries, buffer)? else { return Ok(()) };
        chunk.file.finish(chunk.number, hash).map_err(blame)
    }

    fn decoding(&self, place: usize, file: usize) -> Decoding<'_> {
        Decoding {
            shape: self.shape,
            claims: &self.claims,
            sink: self.sink.as_ref(),
            stopped: &self.stopped,
            place,
            file,
        }
    }

    /// The file at a place, and its index in the plan.
    fn file(&self, place: usize) -> Result<(usize, &FileInfo)> {
        let number = self.files.len().checked_sub(place + 1);
        let found = number.and_then(|number| Some((number, self.files.get(number)?)));
        found.ok_or_else(|| Error::bug("a file that the plan does not have"))
    }

    fn is_large(&self, place: usize) -> bool {
        self.file(place).is_ok_and(|(_, file)| file.size > self.replica.limits.chunk_bytes)
    }

    /// Ends the work with a fault; the first one counts.
    pub fn fail(&self, fault: Fault) {
        self.queue.lock().fault.get_or_insert(fault);
        self.stop();
    }

    /// Ends the work.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.claims.stop();
        let _queue = self.queue.lock();
        self.changed.notify_all();
    }

    /// How it ended, once all threads have.
    pub fn outcome(&self) -> Outcome<()> {
        if let Some(fault) = self.queue.lock().fault.take() {
            return Err(fault);
        }
        match self.claims.hole(self.shape.page_size.lock_page()) {
            None => Ok(()),
            Some(pgno) => Err(Error::corrupt(format!("page {pgno} is in no file of the plan")).into()),
        }
    }
}

impl LargeFile {
    /// Keeps a chunk's hash; the last one verifies the file.
    fn finish(&self, number: usize, hash: SegmentHash) -> Result<()> {
        let mut hashes = self.hashes.lock();
        let (kept, missing) = &mut *hashes;
        if let Some(slot) = kept.get_mut(number) {
            *slot = Some(hash);
        }
        *missing = missing.saturating_sub(1);
        if *missing > 0 {
            return Ok(());
        }
        let whole = kept.iter().flatten().copied().reduce(|mut whole, next| {
            whole.combine(&next);
            whole
        });
        self.seal.verify(&whole.unwrap_or_default())
    }
}

/// The others must not wait for a thread that is gone.
struct PanicGuard<'a>(&'a Work);

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(Fault::Other(Error::bug("a thread of a restore panicked")));
        }
    }
}
