//! Holds on tasks: bases of `Future` and of the lazy list of futures.

use crate::session::Session;
use pyo3::exceptions::{PyIndexError, PyTypeError};
use pyo3::prelude::*;
use rasker_client::Ending;
use rasker_graph::{Key, LayerId, Run, TaskId};
use rasker_protocol::FailureKind;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A reference to the result of the task with this key, inside a graph.
#[pyclass(frozen, module = "rasker._native")]
pub struct Ref {
    #[pyo3(get)]
    pub key: Py<PyAny>,
}

#[pymethods]
impl Ref {
    #[new]
    fn new(key: Py<PyAny>) -> Ref {
        Ref { key }
    }
    fn __repr__(&self) -> String {
        format!("Ref({})", self.key)
    }
}

/// How a key is shown.
#[derive(Clone)]
pub enum KeyName {
    /// The function's name and the key's hash.
    Call(Arc<str>),
    /// The same, of a layer, and the position.
    Item(Arc<str>, Key),
    /// What the user chose.
    Chosen(Arc<Py<PyAny>>),
}

thread_local! {
    /// What the instance being made is to hold: classes of the package derive from these.
    static NEXT: RefCell<Option<Handle>> = const { RefCell::new(None) };
    static NEXT_LIST: RefCell<Option<Handles>> = const { RefCell::new(None) };
}

#[pyclass(frozen, subclass, weakref, module = "rasker._native")]
pub struct Handle {
    pub session: Session,
    pub task: TaskId,
    pub key: Key,
    pub name: KeyName,
    released: AtomicBool,
}

impl Handle {
    pub fn new(session: Session, task: TaskId, key: Key, name: KeyName) -> Handle {
        Handle { session, task, key, name, released: AtomicBool::new(false) }
    }

    /// An instance of the class that the package registered.
    pub fn into_future(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let class = crate::session::future_class(py)?;
        NEXT.set(Some(self));
        Ok(class.call0()?.unbind())
    }

    fn ending(&self) -> Option<Ending> {
        self.session.inner().ending(self.task)
    }

    pub fn key_text(&self) -> String {
        match &self.name {
            KeyName::Call(name) => format!("{name}-{:032x}", self.key.0),
            KeyName::Item(name, key) => format!("{name}-{:032x}-{}", key.0, self.task.index),
            KeyName::Chosen(object) => Python::attach(|py| object.bind(py).to_string()),
        }
    }

    fn let_go(&self) {
        if !self.released.swap(true, Ordering::SeqCst) {
            let task = self.task;
            self.session.inner().with(|machine, _| machine.drop_task(task));
            self.session.inner().touched();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.let_go();
    }
}

#[pymethods]
impl Handle {
    #[new]
    fn py_new() -> PyResult<Handle> {
        NEXT.take().ok_or_else(|| {
            PyTypeError::new_err("futures are made by a client: use Client.submit or Client.map")
        })
    }

    #[getter]
    pub fn key(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        match &self.name {
            KeyName::Chosen(object) => Ok(object.clone_ref(py)),
            _ => Ok(self.key_text().into_pyobject(py)?.into_any().unbind()),
        }
    }

    #[getter]
    fn session(&self) -> Session {
        self.session.clone()
    }

    #[getter]
    pub fn status(&self) -> &'static str {
        match self.ending() {
            None if self.released.load(Ordering::SeqCst) => "cancelled",
            None => "pending",
            Some(Ending::Finished { .. }) => "finished",
            Some(Ending::Failed(failure)) => match failure.kind {
                FailureKind::Cancelled => "cancelled",
                FailureKind::Lost => "lost",
                _ => "error",
            },
        }
    }

    fn done(&self) -> bool {
        self.status() != "pending"
    }

    fn cancelled(&self) -> bool {
        self.status() == "cancelled"
    }

    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        self.session.wait_for(py, &[self.task.run()], 1, timeout)
    }

    #[pyo3(signature = (timeout=None))]
    fn value(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
        self.session.value_of(py, self.task, timeout)
    }

    #[pyo3(signature = (timeout=None))]
    fn failure(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<Py<PyAny>>> {
        let deadline = timeout.map(|s| Instant::now() + Duration::from_secs_f64(s.clamp(0.0, 1e9)));
        loop {
            let left = deadline.map(|d| d.saturating_duration_since(Instant::now()).as_secs_f64());
            if !self.wait(py, left)? {
                return Err(crate::session::timed_out(py, &self.key_text(), timeout));
            }
            match self.ending() {
                Some(Ending::Failed(failure)) => {
                    return Ok(Some(crate::failure::to_exception(py, &failure)?.unbind()));
                }
                Some(_) => return Ok(None),
                // Released, or lost with a worker since, and to be waited for again.
                None if !self.session.inner().with(|machine, _| machine.knows(self.task)) => {
                    return Ok(None);
                }
                None => {}
            }
        }
    }

    /// The formatted traceback of the failed task; none if it did not fail.
    fn traceback_text(&self) -> Option<String> {
        match self.ending() {
            Some(Ending::Failed(failure)) => Some(failure.traceback.clone()),
            _ => None,
        }
    }

    fn add_callback(&self, py: Python<'_>, callback: Py<PyAny>) -> PyResult<()> {
        let task = self.task;
        let inner = self.session.inner();
        let call = Box::new(move || {
            Python::attach(|py| {
                if let Err(error) = callback.call0(py) {
                    error.write_unraisable(py, None);
                }
            });
        });
        // Should it have ended already the callback comes back, to be called at once.
        let back = py.detach(|| inner.when_ended(task, call));
        if let Some(call) = back {
            call();
        }
        Ok(())
    }

    fn release(&self) {
        self.let_go();
    }
}

/// The handles of one layer.
#[pyclass(frozen, subclass, module = "rasker._native")]
pub struct Handles {
    pub session: Session,
    pub layer: LayerId,
    pub start: u32,
    pub count: u32,
    pub key: Key,
    pub name: Arc<str>,
    released: AtomicBool,
}

impl Handles {
    pub fn new(session: Session, layer: LayerId, count: u32, key: Key, name: Arc<str>) -> Handles {
        Handles { session, layer, start: 0, count, key, name, released: AtomicBool::new(false) }
    }

    pub fn into_list(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let class = crate::session::futures_class(py)?;
        NEXT_LIST.set(Some(self));
        Ok(class.call0()?.unbind())
    }

    pub fn run(&self) -> Run {
        Run::new(self.layer, self.start, self.count)
    }

    fn let_go(&self) {
        if !self.released.swap(true, Ordering::SeqCst) {
            let layer = self.layer;
            self.session.inner().with(|machine, _| machine.drop_layer(layer));
            self.session.inner().touched();
        }
    }
}

impl Drop for Handles {
    fn drop(&mut self) {
        self.let_go();
    }
}

#[pymethods]
impl Handles {
    #[new]
    fn py_new() -> PyResult<Handles> {
        NEXT_LIST.take().ok_or_else(|| {
            PyTypeError::new_err("lists of futures are made by a client: use Client.map")
        })
    }

    #[getter]
    fn session(&self) -> Session {
        self.session.clone()
    }

    fn __len__(&self) -> usize {
        self.count as usize
    }

    fn handle(&self, py: Python<'_>, index: u32) -> PyResult<Py<PyAny>> {
        if index >= self.count {
            return Err(PyIndexError::new_err("list index out of range"));
        }
        let task = TaskId::new(self.layer, self.start + index);
        self.session.inner().with(|machine, _| machine.hold(task));
        let name = KeyName::Item(self.name.clone(), self.key);
        Handle::new(self.session.clone(), task, self.key.item(task.index), name).into_future(py)
    }

    fn release(&self) {
        self.let_go();
    }
}
