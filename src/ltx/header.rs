//! The header: 100 bytes that say which transactions a file covers and how large the database is after them.

use super::{Checksum, Fields, HEADER_SIZE, PageSize, Txid, TxidRange};
use crate::error::{Error, Result};
use crate::time::Timestamp;

/// The magic implies version 3 of the format; the number itself is not stored.
const MAGIC: [u8; 4] = *b"LTX1";
/// The only legal flag: the file carries no database checksums.
const FLAG_NO_CHECKSUM: u32 = 1 << 1;

/// Where in a WAL the file's pages came from: bookkeeping of the writer, all 0 where it does not apply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalSpan {
    /// Byte at which the covered frames begin.
    pub offset: u64,
    /// Bytes covered.
    pub size: u64,
    /// The WAL header's first salt.
    pub salt1: u32,
    /// The WAL header's second salt.
    pub salt2: u32,
}

/// What the first 100 bytes of a file say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Of the database.
    pub page_size: PageSize,
    /// The database's size in pages after the file is applied.
    pub commit: u32,
    /// The TXIDs covered.
    pub txids: TxidRange,
    /// When the file's last transaction was captured.
    pub timestamp: Timestamp,
    /// The source in the WAL.
    pub wal: WalSpan,
    /// The writing node: random per incarnation of a primary of ours (P25), 0 from Litestream.
    pub node: u64,
    /// The database's checksum before the file is applied; `None` when the file carries none, as with every file of
    /// Litestream's and ours. A snapshot that carries checksums has [`Checksum::EMPTY`] here and 0 in its bytes.
    pub pre_apply: Option<Checksum>,
}

impl Header {
    /// Parses the first 100 bytes of `bytes`; what follows is not looked at. The 20 reserved bytes may hold anything.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let bytes = bytes.first_chunk::<HEADER_SIZE>().ok_or_else(|| corrupt("shorter than 100 bytes"))?;
        let mut fields = Fields(bytes);
        if fields.array()? != MAGIC {
            return Err(corrupt("does not begin with LTX1"));
        }
        let flags = fields.u32()?;
        if flags & !FLAG_NO_CHECKSUM != 0 {
            return Err(corrupt(format!("unknown flags {flags:#x}")));
        }
        let page_size = PageSize::new(fields.u32()?)?;
        let commit = fields.u32()?;
        let (min, max) = (fields.u64()?, fields.u64()?);
        let txids = match (Txid::new(min), Txid::new(max)) {
            (Some(min), Some(max)) => TxidRange::new(min, max),
            _ => None,
        }
        .ok_or_else(|| corrupt(format!("TXIDs {min} to {max} are not a range")))?;
        let timestamp = Timestamp(i64::from_be_bytes(fields.array()?));
        let pre_apply = parse_pre_apply(fields.u64()?, flags & FLAG_NO_CHECKSUM == 0, txids.min == Txid::FIRST)?;
        let wal = WalSpan { offset: fields.u64()?, size: fields.u64()?, salt1: fields.u32()?, salt2: fields.u32()? };
        let node = fields.u64()?;
        let header = Self { page_size, commit, txids, timestamp, wal, node, pre_apply };
        header.check().map_err(corrupt)?;
        Ok(header)
    }

    /// The 100 bytes, reserved ones 0.
    pub fn to_bytes(&self) -> [u8; HEADER_SIZE] {
        let flags = if self.pre_apply.is_none() { FLAG_NO_CHECKSUM } else { 0 };
        let pre_apply = self.pre_apply.filter(|_| !self.is_snapshot()).map_or(0, Checksum::get);
        let mut bytes = [0; HEADER_SIZE];
        let mut rest = bytes.as_mut_slice();
        for field in [
            MAGIC.as_slice(),
            &flags.to_be_bytes(),
            &self.page_size.get().to_be_bytes(),
            &self.commit.to_be_bytes(),
            &self.txids.min.get().to_be_bytes(),
            &self.txids.max.get().to_be_bytes(),
            &self.timestamp.0.to_be_bytes(),
            &pre_apply.to_be_bytes(),
            &self.wal.offset.to_be_bytes(),
            &self.wal.size.to_be_bytes(),
            &self.wal.salt1.to_be_bytes(),
            &self.wal.salt2.to_be_bytes(),
            &self.node.to_be_bytes(),
        ] {
            if let Some((here, after)) = std::mem::take(&mut rest).split_at_mut_checked(field.len()) {
                here.copy_from_slice(field);
                rest = after;
            }
        }
        bytes
    }

    /// Whether the file starts at the first TXID, and so holds every page but the lock page. A complete image in
    /// mid-history is not a snapshot to the format.
    pub fn is_snapshot(&self) -> bool {
        self.txids.min == Txid::FIRST
    }

    /// Rules between fields that their types do not carry; the error is the broken rule.
    pub(super) fn check(&self) -> std::result::Result<(), String> {
        let wal = self.wal;
        if self.txids.min > self.txids.max {
            return Err(format!("TXIDs {} are not a range", self.txids));
        }
        if i64::try_from(wal.offset).is_err() || i64::try_from(wal.size).is_err() {
            return Err("WAL offset or size is negative".into());
        }
        if wal.offset == 0 && wal != WalSpan::default() {
            return Err("WAL size or salts without a WAL offset".into());
        }
        Ok(())
    }
}

/// With checksums, only a snapshot has nothing before it.
fn parse_pre_apply(value: u64, tracked: bool, snapshot: bool) -> Result<Option<Checksum>> {
    match (tracked, snapshot) {
        (false, _) if value == 0 => Ok(None),
        (true, true) if value == 0 => Ok(Some(Checksum::EMPTY)),
        (true, false) if Checksum::from_u64(value).is_some() => Ok(Checksum::from_u64(value)),
        _ => Err(corrupt(format!("pre-apply checksum {value:016x} does not fit flags and TXIDs"))),
    }
}

fn corrupt(reason: impl std::fmt::Display) -> Error {
    Error::corrupt(format!("LTX header: {reason}"))
}
