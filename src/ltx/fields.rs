//! Fixed-width fields, taken one after another from the front of a byte string.

use crate::error::{Error, Result};

/// What is left of the bytes. Integers are big-endian, as in LTX files and in the WAL.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (field, rest) =
            self.0.split_first_chunk::<N>().ok_or_else(|| Error::corrupt("the bytes end inside a field"))?;
        self.0 = rest;
        Ok(*field)
    }

    /// The next 4 bytes.
    pub fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// The next 8 bytes.
    pub fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_be_bytes)
    }
}
