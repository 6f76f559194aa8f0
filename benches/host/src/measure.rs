//! What Linux tells of this process and of files.

use crate::Result;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The largest size that a file has had, looked at every 20 ms.
pub struct LargestFile(Arc<AtomicU64>);

impl LargestFile {
    pub fn watch(path: String) -> Self {
        let largest = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&largest);
        std::thread::spawn(move || {
            loop {
                let size = std::fs::metadata(&path).map_or(0, |file| file.len());
                seen.fetch_max(size, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Self(largest)
    }

    pub fn largest(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Threads of this process, without the one that watches the file.
pub fn threads() -> Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count() - 1)
}

/// Bytes: the largest resident set that this process has had.
pub fn peak_memory() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

/// Seconds of CPU that this process has used.
pub fn cpu_seconds() -> Result<f64> {
    // schedstat counts nanoseconds; /proc/self/stat only ticks of 10 ms.
    let mut nanoseconds = 0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        nanoseconds += text.split(' ').next().ok_or("no schedstat")?.parse::<u64>()?;
    }
    Ok(nanoseconds as f64 / 1e9)
}
