//! Runs of calls, as the scheduler hands them to a worker.

use crate::WorkerId;
use rasker_graph::{Blob, Input, Key, PartRange, Run, TaskId, TemplateId};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use std::sync::Arc;

/// Which of two ready tasks runs first: the smaller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Priority {
    /// The user's priority, negated.
    pub user: i64,
    /// Whether running it lets none of its inputs go: those that let one go run first, so that
    /// what is begun is ended before more is begun.
    pub keeps: bool,
    /// When its layer was submitted.
    pub submission: u64,
}

/// How the tasks of a run are called by their users.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Label {
    /// The function's name.
    pub name: Arc<str>,
    pub key: Key,
    /// Whether `key` is that of a whole layer, and tasks are told apart by their position.
    pub layer: bool,
    /// The key that the user chose.
    pub text: Option<Arc<str>>,
}

impl Label {
    /// The key of the task at `index`, as text.
    pub fn of(&self, index: u32) -> String {
        match (&self.text, self.layer) {
            (Some(text), false) => text.to_string(),
            (Some(text), true) => format!("{text}-{index}"),
            (None, false) => format!("{}-{:032x}", self.name, self.key.0),
            (None, true) => format!("{}-{:032x}-{index}", self.name, self.key.0),
        }
    }
}

/// Where inputs can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    pub run: Run,
    pub worker: WorkerId,
    pub nbytes: u64,
}

impl Source {
    /// Adds one after the last of `sources`, as one with it where it goes on from there.
    pub fn join(sources: &mut Vec<Source>, next: Source) {
        match sources.last_mut() {
            Some(last)
                if last.worker == next.worker
                    && last.run.layer == next.run.layer
                    && last.run.end() == next.run.start =>
            {
                last.run.count += next.run.count;
                last.nbytes += next.nbytes;
            }
            _ => sources.push(next),
        }
    }
}

/// Contiguous tasks of one template, all at the same attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calls {
    pub run: Run,
    pub attempt: u32,
    pub priority: Priority,
    pub template: TemplateId,
    /// Templates of fused steps.
    pub fused: SmallVec<[TemplateId; 1]>,
    pub label: Label,
    pub work: CallWork,
    /// Holders of inputs that are not on this worker.
    pub sources: SmallVec<[Source; 2]>,
    /// An executor died under it before: it runs in an executor where nothing else does.
    pub alone: bool,
    /// Dependencies that are exchanges, by their place, and the parts that are read of each.
    pub reads: SmallVec<[(u32, PartRange); 1]>,
}

/// An exchange whose writers are all in memory: who has what each of them wrote, in their order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenExchange {
    pub exchange: TaskId,
    pub writers: Arc<[Source]>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum CallWork {
    /// Inputs are cut to the run.
    Map { inputs: Vec<Input>, constants: Blob },
    /// A single task.
    One { args: Blob, dependencies: SmallVec<[TaskId; 2]> },
}

impl Calls {
    /// Cuts off the first `count` tasks.
    pub fn split_front(&mut self, count: u32) -> Calls {
        assert!(0 < count && count < self.run.count, "a cut inside the run");
        let mut front = self.clone();
        front.run.count = count;
        front.narrow(0, count);
        let rest = self.run.count - count;
        self.run.start += count;
        self.run.count = rest;
        self.narrow(count, rest);
        front
    }

    fn narrow(&mut self, start: u32, count: u32) {
        if let CallWork::Map { inputs, .. } = &mut self.work {
            for input in inputs {
                *input = slice_input(input, start, count);
            }
        }
    }

    /// The exchanges that are read, and which parts of each.
    pub fn exchanges(&self) -> SmallVec<[(TaskId, PartRange); 1]> {
        let CallWork::One { dependencies, .. } = &self.work else { return SmallVec::new() };
        let read = self.reads.iter();
        read.filter_map(|(place, parts)| Some((*dependencies.get(*place as usize)?, *parts)))
            .collect()
    }

    /// The tasks whose whole values the task at `index` reads.
    pub fn dependencies(&self, index: u32) -> SmallVec<[TaskId; 2]> {
        let mut tasks = SmallVec::new();
        self.each_dependency(index, |task| tasks.push(task));
        tasks
    }

    /// Visits them in order.
    pub fn each_dependency(&self, index: u32, mut visit: impl FnMut(TaskId)) {
        let at = index - self.run.start;
        match &self.work {
            CallWork::One { dependencies, .. } => {
                for (place, task) in (0..).zip(dependencies) {
                    if self.reads.iter().all(|(other, _)| *other != place) {
                        visit(*task);
                    }
                }
            }
            CallWork::Map { inputs, .. } => {
                for input in inputs {
                    match input {
                        Input::Values(_) => {}
                        Input::Tasks(first) => {
                            visit(TaskId::new(first.layer, first.index + at));
                        }
                        Input::TaskList(tasks) => visit(tasks[at as usize]),
                    }
                }
            }
        }
    }

    pub fn has_dependencies(&self) -> bool {
        match &self.work {
            CallWork::One { dependencies, .. } => !dependencies.is_empty(),
            CallWork::Map { inputs, .. } => {
                inputs.iter().any(|input| !matches!(input, Input::Values(_)))
            }
        }
    }
}

/// Positions `start..start + count` of an input.
pub(crate) fn slice_input(input: &Input, start: u32, count: u32) -> Input {
    match input {
        Input::Values(column) => Input::Values(column.slice(start, count)),
        Input::Tasks(first) => Input::Tasks(TaskId::new(first.layer, first.index + start)),
        Input::TaskList(tasks) => {
            Input::TaskList(tasks[start as usize..(start + count) as usize].into())
        }
    }
}
