//! Which pages may follow which in one file: the rules that the encoder, the decoder and the index share.

use super::{Header, Pgno};

/// The pages seen so far, as far as the rules need them.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageOrder {
    last: u32,
    commit: u32,
    lock_page: u32,
    snapshot: bool,
}

impl PageOrder {
    pub fn new(header: &Header) -> Self {
        Self {
            last: 0,
            commit: header.commit,
            lock_page: header.page_size.lock_page().get(),
            snapshot: header.is_snapshot(),
        }
    }

    /// Page numbers ascend, stay within the database and never name the lock page; a snapshot leaves out none.
    /// The error is the broken rule.
    pub fn accept(&mut self, pgno: Pgno) -> Result<(), String> {
        let pgno = pgno.get();
        if pgno > self.commit {
            return Err(format!("page {pgno} is beyond the database's {} pages", self.commit));
        }
        if pgno == self.lock_page {
            return Err(format!("page {pgno} is the lock page"));
        }
        if pgno <= self.last {
            return Err(format!("page {pgno} after page {}", self.last));
        }
        if self.snapshot && pgno != self.after_last() {
            return Err(format!("page {pgno} in a snapshot where page {} is due", self.after_last()));
        }
        self.last = pgno;
        Ok(())
    }

    /// A snapshot ends with the database's last page. The error is the broken rule.
    pub fn end(&self) -> Result<(), String> {
        if self.snapshot && self.after_last() <= self.commit {
            return Err(format!("a snapshot of {} pages ends before page {}", self.commit, self.after_last()));
        }
        Ok(())
    }

    fn after_last(&self) -> u32 {
        let next = self.last.saturating_add(1);
        if next == self.lock_page { next.saturating_add(1) } else { next }
    }
}
