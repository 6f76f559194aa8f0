//! What may be a key and a metadata pair, the same for all stores, so that what works on one works on all.

use super::Metadata;
use crate::error::{Error, Result};

/// S3's limit of a key, in bytes.
const KEY_BYTES_MAX: usize = 1024;
/// S3's limit of user metadata, names and values together, in bytes.
const METADATA_BYTES_MAX: usize = 2048;

/// Refuses keys that some store could not keep or would keep under another name: empty and dot segments (URL parsers
/// and file systems resolve them), backslashes (SeaweedFS and Windows take them for slashes) and control characters
/// (XML 1.0 has no way to list them).
pub(super) fn check_key(key: &str) -> Result<()> {
    let fault = if key.is_empty() {
        "is empty"
    } else if key.len() > KEY_BYTES_MAX {
        "is longer than 1024 bytes"
    } else if key.split('/').any(|s| matches!(s, "" | "." | "..")) {
        "has an empty or dot segment"
    } else if key.chars().any(|c| c.is_control() || c == '\\') {
        "has a control character or a backslash"
    } else {
        return Ok(());
    };
    Err(Error::invalid(format!("object key {key:?} {fault}")))
}

/// Refuses what an HTTP header cannot carry: names are lower-case ASCII with hyphens, values visible ASCII.
pub(super) fn check_metadata(metadata: &Metadata) -> Result<()> {
    let mut total = 0;
    for (name, value) in &metadata.pairs {
        // The timestamp has a field of its own.
        let name_ok = name != "litestream-timestamp"
            && !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        let value_ok = value.bytes().all(|b| (b' '..=b'~').contains(&b)) && value.trim() == value;
        if !name_ok || !value_ok {
            return Err(Error::invalid(format!("metadata {name:?} = {value:?} is no HTTP header")));
        }
        total += name.len() + value.len();
    }
    if total > METADATA_BYTES_MAX {
        return Err(Error::invalid(format!("metadata of {total} bytes, more than 2048")));
    }
    Ok(())
}

/// The pairs in order of name, as every store gives them back.
pub(super) fn sorted(mut pairs: Vec<(String, String)>) -> Vec<(String, String)> {
    pairs.sort();
    pairs
}
