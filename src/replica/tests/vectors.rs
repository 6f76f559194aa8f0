//! Every replica that the real Litestream wrote restores to what `litestream restore` made of it.

use super::{Scratch, restored};
use crate::error::Kind;
use crate::ltx::{Rolling, Txid, page_checksum};
use crate::replica::{Layout, Replica, Target, page_checksums};
use crate::store::{FileStore, MemoryStore, Metadata, Store};
use crate::time::Timestamp;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

fn vectors() -> Vec<(PathBuf, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql-tests/vectors");
    let folders = fs::read_dir(folder).unwrap().map(|row| row.unwrap().path()).filter(|path| path.is_dir());
    let mut found: Vec<_> = folders
        .filter(|path| !path.ends_with("v03_generation"))
        .map(|path| (path.clone(), serde_json::from_slice(&fs::read(path.join("vector.json")).unwrap()).unwrap()))
        .collect();
    found.sort_by(|a: &(PathBuf, Value), b| a.0.cmp(&b.0));
    assert_eq!(found.len(), 9);
    found
}

/// A copy of the replica, with the mtimes that the writer gave, or with those of the copying.
fn copy(scratch: &Scratch, folder: &Path, vector: &Value, mtimes: bool) -> Replica {
    let root = scratch.join("replica");
    for file in vector["files"].as_array().unwrap() {
        let path = file["path"].as_str().unwrap();
        let to = root.join(path);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(folder.join("replica").join(path), &to).unwrap();
        if mtimes {
            let time = UNIX_EPOCH + Duration::from_nanos(file["mtime_ns"].as_u64().unwrap());
            File::options().write(true).open(&to).unwrap().set_modified(time).unwrap();
        }
    }
    Replica::new(Arc::new(FileStore::new(root)))
}

/// Each target with the digest of its database.
fn expected(vector: &Value) -> Vec<(Target, String)> {
    let expected = &vector["expected_restore"];
    let digest = |value: &Value| value["sha256"].as_str().unwrap().to_owned();
    let mut found = vec![(Target::Latest, digest(&expected["latest"]))];
    for (txid, value) in expected["txid"].as_object().unwrap() {
        found.push((Target::Txid(Txid::parse(txid).unwrap()), digest(value)));
    }
    for (time, value) in expected["timestamp"].as_object().unwrap() {
        found.push((Target::Before(Timestamp::parse_rfc3339(time).unwrap()), digest(value)));
    }
    found
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn all_restore(mtimes: bool, chunk_bytes: Option<u64>) {
    let mut restores = 0;
    for (folder, vector) in vectors() {
        let scratch = Scratch::new();
        let mut replica = copy(&scratch, &folder, &vector, mtimes);
        replica.limits.chunk_bytes = chunk_bytes.unwrap_or(replica.limits.chunk_bytes);
        for (target, digest) in expected(&vector) {
            let database = restored(&replica, target).unwrap();
            assert_eq!(sha256(&database), digest, "{} at {target:?}", folder.display());
            let sums = page_checksums(&replica, target, &|| false).unwrap();
            assert_eq!(sums.pages.len() * sums.page_size.bytes(), database.len());
            let mut rolling = Rolling::EMPTY;
            for (page, number) in database.chunks_exact(sums.page_size.bytes()).zip(1..) {
                rolling.add(page_checksum(crate::ltx::Pgno::new(number).unwrap(), page));
            }
            assert_eq!(sums.rolling, rolling);
            restores += 1;
        }
        for txid in vector["expected_restore"]["txid_unavailable"].as_object().into_iter().flatten() {
            let error = restored(&replica, Target::Txid(Txid::parse(txid.0).unwrap())).unwrap_err();
            assert_eq!(error.kind(), Kind::NotFound, "{error}");
            restores += 1;
        }
    }
    assert!(restores > 30, "{restores}");
}

#[test]
fn all_restore_as_litestream_restores_them() {
    all_restore(true, None);
}

/// The header's timestamp counts, so a copy that has lost its mtimes restores alike, and is not taken for two histories.
#[test]
fn all_restore_without_their_mtimes() {
    all_restore(false, None);
}

/// As if every file were large: fetched by ranges, in many chunks.
#[test]
fn all_restore_in_small_chunks() {
    all_restore(true, Some(600));
}

/// The same files under the keys that Litestream gives them on S3, beside what else may lie there.
#[test]
fn all_restore_from_the_layout_of_s3() {
    for (folder, vector) in vectors() {
        let store = MemoryStore::new();
        let mut replica = Replica::new(Arc::new(store.clone()));
        replica.layout = Layout::S3;
        for file in vector["files"].as_array().unwrap() {
            let path = file["path"].as_str().unwrap();
            let (level, txids) = Layout::Plain.parse(path).unwrap();
            let bytes = fs::read(folder.join("replica").join(path)).unwrap();
            for key in [Layout::S3.key(level, txids), format!("other/{}", Layout::S3.key(level, txids))] {
                store.put(&key, &bytes, &Metadata::default()).unwrap();
            }
        }
        store.put("lock.json", b"{}", &Metadata::default()).unwrap();
        for (target, digest) in expected(&vector) {
            assert_eq!(sha256(&restored(&replica, target).unwrap()), digest, "{} at {target:?}", folder.display());
        }
    }
}

#[test]
fn a_litestream_0_3_replica_is_named_as_such() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql-tests/vectors/v03_generation/replica");
    let replica = Replica::new(Arc::new(FileStore::new(folder)));
    let error = restored(&replica, Target::Latest).unwrap_err();
    assert!(error.to_string().contains("Litestream 0.3"), "{error}");
}

#[test]
fn an_empty_place_is_not_found() {
    let scratch = Scratch::new();
    let replica = Replica::new(Arc::new(FileStore::new(scratch.join("nothing"))));
    assert_eq!(restored(&replica, Target::Latest).unwrap_err().kind(), Kind::NotFound);
}
