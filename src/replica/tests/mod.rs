//! Restores of real and of random histories, whole and damaged.

mod companion;
mod damage;
mod histories;
mod history;
mod output;
mod property;
mod vectors;

use super::{Options, Replica, Restored, Target, restore};
use crate::error::Result;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

static SERIAL: AtomicU32 = AtomicU32::new(0);

/// A directory of the test's own, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let number = SERIAL.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("litestream-replica-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The names in it, sorted.
    fn names(&self) -> Vec<String> {
        let rows = std::fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> = rows.map(|row| row.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn restore_to(replica: &Replica, target: Target, path: &Path) -> Result<Restored> {
    restore(replica, target, path, Options::default(), &|| false)
}

/// The bytes of the restored database; whatever happens, nothing else is left.
fn restored(replica: &Replica, target: Target) -> Result<Vec<u8>> {
    let scratch = Scratch::new();
    let result = restore_to(replica, target, &scratch.join("app.db"));
    match result {
        Ok(_) => {
            assert_eq!(scratch.names(), ["app.db"]);
            Ok(std::fs::read(scratch.join("app.db")).unwrap())
        }
        Err(error) => {
            assert!(scratch.names().is_empty(), "{:?} left after {error}", scratch.names());
            Err(error)
        }
    }
}
