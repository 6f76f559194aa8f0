//! One suite for every store: what the trait `Store` promises holds on memory, `file://` and real S3 servers.
//!
//! `LITESTREAM_TEST_S3` names S3 prefixes to run against, a comma-separated list of URLs;
//! `sql-tests/stores/objstore.sh` starts servers and prints theirs.

mod conditions;
mod credentials;
mod endings;
mod faults;
mod file;
mod multipart;
mod s3;
mod server;
mod suite;
mod tls;
mod ways;

use litestream::store::{FileStore, MemoryStore};
use std::sync::Arc;

#[test]
fn memory_keeps_the_promises_of_the_trait() {
    suite::run(&Arc::new(MemoryStore::new()));
}

#[test]
fn file_keeps_the_promises_of_the_trait() {
    let dir = tempfile::tempdir().unwrap();
    suite::run(&Arc::new(FileStore::new(dir.path().join("not/there/yet"))));
}
