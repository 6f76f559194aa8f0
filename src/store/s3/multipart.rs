//! A multipart upload: created, its parts sent side by side, completed if the key is free, else aborted (P29, P34).
//!
//! Parts are equal but for the last, as R2 wants them. At most [`Multipart::parallel`] are on their way, each on a
//! thread of its own, so that memory and threads are bounded. A part that fails is tried again alone; when its time is
//! up, the upload fails as a whole.

use super::requests::{Call, Connection};
use super::{answers, object, xml};
use crate::error::{Context, Error, Kind, Result};
use crate::store::http::Answer;
use crate::store::{Metadata, Put};
use bytes::Bytes;
use http::Method;
use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// S3 takes no smaller part but the last.
pub(super) const PART_BYTES_MIN: u64 = 5 << 20;
/// S3 takes no larger part, and no larger object by CopyObject.
pub(super) const PART_BYTES_MAX: u64 = 5 << 30;
/// An upload that could not be aborted is invisible, and costs money only until it is: it is not waited for.
const ABORT_TIMEOUT: Duration = Duration::from_secs(5);

/// The size of all parts but the last, of an object of `expected` bytes: what is wanted, or more, so that nine tenths of
/// the parts that the provider takes are enough; an estimate may be a little low.
pub(super) fn part_bytes(connection: &Connection, wanted: u64, expected: u64) -> u64 {
    let planned = connection.config.provider.parts_max * 9 / 10;
    wanted.max(expected.div_ceil(planned)).clamp(PART_BYTES_MIN, PART_BYTES_MAX)
}

/// An upload under way.
pub(super) struct Multipart {
    connection: Arc<Connection>,
    key: String,
    /// `None` once it is complete.
    id: Option<String>,
    parallel: usize,
    under_way: VecDeque<JoinHandle<Result<String>>>,
    etags: Vec<String>,
}

impl Multipart {
    /// Creates the upload, with `parallel` parts on their way at a time. Metadata is given here, not with the parts.
    pub(super) fn create(
        connection: &Arc<Connection>,
        key: &str,
        metadata: &Metadata,
        parallel: usize,
    ) -> Result<Self> {
        let what = connection.what("upload", key);
        let call = Call::new(Method::POST, Some(key)).query("uploads", "").makes_object();
        let call = call.with_metadata(metadata).header("content-type", "application/octet-stream");
        let answer = connection.send(call, Bytes::new())?;
        if !answer.status.is_success() {
            return Err(answers::failure(&what, &answer));
        }
        let id = xml::value(&answer.body, "InitiateMultipartUploadResult", "UploadId").context(what)?;
        Ok(Self {
            connection: Arc::clone(connection),
            key: key.to_owned(),
            id: Some(id),
            parallel: parallel.max(1),
            under_way: VecDeque::new(),
            etags: Vec::new(),
        })
    }

    /// Sends the next part; waits while too many are on their way. `more` adds to its request.
    pub(super) fn part(&mut self, bytes: Bytes, more: impl FnOnce(Call) -> Call) -> Result<()> {
        while self.under_way.len() >= self.parallel {
            self.collect_oldest()?;
        }
        let number = self.etags.len() + self.under_way.len() + 1;
        if number as u64 > self.connection.config.provider.parts_max {
            return Err(Error::bug(format!("{}: much larger than announced", self.what())));
        }
        let call = Call::new(Method::PUT, Some(&self.key)).query("partNumber", &number.to_string());
        let call = more(call.query("uploadId", self.id()?));
        let (connection, what) = (Arc::clone(&self.connection), format!("{}, part {number}", self.what()));
        let sent = crate::thread::start("part", move || send_part(&connection, call, bytes, &what))?;
        self.under_way.push_back(sent);
        Ok(())
    }

    fn collect_oldest(&mut self) -> Result<()> {
        let Some(oldest) = self.under_way.pop_front() else { return Ok(()) };
        let etag = oldest.join().map_err(|_| Error::bug(format!("{}: sending a part panicked", self.what())))?;
        self.etags.push(etag?);
        Ok(())
    }

    /// Makes the object visible, if the key is free.
    pub(super) fn complete_if_absent(mut self) -> Result<Put> {
        while !self.under_way.is_empty() {
            self.collect_oldest()?;
        }
        // Not every store heeds If-None-Match here; asking before leaves only a race to those.
        if self.connection.head(&self.key)?.is_some() {
            return Ok(Put::Refused);
        }
        let mut body = String::from("<CompleteMultipartUpload>");
        for (i, etag) in self.etags.iter().enumerate() {
            let (number, etag) = (i + 1, quick_xml::escape::escape(etag.as_str()));
            // Writing to a string cannot fail.
            let _ = write!(body, "<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>");
        }
        body.push_str("</CompleteMultipartUpload>");
        let call = Call::new(Method::POST, Some(&self.key)).query("uploadId", self.id()?).if_absent();
        let call = call.header("content-type", "application/xml").may_fail_with_200().conflict_is_final();
        let Some(call) = self.connection.without_conditions(call, &self.key)? else { return Ok(Put::Refused) };
        let answer = self.connection.send(call, Bytes::from(body))?;
        let put = self.completed(&answer)?;
        if matches!(put, Put::Done(_)) {
            self.id = None;
        }
        Ok(put)
    }

    /// What the answer to CompleteMultipartUpload means.
    fn completed(&self, answer: &Answer) -> Result<Put> {
        let fault = answers::fault(answer);
        let code = fault.map(|fault| fault.code).unwrap_or_default();
        match (answer.status.as_u16(), code.as_str()) {
            (412, _) | (200, "PreconditionFailed") => Ok(Put::Refused),
            (200, "") => Ok(Put::Done(xml::etag(&answer.body, "CompleteMultipartUploadResult").context(self.what())?)),
            // P19: a former attempt may have completed it, and its answer was lost. Then the object in the way may be
            // ours: the caller compares.
            (404, "NoSuchUpload") if self.connection.head(&self.key)?.is_some() => Ok(Put::Refused),
            (409, _) | (404, "NoSuchUpload") => {
                let text = format!("{}; the upload starts again", answers::failure(&self.what(), answer));
                Err(Error::new(Kind::Unavailable, text))
            }
            _ => Err(answers::conditional_failure(&self.what(), answer)),
        }
    }

    fn id(&self) -> Result<&str> {
        self.id.as_deref().ok_or_else(|| Error::bug("a complete upload goes on"))
    }

    fn what(&self) -> String {
        self.connection.what("upload", &self.key)
    }
}

/// One part: its ETag.
fn send_part(connection: &Connection, call: Call, bytes: Bytes, what: &str) -> Result<String> {
    let is_copy = call.is_copy();
    let answer = connection.send(call, bytes)?;
    if !answer.status.is_success() || (is_copy && answers::fault(&answer).is_some()) {
        return Err(answers::failure(what, &answer));
    }
    if is_copy {
        return Ok(xml::etag(&answer.body, "CopyPartResult").context(what)?.0);
    }
    Ok(object::etag(&answer).context(what)?.0)
}

impl Drop for Multipart {
    /// Aborts what was begun and is not complete. Not under the gate (P24): it changes no object.
    fn drop(&mut self) {
        let Some(id) = self.id.take() else { return };
        // A part that arrives after the abort would be kept.
        self.under_way.drain(..).for_each(|part| drop(part.join()));
        abort(&self.connection, &self.key, &id);
    }
}

/// Aborts an upload, as far as that can be done soon.
pub(super) fn abort(connection: &Connection, key: &str, id: &str) {
    let call = Call::delete(key).query("uploadId", id).best_effort(ABORT_TIMEOUT);
    if let Err(error) = connection.send(call, Bytes::new()) {
        log::warn!("{}: not aborted: {error}", connection.what("upload", key));
    }
}

/// Aborts the unfinished uploads below the prefix that were begun before `before`, by the store's clock (P34).
pub(super) fn abort_older(connection: &Connection, before: crate::time::Timestamp) -> Result<usize> {
    let what = connection.what("list uploads", "");
    let call = Call::list().query("uploads", "").query("prefix", &connection.config.prefix);
    let answer =
        connection.send(call.answer_bytes_max(super::PAGE_BYTES_MAX).best_effort(ABORT_TIMEOUT), Bytes::new())?;
    if !answer.status.is_success() {
        return Err(answers::failure(&what, &answer));
    }
    let mut aborted = 0;
    // The first page, of at most 1,000, is enough for one start.
    for upload in xml::uploads(&answer.body).context(what)? {
        let Some(key) = upload.key.strip_prefix(&connection.config.prefix) else { continue };
        if upload.initiated < before {
            abort(connection, key, &upload.id);
            aborted += 1;
        }
    }
    Ok(aborted)
}
