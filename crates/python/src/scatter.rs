//! Values of the user's process to workers.

use crate::handle::{Handle, KeyName};
use crate::pickle;
use crate::session::Session;
use crate::values::to_blob;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyList;
use rasker_graph::TaskId;
use rasker_protocol::{Scattered, Value, WorkerId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Workers that may take values, once there are some.
fn targets(
    session: &Session,
    py: Python<'_>,
    names: Option<&[String]>,
    timeout: Option<f64>,
) -> PyResult<Vec<WorkerId>> {
    let start = Instant::now();
    loop {
        session.check_open()?;
        let all = session.inner().workers();
        let named = |address: &str| {
            names.is_none_or(|names| names.iter().any(|n| address.contains(n.as_str())))
        };
        let found: Vec<WorkerId> =
            all.iter().filter(|(_, address)| named(address)).map(|(id, _)| *id).collect();
        if !found.is_empty() {
            return Ok(found);
        }
        if names.is_some() && !all.is_empty() {
            return Err(PyValueError::new_err("none of the named workers is there"));
        }
        if timeout.is_some_and(|s| start.elapsed().as_secs_f64() > s) {
            return Err(PyRuntimeError::new_err("no worker came to take the values"));
        }
        py.detach(|| std::thread::sleep(LOOK_EVERY));
        py.check_signals()?;
    }
}

pub fn scatter<'py>(
    session: &Session,
    py: Python<'py>,
    values: &Bound<'py, PyAny>,
    keys: &Bound<'py, PyAny>,
    workers: Option<Vec<String>>,
    broadcast: bool,
    timeout: Option<f64>,
) -> PyResult<Bound<'py, PyList>> {
    let workers = targets(session, py, workers.as_deref(), timeout)?;
    let futures = PyList::empty(py);
    let layer = session.inner().with(|machine, _| machine.scatter_layer());
    let mut scattered =
        Scattered { layer, keys: vec![], names: vec![], nbytes: vec![], holders: vec![] };
    let mut shares: BTreeMap<WorkerId, Vec<(TaskId, Value)>> = BTreeMap::new();
    let mut names = Vec::new();
    let mut slots = Vec::new();
    for pair in values.try_iter()?.zip(keys.try_iter()?) {
        let (value, key) = (pair.0?, pair.1?);
        let (hash, text) = Session::chosen_key(&key)?;
        if let Some(task) = session.inner().with(|machine, _| machine.find(hash)) {
            slots.push((Some(task), hash));
            names.push(key);
            continue;
        }
        let index = scattered.keys.len() as u32;
        let task = TaskId::new(layer, index);
        let value = if session.shares_objects() {
            let nbytes = pickle::sizeof(&value);
            Value::Object { object: to_blob(value), nbytes }
        } else {
            pickle::encode(&value, session.arena())?
        };
        let holders: Vec<WorkerId> =
            if broadcast { workers.clone() } else { vec![workers[index as usize % workers.len()]] };
        for holder in &holders {
            shares.entry(*holder).or_default().push((task, value.clone()));
        }
        scattered.keys.push(hash);
        scattered.names.push(text);
        scattered.nbytes.push(value.nbytes());
        scattered.holders.push(holders);
        slots.push((None, hash));
        names.push(key);
    }
    put(session, py, shares)?;
    if !scattered.keys.is_empty() {
        session.inner().with(|machine, out| machine.scattered(scattered, out));
    }
    let mut next = 0;
    for ((found, hash), key) in slots.into_iter().zip(names) {
        let task = found.unwrap_or_else(|| {
            next += 1;
            TaskId::new(layer, next - 1)
        });
        let name = KeyName::Chosen(Arc::new(key.unbind()));
        futures.append(Handle::new(session.clone(), task, hash, name).into_future(py)?)?;
    }
    Ok(futures)
}

/// Brings encoded values to workers, each to several of them, one after the other.
pub fn bring(
    session: &Session,
    py: Python<'_>,
    values: Vec<Value>,
    n_copies: usize,
) -> PyResult<Vec<Handle>> {
    let workers = targets(session, py, None, None)?;
    let layer = session.inner().with(|machine, _| machine.scatter_layer());
    let mut scattered =
        Scattered { layer, keys: vec![], names: vec![], nbytes: vec![], holders: vec![] };
    let mut shares: BTreeMap<WorkerId, Vec<(TaskId, Value)>> = BTreeMap::new();
    for (index, value) in values.into_iter().enumerate() {
        let copies = 0..n_copies.min(workers.len());
        let holders: Vec<WorkerId> =
            copies.map(|copy| workers[(index + copy) % workers.len()]).collect();
        for holder in &holders {
            let share = shares.entry(*holder).or_default();
            share.push((TaskId::new(layer, index as u32), value.clone()));
        }
        scattered.keys.push(session.new_key());
        scattered.names.push("table".into());
        scattered.nbytes.push(value.nbytes());
        scattered.holders.push(holders);
    }
    put(session, py, shares)?;
    let keys = scattered.keys.clone();
    if !keys.is_empty() {
        session.inner().with(|machine, out| machine.scattered(scattered, out));
    }
    let handle = |(index, key)| {
        let task = TaskId::new(layer, index as u32);
        Handle::new(session.clone(), task, key, KeyName::Call("table".into()))
    };
    Ok(keys.into_iter().enumerate().map(handle).collect())
}

/// Stores each worker's share and waits until all have theirs.
fn put(
    session: &Session,
    py: Python<'_>,
    shares: BTreeMap<WorkerId, Vec<(TaskId, Value)>>,
) -> PyResult<()> {
    let (n, answers) = session.inner().put(shares.into_iter().collect());
    for _ in 0..n {
        loop {
            match py.detach(|| answers.recv_timeout(LOOK_EVERY)) {
                Ok((_, true)) => break,
                Ok((worker, false)) => {
                    let text =
                        format!("worker {} went away while it got values; scatter again", worker.0);
                    return Err(PyRuntimeError::new_err(text));
                }
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => py.check_signals()?,
                Err(_) => return Err(PyRuntimeError::new_err("the client was closed")),
            }
        }
    }
    Ok(())
}
