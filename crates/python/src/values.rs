//! Values of tasks as Python objects.

use crate::compact::{Plain, Reader};
use crate::pickle;
use pyo3::prelude::*;
use pyo3::types::PyFloat;
use rasker_graph::{Blob, Column, Items};
use rasker_protocol::Value;
use rasker_store::Segment;
use std::sync::Arc;

/// A Python object on its way through machines that cannot look at it.
pub struct Object(pub Py<PyAny>);

pub fn to_blob(object: Bound<'_, PyAny>) -> Blob {
    Blob::Local(Arc::new(Object(object.unbind())))
}

/// Arguments that hold objects of this process.
pub struct LocalArgs {
    pub bytes: Vec<u8>,
    pub objects: Vec<Py<PyAny>>,
}

/// Arguments, code and the like as they came: what is large comes as a segment.
pub enum Encoded<'a> {
    Bytes(&'a [u8]),
    Segment(Arc<Segment>),
    Local(Arc<LocalArgs>),
}

impl<'a> Encoded<'a> {
    pub fn of(blob: &'a Blob) -> PyResult<Encoded<'a>> {
        if let Blob::Bytes(bytes) = blob {
            return Ok(Encoded::Bytes(bytes));
        }
        if let Some(segment) = blob.local::<Segment>() {
            return Ok(Encoded::Segment(segment));
        }
        blob.local::<LocalArgs>().map(Encoded::Local).ok_or_else(crate::compact::damaged)
    }

    pub fn bytes(&self) -> &[u8] {
        match self {
            Encoded::Bytes(bytes) => bytes,
            Encoded::Segment(segment) => segment.as_slice(),
            Encoded::Local(local) => &local.bytes,
        }
    }

    pub fn objects(&self) -> Option<&[Py<PyAny>]> {
        match self {
            Encoded::Local(local) => Some(&local.objects),
            _ => None,
        }
    }
}

/// Item `i` of a column.
pub fn item<'py>(py: Python<'py>, column: &Column, i: u32) -> PyResult<Bound<'py, PyAny>> {
    match column.items() {
        Items::Range { .. } | Items::Ints { .. } => {
            let int = column.int(i).expect("an integer column");
            Ok(int.into_pyobject(py)?.into_any())
        }
        Items::Floats { .. } => {
            Ok(PyFloat::new(py, column.float(i).expect("a float column")).into_any())
        }
        Items::Packed { .. } | Items::Same { .. } => {
            Reader::new(column.encoded(i).expect("a packed column")).read(py, &mut Plain)
        }
    }
}

/// The object that a single value stands for.
pub fn to_object<'py>(py: Python<'py>, value: &Value) -> PyResult<Bound<'py, PyAny>> {
    match value {
        Value::Column(column) => item(py, column, 0),
        Value::Encoded { blob, .. } => pickle::decode(py, blob),
        Value::Object { object, .. } => match object.local::<Object>() {
            Some(object) => Ok(object.0.bind(py).clone()),
            None => Err(crate::compact::damaged()),
        },
    }
}
