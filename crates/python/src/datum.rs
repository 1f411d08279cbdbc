//! Plain data of answers as Python objects.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use rasker_protocol::Datum;

pub fn to_python<'py>(py: Python<'py>, datum: &Datum) -> PyResult<Bound<'py, PyAny>> {
    Ok(match datum {
        Datum::Null => py.None().into_bound(py),
        Datum::Bool(value) => PyBool::new(py, *value).to_owned().into_any(),
        Datum::Int(value) => value.into_pyobject(py)?.into_any(),
        Datum::Float(value) => PyFloat::new(py, *value).into_any(),
        Datum::Text(value) => PyString::new(py, value).into_any(),
        Datum::Bytes(value) => PyBytes::new(py, value).into_any(),
        Datum::List(items) => {
            let list = PyList::empty(py);
            for item in items {
                list.append(to_python(py, item)?)?;
            }
            list.into_any()
        }
        Datum::Map(pairs) => {
            let dict = PyDict::new(py);
            for (name, value) in pairs {
                dict.set_item(name, to_python(py, value)?)?;
            }
            dict.into_any()
        }
    })
}

pub fn from_python(value: &Bound<'_, PyAny>) -> PyResult<Datum> {
    if value.is_none() {
        return Ok(Datum::Null);
    }
    if let Ok(truth) = value.cast::<PyBool>() {
        return Ok(Datum::Bool(truth.is_true()));
    }
    if value.is_instance_of::<PyInt>() {
        return Ok(Datum::Int(value.extract()?));
    }
    if value.is_instance_of::<PyFloat>() {
        return Ok(Datum::Float(value.extract()?));
    }
    if value.is_instance_of::<PyString>() {
        return Ok(Datum::Text(value.extract()?));
    }
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Ok(Datum::Bytes(bytes.as_bytes().to_vec()));
    }
    if let Ok(dict) = value.cast::<PyDict>() {
        let pairs =
            dict.iter().map(|(key, item)| Ok((key.str()?.to_string(), from_python(&item)?)));
        return Ok(Datum::Map(pairs.collect::<PyResult<_>>()?));
    }
    if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
        let items = value.try_iter()?.map(|item| from_python(&item?));
        return Ok(Datum::List(items.collect::<PyResult<_>>()?));
    }
    Err(PyTypeError::new_err(format!(
        "an event holds numbers, texts, and lists and dicts of them, not {}",
        value.get_type().name()?
    )))
}
