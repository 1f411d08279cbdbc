//! What this worker holds: single values, live values of executors, columns of small ones.

use crate::Map;
use rasker_graph::{Column, LayerId, Run, TaskId};
use rasker_protocol::{ExecutorId, Value};
use smallvec::SmallVec;
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
    /// The size of the value, wherever it is.
    pub fn nbytes(&self) -> u64 {
        match self {
            Form::Value(value) => value.nbytes(),
            Form::Live { nbytes, .. } | Form::Spilled { nbytes } => *nbytes,
        }
    }

    /// Bytes in memory, and those of live values among them.
    fn in_memory(&self) -> (u64, u64) {
        match self {
            Form::Value(value) => (value.nbytes(), 0),
            Form::Live { nbytes, .. } => (*nbytes, *nbytes),
            Form::Spilled { .. } => (0, 0),
        }
    }
}

/// A value that was let go: its task, and where it was live. Those of columns are not told.
pub(crate) struct Gone {
    pub task: TaskId,
    pub live_in: Option<(ExecutorId, u64)>,
}

impl Gone {
    fn of(task: TaskId, form: &Form) -> Option<Gone> {
        match form {
            Form::Value(Value::Column(_)) => None,
            Form::Live { executor, nbytes } => {
                Some(Gone { task, live_in: Some((*executor, *nbytes)) })
            }
            Form::Value(_) | Form::Spilled { .. } => Some(Gone { task, live_in: None }),
        }
    }
}

pub(crate) type AllGone = SmallVec<[Gone; 1]>;

/// Values by task: one by one, or in columns of several. A task has one of both at most.
#[derive(Default, Debug)]
pub(crate) struct Held {
    singles: Map<TaskId, Form>,
    /// Columns by the positions of their first values.
    columns: Map<LayerId, BTreeMap<u32, Column>>,
    /// Bytes in memory, and those of live values among them.
    pub nbytes: u64,
    pub live_nbytes: u64,
}

impl Held {
    /// Takes a value in; one that is held already stays as it is.
    pub fn insert(&mut self, task: TaskId, form: Form) {
        if self.column_of(task).is_some() {
            return;
        }
        if let hashbrown::hash_map::Entry::Vacant(place) = self.singles.entry(task) {
            let counted = place.insert(form).in_memory();
            self.count(counted, true);
        }
    }

    /// Takes values in, in place of earlier ones.
    pub fn put(&mut self, run: Run, form: Form) -> AllGone {
        let first = TaskId::new(run.layer, run.start);
        match form {
            Form::Value(Value::Column(column)) if run.count > 1 => {
                let gone = self.remove(run);
                self.put_column(first, column);
                gone
            }
            form => {
                self.remove_columns(run);
                let counted = form.in_memory();
                let before = self.singles.insert(first, form);
                self.count(counted, true);
                before.and_then(|before| self.let_go(first, &before)).into_iter().collect()
            }
        }
    }

    fn put_column(&mut self, first: TaskId, column: Column) {
        self.count((column.nbytes() as u64, 0), true);
        self.columns.entry(first.layer).or_default().insert(first.index, column);
    }

    fn let_go(&mut self, task: TaskId, form: &Form) -> Option<Gone> {
        self.count(form.in_memory(), false);
        Gone::of(task, form)
    }

    fn count(&mut self, (nbytes, live_nbytes): (u64, u64), is_more: bool) {
        // Sizes are claims of whoever made the values.
        let add = |sum: u64, nbytes| match is_more {
            true => sum.saturating_add(nbytes),
            false => sum.saturating_sub(nbytes),
        };
        self.nbytes = add(self.nbytes, nbytes);
        self.live_nbytes = add(self.live_nbytes, live_nbytes);
    }

    /// The column that a value lies in, and its place there.
    fn column_of(&self, task: TaskId) -> Option<(&Column, u32)> {
        if self.columns.is_empty() {
            return None;
        }
        let layer = self.columns.get(&task.layer)?;
        let (start, column) = layer.range(..=task.index).next_back()?;
        let at = task.index - start;
        (at < column.len()).then_some((column, at))
    }

    pub fn get(&self, task: TaskId) -> Option<Form> {
        if let Some(form) = self.singles.get(&task) {
            return Some(form.clone());
        }
        let (column, at) = self.column_of(task)?;
        Some(Form::Value(Value::Column(column.slice(at, 1))))
    }

    /// The value of a task, unless it lies in a column of several.
    pub fn single(&self, task: TaskId) -> Option<&Form> {
        self.singles.get(&task)
    }

    pub fn contains(&self, task: TaskId) -> bool {
        self.singles.contains_key(&task) || self.column_of(task).is_some()
    }

    /// The tasks of a run whose single values are held, in order. What is not held costs nothing,
    /// however long the run claims to be.
    fn singles_within(&self, run: Run) -> SmallVec<[TaskId; 1]> {
        if (run.count as usize) <= self.singles.len() {
            return run.tasks().filter(|task| self.singles.contains_key(task)).collect();
        }
        let among = self.singles.keys().filter(|task| run.contains(**task));
        let mut tasks: SmallVec<[TaskId; 1]> = among.copied().collect();
        tasks.sort_unstable();
        tasks
    }

    /// The tasks of a run whose values are held.
    pub fn within(&self, run: Run) -> Vec<TaskId> {
        let mut tasks = self.singles_within(run).into_vec();
        for (start, count) in self.columns_within(run) {
            let both = Run::new(run.layer, start, count).intersect(run);
            tasks.extend(both.into_iter().flat_map(Run::tasks));
        }
        tasks.sort_unstable();
        tasks
    }

    /// Columns that have values of a run, by position and length: or may have, the first of them.
    fn columns_within(&self, run: Run) -> SmallVec<[(u32, u32); 2]> {
        let Some(layer) = self.columns.get(&run.layer) else { return SmallVec::new() };
        let from = layer.range(..=run.start).next_back().map_or(run.start, |(start, _)| *start);
        let columns = layer.range(from..run.end().max(from));
        columns.map(|(start, column)| (*start, column.len())).collect()
    }

    /// A single value takes another form.
    pub fn replace(&mut self, task: TaskId, form: Form) {
        if let Some(place) = self.singles.get_mut(&task) {
            let counted = form.in_memory();
            let before = std::mem::replace(place, form).in_memory();
            self.count(before, false);
            self.count(counted, true);
        }
    }

    /// Lets values go. Returns those that stood for themselves, not in a column.
    pub fn remove(&mut self, run: Run) -> AllGone {
        self.remove_columns(run);
        if run.count == 1 {
            let task = TaskId::new(run.layer, run.start);
            let form = self.singles.remove(&task);
            return form.and_then(|form| self.let_go(task, &form)).into_iter().collect();
        }
        let mut all = AllGone::new();
        for task in self.singles_within(run) {
            let form = self.singles.remove(&task).expect("just seen");
            all.extend(self.let_go(task, &form));
        }
        all
    }

    fn remove_columns(&mut self, run: Run) {
        if self.columns.is_empty() {
            return;
        }
        for (start, count) in self.columns_within(run) {
            let whole = Run::new(run.layer, start, count);
            let Some(gone) = whole.intersect(run) else { continue };
            let layer = self.columns.get_mut(&run.layer).expect("just seen");
            let column = layer.remove(&start).expect("just listed");
            self.count((column.nbytes() as u64, 0), false);
            for (first, end) in [(start, gone.start), (gone.end(), whole.end())] {
                if first < end {
                    let rest = column.slice(first - start, end - first);
                    self.put_column(TaskId::new(run.layer, first), rest);
                }
            }
        }
        if self.columns.get(&run.layer).is_some_and(BTreeMap::is_empty) {
            self.columns.remove(&run.layer);
        }
    }

    /// All live values of an executor that is gone.
    pub fn remove_executor(&mut self, executor: ExecutorId) -> Vec<Run> {
        let is_lost =
            |form: &Form| matches!(form, Form::Live { executor: other, .. } if *other == executor);
        let lost = self.singles.iter().filter(|(_, form)| is_lost(form));
        let mut tasks: Vec<TaskId> = lost.map(|(task, _)| *task).collect();
        tasks.sort_unstable();
        let mut runs = Vec::new();
        for task in tasks {
            self.remove(task.run());
            Run::push(&mut runs, task);
        }
        runs
    }

    pub fn tasks(&self) -> impl Iterator<Item = TaskId> {
        let columns = self.columns.iter().flat_map(|(layer, columns)| {
            let runs = columns.iter().map(|(start, column)| Run::new(*layer, *start, column.len()));
            runs.flat_map(Run::tasks)
        });
        self.singles.keys().copied().chain(columns)
    }

    /// Everything that is held, with its size, in the order of the tasks.
    pub fn inventory(&self) -> Vec<(Run, u64)> {
        let singles = self.singles.iter().map(|(task, form)| (task.run(), form.nbytes()));
        let mut all: Vec<(Run, u64)> = singles.collect();
        for (id, columns) in &self.columns {
            let runs = columns.iter().map(|(start, column)| {
                (Run::new(*id, *start, column.len()), column.nbytes() as u64)
            });
            all.extend(runs);
        }
        all.sort_unstable();
        all
    }

    pub fn clear(&mut self) {
        *self = Held::default();
    }

    pub fn is_empty(&self) -> bool {
        self.singles.is_empty() && self.columns.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYER: LayerId = LayerId(1);

    fn task(index: u32) -> TaskId {
        TaskId::new(LAYER, index)
    }

    fn run(start: u32, count: u32) -> Run {
        Run::new(LAYER, start, count)
    }

    fn column(count: u32) -> Form {
        Form::Value(Value::Column(Column::floats(&vec![1.0; count as usize])))
    }

    fn live(nbytes: u64) -> Form {
        Form::Live { executor: ExecutorId(0), nbytes }
    }

    fn tasks(held: &Held) -> Vec<u32> {
        let mut tasks: Vec<u32> = held.tasks().map(|task| task.index).collect();
        tasks.sort_unstable();
        tasks
    }

    #[test]
    fn a_task_has_one_value_however_values_come() {
        let mut held = Held::default();
        assert!(held.put(run(0, 4), column(4)).is_empty());
        // What is held stays, unless it is made anew.
        held.insert(task(2), live(100));
        assert!(held.single(task(2)).is_none());
        assert!(held.put(run(2, 1), live(100)).is_empty());
        assert_eq!(tasks(&held), [0, 1, 2, 3]);
        assert_eq!((held.nbytes, held.live_nbytes), (24 + 100, 100));
        // A column takes the place of single values and of parts of others.
        let gone = held.put(run(1, 4), column(4));
        assert_eq!(gone.iter().map(|gone| gone.task).collect::<Vec<_>>(), [task(2)]);
        assert_eq!(gone[0].live_in, Some((ExecutorId(0), 100)));
        assert_eq!(tasks(&held), [0, 1, 2, 3, 4]);
        assert_eq!((held.nbytes, held.live_nbytes), (40, 0));
        assert_eq!(held.inventory(), [(run(0, 1), 8), (run(1, 4), 32)]);
        held.remove(run(0, 5));
        assert!(held.is_empty() && held.nbytes == 0);
    }

    #[test]
    fn a_run_that_claims_to_be_endless_names_what_is_there() {
        let mut held = Held::default();
        for index in [7, 3, 5] {
            held.insert(task(index), live(1));
        }
        held.put(run(10, 3), column(3));
        let endless = run(4, u32::MAX);
        let within = held.within(endless).into_iter().map(|task| task.index);
        assert_eq!(within.collect::<Vec<_>>(), [5, 7, 10, 11, 12]);
        let gone = held.remove(endless);
        assert_eq!(gone.iter().map(|gone| gone.task).collect::<Vec<_>>(), [task(5), task(7)]);
        assert_eq!(tasks(&held), [3]);
        assert_eq!(held.remove_executor(ExecutorId(0)), [run(3, 1)]);
        assert!(held.is_empty() && held.live_nbytes == 0);
    }
}
