//! The LTX format, version 3: pure, bytes in, bytes out. `docs/design.md` draws the bytes.
//!
//! [`Encoder`] and [`Decoder`] stream a whole file. [`Tail`], [`parse_index`] and [`decode_frame`] are for reading by
//! ranges: the tail says where the index is, the index says where each page is. [`SegmentHash`] verifies a file whose
//! parts arrive in any order.
//!
//! Architecture Invariant: nothing here opens, names or fetches anything, and no length read from a file is used
//! before it has been compared with what the format allows.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod checksum;
mod decoder;
mod encoder;
mod fields;
mod frame;
mod header;
mod index;
mod lz4_frame;
mod order;
mod segment;
mod stream;
mod tail;
mod types;

#[cfg(test)]
mod tests;

pub use checksum::{Checksum, Rolling, page_checksum};
pub use decoder::Decoder;
pub use encoder::{Encoded, Encoder, encode_frame};
pub(crate) use fields::Fields;
pub use frame::{decode_frame, max_frame_len};
pub use header::{Header, WalSpan};
pub use index::{IndexEntry, count_index, parse_index};
pub use segment::{SegmentHash, file_checksum};
pub use tail::{Tail, Trailer};
pub use types::{Level, PageSize, Pgno, Txid, TxidRange};

/// Bytes of the header, at the start of a file.
pub const HEADER_SIZE: usize = 100;
/// Bytes of the two checksums that end a file.
pub const TRAILER_SIZE: usize = 16;
/// Bytes of the index size and the trailer: what a reader by ranges fetches first.
pub const TAIL_SIZE: usize = 24;
/// Bytes of the zeros between the last page frame and the index: a page header that names no page.
pub const END_MARKER_SIZE: usize = 6;
