//! What this worker holds: stretches of small values, single values, live values of executors.

use crate::Map;
use rasker_graph::{LayerId, Run, TaskId};
use rasker_protocol::{ExecutorId, Value};
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
pub(crate) enum Form {
    Value(Value),
    /// An object in the heap of an executor.
    Live {
        executor: ExecutorId,
        nbytes: u64,
    },
}

#[derive(Debug)]
struct Stretch {
    count: u32,
    form: Form,
}

/// Values by task, in stretches.
#[derive(Default, Debug)]
pub(crate) struct Held {
    layers: Map<LayerId, BTreeMap<u32, Stretch>>,
    pub nbytes: u64,
}

impl Held {
    /// Takes values in; those that are held already stay as they are.
    pub fn insert(&mut self, run: Run, form: Form) {
        if run.count == 1 && self.get(TaskId::new(run.layer, run.start)).is_some() {
            return;
        }
        let nbytes = match &form {
            Form::Value(value) => value.nbytes(),
            Form::Live { nbytes, .. } => *nbytes,
        };
        // Sizes are claims of whoever made the values.
        self.nbytes = self.nbytes.saturating_add(nbytes);
        let layer = self.layers.entry(run.layer).or_default();
        layer.insert(run.start, Stretch { count: run.count, form });
    }

    pub fn get(&self, task: TaskId) -> Option<Form> {
        let (start, stretch) = self.layers.get(&task.layer)?.range(..=task.index).next_back()?;
        let at = task.index - start;
        if at >= stretch.count {
            return None;
        }
        Some(match &stretch.form {
            Form::Value(value) => Form::Value(value.slice(at, 1)),
            live => live.clone(),
        })
    }

    pub fn contains(&self, task: TaskId) -> bool {
        self.layers.get(&task.layer).is_some_and(|layer| {
            let found = layer.range(..=task.index).next_back();
            found.is_some_and(|(start, stretch)| task.index - start < stretch.count)
        })
    }

    /// Bytes of a live value took its place.
    pub fn replace(&mut self, task: TaskId, value: Value) {
        let layer = self.layers.get_mut(&task.layer);
        if let Some(stretch) = layer.and_then(|layer| layer.get_mut(&task.index))
            && let Form::Live { nbytes, .. } = stretch.form
        {
            self.nbytes = self.nbytes.saturating_sub(nbytes).saturating_add(value.nbytes());
            stretch.form = Form::Value(value);
        }
    }

    /// Lets values go. Returns those that were live, by executor.
    pub fn remove(&mut self, run: Run) -> Vec<(ExecutorId, TaskId)> {
        let mut live = Vec::new();
        let Some(layer) = self.layers.get_mut(&run.layer) else { return live };
        let from = layer.range(..=run.start).next_back().map_or(run.start, |(start, _)| *start);
        let starts: Vec<u32> = layer.range(from..run.end()).map(|(start, _)| *start).collect();
        for start in starts {
            let stretch = layer.remove(&start).expect("just listed");
            let whole = Run::new(run.layer, start, stretch.count);
            let Some(gone) = whole.intersect(run) else {
                layer.insert(start, stretch);
                continue;
            };
            let total = match &stretch.form {
                Form::Value(value) => value.nbytes(),
                Form::Live { executor, nbytes } => {
                    live.push((*executor, TaskId::new(run.layer, start)));
                    *nbytes
                }
            };
            let mut kept = 0;
            for (first, end) in [(start, gone.start), (gone.end(), whole.end())] {
                if first < end {
                    let Form::Value(value) = &stretch.form else { continue };
                    let value = value.slice(first - start, end - first);
                    kept += value.nbytes();
                    let stretch = Stretch { count: end - first, form: Form::Value(value) };
                    layer.insert(first, stretch);
                }
            }
            self.nbytes = self.nbytes.saturating_sub(total.saturating_sub(kept));
        }
        if layer.is_empty() {
            self.layers.remove(&run.layer);
        }
        live
    }

    /// All live values of an executor that is gone.
    pub fn remove_executor(&mut self, executor: ExecutorId) -> Vec<Run> {
        let mut runs = Vec::new();
        let mut layers: Vec<LayerId> = self.layers.keys().copied().collect();
        layers.sort_unstable();
        for id in layers {
            let layer = self.layers.get_mut(&id).expect("just listed");
            layer.retain(|start, stretch| {
                let gone =
                    matches!(&stretch.form, Form::Live { executor: e, .. } if *e == executor);
                if gone {
                    if let Form::Live { nbytes, .. } = stretch.form {
                        self.nbytes = self.nbytes.saturating_sub(nbytes);
                    }
                    Run::push(&mut runs, TaskId::new(id, *start));
                }
                !gone
            });
        }
        self.layers.retain(|_, layer| !layer.is_empty());
        runs
    }

    pub fn tasks(&self) -> impl Iterator<Item = TaskId> {
        self.layers.iter().flat_map(|(layer, stretches)| {
            let runs = stretches.iter().map(|(start, s)| Run::new(*layer, *start, s.count));
            runs.flat_map(Run::tasks)
        })
    }

    pub fn clear(&mut self) {
        *self = Held::default();
    }

    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }
}
