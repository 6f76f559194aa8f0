//! Requests over HTTP: attempts, waits and deadlines. What the answers mean is the stores' business.
//!
//! Retries are ours, not the client's (P24): each attempt is signed anew, asks the gate if it changes something, and
//! takes a token of its endpoint (P23). A lost answer is retried like one that says "later"; the stores' conditions make
//! that safe, and their answer to the second attempt may then speak of what the first one did (P19).

mod client;
mod clock;
mod limits;
mod pace;
mod skip_verify;

pub(super) use clock::parse_http_date;
pub use limits::Limits;

use crate::error::{Error, Kind, Result};
use crate::lock::Mutex;
use crate::time::Timestamp;
use bytes::Bytes;
use clock::StoreClock;
use http::{HeaderMap, Method, StatusCode, request::Parts};
use pace::Pace;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Asked before each attempt that creates, replaces or deletes; an error ends the call (P24).
pub type Gate = Arc<dyn Fn() -> Result<()> + Send + Sync>;

/// One request, as often as it takes.
pub(super) struct Request {
    pub(super) method: Method,
    /// Absolute, percent-encoded.
    pub(super) url: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// A longer answer is an error.
    pub(super) answer_bytes_max: u64,
    /// In place of the limits'; such a request does not ask the gate.
    pub(super) overall_timeout: Option<Duration>,
}

/// What came back.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    /// Attempts made.
    pub(super) attempts: u32,
}

impl Answer {
    /// A header's text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// What differs between stores.
pub(super) trait Protocol {
    /// Puts the signature into the headers.
    fn sign(&self, parts: &mut Parts) -> Result<()>;
    /// Whether a refusal may be over with credentials or a time that were renewed now. Asked once in a call.
    fn mend(&self, answer: &Answer) -> bool;
    /// Whether the answer says "later", beyond what its status says.
    fn is_transient(&self, answer: &Answer) -> bool;
    /// Counts an attempt and the bytes of its body.
    fn count(&self, bytes_out: usize);
    /// The call, for messages.
    fn what(&self) -> String;
    /// The error that an answer is.
    fn failure(&self, answer: &Answer) -> Error;
}

/// An endpoint, as one store sees it.
pub(super) struct Http {
    limits: Limits,
    gate: Option<Gate>,
    skip_verify: bool,
    pace: Arc<Pace>,
    clock: StoreClock,
    /// It answered once, so it is no mistyped name.
    answered: AtomicBool,
    trouble: Mutex<Option<(Error, Timestamp)>>,
}

/// How an attempt ended without an answer.
enum Failure {
    /// Worth another attempt.
    Transient(String),
    /// There was no connection: the name is unknown, or nobody listens.
    Unreachable(String),
    Final(Error),
}

impl Http {
    /// Nothing is sent yet.
    pub(super) fn new(endpoint: &str, skip_verify: bool, limits: Limits, gate: Option<Gate>) -> Self {
        Self {
            limits,
            gate,
            skip_verify,
            pace: Pace::of(endpoint),
            clock: StoreClock::default(),
            answered: AtomicBool::new(false),
            trouble: Mutex::new(None),
        }
    }

    /// P22.
    pub(super) fn clock_offset_ms(&self) -> i64 {
        self.clock.offset_ms()
    }

    /// What the last attempt failed of, while its call is being repeated.
    pub(super) fn trouble(&self) -> Option<(Error, Timestamp)> {
        self.trouble.lock().clone()
    }

    /// Sends until there is an answer that is not "later", or time is up: then the last answer, or
    /// [`Kind::Unavailable`].
    pub(super) fn send(&self, protocol: &dyn Protocol, request: &Request) -> Result<Answer> {
        let outcome = self.send_repeatedly(protocol, request);
        let former = self.trouble.lock().take();
        if let (Ok(answer), Some(_)) = (&outcome, former)
            && !is_transient(answer.status)
        {
            log::info!("{}: answered again", protocol.what());
        }
        outcome
    }

    fn send_repeatedly(&self, protocol: &dyn Protocol, request: &Request) -> Result<Answer> {
        let start = Instant::now();
        let transfer = self.limits.transfer_time(request.body.len() as u64);
        let deadline = start + request.overall_timeout.unwrap_or(self.limits.overall_timeout) + transfer;
        let asks = !matches!(request.method, Method::GET | Method::HEAD) && request.overall_timeout.is_none();
        let mut is_mended = false;
        for attempt in 0u32.. {
            if let (true, Some(gate)) = (asks, &self.gate) {
                gate()?;
            }
            self.pace.wait();
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = (self.limits.request_timeout + transfer).min(left);
            let outcome = self.attempt(protocol, request, timeout);
            let mut wait = self.limits.backoff(attempt, RandomState::new().hash_one(attempt));
            if let Ok(Some(after)) = outcome.as_ref().map(retry_after) {
                wait = wait.max(after);
            }
            // An attempt that has no time left would only blur what the last one said.
            let is_last = Instant::now() + wait >= self.patience(start, deadline, &outcome);
            let failure = match outcome {
                Err(Failure::Final(error)) => return Err(error),
                Ok(answer) if !is_last && !is_mended && answer.status.is_client_error() && protocol.mend(&answer) => {
                    is_mended = true;
                    continue;
                }
                Ok(answer) if is_last || !(is_transient(answer.status) || protocol.is_transient(&answer)) => {
                    return Ok(Answer { attempts: attempt + 1, ..answer });
                }
                Err(Failure::Transient(text) | Failure::Unreachable(text)) if is_last => {
                    let (count, seconds) = (attempt + 1, start.elapsed().as_secs_f64());
                    let text = format!("{text} (attempts: {count}, {seconds:.1} s)");
                    return Err(Error::new(Kind::Unavailable, text));
                }
                Ok(answer) => protocol.failure(&answer),
                Err(Failure::Transient(text) | Failure::Unreachable(text)) => {
                    Error::new(Kind::Unavailable, text).context(protocol.what())
                }
            };
            if attempt == 0 {
                log::warn!("{failure}; it is tried again");
            }
            *self.trouble.lock() = Some((failure, Timestamp::now()));
            std::thread::sleep(wait);
        }
        Err(Error::bug("an endless loop ended"))
    }

    /// Until when attempts are made: a name at which nobody was ever found is most likely a wrong one.
    fn patience(&self, start: Instant, deadline: Instant, outcome: &std::result::Result<Answer, Failure>) -> Instant {
        match outcome {
            Err(Failure::Unreachable(_)) if !self.answered.load(Ordering::Relaxed) => {
                deadline.min(start + self.limits.unreachable_timeout)
            }
            _ => deadline,
        }
    }

    fn attempt(
        &self,
        protocol: &dyn Protocol,
        request: &Request,
        timeout: Duration,
    ) -> std::result::Result<Answer, Failure> {
        let unsendable = |e: &dyn std::fmt::Display| Failure::Final(Error::bug(format!("request: {e}")));
        let mut head = http::Request::builder().method(&request.method).uri(&request.url);
        if let Some(headers) = head.headers_mut() {
            headers.clone_from(&request.headers);
        }
        let (mut parts, ()) = head.body(()).map_err(|e| unsendable(&e))?.into_parts();
        protocol.sign(&mut parts).map_err(|error| match error.kind() {
            // Where the credentials come from is away.
            Kind::Unavailable => Failure::Transient(error.to_string()),
            _ => Failure::Final(error),
        })?;
        let signed = http::Request::from_parts(parts, request.body.clone());
        let mut signed = reqwest::blocking::Request::try_from(signed).map_err(|e| unsendable(&e))?;
        *signed.timeout_mut() = Some(timeout);

        let client = client::get(self.skip_verify).map_err(Failure::Final)?;
        protocol.count(request.body.len());
        let sent_at = Timestamp::now();
        let mut response = client.execute(signed).map_err(|e| unsent(&e))?;
        let received_at = Timestamp::now();
        self.answered.store(true, Ordering::Relaxed);
        if let Some(date) = response.headers().get(http::header::DATE).and_then(|date| date.to_str().ok()) {
            self.clock.observe(date, sent_at, received_at);
        }
        let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
        let limit = if status.is_success() { request.answer_bytes_max } else { limits::ERROR_BODY_BYTES_MAX };
        let length = headers.get(http::header::CONTENT_LENGTH).and_then(|n| n.to_str().ok()?.parse::<u64>().ok());
        if status.is_success() && request.method != Method::HEAD && length.is_some_and(|length| length > limit) {
            let length = length.unwrap_or_default();
            let text = format!("the answer has {length} bytes, more than the {limit} that it may have");
            return Err(Failure::Final(Error::corrupt(text)));
        }
        let body = self.read_body(&mut response, limit, length.unwrap_or(0), status.is_success())?;
        Ok(Answer { status, headers, body, attempts: 1 })
    }

    /// Reads the body to its end. It grows with what arrives, not with what was announced.
    fn read_body(
        &self,
        response: &mut reqwest::blocking::Response,
        limit: u64,
        length: u64,
        is_success: bool,
    ) -> std::result::Result<Vec<u8>, Failure> {
        let deadline = Instant::now() + self.limits.request_timeout + self.limits.transfer_time(length.min(limit));
        let mut body = Vec::new();
        let mut piece = vec![0; 64 * 1024];
        loop {
            let read = match response.read(&mut piece) {
                Ok(0) => return Ok(body),
                Ok(read) => read,
                // The text of an error that was cut is still an error's.
                Err(_) if !is_success => return Ok(body),
                Err(error) => {
                    let text = format!("answer cut after {} bytes: {}", body.len(), error_text(&error));
                    return Err(Failure::Transient(text));
                }
            };
            if body.len() as u64 + read as u64 > limit {
                if !is_success {
                    return Ok(body);
                }
                let text = format!("the answer has more than the {limit} bytes that it may have");
                return Err(Failure::Final(Error::corrupt(text)));
            }
            body.extend_from_slice(piece.get(..read).unwrap_or_default());
            if Instant::now() > deadline {
                let text = format!("answer too slow: {} bytes in {:?}", body.len(), self.limits.request_timeout);
                return Err(Failure::Transient(text));
            }
        }
    }
}

/// The statuses that mean "later" by HTTP (RFC 9110) and for every store.
pub(super) fn is_transient(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// Retry-After, in either of its forms (RFC 9110 10.2.3).
fn retry_after(answer: &Answer) -> Option<Duration> {
    let text = answer.header("retry-after")?;
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let wait_ms = parse_http_date(text)?.0.saturating_sub(Timestamp::now().0);
    u64::try_from(wait_ms).ok().map(Duration::from_millis)
}

/// A request without an answer. A certificate that is not trusted now will not be in a second, nor is it a refusal: the
/// store is away until somebody does something.
fn unsent(error: &reqwest::Error) -> Failure {
    let mut next = std::error::Error::source(error);
    while let Some(source) = next {
        if let Some(rustls::Error::InvalidCertificate(_)) = source.downcast_ref() {
            let advice = "AWS_CA_BUNDLE names a file of further authorities";
            return Failure::Final(Error::new(Kind::Unavailable, format!("{}; {advice}", error_text(error))));
        }
        // What an I/O error wraps is not its source: it shares that one's.
        let wrapped = source.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => source.source(),
        };
    }
    if error.is_connect() {
        return Failure::Unreachable(error_text(error));
    }
    Failure::Transient(error_text(error))
}

/// What is behind an error: the client's outermost words only say that a request failed.
fn error_text(error: &dyn std::error::Error) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next = error.source();
    while let Some(source) = next {
        let text = source.to_string();
        if !texts.iter().any(|former| former.contains(&text)) {
            texts.push(text);
        }
        next = source.source();
    }
    if texts.is_empty() { error.to_string() } else { texts.join(": ") }
}

/// One attempt, for credential services: not paced, not signed, and small.
pub(super) fn send_once(request: http::Request<Bytes>, timeout: Duration) -> Result<http::Response<Bytes>> {
    let away = |text: String| Error::new(Kind::Unavailable, text);
    let mut request = reqwest::blocking::Request::try_from(request).map_err(|e| away(error_text(&e)))?;
    *request.timeout_mut() = Some(timeout);
    let mut response = client::get(false)?.execute(request).map_err(|e| away(error_text(&e)))?;
    let mut made = http::Response::builder().status(response.status());
    if let Some(headers) = made.headers_mut() {
        headers.clone_from(response.headers());
    }
    let mut body = Vec::new();
    let limited = response.by_ref().take(limits::ERROR_BODY_BYTES_MAX).read_to_end(&mut body);
    limited.map_err(|e| away(error_text(&e)))?;
    made.body(Bytes::from(body)).map_err(Error::bug)
}
