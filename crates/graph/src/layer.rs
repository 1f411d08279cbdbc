//! Templates, layers, and what a layer's tasks are made of.

use crate::{Blob, Column, Key, LayerId, TaskId, TemplateId};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Where calls of a template run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TemplateKind {
    /// In executors, by Python.
    #[default]
    Python,
    /// On the compute threads of the worker core.
    Native,
}

impl TemplateKind {
    pub const ALL: [TemplateKind; 2] = [TemplateKind::Python, TemplateKind::Native];
}

/// What a task runs, named by the hash of its code; sent to a worker at most once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Template {
    pub id: TemplateId,
    pub kind: TemplateKind,
    /// The function's name: the prefix of its tasks' keys.
    pub name: Arc<str>,
    pub code: Blob,
}

/// How tasks are to be run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// Higher runs first.
    pub priority: i64,
    /// Runs again this often after an exception.
    pub retries: u8,
    /// Addresses or names; empty means any worker.
    pub workers: Vec<String>,
    /// Whether other workers may stand in when none of `workers` is there.
    pub allow_other_workers: bool,
    /// Units of each named resource that one task holds while it runs.
    pub resources: Vec<(String, f64)>,
}

impl Options {
    /// Whether amounts of resources are amounts: asked of options that came from elsewhere.
    pub fn is_sound(&self) -> bool {
        self.resources.iter().all(|(_, amount)| amount.is_finite() && *amount >= 0.0)
    }
}

/// A template and a count: the unit of submission.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    pub id: LayerId,
    pub count: u32,
    pub work: Work,
    pub options: Arc<Options>,
    /// Whether small results are to ride with the reports to the client.
    pub wants_values: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Work {
    /// One function over zipped inputs.
    Map(MapWork),
    /// Listed tasks: `submit`s and arbitrary graphs.
    Page(Box<Page>),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MapWork {
    pub template: TemplateId,
    /// The key of the layer; task `i` is `key.item(i)`, shown as `name-token-i`.
    pub key: Key,
    pub name: Arc<str>,
    pub inputs: Vec<Input>,
    /// Encoded keyword arguments, the same for every task.
    pub constants: Blob,
}

/// One zipped input of a map layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Input {
    Values(Column),
    /// Task `i` reads task `index + i` of a layer.
    Tasks(TaskId),
    /// Task `i` reads the i-th of these.
    TaskList(Arc<[TaskId]>),
}

/// Listed tasks, field by field. Task `i` owns `args[arg_ends[i-1]..arg_ends[i]]` and
/// `dependencies[dependency_ends[i-1]..dependency_ends[i]]`. Positions follow the static order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Page {
    /// Templates named by `template`.
    pub templates: Vec<TemplateId>,
    pub template: Vec<u32>,
    pub keys: Vec<Key>,
    /// Key texts that are not `function-hash`, by position, ascending.
    pub names: Vec<(u32, Arc<str>)>,
    /// Tasks' own options, by position, ascending.
    pub options: Vec<(u32, Arc<Options>)>,
    pub arg_ends: Vec<u32>,
    pub args: Vec<u8>,
    /// Arguments too large for `args`, or bound to this process, by position, ascending.
    pub blobs: Vec<(u32, Blob)>,
    pub dependency_ends: Vec<u32>,
    pub dependencies: Vec<TaskId>,
    /// Positions that nobody asked for by name; all others are wanted by the client.
    pub unwanted: Vec<u32>,
    /// Further templates that a task's fused steps need, by position, ascending.
    pub fused: Vec<(u32, TemplateId)>,
    /// Positions that are exchanges, ascending: nothing runs there, their dependencies are their
    /// writers in order, and only readers ask for them. Their template is `NO_TEMPLATE`.
    pub exchanges: Vec<u32>,
    /// Which parts of exchanges tasks read, by reader and place, ascending.
    pub readings: Vec<Reading>,
}

/// The template of an exchange.
pub const NO_TEMPLATE: u32 = u32::MAX;

/// Neighboring parts of each value that an exchange has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PartRange {
    pub start: u32,
    pub end: u32,
}

impl PartRange {
    pub fn one(part: u32) -> PartRange {
        PartRange { start: part, end: part.saturating_add(1) }
    }
}

/// A task reads these parts of the exchange that stands at `place` among its dependencies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Reading {
    pub reader: u32,
    pub place: u32,
    pub parts: PartRange,
}

impl Page {
    pub fn len(&self) -> usize {
        self.template.len()
    }
    pub fn is_empty(&self) -> bool {
        self.template.is_empty()
    }
    pub fn args_of(&self, index: u32) -> &[u8] {
        &self.args[span(&self.arg_ends, index)]
    }
    pub fn dependencies_of(&self, index: u32) -> &[TaskId] {
        &self.dependencies[span(&self.dependency_ends, index)]
    }
    pub fn template_of(&self, index: u32) -> TemplateId {
        self.templates[self.template[index as usize] as usize]
    }
    /// Whether the parts fit together: asked of a page that came from elsewhere.
    pub fn is_sound(&self) -> bool {
        let n = self.len();
        let ends_fit = |ends: &[u32], total: usize| {
            ends.len() == n
                && ends.is_sorted()
                && ends.last().map_or(0, |end| *end as usize) == total
        };
        let at_fits = |at: &u32| (*at as usize) < n;
        self.keys.len() == n
            && ends_fit(&self.arg_ends, self.args.len())
            && ends_fit(&self.dependency_ends, self.dependencies.len())
            && (0u32..).zip(&self.template).all(|(at, template)| {
                match self.exchanges.binary_search(&at) {
                    Ok(_) => *template == NO_TEMPLATE,
                    Err(_) => (*template as usize) < self.templates.len(),
                }
            })
            && self.exchanges.is_sorted_by(|a, b| a < b)
            && self.exchanges.iter().all(at_fits)
            && self.readings.is_sorted_by(|a, b| (a.reader, a.place) < (b.reader, b.place))
            && self.readings.iter().all(|reading| {
                at_fits(&reading.reader)
                    && reading.parts.start < reading.parts.end
                    && (reading.place as usize) < self.dependencies_of(reading.reader).len()
            })
            && self.names.iter().all(|(at, _)| at_fits(at))
            && self.options.iter().all(|(at, options)| at_fits(at) && options.is_sound())
            && self.blobs.iter().all(|(at, _)| at_fits(at))
            && self.unwanted.iter().all(at_fits)
            && self.fused.iter().all(|(at, _)| at_fits(at))
    }
}

fn span(ends: &[u32], index: u32) -> std::ops::Range<usize> {
    let i = index as usize;
    let start = if i == 0 { 0 } else { ends[i - 1] as usize };
    start..ends[i] as usize
}

impl Layer {
    /// Whether counts and offsets agree: asked of a layer that came from elsewhere.
    pub fn is_sound(&self) -> bool {
        // Nothing reads itself, or what comes after it.
        let is_elsewhere = |task: &TaskId| task.layer != self.id;
        let work_is_sound = match &self.work {
            Work::Page(page) => {
                let is_before =
                    |index: u32, task: &TaskId| is_elsewhere(task) || task.index < index;
                page.len() == self.count as usize
                    && page.is_sound()
                    && (0..self.count)
                        .all(|i| page.dependencies_of(i).iter().all(|task| is_before(i, task)))
            }
            Work::Map(map) => map.inputs.iter().all(|input| match input {
                Input::Values(column) => column.len() == self.count,
                Input::Tasks(first) => {
                    is_elsewhere(first) && first.index.checked_add(self.count).is_some()
                }
                Input::TaskList(tasks) => {
                    tasks.len() == self.count as usize && tasks.iter().all(is_elsewhere)
                }
            }),
        };
        work_is_sound && self.options.is_sound()
    }
}
