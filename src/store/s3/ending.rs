//! The end of an object and what HEAD tells of it, in one GET: `Range: bytes=-n` (RFC 9110 14.1.2).
//!
//! Some servers take such a range for another one, or refuse it where the object is shorter. So an answer counts if its
//! length and its Content-Range prove that it is the end; else HEAD says the size, and a plain range under If-Match
//! brings the bytes.

use super::requests::{Call, Connection};
use super::{S3Store, answers, object};
use crate::error::{Error, Kind, Result};
use crate::store::http::Answer;
use crate::store::{Ending, Store};
use bytes::Bytes;
use http::Method;

/// An object may be replaced between HEAD and GET, but not again and again.
const ATTEMPTS: usize = 3;

/// As [`Store::get_end`]; the key is checked.
pub(super) fn get_end(store: &S3Store, key: &str, length: u64) -> Result<Option<Ending>> {
    // There is no range of no bytes, and no object is longer than 2^63.
    let asked = length.clamp(1, i64::MAX as u64);
    let mut ending = match by_suffix(&store.0, key, asked)? {
        Some(Found::Ending(ending)) => ending,
        Some(Found::Unproven) => match by_head(store, key, asked)? {
            Some(ending) => ending,
            None => return Ok(None),
        },
        None => return Ok(None),
    };
    if length == 0 {
        ending.bytes.clear();
    }
    Ok(Some(ending))
}

enum Found {
    Ending(Ending),
    /// An answer that may be anything.
    Unproven,
}

fn by_suffix(connection: &Connection, key: &str, asked: u64) -> Result<Option<Found>> {
    let call = no_cache(Call::get(key)).header("range", &format!("bytes=-{asked}"));
    let answer = match connection.send(call.answer_bytes_max(asked), Bytes::new()) {
        Ok(answer) => answer,
        // More than was asked for: all of a large object, from a server that does not know such ranges.
        Err(error) if error.kind() == Kind::Corrupt => return Ok(Some(Found::Unproven)),
        Err(error) => return Err(error),
    };
    match answer.status.as_u16() {
        200 | 206 => Ok(Some(proven(answer, asked).map_or(Found::Unproven, Found::Ending))),
        // An empty object, or one that is shorter than what was asked for.
        416 => Ok(Some(Found::Unproven)),
        404 if answers::is_of_object(&answer) => Ok(None),
        _ => Err(answers::failure(&connection.what("get", key), &answer)),
    }
}

fn proven(answer: Answer, asked: u64) -> Option<Ending> {
    let length = answer.body.len() as u64;
    let size = match answer.header("content-range") {
        // Under a status of 200, too, which rclone gives.
        Some(range) => {
            let (first, last, total) = object::content_range(range)?;
            let total = total?;
            let holds = first == total.saturating_sub(asked) && last.checked_add(1) == Some(total);
            (holds && total.checked_sub(first) == Some(length)).then_some(total)?
        }
        // The whole object. One of just that length could as well be the end of a longer one.
        None => (answer.status.as_u16() == 200 && length < asked).then_some(length)?,
    };
    let object = object::of_size(&answer, size).ok()?;
    Some(Ending { object, bytes: answer.body })
}

fn by_head(store: &S3Store, key: &str, asked: u64) -> Result<Option<Ending>> {
    let mut replaced = None;
    for _ in 0..ATTEMPTS {
        let call = no_cache(Call::new(Method::HEAD, Some(key)));
        let Some(object) = store.0.head_by(call, key)? else { return Ok(None) };
        let range = object.size.saturating_sub(asked)..object.size;
        match store.get_range(key, range.clone(), Some(&object.etag)) {
            Ok(bytes) if bytes.len() as u64 == range.end - range.start => {
                return Ok(Some(Ending { object, bytes }));
            }
            Ok(bytes) => {
                let (got, size) = (bytes.len(), object.size);
                let text = format!("the last {} of {size} bytes are {got}", range.end - range.start);
                return Err(Error::corrupt(text).context(store.0.what("get", key)));
            }
            Err(error) if matches!(error.kind(), Kind::Conflict | Kind::NotFound) => replaced = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(replaced.unwrap_or_else(|| Error::bug("no attempt was made")))
}

/// A cache in between may have an answer that was true some time ago.
fn no_cache(call: Call) -> Call {
    call.header("cache-control", "no-cache")
}
