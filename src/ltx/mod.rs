//! The LTX format, version 3: pure, bytes in, bytes out. `docs/design.md` draws the bytes.

mod types;

pub use types::{Level, PageSize, Pgno, Txid, TxidRange};
