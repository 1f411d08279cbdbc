//! A segment as a Python buffer: mapped privately, so that it is writable and shares no change.

use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use rasker_store::{PrivateMap, Segment};
use std::ffi::c_int;

/// Owns a private mapping; whoever exports it keeps it, and with it the segment's lease.
#[pyclass(frozen, module = "rasker._native")]
pub struct SegmentBuffer {
    map: PrivateMap,
}

impl SegmentBuffer {
    pub fn new(segment: &Segment) -> PyResult<SegmentBuffer> {
        let map = segment
            .map_private()
            .map_err(|error| pyo3::exceptions::PyMemoryError::new_err(error.to_string()))?;
        Ok(SegmentBuffer { map })
    }
}

#[pymethods]
impl SegmentBuffer {
    fn __len__(&self) -> usize {
        self.map.len()
    }

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
        let (pointer, len) = (slf.map.as_mut_ptr(), slf.map.len());
        // SAFETY: the mapping lives as long as `slf`, of which the view holds a reference; it is
        // private and writable, and Python itself guards concurrent writers as for any buffer.
        let filled = unsafe {
            ffi::PyBuffer_FillInfo(
                view,
                slf.as_ptr(),
                pointer.cast(),
                len as ffi::Py_ssize_t,
                0,
                flags,
            )
        };
        if filled == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}
