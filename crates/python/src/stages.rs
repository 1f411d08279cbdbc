//! Queries as tasks: what stands for each stage, and how its tasks are entered.

use crate::compact;
use crate::functions::{Pickles, local_template};
use crate::session::Session;
use crate::tables::Tables;
use pyo3::prelude::*;
use rasker_client::NewTask;
use rasker_engine::{Fragment, Reads, Stage};
use rasker_graph::{Key, PartRange, Run, TaskId, Template, TemplateId, TemplateKind};

/// What stands for a stage.
enum Work {
    Runs(Template),
    /// Values that workers hold already.
    Holds(Vec<TaskId>),
}

/// The tasks of a query.
pub struct Entered {
    /// Those of the last stage, which make its rows.
    pub last: Vec<(TaskId, Key)>,
    /// Those of all stages.
    pub all: Vec<Run>,
}

/// Enters the tasks of all stages; those of the last one are wanted.
///
/// A stage comes with its fragment, unless it is a table in memory.
pub fn enter(
    py: Python<'_>,
    session: &Session,
    stages: Vec<(Option<Fragment>, Stage)>,
    tables: &Tables,
) -> PyResult<Entered> {
    let mut pickles = Pickles::default();
    let work = stages.into_iter().map(|(fragment, stage)| {
        let work = match (&stage.given, fragment) {
            (Some(given), _) => Work::Holds(tables.brought(py, session, given)?),
            (None, Some(fragment)) => Work::Runs(template(py, session, &fragment, &mut pickles)?),
            (None, None) => Work::Holds(Vec::new()),
        };
        Ok((work, stage))
    });
    let work = work.collect::<PyResult<Vec<_>>>()?;
    Ok(enter_work(session, &work))
}

/// What the tasks of a stage run: in executors where it calls functions of Python.
fn template(
    py: Python<'_>,
    session: &Session,
    fragment: &Fragment,
    pickles: &mut Pickles,
) -> PyResult<Template> {
    if !fragment.functions.is_empty() {
        return match session.shares_objects() {
            true => local_template(py, fragment),
            false => pickles.template(py, fragment),
        };
    }
    let code = fragment.to_bytes();
    let hash = blake3::hash(&code);
    let id = u128::from_le_bytes(hash.as_bytes()[..16].try_into().expect("sixteen"));
    let (id, kind, name) = (TemplateId(id), TemplateKind::Native, "sql".into());
    Ok(Template { id, kind, name, code: code.into() })
}

/// The arguments of a partition's task: its number, and in an executor what it reads.
fn arguments(kind: TemplateKind, partition: u32, n_inputs: usize) -> Vec<u8> {
    match kind {
        TemplateKind::Native => partition.to_le_bytes().to_vec(),
        TemplateKind::Python => {
            let mut args = Vec::new();
            compact::put_tuple(&mut args, 1 + n_inputs as u64);
            compact::put_int(&mut args, i64::from(partition));
            (0..n_inputs).for_each(|place| compact::put_input(&mut args, place as u64));
            args.push(compact::NONE);
            args
        }
    }
}

fn enter_work(session: &Session, work: &[(Work, Stage)]) -> Entered {
    session.inner().with(|machine, _| {
        let mut outputs: Vec<Output> = Vec::new();
        for (at, (what, stage)) in work.iter().enumerate() {
            let template = match what {
                Work::Runs(template) => template,
                Work::Holds(values) => {
                    let exchange = Some(machine.exchange(session.new_key(), values));
                    outputs.push(Output { tasks: Vec::new(), exchange });
                    continue;
                }
            };
            machine.add_template(template.clone());
            let is_last = at + 1 == work.len();
            let dependencies: Vec<TaskId> =
                stage.inputs.iter().filter_map(|(from, _)| outputs[*from].exchange).collect();
            let mut tasks = Vec::with_capacity(stage.n_tasks as usize);
            for partition in 0..stage.n_tasks {
                let part = |(place, (from, reads)): (usize, &(usize, Reads))| {
                    let part = reads.part_of(partition, work[*from].1.n_parts);
                    (place as u32, PartRange::one(part))
                };
                let reads: Vec<_> = stage.inputs.iter().enumerate().map(part).collect();
                let key = session.new_key();
                let args = arguments(template.kind, partition, dependencies.len());
                let new = NewTask {
                    key,
                    name: None,
                    template: template.id,
                    args: &args,
                    blob: None,
                    dependencies: &dependencies,
                    options: None,
                    fused: &[],
                };
                tasks.push((machine.submit_reader(new, &reads, is_last), key));
            }
            let writers: Vec<TaskId> = tasks.iter().map(|(task, _)| *task).collect();
            let exchange = (!is_last).then(|| machine.exchange(session.new_key(), &writers));
            outputs.push(Output { tasks, exchange });
        }
        let mut all = Vec::new();
        for (task, _) in outputs.iter().flat_map(|output| &output.tasks) {
            Run::push(&mut all, *task);
        }
        Entered { last: outputs.pop().map(|last| last.tasks).unwrap_or_default(), all }
    })
}

/// What a stage was entered as.
struct Output {
    tasks: Vec<(TaskId, Key)>,
    /// What later stages read it through; none of the last one.
    exchange: Option<TaskId>,
}
