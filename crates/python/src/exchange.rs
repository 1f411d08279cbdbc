//! Exchanges as Python sees them: parts that a task writes, and parts that a task reads.
//!
//! ```text
//!   write(...) ─► Parted([part, part, …]) ─► shared memory ─► Parts ─► read(parts)
//! ```

use crate::compact;
use crate::encode::{Encoder, Input};
use crate::fragments;
use crate::handle::{Handle, KeyName};
use crate::session::Session;
use bytes::Bytes;
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyBufferError, PyIndexError, PyMemoryError, PyRuntimeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyMemoryView, PyTuple};
use rasker_client::NewTask;
use rasker_exchange::{Layout, PartsRead, parts_of};
use rasker_graph::{Blob, PartRange, TaskId, TemplateId};
use rasker_protocol::{Value, Written};
use rasker_store::Arena;
use std::ffi::c_int;
use std::sync::Arc;

/// Values from this size on are put in shared memory.
const SEGMENT_NBYTES_MIN: usize = 64 << 10;

/// What a task reads of an exchange: parts in ascending order, each in the order of the writers.
/// Empty ones are left out.
#[pyclass(frozen, module = "rasker._native")]
pub struct Parts {
    pub read: PartsRead,
    range: PartRange,
}

impl Parts {
    /// Takes what came of all writers apart; nothing is copied.
    pub fn new(written: &[Written], range: PartRange) -> PyResult<Parts> {
        let read = parts_of(written, range).map_err(|error| {
            let PartRange { start, end } = range;
            PyRuntimeError::new_err(format!("parts {start}..{end} cannot be read: {error}"))
        })?;
        Ok(Parts { read, range })
    }

    fn view<'py>(&self, py: Python<'py>, at: usize) -> PyResult<Bound<'py, PyMemoryView>> {
        let part = Bound::new(py, PartBuffer(self.read.parts[at].data.clone()))?;
        PyMemoryView::from(part.as_any())
    }
}

#[pymethods]
impl Parts {
    #[getter]
    fn n_writers(&self) -> u32 {
        self.read.n_writers
    }

    /// The first part that was to be read.
    #[getter]
    fn start(&self) -> u32 {
        self.range.start
    }

    /// The first part after those.
    #[getter]
    fn stop(&self) -> u32 {
        self.range.end
    }

    #[getter]
    fn nbytes(&self) -> u64 {
        self.read.nbytes()
    }

    /// The number of each part and of its writer.
    fn places(&self) -> Vec<(u32, u32)> {
        self.read.parts.iter().map(|part| (part.part, part.writer)).collect()
    }

    /// Each part as a `pyarrow.Table`: for parts that are Arrow streams.
    fn tables<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        self.read.parts.iter().map(|part| fragments::table_of(py, part.data.clone())).collect()
    }

    fn __len__(&self) -> usize {
        self.read.parts.len()
    }

    fn __getitem__<'py>(&self, py: Python<'py>, at: isize) -> PyResult<Bound<'py, PyMemoryView>> {
        let n = self.read.parts.len();
        let at = if at < 0 { at + n as isize } else { at };
        match usize::try_from(at).ok().filter(|at| *at < n) {
            Some(at) => self.view(py, at),
            None => Err(PyIndexError::new_err(format!("there are {n} parts that are not empty"))),
        }
    }

    fn __repr__(&self) -> String {
        let (n, nbytes) = (self.read.parts.len(), self.read.nbytes());
        let (start, stop) = (self.range.start, self.range.end);
        format!("<rasker.Parts {start}..{stop}: {n} parts, {nbytes} bytes>")
    }
}

/// The bytes of a part where they lie; whoever exports them keeps the lease on their segment.
#[pyclass(frozen, module = "rasker._native")]
struct PartBuffer(Bytes);

#[pymethods]
impl PartBuffer {
    /// # Safety
    ///
    /// Called by the interpreter with a view to fill.
    unsafe fn __getbuffer__(
        slf: PyRef<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::new_err("no view to fill"));
        }
        let (pointer, len) = (slf.0.as_ptr().cast_mut(), slf.0.len());
        // SAFETY: the bytes live as long as `slf`, of which the view holds a reference; the view
        // is told to be read-only, so nobody writes through the pointer.
        let filled = unsafe {
            ffi::PyBuffer_FillInfo(
                view,
                slf.as_ptr(),
                pointer.cast(),
                len as ffi::Py_ssize_t,
                1,
                flags,
            )
        };
        if filled == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}

/// What a task gives that writes to an exchange: the bytes of each part.
#[pyclass(frozen, module = "rasker._native")]
pub struct Parted(Vec<Vec<Bytes>>);

impl Parted {
    /// Each part as pieces that follow each other.
    pub fn new(parts: Vec<Vec<Bytes>>) -> Parted {
        Parted(parts)
    }

    /// Copies the parts side by side: into `arena`, if they are large.
    pub fn place(&self, py: Python<'_>, arena: &Arena) -> PyResult<Value> {
        let nbytes = |part: &Vec<Bytes>| part.iter().map(|piece| piece.len() as u64).sum();
        let layout = Layout::of(self.0.iter().map(nbytes));
        let nbytes = layout.nbytes() as u64;
        let fill = |value: &mut [u8]| {
            layout.write_index(value);
            for (part, pieces) in (0..).zip(&self.0) {
                let mut place = layout.range(part).start;
                for piece in pieces {
                    value[place..place + piece.len()].copy_from_slice(piece);
                    place += piece.len();
                }
            }
        };
        if layout.nbytes() < SEGMENT_NBYTES_MIN {
            let mut value = vec![0; layout.nbytes()];
            fill(&mut value);
            return Ok(Value::Encoded { blob: value.into(), nbytes });
        }
        let segment = py.detach(|| {
            let mut slab = arena.allocate(layout.nbytes())?;
            fill(&mut slab);
            Ok::<_, rasker_store::StoreError>(slab.seal())
        });
        let segment = segment.map_err(|error| PyMemoryError::new_err(error.to_string()))?;
        Ok(Value::Encoded { blob: Blob::Local(Arc::new(segment)), nbytes })
    }
}

#[pymethods]
impl Parted {
    /// Of whatever lends its bytes; they are copied when the task has ended.
    #[new]
    fn of(parts: Vec<Bound<'_, PyAny>>) -> PyResult<Parted> {
        let lent = |part: Bound<'_, PyAny>| {
            let bytes = PyMemoryView::from(&part)?.call_method1("cast", ("B",))?;
            Ok(vec![Bytes::from_owner(Lent(PyBuffer::get(&bytes)?))])
        };
        Ok(Parted(parts.into_iter().map(lent).collect::<PyResult<_>>()?))
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }
}

/// Bytes that an object of Python's lends.
struct Lent(PyBuffer<u8>);

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the buffer is held, and contiguous, as only such views can be cast to bytes. Its
        // owner gave it away as the result of a task, and does not write to it any more.
        unsafe { std::slice::from_raw_parts(self.0.buf_ptr().cast::<u8>(), self.0.len_bytes()) }
    }
}

/// Has `write` called with each of `args`, to give a `Parted`, and `read` with the `Parts` of each
/// of `ranges`; futures of what `read` gives.
#[pyfunction]
pub fn exchange<'py>(
    py: Python<'py>,
    session: &Session,
    write: &Bound<'py, PyAny>,
    args: Vec<Bound<'py, PyTuple>>,
    read: &Bound<'py, PyAny>,
    ranges: Vec<(u32, u32)>,
) -> PyResult<Bound<'py, PyList>> {
    session.check_open()?;
    let (writes, (reads, name)) = (session.template(write)?.0, session.template(read)?);
    let mut calls = Vec::with_capacity(args.len());
    for args in args {
        let mut encoder = Encoder::new(session.inner().id(), session.shares_objects(), None);
        encoder.call(&args, None)?;
        let of = encoder.inputs.iter().filter_map(|input| match input {
            Input::Task(task, _) => Some(*task),
            Input::Place(_) => None,
        });
        let of: Vec<TaskId> = of.collect();
        let (args, blob) = encoder.finish(py)?;
        calls.push((args.to_vec(), blob, of));
    }
    let mut own = Vec::new();
    compact::put_tuple(&mut own, 1);
    compact::put_input(&mut own, 0);
    own.push(compact::NONE);
    let entered = session.inner().with(|machine, _| {
        let writers = calls.iter().map(|(args, blob, of)| {
            machine.submit_inner(new_task(session, writes, (args, blob), of))
        });
        let writers: Vec<TaskId> = writers.collect();
        let of = [machine.exchange(session.new_key(), &writers)];
        let enter = |(start, end): &(u32, u32)| {
            let task = new_task(session, reads, (&own, &None), &of);
            let key = task.key;
            let parts = PartRange { start: *start, end: *end };
            (machine.submit_reader(task, &[(0, parts)], true), key)
        };
        ranges.iter().map(enter).collect::<Vec<_>>()
    });
    session.inner().touched();
    let futures = PyList::empty(py);
    for (task, key) in entered {
        let handle = Handle::new(session.clone(), task, key, KeyName::Call(name.clone()));
        futures.append(handle.into_future(py)?)?;
    }
    Ok(futures)
}

fn new_task<'a>(
    session: &Session,
    template: TemplateId,
    (args, blob): (&'a [u8], &Option<Blob>),
    dependencies: &'a [TaskId],
) -> NewTask<'a> {
    let (key, blob) = (session.new_key(), blob.clone());
    NewTask { key, name: None, template, args, blob, dependencies, options: None, fused: &[] }
}
