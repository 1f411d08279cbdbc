//! What the code of a task can know of itself, and what it can ask of its executor.

use pyo3::prelude::*;
use pyo3::types::PyDict;
use rasker_protocol::Label;
use rasker_runtime::Sink;
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The call that this thread runs.
struct Current {
    label: Label,
    sink: *const dyn Sink,
    n_seceded: u32,
}

thread_local! {
    static CURRENT: RefCell<Option<Current>> = const { RefCell::new(None) };
    static INDEX: Cell<u32> = const { Cell::new(0) };
}

/// Where a worker's tasks find their scheduler.
#[derive(Clone, Default)]
pub struct Home {
    pub worker_address: String,
    pub worker_name: String,
    pub scheduler: String,
    pub token: String,
}

static HOME: parking_lot::Mutex<Option<Home>> = parking_lot::Mutex::new(None);

pub fn set_home(home: Home) {
    *HOME.lock() = Some(home);
}

/// What each thread of this process runs, by the interpreter's name for the thread.
static RUNNING: parking_lot::Mutex<Vec<(u64, Label, Arc<AtomicU32>)>> =
    parking_lot::Mutex::new(Vec::new());

thread_local! {
    static IDENT: Cell<u64> = const { Cell::new(0) };
    static SHOWN: RefCell<Option<Arc<AtomicU32>>> = const { RefCell::new(None) };
}

fn ident(py: Python<'_>) -> u64 {
    if IDENT.get() == 0 {
        let found = py
            .import("threading")
            .and_then(|threading| threading.call_method0("get_ident")?.extract::<u64>());
        IDENT.set(found.unwrap_or(1));
    }
    IDENT.get()
}

/// Keys of the tasks that run in this process, with the threads they run in.
#[pyfunction]
pub fn running_tasks() -> Vec<(u64, String)> {
    let running = RUNNING.lock();
    running
        .iter()
        .map(|(id, label, index)| (*id, label.of(index.load(Ordering::Relaxed))))
        .collect()
}

/// Calls `f` as part of the calls with this label, whose results go to `sink`.
pub fn scope<R>(py: Python<'_>, label: &Label, sink: &dyn Sink, f: impl FnOnce() -> R) -> R {
    let id = ident(py);
    let shown = Arc::new(AtomicU32::new(0));
    RUNNING.lock().push((id, label.clone(), shown.clone()));
    let shown_before = SHOWN.replace(Some(shown));
    // SAFETY: only the lifetime is forgotten; the entry is taken away again below, before `sink`
    // can be, and it is only read by this thread.
    let sink: *const dyn Sink =
        unsafe { std::mem::transmute::<&dyn Sink, &'static dyn Sink>(sink) };
    let current = Current { label: label.clone(), sink, n_seceded: 0 };
    let before = CURRENT.replace(Some(current));
    let result = f();
    CURRENT.set(before);
    SHOWN.set(shown_before);
    let mut running = RUNNING.lock();
    if let Some(at) = running.iter().rposition(|(other, ..)| *other == id) {
        running.swap_remove(at);
    }
    result
}

pub fn set_index(index: u32) {
    INDEX.set(index);
    SHOWN.with_borrow(|shown| {
        if let Some(shown) = shown {
            shown.store(index, Ordering::Relaxed);
        }
    });
}

/// Ends what a call left behind: a thread that it gave up is taken again.
pub fn end_call() {
    let n = CURRENT.with_borrow_mut(|current| {
        current.as_mut().map_or(0, |current| std::mem::take(&mut current.n_seceded))
    });
    if n > 0 {
        change_threads(-1);
    }
}

fn change_threads(by: i32) {
    let sink = CURRENT.with_borrow(|current| current.as_ref().map(|current| current.sink));
    if let Some(sink) = sink {
        // SAFETY: `scope` is on this thread's stack, and with it the borrow of the sink.
        unsafe { &*sink }.seceded(by);
    }
}

/// Whether the call that this thread runs was cancelled.
pub fn is_cancelled() -> bool {
    let sink = CURRENT.with_borrow(|current| current.as_ref().map(|current| current.sink));
    // SAFETY: as in `change_threads`.
    sink.is_some_and(|sink| unsafe { &*sink }.is_cancelled(INDEX.get()))
}

fn count_seceded(by: i32) -> Option<u32> {
    CURRENT.with_borrow_mut(|current| {
        let current = current.as_mut()?;
        current.n_seceded = current.n_seceded.saturating_add_signed(by);
        Some(current.n_seceded)
    })
}

/// Another call may run while this one waits.
pub fn give_up_thread() {
    if count_seceded(1) == Some(1) {
        change_threads(1);
    }
}

pub fn take_thread() {
    if count_seceded(-1) == Some(0) {
        change_threads(-1);
    }
}

pub fn is_in_task() -> bool {
    CURRENT.with_borrow(Option::is_some)
}

#[pyfunction]
pub fn secede() {
    give_up_thread();
}

#[pyfunction]
pub fn rejoin() {
    take_thread();
}

/// Key, worker and scheduler of the task that this thread runs; none outside of tasks.
#[pyfunction]
pub fn current_task(py: Python<'_>) -> PyResult<Option<Bound<'_, PyDict>>> {
    let Some(key) = CURRENT
        .with_borrow(|current| current.as_ref().map(|current| current.label.of(INDEX.get())))
    else {
        return Ok(None);
    };
    let home = HOME.lock().clone().unwrap_or_default();
    let dict = PyDict::new(py);
    dict.set_item("key", key)?;
    dict.set_item("worker_address", home.worker_address)?;
    dict.set_item("worker_name", home.worker_name)?;
    dict.set_item("address", home.scheduler)?;
    Ok(Some(dict))
}

/// The secret that this executor's worker shares with its scheduler.
pub fn home_token() -> Option<String> {
    HOME.lock().as_ref().map(|home| home.token.clone()).filter(|token| !token.is_empty())
}

/// The address of this executor's scheduler.
pub fn home_scheduler() -> String {
    HOME.lock().as_ref().map_or(String::new(), |home| home.scheduler.clone())
}
