//! Python functions that statements call: here, and in executors.
//!
//! ```text
//!   Context ─ plan ─► stage that calls f ─► template: fragment and pickle of f
//!                                               ▼
//!                           executor: SqlFragment(partition, Parts …) ─► Parted
//! ```

use crate::exchange::{Parted, Parts};
use crate::sql::raised;
use crate::{executor, fragments, task, values};
use bytes::Bytes;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};
use pyo3_arrow::{PyArray, PySchema};
use rasker_engine::arrow::array::ArrayRef;
use rasker_engine::arrow::buffer::Buffer;
use rasker_engine::arrow::datatypes::{Field, Schema};
use rasker_engine::{
    ColumnCall, EngineError, Environment, Fragment, FragmentRunner, Kind, OwnFunction,
    Reservations, Settings, Signature,
};
use rasker_graph::{Template, TemplateId, TemplateKind};
use std::any::Any;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// A function over columns: it gets and returns whatever offers an Arrow array.
pub struct PythonFunction {
    name: String,
    function: Py<PyAny>,
}

impl PythonFunction {
    fn call(&self, py: Python<'_>, columns: &[ArrayRef]) -> PyResult<ArrayRef> {
        let column = |array: &ArrayRef| {
            let array = PyArray::from_array_ref(array.clone());
            Ok(array.to_pyarrow(py)?.unbind())
        };
        let columns = columns.iter().map(column).collect::<PyResult<Vec<_>>>()?;
        let made = self.function.bind(py).call1(PyTuple::new(py, columns)?)?;
        Ok(made.extract::<PyArray>()?.into_inner().0)
    }
}

impl ColumnCall for PythonFunction {
    fn call(&self, columns: &[ArrayRef]) -> Result<ArrayRef, EngineError> {
        Python::attach(|py| {
            PythonFunction::call(self, py, columns).map_err(|error| {
                let name = &self.name;
                let note = format!("in the function {name}, which a statement calls");
                // Whoever raises what takes no notes says enough by itself.
                let _ = error.value(py).call_method1("add_note", (note,));
                let text = format!("the function {name} failed: {}", error.value(py));
                EngineError::new(Kind::Data, text).because(error)
            })
        })
    }
}

/// A function as the engine knows it; the schema's last field is what it gives.
pub fn own_function(
    name: String,
    function: Py<PyAny>,
    schema: PySchema,
    is_aggregate: bool,
) -> PyResult<OwnFunction> {
    let schema = schema.into_inner();
    let mut takes: Vec<_> = schema.fields().iter().map(|field| field.data_type().clone()).collect();
    let Some(gives) = takes.pop() else {
        return Err(pyo3::exceptions::PyValueError::new_err("a function gives something"));
    };
    let signature = Signature { name: name.clone(), takes, gives };
    let call = Arc::new(PythonFunction { name, function });
    Ok(OwnFunction { signature, is_aggregate, call })
}

/// Functions of one statement, each pickled once.
#[derive(Default)]
pub struct Pickles(HashMap<usize, Py<PyBytes>>);

impl Pickles {
    /// The function's pickle.
    ///
    /// # Errors
    ///
    /// If it cannot be pickled; the text names it.
    fn of<'py>(
        &mut self,
        py: Python<'py>,
        function: &PythonFunction,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let address = function.function.as_ptr() as usize;
        if let Some(known) = self.0.get(&address) {
            return Ok(known.bind(py).clone());
        }
        let module = py.import("rasker.sql.functions")?;
        let pickle = module.call_method1("pickled", (&function.name, &function.function))?;
        let pickle = pickle.cast_into::<PyBytes>()?;
        self.0.insert(address, pickle.clone().unbind());
        Ok(pickle)
    }

    /// The template of a stage that calls functions: they and the fragment travel together.
    pub fn template(&mut self, py: Python<'_>, fragment: &Fragment) -> PyResult<Template> {
        let functions = PyList::empty(py);
        for own in &fragment.functions {
            let (signature, call): (_, &dyn Any) = (&own.signature, own.call.as_ref());
            let Some(call) = call.downcast_ref::<PythonFunction>() else {
                let text = format!("the function {} is none of Python's", signature.name);
                return Err(raised(py, &EngineError::new(Kind::Internal, text)));
            };
            let kinds = signature.takes.iter().chain([&signature.gives]);
            let fields = kinds.zip(0..).map(|(kind, at)| {
                let at: i32 = at;
                Field::new(at.to_string(), kind.clone(), true)
            });
            let schema = PySchema::new(Arc::new(Schema::new(fields.collect::<Vec<_>>())));
            let schema = schema.into_pyarrow(py)?;
            let pickle = self.of(py, call)?;
            functions.append((&signature.name, pickle, schema, own.is_aggregate))?;
        }
        let code = PyBytes::new(py, &fragment.to_bytes());
        let module = py.import("rasker.sql.functions")?;
        let code = module.call_method1("packed", (code, functions))?;
        let code = code.cast_into::<PyBytes>()?;
        let hash = blake3::hash(code.as_bytes());
        let id = u128::from_le_bytes(hash.as_bytes()[..16].try_into().expect("sixteen"));
        let (kind, name) = (TemplateKind::Python, "sql".into());
        Ok(Template { id: TemplateId(id), kind, name, code: code.as_bytes().to_vec().into() })
    }
}

/// The same where executors are threads of this process: functions are handed over as they are.
pub fn local_template(py: Python<'_>, fragment: &Fragment) -> PyResult<Template> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&fragment.to_bytes());
    for own in &fragment.functions {
        // Whoever knows the template keeps the function, so no other one takes its address.
        let address = Arc::as_ptr(&own.call).cast::<u8>() as usize;
        hasher.update(&address.to_le_bytes());
    }
    let hash = hasher.finalize();
    let id = u128::from_le_bytes(hash.as_bytes()[..16].try_into().expect("sixteen"));
    let id = TemplateId(id);
    let code = values::to_blob(Bound::new(py, SqlFragment(fragment.clone()))?.into_any());
    Ok(Template { id, kind: TemplateKind::Python, name: "sql".into(), code })
}

/// A stage whose plan calls Python functions, as an executor runs it: a partition at a time.
#[pyclass(frozen, module = "rasker._native")]
pub struct SqlFragment(Fragment);

#[pymethods]
impl SqlFragment {
    /// `functions` are names, callables, schemas, and whether it is an aggregate.
    #[new]
    fn new(
        py: Python<'_>,
        code: &[u8],
        functions: Vec<(String, Py<PyAny>, PySchema, bool)>,
    ) -> PyResult<SqlFragment> {
        let mut fragment = Fragment::from_bytes(code).map_err(|error| raised(py, &error))?;
        let functions = functions.into_iter().map(|(name, function, schema, is_aggregate)| {
            own_function(name, function, schema, is_aggregate)
        });
        fragment.functions = functions.collect::<PyResult<_>>()?;
        Ok(SqlFragment(fragment))
    }

    /// Runs a partition over what it reads of other stages.
    #[pyo3(signature = (partition, *inputs))]
    fn __call__(
        &self,
        py: Python<'_>,
        partition: u32,
        inputs: &Bound<'_, PyTuple>,
    ) -> PyResult<Parted> {
        let input =
            |input: Bound<'_, PyAny>| Ok(fragments::of_writers(&input.cast::<Parts>()?.get().read));
        let inputs = inputs.iter().map(input).collect::<PyResult<Vec<Vec<Bytes>>>>()?;
        let memory = match executor::memory_limit() {
            0 => None,
            limit => Some(Arc::new(Share { limit_nbytes: limit / 2 }) as Arc<dyn Reservations>),
        };
        let run = || {
            let go_on = || !task::is_cancelled();
            runner()?.run(&self.0, partition, inputs, memory, &go_on)
        };
        let parts = py.detach(run).map_err(|error| raised(py, &error))?;
        let part = |buffers: Vec<Buffer>| {
            buffers.into_iter().map(|buffer| Bytes::from_owner(Made(buffer))).collect()
        };
        Ok(Parted::new(parts.0.into_iter().map(part).collect()))
    }
}

/// Memory of rows that a fragment made.
struct Made(Buffer);

impl AsRef<[u8]> for Made {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Made for the first fragment; calls run on the executor's own threads.
fn runner() -> Result<&'static FragmentRunner, EngineError> {
    static RUNNER: OnceLock<Result<FragmentRunner, EngineError>> = OnceLock::new();
    let make = || {
        let settings = Settings { threads: 1, ..Settings::default() };
        Ok(FragmentRunner::new(Arc::new(Environment::new(&settings)?)))
    };
    RUNNER.get_or_init(make).as_ref().map_err(Clone::clone)
}

/// What operators of all fragments in this executor hold, bytes.
static RESERVED: AtomicU64 = AtomicU64::new(0);

/// Operators may hold half of the executor's memory: the rest is for what functions make.
#[derive(Debug)]
struct Share {
    limit_nbytes: u64,
}

impl Reservations for Share {
    fn try_reserve(&self, nbytes: u64) -> bool {
        let more = |now: u64| now.checked_add(nbytes).filter(|sum| *sum <= self.limit_nbytes);
        RESERVED.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }
    fn reserve(&self, nbytes: u64) {
        RESERVED.fetch_add(nbytes, Ordering::Relaxed);
    }
    fn release(&self, nbytes: u64) {
        RESERVED.fetch_sub(nbytes, Ordering::Relaxed);
    }
}
