//! `Session`: what a client can ask for. Converts, calls, wraps.

use crate::encode::{Encoder, Input};
use crate::gather::runs_of;
use crate::handle::{Handle, Handles, KeyName};
use crate::pickle;
use crate::values;
use parking_lot::Mutex;
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList, PyRange, PyRangeMethods, PyTuple};
use rasker_client::NewTask;
use rasker_graph::{
    self as graph, Blob, Column, Key, MapWork, Run, TaskId, Template, TemplateId, TemplateKind,
};
use rasker_runtime::Cluster;
use rasker_store::Arena;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Functions whose pickles are remembered.
const FUNCTIONS_MAX: usize = 4096;

static FUTURE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static FUTURES: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static ERRORS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// Classes of the package that the native side makes instances of.
#[pyfunction]
pub fn register_classes(py: Python<'_>, future: Py<PyAny>, futures: Py<PyAny>, errors: Py<PyAny>) {
    let _ = FUTURE.set(py, future);
    let _ = FUTURES.set(py, futures);
    let _ = ERRORS.set(py, errors);
}

pub fn future_class(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    match FUTURE.get(py) {
        Some(class) => Ok(class.bind(py).clone()),
        None => Ok(py.get_type::<Handle>().into_any()),
    }
}

pub fn futures_class(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    match FUTURES.get(py) {
        Some(class) => Ok(class.bind(py).clone()),
        None => Ok(py.get_type::<Handles>().into_any()),
    }
}

pub fn timed_out(py: Python<'_>, what: &str, timeout: Option<f64>) -> PyErr {
    let seconds = timeout.unwrap_or(0.0);
    let text = format!("{what} has not ended after {seconds} s");
    let class = ERRORS.get(py).and_then(|errors| errors.bind(py).get_item("TimeoutError").ok());
    match class.and_then(|class| class.call1((&text,)).ok()) {
        Some(error) => PyErr::from_value(error),
        None => pyo3::exceptions::PyTimeoutError::new_err(text),
    }
}

/// How tasks are to be run.
#[pyclass(frozen, module = "rasker._native")]
pub struct Options {
    pub inner: Arc<graph::Options>,
    pub pure: bool,
    is_default: bool,
}

#[pymethods]
impl Options {
    #[new]
    #[pyo3(signature = (
        *, priority=0.0, retries=0, workers=None, allow_other_workers=false, resources=None,
        pure=true
    ))]
    fn new(
        priority: f64,
        retries: u8,
        workers: Option<Vec<String>>,
        allow_other_workers: bool,
        resources: Option<HashMap<String, f64>>,
        pure: bool,
    ) -> Options {
        let mut resources: Vec<(String, f64)> = resources.unwrap_or_default().into_iter().collect();
        resources.sort_by(|a, b| a.0.cmp(&b.0));
        let inner = graph::Options {
            // Fractions of a step are told apart, as priorities may be floats.
            priority: (priority * 1000.0).round() as i64,
            retries,
            workers: workers.unwrap_or_default(),
            allow_other_workers,
            resources,
        };
        let is_default = inner == graph::Options::default();
        Options { inner: Arc::new(inner), pure, is_default }
    }
}

impl Options {
    pub fn own(options: Option<&Options>) -> Option<Arc<graph::Options>> {
        options.filter(|options| !options.is_default).map(|options| options.inner.clone())
    }
}

struct Shared {
    inner: rasker_runtime::Session,
    cluster: Option<Arc<Cluster>>,
    end: Option<Box<dyn Fn() + Send + Sync>>,
    arena: Arena,
    /// Objects may be handed over as they are: executors are threads of this process.
    shares_objects: bool,
    /// Templates of functions seen, by the function's address; the function is kept with it.
    functions: Mutex<HashMap<usize, (Py<PyAny>, TemplateId, Arc<str>)>>,
    seed: u128,
    n_keys: AtomicU64,
    address: String,
}

/// One client's connection to a scheduler.
#[pyclass(frozen, module = "rasker._native")]
#[derive(Clone)]
pub struct Session(Arc<Shared>);

impl Session {
    pub fn new(
        inner: rasker_runtime::Session,
        cluster: Option<Arc<Cluster>>,
        end: Option<Box<dyn Fn() + Send + Sync>>,
        arena: Arena,
        shares_objects: bool,
        address: String,
    ) -> Session {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let mut seed = blake3::Hasher::new();
        seed.update(&now.map_or(0, |now| now.as_nanos()).to_le_bytes());
        seed.update(&std::process::id().to_le_bytes());
        seed.update(&inner.id().0.to_le_bytes());
        let seed = u128::from_le_bytes(seed.finalize().as_bytes()[..16].try_into().expect("16"));
        Session(Arc::new(Shared {
            inner,
            cluster,
            end,
            arena,
            shares_objects,
            functions: Mutex::default(),
            seed,
            n_keys: AtomicU64::new(0),
            address,
        }))
    }

    pub fn inner(&self) -> &rasker_runtime::Session {
        &self.0.inner
    }

    /// Whether both are one.
    pub fn same(&self, other: &Session) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub fn shares_objects(&self) -> bool {
        self.0.shares_objects
    }

    pub fn arena(&self) -> &Arena {
        &self.0.arena
    }

    pub fn check_open(&self) -> PyResult<()> {
        match self.0.inner.ended() {
            None => Ok(()),
            Some(reason) => Err(PyRuntimeError::new_err(format!(
                "the client is not connected any more: {reason}; make a new Client"
            ))),
        }
    }

    pub fn new_key(&self) -> Key {
        let n = self.0.n_keys.fetch_add(1, Ordering::Relaxed);
        Key(self
            .0
            .seed
            .wrapping_add(u128::from(n).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835)))
    }

    /// The template of a function, pickled when it is first seen.
    pub fn template(&self, func: &Bound<'_, PyAny>) -> PyResult<(TemplateId, Arc<str>)> {
        let address = func.as_ptr() as usize;
        if let Some((_, id, name)) = self.0.functions.lock().get(&address) {
            return Ok((*id, name.clone()));
        }
        if !func.is_callable() {
            let text = format!("the first argument must be callable, not {}", func.repr()?);
            return Err(PyTypeError::new_err(text));
        }
        let py = func.py();
        let name: Arc<str> = py
            .import("rasker._names")?
            .call_method1("funcname", (func,))?
            .extract::<String>()?
            .into();
        let (id, code) = if self.0.shares_objects {
            let key = self.new_key();
            (TemplateId(key.0), values::to_blob(func.clone()))
        } else {
            let bytes = pickle::dumps(func)?;
            let hash = blake3::hash(bytes.as_bytes());
            let id = u128::from_le_bytes(hash.as_bytes()[..16].try_into().expect("sixteen bytes"));
            (TemplateId(id), Blob::from(bytes.as_bytes().to_vec()))
        };
        let template = Template { id, kind: TemplateKind::Python, name: name.clone(), code };
        self.0.inner.with(|machine, _| machine.add_template(template));
        let mut functions = self.0.functions.lock();
        let old = if functions.len() >= FUNCTIONS_MAX {
            std::mem::take(&mut *functions)
        } else {
            HashMap::new()
        };
        functions.insert(address, (func.clone().unbind(), id, name.clone()));
        drop(functions);
        drop(old);
        Ok((id, name))
    }

    fn make(&self, task: TaskId, key: Key, name: KeyName) -> Handle {
        Handle::new(self.clone(), task, key, name)
    }

    /// The key of a task, also of one in a layer.
    pub fn any_key(key: &Bound<'_, PyAny>) -> PyResult<Key> {
        if let Ok(handle) = key.cast::<Handle>() {
            return Ok(handle.get().key);
        }
        match parse_item_key(&key.str()?.to_string()) {
            Some((layer, index)) => Ok(layer.item(index)),
            None => Ok(Session::chosen_key(key)?.0),
        }
    }

    /// A key that the user chose.
    pub fn chosen_key(key: &Bound<'_, PyAny>) -> PyResult<(Key, Arc<str>)> {
        let text = key.str()?.to_string();
        // What a client calls itself by another way is found by the same text.
        if let Some(hash) = parse_key(&text) {
            return Ok((hash, text.into()));
        }
        let hash = blake3::hash(text.as_bytes());
        let bytes = hash.as_bytes()[..16].try_into().expect("sixteen bytes");
        Ok((Key(u128::from_le_bytes(bytes)), text.into()))
    }
}

/// The hash in a key that was made from a call: `name-<32 hex digits>`.
fn parse_key(text: &str) -> Option<Key> {
    let (_, hex) = text.rsplit_once('-')?;
    (hex.len() == 32).then(|| u128::from_str_radix(hex, 16).ok().map(Key))?
}

/// The layer's hash and the position in a key of a map: `name-<32 hex digits>-<position>`.
fn parse_item_key(text: &str) -> Option<(Key, u32)> {
    let (layer, index) = text.rsplit_once('-')?;
    Some((parse_key(layer)?, index.parse().ok()?))
}

#[pymethods]
impl Session {
    #[getter]
    fn id(&self) -> String {
        format!("client-{:016x}", self.0.seed as u64)
    }

    #[getter]
    pub fn address(&self) -> String {
        self.0.address.clone()
    }

    #[getter]
    fn status(&self) -> &'static str {
        if self.0.inner.ended().is_some() { "closed" } else { "running" }
    }

    #[pyo3(signature = (func, args, kwargs=None, key=None, options=None))]
    fn submit<'py>(
        &self,
        py: Python<'py>,
        func: &Bound<'py, PyAny>,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
        key: Option<&Bound<'py, PyAny>>,
        options: Option<&Bound<'py, Options>>,
    ) -> PyResult<Py<PyAny>> {
        self.check_open()?;
        let options = options.map(|options| options.get());
        let (template, name) = self.template(func)?;
        let mut encoder = Encoder::new(self.0.inner.id(), self.0.shares_objects, None);
        encoder.call(args, kwargs)?;
        let mut dependencies: smallvec::SmallVec<[TaskId; 4]> = smallvec::SmallVec::new();
        let mut keys: smallvec::SmallVec<[Key; 4]> = smallvec::SmallVec::new();
        for input in &encoder.inputs {
            if let Input::Task(task, key) = input {
                dependencies.push(*task);
                keys.push(*key);
            }
        }
        let (key, chosen) = match key {
            Some(key) => {
                let (hash, text) = Session::chosen_key(key)?;
                (hash, Some((text, key.clone().unbind())))
            }
            None if options.is_none_or(|options| options.pure) => {
                (encoder.key(template.0, keys.into_iter()), None)
            }
            None => (self.new_key(), None),
        };
        let (args, blob) = encoder.finish(py)?;
        let task = self.0.inner.with(|machine, _| {
            machine.submit(NewTask {
                key,
                name: chosen.as_ref().map(|(text, _)| text.clone()),
                template,
                args,
                blob,
                dependencies: &dependencies,
                options: Options::own(options),
                fused: &[],
            })
        });
        self.0.inner.touched();
        let name = match chosen {
            Some((_, object)) => KeyName::Chosen(Arc::new(object)),
            None => KeyName::Call(name),
        };
        self.make(task, key, name).into_future(py)
    }

    #[pyo3(signature = (func, iterables, kwargs=None, key=None, options=None))]
    fn map<'py>(
        &self,
        py: Python<'py>,
        func: &Bound<'py, PyAny>,
        iterables: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
        key: Option<&Bound<'py, PyAny>>,
        options: Option<&Bound<'py, Options>>,
    ) -> PyResult<Py<PyAny>> {
        self.check_open()?;
        let one_by_one = |iterables: &Bound<'py, PyTuple>| {
            self.map_one_by_one(py, func, iterables, kwargs, key, options)
        };
        if key.is_some_and(|key| key.is_instance_of::<PyList>()) {
            return one_by_one(iterables);
        }
        // Iterators can be read once, and may have to be read again one by one.
        let lists = iterables.iter().map(|iterable| {
            let is_whole =
                iterable.is_instance_of::<Handles>() || iterable.is_instance_of::<PyRange>();
            if is_whole || iterable.is_instance_of::<PyList>() {
                return Ok(iterable);
            }
            Ok(PyList::new(py, iterable.try_iter()?.collect::<PyResult<Vec<_>>>()?)?.into_any())
        });
        let iterables = &PyTuple::new(py, lists.collect::<PyResult<Vec<_>>>()?)?;
        let (template, name) = self.template(func)?;
        let mut encoder = Encoder::new(self.0.inner.id(), self.0.shares_objects, None);
        let mut inputs = Vec::with_capacity(iterables.len());
        let mut hasher = blake3::Hasher::new();
        hasher.update(&template.0.to_le_bytes());
        for iterable in iterables.iter() {
            match self.map_input(&iterable, &mut hasher)? {
                Some(input) => inputs.push(input),
                None => return one_by_one(iterables),
            }
        }
        if let Some(kwargs) = kwargs.filter(|kwargs| !kwargs.is_empty()) {
            encoder.value(kwargs.as_any())?;
            if !encoder.inputs.is_empty() {
                return one_by_one(iterables);
            }
        }
        let options = options.map(|options| options.get());
        let count = inputs.iter().map(|(_, count)| *count).min().unwrap_or(0);
        let inputs: Vec<graph::Input> =
            inputs.into_iter().map(|(input, _)| cut_input(input, count)).collect();
        let constants_key = encoder.key(count.into(), std::iter::empty());
        hasher.update(&constants_key.0.to_le_bytes());
        let constants = encoder.finish_constants(py)?;
        let layer_key = match key {
            Some(key) => Session::chosen_key(key)?.0,
            None if options.is_none_or(|options| options.pure) => {
                let hash = hasher.finalize();
                let bytes = hash.as_bytes()[..16].try_into().expect("sixteen bytes");
                Key(u128::from_le_bytes(bytes))
            }
            None => self.new_key(),
        };
        let name: Arc<str> = match key {
            Some(key) => key.str()?.to_string().into(),
            None => name,
        };
        let work = MapWork { template, key: layer_key, name: name.clone(), inputs, constants };
        let options = Options::own(options).unwrap_or_default();
        let layer = self.0.inner.with(|machine, out| {
            machine.find_map(layer_key).unwrap_or_else(|| machine.map(work, count, options, out))
        });
        Handles::new(self.clone(), layer, count, layer_key, name).into_list(py)
    }

    #[pyo3(signature = (tasks, outputs, options=None, annotations=None, fuse=true))]
    fn graph<'py>(
        &self,
        py: Python<'py>,
        tasks: &Bound<'py, PyAny>,
        outputs: &Bound<'py, PyAny>,
        options: Option<&Bound<'py, Options>>,
        annotations: Option<&Bound<'py, PyDict>>,
        fuse: bool,
    ) -> PyResult<Bound<'py, PyList>> {
        self.check_open()?;
        crate::graph::submit(self, py, tasks, outputs, options, annotations, fuse)
    }

    #[pyo3(signature = (values, keys, workers=None, broadcast=false, timeout=None))]
    fn scatter<'py>(
        &self,
        py: Python<'py>,
        values: &Bound<'py, PyAny>,
        keys: &Bound<'py, PyAny>,
        workers: Option<Vec<String>>,
        broadcast: bool,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyList>> {
        crate::scatter::scatter(self, py, values, keys, workers, broadcast, timeout)
    }

    #[pyo3(signature = (what, argument=None, timeout=None))]
    fn query<'py>(
        &self,
        py: Python<'py>,
        what: &str,
        argument: Option<&Bound<'py, PyAny>>,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        crate::requests::query(self, py, what, argument, timeout)
    }

    #[pyo3(signature = (func, args, kwargs, workers=None, wait=true, timeout=None))]
    #[allow(clippy::too_many_arguments)]
    fn run<'py>(
        &self,
        py: Python<'py>,
        func: &Bound<'py, PyAny>,
        args: &Bound<'py, PyTuple>,
        kwargs: &Bound<'py, PyDict>,
        workers: Option<Vec<String>>,
        wait: bool,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyDict>> {
        crate::requests::run(self, py, func, args, kwargs, workers, wait, timeout)
    }

    #[pyo3(signature = (timeout=None))]
    fn restart(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        crate::requests::restart(self, py, timeout)
    }

    #[pyo3(signature = (handles, skip_errors=false, timeout=None))]
    fn values<'py>(
        &self,
        py: Python<'py>,
        handles: &Bound<'py, PyAny>,
        skip_errors: bool,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyList>> {
        let runs = runs_of(handles)?;
        self.gather(py, &runs, skip_errors, timeout)
    }

    #[pyo3(signature = (handles, count, timeout=None))]
    fn wait(
        &self,
        py: Python<'_>,
        handles: &Bound<'_, PyAny>,
        count: u32,
        timeout: Option<f64>,
    ) -> PyResult<bool> {
        let runs = runs_of(handles)?;
        self.wait_for(py, &runs, count, timeout)
    }

    pub fn adopt(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        self.check_open()?;
        let text = key.str()?.to_string();
        let chosen = KeyName::Chosen(Arc::new(key.clone().unbind()));
        let (hash, index) = match parse_item_key(&text) {
            Some((layer, index)) => (layer, Some(index)),
            None => (Session::chosen_key(key)?.0, None),
        };
        let task = self.0.inner.with(|machine, out| machine.adopt(hash, index, out));
        let own = index.map_or(hash, |index| hash.item(index));
        self.make(task, own, chosen).into_future(py)
    }

    #[pyo3(signature = (handles, reason=""))]
    fn cancel(&self, handles: &Bound<'_, PyAny>, reason: &str) -> PyResult<()> {
        let runs = runs_of(handles)?;
        self.0.inner.with(|machine, out| machine.cancel(runs, reason, out));
        Ok(())
    }

    fn retry(&self, handles: &Bound<'_, PyAny>) -> PyResult<()> {
        let tasks: Vec<TaskId> = runs_of(handles)?.into_iter().flat_map(Run::tasks).collect();
        self.0.inner.with(|machine, out| machine.retry(tasks, out));
        Ok(())
    }

    fn flush(&self) {
        self.0.inner.flush();
    }

    fn bytes_sent(&self) -> u64 {
        self.0.inner.flush();
        self.0.inner.sent_nbytes()
    }

    #[pyo3(signature = (timeout=None))]
    fn close(&self, py: Python<'_>, timeout: Option<f64>) {
        let _ = timeout;
        let shared = &self.0;
        py.detach(|| {
            if let Some(cluster) = &shared.cluster {
                cluster.disconnect(&shared.inner);
            } else if let Some(end) = &shared.end {
                shared.inner.flush();
                end();
            }
        });
    }
}

fn cut_input(input: graph::Input, count: u32) -> graph::Input {
    match input {
        graph::Input::Values(column) => graph::Input::Values(column.slice(0, count)),
        graph::Input::TaskList(tasks) => graph::Input::TaskList(tasks[..count as usize].into()),
        whole => whole,
    }
}

impl Session {
    /// One zipped iterable as an input, with its length; `hasher` gets what tells it from others.
    /// None if its items need tasks of their own.
    fn map_input(
        &self,
        iterable: &Bound<'_, PyAny>,
        hasher: &mut blake3::Hasher,
    ) -> PyResult<Option<(graph::Input, u32)>> {
        if let Ok(handles) = iterable.cast::<Handles>() {
            let handles = handles.get();
            if handles.layer.client() == self.0.inner.id() {
                hasher.update(&handles.key.0.to_le_bytes());
                hasher.update(&handles.start.to_le_bytes());
                let first = TaskId::new(handles.layer, handles.start);
                return Ok(Some((graph::Input::Tasks(first), handles.count)));
            }
        }
        if let Ok(range) = iterable.cast::<PyRange>() {
            let (first, step) = (range.start()? as i64, range.step()? as i64);
            let count = u32::try_from(range.len()?).map_err(|_| too_long())?;
            hasher.update(&first.to_le_bytes());
            hasher.update(&step.to_le_bytes());
            return Ok(Some((graph::Input::Values(Column::range(first, step, count)), count)));
        }
        let items = iterable.try_iter()?.collect::<PyResult<Vec<_>>>()?;
        crate::columns::build(&items, self.0.inner.id(), self.0.shares_objects, hasher)
    }

    /// A map whose items need tasks of their own.
    fn map_one_by_one<'py>(
        &self,
        py: Python<'py>,
        func: &Bound<'py, PyAny>,
        iterables: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
        key: Option<&Bound<'py, PyAny>>,
        options: Option<&Bound<'py, Options>>,
    ) -> PyResult<Py<PyAny>> {
        let zipped = py.import("builtins")?.getattr("zip")?.call1(iterables)?;
        let futures = PyList::empty(py);
        for (i, args) in zipped.try_iter()?.enumerate() {
            let args = args?.cast_into::<PyTuple>()?;
            let own = match key {
                Some(keys) if keys.is_instance_of::<PyList>() => Some(keys.get_item(i)?),
                Some(key) => Some(format!("{}-{i}", key.str()?).into_pyobject(py)?.into_any()),
                None => None,
            };
            futures.append(self.submit(py, func, &args, kwargs, own.as_ref(), options)?)?;
        }
        Ok(futures.into_any().unbind())
    }
}

fn too_long() -> PyErr {
    pyo3::exceptions::PyOverflowError::new_err("a layer has at most 4294967295 tasks")
}
