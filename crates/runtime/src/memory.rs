//! How much memory processes take, and how much they may.

use std::path::PathBuf;
use std::time::Duration;

use rasker_worker::MemoryOptions;

/// Memory is looked at no more often than this, and no less often while calls run.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(10);
const LOOK_EVERY_MAX: Duration = Duration::from_millis(200);
/// Nothing fills memory faster than this, bytes per second.
const FILL_RATE: f64 = 6e9;

/// How a worker's memory is kept.
#[derive(Clone, Debug, Default)]
pub struct MemorySettings {
    pub options: MemoryOptions,
    /// Where values are spilled; the system's folder for temporary files if none is named.
    pub folder: Option<PathBuf>,
}

/// What counts as a worker's memory beside its executors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CoreMemory {
    /// Only values: the rest of the process is its user's.
    Values,
    /// The process, which so many workers share.
    Process { n_workers: u32 },
}

impl CoreMemory {
    /// Tasks that run in threads have their memory in the worker's process.
    pub fn of(runs_in_threads: bool, n_workers: u32) -> CoreMemory {
        if runs_in_threads { CoreMemory::Process { n_workers } } else { CoreMemory::Values }
    }
}

/// Anonymous resident memory of a process, and shared memory that it has mapped: of the latter, a
/// page that is mapped twice counts twice.
pub(crate) fn process_nbytes(pid: u32) -> Option<(u64, u64)> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    // Kernels before 4.5 do not tell it apart.
    let own = kib("RssAnon:").or_else(|| kib("VmRSS:"))?;
    Some((own << 10, kib("RssShmem:").unwrap_or(0) << 10))
}

/// When to look again, if so many bytes are left: well before they can be gone.
pub(crate) fn look_after(left_nbytes: u64) -> Duration {
    let lasts = left_nbytes as f64 / FILL_RATE / 2.0;
    Duration::from_secs_f64(lasts).clamp(LOOK_EVERY, LOOK_EVERY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_written_to_is_seen() {
        let before = process_nbytes(std::process::id()).unwrap().0;
        let filled = std::hint::black_box(vec![1u8; 64 << 20]);
        let after = process_nbytes(std::process::id()).unwrap().0;
        assert!(after >= before + (60 << 20), "{before} and then {after} bytes");
        drop(filled);
        assert_eq!(process_nbytes(u32::MAX), None);
    }

    #[test]
    fn the_less_is_left_the_sooner_it_is_looked_at() {
        assert_eq!(look_after(0), LOOK_EVERY);
        assert_eq!(look_after(u64::MAX), LOOK_EVERY_MAX);
        let (less, more) = (look_after(200 << 20), look_after(1 << 30));
        assert!(LOOK_EVERY < less && less < more && more < LOOK_EVERY_MAX);
    }
}
