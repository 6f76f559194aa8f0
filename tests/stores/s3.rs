//! Real S3 servers, those that `LITESTREAM_TEST_S3` names; without it there is nothing to do.
//!
//! `sql-tests/stores/objstore.sh` starts some and prints their URLs; `eval "$(objstore.sh env)"` gives the keys.

use crate::suite;
use litestream::error::Kind;
use litestream::store::{self, Limits, Metadata, Options, Store};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The servers, each with a prefix that no run had before.
pub fn servers() -> Vec<String> {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    let list = std::env::var("LITESTREAM_TEST_S3").unwrap_or_default();
    let urls = list.split(',').map(str::trim).filter(|url| !url.is_empty());
    urls.map(|url| url.replacen('?', &format!("/{nanos}?"), 1)).collect()
}

/// moto takes any key, and has services beside S3.
pub fn is_moto(url: &str) -> bool {
    url.contains(&std::env::var("LITESTREAM_TEST_MOTO_PORT").unwrap_or_else(|_| "18336".to_owned()))
}

fn impatient() -> Options {
    Options {
        limits: Limits { overall_timeout: Duration::from_millis(300), ..Limits::default() },
        ..Options::default()
    }
}

fn open(url: &str) -> Arc<dyn Store> {
    store::open_with(url, &impatient()).unwrap()
}

#[test]
fn s3_keeps_the_promises_of_the_trait() {
    for url in servers() {
        println!("{url}");
        suite::run(&store::open(&url).unwrap());
    }
}

#[test]
fn a_bucket_that_is_not_there_says_so() {
    for url in servers() {
        let url = url.replacen("s3://test/", "s3://no-such-bucket/", 1);
        let error = open(&url).list("").unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound, "{error}");
        let text = error.to_string();
        assert!(text.contains("404 NoSuchBucket") && text.contains("s3://no-such-bucket/"), "{error}");
        let error = open(&url).get("x", 1).unwrap_err();
        assert!(error.kind() == Kind::NotFound && error.to_string().contains("NoSuchBucket"), "{error}");
    }
}

#[test]
fn a_wrong_secret_is_denied_in_the_stores_words() {
    for url in servers().into_iter().filter(|url| !is_moto(url)) {
        let env = [("AWS_ACCESS_KEY_ID", "AKTEST"), ("AWS_SECRET_ACCESS_KEY", "wrong-secret")];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let store = store::open_with(&url, &Options { env: Some(env), ..impatient() }).unwrap();
        for error in [store.list("").unwrap_err(), store.put_if_absent("x", b"", &Metadata::default()).unwrap_err()] {
            assert_eq!(error.kind(), Kind::Denied, "{error}");
            assert!(error.to_string().contains("403 SignatureDoesNotMatch"), "{error}");
            assert!(!error.to_string().contains("wrong-secret"), "{error}");
        }
        let head = store.head("x").unwrap_err();
        assert!(head.kind() == Kind::Denied && head.to_string().contains("403 Forbidden"), "{head}");
    }
}

#[test]
fn nobody_there_says_so() {
    // Port 1 is the port of nothing; no server is needed for this one.
    let env = [("AWS_ACCESS_KEY_ID", "k"), ("AWS_SECRET_ACCESS_KEY", "s")];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let limits = Limits { overall_timeout: Duration::from_secs(4), ..Limits::default() };
    let store =
        store::open_with("s3://b/p?endpoint=http://127.0.0.1:1", &Options { env: Some(env), limits, gate: None });
    let store = store.unwrap();
    let error = store.list("").unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    let text = error.to_string();
    assert!(text.contains("s3://b/p?endpoint=http://127.0.0.1:1") && text.contains("refused"), "{text}");
    assert!(store.counters().list > 1, "it was not tried again");
}
