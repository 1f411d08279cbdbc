//! The compact encoding of plain values: what tasks mostly take and return.
//!
//! One byte says what follows. Everything that is not plain is pickled, or, where caller and
//! runner share a process, handed over as it is.

use crate::pickle;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyBytes, PyDict, PyFloat, PyFrozenSet, PyInt, PyList, PySet, PyString, PyTuple,
};

pub const NONE: u8 = 0;
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const INT: u8 = 3;
const FLOAT: u8 = 4;
const TEXT: u8 = 5;
const BYTES: u8 = 6;
const TUPLE: u8 = 7;
const LIST: u8 = 8;
const DICT: u8 = 9;
pub const PICKLE: u8 = 10;
/// The value of a dependency, by its place in the task's list.
pub const INPUT: u8 = 11;
/// An object of this process, by its place in a list that travels along.
pub const OBJECT: u8 = 12;
/// Calls that run one after another as one task; only as a whole list of arguments.
pub const CHAIN: u8 = 13;
/// A pickle with buffers beside it; only as a whole value.
pub const BUFFERS: u8 = 14;

const SET: u8 = 15;
const FROZEN_SET: u8 = 16;

/// Containers nested deeper than this are pickled.
const DEPTH_MAX: u32 = 32;

pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Begins a list of `n` values.
pub fn put_list(out: &mut Vec<u8>, n: u64) {
    out.push(LIST);
    put_varint(out, n);
}

/// Begins a tuple of `n` values.
pub fn put_tuple(out: &mut Vec<u8>, n: u64) {
    out.push(TUPLE);
    put_varint(out, n);
}

/// The value of a dependency.
pub fn put_input(out: &mut Vec<u8>, place: u64) {
    out.push(INPUT);
    put_varint(out, place);
}

pub fn put_int(out: &mut Vec<u8>, int: i64) {
    out.push(INT);
    put_varint(out, ((int << 1) ^ (int >> 63)) as u64);
}

/// What is done with values that are not plain.
pub trait Other {
    /// Writes the value, or says that the whole is not to be written compactly.
    fn write(&mut self, value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<bool>;
}

/// Writes a value; false if `other` refused a part of it, and `out` is then of no use.
pub fn write(
    value: &Bound<'_, PyAny>,
    out: &mut Vec<u8>,
    other: &mut impl Other,
) -> PyResult<bool> {
    write_at(value, out, other, 0)
}

fn write_at(
    value: &Bound<'_, PyAny>,
    out: &mut Vec<u8>,
    other: &mut impl Other,
    depth: u32,
) -> PyResult<bool> {
    if value.is_none() {
        out.push(NONE);
    } else if value.is_exact_instance_of::<PyInt>() {
        let Ok(int) = value.extract::<i64>() else { return other.write(value, out) };
        put_int(out, int);
    } else if let Ok(float) = value.cast_exact::<PyFloat>() {
        out.push(FLOAT);
        out.extend_from_slice(&float.value().to_le_bytes());
    } else if let Ok(text) = value.cast_exact::<PyString>() {
        let Ok(text) = text.to_cow() else { return other.write(value, out) };
        out.push(TEXT);
        put_varint(out, text.len() as u64);
        out.extend_from_slice(text.as_bytes());
    } else if let Ok(truth) = value.cast_exact::<PyBool>() {
        out.push(if truth.is_true() { TRUE } else { FALSE });
    } else if let Ok(bytes) = value.cast_exact::<PyBytes>() {
        out.push(BYTES);
        put_varint(out, bytes.as_bytes().len() as u64);
        out.extend_from_slice(bytes.as_bytes());
    } else if depth >= DEPTH_MAX {
        return other.write(value, out);
    } else if let Ok(tuple) = value.cast_exact::<PyTuple>() {
        out.push(TUPLE);
        put_varint(out, tuple.len() as u64);
        for item in tuple.iter_borrowed() {
            if !write_at(&item, out, other, depth + 1)? {
                return Ok(false);
            }
        }
    } else if let Ok(list) = value.cast_exact::<PyList>() {
        out.push(LIST);
        put_varint(out, list.len() as u64);
        for item in list.iter() {
            if !write_at(&item, out, other, depth + 1)? {
                return Ok(false);
            }
        }
    } else if let Ok(dict) = value.cast_exact::<PyDict>() {
        out.push(DICT);
        put_varint(out, dict.len() as u64);
        for (key, item) in dict.iter() {
            if !write_at(&key, out, other, depth + 1)? || !write_at(&item, out, other, depth + 1)? {
                return Ok(false);
            }
        }
    } else if value.is_exact_instance_of::<PySet>() {
        return write_set(SET, value, out, other, depth);
    } else if value.is_exact_instance_of::<PyFrozenSet>() {
        return write_set(FROZEN_SET, value, out, other, depth);
    } else {
        return other.write(value, out);
    }
    Ok(true)
}

/// Writes the items of a set in the order of their bytes, so that equal sets are written equally.
fn write_set(
    tag: u8,
    value: &Bound<'_, PyAny>,
    out: &mut Vec<u8>,
    other: &mut impl Other,
    depth: u32,
) -> PyResult<bool> {
    let mut items = Vec::new();
    for item in value.try_iter()? {
        let mut bytes = Vec::new();
        if !write_at(&item?, &mut bytes, other, depth + 1)? {
            return Ok(false);
        }
        items.push(bytes);
    }
    items.sort_unstable();
    out.push(tag);
    put_varint(out, items.len() as u64);
    items.iter().for_each(|item| out.extend_from_slice(item));
    Ok(true)
}

/// What inputs and objects stand for while a value is read.
pub trait Context<'py> {
    fn input(&mut self, at: usize) -> PyResult<Bound<'py, PyAny>>;
    fn object(&mut self, at: usize) -> PyResult<Bound<'py, PyAny>>;
}

/// For values that stand for themselves.
pub struct Plain;

impl<'py> Context<'py> for Plain {
    fn input(&mut self, _: usize) -> PyResult<Bound<'py, PyAny>> {
        Err(damaged())
    }
    fn object(&mut self, _: usize) -> PyResult<Bound<'py, PyAny>> {
        Err(damaged())
    }
}

pub fn damaged() -> PyErr {
    PyValueError::new_err("value is damaged or from another version of rasker")
}

/// A place in encoded bytes.
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes }
    }

    pub fn take(&mut self, n: usize) -> PyResult<&'a [u8]> {
        if n > self.bytes.len() {
            return Err(damaged());
        }
        let (head, tail) = self.bytes.split_at(n);
        self.bytes = tail;
        Ok(head)
    }

    pub fn varint(&mut self) -> PyResult<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(damaged())
    }

    fn count(&mut self) -> PyResult<usize> {
        let count = self.varint()? as usize;
        // Each item takes a byte at least: a damaged count must not make room for itself.
        if count > self.bytes.len() { Err(damaged()) } else { Ok(count) }
    }

    fn items<'py>(
        &mut self,
        py: Python<'py>,
        context: &mut impl Context<'py>,
    ) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let n = self.count()?;
        let mut items = Vec::with_capacity(n);
        for _ in 0..n {
            items.push(self.read(py, context)?);
        }
        Ok(items)
    }

    pub fn read<'py>(
        &mut self,
        py: Python<'py>,
        context: &mut impl Context<'py>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Ok(match self.take(1)?[0] {
            NONE => py.None().into_bound(py),
            TRUE => PyBool::new(py, true).to_owned().into_any(),
            FALSE => PyBool::new(py, false).to_owned().into_any(),
            INT => {
                let value = self.varint()?;
                let value = (value >> 1) as i64 ^ -((value & 1) as i64);
                value.into_pyobject(py)?.into_any()
            }
            FLOAT => {
                let bytes = self.take(8)?.try_into().expect("eight bytes");
                PyFloat::new(py, f64::from_le_bytes(bytes)).into_any()
            }
            TEXT => {
                let n = self.varint()? as usize;
                let text = std::str::from_utf8(self.take(n)?).map_err(|_| damaged())?;
                PyString::new(py, text).into_any()
            }
            BYTES => {
                let n = self.varint()? as usize;
                PyBytes::new(py, self.take(n)?).into_any()
            }
            TUPLE => PyTuple::new(py, self.items(py, context)?)?.into_any(),
            LIST => PyList::new(py, self.items(py, context)?)?.into_any(),
            DICT => {
                let dict = PyDict::new(py);
                for _ in 0..self.count()? {
                    let key = self.read(py, context)?;
                    dict.set_item(key, self.read(py, context)?)?;
                }
                dict.into_any()
            }
            SET => PySet::new(py, self.items(py, context)?)?.into_any(),
            FROZEN_SET => PyFrozenSet::new(py, self.items(py, context)?)?.into_any(),
            PICKLE => {
                let n = self.varint()? as usize;
                pickle::loads(py, self.take(n)?)?
            }
            INPUT => context.input(self.varint()? as usize)?,
            OBJECT => context.object(self.varint()? as usize)?,
            _ => return Err(damaged()),
        })
    }
}
