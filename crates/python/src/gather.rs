//! Waiting for tasks and bringing their values together.

use crate::handle::{Handle, Handles};
use crate::session::{Session, timed_out};
use crate::values::{self, to_object};
use crate::{failure, task};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyList;
use rasker_client::{Ending, WaitId};
use rasker_graph::{Run, TaskId};
use rasker_protocol::{FailureKind, Value, WorkerId};
use rasker_runtime::Waiter;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Waits look for signals this often.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A value that could not be had is asked for again after this long.
const ASK_AGAIN: Duration = Duration::from_millis(10);

impl Session {
    /// Waits without the interpreter; another call may run meanwhile if this is inside a task.
    pub fn wait_for(
        &self,
        py: Python<'_>,
        runs: &[Run],
        count: u32,
        timeout: Option<f64>,
    ) -> PyResult<bool> {
        let deadline = timeout.map(|s| Instant::now() + Duration::from_secs_f64(s.clamp(0.0, 1e9)));
        let Some(waiting) = self.inner().waiter(runs, count) else { return Ok(true) };
        let in_task = task::is_in_task();
        if in_task {
            task::give_up_thread();
        }
        let result = self.wait_until(py, runs, count, waiting, deadline);
        if in_task {
            task::take_thread();
        }
        result
    }

    fn wait_until(
        &self,
        py: Python<'_>,
        runs: &[Run],
        count: u32,
        mut waiting: (WaitId, Arc<Waiter>),
        deadline: Option<Instant>,
    ) -> PyResult<bool> {
        loop {
            let look = Instant::now() + LOOK_EVERY;
            let until = deadline.map_or(look, |deadline| deadline.min(look));
            if py.detach(|| waiting.1.wait(Some(until))) {
                if self.inner().ended().is_some() {
                    return Ok(true);
                }
                // What had ended may be pending again: a worker was lost with it.
                match self.inner().waiter(runs, count) {
                    Some(again) => waiting = again,
                    None => return Ok(true),
                }
            }
            let signal = py.check_signals();
            if signal.is_err() || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                self.inner().cancel_wait(waiting.0);
                return signal.map(|()| false);
            }
        }
    }

    pub fn value_of(
        &self,
        py: Python<'_>,
        task: TaskId,
        timeout: Option<f64>,
    ) -> PyResult<Py<PyAny>> {
        let start = Instant::now();
        loop {
            let left = timeout.map(|s| s - start.elapsed().as_secs_f64());
            if !self.wait_for(py, &[task.run()], 1, left)? {
                return Err(timed_out(py, "the task", timeout));
            }
            match self.inner().ending(task) {
                Some(Ending::Failed(reason)) => return Err(failure::raise(py, &reason)),
                Some(Ending::Finished { value: Some(value), .. }) => {
                    return Ok(to_object(py, &value)?.unbind());
                }
                Some(Ending::Finished { holder, held_as, .. }) => {
                    let got = self.fetch(py, vec![(holder, held_as)])?;
                    match got.into_iter().next() {
                        Some((_, Ok(Some(value)))) => return Ok(to_object(py, &value)?.unbind()),
                        Some((_, Err(reason))) => return Err(failure::raise(py, &reason)),
                        _ => self.pause(py, start, timeout)?,
                    }
                }
                None if !self.inner().with(|machine, _| machine.knows(task)) => {
                    let failure = rasker_protocol::Failure::new(
                        FailureKind::Cancelled,
                        "",
                        "it was released",
                    );
                    return Err(failure::raise(py, &failure));
                }
                None => {}
            }
        }
    }

    /// The value moved or was lost while it was asked for: the scheduler will say where it is.
    fn pause(&self, py: Python<'_>, start: Instant, timeout: Option<f64>) -> PyResult<()> {
        if timeout.is_some_and(|s| start.elapsed().as_secs_f64() >= s) {
            return Err(timed_out(py, "the task", timeout));
        }
        self.check_open()?;
        py.detach(|| std::thread::sleep(ASK_AGAIN));
        py.check_signals()
    }

    fn fetch(
        &self,
        py: Python<'_>,
        wanted: Vec<(WorkerId, TaskId)>,
    ) -> PyResult<rasker_runtime::Got> {
        let (n, answers) = self.inner().fetch(wanted);
        let mut all = Vec::new();
        for _ in 0..n {
            loop {
                let answer = py.detach(|| answers.recv_timeout(LOOK_EVERY));
                match answer {
                    Ok(got) => {
                        all.extend(got);
                        break;
                    }
                    Err(std::sync::mpsc::RecvTimeoutError::Timeout) => py.check_signals()?,
                    Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
                }
            }
        }
        Ok(all)
    }

    /// Values of runs in order; those of failed tasks are left out or raised.
    pub fn gather<'py>(
        &self,
        py: Python<'py>,
        runs: &[Run],
        skip_errors: bool,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyList>> {
        let n: u32 = runs.iter().map(|run| run.count).sum();
        let start = Instant::now();
        let mut results: Vec<Option<Bound<'py, PyAny>>> = Vec::with_capacity(n as usize);
        loop {
            let left = timeout.map(|s| s - start.elapsed().as_secs_f64());
            if !self.wait_for(py, runs, n, left)? {
                return Err(timed_out(py, &format!("a gather of {n} tasks"), timeout));
            }
            results.clear();
            let mut away = Vec::new();
            let mut skipped = Vec::new();
            if self.collect(py, runs, skip_errors, &mut results, &mut away, &mut skipped)?
                && self.bring(py, &mut results, away)?
            {
                for at in skipped.into_iter().rev() {
                    results.remove(at);
                }
                let values = results.into_iter().map(|value| value.expect("all are here"));
                return PyList::new(py, values.collect::<Vec<_>>());
            }
            self.pause(py, start, timeout)?;
        }
    }

    /// Takes what is here; false if something is pending again. `away` gets what is elsewhere.
    fn collect<'py>(
        &self,
        py: Python<'py>,
        runs: &[Run],
        skip_errors: bool,
        results: &mut Vec<Option<Bound<'py, PyAny>>>,
        away: &mut Vec<(usize, WorkerId, TaskId)>,
        skipped: &mut Vec<usize>,
    ) -> PyResult<bool> {
        for run in runs {
            let mut at = run.start;
            while at < run.end() {
                let task = TaskId::new(run.layer, at);
                let Some((n, ending)) = self.inner().with(|machine, _| machine.stretch(task))
                else {
                    if self.inner().with(|machine, _| machine.knows(task)) {
                        return Ok(false);
                    }
                    return Err(PyRuntimeError::new_err("a future in the list was released"));
                };
                let n = n.min(run.end() - at);
                match ending {
                    Ending::Failed(reason) => {
                        if !skip_errors {
                            return Err(failure::raise(py, &reason));
                        }
                        for _ in 0..n {
                            skipped.push(results.len());
                            results.push(Some(py.None().into_bound(py)));
                        }
                    }
                    Ending::Finished { value: Some(Value::Column(column)), .. } => {
                        for i in 0..n {
                            results.push(Some(values::item(py, &column, i)?));
                        }
                    }
                    Ending::Finished { value: Some(value), .. } => {
                        results.push(Some(to_object(py, &value)?));
                        at += 1;
                        continue;
                    }
                    Ending::Finished { holder, held_as, value: None, .. } => {
                        for i in 0..n {
                            let task = TaskId::new(held_as.layer, held_as.index + i);
                            away.push((results.len(), holder, task));
                            results.push(None);
                        }
                    }
                }
                at += n;
            }
        }
        Ok(true)
    }

    /// Brings values that are elsewhere; false if one could not be had.
    fn bring<'py>(
        &self,
        py: Python<'py>,
        results: &mut [Option<Bound<'py, PyAny>>],
        away: Vec<(usize, WorkerId, TaskId)>,
    ) -> PyResult<bool> {
        if away.is_empty() {
            return Ok(true);
        }
        let wanted = away.iter().map(|(_, worker, task)| (*worker, *task)).collect();
        let mut found: HashMap<TaskId, Bound<'py, PyAny>> = HashMap::new();
        for (task, value) in self.fetch(py, wanted)? {
            match value {
                Ok(Some(value)) => {
                    found.insert(task, to_object(py, &value)?);
                }
                Ok(None) => return Ok(false),
                Err(reason) => return Err(failure::raise(py, &reason)),
            }
        }
        for (at, _, task) in away {
            match found.get(&task) {
                Some(value) => results[at] = Some(value.clone()),
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}

/// Runs of handles, in order.
pub fn runs_of(handles: &Bound<'_, PyAny>) -> PyResult<Vec<Run>> {
    if let Ok(items) = handles.getattr("_items")
        && !items.is_none()
    {
        return runs_of(&items);
    }
    if let Ok(handles) = handles.cast::<Handles>() {
        return Ok(vec![handles.get().run()]);
    }
    let mut runs = Vec::new();
    for item in handles.try_iter()? {
        let item = item?;
        match item.cast::<Handle>() {
            Ok(handle) => Run::push(&mut runs, handle.get().task),
            Err(_) => runs.extend(runs_of(&item)?),
        }
    }
    Ok(runs)
}
