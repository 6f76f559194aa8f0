//! The spool becomes objects in the store: one TXID, one object, created if absent (P17, P19, P20).

use super::companion::Source;
use super::encode::Staged;
use super::primary::Primary;
use crate::error::{Context, Error, Kind, Result};
use crate::ltx::{HEADER_SIZE, Header, Level, TAIL_SIZE, TRAILER_SIZE, Txid, TxidRange};
use crate::replica::{ROLLING_AFTER, ROLLING_BEFORE};
use crate::store::{Metadata, Put, Upload};
use crate::time::Timestamp;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::sync::atomic::Ordering;

/// A spool file up to this size is sent from memory; a larger one as an upload, which needs no more memory than its
/// store does.
pub(super) const FROM_MEMORY: u64 = 1 << 20;

/// What tells one object from another of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fingerprint {
    header: [u8; HEADER_SIZE],
    trailer: [u8; TRAILER_SIZE],
    size: u64,
}

impl Primary {
    /// Sends one staged file. After this it is in the store, whoever's answer was lost (P19). Gives what its companion
    /// index is made from.
    pub(super) fn ship(&self, staged: &Staged) -> Result<Source> {
        let path = self.spool.file(staged.txid);
        let key = self.key(staged.txid);
        let mut file = File::open(&path).with_context(|| path.display().to_string())?;
        let size = file.metadata().with_context(|| path.display().to_string())?.len();
        let metadata = self.metadata(staged.timestamp, staged.rolling);
        let put = if size <= FROM_MEMORY {
            let mut bytes = Vec::with_capacity(size as usize);
            file.read_to_end(&mut bytes).with_context(|| path.display().to_string())?;
            self.store.put_if_absent(&key, &bytes, &metadata)?
        } else {
            self.sweep_once();
            let mut upload = self.store.upload(&key, &metadata, size)?;
            let mut buffer = vec![0; 256 << 10];
            loop {
                let n = file.read(&mut buffer).with_context(|| path.display().to_string())?;
                if n == 0 {
                    break upload.finish_if_absent()?;
                }
                upload.write(&buffer[..n])?;
            }
        };
        match put {
            Put::Done(etag) => Ok(Source::File { file, size, etag: Some(etag) }),
            Put::Refused => match self.in_store(&key)? {
                Some(theirs) if theirs == fingerprint(&mut file, size)? => Ok(Source::File { file, size, etag: None }),
                Some(_) => Err(self.created_by_another(&key, staged.txid)),
                None => Err(self.not_found_yet(&key)),
            },
        }
    }

    /// The store says that there is an object, and that there is none. Whose it is must be seen before anything is
    /// concluded.
    pub(super) fn not_found_yet(&self, key: &str) -> Error {
        Error::new(Kind::Unavailable, format!("{}: {key} is there already, but cannot be found", self.url()))
    }

    /// Before the first large object, the only kind that leaves something behind when its writer dies (P34). Nothing
    /// depends on it: a store that refuses is not asked again.
    pub(super) fn sweep_once(&self) {
        if !self.is_swept.swap(true, Ordering::Relaxed) {
            match self.store.sweep() {
                Ok(0) => {}
                Ok(count) => log::info!("{}: {count} unfinished uploads or files were removed", self.url()),
                Err(error) => log::warn!("unfinished uploads were not looked for: {error}"),
            }
            match self.sweep_companions() {
                Ok(0) => {}
                Ok(count) => log::info!("{}: {count} companion indexes of nothing were removed", self.url()),
                Err(error) => log::warn!("companion indexes of nothing were not looked for: {error}"),
            }
        }
    }

    /// The fingerprint of an object in the store; `None` if there is none.
    fn in_store(&self, key: &str) -> Result<Option<Fingerprint>> {
        let Some(object) = self.store.head(key)? else { return Ok(None) };
        if object.size < (HEADER_SIZE + TAIL_SIZE) as u64 {
            return Ok(Some(Fingerprint { header: [0; HEADER_SIZE], trailer: [0; TRAILER_SIZE], size: object.size }));
        }
        let head = self.store.get_range(key, 0..HEADER_SIZE as u64, Some(&object.etag))?;
        let tail = self.store.get_range(key, object.size - TRAILER_SIZE as u64..object.size, Some(&object.etag))?;
        Ok(match (head.try_into(), tail.try_into()) {
            (Ok(header), Ok(trailer)) => Some(Fingerprint { header, trailer, size: object.size }),
            _ => None,
        })
    }

    /// Whether the store has our bytes for a TXID: `Some(false)` if it has others, `None` if it has none at level 0.
    pub(super) fn store_has_ours(&self, txid: Txid) -> Result<Option<bool>> {
        let path = self.spool.file(txid);
        let mut file = File::open(&path).with_context(|| path.display().to_string())?;
        let size = file.metadata().with_context(|| path.display().to_string())?.len();
        let ours = fingerprint(&mut file, size)?;
        Ok(self.in_store(&self.key(txid))?.map(|theirs| theirs == ours))
    }

    /// The header of an L0 in the store; `None` if there is none.
    pub(super) fn stored_header(&self, txid: Txid) -> Result<Option<Header>> {
        match self.store.get_range(&self.key(txid), 0..HEADER_SIZE as u64, None) {
            Ok(bytes) => Header::parse(&bytes).map(Some),
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn key(&self, txid: Txid) -> String {
        self.replica.layout().key(Level::L0, TxidRange::single(txid))
    }

    /// P21, P22.
    pub(super) fn metadata(&self, timestamp: Timestamp, rolling: Option<(u64, u64)>) -> Metadata {
        let mut pairs = vec![("liblitestream-node".to_owned(), format!("{:016x}", self.node))];
        if let Some((before, after)) = rolling {
            pairs.push((ROLLING_BEFORE.to_owned(), format!("{before:016x}")));
            pairs.push((ROLLING_AFTER.to_owned(), format!("{after:016x}")));
        }
        Metadata { timestamp: Some(timestamp), pairs }
    }

    pub(super) fn created_by_another(&self, key: &str, txid: Txid) -> Error {
        Error::new(
            Kind::Conflict,
            format!(
                "replica {}: {key} was created by another primary; this process has stopped shipping. Nothing local is \
                 lost. TXID {txid} and what follows it are only here: replicate to another URL to keep them, or restore \
                 the replica to go on with the other primary's history",
                self.url()
            ),
        )
    }
}

fn fingerprint(file: &mut File, size: u64) -> Result<Fingerprint> {
    let mut header = [0; HEADER_SIZE];
    let mut trailer = [0; TRAILER_SIZE];
    let mut read = || {
        file.rewind()?;
        file.read_exact(&mut header)?;
        file.seek(SeekFrom::End(-(TRAILER_SIZE as i64)))?;
        file.read_exact(&mut trailer)
    };
    read().context("a staged file")?;
    Ok(Fingerprint { header, trailer, size })
}

/// An upload as a writer for the encoder. Its own error is kept: `std::io::Error` has no place for what kind it is.
pub(super) struct UploadWriter {
    pub(super) upload: Box<dyn Upload>,
    pub(super) error: Option<Error>,
}

impl std::io::Write for UploadWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.upload.write(bytes).map_err(|error| {
            let text = error.to_string();
            self.error = Some(error);
            std::io::Error::other(text)
        })?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
