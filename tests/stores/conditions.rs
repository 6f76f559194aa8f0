//! Stores that ignore conditional writes, and what is asked of them (P29).

use crate::faults::{NONE, done, open_at};
use crate::server::{Server, answer, fault, ok};
use litestream::error::Kind;
use litestream::store::{self, Limits, Options, Put, Store};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// A store where nothing is there yet, and which creates everything, twice too.
fn careless() -> Server {
    let step = |seen: &crate::server::Seen| match seen.method.as_str() {
        "HEAD" => answer("404 Not Found", "", ""),
        _ => ok("<CopyObjectResult><ETag>\"e\"</ETag></CopyObjectResult>"),
    };
    Server::asked_for_conditions(step, || ok(""))
}

#[test]
fn p29_a_store_that_ignores_conditions_is_refused_before_anything_is_created() {
    let server = careless();
    let store = open_at(&server, "");
    let errors = [
        store.prove_conditions().unwrap_err(),
        store.put_if_absent("k", b"x", &NONE).unwrap_err(),
        store.upload("k", &NONE, 9).err().unwrap(),
        store.copy("j", "k", &NONE).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(
            error.to_string().contains("ignores If-None-Match") && error.to_string().contains("conditional-writes")
        );
    }
    assert_eq!(server.lines(), Vec::<String>::new());
}

/// Whoever says that nobody else writes there gets a look before each write in its place.
#[test]
fn p29_a_url_may_do_without_conditions() {
    let server = careless();
    let store = open_at(&server, "&conditional-writes=false");
    store.prove_conditions().unwrap();
    assert_eq!(store.put_if_absent("k", b"x", &NONE).unwrap(), done());
    assert_eq!(server.lines(), ["HEAD /b/p/k", "PUT /b/p/k"]);
    assert!(server.seen().iter().all(|seen| !seen.headers.contains_key("if-none-match")));
    let there = Server::run([ok(""), ok(""), ok(""), ok("")]);
    let store = open_at(&there, "&conditional-writes=false");
    assert_eq!(store.put_if_absent("k", b"x", &NONE).unwrap(), Put::Refused);
    assert_eq!(store.put_if_match("k", b"x", &NONE, &store::ETag("\"other\"".to_owned())).unwrap(), Put::Refused);
    assert_eq!(store.put_if_match("k", b"x", &NONE, &store::ETag("\"e\"".to_owned())).unwrap(), done());
    assert_eq!(there.lines(), ["HEAD /b/p/k", "HEAD /b/p/k", "HEAD /b/p/k", "PUT /b/p/k"]);
}

/// One request where the object is there from an earlier time, two where it is not, and none after that.
#[test]
fn p29_the_question_is_asked_once_for_an_endpoint_and_bucket() {
    for (first, asked) in [(true, 2), (false, 1)] {
        let count = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&count);
        let server = Server::asked_for_conditions(
            |_| ok(""),
            move || match counter.fetch_add(1, SeqCst) {
                0 if first => ok(""),
                _ => fault("412 Precondition Failed", "PreconditionFailed"),
            },
        );
        for store in [open_at(&server, ""), open_at(&server, "&region=other")] {
            store.prove_conditions().unwrap();
            assert_eq!(store.put_if_absent("k", b"x", &NONE).unwrap(), done());
        }
        assert_eq!(count.load(SeqCst), asked);
    }
}

/// rclone's S3 server ignores conditions; LITESTREAM_TEST_RCLONE names it.
#[test]
fn p29_rclone_is_refused() {
    let Ok(url) = std::env::var("LITESTREAM_TEST_RCLONE") else { return };
    let store: Arc<dyn Store> =
        store::open_with(&url, &Options { limits: Limits::default(), gate: None, env: None }).unwrap();
    let error = store.put_if_absent("k", b"x", &NONE).unwrap_err();
    assert!(error.to_string().contains("ignores If-None-Match"), "{error}");
    assert_eq!(store.list("").unwrap(), []);
    let knowing = store::open(&format!("{url}&conditional-writes=false")).unwrap();
    assert!(matches!(knowing.put_if_absent("k", b"x", &NONE).unwrap(), Put::Done(_)));
    assert_eq!(knowing.put_if_absent("k", b"y", &NONE).unwrap(), Put::Refused);
    assert_eq!(knowing.get("k", 1).unwrap().unwrap().0, b"x");
    knowing.delete("k").unwrap();
    knowing.delete("liblitestream-probe").unwrap();
}
