//! SHA-256 as text: what S3 signs payloads with, and what tells a file's content.

use sha2::{Digest, Sha256};
use std::fmt::Write;

/// 64 lower-case hex digits.
pub(super) fn hex_sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut hex, byte| {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
