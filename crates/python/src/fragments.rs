//! Fragments of queries as native tasks: run on a worker's compute threads, without Python.

use bytes::Bytes;
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3_arrow::PyTable;
use rasker_engine::arrow::buffer::Buffer;
use rasker_engine::{
    EngineError, Environment, Fragment, FragmentRunner, Kind, Reservations, Settings, batches_of,
};
use rasker_exchange::{Layout, PartsRead, bytes_of as parted_bytes, cut};
use rasker_graph::{Blob, PartRange, Template, TemplateId};
use rasker_protocol::{Failure, Value};
use rasker_runtime::{Budget, NativeCall, NativeContext, NativeInput, NativeRunner, bytes_of};
use rasker_store::Slab;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

/// Runs fragments for the workers of this process.
#[derive(Default)]
pub struct FragmentTasks {
    /// Made for the first fragment: most workers never see one.
    runner: OnceLock<Result<FragmentRunner, EngineError>>,
    fragments: Mutex<HashMap<TemplateId, Code>>,
}

/// A fragment as it came, or as it was read for the first task of it.
enum Code {
    Unread(Blob),
    Read(Arc<Fragment>),
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
        let internal = |text: &str| EngineError::new(Kind::Internal, text);
        let mut fragments = self.fragments.lock();
        let code = match fragments.get(&id) {
            Some(Code::Read(fragment)) => return Ok(fragment.clone()),
            Some(Code::Unread(code)) => code.clone(),
            None => return Err(internal("a fragment was named before it came")),
        };
        let bytes = bytes_of(&Value::Encoded { blob: code, nbytes: 0 });
        let bytes = bytes.ok_or_else(|| internal("a fragment came in another form than bytes"))?;
        let fragment = Arc::new(Fragment::from_bytes(&bytes)?);
        fragments.insert(id, Code::Read(fragment.clone()));
        Ok(fragment)
    }

    fn run(&self, call: &NativeCall, context: &NativeContext<'_>) -> Result<Value, EngineError> {
        let damaged = |text: &str| EngineError::new(Kind::Internal, text);
        let fragment = self.fragment(call.template)?;
        let args = bytes_of(&Value::Encoded { blob: call.args.clone(), nbytes: 0 });
        let partition = args.and_then(|args| Some(u32::from_le_bytes(args[..].try_into().ok()?)));
        let partition = partition.ok_or_else(|| damaged("a fragment's arguments are damaged"))?;
        let read = |input: &NativeInput| {
            let NativeInput::Parts(read) = input else {
                return Err(damaged("a fragment was given a value to read"));
            };
            Ok(of_writers(read))
        };
        let inputs = call.inputs.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let memory: Arc<dyn Reservations> = Arc::new(Account(context.budget().clone()));
        let go_on = || !context.is_cancelled();
        let parts = self.runner()?.run(&fragment, partition, inputs, Some(memory), &go_on)?;
        write_parts(&parts.0, context)
    }
}

impl NativeRunner for FragmentTasks {
    fn define(&self, templates: Vec<Template>) {
        let mut fragments = self.fragments.lock();
        for template in templates {
            // It may come again, for another worker of this process.
            fragments.entry(template.id).or_insert(Code::Unread(template.code));
        }
    }

    fn run(&self, call: NativeCall, context: &NativeContext<'_>) -> Result<Value, Box<Failure>> {
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

/// One part of each writer; nothing of those that wrote nothing to it.
pub fn of_writers(read: &PartsRead) -> Vec<Bytes> {
    let mut found = vec![Bytes::new(); read.n_writers as usize];
    for part in &read.parts {
        found[part.writer as usize] = part.data.clone();
    }
    found
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

/// Copies parts side by side into shared memory, where other processes read them in place.
fn write_parts(parts: &[Vec<Buffer>], context: &NativeContext<'_>) -> Result<Value, EngineError> {
    let slab = parted(parts, |nbytes| {
        context.allocate(nbytes).map_err(|error| {
            let text = format!("no room for {nbytes} bytes of rows: {error}");
            EngineError::new(Kind::Memory, text)
        })
    })?;
    Ok(context.seal(slab))
}

/// A parted value in memory that the caller has.
pub fn parted(
    parts: &[Vec<Buffer>],
    allocate: impl FnOnce(usize) -> Result<Slab, EngineError>,
) -> Result<Slab, EngineError> {
    let nbytes = |part: &Vec<Buffer>| part.iter().map(|buffer| buffer.len() as u64).sum();
    let layout = Layout::of(parts.iter().map(nbytes));
    let mut slab = allocate(layout.nbytes())?;
    layout.write_index(&mut slab);
    for (at, part) in parts.iter().enumerate() {
        let mut place = layout.range(at as u32).start;
        for buffer in part {
            slab[place..place + buffer.len()].copy_from_slice(buffer);
            place += buffer.len();
        }
    }
    Ok(slab)
}

/// Whether an encoded value is rows of a query.
pub fn is_rows(bytes: &[u8]) -> bool {
    rasker_exchange::is_parted(bytes)
}

/// Rows of a query as Python gets them: a `pyarrow.Table`.
pub fn to_table<'py>(py: Python<'py>, blob: &Blob) -> PyResult<Bound<'py, PyAny>> {
    let value = Value::Encoded { blob: blob.clone(), nbytes: 0 };
    let rows = cut(&value, PartRange::one(0)).and_then(|piece| parted_bytes(&piece.data));
    table_of(py, rows.map_err(|_| crate::compact::damaged())?)
}

/// An Arrow stream as a `pyarrow.Table`, where it lies.
pub fn table_of(py: Python<'_>, part: Bytes) -> PyResult<Bound<'_, PyAny>> {
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
