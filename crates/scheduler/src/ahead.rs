//! Reading ahead: in a large graph a task's record, its recipe, its edges and the records of its
//! neighbors are each a line of memory that is not in the cache, and one leads to the next. Here a
//! batch of tasks that are about to be handled is read stage by stage. Within a stage no read waits
//! for another, so the processor has many of them under way at once; what is read is thrown away.

use crate::table::{NO_EDGE, Recipe, State, Table, TaskRef};
use rasker_graph::Key;
use smallvec::SmallVec;
use std::hint::black_box;

/// So many tasks are read ahead together: what they lead to fits into the nearest cache.
pub(crate) const BATCH: usize = 16;

/// Of each task's dependencies, and of its dependents, no more than this are read ahead.
const SOME: u32 = 4;

/// A table with fewer keys is in the cache anyway: there reading ahead is work for nothing.
const KEYS_MIN: usize = 1 << 15;

type Batch<T> = SmallVec<[T; 2 * BATCH]>;

/// Where a listed task's dependencies stand in its page.
struct Reads {
    layer: u32,
    start: u32,
    end: u32,
}

impl Table {
    /// Whether the table is too large for the caches.
    pub fn is_worth_reading_ahead(&self) -> bool {
        self.n_keys() >= KEYS_MIN
    }

    /// Before reports of these tasks: records and recipes, edges and dependencies, the records of
    /// neighbors, and for those that become ready the same again.
    pub fn read_ahead_of_reports(&self, tasks: &[TaskRef]) {
        if !self.is_worth_reading_ahead() {
            return;
        }
        let (reads, mut heads) = self.read_records(tasks);
        let mut neighbors = Batch::new();
        self.read_dependencies(&reads, &mut neighbors);
        let mut dependents = Batch::new();
        for _ in 0..SOME {
            heads.retain(|head| *head != NO_EDGE);
            for head in &mut heads {
                let (dependent, next) = self.edge(*head);
                dependents.push(dependent);
                *head = next;
            }
        }
        self.read_counts(neighbors.iter().chain(&dependents).copied());
        dependents.retain(|dependent| self.waits_for_one(*dependent));
        self.read_ahead_of_calls(&dependents);
    }

    /// Before calls of these tasks are made: records and recipes, dependencies, their records.
    pub fn read_ahead_of_calls(&self, tasks: &[TaskRef]) {
        if !self.is_worth_reading_ahead() {
            return;
        }
        let (reads, _) = self.read_records(tasks);
        let mut neighbors = Batch::new();
        self.read_dependencies(&reads, &mut neighbors);
        self.read_counts(neighbors.into_iter());
    }

    /// Before tasks with these keys are entered or forgotten, which read `dependencies`.
    pub fn read_ahead_of_keys(
        &self,
        keys: impl Iterator<Item = Key>,
        dependencies: impl Iterator<Item = TaskRef>,
    ) {
        keys.for_each(|key| self.read_near(key));
        self.read_counts(dependencies);
    }

    /// Before tasks of a layer are let go.
    pub fn read_ahead_of_release(&self, layer: u32, from: u32, end: u32) {
        if !self.is_worth_reading_ahead() {
            return;
        }
        let Recipe::Page(page) = &self.layer(layer).recipe else { return };
        let tasks = &page.tasks[from as usize..(end as usize).min(from as usize + BATCH)];
        let (Some(first), Some(last)) = (tasks.first(), tasks.last()) else { return };
        let (first, last) = (first.reads.0 as usize, last.reads.1 as usize);
        let reads = page.dependencies[first..last.min(first + 4 * BATCH)].iter().copied();
        self.read_ahead_of_keys(tasks.iter().map(|task| task.key), reads);
    }

    /// Where the dependencies of listed tasks stand, and the heads of their lists of dependents.
    fn read_records(&self, tasks: &[TaskRef]) -> (Batch<Reads>, Batch<u32>) {
        let (mut reads, mut heads) = (Batch::new(), Batch::new());
        for task in tasks {
            let Some(layer) = self.layers[task.layer as usize].as_deref() else { continue };
            if task.index >= layer.expanded {
                continue;
            }
            if let Recipe::Page(page) = &layer.recipe {
                let listed = page.task(task.index);
                heads.push(listed.record.dependents);
                let (start, end) = listed.reads;
                reads.push(Reads { layer: task.layer, start, end });
            }
        }
        (reads, heads)
    }

    /// The first few dependencies of each.
    fn read_dependencies(&self, reads: &[Reads], into: &mut Batch<TaskRef>) {
        for &Reads { layer, start, end } in reads {
            if let Recipe::Page(page) = &self.layer(layer).recipe {
                let end = end.min(start + SOME);
                into.extend(page.dependencies[start as usize..end as usize].iter().copied());
            }
        }
    }

    /// Reads the records of tasks. Nothing branches on what is in them, so that all are under way
    /// before the first is there.
    fn read_counts(&self, tasks: impl Iterator<Item = TaskRef>) {
        let mut sum = 0;
        for task in tasks {
            let layer = self.layers[task.layer as usize].as_deref();
            let layer = layer.filter(|layer| task.index < layer.expanded);
            sum ^= layer.map_or(0, |layer| layer.task(task.index).alive_dependents);
        }
        black_box(sum);
    }

    fn waits_for_one(&self, task: TaskRef) -> bool {
        let layer = self.layers[task.layer as usize].as_deref();
        layer.is_some_and(|layer| {
            task.index < layer.expanded
                && layer.task(task.index).state == State::Waiting { missing: 1 }
        })
    }
}
