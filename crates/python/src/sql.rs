//! The table engine as Python sees it: tables in and out through the Arrow PyCapsule interface.

use crate::functions::own_function;
use crate::handle::{Handle, KeyName};
use crate::requests::ask;
use crate::session::Session;
use crate::stages::enter;
use crate::tables::Tables;
use parking_lot::Mutex;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyList;
use pyo3_arrow::{PyRecordBatchReader, PySchema, PyTable};
use rasker_engine::arrow::array::{RecordBatch, RecordBatchReader};
use rasker_engine::arrow::datatypes::SchemaRef;
use rasker_engine::arrow::error::ArrowError;
use rasker_engine::{
    Batches, Context, EngineError, FilesOptions, Kind, Parameters, Query, Rows, ScalarValue,
    Settings, Spread, Stage, Stages, TextKind, WriteOptions, text_of,
};
use rasker_graph::Run;
use rasker_protocol::{Datum, Query as Asked};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

/// Runs without the interpreter lock; signals are looked for now and then, and end it.
fn apart<T: Send>(
    py: Python<'_>,
    run: impl FnOnce(&dyn Fn() -> bool) -> Result<T, EngineError> + Send,
) -> PyResult<T> {
    let (ended, interrupt) = py.detach(|| {
        let interrupt: RefCell<Option<PyErr>> = RefCell::new(None);
        let go_on = || match Python::attach(|py| py.check_signals()) {
            Ok(()) => true,
            Err(error) => {
                *interrupt.borrow_mut() = Some(error);
                false
            }
        };
        let ended = run(&go_on);
        (ended, interrupt.into_inner())
    });
    match (ended, interrupt) {
        (Ok(value), _) => Ok(value),
        (Err(_), Some(interrupt)) => Err(interrupt),
        (Err(error), None) => Err(raised(py, &error)),
    }
}

/// The Python class that a kind of failure is raised as.
pub fn class_of(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Syntax | Kind::Plan | Kind::Data => ("rasker.exceptions", "SqlError"),
        Kind::Unsupported => ("rasker.exceptions", "SqlNotSupportedError"),
        Kind::Missing => ("builtins", "FileNotFoundError"),
        Kind::Denied => ("builtins", "PermissionError"),
        Kind::Memory => ("builtins", "MemoryError"),
        Kind::Cancelled => ("builtins", "KeyboardInterrupt"),
        Kind::Internal => ("builtins", "RuntimeError"),
    }
}

/// What Python raises; what a function of a statement raised is raised as it was.
pub fn raised(py: Python<'_>, error: &EngineError) -> PyErr {
    let cause = error.cause.as_ref().and_then(|cause| cause.downcast_ref::<PyErr>());
    if let Some(cause) = cause {
        return cause.clone_ref(py);
    }
    let (module, name) = class_of(error.kind);
    let class = py.import(module).and_then(|module| module.getattr(name));
    match class.and_then(|class| class.call1((&error.text,))) {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}

/// Tables by name, and statements over them.
#[pyclass(frozen, module = "rasker._native")]
pub struct SqlContext(Arc<Context>, Arc<Tables>);

#[pymethods]
impl SqlContext {
    #[new]
    #[pyo3(signature = (threads=0, memory_limit=None, spill_folder=None))]
    fn new(
        py: Python<'_>,
        threads: usize,
        memory_limit: Option<u64>,
        spill_folder: Option<PathBuf>,
    ) -> PyResult<SqlContext> {
        let settings = Settings { threads, memory_limit, spill_folder };
        let context = Context::new(&settings).map_err(|error| raised(py, &error))?;
        Ok(SqlContext(Arc::new(context), Arc::default()))
    }

    /// Names files as a table.
    #[pyo3(signature = (
        name, locations, *, format=None, format_options=None, schema=None, hive=true,
        store_options=None
    ))]
    #[allow(clippy::too_many_arguments)] // The names are Python's keywords.
    fn create_files(
        &self,
        py: Python<'_>,
        name: &str,
        locations: Vec<String>,
        format: Option<String>,
        format_options: Option<HashMap<String, String>>,
        schema: Option<PySchema>,
        hive: bool,
        store_options: Option<BTreeMap<String, String>>,
    ) -> PyResult<()> {
        let options = FilesOptions {
            locations,
            format,
            format_options: format_options.unwrap_or_default(),
            schema: schema.map(PySchema::into_inner),
            hive,
            store_options: store_options.unwrap_or_default(),
            may_be_empty: false,
        };
        apart(py, |go_on| self.0.create_files(name, options, go_on))
    }

    /// Names a table that stays in memory; what offers an Arrow stream is one.
    fn create_batches(&self, py: Python<'_>, name: &str, table: PyTable) -> PyResult<()> {
        let (batches, schema) = table.into_inner();
        self.0.create_batches(name, schema, batches).map_err(|error| raised(py, &error))
    }

    /// Writes a query's rows to a file or a folder; how many they were.
    #[pyo3(signature = (query, target, format, options, partition_by, elsewhere))]
    #[allow(clippy::too_many_arguments)] // The names are Python's keywords.
    fn write(
        &self,
        py: Python<'_>,
        query: &SqlQuery,
        target: String,
        format: String,
        options: HashMap<String, String>,
        partition_by: Vec<String>,
        elsewhere: Py<PyAny>,
    ) -> PyResult<u64> {
        let to = WriteOptions { target, format, options, partition_by };
        with_rows(py, &elsewhere, &self.1, |rows| self.0.write(&query.query, to, rows))
    }

    /// Names a Python function of columns; the schema's last field is what it gives. It gets and
    /// returns whatever offers an Arrow array.
    fn create_function(
        &self,
        py: Python<'_>,
        name: String,
        function: Py<PyAny>,
        schema: PySchema,
        is_aggregate: bool,
    ) -> PyResult<()> {
        let function = own_function(name, function, schema, is_aggregate)?;
        self.0.create_function(function).map_err(|error| raised(py, &error))
    }

    fn drop_table(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        self.0.drop_table(name).map_err(|error| raised(py, &error))
    }

    /// Schema, name and kind of each table.
    fn tables(&self) -> Vec<(String, String, &'static str)> {
        let entries = self.0.tables().into_iter();
        entries.map(|entry| (entry.schema, entry.name, entry.kind)).collect()
    }

    fn schema_of(&self, py: Python<'_>, name: &str) -> PyResult<PySchema> {
        self.0.schema_of(name).map(PySchema::new).map_err(|error| raised(py, &error))
    }

    /// `elsewhere` is given each `SqlQuery` that is to be run at once, and gives its rows, or
    /// `None` where they are to be made here.
    fn sql(
        &self,
        py: Python<'_>,
        text: &str,
        parameters: Option<&Bound<'_, PyAny>>,
        elsewhere: Py<PyAny>,
    ) -> PyResult<SqlQuery> {
        let parameters = read_parameters(parameters)?;
        let run = |rows: &Rows<'_>| self.0.sql(text, &parameters, rows);
        let query = with_rows(py, &elsewhere, &self.1, run)?;
        Ok(SqlQuery::new(query, self.1.clone()))
    }
}

/// Runs with rows that Python has made elsewhere; what it raises is raised again.
fn with_rows<T: Send>(
    py: Python<'_>,
    elsewhere: &Py<PyAny>,
    tables: &Arc<Tables>,
    run: impl FnOnce(&Rows<'_>) -> Result<T, EngineError> + Send,
) -> PyResult<T> {
    let raised: Mutex<Option<PyErr>> = Mutex::new(None);
    let ended = apart(py, |go_on| {
        let made = |query: &Query| match made_elsewhere(elsewhere, query, tables) {
            Ok(None) => Ok(None),
            Ok(Some((rows, None))) => Ok(Some(rows)),
            Ok(Some((rows, Some(stages)))) => stages.finish(rows, go_on).map(Some),
            Err(error) => {
                *raised.lock() = Some(error);
                Err(EngineError::new(Kind::Internal, "the rows could not be made elsewhere"))
            }
        };
        run(&Rows { check: go_on, elsewhere: Some(&made) })
    });
    raised.into_inner().map_or(ended, Err)
}

type Made = Option<(Vec<RecordBatch>, Option<Stages>)>;

fn made_elsewhere(elsewhere: &Py<PyAny>, query: &Query, tables: &Arc<Tables>) -> PyResult<Made> {
    let asked = SqlQuery::new(query.clone(), tables.clone());
    let asked = Python::attach(|py| Py::new(py, asked))?;
    let made = Python::attach(|py| {
        let made = elsewhere.bind(py).call1((asked.clone_ref(py),))?;
        Ok(made.extract::<Option<PyTable>>()?.map(|table| table.into_inner().0))
    });
    let stages = asked.get().entered.lock().take();
    if let (Err(_), Some(stages)) = (&made, &stages) {
        stages.give_up();
    }
    made.map(|rows| rows.map(|rows| (rows, stages)))
}

/// Pairs of a kind and a value, as `rasker.sql` makes them of Python's values.
fn read_parameters(given: Option<&Bound<'_, PyAny>>) -> PyResult<Parameters> {
    let Some(given) = given else { return Ok(Parameters::None) };
    if let Ok(named) = given.extract::<HashMap<String, (String, Bound<'_, PyAny>)>>() {
        let values =
            named.into_iter().map(|(name, (kind, value))| Ok((name, scalar(&kind, &value)?)));
        return Ok(Parameters::Named(values.collect::<PyResult<_>>()?));
    }
    let listed: Vec<(String, Bound<'_, PyAny>)> = given.extract()?;
    let values = listed.into_iter().map(|(kind, value)| scalar(&kind, &value));
    Ok(Parameters::Positional(values.collect::<PyResult<_>>()?))
}

fn scalar(kind: &str, value: &Bound<'_, PyAny>) -> PyResult<ScalarValue> {
    Ok(match kind {
        "null" => ScalarValue::Null,
        "bool" => ScalarValue::Boolean(Some(value.extract()?)),
        "int" => ScalarValue::Int64(Some(value.extract()?)),
        "float" => ScalarValue::Float64(Some(value.extract()?)),
        "text" => ScalarValue::Utf8(Some(value.extract()?)),
        "bytes" => ScalarValue::Binary(Some(value.extract()?)),
        "date" => ScalarValue::Date32(Some(value.extract()?)),
        "timestamp" => ScalarValue::TimestampMicrosecond(Some(value.extract()?), None),
        "timestamp_utc" => {
            ScalarValue::TimestampMicrosecond(Some(value.extract()?), Some("UTC".into()))
        }
        "duration" => ScalarValue::DurationMicrosecond(Some(value.extract()?)),
        "decimal" => {
            let (digits, precision, scale): (String, u8, i8) = value.extract()?;
            let digits = digits.parse().map_err(|_| {
                PyValueError::new_err("a decimal parameter has more digits than 38")
            })?;
            ScalarValue::Decimal128(Some(digits), precision, scale)
        }
        other => return Err(PyTypeError::new_err(format!("{other} is no kind of parameter"))),
    })
}

/// A planned statement; its rows are made when they are asked for.
#[pyclass(frozen, module = "rasker._native")]
pub struct SqlQuery {
    query: Query,
    /// What was entered of it.
    entered: Mutex<Option<Stages>>,
    /// The tasks of that.
    tasks: Mutex<Vec<Run>>,
    tables: Arc<Tables>,
}

impl SqlQuery {
    fn new(query: Query, tables: Arc<Tables>) -> SqlQuery {
        SqlQuery { query, entered: Mutex::default(), tasks: Mutex::default(), tables }
    }
}

#[pymethods]
impl SqlQuery {
    fn schema(&self) -> PySchema {
        PySchema::new(self.query.schema())
    }

    fn columns(&self) -> Vec<String> {
        self.query.schema().fields().iter().map(|field| field.name().clone()).collect()
    }

    /// All rows, in order.
    fn collect(&self, py: Python<'_>) -> PyResult<PyTable> {
        let batches = apart(py, |go_on| self.query.collect(go_on))?;
        PyTable::try_new(batches, self.query.schema())
    }

    /// Rows as they come.
    fn read(&self, py: Python<'_>) -> PyResult<PyRecordBatchReader> {
        let batches = apart(py, |go_on| self.query.stream(go_on))?;
        Ok(PyRecordBatchReader::new(Box::new(Reader { schema: batches.schema(), batches })))
    }

    /// Whether it was run when it was said.
    fn is_done(&self) -> bool {
        self.query.is_done()
    }

    /// Enters it as tasks, and returns futures of its rows, in order; `None` where one process
    /// must run it. Queries over fewer bytes than `whole_nbytes` are one task, and fewer bytes of
    /// rows than `range_nbytes` are put into order by one.
    fn submit<'py>(
        &self,
        py: Python<'py>,
        session: &Session,
        n_slots: usize,
        whole_nbytes: u64,
        range_nbytes: u64,
    ) -> PyResult<Option<Bound<'py, PyList>>> {
        let spread = Spread { n_slots, whole_nbytes, range_nbytes };
        let entered = apart(py, |go_on| {
            let fragments = self.query.stages_for(spread, go_on).and_then(|all| {
                let work = |stage: &Stage| match &stage.given {
                    Some(_) => Ok::<_, EngineError>((None, stage.clone())),
                    None => Ok((Some(self.query.fragment(stage)?), stage.clone())),
                };
                let fragments =
                    all.stages.iter().map(work).collect::<Result<Vec<_>, EngineError>>()?;
                Ok((fragments, all))
            });
            match fragments {
                // If it is not supported here either, running it will say so.
                Err(error) if error.kind == Kind::Unsupported => Ok(None),
                fragments => fragments.map(Some),
            }
        })?;
        let Some((fragments, stages)) = entered else { return Ok(None) };
        if let Some(before) = self.entered.lock().replace(stages) {
            before.give_up();
        }
        let entered = enter(py, session, fragments, &self.tables)?;
        *self.tasks.lock() = entered.all;
        let futures = PyList::empty(py);
        for (task, key) in entered.last {
            let handle = Handle::new(session.clone(), task, key, KeyName::Call("sql".into()));
            futures.append(handle.into_future(py)?)?;
        }
        session.inner().touched();
        Ok(Some(futures))
    }

    /// How many tasks of it have ended, and how many there are.
    fn n_ended(&self, py: Python<'_>, session: &Session, timeout: f64) -> PyResult<(u32, u32)> {
        let tasks = self.tasks.lock().clone();
        let n: u32 = tasks.iter().map(|run| run.count).sum();
        let left = match ask(session, py, Asked::Pending(tasks), Some(timeout))? {
            Datum::Int(left) => u32::try_from(left).unwrap_or(n),
            _ => n,
        };
        Ok((n.saturating_sub(left), n))
    }

    /// Rows that this process has read of tables for it.
    fn n_rows_read(&self) -> u64 {
        self.query.n_rows_read()
    }

    /// Lets workers forget tables of this process, which will be brought to them again.
    fn forget_tables(&self) {
        self.tables.forget();
    }

    /// How a cluster would run it; `None` where one process must.
    fn explain_stages(
        &self,
        py: Python<'_>,
        n_slots: usize,
        whole_nbytes: u64,
        range_nbytes: u64,
        verbose: bool,
    ) -> PyResult<Option<String>> {
        let spread = Spread { n_slots, whole_nbytes, range_nbytes };
        apart(py, |go_on| match self.query.explain_stages(spread, verbose, go_on) {
            Err(error) if error.kind == Kind::Unsupported => Ok(None),
            text => text.map(Some),
        })
    }

    #[pyo3(signature = (analyze=false, verbose=false))]
    fn explain(&self, py: Python<'_>, analyze: bool, verbose: bool) -> PyResult<String> {
        apart(py, |go_on| self.query.explain(analyze, verbose, go_on))
    }
}

struct Reader {
    schema: SchemaRef,
    batches: Batches,
}

impl Iterator for Reader {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        let go_on = || Python::attach(|py| py.check_signals()).is_ok();
        let next = self.batches.next(&go_on)?;
        Some(next.map_err(|error| ArrowError::ExternalError(Box::new(error))))
    }
}

impl RecordBatchReader for Reader {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
}

/// Rows of an Arrow stream as pieces of text: whole for a table, by batches otherwise.
#[pyclass(module = "rasker._native")]
pub struct Texts {
    /// Never shared; the lock only says so.
    rows: Mutex<Box<dyn RecordBatchReader + Send>>,
    kind: TextKind,
    n_rows_max: usize,
    is_first: bool,
    is_done: bool,
    n_rows: usize,
}

#[pymethods]
impl Texts {
    /// With `n_rows_max` 0 all rows are shown.
    #[new]
    #[pyo3(signature = (rows, kind, n_rows_max=0))]
    fn new(
        py: Python<'_>,
        rows: PyRecordBatchReader,
        kind: &str,
        n_rows_max: usize,
    ) -> PyResult<Texts> {
        let kind = TextKind::of_name(kind).map_err(|error| raised(py, &error))?;
        let rows = Mutex::new(rows.into_reader()?);
        Ok(Texts { rows, kind, n_rows_max, is_first: true, is_done: false, n_rows: 0 })
    }

    /// Rows so far.
    #[getter]
    fn n_rows(&self) -> usize {
        self.n_rows
    }

    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(&mut self, py: Python<'_>) -> PyResult<Option<String>> {
        py.detach(|| self.next_text()).map_err(|error| raised(py, &error))
    }
}

impl Texts {
    fn next_text(&mut self) -> Result<Option<String>, EngineError> {
        if self.is_done {
            return Ok(None);
        }
        let rows = self.rows.get_mut();
        let schema = rows.schema();
        let is_table = self.kind == TextKind::Table;
        let mut batches = Vec::new();
        while is_table || batches.is_empty() {
            let Some(batch) = rows.next().transpose()? else {
                self.is_done = true;
                break;
            };
            let room = match self.n_rows_max {
                0 => usize::MAX,
                most => most.saturating_sub(self.n_rows),
            };
            self.n_rows += batch.num_rows();
            batches.push(batch.slice(0, batch.num_rows().min(room)));
        }
        batches.retain(|batch: &RecordBatch| batch.num_rows() > 0);
        if batches.is_empty() && !self.is_first {
            return Ok(None);
        }
        let text = text_of(&schema, &batches, self.kind, self.is_first)?;
        self.is_first = false;
        Ok(Some(text))
    }
}
