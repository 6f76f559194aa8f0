//! Multipart uploads, copies within the store, and what is left of those that nobody ended (P34).

use crate::faults::{COMPLETED, CREATED, NONE, done, open, quick};
use crate::server::{Server, Step, answer, fault, ok};
use litestream::error::Kind;
use litestream::store::{self, FileStore, Metadata, Options, Put, Store};
use litestream::time::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant, SystemTime};

const MIB: usize = 1 << 20;

/// The sizes of the parts that came, by part number; of one that came twice, the last.
pub fn part_sizes(server: &Server) -> Vec<usize> {
    let parts = server.seen().into_iter().filter_map(|seen| {
        let number = seen.target.split("partNumber=").nth(1)?.split('&').next()?.parse::<u32>().ok()?;
        Some((number, seen.body.len()))
    });
    parts.collect::<BTreeMap<_, _>>().into_values().collect()
}

fn there() -> Step {
    ok("")
}

fn missing() -> Step {
    answer("404 Not Found", "", "")
}

/// A store's part in an upload of which nothing goes wrong, but what `part` makes of its parts.
fn store_of(part: impl Fn(&str) -> Option<Step> + Send + Sync + 'static) -> Server {
    Server::at_once(move |seen| match (seen.method.as_str(), seen.target.as_str()) {
        ("POST", target) if target.ends_with("uploads=") => ok(CREATED),
        ("POST", _) => ok(COMPLETED),
        ("PUT", target) => part(target).unwrap_or_else(there),
        ("HEAD", _) => missing(),
        _ => answer("204 No Content", "", ""),
    })
}

fn upload(server: &Server, parameters: &str, bytes: usize, expected: u64) -> litestream::error::Result<Put> {
    let url = format!("s3://b/p?endpoint={}{parameters}", server.endpoint);
    let mut upload = store::open_with(&url, &quick())?.upload("k", &NONE, expected)?;
    upload.write(&vec![7; bytes])?;
    upload.finish_if_absent()
}

/// P34: never fewer than 8 MiB, never more than 9,000 of them, equal, and fixed by what was announced; none of what was
/// announced to be small.
#[test]
fn p34_the_size_of_parts_follows_from_the_size_announced() {
    for (bytes, parameters, expected, sizes) in [
        (17 * MIB, "", 0, vec![8 * MIB, 8 * MIB, MIB]),
        (16 * MIB, "", 16 << 20, vec![]),
        (17 * MIB, "", 17 << 20, vec![8 * MIB, 8 * MIB, MIB]),
        (20 * MIB, "", 9_000 * (9 << 20), vec![9 * MIB, 9 * MIB, 2 * MIB]),
        (12 * MIB, "&part-size=6291456", 0, vec![6 * MIB, 6 * MIB]),
        (11 * MIB, "&part-size=1", 0, vec![5 * MIB, 5 * MIB, MIB]),
        (MIB, "", 9_000 * (9 << 20), vec![]),
    ] {
        let server = store_of(|_| None);
        assert_eq!(upload(&server, parameters, bytes, expected).unwrap(), done());
        assert_eq!(part_sizes(&server), sizes, "{parameters} {expected}");
    }
}

/// P34: parts go side by side, three at most, or as many as the URL says: so memory is bounded.
#[test]
fn p34_parts_go_side_by_side_and_not_too_many() {
    for (parameters, most) in [("", 3), ("&concurrency=2", 2), ("&concurrency=1", 1), ("&part-size=33554432", 1)] {
        let (now, highest) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let peak = Arc::clone(&highest);
        let server = store_of(move |_| {
            let mine = now.fetch_add(1, SeqCst) + 1;
            peak.fetch_max(mine, SeqCst);
            // Until as many are here as ever come, or nobody comes any more.
            let start = Instant::now();
            while peak.load(SeqCst) < most && start.elapsed() < Duration::from_millis(300) {
                std::thread::sleep(Duration::from_millis(5));
            }
            std::thread::sleep(Duration::from_millis(20));
            now.fetch_sub(1, SeqCst);
            None
        });
        assert_eq!(upload(&server, parameters, 41 * MIB, 0).unwrap(), done());
        let highest = highest.load(SeqCst);
        assert!(highest <= most && (highest > 1 || most == 1), "{parameters}: {highest} at a time");
    }
}

#[test]
fn p34_a_part_that_fails_is_sent_again_alone() {
    let failures = AtomicUsize::new(2);
    let server = store_of(move |target| {
        let fails =
            target.contains("partNumber=2&") && failures.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)).is_ok();
        fails.then(|| fault("503 Slow Down", "SlowDown"))
    });
    assert_eq!(upload(&server, "", 25 * MIB, 0).unwrap(), done());
    let count =
        |number: u32| server.lines().iter().filter(|line| line.contains(&format!("partNumber={number}&"))).count();
    assert_eq!([1, 2, 3, 4].map(count), [1, 3, 1, 1]);
}

#[test]
fn p34_an_upload_that_fails_is_aborted_after_its_parts() {
    let server = store_of(|target| target.contains("partNumber=1&").then(|| fault("403 Forbidden", "AccessDenied")));
    let error = upload(&server, "", 25 * MIB, 0).unwrap_err();
    assert!(error.kind() == Kind::Denied && error.to_string().contains("part 1: 403 AccessDenied"), "{error}");
    let lines = server.lines();
    assert_eq!(lines.last().unwrap(), "DELETE /b/p/k?uploadId=id%20%26%201");
    assert_eq!(lines.iter().filter(|line| line.starts_with("DELETE")).count(), 1);
    assert!(!lines.iter().any(|line| line.starts_with("POST /b/p/k?uploadId")), "{lines:?}");
}

/// UploadPartCopy drops metadata, and may fail with 200 like CopyObject.
#[test]
fn p34_a_large_object_is_copied_by_parts() {
    let metadata = Metadata { timestamp: None, pairs: vec![("new".to_owned(), "1".to_owned())] };
    let head = "ETag: \"e\"\r\nContent-Length: 11534336\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    let source = move || Step::Send(format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{head}\r\n"));
    let copied = || ok("<CopyPartResult><ETag>\"part\"</ETag></CopyPartResult>");
    let failed = std::sync::Mutex::new(vec![fault("200 OK", "InternalError")]);
    let server = Server::at_once(move |seen| match (seen.method.as_str(), seen.target.as_str()) {
        ("HEAD", "/b/p/from") => source(),
        ("HEAD", _) => missing(),
        ("POST", target) if target.ends_with("uploads=") => ok(CREATED),
        ("POST", _) => ok(COMPLETED),
        (_, target) if target.contains("partNumber=2&") => failed.lock().unwrap().pop().unwrap_or_else(copied),
        _ => copied(),
    });
    let url = format!("s3://b/p?endpoint={}&part-size=5242880", server.endpoint);
    let store = store::open_with(&url, &quick()).unwrap();
    assert_eq!(store.copy("from", "to x", &metadata).unwrap(), done());
    let seen = server.seen();
    let created = seen.iter().find(|seen| seen.target.ends_with("uploads=")).unwrap();
    assert_eq!((created.target.as_str(), created.headers["x-amz-meta-new"].as_str()), ("/b/p/to%20x?uploads=", "1"));
    let mut parts: Vec<String> =
        seen.iter().filter_map(|seen| seen.headers.get("x-amz-copy-source-range").cloned()).collect();
    parts.sort();
    parts.dedup();
    assert_eq!(parts, ["bytes=0-5242879", "bytes=10485760-11534335", "bytes=5242880-10485759"]);
    let part = seen.iter().find(|seen| seen.target.contains("partNumber=1&")).unwrap();
    assert_eq!((part.headers["x-amz-copy-source"].as_str(), part.body.len()), ("/b/p/from", 0));
    assert_eq!(part.headers["x-amz-copy-source-if-match"], "\"e\"");
    assert_eq!(seen.last().unwrap().headers["if-none-match"], "*");
}

/// The same on real servers, beside CopyObject: content, metadata, refusal, and that the source stays.
#[test]
fn p34_copies_within_real_stores() {
    let bytes: Vec<u8> = (0..11 * MIB as u32 + 77).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let pairs = |name: &str| vec![(name.to_owned(), "1".to_owned())];
    for url in crate::s3::servers() {
        for parameters in ["", "&part-size=5242880"] {
            let store = store::open(&format!("{url}{parameters}")).unwrap();
            let (old, new) = (
                Metadata { timestamp: Some(Timestamp(1_000)), pairs: pairs("old") },
                Metadata { timestamp: Some(Timestamp(2_000)), pairs: pairs("new") },
            );
            let mut upload = store.upload("big/from", &old, bytes.len() as u64).unwrap();
            upload.write(&bytes).unwrap();
            assert!(matches!(upload.finish_if_absent().unwrap(), Put::Done(_)));
            let Put::Done(etag) = store.copy("big/from", "big/to", &new).unwrap() else { panic!("refused") };
            let object = store.head("big/to").unwrap().unwrap();
            assert_eq!((object.size, object.metadata, object.etag), (bytes.len() as u64, new.clone(), etag), "{url}");
            assert!(store.get("big/to", bytes.len() as u64).unwrap().unwrap().0 == bytes, "{url}: other bytes");
            assert_eq!(store.copy("big/from", "big/to", &old).unwrap(), Put::Refused);
            assert_eq!(store.head("big/to").unwrap().unwrap().metadata, new);
            assert_eq!(store.head("big/from").unwrap().unwrap().metadata, old);
            store.delete("big/from").unwrap();
            store.delete("big/to").unwrap();
        }
    }
}

/// P34: what a writer that died has left is aborted: a day later, below our prefix only.
#[test]
fn p34_only_old_uploads_of_ours_are_aborted() {
    let row = |key: &str, id: &str, initiated: String| {
        format!("<Upload><Key>{key}</Key><UploadId>{id}</UploadId><Initiated>{initiated}</Initiated></Upload>")
    };
    let hours_ago = |hours: i64| Timestamp(Timestamp::now().0 - hours * 3_600_000).to_string();
    let rows = [
        row("p/0000/1.ltx", "old &amp; ours", hours_ago(25)),
        row("p/0000/2.ltx", "young", hours_ago(23)),
        row("q/0000/1.ltx", "foreign", hours_ago(99)),
        "<Upload><Key>p/x</Key></Upload>".to_owned(),
    ];
    let body = format!("<ListMultipartUploadsResult>{}</ListMultipartUploadsResult>", rows.concat());
    let server = Server::run([ok(&body), answer("204 No Content", "", ""), fault("403 Forbidden", "AccessDenied")]);
    let store = open(&server);
    assert_eq!(store.sweep().unwrap(), 1);
    assert_eq!(server.lines(), ["GET /b?uploads=&prefix=p%2F", "DELETE /b/p/0000/1.ltx?uploadId=old%20%26%20ours"]);
    assert_eq!(store.sweep().unwrap_err().kind(), Kind::Denied);
}

/// An upload of today, by whomever, goes on whatever starts meanwhile. (moto says of each that it was begun in 2010.)
#[test]
fn p34_an_upload_under_way_is_left_alone_by_real_stores() {
    for url in crate::s3::servers().into_iter().filter(|url| !crate::s3::is_moto(url)) {
        let (one, two) = (store::open(&url).unwrap(), store::open(&url).unwrap());
        let mut upload = one.upload("sweep/up", &NONE, 0).unwrap();
        upload.write(&vec![1; 9 * MIB]).unwrap();
        assert_eq!(two.sweep().unwrap(), 0, "{url}");
        assert!(matches!(upload.finish_if_absent().unwrap(), Put::Done(_)));
        one.delete("sweep/up").unwrap();
    }
}

#[test]
fn p34_old_temporary_files_of_ours_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileStore::new(dir.path());
    store.put("ltx/0/a.ltx", b"x", &NONE).unwrap();
    let age = |name: &str, hours: u64| {
        let file = std::fs::File::create(dir.path().join("ltx/0").join(name)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(hours * 3600)).unwrap();
    };
    // Litestream's own, and a user's, are not ours.
    for (name, hours) in
        [(".1a-2b-0.tmp", 25), (".1a-2b-1.tmp", 23), ("b.ltx.tmp", 99), (".x.tmp", 99), ("1-2-3.tmp", 99)]
    {
        age(name, hours);
    }
    assert_eq!(store.sweep().unwrap(), 1);
    assert!(!dir.path().join("ltx/0/.1a-2b-0.tmp").exists());
    assert_eq!(std::fs::read_dir(dir.path().join("ltx/0")).unwrap().count(), 6); // the store's .lock is the sixth
    assert_eq!(FileStore::new(dir.path().join("nowhere")).sweep().unwrap(), 0);
}

/// A copy is asked for what it copies and where, and its refusals are told apart.
#[test]
fn a_copy_is_refused_or_fails_as_the_store_says() {
    let source = || ok("");
    let copied = "<CopyObjectResult><ETag>\"e\"</ETag></CopyObjectResult>";
    let refusal = || fault("412 Precondition Failed", "PreconditionFailed");
    let server = Server::run([source(), missing(), ok(copied)]);
    assert_eq!(open(&server).copy("a b", "c", &NONE).unwrap(), done());
    let seen = server.seen().pop().unwrap();
    for (name, value) in [
        ("x-amz-copy-source", "/b/p/a%20b"),
        ("x-amz-copy-source-if-match", "\"e\""),
        ("x-amz-metadata-directive", "REPLACE"),
        ("if-none-match", "*"),
    ] {
        assert_eq!(seen.headers[name], value);
    }
    let server = Server::run([source(), missing(), refusal(), source()]);
    assert_eq!(open(&server).copy("a", "c", &NONE).unwrap(), Put::Refused);
    let other = answer("200 OK", "ETag: \"f\"\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n", "");
    let server = Server::run([source(), missing(), refusal(), other]);
    assert_eq!(open(&server).copy("a", "c", &NONE).unwrap_err().kind(), Kind::Conflict);
    let options = Options { limits: quick().limits, ..quick() };
    let server = Server::run([source(), missing(), fault("200 OK", "AccessDenied")]);
    let store = store::open_with(&format!("s3://b/p?endpoint={}", server.endpoint), &options).unwrap();
    assert!(store.copy("a", "c", &NONE).unwrap_err().to_string().contains("200 with AccessDenied"));
}
