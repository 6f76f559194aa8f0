//! Copies within the store: its own, so that no byte comes here (P34).

use super::multipart::{Multipart, PART_BYTES_MAX, PART_BYTES_MIN, part_bytes};
use super::requests::{Call, Connection};
use super::{answers, keys, xml};
use crate::error::{Context, Result};
use crate::store::{ETag, Metadata, Object, Put};
use bytes::Bytes;
use std::sync::Arc;

/// A part of a copy, where the URL names no size. The store reads it, not we; it has to be done before the request's
/// deadline.
const COPY_PART_BYTES: u64 = 256 << 20;
/// Parts that the store copies at a time.
const PARALLEL: usize = 4;

/// Copies, if the target is free, where the store can tell.
pub(super) fn copy(connection: &Arc<Connection>, from: &str, to: &str, metadata: &Metadata) -> Result<Put> {
    let source = connection.head(from)?.ok_or_else(|| crate::store::no_object(&connection.config.shown, from))?;
    // Not every store heeds If-None-Match on CopyObject; asking before leaves only a race to those.
    if connection.head(to)?.is_some() {
        return Ok(Put::Refused);
    }
    let in_one_max = connection.config.part_size.map_or(PART_BYTES_MAX, |size| size.max(PART_BYTES_MIN));
    if source.size > in_one_max {
        return by_parts(connection, from, to, metadata, &source);
    }
    let call = from_source(Call::put(to), connection, from, &source.etag);
    let call = call.if_absent().with_metadata(metadata).header("content-type", "application/octet-stream");
    let call = call.header("x-amz-metadata-directive", "REPLACE");
    let Some(call) = connection.without_conditions(call, to)? else { return Ok(Put::Refused) };
    let answer = connection.send(call, Bytes::new())?;
    let what = connection.what("copy to", to);
    // 412 is the source's condition or the target's: the source was seen, so mostly it is the target's.
    if answer.status.as_u16() == 412 {
        return match connection.head(from)? {
            Some(now) if now.etag == source.etag => Ok(Put::Refused),
            _ => Err(crate::store::replaced(&connection.config.shown, from)),
        };
    }
    if !answer.status.is_success() || answers::fault(&answer).is_some() {
        return Err(answers::conditional_failure(&what, &answer));
    }
    Ok(Put::Done(xml::etag(&answer.body, "CopyObjectResult").context(what)?))
}

/// What is too large for CopyObject: UploadPartCopy, which drops the metadata; it is given to the upload anew.
fn by_parts(connection: &Arc<Connection>, from: &str, to: &str, metadata: &Metadata, source: &Object) -> Result<Put> {
    let wanted = connection.config.part_size.unwrap_or(COPY_PART_BYTES);
    let part_bytes = part_bytes(connection, wanted, source.size);
    let mut multipart = Multipart::create(connection, to, metadata, PARALLEL)?;
    let mut at = 0;
    while at < source.size {
        let end = source.size.min(at + part_bytes);
        multipart.part(Bytes::new(), |call| {
            let range = format!("bytes={at}-{}", end - 1);
            from_source(call, connection, from, &source.etag).header("x-amz-copy-source-range", &range)
        })?;
        at = end;
    }
    multipart.complete_if_absent()
}

/// The call with `from`, as it was seen, for its source.
fn from_source(call: Call, connection: &Connection, from: &str, etag: &ETag) -> Call {
    let config = &connection.config;
    // The source of an access point is written otherwise.
    let infix = if config.bucket.starts_with("arn:") { "/object" } else { "" };
    let source = format!("/{}{infix}/{}{from}", config.bucket, config.prefix);
    let call = call.header("x-amz-copy-source", &keys::encode_path(&source));
    call.header("x-amz-copy-source-if-match", &etag.0).may_fail_with_200()
}
