//! Fragments of queries as native tasks: run on a worker's compute threads, without Python.

use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3_arrow::PyTable;
use rasker_engine::arrow::buffer::Buffer;
use rasker_engine::{
    EngineError, Environment, Fragment, FragmentRunner, Kind, Reservations, Settings, batches_of,
};
use rasker_graph::{Blob, Template, TemplateId};
use rasker_protocol::{Failure, Value};
use rasker_runtime::{Budget, NativeCall, NativeContext, NativeInput, NativeRunner, bytes_of};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

/// What one task of a stage is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TaskArgs {
    pub partition: u32,
    /// For each slot of the fragment: how many writers it has among the inputs, and which part of
    /// each is read.
    pub slots: Vec<(u32, u32)>,
}

/// Runs fragments for the workers of this process.
#[derive(Default)]
pub struct FragmentTasks {
    /// Made for the first fragment: most workers never see one.
    runner: OnceLock<Result<FragmentRunner, EngineError>>,
    codes: Mutex<HashMap<TemplateId, Blob>>,
    fragments: Mutex<HashMap<TemplateId, Arc<Fragment>>>,
}

impl FragmentTasks {
    fn runner(&self) -> Result<&FragmentRunner, EngineError> {
        let make = || {
            let environment = Environment::new(&Settings::default())?;
            Ok(FragmentRunner::new(Arc::new(environment)))
        };
        self.runner.get_or_init(make).as_ref().map_err(Clone::clone)
    }

    fn fragment(&self, id: TemplateId) -> Result<Arc<Fragment>, EngineError> {
        if let Some(known) = self.fragments.lock().get(&id) {
            return Ok(known.clone());
        }
        let code = self.codes.lock().get(&id).cloned();
        let internal = |text: &str| EngineError::new(Kind::Internal, text);
        let code = code.ok_or_else(|| internal("a fragment was named before it came"))?;
        let bytes = bytes_of(&Value::Encoded { blob: code, nbytes: 0 });
        let bytes = bytes.ok_or_else(|| internal("a fragment came in another form than bytes"))?;
        let fragment = Arc::new(Fragment::from_bytes(&bytes)?);
        self.fragments.lock().insert(id, fragment.clone());
        Ok(fragment)
    }

    fn run(&self, call: &NativeCall, context: &NativeContext<'_>) -> Result<Value, EngineError> {
        let damaged = |text: &str| EngineError::new(Kind::Internal, text);
        let fragment = self.fragment(call.template)?;
        let args = bytes_of(&Value::Encoded { blob: call.args.clone(), nbytes: 0 });
        let args: Option<TaskArgs> = args.and_then(|args| postcard::from_bytes(&args).ok());
        let args = args.ok_or_else(|| damaged("the arguments of a fragment are damaged"))?;
        let mut given = call.inputs.iter();
        let mut inputs = Vec::with_capacity(args.slots.len());
        for (n_writers, part) in &args.slots {
            let mut slot = Vec::with_capacity(*n_writers as usize);
            for _ in 0..*n_writers {
                let Some(NativeInput::Value(value)) = given.next() else {
                    return Err(damaged("a fragment was given too few inputs"));
                };
                let bytes = bytes_of(value).and_then(|bytes| part_of(&bytes, *part));
                slot.push(bytes.ok_or_else(|| damaged("an input of a fragment is damaged"))?);
            }
            inputs.push(slot);
        }
        let memory: Arc<dyn Reservations> = Arc::new(Account(context.budget().clone()));
        let go_on = || !context.is_cancelled();
        let parts = self.runner()?.run(&fragment, args.partition, inputs, Some(memory), &go_on)?;
        write_parts(&parts.0, context)
    }
}

impl NativeRunner for FragmentTasks {
    fn define(&self, templates: Vec<Template>) {
        let mut codes = self.codes.lock();
        codes.extend(templates.into_iter().map(|template| (template.id, template.code)));
    }

    fn run(&self, call: NativeCall, context: &NativeContext<'_>) -> Result<Value, Failure> {
        FragmentTasks::run(self, &call, context).map_err(|error| match error.kind {
            Kind::Cancelled => context.cancelled(),
            _ => {
                let mut failure = context.failure(error.text.clone());
                failure.error = pickled(&error).into();
                failure
            }
        })
    }
}

/// A worker's budget, as the engine asks it.
struct Account(Arc<Budget>);

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Account(limit {:?})", self.0.limit_nbytes())
    }
}

impl Reservations for Account {
    fn try_reserve(&self, nbytes: u64) -> bool {
        self.0.try_reserve(nbytes)
    }
    fn reserve(&self, nbytes: u64) {
        self.0.reserve(nbytes);
    }
    fn release(&self, nbytes: u64) {
        self.0.release(nbytes);
    }
}

/// Parts side by side behind an index: a mark, their number, and where each ends.
const MARK: &[u8; 8] = b"RSKRPART";
/// Parts begin at multiples of this, so that columns are used where they are.
const ALIGN: usize = 64;

fn write_parts(parts: &[Vec<Buffer>], context: &NativeContext<'_>) -> Result<Value, EngineError> {
    let head = (16 + 8 * parts.len()).next_multiple_of(ALIGN);
    let mut ends = Vec::with_capacity(parts.len());
    let mut at = head;
    for part in parts {
        at = at.next_multiple_of(ALIGN);
        at += part.iter().map(|buffer| buffer.len()).sum::<usize>();
        ends.push(at);
    }
    let mut slab = context.allocate(at.max(1)).map_err(|error| {
        EngineError::new(Kind::Memory, format!("no room for {at} bytes of rows: {error}"))
    })?;
    slab[..8].copy_from_slice(MARK);
    slab[8..16].copy_from_slice(&(parts.len() as u64).to_le_bytes());
    for (i, end) in ends.iter().enumerate() {
        slab[16 + 8 * i..24 + 8 * i].copy_from_slice(&(*end as u64).to_le_bytes());
    }
    let mut at = head;
    for part in parts {
        at = at.next_multiple_of(ALIGN);
        for buffer in part {
            let bytes = buffer.as_slice();
            slab[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        }
    }
    Ok(context.seal(slab))
}

fn part_of(bytes: &bytes::Bytes, part: u32) -> Option<bytes::Bytes> {
    let word = |i: usize| -> Option<usize> {
        let bytes = bytes.get(8 + 8 * i..16 + 8 * i)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?) as usize)
    };
    let n = word(0).filter(|_| bytes.starts_with(MARK))?;
    let part = part as usize;
    if part >= n {
        return None;
    }
    let start = match part {
        0 => 16 + 8 * n,
        _ => word(part)?,
    };
    let (start, end) = (start.next_multiple_of(ALIGN), word(part + 1)?);
    (start <= end && end <= bytes.len()).then(|| bytes.slice(start..end))
}

/// Whether an encoded value is rows of a query.
pub fn is_rows(bytes: &[u8]) -> bool {
    bytes.starts_with(MARK)
}

/// Rows of a query as Python gets them: a `pyarrow.Table`.
pub fn to_table<'py>(py: Python<'py>, bytes: bytes::Bytes) -> PyResult<Bound<'py, PyAny>> {
    let part = part_of(&bytes, 0).ok_or_else(crate::compact::damaged)?;
    let (schema, batches) = batches_of(part).map_err(|error| crate::sql::raised(py, &error))?;
    PyTable::try_new(batches, schema)?.into_pyarrow(py)
}

/// An error as `rasker._failure` reads it: a list of one link, with the pickled exception.
fn pickled(error: &EngineError) -> Vec<u8> {
    let (module, name) = crate::sql::class_of(error.kind);
    let text = |text: &str, out: &mut Vec<u8>| {
        out.push(b'X');
        out.extend((text.len() as u32).to_le_bytes());
        out.extend(text.as_bytes());
    };
    let mut exception = b"\x80\x03c".to_vec();
    exception.extend(format!("{module}\n{name}\n").as_bytes());
    text(&error.text, &mut exception);
    exception.extend(b"\x85R.");
    let mut links = b"\x80\x03](B".to_vec();
    links.extend((exception.len() as u32).to_le_bytes());
    links.extend(exception);
    text(&format!("{name}: {}", error.text), &mut links);
    links.push(b']');
    text("", &mut links);
    links.extend(b"ta.");
    links
}
