//! `<name>.meta`: the metadata pairs of an object, as JSON.
//!
//! It is put in place before its object becomes visible, so that nobody sees the object without its pairs. A writer that
//! dies in between leaves one that belongs to nothing, and another program may then create an object of that name
//! without pairs. So the file says which content it means: the size, and the SHA-256 of the last 4 KiB. The last bytes
//! of an LTX file are the checksum of the whole file, and every other object of ours is smaller than that; the record
//! also survives copying the replica, which an inode number would not.

use super::staged;
use crate::error::{Error, Result};
use crate::store::digest::hex_sha256;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// What the names end in.
pub(super) const SUFFIX: &str = ".meta";
const TAIL_BYTES: u64 = 4096;
/// Larger than any that [`check_metadata`](crate::store::names::check_metadata) lets through.
const FILE_BYTES_MAX: u64 = 64 * 1024;

#[derive(Serialize, Deserialize)]
struct Record {
    size: u64,
    tail_sha256: String,
    pairs: BTreeMap<String, String>,
}

/// Where the pairs of the object at `target` are.
pub(super) fn path(target: &Path) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    name.push(SUFFIX);
    PathBuf::from(name)
}

/// Writes the pairs for the object at `target` whose content is that of `file`. The directory is not synced.
pub(super) fn write(target: &Path, file: &File, size: u64, pairs: &[(String, String)]) -> Result<()> {
    let record = Record { size, tail_sha256: tail(target, file, size)?, pairs: pairs.iter().cloned().collect() };
    let json = serde_json::to_vec(&record).map_err(Error::bug)?;
    staged::replace_small(&path(target), &json)
}

/// The pairs of the object at `target`, which is open as `file`. `None`: those that lie there are of other content.
pub(super) fn read(target: &Path, file: &File, size: u64) -> Result<Option<Vec<(String, String)>>> {
    let path = path(target);
    let mut json = Vec::new();
    match File::open(&path).and_then(|f| f.take(FILE_BYTES_MAX).read_to_end(&mut json)) {
        Ok(_) => {}
        Err(error) if super::is_absent(&error) => return Ok(Some(Vec::new())),
        Err(error) => return Err(super::failed("read", &path, &error)),
    }
    let Ok(record) = serde_json::from_slice::<Record>(&json) else { return Ok(Some(Vec::new())) };
    if record.size != size || record.tail_sha256 != tail(target, file, size)? {
        return Ok(None);
    }
    Ok(Some(record.pairs.into_iter().collect()))
}

fn tail(target: &Path, file: &File, size: u64) -> Result<String> {
    let mut bytes = vec![0; size.min(TAIL_BYTES) as usize];
    file.read_exact_at(&mut bytes, size.saturating_sub(TAIL_BYTES)).map_err(|e| super::failed("read", target, &e))?;
    Ok(hex_sha256(&bytes))
}
