//! Where a primary begins, given the local record, the spool and the replica.
//!
//! | Replica | Here | Then |
//! |---|---|---|
//! | empty | anything | a first image as TXID 1 (P17) |
//! | empty | a record with a TXID | refuse: the replica is gone |
//! | at R | record or spool at R, or ahead of it | go on; what is staged is shipped first; refuse what was put back |
//! | at R | nothing known | go on if the database is what the replica holds, else refuse |
//! | ahead | the surplus is ours (a record that was not written) | as after a gap; refuse what was put back |
//! | ahead | the surplus is another's | refuse: the database is older than its replica |
//!
//! Going on needs two things: the position in the WAL must prove itself, else the gap is healed; and the page checksums
//! of the newest state, from the local file, from the database if the position is proven, else from the replica.

use super::capture::{Capture, Captured, Position};
use super::encode::{Staged, Work};
use super::history::History;
use super::phase::begin_scan;
use super::primary::{Phase, Primary};
use super::spool::{FileIdentity, Record, RecordedPosition};
use super::sums::Sums;
use crate::error::{Error, Kind, Result};
use crate::ltx::{Decoder, Header, Pgno, Txid, page_checksum};
use crate::replica::{self, Listing, Target};
use crate::time::Timestamp;
use crate::wal::{FRAME_HEADER_SIZE, FrameChecksum, FrameHeader, IndexHeader, Salts, WAL_HEADER_SIZE, frame_offset};
use std::collections::{HashMap, VecDeque};

/// What a primary begins with.
pub(super) struct Start {
    pub(super) work: Work,
    pub(super) phase: Phase,
}

impl Primary {
    /// Decides how to begin. `listing` is `None` if the store is away; then only a local record lets it start.
    pub(super) fn start(&self, listing: Option<&Listing>, published: Option<&IndexHeader>) -> Result<Start> {
        let former = self.spool.record().filter(|r| r.url == self.url());
        let is_foreign = former.is_none() && self.spool.record().is_some();
        let newest_file = if is_foreign { None } else { self.spool.files()?.last().map(|(txid, _)| *txid) };
        let local = former.as_ref().and_then(Record::txid).max(newest_file);
        let Some(listing) = listing else {
            let head = local.ok_or_else(|| Error::bug("started without the store and without a record"))?;
            return self.go_on(former, head, None, published);
        };
        let Some(remote) = listing.head() else {
            if let Some(known) = former.as_ref().and_then(Record::txid) {
                return Err(self.replica_is_gone(known));
            }
            self.spool.clear()?;
            // An attempt of a former start may still arrive: its node id is remembered.
            return Ok(Start { work: self.empty_work(former.as_ref()), phase: Phase::FirstImage });
        };
        self.replica.refuse_unsound(listing)?;
        match local {
            Some(head) if head >= remote => self.go_on(former, head, Some(remote), published),
            _ if self.is_ours(former.as_ref(), local, remote)? => {
                // Checksums of that state may be here, synced, where the record of it was lost with the power.
                let mut work = self.work_at(former, remote, listing)?;
                self.refuse_put_back_with_record(&work, local, remote)?;
                work.sums = self.local_sums(remote, &mut work)?;
                work.sums_on_disk = None;
                self.spool.clear()?;
                Ok(Start { work, phase: Phase::Heal })
            }
            Some(head) => self.compare(former, Some(head), remote, listing),
            None => self.compare(former, None, remote, listing),
        }
    }

    pub(super) fn empty_work(&self, former: Option<&Record>) -> Work {
        Work {
            history: History::open(self.spool.history(), former.is_some()),
            record: Record::begin(self.url(), self.node, former),
            head: None,
            sums: None,
            sums_on_disk: None,
            staged: VecDeque::new(),
            open: None,
            last_timestamp: Timestamp(0),
        }
    }

    /// The store is at `remote`, and what is known here is of no use but for the page checksums to be found out.
    fn work_at(&self, former: Option<Record>, remote: Txid, listing: &Listing) -> Result<Work> {
        let listed = listing.files().iter().map(|f| f.created_at).max();
        // P22: of what a clock that was ahead has made, a listing has the time of the store.
        let made = self.stored_header(remote)?.map(|header| header.timestamp);
        let last_timestamp = listed.max(made).unwrap_or(Timestamp(0));
        Ok(Work { head: Some(remote), last_timestamp, ..self.empty_work(former.as_ref()) })
    }

    /// Whether all TXIDs of the store that are not known here were made by former incarnations of this directory: its
    /// process died between an upload and the record.
    fn is_ours(&self, former: Option<&Record>, local: Option<Txid>, remote: Txid) -> Result<bool> {
        let Some(former) = former else { return Ok(false) };
        let mut txid = local.map_or(Txid::FIRST, Txid::next);
        while txid <= remote {
            match self.stored_header(txid)? {
                Some(header) if former.nodes.contains(&header.node) => txid = txid.next(),
                _ => return Ok(false),
            }
        }
        Ok(true)
    }

    /// There is a local head at or ahead of the store's.
    fn go_on(
        &self,
        former: Option<Record>,
        head: Txid,
        remote: Option<Txid>,
        published: Option<&IndexHeader>,
    ) -> Result<Start> {
        let mut work = self.empty_work(former.as_ref());
        work.head = Some(head);
        let files = self.spool.files()?;
        if let (Some(remote), true) = (remote, files.iter().any(|(txid, _)| Some(*txid) == remote))
            && self.store_has_ours(remote)? == Some(false)
        {
            return Err(self.diverged(Some(head), remote, "they have different files for the same TXID"));
        }
        let unshipped: Vec<_> = files.iter().filter(|(txid, _)| remote.is_none_or(|r| *txid > r)).collect();
        let mut expected = remote.map(Txid::next);
        for (txid, _) in unshipped {
            if expected.is_some_and(|e| e != *txid) {
                return Err(self.missing_here(expected, *txid));
            }
            expected = Some(txid.next());
            let header = self.spool.header(*txid)?;
            work.last_timestamp = work.last_timestamp.max(header.timestamp);
            work.staged.push_back(Staged { txid: *txid, timestamp: header.timestamp, sequence: 0, rolling: None });
        }
        work.open = self.spool.open_file().filter(|open| work.staged.back().is_some_and(|s| s.txid == *open));
        if work.staged.back().is_none_or(|s| s.txid != head) && remote != Some(head) && remote.is_some() {
            return Err(self.missing_here(remote.map(Txid::next), head));
        }
        // P22: an image is in no spool.
        let newest = match self.spool.header(head) {
            Ok(header) => Some(header),
            Err(_) if remote == Some(head) => self.stored_header(head)?,
            Err(_) => None,
        };
        work.last_timestamp = work.last_timestamp.max(newest.map_or(Timestamp(0), |header| header.timestamp));
        work.sums = self.local_sums(head, &mut work)?;
        if work.sums.is_none() {
            self.watch_writes();
        }
        let proven = self.prove_position(former.as_ref(), head, published, work.sums.is_none())?;
        if !proven {
            self.refuse_put_back(&mut work, head)?;
        }
        if proven {
            let (commit, captured) = {
                let capture = self.capture.lock();
                (capture.batch.commit, capture.captured)
            };
            let closed = former.and_then(|f| f.closed);
            self.is_in_this_file(&mut work);
            self.record(&mut work, commit, captured)?;
            work.record.closed = closed;
            self.spool.write_record(&work.record)?;
        }
        if !proven {
            // Without a position, but with what lets a start while the store is away know where it is.
            work.record.txid = Some(head.to_string());
        }
        let phase = match (proven, &work.sums) {
            (true, Some(_)) => Phase::Running,
            (true, None) => Phase::Scan,
            (false, _) => Phase::Heal,
        };
        Ok(Start { work, phase })
    }

    /// The page checksums of the state after `head`: the file, brought forward by newer spool files.
    fn local_sums(&self, head: Txid, work: &mut Work) -> Result<Option<Sums>> {
        let Some((mut sums, mut txid)) = Sums::read(&self.spool.sums()) else { return Ok(None) };
        work.sums_on_disk = Some(txid);
        while txid < head {
            txid = txid.next();
            let before = sums.rolling();
            if sums.apply(&self.spool.file(txid)).is_err() {
                return Ok(None);
            }
            let rolling = (before, sums.rolling());
            work.staged.iter_mut().filter(|s| s.txid == txid).for_each(|s| s.rolling = Some(rolling));
            work.history.push(txid, rolling.1)?;
        }
        Ok((txid == head && sums.page_size == self.page_size()).then_some(sums))
    }

    /// Whether the WAL, or the untouched database file, shows that nothing happened unseen (P7, P11). With `scan`, an
    /// image of the proven state is begun at once, before capture moves on.
    fn prove_position(
        &self,
        former: Option<&Record>,
        head: Txid,
        published: Option<&IndexHeader>,
        scan: bool,
    ) -> Result<bool> {
        let mut capture = self.capture.lock();
        let proven = self.prove(&mut capture, former, head, published)?;
        // Behind the published end a checkpoint may have written newer pages already.
        let at_end = capture.captured == Captured::Fresh || published.is_some_and(|p| capture.captured.is_end_of(p));
        let proven = proven && (at_end || !scan) && !self.was_refused();
        if proven && scan {
            begin_scan(&mut capture);
        }
        if !proven {
            capture.gap("the WAL does not continue from the last TXID");
        }
        Ok(proven)
    }

    fn prove(
        &self,
        capture: &mut Capture,
        former: Option<&Record>,
        head: Txid,
        published: Option<&IndexHeader>,
    ) -> Result<bool> {
        if let Some(record) = former.filter(|r| r.txid() == Some(head)) {
            if let (Some(at), Some(published)) = (record.position, published) {
                return capture.adopt_position(position_of(at), record.commit, published);
            }
            if let Some(closed) = &record.closed
                && FileIdentity::of(&self.path).is_ok_and(|now| now == *closed)
            {
                return capture.rebase(None);
            }
            return Ok(false);
        }
        // Litestream made the newest file: its header has the position, but no running checksum.
        let (Some(published), Ok(header)) = (published, self.spool.header(head)) else { return Ok(false) };
        let Some(position) = self.position_of_file(capture, head, &header, published)? else { return Ok(false) };
        capture.adopt_position(position, header.commit, published)
    }

    /// The position at the end of a staged file, if the last frame before it has the page that the file has.
    fn position_of_file(
        &self,
        capture: &Capture,
        head: Txid,
        header: &Header,
        published: &IndexHeader,
    ) -> Result<Option<Position>> {
        let frame_size = FRAME_HEADER_SIZE + u64::from(header.page_size.get());
        let end = header.wal.offset + header.wal.size;
        let salts = Salts(header.wal.salt1, header.wal.salt2);
        if header.wal.size == 0 || salts != published.salts || header.page_size != published.page_size {
            return Ok(None);
        }
        let frame = u32::try_from((end - WAL_HEADER_SIZE) / frame_size).unwrap_or(u32::MAX);
        if frame > published.max_frame || frame_offset(frame + 1, header.page_size) != end {
            return Ok(None);
        }
        let files = capture.open_wal_for_reading()?;
        let mut bytes = vec![0; frame_size as usize];
        if !files.read_at(&mut bytes, frame_offset(frame, header.page_size))? {
            return Ok(None);
        }
        let Some((head_bytes, page)) = bytes.split_first_chunk() else { return Ok(None) };
        let Ok(parsed) = FrameHeader::parse(head_bytes) else { return Ok(None) };
        let same = parsed.salts == salts
            && self.staged_sums(head)?.get(&parsed.pgno) == Some(&page_checksum(parsed.pgno, page));
        Ok(same.then_some(Position { salts, frame, checksum: parsed.checksum }))
    }

    fn staged_sums(&self, txid: Txid) -> Result<HashMap<Pgno, u64>> {
        let path = self.spool.file(txid);
        let file = std::fs::File::open(&path).map_err(|e| Error::io(path.display(), &e))?;
        let mut decoder = Decoder::new(std::io::BufReader::new(file))?;
        let mut page = vec![0; decoder.header().page_size.bytes()];
        let mut sums = HashMap::new();
        while let Some(pgno) = decoder.next_page(&mut page)? {
            sums.insert(pgno, page_checksum(pgno, &page));
        }
        decoder.finish()?;
        Ok(sums)
    }

    /// No local record ties the database to the replica: it may go on only if it is what the replica holds.
    fn compare(&self, former: Option<Record>, local: Option<Txid>, remote: Txid, listing: &Listing) -> Result<Start> {
        let mut work = self.work_at(former, remote, listing)?;
        let theirs = self.remote_sums(remote)?;
        if theirs.page_size != self.page_size() {
            return Err(self.other_page_size(self.page_size(), theirs.page_size));
        }
        let ours = self.sums_of_database()?;
        if ours.is_none_or(|ours| theirs.rolling() != ours.rolling() || theirs.commit() != ours.commit()) {
            return Err(self.diverged(local, remote, "their contents differ"));
        }
        self.spool.accept()?;
        self.spool.clear()?;
        work.sums = Some(theirs);
        Ok(Start { work, phase: Phase::Heal })
    }

    /// The page checksums of what the replica holds.
    pub(super) fn remote_sums(&self, txid: Txid) -> Result<Sums> {
        let sums = replica::page_checksums(&self.replica, Target::Txid(txid), &|| self.is_stopped())?;
        Ok(Sums::from_pages(sums.page_size, sums.pages))
    }

    pub(super) fn diverged(&self, local: Option<Txid>, remote: Txid, why: &str) -> Error {
        let here = match local {
            Some(txid) => format!("is at TXID {txid}"),
            None => "has no record of this replica".to_owned(),
        };
        Error::new(
            Kind::Diverged,
            format!(
                "{} {here}, the replica {} is at TXID {remote}, and {why}: two histories are not mixed. To go on from \
                 the replica, restore it: SELECT litestream_restore('{1}', '<path>'); over this database, once it is \
                 closed, with the arguments 'latest' and '{{\"force\":true}}' behind. To keep this database, replicate \
                 it to an empty URL",
                self.path.display(),
                self.url(),
            ),
        )
    }

    pub(super) fn replica_is_gone(&self, known: Txid) -> Error {
        Error::new(
            Kind::Diverged,
            format!(
                "{} is at TXID {known} of the replica {}, but nothing is there: a disk that is not mounted, or a bucket \
                 that was emptied. Once it is back, call again; a primary that runs goes on by itself. To begin anew \
                 there, stop it and remove {} first",
                self.path.display(),
                self.url(),
                self.spool.path().display()
            ),
        )
    }

    pub(super) fn missing_here(&self, expected: Option<Txid>, found: Txid) -> Error {
        let expected = expected.map_or_else(String::new, |t| t.to_string());
        Error::new(
            Kind::Diverged,
            format!(
                "{}: TXID {expected} is neither in the replica {} nor in {}, which goes on to {found}; to begin anew, \
                 replicate to an empty URL",
                self.path.display(),
                self.url(),
                self.spool.path().display()
            ),
        )
    }
}

pub(super) fn position_of(at: RecordedPosition) -> Position {
    Position {
        salts: Salts(at.salts.0, at.salts.1),
        frame: at.frame,
        checksum: FrameChecksum(at.checksum.0, at.checksum.1),
    }
}
