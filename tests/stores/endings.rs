//! The end of an object (R9): what S3 servers answer to a range from the end, and what is made of it.

use crate::faults::open;
use crate::server::{Server, Step, answer, fault};
use litestream::error::Kind;
use litestream::store::{ETag, Metadata};
use litestream::time::Timestamp;

const HEAD: &str = "ETag: \"e\"\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
                    x-amz-meta-litestream-timestamp: 2026-11-22T17:55:33.964Z\r\nx-amz-meta-k: v\r\n";

fn part(range: &str, body: &str) -> Step {
    answer("206 Partial Content", &format!("Content-Range: {range}\r\n{HEAD}"), body)
}

fn whole(body: &str) -> Step {
    answer("200 OK", HEAD, body)
}

fn head(size: usize) -> Step {
    whole(&"0123456789"[..size])
}

/// One request; without caches in between, and with all that HEAD tells.
#[test]
fn r9_the_end_of_an_object_is_one_get() {
    let server = Server::run([part("bytes 6-9/10", "6789")]);
    let store = open(&server);
    let ending = store.get_end("k", 4).unwrap().unwrap();
    assert_eq!((ending.bytes.as_slice(), ending.object.size), (&b"6789"[..], 10));
    assert_eq!(ending.object.etag, ETag("\"e\"".to_owned()));
    assert_eq!(ending.object.modified, Timestamp(784_111_777_000));
    let pairs = vec![("k".to_owned(), "v".to_owned())];
    assert_eq!(ending.object.metadata, Metadata { timestamp: Some(Timestamp(1_795_370_133_964)), pairs });
    assert_eq!(server.lines(), ["GET /b/p/k"]);
    let seen = &server.seen()[0];
    assert_eq!((seen.headers["range"].as_str(), seen.headers["cache-control"].as_str()), ("bytes=-4", "no-cache"));
    assert!(seen.headers["authorization"].contains("cache-control;"), "the header is not signed");
    let counters = store.counters();
    assert_eq!((counters.get, counters.head, counters.bytes_in), (1, 0, 4));
}

/// rclone's answer to any range.
#[test]
fn a_part_under_the_status_of_a_whole_is_one() {
    let part = |range: &str, body: &str| answer("200 OK", &format!("Content-Range: {range}\r\n{HEAD}"), body);
    let server = Server::run([part("bytes 6-9/10", "6789"), part("bytes 2-5/10", "2345")]);
    let store = open(&server);
    let ending = store.get_end("k", 4).unwrap().unwrap();
    assert_eq!((ending.bytes.as_slice(), ending.object.size), (&b"6789"[..], 10));
    assert_eq!(store.get_range("k", 2..6, Some(&ending.object.etag)).unwrap(), b"2345");
    assert_eq!(server.lines().len(), 2);
}

#[test]
fn an_object_that_is_shorter_comes_whole() {
    for step in [part("bytes 0-9/10", "0123456789"), whole("0123456789")] {
        let server = Server::run([step]);
        let ending = open(&server).get_end("k", 1000).unwrap().unwrap();
        assert_eq!((ending.bytes.as_slice(), ending.object.size), (&b"0123456789"[..], 10));
        assert_eq!(server.lines().len(), 1);
    }
}

#[test]
fn none_denied_and_no_bucket_are_told_apart() {
    let server = Server::run([
        fault("404 Not Found", "NoSuchKey"),
        fault("404 Not Found", "NoSuchBucket"),
        fault("403 Forbidden", "AccessDenied"),
    ]);
    let store = open(&server);
    assert_eq!(store.get_end("k", 4).unwrap(), None);
    assert_eq!(store.get_end("k", 4).unwrap_err().kind(), Kind::NotFound);
    let error = store.get_end("k", 4).unwrap_err();
    assert!(error.kind() == Kind::Denied && error.to_string().contains("get k: 403 AccessDenied"), "{error}");
    assert_eq!(server.lines(), ["GET /b/p/k"; 3]);
}

/// An answer that does not prove that it is the end is asked for again, by HEAD and a plain range under If-Match.
#[test]
fn what_may_be_anything_is_asked_for_otherwise() {
    for wrong in [
        part("bytes 0-3/10", "0123"),
        part("bytes 0-4/10", "01234"),
        part("bytes 5-8/10", "5678"),
        part("bytes 6-9/*", "6789"),
        part("bytes 6-9/10", "678"),
        part("bytes 7-9/10", "789"),
        part("bytes 9-6/10", "6789"),
        part("bytes 6-18446744073709551615/10", "6789"),
        part("rubbish", "6789"),
        answer("200 OK", &format!("Content-Range: bytes 5-8/10\r\n{HEAD}"), "5678"),
        answer("206 Partial Content", HEAD, "6789"),
        answer("206 Partial Content", "Content-Range: bytes 6-9/10\r\n", "6789"),
        // The whole object, too long to be taken; and what may be the whole one, or the end of another.
        whole("0123456789"),
        whole("6789"),
        fault("416 Range Not Satisfiable", "InvalidRange"),
    ] {
        let server = Server::run([wrong, head(10), part("bytes 6-9/10", "6789")]);
        let ending = open(&server).get_end("k", 4).unwrap().unwrap();
        assert_eq!((ending.bytes.as_slice(), ending.object.size), (&b"6789"[..], 10));
        assert_eq!(server.lines(), ["GET /b/p/k", "HEAD /b/p/k", "GET /b/p/k"]);
        let seen = server.seen();
        assert_eq!(seen[1].headers["cache-control"], "no-cache");
        assert_eq!((seen[2].headers["range"].as_str(), seen[2].headers["if-match"].as_str()), ("bytes=6-9", "\"e\""));
    }
}

#[test]
fn an_empty_object_is_one() {
    let server = Server::run([fault("416 Range Not Satisfiable", "InvalidRange"), head(0), whole("")]);
    let store = open(&server);
    for requests in [2, 3] {
        let ending = store.get_end("k", 4).unwrap().unwrap();
        assert_eq!((ending.bytes.len(), ending.object.size), (0, 0));
        assert_eq!(server.lines().len(), requests);
    }
}

#[test]
fn an_object_that_is_replaced_meanwhile_is_looked_at_again() {
    let refused = || fault("416 Range Not Satisfiable", "InvalidRange");
    let other = || fault("412 Precondition Failed", "PreconditionFailed");
    let server = Server::run([refused(), head(10), other(), head(3), part("bytes 0-2/3", "012")]);
    let ending = open(&server).get_end("k", 4).unwrap().unwrap();
    assert_eq!((ending.bytes.as_slice(), ending.object.size), (&b"012"[..], 3));
    // Gone between the two.
    let gone = || answer("404 Not Found", "", "");
    let server = Server::run([refused(), head(10), gone(), gone()]);
    assert_eq!(open(&server).get_end("k", 4).unwrap(), None);
    // Again and again.
    let server =
        Server::run([refused(), head(10), other(), head(9), other(), head(8), other(), head(7), other(), head(6)]);
    assert_eq!(open(&server).get_end("k", 4).unwrap_err().kind(), Kind::Conflict);
    assert_eq!(server.lines().len(), 7);
    // The range is not what HEAD promised.
    let server = Server::run([refused(), head(10), part("bytes 6-7/8", "67")]);
    assert_eq!(open(&server).get_end("k", 4).unwrap_err().kind(), Kind::Corrupt);
}
