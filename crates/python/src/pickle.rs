//! Pickles: of functions, of values that are not plain, with large buffers beside them.

use crate::array_memory::{self, HEAD_NBYTES};
use crate::compact::{self, BUFFERS, PICKLE};
use crate::fragments;
use crate::segment::SegmentBuffer;
use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyList};
use rasker_graph::Blob;
use rasker_protocol::Value;
use rasker_store::{Arena, Segment};
use std::sync::Arc;

/// Values from this size on are put in shared memory.
const SEGMENT_NBYTES_MIN: usize = 64 << 10;
/// Buffers begin at multiples of this, for the processor's sake.
const ALIGN: usize = 64;

fn cached<'py>(
    py: Python<'py>,
    cell: &'static PyOnceLock<Py<PyAny>>,
    module: &str,
    name: &str,
) -> PyResult<&'py Bound<'py, PyAny>> {
    let object =
        cell.get_or_try_init(py, || PyResult::Ok(py.import(module)?.getattr(name)?.unbind()))?;
    Ok(object.bind(py))
}

pub fn loads<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    cached(py, &LOADS, "pickle", "loads")?.call1((PyBytes::new(py, bytes),))
}

/// Pickles by value what belongs to the user's session, through `rasker._pickle`.
pub fn dumps<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    static DUMPS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let bytes = cached(value.py(), &DUMPS, "rasker._pickle", "dumps")?.call1((value,))?;
    Ok(bytes.cast_into::<PyBytes>()?)
}

fn dumps_out_of_band<'py>(
    value: &Bound<'py, PyAny>,
    buffers: &Bound<'py, PyList>,
) -> PyResult<Bound<'py, PyBytes>> {
    static DUMPS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let dumps = cached(value.py(), &DUMPS, "rasker._pickle", "dumps")?;
    Ok(dumps.call1((value, buffers.getattr("append")?))?.cast_into::<PyBytes>()?)
}

/// Pickles what is not plain.
pub struct Pickled;

impl compact::Other for Pickled {
    fn write(&mut self, value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<bool> {
        let bytes = dumps(value)?;
        out.push(PICKLE);
        compact::put_varint(out, bytes.as_bytes().len() as u64);
        out.extend_from_slice(bytes.as_bytes());
        Ok(true)
    }
}

/// Refuses what is not plain.
pub struct Refused;

impl compact::Other for Refused {
    fn write(&mut self, _: &Bound<'_, PyAny>, _: &mut Vec<u8>) -> PyResult<bool> {
        Ok(false)
    }
}

fn padded(at: usize) -> usize {
    at.next_multiple_of(ALIGN)
}

/// Encodes a whole value; a large one into `arena`.
///
/// Layout with buffers: tag, padding to 8, count and length of the pickle and of each buffer as
/// u64, the pickle, then each buffer at a multiple of 64.
pub fn encode(value: &Bound<'_, PyAny>, arena: &Arena) -> PyResult<Value> {
    let py = value.py();
    let mut bytes = Vec::new();
    if compact::write(value, &mut bytes, &mut Refused)? {
        return place(py, &[(0, &bytes)], bytes.len(), arena);
    }
    let list = PyList::empty(py);
    let pickle = dumps_out_of_band(value, &list)?;
    let pickle = pickle.as_bytes();
    let mut buffers = Vec::with_capacity(list.len());
    for buffer in list.iter() {
        let raw = buffer.call_method0("raw")?;
        buffers.push(PyBuffer::<u8>::get(&raw)?);
    }
    let mut header = vec![BUFFERS, 0, 0, 0, 0, 0, 0, 0];
    header.extend_from_slice(&(buffers.len() as u64).to_le_bytes());
    header.extend_from_slice(&(pickle.len() as u64).to_le_bytes());
    for buffer in &buffers {
        header.extend_from_slice(&(buffer.len_bytes() as u64).to_le_bytes());
    }
    if let [buffer] = &buffers[..]
        && let Some(value) = lend(header.clone(), pickle, buffer)
    {
        return Ok(value);
    }
    let mut parts: Vec<(usize, &[u8])> = vec![(0, &header), (header.len(), pickle)];
    let mut end = header.len() + pickle.len();
    for buffer in &buffers {
        let at = padded(end);
        // SAFETY: `buffer` is held, contiguous (`raw` makes it so) and not written to while the
        // interpreter lock is held, which it is until the bytes are copied.
        let slice = unsafe {
            std::slice::from_raw_parts(buffer.buf_ptr().cast::<u8>(), buffer.len_bytes())
        };
        parts.push((at, slice));
        end = at + buffer.len_bytes();
    }
    place(py, &parts, end, arena)
}

/// An array that was born in shared memory, as it is: its pickle is written before it.
fn lend(mut head: Vec<u8>, pickle: &[u8], buffer: &PyBuffer<u8>) -> Option<Value> {
    if head.len() + pickle.len() > HEAD_NBYTES {
        return None;
    }
    // The pickle ends where it says so itself: it may be followed by zeros up to the array.
    let room = (HEAD_NBYTES - head.len()) as u64;
    head[16..24].copy_from_slice(&room.to_le_bytes());
    head.extend_from_slice(pickle);
    head.resize(HEAD_NBYTES, 0);
    // SAFETY: `buffer` is held and contiguous; only its address and length are looked at.
    let elements =
        unsafe { std::slice::from_raw_parts(buffer.buf_ptr().cast::<u8>(), buffer.len_bytes()) };
    let segment = array_memory::lend(elements, &head)?;
    let nbytes = segment.len() as u64;
    Some(Value::Encoded { blob: Blob::Local(Arc::new(segment)), nbytes })
}

fn place(py: Python<'_>, parts: &[(usize, &[u8])], len: usize, arena: &Arena) -> PyResult<Value> {
    let copy = |target: &mut [u8]| {
        for (at, part) in parts {
            target[*at..*at + part.len()].copy_from_slice(part);
        }
    };
    let nbytes = len as u64;
    if len < SEGMENT_NBYTES_MIN {
        let mut bytes = vec![0; len];
        copy(&mut bytes);
        return Ok(Value::Encoded { blob: bytes.into(), nbytes });
    }
    let segment = py.detach(|| {
        let mut slab = arena.allocate(len)?;
        copy(&mut slab);
        Ok::<Segment, rasker_store::StoreError>(slab.seal())
    });
    let segment =
        segment.map_err(|error| pyo3::exceptions::PyMemoryError::new_err(error.to_string()))?;
    Ok(Value::Encoded { blob: Blob::Local(Arc::new(segment)), nbytes })
}

/// The object that an encoded value stands for; buffers of a segment are mapped, not copied.
pub fn decode<'py>(py: Python<'py>, blob: &Blob) -> PyResult<Bound<'py, PyAny>> {
    if let Some(segment) = blob.local::<Segment>() {
        let bytes = segment.as_slice();
        if fragments::is_rows(bytes) {
            return fragments::to_table(py, blob);
        }
        if bytes.first() != Some(&BUFFERS) {
            return compact::Reader::new(bytes).read(py, &mut compact::Plain);
        }
        let whole = Bound::new(py, SegmentBuffer::new(&segment)?)?;
        return with_buffers(py, bytes, whole.as_any());
    }
    let Blob::Bytes(bytes) = blob else { return Err(compact::damaged()) };
    if fragments::is_rows(bytes) {
        return fragments::to_table(py, blob);
    }
    if bytes.first() != Some(&BUFFERS) {
        return compact::Reader::new(bytes).read(py, &mut compact::Plain);
    }
    // A bytearray, so that arrays made on it are writable, as their users expect.
    let whole = pyo3::types::PyByteArray::new(py, bytes);
    with_buffers(py, bytes, whole.as_any())
}

fn with_buffers<'py>(
    py: Python<'py>,
    bytes: &[u8],
    whole: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static VIEW: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let word = |i: usize| -> PyResult<usize> {
        let bytes = bytes.get(8 + 8 * i..16 + 8 * i).ok_or_else(compact::damaged)?;
        Ok(u64::from_le_bytes(bytes.try_into().expect("eight bytes")) as usize)
    };
    let n = word(0)?;
    let pickle_len = word(1)?;
    if n > bytes.len() / 8 {
        return Err(compact::damaged());
    }
    let start = 8 + 8 * (n + 2);
    let pickle = bytes.get(start..start + pickle_len).ok_or_else(compact::damaged)?;
    let view = cached(py, &VIEW, "builtins", "memoryview")?.call1((whole,))?;
    let buffers = PyList::empty(py);
    let mut end = start + pickle_len;
    for i in 0..n {
        let at = padded(end);
        end = at + word(2 + i)?;
        if end > bytes.len() {
            return Err(compact::damaged());
        }
        let slice = pyo3::types::PySlice::new(py, at as isize, end as isize, 1);
        buffers.append(view.get_item(slice)?)?;
    }
    let kwargs = PyDict::new(py);
    kwargs.set_item("buffers", buffers)?;
    cached(py, &LOADS, "pickle", "loads")?.call((PyBytes::new(py, pickle),), Some(&kwargs))
}

/// Bytes that a value takes, as `rasker.sizeof` sees it.
pub fn sizeof(value: &Bound<'_, PyAny>) -> u64 {
    static SIZEOF: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    // Arrays know it themselves, and are what matters; what an array of objects refers to does not
    // count to it.
    let has_objects = || value.getattr("dtype")?.getattr("hasobject")?.is_truthy();
    if let Ok(nbytes) = value.getattr("nbytes").and_then(|n| n.extract::<u64>())
        && matches!(has_objects(), Ok(false))
    {
        return nbytes;
    }
    let measure = cached(value.py(), &SIZEOF, "rasker.sizeof", "sizeof");
    measure.and_then(|f| f.call1((value,))?.extract::<u64>()).unwrap_or(64)
}
