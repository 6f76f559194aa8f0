//! Reading and writing through `std::io` without losing what kind of failure it was.

use crate::error::{Error, Result};
use std::io::{self, Read};

/// An error of this crate that a reader or writer of ours wrapped in an `io::Error` comes out as it was (a store that
/// is away stays [`Kind::Unavailable`](crate::error::Kind::Unavailable)); any other is a failed file operation.
pub(super) fn io_error(what: &str, error: &io::Error) -> Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(ours) => ours.clone().context(what),
        None => Error::io(what, error),
    }
}

/// Fills `buffer`; a file that ends before is corrupt, not an I/O failure.
pub(super) fn read_exact(reader: &mut impl Read, buffer: &mut [u8], part: &str) -> Result<()> {
    reader.read_exact(buffer).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => Error::corrupt(format!("the LTX file ends inside {part}")),
        _ => io_error("read LTX file", &e),
    })
}

/// Whether nothing follows.
pub(super) fn at_end(reader: &mut impl Read) -> Result<bool> {
    let mut byte = [0u8; 1];
    loop {
        match reader.read(&mut byte) {
            Ok(n) => return Ok(n == 0),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(io_error("read LTX file", &e)),
        }
    }
}
