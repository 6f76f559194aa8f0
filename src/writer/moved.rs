//! The files that are open are still where their names lead (P9), and the metadata directory is still there.
//!
//! A database that is renamed, removed or replaced while it is open goes on in a file without that name, and what is read
//! by the name is not what was committed. A WAL without its name is nobody's after a crash. Neither passes by itself, so
//! shipping ends, before anything is mixed.

use super::primary::Primary;
use super::spool::FileNumber;
use crate::error::{Error, Kind, Result};
use std::path::{Path, PathBuf};

/// Which files SQLite has opened.
#[derive(Default)]
pub(super) struct Opened {
    pub(super) database: OpenFile,
    /// The WAL in use: forgotten when the last connection deletes it.
    wal: OpenFile,
}

/// A file that is open, and its name; nothing, if that is not known.
#[derive(Default)]
pub struct OpenFile(Option<(PathBuf, FileNumber)>);

impl OpenFile {
    /// By its name, now that it was opened.
    pub fn at(path: PathBuf) -> Self {
        let number = FileNumber::of(&path).ok();
        Self(number.map(|number| (path, number)))
    }

    /// Whether the name leads to no file, or to another one. What cannot be looked at is none of both.
    pub fn is_moved(&self) -> bool {
        let Some((path, opened)) = &self.0 else { return false };
        match FileNumber::of(path) {
            Ok(now) => now.is_another_than(opened),
            Err(error) => error.kind() == Kind::NotFound,
        }
    }
}

impl Primary {
    /// The database was opened, and no other connection of this process has it open.
    pub(super) fn note_database(&self) {
        self.follow.lock().opened = Opened { database: OpenFile::at(self.path.clone()), wal: OpenFile(None) };
    }

    /// The WAL was opened, or is about to be deleted.
    pub(super) fn note_wal(&self, is_open: bool) {
        let wal = if is_open { OpenFile::at(self.wal_path()) } else { OpenFile(None) };
        self.follow.lock().opened.wal = wal;
    }

    /// A connection has both open, and when it opened them may not have been seen.
    pub(super) fn note_files(&self) {
        let opened = &mut self.follow.lock().opened;
        for (file, path) in [(&mut opened.database, self.path.clone()), (&mut opened.wal, self.wal_path())] {
            if file.0.is_none() {
                *file = OpenFile::at(path);
            }
        }
    }

    pub(super) fn wal_path(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push("-wal");
        name.into()
    }

    /// Before anything is read by a name, or shipped.
    ///
    /// # Errors
    /// [`Kind::Invalid`], which is final.
    pub(super) fn refuse_moved(&self) -> Result<()> {
        // While no connection has it open, whatever is there is for the next opening to judge.
        if !self.is_unused() {
            self.refuse_moved_files()?;
        }
        if self.spool.is_removed() { Err(self.metadata_is_gone()) } else { Ok(()) }
    }

    fn refuse_moved_files(&self) -> Result<()> {
        // The one is locked as long as the other is: a connection that has the wal-index mapped keeps every process from
        // deleting the WAL, and is waited for before it is unmapped.
        let follow = self.follow.lock();
        if follow.opened.database.is_moved() {
            return Err(self.moved(&self.path));
        }
        if follow.index.is_some() && follow.opened.wal.is_moved() {
            return Err(self.moved(&self.wal_path()));
        }
        Ok(())
    }

    fn moved(&self, path: &Path) -> Error {
        Error::invalid(format!(
            "{} was moved, removed or replaced while the database was open: what is committed now is in a file without \
             that name, and nothing more is shipped. Close the database, put its file back or use it where it is now, \
             and open it anew; then SELECT litestream_stop(), and litestream_replicate",
            path.display()
        ))
    }

    fn metadata_is_gone(&self) -> Error {
        Error::invalid(format!(
            "{}, the metadata directory of {}, was removed while the database was replicated. Nothing more is shipped: \
             SELECT litestream_stop(), then litestream_replicate again, which goes on if the replica {} holds all of the \
             database; if it does not, replicate to an empty URL",
            self.spool.path().display(),
            self.path.display(),
            self.url()
        ))
    }
}
