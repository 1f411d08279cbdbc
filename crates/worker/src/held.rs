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
    /// On disk only.
    Spilled {
        nbytes: u64,
    },
}

impl Form {
    /// Bytes in memory.
    fn nbytes(&self) -> u64 {
        match self {
            Form::Value(value) => value.nbytes(),
            Form::Live { nbytes, .. } => *nbytes,
            Form::Spilled { .. } => 0,
        }
    }
}

/// A value that was let go: its task, where it was live, and whether it was one of a stretch.
pub(crate) struct Gone {
    pub task: TaskId,
    pub live_in: Option<(ExecutorId, u64)>,
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
    /// Bytes in memory, and those of live values among them.
    pub nbytes: u64,
    pub live_nbytes: u64,
}

impl Held {
    /// Takes values in; those that are held already stay as they are.
    pub fn insert(&mut self, run: Run, form: Form) {
        if run.count == 1 && self.get(TaskId::new(run.layer, run.start)).is_some() {
            return;
        }
        self.count(&form, true);
        let layer = self.layers.entry(run.layer).or_default();
        layer.insert(run.start, Stretch { count: run.count, form });
    }

    fn count(&mut self, form: &Form, is_more: bool) {
        let nbytes = form.nbytes();
        let add = |sum: &mut u64| {
            // Sizes are claims of whoever made the values.
            *sum = match is_more {
                true => sum.saturating_add(nbytes),
                false => sum.saturating_sub(nbytes),
            };
        };
        add(&mut self.nbytes);
        match form {
            Form::Live { .. } => add(&mut self.live_nbytes),
            Form::Value(_) | Form::Spilled { .. } => {}
        }
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

    /// The tasks of a run whose values are held.
    pub fn within(&self, run: Run) -> Vec<TaskId> {
        let Some(layer) = self.layers.get(&run.layer) else { return Vec::new() };
        let from = layer.range(..=run.start).next_back().map_or(run.start, |(start, _)| *start);
        let stretches = layer.range(from..run.end().max(from));
        let held = stretches.map(|(start, s)| Run::new(run.layer, *start, s.count));
        held.filter_map(|held| held.intersect(run)).flat_map(Run::tasks).collect()
    }

    /// A single value takes another form.
    pub fn replace(&mut self, task: TaskId, form: Form) {
        let layer = self.layers.get_mut(&task.layer);
        let Some(stretch) = layer.and_then(|layer| layer.get_mut(&task.index)) else { return };
        if stretch.count == 1 {
            let before = std::mem::replace(&mut stretch.form, form.clone());
            self.count(&before, false);
            self.count(&form, true);
        }
    }

    /// Lets values go. Returns those that stood for themselves, not in a column.
    pub fn remove(&mut self, run: Run) -> Vec<Gone> {
        let mut singles = Vec::new();
        let Some(mut layer) = self.layers.remove(&run.layer) else { return singles };
        let from = layer.range(..=run.start).next_back().map_or(run.start, |(start, _)| *start);
        let starts: Vec<u32> = layer.range(from..run.end()).map(|(start, _)| *start).collect();
        for start in starts {
            let stretch = layer.remove(&start).expect("just listed");
            let whole = Run::new(run.layer, start, stretch.count);
            let Some(gone) = whole.intersect(run) else {
                layer.insert(start, stretch);
                continue;
            };
            let live_in = match &stretch.form {
                Form::Live { executor, nbytes } => Some((*executor, *nbytes)),
                Form::Value(_) | Form::Spilled { .. } => None,
            };
            if !matches!(stretch.form, Form::Value(Value::Column(_))) {
                singles.push(Gone { task: TaskId::new(run.layer, start), live_in });
            }
            self.count(&stretch.form, false);
            for (first, end) in [(start, gone.start), (gone.end(), whole.end())] {
                if first < end {
                    let Form::Value(value) = &stretch.form else { continue };
                    let form = Form::Value(value.slice(first - start, end - first));
                    self.count(&form, true);
                    layer.insert(first, Stretch { count: end - first, form });
                }
            }
        }
        if !layer.is_empty() {
            self.layers.insert(run.layer, layer);
        }
        singles
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
                    let nbytes = stretch.form.nbytes();
                    self.nbytes = self.nbytes.saturating_sub(nbytes);
                    self.live_nbytes = self.live_nbytes.saturating_sub(nbytes);
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

    /// Everything that is held, with its size, in the order of the tasks.
    pub fn inventory(&self) -> Vec<(Run, u64)> {
        let mut all = Vec::new();
        for (id, layer) in &self.layers {
            for (start, stretch) in layer {
                let nbytes = match &stretch.form {
                    Form::Value(value) => value.nbytes(),
                    Form::Live { nbytes, .. } | Form::Spilled { nbytes, .. } => *nbytes,
                };
                all.push((Run::new(*id, *start, stretch.count), nbytes));
            }
        }
        all.sort_unstable();
        all
    }

    pub fn clear(&mut self) {
        *self = Held::default();
    }

    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }
}
