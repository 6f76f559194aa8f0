//! A batch becomes the next TXID in the spool.
//!
//! The invariant: the newest spool file, the page checksums in memory and the record describe the same state, the one
//! after `head`. Nothing of them moves before the file is visible in the spool.

use super::batch::FrozenBatch;
use super::capture::Captured;
use super::history::History;
use super::merge::Former;
use super::primary::{Phase, Primary};
use super::put_back::FirstPage;
use super::spool::{Record, RecordedPosition};
use super::sums::Sums;
use crate::error::{Context, Error, Kind, Result};
use crate::ltx::{Encoder, Header, Pgno, Txid, TxidRange, WalSpan, page_checksum};
use crate::time::Timestamp;
use std::collections::VecDeque;
use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;

/// Pages read under one hold of the capture lock.
pub(super) const PAGES_PER_LOCK: usize = 64;

/// A spool file that is not in the store yet.
#[derive(Clone, Debug)]
pub(super) struct Staged {
    pub(super) txid: Txid,
    pub(super) timestamp: Timestamp,
    /// The publication up to which it holds everything.
    pub(super) sequence: u64,
    /// Rolling checksums before and after it (P21), where they are known.
    pub(super) rolling: Option<(u64, u64)>,
}

/// What encoding and shipping keep between steps.
pub(super) struct Work {
    pub(super) record: Record,
    /// The newest TXID there is, in the spool or in the store.
    pub(super) head: Option<Txid>,
    /// Of the state after `head`; `None` if it must be found out first.
    pub(super) sums: Option<Sums>,
    /// The TXID that the checksum file on disk describes.
    pub(super) sums_on_disk: Option<Txid>,
    pub(super) staged: VecDeque<Staged>,
    /// The newest staged file, if more may be merged into it (P18).
    pub(super) open: Option<Txid>,
    pub(super) history: History,
    pub(super) last_timestamp: Timestamp,
}

impl Work {
    /// P22: never before the last one, and by the store's clock.
    pub(super) fn next_timestamp(&mut self, now: Timestamp, clock_offset_ms: i64) -> Timestamp {
        let now = Timestamp(now.0 + clock_offset_ms);
        self.last_timestamp = now.max(Timestamp(self.last_timestamp.0 + 1));
        self.last_timestamp
    }

    /// The state after `head` becomes a part of the history.
    pub(super) fn remember(&mut self) -> Result<()> {
        match (self.head, &self.sums) {
            (Some(head), Some(sums)) => self.history.push(head, sums.rolling()),
            _ => Ok(()),
        }
    }
}

/// What a batch becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Into {
    /// The next TXID.
    Next,
    /// A part of the newest, in place of its file (P18).
    Newest(Txid),
}

/// The pages of a file to be made.
pub(super) struct Content<'a> {
    pub(super) into: Into,
    pub(super) commit: u32,
    /// Ascending, without the lock page, none beyond `commit`.
    pub(super) pages: &'a [u32],
    pub(super) wal: WalSpan,
    pub(super) captured: Captured,
    pub(super) sequence: u64,
}

impl Primary {
    /// Makes the batch a spool file, if there is one. `false`: nothing was committed.
    pub(super) fn encode_batch(&self, work: &mut Work, into: Into) -> Result<bool> {
        let mut former = match into {
            Into::Next => None,
            Into::Newest(txid) => Some(Former::open(&self.spool.file(txid))?),
        };
        let frozen = {
            let mut capture = self.capture.lock();
            // A heal, once it is asked for, comes first.
            if capture.batch.is_empty() || capture.captured == Captured::Gap || self.phase() != Phase::Running {
                return Ok(false);
            }
            capture.freeze()?
        };
        if let Err(error) = self.sync_source(frozen.restarted) {
            self.capture.lock().thaw();
            return Err(error);
        }
        let FrozenBatch { commit, ref pages, wal, captured, sequence, .. } = frozen;
        let pages = &former.as_ref().map_or_else(|| pages.clone(), |former| former.union(pages, commit));
        let content = Content { into, commit, pages, wal, captured, sequence };
        let outcome = self.stage(work, &content, |numbers, out| {
            let capture = self.capture.lock();
            if self.missed_barrier() {
                return Err(Error::new(Kind::Overtaken, "the batch was overtaken by a restart of the WAL"));
            }
            for (pgno, page) in numbers.iter().zip(out) {
                match &mut former {
                    Some(former) if !capture.is_frozen(*pgno) => former.read(*pgno, page)?,
                    _ => capture.read_frozen(*pgno, page)?,
                }
            }
            Ok(())
        });
        let mut capture = self.capture.lock();
        match outcome {
            Ok(()) => capture.frozen = None,
            Err(error) => {
                capture.thaw();
                return Err(error);
            }
        }
        Ok(true)
    }

    /// P8: what is captured is on disk before its LTX file can be seen. Through handles of its own, so that no barrier
    /// waits for the disk.
    pub(super) fn sync_source(&self, restarted: bool) -> Result<()> {
        let wal = match self.files.open_wal() {
            // One that is there and cannot be opened cannot be synced.
            Err(error) if self.wal_has_content() => Err(error),
            wal => Ok(wal.ok()),
        };
        let synced = wal.and_then(|wal| {
            wal.as_ref().map_or(Ok(()), |wal| wal.sync())?;
            if restarted || wal.is_none() { self.files.open_database()?.sync() } else { Ok(()) }
        });
        synced.context("the database could not be synced before shipping (P8)")
    }

    /// Writes a TXID into the spool. `read` fills pages by number.
    pub(super) fn stage(
        &self,
        work: &mut Work,
        content: &Content<'_>,
        mut read: impl FnMut(&[u32], &mut [Vec<u8>]) -> Result<()>,
    ) -> Result<()> {
        let txid = match content.into {
            Into::Next => work.head.map_or(Txid::FIRST, Txid::next),
            Into::Newest(txid) => txid,
        };
        let timestamp = work.next_timestamp(self.pools.clock.now(), self.store.clock_offset_ms());
        let page_size = self.page_size();
        let txids = TxidRange::single(txid);
        let header = Header {
            page_size,
            commit: content.commit,
            txids,
            timestamp,
            wal: content.wal,
            node: self.node,
            pre_apply: None,
        };
        let (temporary, file) = self.temporary(txid)?;
        let mut encoder = Encoder::new(BufWriter::with_capacity(256 << 10, &file), header)?;
        let mut buffers = vec![vec![0; page_size.bytes()]; PAGES_PER_LOCK];
        let mut changes = Vec::with_capacity(content.pages.len());
        for numbers in content.pages.chunks(PAGES_PER_LOCK) {
            let buffers = &mut buffers[..numbers.len()];
            read(numbers, buffers)?;
            for (number, page) in numbers.iter().zip(buffers.iter()) {
                let pgno = Pgno::new(*number).ok_or_else(|| Error::bug("page 0"))?;
                encoder.page(pgno, page)?;
                if pgno == Pgno::FIRST {
                    work.record.first_page = FirstPage::of(page);
                }
                changes.push((pgno, page_checksum(pgno, page)));
            }
        }
        let (writer, _) = encoder.finish()?;
        writer.into_inner().map_err(|e| Error::io(temporary.display(), e.error()))?;
        self.spool.publish(&temporary, &file, txid)?;

        let before = match content.into {
            Into::Next => work.sums.as_ref().map(Sums::rolling),
            Into::Newest(_) => work.staged.pop_back().and_then(|former| former.rolling).map(|(before, _)| before),
        };
        if let Some(sums) = &mut work.sums {
            sums.resize(content.commit);
            changes.iter().for_each(|(pgno, sum)| sums.set(*pgno, *sum));
        }
        let rolling = before.zip(work.sums.as_ref().map(Sums::rolling));
        work.head = Some(txid);
        work.staged.push_back(Staged { txid, timestamp, sequence: content.sequence, rolling });
        // The file is made, and the batch must not be made a second one: an old record only proves nothing (P11).
        let remembered = work.remember();
        let recorded = self.record(work, content.commit, content.captured);
        if let Err(error) = remembered.and(recorded) {
            self.fail_visibly(&error);
        }
        Ok(())
    }

    /// Writes the local record of the newest TXID.
    pub(super) fn record(&self, work: &mut Work, commit: u32, captured: Captured) -> Result<()> {
        work.record.txid = work.head.map(|t| t.to_string());
        work.record.commit = commit;
        work.record.closed = None;
        work.record.position = match captured {
            Captured::At(at) => Some(RecordedPosition {
                salts: (at.salts.0, at.salts.1),
                frame: at.frame,
                checksum: (at.checksum.0, at.checksum.1),
            }),
            _ => None,
        };
        self.spool.write_record(&work.record)
    }

    fn temporary(&self, txid: Txid) -> Result<(PathBuf, File)> {
        let path = self.spool.file(txid).with_extension("ltx.tmp");
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path);
        let file = file.with_context(|| path.display().to_string())?;
        Ok((path, file))
    }

    /// Writes the checksum file for `head`, so that older spool files are needed no more.
    pub(super) fn write_sums(&self, work: &mut Work) -> Result<()> {
        let (Some(sums), Some(head)) = (&work.sums, work.head) else { return Ok(()) };
        // Of a file that more may be merged into, the checksums are not final.
        if work.sums_on_disk != Some(head) && work.open != Some(head) {
            sums.write(&self.spool.sums(), head)?;
            work.sums_on_disk = Some(head);
        }
        Ok(())
    }

    /// Removes spool files that are in the store and that the checksum file does not need (P12). The newest stays:
    /// Litestream takes its position from it.
    pub(super) fn prune(&self, work: &mut Work) -> Result<()> {
        let files = self.spool.files()?;
        let first_staged = work.staged.front().map(|s| s.txid);
        let shipped: Vec<_> = files
            .iter()
            .filter(|(txid, _)| Some(*txid) != work.head && first_staged.is_none_or(|first| *txid < first))
            .collect();
        let bytes: u64 = shipped.iter().map(|(_, size)| size).sum();
        let allowance = work.sums.as_ref().map_or(0, |s| s.file_size() * 2).max(super::primary::SPOOL_KEPT);
        if bytes > allowance {
            self.write_sums(work)?;
        }
        for (txid, _) in shipped {
            if work.sums_on_disk.is_some_and(|on_disk| *txid <= on_disk) {
                self.spool.remove(*txid)?;
            }
        }
        Ok(())
    }
}
