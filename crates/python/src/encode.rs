//! Arguments of a task: plain values compactly, futures as inputs, the rest pickled or as it is.

use crate::compact::{self, OBJECT, Other};
use crate::handle::{Handle, Handles, Ref};
use crate::pickle;
use crate::values::LocalArgs;
use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use rasker_graph::{Blob, ClientId, Key, TaskId};
use smallvec::SmallVec;
use std::collections::HashMap;
use std::sync::Arc;

/// Arguments up to this size travel in the page of their task.
const IN_PAGE_NBYTES_MAX: usize = 4096;
/// Arguments from this size on are better scattered.
const HUGE_NBYTES: usize = 10 << 20;

/// So many inputs are looked through one by one.
const FEW_INPUTS: usize = 16;

/// What a task reads.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Input {
    Task(TaskId, Key),
    /// A task of the same graph, by its place there.
    Place(u32),
}

/// Gathers the arguments of one task.
pub struct Encoder<'a, 'py> {
    client: ClientId,
    /// Objects may be handed over as they are.
    shares_objects: bool,
    /// Places of keys, while a graph is read.
    places: Option<&'a Bound<'py, PyDict>>,
    pub bytes: Vec<u8>,
    pub inputs: SmallVec<[Input; 4]>,
    /// Places of inputs, once there are many.
    seen: HashMap<Input, usize, foldhash::fast::FixedState>,
    objects: Vec<Py<PyAny>>,
    /// What stands for objects in the task's key.
    tokens: Vec<u8>,
}

impl<'a, 'py> Encoder<'a, 'py> {
    pub fn new(
        client: ClientId,
        shares_objects: bool,
        places: Option<&'a Bound<'py, PyDict>>,
    ) -> Encoder<'a, 'py> {
        Encoder {
            client,
            shares_objects,
            places,
            bytes: Vec::new(),
            inputs: SmallVec::new(),
            seen: HashMap::default(),
            objects: Vec::new(),
            tokens: Vec::new(),
        }
    }

    /// Makes it ready for the next task.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.inputs.clear();
        self.seen.clear();
        self.objects.clear();
        self.tokens.clear();
    }

    pub fn call(
        &mut self,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<()> {
        self.value(args.as_any())?;
        match kwargs {
            Some(kwargs) if !kwargs.is_empty() => self.value(kwargs.as_any()),
            _ => {
                self.bytes.push(compact::NONE);
                Ok(())
            }
        }
    }

    pub fn value(&mut self, value: &Bound<'py, PyAny>) -> PyResult<()> {
        let mut bytes = std::mem::take(&mut self.bytes);
        let written = compact::write(value, &mut bytes, self);
        self.bytes = bytes;
        written.map(|_| ())
    }

    fn input(&mut self, input: Input, out: &mut Vec<u8>) {
        let at = self.place_of(input);
        compact::put_input(out, at as u64);
    }

    /// An input that is read twice is one input.
    fn place_of(&mut self, input: Input) -> usize {
        let n = self.inputs.len();
        if n < FEW_INPUTS {
            if let Some(at) = self.inputs.iter().position(|other| *other == input) {
                return at;
            }
        } else {
            if self.seen.is_empty() {
                self.seen.extend(self.inputs.iter().copied().zip(0..));
            }
            let at = *self.seen.entry(input).or_insert(n);
            if at < n {
                return at;
            }
        }
        self.inputs.push(input);
        n
    }

    /// Arguments for a page, or beside it. Warns about huge ones.
    pub fn finish(&mut self, py: Python<'_>) -> PyResult<(&[u8], Option<Blob>)> {
        if !self.objects.is_empty() {
            let bytes = std::mem::take(&mut self.bytes);
            let objects = std::mem::take(&mut self.objects);
            return Ok((&[], Some(Blob::Local(Arc::new(LocalArgs { bytes, objects })))));
        }
        if self.bytes.len() <= IN_PAGE_NBYTES_MAX {
            return Ok((&self.bytes, None));
        }
        if self.bytes.len() > HUGE_NBYTES {
            warn_huge(py, self.bytes.len())?;
        }
        let bytes = std::mem::take(&mut self.bytes);
        Ok((&[], Some(bytes.into())))
    }

    /// Constants of a layer: always one blob.
    pub fn finish_constants(&mut self, py: Python<'_>) -> PyResult<Blob> {
        let (bytes, blob) = self.finish(py)?;
        Ok(match blob {
            Some(blob) => blob,
            None => bytes.to_vec().into(),
        })
    }

    /// A key for a call of the template with these arguments.
    pub fn key(&self, template: u128, inputs: impl Iterator<Item = Key>) -> Key {
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        hasher.update(&template.to_le_bytes());
        hasher.update(&self.bytes);
        hasher.update(&self.tokens);
        for key in inputs {
            hasher.update(&key.0.to_le_bytes());
        }
        Key(hasher.digest128())
    }
}

fn warn_huge(py: Python<'_>, nbytes: usize) -> PyResult<()> {
    let text = format!(
        "a task has arguments of {:.1} MiB in its graph; scatter large values once with \
         `client.scatter(value)` and pass the future, or load them inside the task",
        nbytes as f64 / f64::from(1 << 20)
    );
    let warnings = py.import("warnings")?;
    warnings.call_method1("warn", (text, py.get_type::<pyo3::exceptions::PyUserWarning>(), 3))?;
    Ok(())
}

impl<'py> Encoder<'_, 'py> {
    fn write_handle(&mut self, handle: &Handle, out: &mut Vec<u8>) -> PyResult<bool> {
        if handle.task.layer.client() != self.client {
            return Ok(false);
        }
        self.input(Input::Task(handle.task, handle.key), out);
        Ok(true)
    }

    fn write_ref(&mut self, key: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<()> {
        let place = match self.places {
            Some(places) => places.get_item(key)?,
            None => None,
        };
        let Some(place) = place else {
            return Err(PyKeyError::new_err(format!("the graph has no task with key {key}")));
        };
        self.input(Input::Place(place.extract()?), out);
        Ok(())
    }
}

impl Other for Encoder<'_, '_> {
    fn write(&mut self, value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<bool> {
        if let Ok(handle) = value.cast::<Handle>()
            && self.write_handle(handle.get(), out)?
        {
            return Ok(true);
        }
        if let Ok(reference) = value.cast::<Ref>() {
            self.write_ref(reference.get().key.bind(value.py()), out)?;
            return Ok(true);
        }
        if let Ok(handles) = value.cast::<Handles>() {
            // The user may have changed the list; then his items stand for it.
            if let Ok(items) = value.getattr("_items")
                && !items.is_none()
            {
                let mut bytes = std::mem::take(out);
                let written = compact::write(&items, &mut bytes, self);
                *out = bytes;
                return written;
            }
            return self.write_handles(handles.get(), out);
        }
        if self.shares_objects {
            let token = value.py().import("rasker.tokenize")?.call_method1("tokenize", (value,))?;
            self.tokens.extend_from_slice(token.extract::<String>()?.as_bytes());
            out.push(OBJECT);
            compact::put_varint(out, self.objects.len() as u64);
            self.objects.push(value.clone().unbind());
            return Ok(true);
        }
        pickle::Pickled.write(value, out)
    }
}

impl Encoder<'_, '_> {
    fn write_handles(&mut self, handles: &Handles, out: &mut Vec<u8>) -> PyResult<bool> {
        compact::put_list(out, u64::from(handles.count));
        for index in 0..handles.count {
            let task = TaskId::new(handles.layer, handles.start + index);
            self.input(Input::Task(task, handles.key.item(task.index)), out);
        }
        Ok(true)
    }
}
