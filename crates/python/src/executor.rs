//! The entry of executor processes.

use crate::runner::PythonRunner;
use crate::task::{Home, set_home};
use pyo3::prelude::*;
use rasker_protocol::Datum;
use rasker_runtime::{Runner, serve_executor};
use rasker_store::{Arena, ArenaOptions};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// The memory that this process makes segments in.
pub fn arena() -> Arena {
    static ARENA: OnceLock<Arena> = OnceLock::new();
    ARENA.get_or_init(|| Arena::new(ArenaOptions::default())).clone()
}

fn texts(settings: &Datum, name: &str) -> Vec<String> {
    let Datum::Map(pairs) = settings else { return Vec::new() };
    let found = pairs.iter().find(|(n, _)| n == name).map(|(_, value)| value);
    match found {
        Some(Datum::List(items)) => items
            .iter()
            .filter_map(|item| match item {
                Datum::Text(text) => Some(text.clone()),
                _ => None,
            })
            .collect(),
        Some(Datum::Text(text)) => vec![text.clone()],
        _ => Vec::new(),
    }
}

/// A number among the settings; 0 if it is missing.
pub fn number(settings: &Datum, name: &str) -> u64 {
    let Datum::Map(pairs) = settings else { return 0 };
    match pairs.iter().find(|(n, _)| n == name) {
        Some((_, Datum::Int(value))) => u64::try_from(*value).unwrap_or(0),
        _ => 0,
    }
}

static MEMORY_LIMIT: AtomicU64 = AtomicU64::new(0);

/// What this process may use, bytes; 0 where nothing limits it.
pub fn memory_limit() -> u64 {
    MEMORY_LIMIT.load(Ordering::Relaxed)
}

/// Address space that libraries take for their threads and never fill, bytes per core.
const LIBRARY_NBYTES_PER_CORE: u64 = 64 << 20;

/// Has this process refuse memory that its worker could never have: values on the heap and values
/// that are mapped may each take the whole limit. An array far too large is a `MemoryError` at once
/// then, in the call that asked for it, where it would else have to be ended with its process.
pub fn limit_memory(limit_nbytes: u64) {
    MEMORY_LIMIT.store(limit_nbytes, Ordering::Relaxed);
    arena().fit(limit_nbytes);
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // What is kept for the next arrays must be little beside the limit.
        let kept = (limit_nbytes / 16).min(256 << 20) as i32;
        // SAFETY: as in `keep_freed_memory`.
        unsafe { libc::mallopt(libc::M_TRIM_THRESHOLD, kept) };
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let data = status.lines().find_map(|line| line.strip_prefix("VmData:"));
    let Some(taken_kib) =
        data.and_then(|text| text.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
    else {
        return;
    };
    let n_cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let most = (taken_kib << 10) + 2 * limit_nbytes + n_cores * LIBRARY_NBYTES_PER_CORE;
    let before = getrlimit(Resource::Data);
    if before.current.is_none_or(|current| current > most) {
        let limit = Rlimit { current: Some(most), maximum: before.maximum };
        let _ = setrlimit(Resource::Data, limit);
    }
}

/// Makes this process like its worker's: import path, preloads, and where the scheduler is.
pub fn apply_settings(settings: &Datum) {
    let one = |name| texts(settings, name).into_iter().next().unwrap_or_default();
    set_home(Home {
        worker_address: one("worker_address"),
        worker_name: one("worker_name"),
        scheduler: one("scheduler"),
        token: one("token"),
    });
    let (path, preload) = (texts(settings, "path"), texts(settings, "preload"));
    if path.is_empty() && preload.is_empty() {
        return;
    }
    Python::attach(|py| {
        let set_up = || -> PyResult<()> {
            if !path.is_empty() {
                py.import("sys")?.setattr("path", path)?;
            }
            for module in preload {
                py.import("rasker._preload")?.call_method1("load", (module,))?;
            }
            Ok(())
        };
        if let Err(error) = set_up() {
            error.print(py);
        }
    });
}

/// The heap has no arrays larger than this: they come from the kernel, or from shared memory.
pub const MAPPED_NBYTES: usize = 32 << 20;

/// Keeps freed memory of arrays for the arrays after them.
///
/// By default every array of some MB comes fresh from the kernel, page by page, and goes back
/// at once: those faults were a tenth of the time of NumPy tasks on values of 8 MB.
///
/// Threads take turns for the interpreter, so that one heap serves them, and keeps more: of several
/// each gives memory back in pieces that the next frame needs again, which were 300 faults and a
/// tenth of the time of a pandas task in thread executors. It holds for threads from here on.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let set = |option, value| {
            // SAFETY: `mallopt` may be called at any time and takes any value; it says no to those
            // it does not like, and then all stays as it was.
            unsafe { libc::mallopt(option, value) };
        };
        set(libc::M_MMAP_THRESHOLD, MAPPED_NBYTES as i32);
        set(libc::M_TRIM_THRESHOLD, 256 << 20);
        set(libc::M_TOP_PAD, 16 << 20);
        set(libc::M_ARENA_MAX, 1);
    }
}

static IS_FORKED: AtomicBool = AtomicBool::new(false);

extern "C" fn note_fork() {
    IS_FORKED.store(true, Ordering::Relaxed);
}

/// Ends a process that a task has forked off when it comes back from the task: it is no executor.
pub fn end_if_forked() {
    if IS_FORKED.load(Ordering::Relaxed) {
        // SAFETY: the process ends here without running anything else.
        unsafe { libc::_exit(0) };
    }
}

/// Serves the worker at the other end of standard input; never returns.
#[pyfunction]
pub fn executor_main(py: Python<'_>) -> PyResult<()> {
    // The first to go when memory runs out is what can be started again.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    keep_freed_memory();
    // SAFETY: the function stays, and only stores to a static.
    unsafe { libc::pthread_atfork(None, None, Some(note_fork)) };
    let os = py.import("os")?;
    // User code that reads its input finds nothing there, instead of the worker's messages.
    let socket: i32 = os.call_method1("dup", (0,))?.extract()?;
    let null: i32 = os.call_method1("open", ("/dev/null", 0))?.extract()?;
    os.call_method1("dup2", (null, 0))?;
    os.call_method1("close", (null,))?;
    // What a crash leaves behind is told to its user.
    py.import("faulthandler")?.call_method0("enable")?;
    let signal = py.import("signal")?;
    // Ctrl-C is meant for the user's process, which ends this one in order.
    signal.call_method1("signal", (signal.getattr("SIGINT")?, signal.getattr("SIG_IGN")?))?;
    // SAFETY: `dup` just made this descriptor, and nothing else knows it.
    let stream = UnixStream::from(unsafe { OwnedFd::from_raw_fd(socket) });
    let ended = py.detach(|| {
        let serving = std::thread::Builder::new().name("rasker-serve".to_owned()).spawn(|| {
            serve_executor(stream, arena(), |_| {
                Arc::new(PythonRunner::new(arena(), false)) as Arc<dyn Runner>
            })
        });
        serving.map(|thread| thread.join())
    });
    let code = match ended {
        Ok(Ok(Ok(()))) => 0,
        Ok(Ok(Err(reason))) => {
            eprintln!("rasker executor: {reason}");
            1
        }
        _ => 1,
    };
    // Threads may still run user code; they end with the process, at once.
    let sys = py.import("sys")?;
    for stream in ["stdout", "stderr"] {
        let _ = sys.getattr(stream).and_then(|stream| stream.call_method0("flush"));
    }
    os.call_method1("_exit", (code,))?;
    Ok(())
}
