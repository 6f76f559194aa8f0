//! Taking an old database out of the way of a new one that is complete.
//!
//! An old WAL or journal must never be applied to the new file, and must not be lost to the old one before the new one
//! is in place. So a database with a WAL or journal is first renamed as a whole, `app.db` to `app.db.replaced-…` and
//! `app.db-wal` to `app.db.replaced-…-wal`, which SQLite can open under that name; this is synced before the new file
//! gets its name. A crash in between leaves no database under the name, rather than one without its WAL, and the old one
//! whole beside it. A database without them is replaced by one rename and never absent. The metadata directory, which
//! speaks of the old file, goes aside too, before the new file comes.

use super::output::sync_directory;
use super::temporary::{name_beside, with_suffix};
use crate::error::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// What was renamed, from and to, in this order.
#[derive(Default)]
pub(super) struct SetAside {
    renamed: Vec<(PathBuf, PathBuf)>,
}

impl SetAside {
    /// Sets aside what belongs to the old database. On an error all is back in its place.
    pub fn of(path: &Path) -> Result<Self> {
        let mut aside = Self::default();
        match aside.take(path) {
            Ok(()) => Ok(aside),
            Err(error) => {
                aside.put_back();
                Err(error)
            }
        }
    }

    fn take(&mut self, path: &Path) -> Result<()> {
        let new = name_beside(path, ".replaced");
        let pending: Vec<&str> = ["-wal", "-journal"].into_iter().filter(|s| exists(&with_suffix(path, s))).collect();
        if !pending.is_empty() {
            self.rename(path.to_owned(), new.clone())?;
        }
        for suffix in pending {
            self.rename(with_suffix(path, suffix), with_suffix(&new, suffix))?;
        }
        // Without a WAL nobody reads it; SQLite makes it anew.
        self.rename(with_suffix(path, "-shm"), with_suffix(&new, "-shm"))?;
        if let Some(metadata) = metadata_directory(path) {
            self.rename(metadata, with_suffix(&new, "-litestream"))?;
        }
        if self.renamed.is_empty() { Ok(()) } else { sync_directory(path) }
    }

    /// Renames what exists.
    fn rename(&mut self, from: PathBuf, to: PathBuf) -> Result<()> {
        if !exists(&from) {
            return Ok(());
        }
        fs::rename(&from, &to).with_context(|| format!("rename {} to {}", from.display(), to.display()))?;
        self.renamed.push((from, to));
        Ok(())
    }

    /// Undoes it, as far as that is possible: the error that led here is the one to report. The database comes last,
    /// so that it is never there without its WAL.
    pub fn put_back(&self) {
        for (from, to) in self.renamed.iter().rev() {
            let _ = fs::rename(to, from);
        }
    }

    /// Removes it. The new file is in place: what cannot be removed is only in the way of nobody.
    pub fn discard(&self) {
        for (_, to) in &self.renamed {
            let _ = if to.is_dir() { fs::remove_dir_all(to) } else { fs::remove_file(to) };
        }
    }
}

fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// `.<dbfile>-litestream` beside the database.
fn metadata_directory(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    Some(path.with_file_name(format!(".{name}-litestream")))
}
