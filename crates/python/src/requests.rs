//! What a session asks of scheduler and workers beside tasks.

use crate::datum;
use crate::session::Session;
use crate::{compact, pickle};
use pyo3::exceptions::{PyRuntimeError, PyTimeoutError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};
use rasker_graph::Key;
use rasker_protocol::{Datum, Query};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

const LOOK_EVERY: Duration = Duration::from_millis(100);

fn keys(argument: Option<&Bound<'_, PyAny>>) -> PyResult<Vec<Key>> {
    let Some(argument) = argument.filter(|argument| !argument.is_none()) else {
        return Ok(Vec::new());
    };
    argument.try_iter()?.map(|key| Session::any_key(&key?)).collect()
}

fn to_query(what: &str, argument: Option<&Bound<'_, PyAny>>) -> PyResult<Query> {
    let one = || match argument {
        Some(argument) => Session::any_key(argument),
        None => Err(PyValueError::new_err(format!("the question {what:?} needs a key"))),
    };
    Ok(match what {
        "scheduler_info" | "nthreads" => Query::Info,
        "who_has" => Query::WhoHas(keys(argument)?),
        "has_what" => Query::HasWhat,
        "processing" => Query::Processing,
        "call_stack" => Query::CallStack,
        "explain" => Query::Explain(one()?),
        "story" => Query::Story(keys(argument)?),
        "call" => Query::Call(one()?),
        "retire_workers" => {
            let argument = argument.ok_or_else(|| PyValueError::new_err("no worker is named"))?;
            Query::Retire { workers: argument.extract()? }
        }
        "replicate" => {
            let argument = argument.ok_or_else(|| PyValueError::new_err("no key is named"))?;
            let (named, n, workers) = argument.extract::<(Bound<'_, PyAny>, u32, Vec<String>)>()?;
            Query::Replicate { keys: keys(Some(&named))?, n, workers }
        }
        "rebalance" => {
            let argument = argument.ok_or_else(|| PyValueError::new_err("no key is named"))?;
            let (named, workers) = argument.extract::<(Bound<'_, PyAny>, Vec<String>)>()?;
            Query::Rebalance { keys: keys(Some(&named))?, workers }
        }
        "events" => match argument {
            Some(topic) if !topic.is_none() => Query::Events(Some(topic.extract()?)),
            _ => Query::Events(None),
        },
        "log_event" => {
            let argument = argument.ok_or_else(|| PyValueError::new_err("no event to log"))?;
            let (topic, message) = argument.extract::<(String, Bound<'_, PyAny>)>()?;
            Query::LogEvent { topic, message: datum::from_python(&message)? }
        }
        _ => {
            let text = format!("the scheduler cannot be asked for {what:?} yet");
            return Err(pyo3::exceptions::PyNotImplementedError::new_err(text));
        }
    })
}

/// Asks and waits, without the interpreter.
pub fn ask(
    session: &Session,
    py: Python<'_>,
    query: Query,
    timeout: Option<f64>,
) -> PyResult<Datum> {
    session.check_open()?;
    let answers = session.inner().ask(query);
    let start = Instant::now();
    loop {
        match py.detach(|| answers.recv_timeout(LOOK_EVERY)) {
            Ok(answer) => return Ok(answer),
            Err(RecvTimeoutError::Disconnected) => {
                session.check_open()?;
                return Err(PyRuntimeError::new_err("the scheduler gave no answer"));
            }
            Err(RecvTimeoutError::Timeout) => py.check_signals()?,
        }
        if timeout.is_some_and(|s| start.elapsed().as_secs_f64() > s) {
            return Err(PyTimeoutError::new_err("the scheduler did not answer in time"));
        }
    }
}

pub fn query<'py>(
    session: &Session,
    py: Python<'py>,
    what: &str,
    argument: Option<&Bound<'py, PyAny>>,
    timeout: Option<f64>,
) -> PyResult<Bound<'py, PyAny>> {
    if what == "call_stack" {
        return call_stack(session, py, argument, timeout);
    }
    let answer = ask(session, py, to_query(what, argument)?, timeout)?;
    if what == "call" {
        return failed_call(session, py, &answer);
    }
    let answer = datum::to_python(py, &answer)?;
    let shapes = py.import("rasker.distributed._answers")?;
    shapes.call_method1("shape", (what, answer, argument, session.address()))
}

/// Reads a failed call here, with futures for its inputs.
struct Inputs<'a, 'py> {
    session: &'a Session,
    py: Python<'py>,
    keys: &'a [Datum],
}

impl<'py> compact::Context<'py> for Inputs<'_, 'py> {
    fn input(&mut self, at: usize) -> PyResult<Bound<'py, PyAny>> {
        let Some(Datum::Text(key)) = self.keys.get(at) else { return Err(compact::damaged()) };
        let key = key.into_pyobject(self.py)?.into_any();
        Ok(self.session.adopt(self.py, &key)?.into_bound(self.py))
    }
    fn object(&mut self, _: usize) -> PyResult<Bound<'py, PyAny>> {
        Err(compact::damaged())
    }
}

fn field<'a>(datum: &'a Datum, name: &str) -> Option<&'a Datum> {
    let Datum::Map(pairs) = datum else { return None };
    pairs.iter().find(|(n, _)| n == name).map(|(_, value)| value)
}

/// Function, arguments and keyword arguments of a failed call.
fn failed_call<'py>(
    session: &Session,
    py: Python<'py>,
    answer: &Datum,
) -> PyResult<Bound<'py, PyAny>> {
    let work = field(answer, "work");
    let (Some(Datum::Bytes(code)), Some(Datum::Bytes(args)), Some(Datum::List(keys))) = (
        field(answer, "code"),
        work.and_then(|work| field(work, "args")),
        work.and_then(|work| field(work, "inputs")),
    ) else {
        return Err(pyo3::exceptions::PyNotImplementedError::new_err(
            "only calls that were submitted one by one to executor processes can be run again here",
        ));
    };
    if args.first() == Some(&compact::CHAIN) {
        return Err(pyo3::exceptions::PyNotImplementedError::new_err(
            "this task is several calls that run as one; compute it with optimize_graph=False to \
             run the one that failed again here",
        ));
    }
    let mut inputs = Inputs { session, py, keys };
    let mut reader = compact::Reader::new(args);
    let args = reader.read(py, &mut inputs)?;
    let kwargs = reader.read(py, &mut inputs)?;
    Ok(PyTuple::new(py, [pickle::loads(py, code)?, args, kwargs])?.into_any())
}

fn call_stack<'py>(
    session: &Session,
    py: Python<'py>,
    argument: Option<&Bound<'py, PyAny>>,
    timeout: Option<f64>,
) -> PyResult<Bound<'py, PyAny>> {
    let stacks = py.import("rasker._run")?.getattr("stacks")?;
    let found =
        run(session, py, &stacks, &PyTuple::empty(py), &PyDict::new(py), None, true, timeout)?;
    let shapes = py.import("rasker.distributed._answers")?;
    shapes.call_method1("shape", ("call_stack", found, argument, session.address()))
}

/// Runs a function on workers out of band: address to `(ok, result or exception)`'s second part.
#[allow(clippy::too_many_arguments)]
pub fn run<'py>(
    session: &Session,
    py: Python<'py>,
    func: &Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
    kwargs: &Bound<'py, PyDict>,
    workers: Option<Vec<String>>,
    wait: bool,
    timeout: Option<f64>,
) -> PyResult<Bound<'py, PyDict>> {
    let call =
        PyTuple::new(py, [func.clone(), args.clone().into_any(), kwargs.clone().into_any()])?;
    let call = pickle::dumps(call.as_any())?.as_bytes().to_vec();
    let query = Query::Run { workers: workers.unwrap_or_default(), call: call.into() };
    let results = PyDict::new(py);
    if !wait {
        drop(session.inner().ask(query));
        return Ok(results);
    }
    let Datum::Map(answers) = ask(session, py, query, timeout)? else {
        return Err(compact::damaged());
    };
    for (address, answer) in answers {
        let Datum::Bytes(bytes) = answer else {
            results.set_item(address, py.None())?;
            continue;
        };
        let pair = pickle::loads(py, PyBytes::new(py, &bytes).as_bytes())?;
        results.set_item(address, pair.get_item(1)?)?;
    }
    Ok(results)
}

pub fn restart(session: &Session, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
    ask(session, py, Query::Restart, timeout).map(|_| ())
}
