//! What an S3 store makes of faults: of the line, and of the server.

use crate::multipart::part_sizes;
use crate::server::{Server, Step, answer, fault, ok};
use litestream::error::{Error, Kind};
use litestream::store::{self, ETag, Limits, Metadata, Options, Put, Store};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

pub const NONE: Metadata = Metadata { timestamp: None, pairs: Vec::new() };

pub fn quick() -> Options {
    let env = [("AWS_ACCESS_KEY_ID", "AKID"), ("AWS_SECRET_ACCESS_KEY", "hush")];
    let limits = Limits {
        request_timeout: Duration::from_millis(400),
        overall_timeout: Duration::from_secs(3),
        backoff_first: Duration::from_millis(4),
        backoff_max: Duration::from_millis(40),
        ..Limits::default()
    };
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    Options { limits, gate: None, env: Some(env) }
}

pub fn open(server: &Server) -> Arc<dyn Store> {
    open_with(server, &quick())
}

/// The same, with further parameters.
pub fn open_at(server: &Server, parameters: &str) -> Arc<dyn Store> {
    store::open_with(&format!("s3://b/p?endpoint={}{parameters}", server.endpoint), &quick()).unwrap()
}

fn open_with(server: &Server, options: &Options) -> Arc<dyn Store> {
    store::open_with(&format!("s3://b/p?endpoint={}", server.endpoint), options).unwrap()
}

pub fn done() -> Put {
    Put::Done(ETag("\"e\"".to_owned()))
}

/// P24: retries are ours, and honour Retry-After.
#[test]
fn a_store_that_says_later_is_asked_later() {
    let server =
        Server::run([answer("503 Slow Down", "Retry-After: 1\r\n", ""), fault("500 X", "InternalError"), ok("")]);
    let start = Instant::now();
    assert_eq!(open(&server).put_if_absent("k", b"body", &NONE).unwrap(), done());
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(server.lines(), ["PUT /b/p/k"; 3]);
}

#[test]
fn a_wait_that_is_longer_than_the_deadline_is_not_waited() {
    let server = Server::run([answer("503 Slow Down", "Retry-After: 100\r\n", "")]);
    let start = Instant::now();
    let error = open(&server).list("").unwrap_err();
    assert!(error.kind() == Kind::Unavailable && error.to_string().contains("503"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(2));
}

/// P19: the first answer was lost, and the second says that the object is there. It may be ours: `Refused` leaves it to
/// the caller to compare. The retry has the same bytes and the same condition.
#[test]
fn a_lost_answer_is_retried_with_the_same_bytes_and_condition() {
    let server = Server::run([Step::Close, fault("412 Precondition Failed", "PreconditionFailed")]);
    assert_eq!(open(&server).put_if_absent("k", b"body", &NONE).unwrap(), Put::Refused);
    let seen = server.seen();
    assert_eq!(seen.len(), 2);
    for request in seen {
        assert_eq!((request.body.as_slice(), request.headers["if-none-match"].as_str()), (&b"body"[..], "*"));
    }
}

#[test]
fn an_unknown_outcome_is_an_error_and_not_a_guess() {
    let server = Server::run([]);
    let error = open(&server).put_if_absent("k", b"body", &NONE).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().contains("p?endpoint=") && error.to_string().contains("attempts"), "{error}");
}

/// P29: contended is retried, whatever the condition.
#[test]
fn a_conflict_is_retried() {
    let conflict = || fault("409 Conflict", "ConditionalRequestConflict");
    let server = Server::run([conflict(), conflict(), ok(""), conflict(), fault("412 No", "PreconditionFailed")]);
    let store = open(&server);
    assert_eq!(store.put_if_absent("k", b"body", &NONE).unwrap(), done());
    assert_eq!(store.put_if_match("k", b"body", &NONE, &ETag("\"f\"".to_owned())).unwrap(), Put::Refused);
    assert_eq!(server.seen()[4].headers["if-match"], "\"f\"");
}

#[test]
fn an_answer_that_is_cut_is_read_again() {
    let cut = Step::Send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\nETag: \"e\"\r\n\r\n01234".to_owned());
    let server = Server::run([cut, ok("0123456789")]);
    assert_eq!(open(&server).get("k", 10).unwrap().unwrap().0, b"0123456789");
}

#[test]
fn silence_ends_at_the_deadline() {
    let stall = || Step::Stall(Duration::from_secs(20));
    let server = Server::run([stall(), ok("x")]);
    assert_eq!(open(&server).get("k", 10).unwrap().unwrap().0, b"x");
    let server = Server::run([stall(), stall(), stall(), stall(), stall(), stall(), stall(), stall(), stall()]);
    let start = Instant::now();
    let error = open(&server).get("k", 10).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    let took = start.elapsed();
    assert!(took > Duration::from_secs(2) && took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn a_refusal_is_final_and_in_the_stores_words() {
    for (step, kind, says) in [
        (fault("403 Forbidden", "AccessDenied"), Kind::Denied, "403 AccessDenied: the words of the store"),
        (fault("400 Bad Request", "ExpiredToken"), Kind::Denied, "400 ExpiredToken"),
        (fault("404 Not Found", "NoSuchBucket"), Kind::NotFound, "404 NoSuchBucket"),
        (fault("501 Not Implemented", "NotImplemented"), Kind::Invalid, "has no conditional writes"),
        (answer("405 Method Not Allowed", "", "<html>"), Kind::Invalid, "405 Method Not Allowed"),
        (
            answer("301 Moved Permanently", "x-amz-bucket-region: eu-west-1\r\nLocation: http://elsewhere/\r\n", ""),
            Kind::Invalid,
            "write region=eu-west-1",
        ),
    ] {
        let server = Server::run([step]);
        let error = open(&server).put_if_absent("k", b"body", &NONE).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(says) && error.to_string().contains("put k"), "{error}");
        assert!(!error.to_string().contains("hush"), "{error}");
        assert_eq!(server.seen().len(), 1, "a refusal was tried again: {error}");
    }
}

/// P24: each attempt of a change asks the gate, a retry too; reading asks nobody.
#[test]
fn the_gate_is_asked_before_each_attempt_that_changes_something() {
    let server = Server::run([fault("503 X", "SlowDown"), ok(""), ok("x")]);
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let gate: store::Gate = Arc::new(move || match counter.fetch_add(1, SeqCst) {
        0 => Ok(()),
        _ => Err(Error::new(Kind::Conflict, "the lease is not fresh")),
    });
    let store = open_with(&server, &Options { gate: Some(gate), ..quick() });
    open(&server).prove_conditions().unwrap(); // with requests of its own
    let error = store.put_if_absent("k", b"body", &NONE).unwrap_err();
    assert!(error.kind() == Kind::Conflict && error.to_string().contains("not fresh"), "{error}");
    assert_eq!(server.seen().len(), 1, "an attempt went past the gate");
    store.get("k", 10).unwrap();
    assert_eq!(asked.load(SeqCst), 2);
}

pub const CREATED: &str =
    "<InitiateMultipartUploadResult><UploadId>id &amp; 1</UploadId></InitiateMultipartUploadResult>";
pub const COMPLETED: &str = "<CompleteMultipartUploadResult><ETag>&quot;e&quot;</ETag></CompleteMultipartUploadResult>";

/// Uploads two parts; `last` are the answers from CompleteMultipartUpload on.
fn upload(last: Vec<Step>) -> (litestream::error::Result<Put>, Vec<String>) {
    let not_there = || answer("404 Not Found", "", "");
    let mut steps = vec![ok(CREATED), ok(""), ok(""), not_there()];
    steps.extend(last);
    let server = Server::run(steps);
    let mut upload = open(&server).upload("k", &NONE, 0).unwrap();
    upload.write(&vec![7; (8 << 20) + 1]).unwrap();
    let put = upload.finish_if_absent();
    let seen = server.seen();
    assert_eq!(part_sizes(&server), [8 << 20, 1]);
    assert_eq!(seen[4].headers["if-none-match"], "*");
    assert!(String::from_utf8_lossy(&seen[4].body).contains("<Part><PartNumber>2</PartNumber><ETag>&quot;e&quot;"));
    let lines = server.lines();
    assert_eq!((lines[0].as_str(), lines[3].as_str()), ("POST /b/p/k?uploads=", "HEAD /b/p/k"));
    (put, lines[4..].to_vec())
}

const COMPLETE: &str = "POST /b/p/k?uploadId=id%20%26%201";
const ABORT: &str = "DELETE /b/p/k?uploadId=id%20%26%201";

/// P29: a 200 to CompleteMultipartUpload is parsed for an error.
#[test]
fn a_multipart_uploads_end_is_told_by_the_body() {
    let in_body = |code: &str| fault("200 OK", code);
    let (put, lines) = upload(vec![in_body("InternalError"), ok(COMPLETED)]);
    assert_eq!((put.unwrap(), lines), (done(), vec![COMPLETE.to_owned(); 2]));
    let (put, lines) = upload(vec![in_body("PreconditionFailed"), answer("204 No Content", "", "")]);
    assert_eq!((put.unwrap(), lines), (Put::Refused, vec![COMPLETE.to_owned(), ABORT.to_owned()]));
    let (put, _) = upload(vec![in_body("AccessDenied"), answer("204 No Content", "", "")]);
    let error = put.unwrap_err();
    assert!(error.to_string().contains("200 with AccessDenied: the words of the store"), "{error}");
}

/// P29: contended, a multipart upload starts again from its creation, by the caller, who has the bytes.
#[test]
fn a_multipart_upload_that_met_a_conflict_is_aborted() {
    let conflict = fault("409 Conflict", "ConditionalRequestConflict");
    let (put, lines) = upload(vec![conflict, answer("204 No Content", "", "")]);
    let error = put.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("starts again"), "{error}");
    assert_eq!(lines, [COMPLETE, ABORT]);
}

/// P19: the answer to CompleteMultipartUpload was lost; the second says that the upload is gone.
#[test]
fn a_multipart_upload_whose_last_answer_was_lost_is_looked_up() {
    let gone = || fault("404 Not Found", "NoSuchUpload");
    let (put, lines) = upload(vec![Step::Close, gone(), ok("")]);
    assert_eq!(put.unwrap(), Put::Refused);
    assert_eq!(lines[..3], [COMPLETE, COMPLETE, "HEAD /b/p/k"]);
    let (put, _) = upload(vec![Step::Close, gone(), answer("404 Not Found", "", "")]);
    assert!(put.unwrap_err().is_retryable());
}

/// P22.
#[test]
fn the_date_of_an_answer_tells_the_stores_clock() {
    let server = Server::run([answer("404 Not Found", "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n", "")]);
    let store = open(&server);
    assert_eq!(store.clock_offset_ms(), 0);
    store.head("k").unwrap();
    let expected = 784_111_777_000 - litestream::time::Timestamp::now().0;
    assert!((store.clock_offset_ms() - expected).abs() < 60_000, "{}", store.clock_offset_ms());
}

#[test]
fn hostile_answers_are_errors() {
    let huge = "HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775807\r\nETag: \"e\"\r\n\r\nx";
    let chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nETag: \"e\"\r\n\r\n5\r\n01234\r\n0\r\n\r\n";
    let part = |range: &str, body: &str| answer("206 Partial Content", &format!("Content-Range: {range}\r\n"), body);
    let again = "<ListBucketResult><IsTruncated>true</IsTruncated>\
                 <NextContinuationToken>t</NextContinuationToken></ListBucketResult>";
    let corrupt = |step: Vec<Step>, act: &dyn Fn(&dyn Store) -> Error| {
        let error = act(&*open(&Server::run(step)));
        assert_eq!(error.kind(), Kind::Corrupt, "{error}");
    };
    corrupt(vec![Step::Send(huge.to_owned())], &|s| s.get("k", 4).unwrap_err());
    corrupt(vec![Step::Send(chunks.to_owned())], &|s| s.get("k", 4).unwrap_err());
    corrupt(vec![answer("200 OK", "", "x")], &|s| s.get("k", 4).unwrap_err());
    for (range, body) in [("bytes 0-1/9", "01"), ("bytes 3-6/9", "3456"), ("bytes 0-3/9", "01"), ("rubbish", "01")] {
        corrupt(vec![part(range, body)], &|s| s.get_range("k", 0..4, None).unwrap_err());
    }
    corrupt(vec![ok(again), ok(again)], &|s| s.list("").unwrap_err());
    corrupt(vec![ok("<html>welcome</html>")], &|s| s.list("").unwrap_err());
    corrupt(vec![answer("200 OK", "ETag: \"e\"\r\n", "")], &|s| s.head("k").unwrap_err());
    let short = Server::run([part("bytes 0-1/2", "01")]);
    assert_eq!(open(&short).get_range("k", 0..4, None).unwrap(), b"01");
}

/// The keys of a listing that no call could name, or that are not ours, are left out.
#[test]
fn a_listing_has_only_our_keys() {
    let row = |key: &str| {
        let rest = "<LastModified>2026-01-01T00:00:00Z</LastModified><Size>1</Size>";
        format!("<Contents><Key>{key}</Key>{rest}</Contents>")
    };
    let rows: String = ["p/b", "p/a", "p/", "p/../x", "q/a", "p/c/"].map(row).concat();
    let server = Server::run([ok(&format!("<ListBucketResult>{rows}</ListBucketResult>"))]);
    let keys: Vec<String> = open(&server).list("").unwrap().into_iter().map(|entry| entry.key).collect();
    assert_eq!(keys, ["a", "b"]);
    assert_eq!(server.lines(), ["GET /b?list-type=2&max-keys=1000&prefix=p%2F"]);
}
