//! Values of tasks as Python objects.

use crate::compact::{Plain, Reader};
use crate::pickle;
use pyo3::prelude::*;
use pyo3::types::PyFloat;
use rasker_graph::{Blob, Column, Items};
use rasker_protocol::Value;
use std::sync::Arc;

/// A Python object on its way through machines that cannot look at it.
pub struct Object(pub Py<PyAny>);

pub fn to_blob(object: Bound<'_, PyAny>) -> Blob {
    Blob::Local(Arc::new(Object(object.unbind())))
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
