//! What the code of a task can know of itself, and what it can ask of its executor.

use pyo3::prelude::*;
use pyo3::types::PyDict;
use rasker_protocol::Label;
use rasker_runtime::Sink;
use std::cell::{Cell, RefCell};

/// The call that this thread runs.
struct Current {
    label: Label,
    index: u32,
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

/// Calls `f` as part of the calls with this label, whose results go to `sink`.
pub fn scope<R>(label: &Label, sink: &dyn Sink, f: impl FnOnce() -> R) -> R {
    // SAFETY: only the lifetime is forgotten; the entry is taken away again below, before `sink`
    // can be, and it is only read by this thread.
    let sink: *const dyn Sink =
        unsafe { std::mem::transmute::<&dyn Sink, &'static dyn Sink>(sink) };
    let current = Current { label: label.clone(), index: 0, sink, n_seceded: 0 };
    let before = CURRENT.replace(Some(current));
    let result = f();
    CURRENT.set(before);
    result
}

pub fn set_index(index: u32) {
    INDEX.set(index);
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
    let Some(key) = CURRENT.with_borrow(|current| {
        current.as_ref().map(|current| current.label.of(current.index.max(INDEX.get())))
    }) else {
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
