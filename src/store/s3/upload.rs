//! Objects of unknown length: one PUT if they fit in a part, a multipart upload else (P34).

use super::requests::{Call, Connection};
use super::{answers, object, xml};
use crate::error::{Context, Error, Kind, Result};
use crate::store::http::Answer;
use crate::store::{ETag, Metadata, Put, Upload};
use bytes::Bytes;
use http::Method;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

/// P34.
const PART_BYTES_DEFAULT: u64 = 8 << 20;
/// S3 takes no smaller part but the last.
const PART_BYTES_MIN: u64 = 5 << 20;
/// S3 takes no more. Parts are sized for 9,000, so that an estimate may be a little low.
const PARTS_MAX: usize = 10_000;
const PARTS_PLANNED: u64 = 9_000;
/// An upload that could not be aborted is invisible, and costs money only until it is: it is not waited for.
const ABORT_TIMEOUT: Duration = Duration::from_secs(5);

/// An object on its way. One part is kept in memory, and while it is sent nothing more is taken.
pub(super) struct S3Upload {
    connection: Arc<Connection>,
    key: String,
    metadata: Metadata,
    part_bytes: usize,
    buffer: Vec<u8>,
    /// Once the first part is full.
    id: Option<String>,
    etags: Vec<String>,
}

impl S3Upload {
    pub(super) fn new(connection: Arc<Connection>, key: &str, metadata: &Metadata, expected: u64) -> Self {
        let wanted = connection.config.part_size.unwrap_or(PART_BYTES_DEFAULT).max(PART_BYTES_MIN);
        let part_bytes = usize::try_from(wanted.max(expected.div_ceil(PARTS_PLANNED))).unwrap_or(usize::MAX);
        let (key, metadata) = (key.to_owned(), metadata.clone());
        Self { connection, key, metadata, part_bytes, buffer: Vec::new(), id: None, etags: Vec::new() }
    }

    fn what(&self) -> String {
        self.connection.what("upload", &self.key)
    }

    /// The upload's id; creates it at the first call.
    fn id(&mut self) -> Result<String> {
        if let Some(id) = &self.id {
            return Ok(id.clone());
        }
        let call = Call::new(Method::POST, Some(&self.key)).query("uploads", "").makes_object();
        let call = call.with_metadata(&self.metadata).header("content-type", "application/octet-stream");
        let answer = self.connection.send(call, Bytes::new())?;
        if !answer.status.is_success() {
            return Err(answers::failure(&self.what(), &answer));
        }
        let id = xml::value(&answer.body, "InitiateMultipartUploadResult", "UploadId").context(self.what())?;
        self.id = Some(id.clone());
        Ok(id)
    }

    /// Sends the buffer as the next part.
    fn send_part(&mut self) -> Result<()> {
        let number = self.etags.len() + 1;
        if number > PARTS_MAX {
            return Err(Error::bug(format!("{}: much larger than announced", self.what())));
        }
        let id = self.id()?;
        let bytes = Bytes::from(std::mem::take(&mut self.buffer));
        let call = Call::new(Method::PUT, Some(&self.key));
        let call = call.query("partNumber", &number.to_string()).query("uploadId", &id);
        let answer = self.connection.send(call, bytes)?;
        if !answer.status.is_success() {
            return Err(answers::failure(&format!("{}, part {number}", self.what()), &answer));
        }
        self.etags.push(object::etag(&answer).context(self.what())?.0);
        Ok(())
    }

    fn complete(&mut self) -> Result<Put> {
        let id = self.id()?;
        // Not every store heeds If-None-Match here; asking before leaves only a race to those (P29 probes for it).
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
        let call = Call::new(Method::POST, Some(&self.key)).query("uploadId", &id).if_absent();
        let call = call.header("content-type", "application/xml").may_fail_with_200().conflict_is_final();
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
            (200, "") => {
                let etag = xml::value(&answer.body, "CompleteMultipartUploadResult", "ETag").context(self.what())?;
                Ok(Put::Done(ETag(etag)))
            }
            (409, _) => {
                let text = format!("{}; the upload starts again", answers::failure(&self.what(), answer));
                Err(Error::new(Kind::Unavailable, text))
            }
            // P19: a former attempt may have completed it, and its answer was lost. Then the object in the way may be
            // ours: the caller compares.
            (404, "NoSuchUpload") if self.connection.head(&self.key)?.is_some() => Ok(Put::Refused),
            (404, "NoSuchUpload") => {
                let text = format!("{}; the upload starts again", answers::failure(&self.what(), answer));
                Err(Error::new(Kind::Unavailable, text))
            }
            _ => Err(answers::conditional_failure(&self.what(), answer)),
        }
    }
}

impl Upload for S3Upload {
    fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            if self.buffer.len() >= self.part_bytes {
                self.send_part()?;
            }
            let room = self.part_bytes - self.buffer.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    fn finish_if_absent(mut self: Box<Self>) -> Result<Put> {
        if self.id.is_none() {
            let body = Bytes::from(std::mem::take(&mut self.buffer));
            return self.connection.put(Call::put(&self.key).if_absent(), &self.key, body, &self.metadata);
        }
        self.send_part()?; // never empty: a full part waits until more comes
        self.complete()
    }
}

impl Drop for S3Upload {
    /// Aborts what was begun and is not complete. Not under the gate (P24): it changes no object.
    fn drop(&mut self) {
        let Some(id) = self.id.take() else { return };
        let call = Call::delete(&self.key).query("uploadId", &id).best_effort(ABORT_TIMEOUT);
        if let Err(error) = self.connection.send(call, Bytes::new()) {
            log::warn!("{}: not aborted: {error}", self.what());
        }
    }
}
