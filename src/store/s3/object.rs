//! What the head of an answer says about an object.

use crate::error::{Error, Result};
use crate::store::http::{Answer, parse_http_date};
use crate::store::names::sorted;
use crate::store::{ETag, Metadata, Object};
use crate::time::Timestamp;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use std::ops::Range;

const PREFIX: &str = "x-amz-meta-";
/// Where Litestream keeps the timestamp (FORMATS 9).
const TIMESTAMP: &str = "litestream-timestamp";

/// The object's ETag.
pub(super) fn etag(answer: &Answer) -> Result<ETag> {
    let etag = answer.header("etag").filter(|etag| !etag.is_empty());
    etag.map(|etag| ETag(etag.to_owned())).ok_or_else(|| Error::corrupt("the answer has no ETag"))
}

/// The answer to a HEAD.
pub(super) fn object(answer: &Answer) -> Result<Object> {
    let size = answer.header("content-length").and_then(|length| length.parse().ok());
    of_size(answer, size.ok_or_else(|| Error::corrupt("the answer has no length"))?)
}

/// The same, of an answer that has not all of the object.
pub(super) fn of_size(answer: &Answer, size: u64) -> Result<Object> {
    let modified = answer.header("last-modified").and_then(parse_http_date);
    let modified = modified.ok_or_else(|| Error::corrupt("the answer has no time"))?;
    Ok(Object { size, modified, etag: etag(answer)?, metadata: metadata(&answer.headers) })
}

/// The pairs that any answer about an object tells.
pub(super) fn pairs(answer: &Answer) -> Vec<(String, String)> {
    metadata(&answer.headers).pairs
}

fn metadata(headers: &HeaderMap) -> Metadata {
    let mut metadata = Metadata::default();
    for (name, value) in headers {
        let Some(name) = name.as_str().strip_prefix(PREFIX) else { continue };
        // A value that is not text is not ours.
        let Ok(value) = value.to_str() else { continue };
        if name == TIMESTAMP {
            metadata.timestamp = Timestamp::parse_rfc3339(value);
        } else {
            metadata.pairs.push((name.to_owned(), value.to_owned()));
        }
    }
    metadata.pairs = sorted(metadata.pairs);
    metadata
}

/// The headers that keep the metadata.
pub(super) fn metadata_headers(metadata: &Metadata) -> Vec<(HeaderName, HeaderValue)> {
    let timestamp = metadata.timestamp.map(|time| (TIMESTAMP.to_owned(), time.to_rfc3339_trimmed()));
    let pairs = metadata.pairs.iter().cloned().chain(timestamp);
    pairs
        .filter_map(|(name, value)| {
            // `check_metadata` has let them through.
            let name = HeaderName::try_from(format!("{PREFIX}{name}")).ok()?;
            Some((name, HeaderValue::try_from(value).ok()?))
        })
        .collect()
}

/// The bytes of a 206, which must be those that were asked for, unless the object ends before.
pub(super) fn ranged(answer: Answer, asked: Range<u64>) -> Result<Vec<u8>> {
    let length = answer.body.len() as u64;
    let got = answer.header("content-range").and_then(content_range);
    let holds = match got {
        Some((first, last, total)) => {
            let end = last.saturating_add(1);
            first == asked.start && end == first.saturating_add(length) && (end == asked.end || Some(end) == total)
        }
        None => length == asked.end - asked.start,
    };
    if holds {
        return Ok(answer.body);
    }
    let said = answer.header("content-range").unwrap_or("none").to_owned();
    let (start, end) = (asked.start, asked.end);
    Err(Error::corrupt(format!("asked for the bytes {start} to {end}, got {length} (Content-Range: {said})")))
}

/// `bytes 0-9/100`, or `/*`: first, last, total (RFC 9110 14.4).
pub(super) fn content_range(text: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?, total.parse().ok()))
}
