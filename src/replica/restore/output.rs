//! The file that a restore is to make: what may be there before, and how the new one takes its place.

use super::replace::SetAside;
use super::temporary::{Temporary, with_suffix};
use crate::error::{Context, Error, Kind, Result};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Where a restore goes.
pub(super) struct Output {
    path: PathBuf,
    force: bool,
}

impl Output {
    /// Refuses a place that is taken, before anything is fetched. With `force` a symbolic link is followed, as SQLite
    /// follows it to find the WAL.
    pub fn new(path: &Path, force: bool) -> Result<Self> {
        if path.file_name().is_none() {
            return Err(Error::invalid(format!("{} is not the path of a file", path.display())));
        }
        let found = match fs::symlink_metadata(path) {
            Ok(found) => Some(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(Error::io(path.display(), &error)),
        };
        let Some(found) = found else {
            let parent = path.parent().unwrap_or(path);
            if !parent.is_dir() {
                return Err(Error::new(
                    Kind::NotFound,
                    format!("{}: there is no directory {}", path.display(), parent.display()),
                ));
            }
            let output = Self { path: path.to_owned(), force };
            output.refuse_leftovers()?;
            return Ok(output);
        };
        if !force {
            return Err(Error::new(
                Kind::Conflict,
                format!("{} exists; remove it, or restore with {{\"force\":true}}", path.display()),
            ));
        }
        let path = match fs::canonicalize(path) {
            Ok(path) => path,
            Err(_) if found.is_symlink() => path.to_owned(),
            Err(error) => return Err(Error::io(path.display(), &error)),
        };
        if path.is_dir() {
            return Err(Error::invalid(format!("{} is a directory", path.display())));
        }
        Ok(Self { path, force })
    }

    /// The file to make.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// SQLite would take an old WAL or journal for that of the new file, and apply it.
    fn refuse_leftovers(&self) -> Result<()> {
        if self.force {
            return Ok(());
        }
        for suffix in ["-wal", "-journal"] {
            let leftover = with_suffix(&self.path, suffix);
            if fs::metadata(&leftover).is_ok_and(|found| found.len() > 0) {
                return Err(Error::new(
                    Kind::Conflict,
                    format!(
                        "{} exists and would be applied to the restored database; remove it, or restore with \
                         {{\"force\":true}}",
                        leftover.display()
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Gives the temporary file, which is synced, its name; returns when that is on the disk.
    pub fn publish(&self, temporary: Temporary) -> Result<()> {
        if self.force {
            let aside = SetAside::of(&self.path)?;
            if let Err(error) = rename_over(temporary.path(), &self.path) {
                aside.put_back();
                return Err(error);
            }
            // From here on the old WAL must not come back. Nothing old is removed before the new name lasts.
            sync_directory(&self.path)?;
            aside.discard();
        } else {
            self.refuse_leftovers()?;
            rename_new(temporary.path(), &self.path)?;
        }
        drop(temporary);
        sync_directory(&self.path)
    }
}

fn rename_over(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).with_context(|| format!("rename {} to {}", from.display(), to.display()))
}

/// Renames, unless something has come to be there meanwhile.
fn rename_new(from: &Path, to: &Path) -> Result<()> {
    #[cfg(any(target_os = "linux", target_vendor = "apple"))]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        use rustix::io::Errno;
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // Not every file system can: a second name that is only made if it is free does the same.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
            done => return done.map_err(|error| in_the_way(to, &error.into())),
        }
    }
    fs::hard_link(from, to).map_err(|error| in_the_way(to, &error))
}

fn in_the_way(path: &Path, error: &io::Error) -> Error {
    if error.kind() == io::ErrorKind::AlreadyExists {
        return Error::new(Kind::Conflict, format!("{} was created by somebody else meanwhile", path.display()));
    }
    Error::io(format!("create {}", path.display()), error)
}

/// Makes renames in the file's directory last.
pub(super) fn sync_directory(path: &Path) -> Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let synced = File::open(parent).and_then(|directory| directory.sync_all());
    synced.with_context(|| format!("sync the directory {}", parent.display()))
}
