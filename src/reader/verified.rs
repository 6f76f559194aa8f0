//! What is copied is verified (R7). A page of which a companion has the checksum is proven alone; any other only by its
//! whole file, whose checksum runs over all of them. So a file without a companion is read from its first byte to its
//! last, whichever of its pages are wanted.

use super::flight::{Numbered, interrupted, run_all, shared};
use super::hydrate::Failed;
use super::index::Frame;
use super::object::Object;
use super::source::{GAP_BYTES, Source};
use crate::error::{Error, Kind, Result};
use crate::ltx::{Decoder, Pgno};
use std::io::{self, Cursor, Read};
use std::sync::Arc;

/// Bytes of one request; a larger file is not held in memory as a whole.
const REQUEST_BYTES: u64 = 4 << 20;
/// Bytes of the pages of one part: what compresses well is larger than its file.
const PAGES_BYTES: u64 = 8 << 20;
/// Requests at a time for such a file.
const REQUESTS: u64 = 6;

/// What is fetched together: neighbours in a file whose pages are proven alone, else all that is wanted of a file.
/// `frames` are in the order of objects and offsets.
pub(super) fn parts(frames: Vec<Frame>) -> Vec<Vec<Frame>> {
    let mut parts: Vec<Vec<Frame>> = Vec::new();
    for frame in frames {
        let joins = parts.last().is_some_and(|part: &Vec<Frame>| match (part.first(), part.last()) {
            (Some(first), Some(last)) if first.object.id == frame.object.id => {
                let is_near = frame.offset.checked_sub(last.end()).is_some_and(|gap| gap <= GAP_BYTES);
                let is_short = frame.end() - first.offset <= REQUEST_BYTES;
                frame.sum.is_none() || (is_near && is_short && pages_bytes(part) < PAGES_BYTES)
            }
            _ => false,
        });
        match parts.last_mut() {
            Some(part) if joins => part.push(frame),
            _ => parts.push(vec![frame]),
        }
    }
    parts
}

fn pages_bytes(part: &[Frame]) -> u64 {
    part.first().map_or(0, |frame| part.len() as u64 * frame.object.header.page_size.bytes() as u64)
}

/// Whether a part is that of a file which is too large to be held in memory, or whose pages are.
pub(super) fn is_streamed(part: &[Frame]) -> bool {
    part.first().is_some_and(|frame| {
        frame.sum.is_none() && (frame.object.info.size > REQUEST_BYTES || pages_bytes(part) > PAGES_BYTES)
    })
}

/// Up to `count` parts at a time, in their order; one that is streamed comes alone.
pub(super) fn batches(parts: Vec<Vec<Frame>>, count: usize) -> Vec<Vec<Vec<Frame>>> {
    let mut batches: Vec<Vec<Vec<Frame>>> = Vec::new();
    for part in parts {
        let has_room = |batch: &Vec<Vec<Frame>>| batch.len() < count && !batch.iter().any(|part| is_streamed(part));
        match batches.last_mut().filter(|batch| !is_streamed(&part) && has_room(batch)) {
            Some(batch) => batch.push(part),
            None => batches.push(vec![part]),
        }
    }
    batches
}

/// Takes away what is in files that are known to be damaged.
pub(super) fn leave_out_damaged(source: &Source, frames: &mut Vec<Frame>) -> Option<Failed> {
    let mut failed = None;
    frames.retain(|frame| match source.damage_of(frame) {
        Some(error) => {
            failed.get_or_insert(Failed { error, pgno: Some(frame.pgno) });
            false
        }
        None => true,
    });
    failed
}

impl Source {
    /// What is wrong with a frame's file, if that was read whole and is not what its checksum says.
    pub fn damage_of(&self, frame: &Frame) -> Option<Error> {
        if frame.sum.is_some() {
            return None;
        }
        self.damaged.lock().get(&frame.object.id).cloned()
    }

    /// Of a file that is damaged as a whole no page is read again, nor shown: any of them may be the one.
    pub fn failed(&self, part: &[Frame], error: Error) -> Failed {
        if let Some(frame) = part.first().filter(|frame| frame.sum.is_none() && error.kind() == Kind::Corrupt) {
            self.damaged.lock().insert(frame.object.id, error.clone());
            shared().cache.forget(frame.object.id);
        }
        Failed { error, pgno: part.first().map(|frame| frame.pgno) }
    }

    /// The pages of a part that is not streamed.
    pub fn fetch_part(&self, part: &[Frame]) -> Result<Numbered> {
        let Some(first) = part.first() else { return Err(Error::bug("an empty part")) };
        if first.sum.is_some() {
            return self.fetch_run(part).map(|(_, pages)| pages);
        }
        let object = &first.object;
        let read = || -> Result<Numbered> {
            let bytes = self.replica.store().get_range(&object.info.key, 0..object.info.size, Some(&object.etag))?;
            let mut pages = Vec::with_capacity(part.len());
            decoded(part, bytes.as_slice(), &mut |pgno, page| {
                pages.push((pgno, page.into()));
                Ok(())
            })?;
            Ok(pages)
        };
        // Damage on the way is not damage in the store: it is looked at once more.
        match read() {
            Err(error) if error.kind() == Kind::Corrupt => read(),
            read => read,
        }
    }

    /// Gives the pages of a part, and says at the end whether they are what their file's checksum says.
    pub fn stream(
        self: &Arc<Self>,
        part: &[Frame],
        is_wanted: &dyn Fn() -> bool,
        page_came: &mut dyn FnMut(Pgno, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let Some(object) = part.first().map(|frame| &frame.object) else { return Err(Error::bug("an empty part")) };
        let requests = Requests {
            source: self,
            object,
            at: 0,
            pieces: Vec::new().into_iter(),
            piece: Cursor::default(),
            is_wanted,
        };
        decoded(part, requests, page_came)
    }
}

/// Decodes the file of a part, all of it, and gives the pages of the part.
fn decoded(part: &[Frame], bytes: impl Read, page_came: &mut dyn FnMut(Pgno, &[u8]) -> Result<()>) -> Result<()> {
    let Some(object) = part.first().map(|frame| &frame.object) else { return Err(Error::bug("an empty part")) };
    let named = |error: Error| error.context(&object.info.key);
    let mut wanted: Vec<Pgno> = part.iter().map(|frame| frame.pgno).collect();
    wanted.sort_unstable();
    let mut decoder = Decoder::new(bytes).map_err(named)?;
    let mut page = vec![0; object.header.page_size.bytes()];
    let mut count = 0;
    while let Some(pgno) = decoder.next_page(&mut page).map_err(named)? {
        if wanted.binary_search(&pgno).is_ok() {
            page_came(pgno, &page)?;
            count += 1;
        }
    }
    decoder.finish().map_err(named)?;
    // The index by which the state was opened may have been damaged on its way.
    if count != wanted.len() {
        return Err(named(Error::corrupt(format!("{count} of {} pages", wanted.len()))));
    }
    Ok(())
}

/// An object from its first byte on, some requests at a time.
struct Requests<'a> {
    source: &'a Arc<Source>,
    object: &'a Arc<Object>,
    at: u64,
    pieces: std::vec::IntoIter<Vec<u8>>,
    piece: Cursor<Vec<u8>>,
    is_wanted: &'a dyn Fn() -> bool,
}

impl Requests<'_> {
    fn fetch(&mut self) -> Result<()> {
        if !(self.is_wanted)() {
            return Err(interrupted());
        }
        let end = self.object.info.size.min(self.at + REQUESTS * REQUEST_BYTES);
        let works = (self.at..end).step_by(REQUEST_BYTES as usize).map(|from| {
            let (source, object) = (Arc::clone(self.source), Arc::clone(self.object));
            let range = from..end.min(from + REQUEST_BYTES);
            move || source.replica.store().get_range(&object.info.key, range, Some(&object.etag))
        });
        self.pieces = run_all(&|| false, works)?.into_iter().collect::<Result<Vec<_>>>()?.into_iter();
        self.at = end;
        Ok(())
    }
}

impl Read for Requests<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.piece.read(into)?;
            if count > 0 || into.is_empty() {
                return Ok(count);
            }
            self.piece = match self.pieces.next() {
                Some(piece) => Cursor::new(piece),
                None if self.at < self.object.info.size => {
                    self.fetch().map_err(io::Error::other)?;
                    continue;
                }
                None => return Ok(0),
            };
        }
    }
}
