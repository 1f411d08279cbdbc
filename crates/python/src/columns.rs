//! Iterables as inputs of a layer: a column of values, or a list of tasks.

use crate::compact::{self, Other};
use crate::handle::Handle;
use crate::pickle::Pickled;
use pyo3::prelude::*;
use pyo3::types::{PyFloat, PyInt};
use rasker_graph::{ClientId, Column, Input, TaskId};

/// A value larger than this is better an argument of a task of its own.
const ITEM_NBYTES_MAX: usize = 64 << 10;

enum Gathered {
    Ints(Vec<i64>),
    Floats(Vec<f64>),
    Tasks(Vec<TaskId>),
    Packed { ends: Vec<u32>, data: Vec<u8> },
}

/// Pickles what is not plain; refuses what cannot be in a column.
struct Item {
    shares_objects: bool,
}

impl Other for Item {
    fn write(&mut self, value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<bool> {
        if self.shares_objects || value.is_instance_of::<Handle>() {
            return Ok(false);
        }
        Pickled.write(value, out)
    }
}

fn write_int(value: i64, ends: &mut Vec<u32>, data: &mut Vec<u8>, py: Python<'_>) -> PyResult<()> {
    compact::write(value.into_pyobject(py)?.as_any(), data, &mut Pickled)?;
    ends.push(data.len() as u32);
    Ok(())
}

impl Gathered {
    fn into_packed(self, py: Python<'_>) -> PyResult<Option<(Vec<u32>, Vec<u8>)>> {
        let (mut ends, mut data) = (Vec::new(), Vec::new());
        match self {
            Gathered::Packed { ends, data } => return Ok(Some((ends, data))),
            Gathered::Tasks(_) => return Ok(None),
            Gathered::Ints(values) => {
                for value in values {
                    write_int(value, &mut ends, &mut data, py)?;
                }
            }
            Gathered::Floats(values) => {
                for value in values {
                    compact::write(PyFloat::new(py, value).as_any(), &mut data, &mut Pickled)?;
                    ends.push(data.len() as u32);
                }
            }
        }
        Ok(Some((ends, data)))
    }

    fn len(&self) -> usize {
        match self {
            Gathered::Ints(values) => values.len(),
            Gathered::Floats(values) => values.len(),
            Gathered::Tasks(tasks) => tasks.len(),
            Gathered::Packed { ends, .. } => ends.len(),
        }
    }
}

/// The items of an iterable as an input, with their number; none if they need tasks of their own.
pub fn build(
    items: &[Bound<'_, PyAny>],
    client: ClientId,
    shares_objects: bool,
    hasher: &mut blake3::Hasher,
) -> PyResult<Option<(Input, u32)>> {
    let Some(first) = items.first() else {
        return Ok(Some((Input::Values(Column::range(0, 0, 0)), 0)));
    };
    let py = first.py();
    let mut gathered = if first.is_instance_of::<Handle>() {
        Gathered::Tasks(Vec::with_capacity(items.len()))
    } else if first.is_exact_instance_of::<PyInt>() {
        Gathered::Ints(Vec::with_capacity(items.len()))
    } else if first.is_exact_instance_of::<PyFloat>() {
        Gathered::Floats(Vec::with_capacity(items.len()))
    } else {
        Gathered::Packed { ends: Vec::with_capacity(items.len()), data: Vec::new() }
    };
    for item in items {
        let fits = match &mut gathered {
            Gathered::Ints(values) if item.is_exact_instance_of::<PyInt>() => {
                item.extract::<i64>().map(|value| values.push(value)).is_ok()
            }
            Gathered::Floats(values) => {
                item.cast_exact::<PyFloat>().map(|value| values.push(value.value())).is_ok()
            }
            Gathered::Tasks(tasks) => match item.cast::<Handle>() {
                Ok(handle) if handle.get().task.layer.client() == client => {
                    hasher.update(&handle.get().key.0.to_le_bytes());
                    tasks.push(handle.get().task);
                    true
                }
                _ => return Ok(None),
            },
            _ => false,
        };
        if fits {
            continue;
        }
        let Some((mut ends, mut data)) = gathered.into_packed(py)? else { return Ok(None) };
        let before = data.len();
        let mut other = Item { shares_objects };
        if !compact::write(item, &mut data, &mut other)? || data.len() - before > ITEM_NBYTES_MAX {
            return Ok(None);
        }
        ends.push(data.len() as u32);
        gathered = Gathered::Packed { ends, data };
    }
    let count = gathered.len() as u32;
    let input = match gathered {
        Gathered::Ints(values) => hashed(Column::ints(&values), hasher),
        Gathered::Floats(values) => hashed(Column::floats(&values), hasher),
        Gathered::Packed { ends, data } => hashed(Column::packed(&ends, data), hasher),
        Gathered::Tasks(tasks) => Input::TaskList(tasks.into()),
    };
    Ok(Some((input, count)))
}

fn hashed(column: Column, hasher: &mut blake3::Hasher) -> Input {
    use rasker_graph::Items;
    match column.items() {
        Items::Ints { base, width, data } => {
            hasher.update(&base.to_le_bytes()).update(&[*width]).update(data);
        }
        Items::Floats { data } => {
            hasher.update(b"f").update(data);
        }
        Items::Packed { ends, data } => {
            hasher.update(b"p").update(ends).update(data);
        }
        Items::Range { .. } | Items::Same { .. } => {}
    }
    Input::Values(column)
}
