//! Building, signing and sending S3's requests.

use super::config::Config;
use super::credentials::Held;
use super::sign::S3Signer;
use super::{answers, keys, object};
use crate::error::{Context, Error, Result};
use crate::store::digest::hex_sha256;
use crate::store::http::{Answer, Http, Protocol, Request};
use crate::store::tally::Tally;
use crate::store::{ETag, Metadata, Object, Options, Put};
use crate::time::Timestamp;
use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, request::Parts};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// Answers other than objects and listings are a few words.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// One request of S3's, before it is signed.
pub(super) struct Call {
    method: Method,
    /// `None`: the bucket.
    key: Option<String>,
    query: Vec<(&'static str, String)>,
    headers: HeaderMap,
    answer_bytes_max: u64,
    may_fail_with_200: bool,
    conflict_is_final: bool,
    makes_object: bool,
    overall_timeout: Option<Duration>,
}

impl Call {
    pub(super) fn new(method: Method, key: Option<&str>) -> Self {
        Self {
            method,
            key: key.map(str::to_owned),
            query: Vec::new(),
            headers: HeaderMap::new(),
            answer_bytes_max: ANSWER_BYTES_MAX,
            may_fail_with_200: false,
            conflict_is_final: false,
            makes_object: false,
            overall_timeout: None,
        }
    }
    pub(super) fn list() -> Self {
        Self::new(Method::GET, None)
    }
    pub(super) fn get(key: &str) -> Self {
        Self::new(Method::GET, Some(key))
    }
    pub(super) fn put(key: &str) -> Self {
        Self { makes_object: true, ..Self::new(Method::PUT, Some(key)) }
    }
    pub(super) fn delete(key: &str) -> Self {
        Self::new(Method::DELETE, Some(key))
    }
    pub(super) fn query(mut self, name: &'static str, value: &str) -> Self {
        self.query.push((name, value.to_owned()));
        self
    }
    /// Values that no header can carry are left out: keys are encoded, ETags and ids come from headers and XML text.
    pub(super) fn header(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(HeaderName::from_static(name), value);
        }
        self
    }
    pub(super) fn with_metadata(mut self, metadata: &Metadata) -> Self {
        self.headers.extend(object::metadata_headers(metadata));
        self
    }
    pub(super) fn if_absent(self) -> Self {
        self.header("if-none-match", "*")
    }
    pub(super) fn if_match(self, etag: &ETag) -> Self {
        self.header("if-match", &etag.0)
    }
    pub(super) fn answer_bytes_max(mut self, bytes: u64) -> Self {
        self.answer_bytes_max = bytes;
        self
    }
    /// CompleteMultipartUpload and CopyObject send their head before they know their end.
    pub(super) fn may_fail_with_200(mut self) -> Self {
        self.may_fail_with_200 = true;
        self
    }
    /// The bytes come from another object of the store.
    pub(super) fn is_copy(&self) -> bool {
        self.headers.contains_key("x-amz-copy-source")
    }
    /// A multipart upload that met a conflict starts again from its creation (P29).
    pub(super) fn conflict_is_final(mut self) -> Self {
        self.conflict_is_final = true;
        self
    }
    /// The request makes an object: storage class and encryption apply.
    pub(super) fn makes_object(mut self) -> Self {
        self.makes_object = true;
        self
    }
    /// Shorter than usual, for what is not worth a wait. It does not ask the gate either.
    pub(super) fn best_effort(mut self, overall_timeout: Duration) -> Self {
        self.overall_timeout = Some(overall_timeout);
        self
    }
}

/// The bucket, with all that its requests share.
pub(super) struct Connection {
    pub(super) config: Config,
    pub(super) tally: Tally,
    http: Arc<Http>,
    signer: Arc<S3Signer>,
}

impl Connection {
    pub(super) fn new(config: Config, env: HashMap<String, String>, options: &Options) -> Self {
        let signer = Arc::new(S3Signer::new(&config.region, env));
        let http = Arc::new(Http::new(&config.origin, config.skip_verify, options.limits, options.gate.clone()));
        Self { config, tally: Tally::default(), http, signer }
    }

    /// The same bucket, at another path.
    pub(super) fn at_path(&self, path: &str) -> Self {
        let config = self.config.at_path(path);
        Self { config, tally: Tally::default(), http: Arc::clone(&self.http), signer: Arc::clone(&self.signer) }
    }

    pub(super) fn clock_offset_ms(&self) -> i64 {
        self.http.clock_offset_ms()
    }

    pub(super) fn trouble(&self) -> Option<(Error, Timestamp)> {
        self.http.trouble()
    }

    /// `s3://bucket/path: put 0000/…`, for messages.
    pub(super) fn what(&self, verb: &str, key: &str) -> String {
        format!("{}: {verb} {key}", self.config.shown).trim_end().to_owned()
    }

    /// The request of a call, but for its signature.
    fn request(&self, call: &Call, body: Bytes) -> Result<Request> {
        let mut url = format!("{}{}", self.config.origin, self.config.base_path);
        match &call.key {
            Some(key) => url = format!("{url}/{}{}", keys::encode_path(&self.config.prefix), keys::encode_path(key)),
            None if self.config.base_path.is_empty() => url.push('/'),
            None => {}
        }
        for (i, (name, value)) in call.query.iter().enumerate() {
            let separator = if i == 0 { '?' } else { '&' };
            url = format!("{url}{separator}{name}={}", keys::encode(value));
        }
        let mut headers = call.headers.clone();
        let digest = if self.config.sign_payload { hex_sha256(&body) } else { "UNSIGNED-PAYLOAD".to_owned() };
        let mut extra = vec![("x-amz-content-sha256", digest.as_str())];
        extra.extend(self.config.provider.header);
        if call.makes_object {
            extra.extend(self.config.storage_class.as_deref().map(|class| ("x-amz-storage-class", class)));
            if let Some(key) = &self.config.kms_key_id {
                extra.push(("x-amz-server-side-encryption", "aws:kms"));
                extra.push(("x-amz-server-side-encryption-aws-kms-key-id", key));
            }
        }
        for (name, value) in extra {
            let value = HeaderValue::from_str(value).map_err(|_| Error::invalid(format!("{name} is no header")))?;
            headers.insert(HeaderName::from_static(name), value);
        }
        let (method, overall_timeout) = (call.method.clone(), call.overall_timeout);
        Ok(Request { method, url, headers, body, answer_bytes_max: call.answer_bytes_max, overall_timeout })
    }

    /// Sends; the answer may be any that is final.
    pub(super) fn send(&self, call: Call, body: Bytes) -> Result<Answer> {
        let request = self.request(&call, body)?;
        let exchange = Exchange { connection: self, call: &call, credentials: RefCell::default() };
        let answer = self.http.send(&exchange, &request).with_context(|| exchange.what())?;
        Tally::bytes(&self.tally.bytes_in, answer.body.len());
        Ok(answer)
    }

    pub(super) fn head(&self, key: &str) -> Result<Option<Object>> {
        self.head_by(Call::new(Method::HEAD, Some(key)), key)
    }

    /// The same, with headers of its own.
    pub(super) fn head_by(&self, call: Call, key: &str) -> Result<Option<Object>> {
        let what = self.what("head", key);
        let answer = self.send(call, Bytes::new())?;
        match answer.status.as_u16() {
            200 => object::object(&answer).map(Some).context(what),
            // Without a body, a missing bucket cannot be told from a missing object.
            404 => Ok(None),
            _ => Err(answers::failure(&what, &answer)),
        }
    }

    /// The call as it is, where the store heeds conditions. Where the URL says that it does not, without them, after a
    /// look that shows that they hold now; `None` if they do not.
    pub(super) fn without_conditions(&self, mut call: Call, key: &str) -> Result<Option<Call>> {
        if self.config.conditional_writes {
            return Ok(Some(call));
        }
        let (absent, same) = (call.headers.remove("if-none-match"), call.headers.remove("if-match"));
        let holds = match (absent, same) {
            (None, None) => true,
            (Some(_), _) => self.head(key)?.is_none(),
            (None, Some(etag)) => self.head(key)?.is_some_and(|there| there.etag.0.as_bytes() == etag.as_bytes()),
        };
        Ok(holds.then_some(call))
    }

    /// One PUT, with the conditions that `call` has.
    pub(super) fn put(&self, call: Call, key: &str, body: Bytes, metadata: &Metadata) -> Result<Put> {
        let what = self.what("put", key);
        let Some(call) = self.without_conditions(call, key)? else { return Ok(Put::Refused) };
        let is_replacement = call.headers.contains_key(http::header::IF_MATCH);
        let call = call.with_metadata(metadata).header("content-type", "application/octet-stream");
        let answer = self.send(call, body)?;
        match answer.status.as_u16() {
            200..=299 => Ok(Put::Done(object::etag(&answer).context(what)?)),
            412 => Ok(Put::Refused),
            404 if is_replacement && answers::is_of_object(&answer) => Ok(Put::Refused),
            _ => Err(answers::conditional_failure(&what, &answer)),
        }
    }
}

/// A call under way.
struct Exchange<'a> {
    connection: &'a Connection,
    call: &'a Call,
    /// Those of the last attempt.
    credentials: RefCell<Option<Arc<Held>>>,
}

impl Protocol for Exchange<'_> {
    fn sign(&self, parts: &mut Parts) -> Result<()> {
        let used = self.connection.signer.sign(parts, self.connection.clock_offset_ms())?;
        *self.credentials.borrow_mut() = Some(used);
        Ok(())
    }

    fn mend(&self, answer: &Answer) -> bool {
        // The answer to a HEAD has no body that would tell.
        let may_be_of_credentials = answers::fault(answer)
            .map_or(self.call.method == Method::HEAD, |fault| answers::is_of_credentials(&fault.code));
        let status = answer.status.as_u16();
        let is_refusal = matches!(status, 401 | 403) || (status == 400 && may_be_of_credentials);
        let used = self.credentials.borrow();
        let (true, Some(used)) = (is_refusal, used.as_ref()) else { return false };
        self.connection.signer.mend(used, status, may_be_of_credentials, self.connection.clock_offset_ms())
    }

    fn is_transient(&self, answer: &Answer) -> bool {
        if answer.status.is_success() && !self.call.may_fail_with_200 {
            return false;
        }
        if answer.status.as_u16() == 409 && self.call.conflict_is_final {
            return false;
        }
        answers::fault(answer).is_some_and(|fault| answers::is_transient_code(&fault.code))
    }

    fn what(&self) -> String {
        self.connection
            .what(&self.call.method.as_str().to_ascii_lowercase(), self.call.key.as_deref().unwrap_or("(the bucket)"))
    }

    fn failure(&self, answer: &Answer) -> Error {
        answers::failure(&self.what(), answer)
    }

    fn count(&self, bytes_out: usize) {
        let tally = &self.connection.tally;
        let counter: &AtomicU64 = match (&self.call.method, &self.call.key) {
            (&Method::GET, None) => &tally.list,
            (&Method::GET, _) => &tally.get,
            (&Method::HEAD, _) => &tally.head,
            (&Method::DELETE, _) => &tally.delete,
            _ => &tally.put,
        };
        Tally::one(counter);
        Tally::bytes(&tally.bytes_out, bytes_out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::location::Location;

    /// The request that creates `k` with one byte, at a provider.
    fn creation(url: &str) -> (String, HeaderMap) {
        let env = HashMap::from([("AWS_REGION".to_owned(), "of-the-environment".to_owned())]);
        let config = Config::new(&Location::parse(url).unwrap(), &env).unwrap();
        let connection = Connection::new(config, env, &Options::default());
        let call = connection.without_conditions(Call::put("k").if_absent(), "k").unwrap().unwrap();
        let request = connection.request(&call, Bytes::from_static(b"x")).unwrap();
        (request.url, request.headers)
    }

    #[test]
    fn providers_get_the_requests_that_they_want() {
        for (url, goes_to, header) in [
            ("s3://b/p?region=eu-west-1", "https://b.s3.eu-west-1.amazonaws.com/p/k", None),
            ("s3://b/p?endpoint=a.r2.cloudflarestorage.com", "https://a.r2.cloudflarestorage.com/b/p/k", None),
            ("s3://b/p?endpoint=t3.storage.dev", "https://t3.storage.dev/b/p/k", Some("x-tigris-consistent")),
            (
                "s3://b/p?endpoint=fly.storage.tigris.dev",
                "https://fly.storage.tigris.dev/b/p/k",
                Some("x-tigris-consistent"),
            ),
            ("s3://b/p?endpoint=s3.us-west-004.backblazeb2.com", "https://s3.us-west-004.backblazeb2.com/b/p/k", None),
            ("s3://b.s3.us-west-004.backblazeb2.com/p", "https://s3.us-west-004.backblazeb2.com/b/p/k", None),
            ("s3://b.fra1.digitaloceanspaces.com/p", "https://b.fra1.digitaloceanspaces.com/p/k", None),
            ("s3://b.s3.fr-par.scw.cloud/p", "https://b.s3.fr-par.scw.cloud/p/k", None),
            ("s3://b.s3.filebase.com/p", "https://s3.filebase.com/b/p/k", None),
            (
                "s3://b/p?endpoint=https://x.supabase.co/storage/v1/s3&region=eu-west-2",
                "https://x.supabase.co/storage/v1/s3/b/p/k",
                None,
            ),
            ("s3://b/p?endpoint=fsn1.your-objectstorage.com", "https://fsn1.your-objectstorage.com/b/p/k", None),
            ("s3://b/p?endpoint=storage.googleapis.com", "https://storage.googleapis.com/b/p/k", None),
            ("s3://b.minio.example:9000/p", "http://minio.example:9000/b/p/k", None),
        ] {
            let (made, headers) = creation(url);
            assert_eq!(made, goes_to);
            // Payloads are signed in one piece, without trailers; B2, R2, MinIO and others take nothing else.
            assert_eq!(headers["x-amz-content-sha256"], hex_sha256(b"x"), "{url}");
            assert_eq!(headers["if-none-match"], "*", "{url}");
            let names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
            assert_eq!(names.len(), 2 + usize::from(header.is_some()), "{url}: {names:?}");
            assert!(header.is_none_or(|name| headers[name] == "true"), "{url}");
        }
    }

    #[test]
    fn parts_are_as_many_as_the_provider_takes() {
        let expected = 90 << 30;
        for (url, bytes) in
            [("s3://b/p", (90u64 << 30).div_ceil(9_000)), ("s3://b.s3.fr-par.scw.cloud/p", (90 << 30) / 900)]
        {
            let config = Config::new(&Location::parse(url).unwrap(), &HashMap::new()).unwrap();
            let connection = Connection::new(config, HashMap::new(), &Options::default());
            let made = crate::store::s3::multipart::part_bytes(&connection, 8 << 20, expected);
            assert!(made.abs_diff(bytes) <= 1, "{url}: {made}");
        }
    }
}
