//! Being told that a file was written to (P15): one inotify descriptor and one thread for the process.
//!
//! A watch is for one event: whoever writes much wakes the thread once, and again only after it was asked for. Where
//! there is no inotify, whoever wants to know looks at intervals.

use crate::error::{Error, Result};
use crate::lock::Mutex;
use std::path::Path;
use std::sync::Arc;

type Told = Box<dyn FnOnce() + Send>;

/// The watches of the process.
#[derive(Default)]
pub(super) struct Notifier {
    state: Mutex<Option<Arc<system::Watches>>>,
}

impl Notifier {
    /// Calls `told` once the file is written to, cut off or removed; a former wish for the same file is forgotten.
    ///
    /// # Errors
    /// The file is not there, or the system cannot tell.
    pub(super) fn once(&self, path: &Path, told: impl FnOnce() + Send + 'static) -> Result<()> {
        let mut state = self.state.lock();
        let watches = match &*state {
            Some(watches) => Arc::clone(watches),
            None => Arc::clone(state.insert(system::Watches::start()?)),
        };
        drop(state);
        watches.add(path, Box::new(told))
    }
}

#[cfg(target_os = "linux")]
mod system {
    use super::*;
    use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
    use std::collections::HashMap;
    use std::mem::MaybeUninit;
    use std::os::fd::OwnedFd;

    pub(super) struct Watches {
        descriptor: OwnedFd,
        told: Mutex<HashMap<i32, Told>>,
    }

    impl Watches {
        pub(super) fn start() -> Result<Arc<Self>> {
            let descriptor = inotify::init(CreateFlags::CLOEXEC).map_err(|e| Error::io("inotify", &e.into()))?;
            let watches = Arc::new(Self { descriptor, told: Mutex::default() });
            let own = Arc::clone(&watches);
            crate::thread::start("notify", move || own.work())?;
            Ok(watches)
        }

        pub(super) fn add(&self, path: &Path, told: Told) -> Result<()> {
            let flags = WatchFlags::MODIFY | WatchFlags::ONESHOT;
            // Before the thread can look for it.
            let mut map = self.told.lock();
            let watch = inotify::add_watch(&self.descriptor, path, flags)
                .map_err(|e| Error::io(format!("inotify {}", path.display()), &e.into()))?;
            map.insert(watch, told);
            Ok(())
        }

        /// Lives as long as the process.
        fn work(&self) {
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut events = inotify::Reader::new(&self.descriptor, &mut buffer);
            loop {
                match events.next() {
                    // A watch that is gone without an event tells too: its file was removed.
                    Ok(event) => {
                        let told = self.told.lock().remove(&event.wd());
                        if let (Some(told), false) = (told, event.events().contains(ReadFlags::QUEUE_OVERFLOW)) {
                            let _ = crate::panic::guard(told);
                        }
                    }
                    Err(rustix::io::Errno::INTR) => {}
                    Err(error) => {
                        log::error!("{}", Error::io("inotify", &error.into()));
                        return;
                    }
                }
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use super::*;
    use crate::error::Kind;

    pub(super) struct Watches;

    impl Watches {
        pub(super) fn start() -> Result<Arc<Self>> {
            Err(Error::new(Kind::Io, "watching files: no inotify"))
        }

        pub(super) fn add(&self, _: &Path, _: Told) -> Result<()> {
            Err(Error::new(Kind::Io, "watching files: no inotify"))
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn a_watch_tells_once_and_again_when_it_was_asked_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let mut file = File::create(&path).unwrap();
        let notifier = Notifier::default();
        let (send, receive) = mpsc::channel();
        for round in 0..3 {
            let send = send.clone();
            notifier.once(&path, move || send.send(round).unwrap()).unwrap();
            file.write_all(b"some").unwrap();
            assert_eq!(receive.recv_timeout(Duration::from_secs(20)).unwrap(), round);
            file.write_all(b"more").unwrap();
        }
        assert!(notifier.once(&directory.path().join("absent"), || ()).is_err());
    }
}
