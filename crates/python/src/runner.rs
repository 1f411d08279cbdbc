//! Runs Python calls. One of these is installed in each executor.

use crate::compact::{self, Context, Reader};
use crate::exchange::{Parted, Parts};
use crate::values::{self, Encoded, Object, to_object};
use crate::{array_memory, chain, failure, pickle, task};
use parking_lot::Mutex;
use pyo3::exceptions::PyMemoryError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyString, PyTuple};
use rasker_graph::{Blob, Run, TaskId, Template, TemplateId};
use rasker_protocol::{
    Datum, ExecutorCalls, ExecutorWork, Failure, FailureKind, Given, GivenInput, Value,
};
use rasker_runtime::{Runner, Sink};
use rasker_store::Arena;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Results up to this size ride with reports.
const INLINE_NBYTES_MAX: usize = 4096;
/// The interpreter is offered to others at least this often, as it does itself.
const OFFER_EVERY: Duration = Duration::from_millis(5);

enum Code {
    Unread(Template),
    Function(Py<PyAny>),
}

pub struct PythonRunner {
    arena: Arena,
    /// Caller and runner share a process: results are handed over as they are.
    shares_objects: bool,
    /// What the worker may use, bytes; 0 for no limit, and where it cannot be enforced.
    memory_limit: AtomicU64,
    templates: Mutex<HashMap<TemplateId, Code>>,
    live: Mutex<HashMap<TaskId, Py<PyAny>>>,
}

impl PythonRunner {
    pub fn new(arena: Arena, shares_objects: bool) -> PythonRunner {
        if shares_objects {
            // An executor process has done so before its first thread.
            crate::executor::keep_freed_memory();
        }
        PythonRunner {
            arena,
            shares_objects,
            memory_limit: AtomicU64::new(0),
            templates: Mutex::default(),
            live: Mutex::default(),
        }
    }

    fn function<'py>(&self, py: Python<'py>, id: TemplateId) -> PyResult<Bound<'py, PyAny>> {
        let template = match self.templates.lock().get(&id) {
            Some(Code::Function(function)) => return Ok(function.bind(py).clone()),
            Some(Code::Unread(template)) => template.clone(),
            None => return Err(compact::damaged()),
        };
        // Read without the lock: what is read may run code.
        let function = match template.code.local::<Object>() {
            Some(object) => object.0.bind(py).clone(),
            None => pickle::loads(py, Encoded::of(&template.code)?.bytes())?,
        };
        self.templates.lock().insert(id, Code::Function(function.clone().unbind()));
        Ok(function)
    }

    fn given<'py>(&self, py: Python<'py>, given: &Given) -> PyResult<Bound<'py, PyAny>> {
        match given {
            Given::Value(value) => to_object(py, value),
            Given::Live(task) => match self.live.lock().get(task) {
                Some(object) => Ok(object.bind(py).clone()),
                None => Err(compact::damaged()),
            },
            Given::Parts { parts, written } => {
                Ok(Bound::new(py, Parts::new(written, *parts)?)?.into_any())
            }
        }
    }

    fn run(&self, py: Python<'_>, calls: &ExecutorCalls, sink: &dyn Sink) {
        sink.begin(calls.run, calls.attempt);
        task::scope(py, &calls.label, sink, || match self.function(py, calls.template) {
            Ok(function) => match &calls.work {
                ExecutorWork::One { args, given } => {
                    let index = calls.run.start;
                    task::set_index(index);
                    let result = self.call_one(py, &function, args, given);
                    self.finish(py, calls, index, result, sink);
                }
                ExecutorWork::Map { inputs, constants } => {
                    self.run_map(py, calls, &function, inputs, constants, sink);
                }
            },
            Err(error) => {
                for index in calls.run.indices() {
                    self.fail(py, calls, index, &error, FailureKind::Unpicklable, sink);
                }
            }
        });
    }

    fn run_map(
        &self,
        py: Python<'_>,
        calls: &ExecutorCalls,
        function: &Bound<'_, PyAny>,
        inputs: &[GivenInput],
        constants: &Blob,
        sink: &dyn Sink,
    ) {
        let kwargs = match self.constants(py, constants) {
            Ok(kwargs) => kwargs,
            Err(error) => {
                for index in calls.run.indices() {
                    self.fail(py, calls, index, &error, FailureKind::Unpicklable, sink);
                }
                return;
            }
        };
        for at in 0..calls.run.count {
            let index = calls.run.start + at;
            task::set_index(index);
            sink.at(index);
            if sink.is_cancelled(index) {
                sink.failed(index, cancelled());
                continue;
            }
            let input = |input: &GivenInput| match input {
                GivenInput::Values(column) => values::item(py, column, at),
                GivenInput::Each(given) => self.given(py, &given[at as usize]),
            };
            let result = match inputs {
                [one] => input(one).and_then(|one| match &kwargs {
                    None => function.call1((one,)),
                    Some(kwargs) => function.call((one,), Some(kwargs)),
                }),
                many => many
                    .iter()
                    .map(input)
                    .collect::<PyResult<Vec<_>>>()
                    .and_then(|args| function.call(PyTuple::new(py, args)?, kwargs.as_ref())),
            };
            self.finish(py, calls, index, result, sink);
        }
    }

    fn constants<'py>(
        &self,
        py: Python<'py>,
        constants: &Blob,
    ) -> PyResult<Option<Bound<'py, PyDict>>> {
        if constants.is_empty() && matches!(constants, Blob::Bytes(_)) {
            return Ok(None);
        }
        let encoded = Encoded::of(constants)?;
        let mut inputs =
            Inputs { runner: self, py, given: &[], objects: encoded.objects(), before: None };
        Ok(Some(Reader::new(encoded.bytes()).read(py, &mut inputs)?.cast_into::<PyDict>()?))
    }

    fn call_one<'py>(
        &self,
        py: Python<'py>,
        function: &Bound<'py, PyAny>,
        args: &Blob,
        given: &[Given],
    ) -> PyResult<Bound<'py, PyAny>> {
        let encoded = Encoded::of(args)?;
        let mut inputs =
            Inputs { runner: self, py, given, objects: encoded.objects(), before: None };
        let Some(steps) = chain::read(encoded.bytes())? else {
            return call(py, function, encoded.bytes(), &mut inputs);
        };
        for step in steps {
            let function = self.function(py, step.template)?;
            inputs.before = Some(call(py, &function, step.args, &mut inputs)?);
        }
        inputs.before.ok_or_else(compact::damaged)
    }

    fn finish(
        &self,
        py: Python<'_>,
        calls: &ExecutorCalls,
        index: u32,
        result: PyResult<Bound<'_, PyAny>>,
        sink: &dyn Sink,
    ) {
        crate::executor::end_if_forked();
        task::end_call();
        let stored = result.and_then(|value| self.store(calls, index, value, sink));
        if let Err(error) = stored {
            self.fail(py, calls, index, &error, FailureKind::Exception, sink);
        }
    }

    /// Hands a result over in the form that suits it.
    fn store(
        &self,
        calls: &ExecutorCalls,
        index: u32,
        value: Bound<'_, PyAny>,
        sink: &dyn Sink,
    ) -> PyResult<()> {
        if value.is_exact_instance_of::<PyInt>()
            && let Ok(int) = value.extract::<i64>()
        {
            sink.int(index, int);
            return Ok(());
        }
        if let Ok(float) = value.cast_exact::<PyFloat>() {
            sink.float(index, float.value());
            return Ok(());
        }
        let is_atom = value.is_none()
            || value.is_exact_instance_of::<PyBool>()
            || value.is_exact_instance_of::<PyString>();
        if is_atom || !self.shares_objects {
            let mut bytes = Vec::new();
            if is_small(&value)
                && compact::write(&value, &mut bytes, &mut pickle::Refused)?
                && bytes.len() <= INLINE_NBYTES_MAX
            {
                sink.packed(index, &bytes);
                return Ok(());
            }
        }
        if let Ok(parted) = value.cast::<Parted>() {
            let value = parted.get().place(value.py(), &self.arena)?;
            sink.value(index, value);
            return Ok(());
        }
        let nbytes = pickle::sizeof(&value);
        if self.shares_objects {
            sink.value(index, Value::Object { object: values::to_blob(value), nbytes });
        } else {
            let task = TaskId::new(calls.run.layer, index);
            self.live.lock().insert(task, value.unbind());
            sink.live(index, nbytes);
        }
        Ok(())
    }

    fn fail(
        &self,
        py: Python<'_>,
        calls: &ExecutorCalls,
        index: u32,
        error: &PyErr,
        kind: FailureKind,
        sink: &dyn Sink,
    ) {
        let failure = failure::pack(py, error, calls.label.of(index), self.shares_objects);
        let limit = self.memory_limit.load(Ordering::Relaxed);
        let is_memory = limit > 0 && error.is_instance_of::<PyMemoryError>(py);
        let failure = match kind {
            FailureKind::Exception if is_memory => {
                let key = &failure.key;
                let text = format!(
                    "task \"{key}\" asked for more memory than its worker may use, {} MiB: {}",
                    limit >> 20,
                    failure.text
                );
                Arc::new(Failure { kind: FailureKind::OutOfMemory, text, ..(*failure).clone() })
            }
            FailureKind::Exception => failure,
            kind => Arc::new(Failure { kind, ..(*failure).clone() }),
        };
        sink.failed(index, failure);
    }
}

/// Calls a function with encoded arguments.
fn call<'py>(
    py: Python<'py>,
    function: &Bound<'py, PyAny>,
    bytes: &[u8],
    inputs: &mut Inputs<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let mut reader = Reader::new(bytes);
    let args = reader.read(py, inputs)?.cast_into::<PyTuple>()?;
    let kwargs = reader.read(py, inputs)?;
    if kwargs.is_none() {
        function.call1(args)
    } else {
        function.call(args, Some(&kwargs.cast_into::<PyDict>()?))
    }
}

fn cancelled() -> Arc<Failure> {
    Arc::new(Failure::new(FailureKind::Cancelled, "", "cancelled before it began"))
}

/// Whether it is worth trying to encode a value in place.
fn is_small(value: &Bound<'_, PyAny>) -> bool {
    match value.len() {
        Ok(len) => len <= INLINE_NBYTES_MAX,
        Err(_) => true,
    }
}

/// Inputs of one call.
struct Inputs<'a, 'py> {
    runner: &'a PythonRunner,
    py: Python<'py>,
    given: &'a [Given],
    objects: Option<&'a [Py<PyAny>]>,
    /// The result of the step before, in a chain: the one thing that a later step reads.
    before: Option<Bound<'py, PyAny>>,
}

impl<'py> Context<'py> for Inputs<'_, 'py> {
    fn input(&mut self, at: usize) -> PyResult<Bound<'py, PyAny>> {
        if let Some(before) = &self.before {
            return Ok(before.clone());
        }
        let given = self.given.get(at).ok_or_else(compact::damaged)?;
        self.runner.given(self.py, given)
    }

    fn object(&mut self, at: usize) -> PyResult<Bound<'py, PyAny>> {
        let object = self.objects.and_then(|objects| objects.get(at));
        Ok(object.ok_or_else(compact::damaged)?.bind(self.py).clone())
    }
}

impl Runner for PythonRunner {
    fn set_up(&self, settings: &Datum) {
        crate::executor::apply_settings(settings);
        let limit = crate::executor::number(settings, "memory_limit");
        if limit > 0 && !self.shares_objects {
            self.memory_limit.store(limit, Ordering::Relaxed);
            crate::executor::limit_memory(limit);
        }
    }

    fn define(&self, templates: Vec<Template>) {
        let mut known = self.templates.lock();
        for template in templates {
            known.entry(template.id).or_insert(Code::Unread(template));
        }
    }

    fn work(&self, next: &mut dyn FnMut() -> Option<ExecutorCalls>, sink: &dyn Sink) {
        Python::attach(|py| {
            let mut offered = Instant::now();
            if !self.shares_objects {
                array_memory::install(py, &self.arena);
            }
            while let Some(calls) = next() {
                if let ExecutorWork::One { .. } = calls.work
                    && sink.is_cancelled(calls.run.start)
                {
                    sink.begin(calls.run, calls.attempt);
                    sink.failed(calls.run.start, cancelled());
                    continue;
                }
                self.run(py, &calls, sink);
                if offered.elapsed() > OFFER_EVERY {
                    py.detach(std::thread::yield_now);
                    offered = Instant::now();
                }
            }
        });
    }

    fn drop_values(&self, runs: &[Run]) {
        let mut dropped = Vec::new();
        {
            let mut live = self.live.lock();
            for task in runs.iter().copied().flat_map(Run::tasks) {
                dropped.extend(live.remove(&task));
            }
        }
        if !dropped.is_empty() {
            Python::attach(|_| drop(dropped));
        }
    }

    fn export(&self, task: TaskId, value: Option<Value>) -> Result<Option<Value>, Arc<Failure>> {
        Python::attach(|py| {
            let object = match &value {
                Some(value) => to_object(py, value).ok(),
                None => self.live.lock().get(&task).map(|object| object.bind(py).clone()),
            };
            let Some(object) = object else { return Ok(None) };
            pickle::encode(&object, &self.arena).map(Some).map_err(|error| {
                let failure = failure::pack(py, &error, format!("{task:?}"), false);
                Arc::new(Failure { kind: FailureKind::Unpicklable, ..(*failure).clone() })
            })
        })
    }

    fn shared_nbytes(&self) -> u64 {
        // Without a limit nobody asks, and objects of this process are counted with it.
        match self.memory_limit.load(Ordering::Relaxed) {
            0 => 0,
            _ => self.arena.nbytes_reserved() as u64,
        }
    }

    fn trim(&self) {
        self.arena.trim();
        #[cfg(target_env = "gnu")]
        // SAFETY: it takes no pointer, and the allocator guards itself against other threads.
        unsafe {
            libc::malloc_trim(0);
        }
    }

    fn set_crowded(&self, is_crowded: bool) {
        if !self.shares_objects {
            array_memory::set_crowded(is_crowded);
        }
    }

    fn answer(&self, call: &Blob) -> Blob {
        Python::attach(|py| {
            let answer = || -> PyResult<Vec<u8>> {
                let call = Encoded::of(call)?;
                let module = py.import("rasker._run")?;
                let answer = module.call_method1("answer", (PyBytes::new(py, call.bytes()),))?;
                Ok(answer.extract::<Vec<u8>>()?)
            };
            answer().unwrap_or_default().into()
        })
    }
}
