//! Arbitrary graphs: encoded, culled and ordered here, then entered as one page.

use crate::chain::{self, Step};
use crate::encode::{Encoder, Input};
use crate::handle::{Handle, KeyName};
use crate::session::{Options, Session};
use pyo3::exceptions::{PyKeyError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};
use rasker_client::NewTask;
use rasker_graph::{self as graph, Adjacency, Blob, Cycle, Key, TaskId, TemplateId, cull, order};
use smallvec::SmallVec;
use std::sync::Arc;

/// One call of a graph, encoded.
struct Call {
    key: Key,
    name: Option<Arc<str>>,
    template: TemplateId,
    args: Vec<u8>,
    blob: Option<Blob>,
    inputs: SmallVec<[Input; 4]>,
    options: Option<Arc<graph::Options>>,
}

/// Enters a graph and returns futures of its outputs.
pub fn submit<'py>(
    session: &Session,
    py: Python<'py>,
    tasks: &Bound<'py, PyAny>,
    outputs: &Bound<'py, PyAny>,
    options: Option<&Bound<'py, Options>>,
    annotations: Option<&Bound<'py, PyDict>>,
    fuse: bool,
) -> PyResult<Bound<'py, PyList>> {
    let tasks = tasks.try_iter()?.collect::<PyResult<Vec<_>>>()?;
    let places = PyDict::new(py);
    let mut keys = Vec::with_capacity(tasks.len());
    for (place, task) in tasks.iter().enumerate() {
        let key = task.cast::<PyTuple>()?.get_item(0)?;
        places.set_item(&key, place)?;
        keys.push(key);
    }
    let mut calls = Vec::with_capacity(tasks.len());
    let mut adjacency = Adjacency::default();
    let common = Options::own(options.map(|options| options.get()));
    let mut encoder = Encoder::new(session.inner().id(), session.shares_objects(), Some(&places));
    for (task, key) in tasks.iter().zip(&keys) {
        let own = match annotations {
            Some(annotations) => annotations.get_item(key)?,
            None => None,
        };
        let own = own.map(|own| own.cast_into::<Options>()).transpose()?;
        let options = own.and_then(|own| Options::own(Some(own.get()))).or_else(|| common.clone());
        let call = encode(session, py, task.cast::<PyTuple>()?, &mut encoder, options)?;
        adjacency.push(call.inputs.iter().filter_map(|input| match input {
            Input::Place(place) => Some(*place),
            Input::Task(..) => None,
        }));
        calls.push(call);
    }
    let mut wanted = Vec::new();
    for output in outputs.try_iter()? {
        let output = output?;
        let place = places.get_item(&output)?.ok_or_else(|| {
            PyKeyError::new_err(format!("the graph has no task with key {output}"))
        })?;
        wanted.push((place.extract::<u32>()?, output));
    }
    let steps = if fuse { chains(&calls, &wanted) } else { Vec::new() };
    let ids = enter(session, &mut calls, &adjacency, &wanted, &keys, &steps)?;
    let futures = PyList::empty(py);
    for (place, output) in wanted {
        let key = calls[place as usize].key;
        let name = KeyName::Chosen(Arc::new(output.unbind()));
        let task = ids[place as usize].expect("an output is needed");
        futures.append(Handle::new(session.clone(), task, key, name).into_future(py)?)?;
    }
    session.inner().touched();
    Ok(futures)
}

fn encode<'py>(
    session: &Session,
    py: Python<'py>,
    task: &Bound<'py, PyTuple>,
    encoder: &mut Encoder<'_, 'py>,
    options: Option<Arc<graph::Options>>,
) -> PyResult<Call> {
    let (template, function_name) = session.template(&task.get_item(1)?)?;
    let args = task.get_item(2)?.cast_into::<PyTuple>()?;
    let kwargs = task.get_item(3)?;
    let kwargs = if kwargs.is_none() { None } else { Some(kwargs.cast_into::<PyDict>()?) };
    encoder.clear();
    encoder.call(&args, kwargs.as_ref())?;
    let (key, text) = Session::chosen_key(&task.get_item(0)?)?;
    let is_plain = text.len() == function_name.len() + 33 && text.starts_with(&*function_name);
    let (args, blob) = encoder.finish(py)?;
    Ok(Call {
        key,
        name: (!is_plain).then_some(text),
        template,
        args: args.to_vec(),
        blob,
        inputs: encoder.inputs.clone(),
        options,
    })
}

/// For each call, the one it is fused with: the only one that it reads, if nobody else reads that.
fn chains(calls: &[Call], wanted: &[(u32, Bound<'_, PyAny>)]) -> Vec<Option<u32>> {
    let mut n_readers = vec![0u32; calls.len()];
    for input in calls.iter().flat_map(|call| &call.inputs) {
        if let Input::Place(place) = input {
            n_readers[*place as usize] += 1;
        }
    }
    for (place, _) in wanted {
        n_readers[*place as usize] += 1;
    }
    // Arguments that stand beside their page are large, or bound to this process.
    let is_alike = |a: &Call, b: &Call| {
        let same = match (&a.options, &b.options) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        same && a.blob.is_none() && b.blob.is_none()
    };
    let before = |call: &Call| match call.inputs[..] {
        [Input::Place(place)] => {
            let input = &calls[place as usize];
            (n_readers[place as usize] == 1 && is_alike(call, input)).then_some(place)
        }
        _ => None,
    };
    calls.iter().map(before).collect()
}

/// Puts the calls that end with the one at `place` in its stead; the templates of those before it.
fn fuse_into(calls: &mut [Call], steps: &[Option<u32>], place: u32) -> Vec<TemplateId> {
    let mut chain = vec![place];
    while let Some(Some(before)) = steps.get(chain[chain.len() - 1] as usize) {
        chain.push(*before);
    }
    if chain.len() == 1 {
        return Vec::new();
    }
    chain.reverse();
    let step = |place: &u32| {
        let call = &calls[*place as usize];
        Step { template: call.template, args: &call.args }
    };
    let args = chain::write(chain.iter().map(step));
    let inputs = calls[chain[0] as usize].inputs.clone();
    let templates = chain[..chain.len() - 1].iter().map(|at| calls[*at as usize].template);
    let templates = templates.collect();
    let call = &mut calls[place as usize];
    (call.args, call.inputs) = (args, inputs);
    templates
}

/// Enters what the outputs need, in static order; the tasks by place.
fn enter(
    session: &Session,
    calls: &mut [Call],
    adjacency: &Adjacency,
    wanted: &[(u32, Bound<'_, PyAny>)],
    keys: &[Bound<'_, PyAny>],
    steps: &[Option<u32>],
) -> PyResult<Vec<Option<TaskId>>> {
    let mut outputs: Vec<u32> = wanted.iter().map(|(place, _)| *place).collect();
    let needed = cull(adjacency, &outputs);
    let order = order(adjacency, &outputs).map_err(|Cycle(ring)| {
        let names = ring.iter().map(|place| keys[*place as usize].to_string());
        let names: Vec<String> = names.collect();
        let first = names.first().cloned().unwrap_or_default();
        PyValueError::new_err(format!(
            "the graph has a cycle: {} -> {first}; a task cannot need its own result",
            names.join(" -> ")
        ))
    })?;
    outputs.sort_unstable();
    let mut is_fused = vec![false; calls.len()];
    for before in steps.iter().flatten() {
        is_fused[*before as usize] = true;
    }
    let mut ids: Vec<Option<TaskId>> = vec![None; calls.len()];
    session.inner().with(|machine, _| {
        for place in order {
            if !needed[place as usize] || is_fused[place as usize] {
                continue;
            }
            let fused = fuse_into(calls, steps, place);
            let call = &mut calls[place as usize];
            let dependencies = call.inputs.iter().map(|input| match input {
                Input::Task(task, _) => *task,
                Input::Place(place) => ids[*place as usize].expect("inputs are entered first"),
            });
            let dependencies: SmallVec<[TaskId; 4]> = dependencies.collect();
            let new = NewTask {
                key: call.key,
                name: call.name.take(),
                template: call.template,
                args: &call.args,
                blob: call.blob.take(),
                dependencies: &dependencies,
                options: call.options.take(),
                fused: &fused,
            };
            let is_output = outputs.binary_search(&place).is_ok();
            let id = if is_output { machine.submit(new) } else { machine.submit_inner(new) };
            ids[place as usize] = Some(id);
        }
        // A key that is asked for twice is held twice.
        let mut seen = vec![false; ids.len()];
        for (place, _) in wanted {
            if std::mem::replace(&mut seen[*place as usize], true) {
                machine.hold(ids[*place as usize].expect("entered"));
            }
        }
    });
    Ok(ids)
}
