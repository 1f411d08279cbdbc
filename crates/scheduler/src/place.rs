//! Where a task waits that is ready: beside the worker that holds its inputs, among those that ask
//! for the same workers and resources, or among those that any worker may run.

use crate::peer::Worker;
use crate::queue::{Entry, Queue};
use crate::scheduler::Scheduler;
use crate::table::{Recipe, State, TaskList, TaskRef};
use rasker_graph::{Options, TemplateKind};
use rasker_protocol::probe::{mutant, sometimes};
use rasker_protocol::{Kinds, WorkerId};
use smallvec::SmallVec;
use std::sync::Arc;

/// More classes than this, and those without tasks are forgotten.
const CLASSES_MAX: usize = 256;

/// Ready tasks of one kind that ask for the same workers and resources.
pub(crate) struct Class {
    pub options: Arc<Options>,
    pub kind: TemplateKind,
    pub queue: Queue,
    /// Workers that may run them, ascending.
    pub workers: Vec<WorkerId>,
}

fn asks_alike(a: &Arc<Options>, b: &Arc<Options>) -> bool {
    Arc::ptr_eq(a, b)
        || (a.workers == b.workers
            && a.resources == b.resources
            && a.allow_other_workers == b.allow_other_workers)
}

/// Where the next task of a page goes that reads nothing.
pub(crate) struct Stretches {
    n_roots: u64,
    n_seen: u64,
    n_threads: u64,
    /// Place of the current worker, and the threads of those before it.
    at: usize,
    end: u64,
}

impl Scheduler {
    pub(crate) fn make_ready(&mut self, task: TaskRef) {
        self.set(task, State::Ready);
        let mut entry = self.entry(task);
        let options = self.table.options(task);
        if !options.workers.is_empty() || !options.resources.is_empty() {
            return self.join_class(task, entry);
        }
        let mut dependencies = TaskList::new();
        self.table.dependencies(task, &mut dependencies);
        entry.priority.keeps = !dependencies.iter().any(|input| self.would_go(*input));
        let near = match dependencies.is_empty() {
            true => self.next_in_stretch(),
            false => self.best_holder(task, &dependencies),
        };
        match near.filter(|worker| self.runs(*worker, task)) {
            Some(worker) => {
                self.worker_mut(worker).expect("a holder is alive").pending.push(entry);
            }
            None if self.is_lacking(task) => self.join_class(task, entry),
            None => self.ready.push(entry),
        }
    }

    fn join_class(&mut self, task: TaskRef, entry: Entry) {
        let options = self.table.options(task).clone();
        let class = self.class_of(&options, self.kind_of(task));
        if self.classes[class].workers.is_empty() {
            sometimes("no worker may run a task");
        }
        self.classes[class].queue.push(entry);
    }

    pub(crate) fn kind_of(&self, task: TaskRef) -> TemplateKind {
        let template = self.template_of(task);
        template.map_or(TemplateKind::Python, |ix| self.templates.get(ix).template.kind)
    }

    /// Whether some worker runs no tasks of this one's kind. Mostly all workers run all kinds.
    fn is_lacking(&self, task: TaskRef) -> bool {
        self.lacking != Kinds::NONE
            && self.lacking.has(self.kind_of(task))
            && !mutant("kind-ignored")
    }

    /// Whether a worker runs tasks of this one's kind.
    pub(crate) fn runs(&self, worker: WorkerId, task: TaskRef) -> bool {
        let runs = |worker: &Worker| worker.hello.runs.has(self.kind_of(task));
        !self.is_lacking(task) || self.worker(worker).is_some_and(runs)
    }

    /// Workers came or went: which kinds of tasks not all of them run, and which some do. If there
    /// are more of the former, what was ready for anybody is placed anew.
    pub(crate) fn compare_kinds(&mut self) {
        let (mut lacking, mut offered) = (Kinds::NONE, Kinds::NONE);
        for id in &self.alive {
            let runs = self.worker(*id).expect("alive").hello.runs;
            lacking = lacking.or(runs.others());
            offered = offered.or(runs);
        }
        self.offered = offered;
        let before = std::mem::replace(&mut self.lacking, lacking);
        if before.or(lacking) != before {
            let ready = std::mem::take(&mut self.ready);
            for entry in ready.iter().filter(|entry| self.is_due(*entry)).collect::<Vec<_>>() {
                self.make_ready(entry.task());
            }
        }
    }

    pub(crate) fn entry(&self, task: TaskRef) -> Entry {
        let layer = self.table.layer(task.layer);
        let mut priority = layer.priority;
        if let Recipe::Page(page) = &layer.recipe
            && !page.options.is_empty()
        {
            priority.user = self.table.options(task).priority.saturating_neg();
        }
        Entry { priority, index: task.index, layer: task.layer }
    }

    /// Whether a value goes when the one task that still waits for it has run.
    fn would_go(&self, input: TaskRef) -> bool {
        let record = self.table.task(input);
        record.waiting_dependents == 1 && !record.is_wanted()
    }

    /// Tasks of a page that read nothing are shared out in stretches, one for each thread, if
    /// there are several for each: neighbors are mostly read together, so they stay together.
    pub(crate) fn begin_stretches(&mut self, page: &rasker_graph::Page) {
        let mut from = 0;
        let reads_nothing = |end: &&u32| std::mem::replace(&mut from, **end) == **end;
        let n_roots = page.dependency_ends.iter().filter(reads_nothing).count() as u64;
        let n_threads = self.n_threads();
        if self.alive.len() > 1 && n_roots >= 2 * n_threads {
            self.stretches = Some(Stretches { n_roots, n_seen: 0, n_threads, at: 0, end: 0 });
        }
    }

    fn n_threads(&self) -> u64 {
        let nthreads = |id: &WorkerId| u64::from(self.worker(*id).expect("alive").hello.nthreads);
        self.alive.iter().map(nthreads).sum::<u64>().max(1)
    }

    fn next_in_stretch(&mut self) -> Option<WorkerId> {
        let mut stretches = self.stretches.take()?;
        let place = stretches.n_seen * stretches.n_threads / stretches.n_roots;
        stretches.n_seen += 1;
        // The worker whose threads cover this place: places ascend, and so do workers.
        loop {
            let id = *self.alive.get(stretches.at)?;
            let nthreads = u64::from(self.worker(id).expect("alive").hello.nthreads);
            if place < stretches.end + nthreads {
                self.stretches = Some(stretches);
                return Some(id);
            }
            stretches.end += nthreads;
            stretches.at += 1;
        }
    }

    /// The worker that holds most bytes of the inputs; of several, the one with least to do.
    fn best_holder(&self, task: TaskRef, dependencies: &[TaskRef]) -> Option<WorkerId> {
        // Parts come from everywhere: only what is larger than them decides where to read them.
        let parts: f32 = match self.reads(task).is_empty() {
            true => 0.0,
            false => dependencies.iter().map(|input| self.part_nbytes(*input)).sum(),
        };
        let mut held: SmallVec<[(WorkerId, f32); 4]> = SmallVec::new();
        let has_copies = !self.table.replicas.is_empty();
        for dependency in dependencies.iter().take(16) {
            let State::Memory { holder, nbytes } = self.state(*dependency) else { continue };
            let copies = has_copies.then(|| self.table.replicas.get(dependency)).flatten();
            for worker in std::iter::once(holder).chain(copies.into_iter().flatten().copied()) {
                match held.iter_mut().find(|(other, _)| *other == worker) {
                    Some((_, sum)) => *sum += nbytes + 1.0,
                    None => held.push((worker, nbytes + 1.0)),
                }
            }
        }
        if self.n_sidelined > 0 {
            held.retain(|(worker, _)| {
                self.worker(*worker).expect("a holder is alive").takes_work()
            });
        }
        held.retain(|(_, nbytes)| *nbytes > parts);
        if let [(only, _)] = held[..] {
            return Some(only);
        }
        let load = |worker: WorkerId| {
            let worker = self.worker(worker).expect("a holder is alive");
            worker.n_processing as usize + worker.pending.len()
        };
        let best = held.iter().max_by(|a, b| {
            a.1.total_cmp(&b.1).then_with(|| load(b.0).cmp(&load(a.0))).then(b.0.cmp(&a.0))
        });
        best.map(|(worker, _)| *worker)
    }

    fn class_of(&mut self, options: &Arc<Options>, kind: TemplateKind) -> usize {
        let is_same = |class: &Class| class.kind == kind && asks_alike(&class.options, options);
        if let Some(at) = self.classes.iter().position(is_same) {
            return at;
        }
        if self.classes.len() >= CLASSES_MAX {
            self.classes.retain(|class| !class.queue.is_empty());
            self.place_classes();
        }
        let workers = self.workers_for(options, kind);
        let at = self.classes.len();
        for id in &workers {
            self.worker_mut(*id).expect("alive").classes.push(at);
        }
        let (options, queue) = (options.clone(), Queue::default());
        self.classes.push(Class { options, kind, queue, workers });
        at
    }

    /// The workers that may run what asks for this: those named, or if none of them is here and
    /// others may stand in, those.
    fn workers_for(&self, options: &Options, kind: TemplateKind) -> Vec<WorkerId> {
        let able = |any: bool| -> Vec<WorkerId> {
            let can = |id: &WorkerId| {
                let worker = self.worker(*id).expect("alive");
                worker.can_run(options, any)
                    && (worker.hello.runs.has(kind) || mutant("kind-ignored"))
            };
            self.alive.iter().copied().filter(can).collect()
        };
        let named = able(false);
        if named.is_empty() && options.allow_other_workers { able(true) } else { named }
    }

    /// A worker came or went: who may run what is found out anew.
    pub(crate) fn place_classes(&mut self) {
        for &id in &self.alive {
            let worker = self.workers[id.0 as usize].as_deref_mut().expect("alive");
            worker.classes.clear();
        }
        for at in 0..self.classes.len() {
            let Class { options, kind, .. } = &self.classes[at];
            let workers = self.workers_for(options, *kind);
            for id in &workers {
                self.worker_mut(*id).expect("alive").classes.push(at);
            }
            self.classes[at].workers = workers;
        }
    }

    /// Whether no worker here may ever run the task.
    pub(crate) fn is_unplaceable(&self, task: TaskRef) -> bool {
        let options = self.table.options(task);
        let asks = !options.workers.is_empty() || !options.resources.is_empty();
        (asks || self.is_lacking(task)) && self.workers_for(options, self.kind_of(task)).is_empty()
    }

    fn is_ready(&self, task: TaskRef) -> bool {
        self.table.layers[task.layer as usize].as_ref().is_some_and(|layer| {
            task.index < layer.expanded && layer.task(task.index).state == State::Ready
        })
    }

    /// Whether the task that was entered in a queue is still ready: its place may be another's now.
    pub(crate) fn is_due(&self, entry: Entry) -> bool {
        self.is_ready(entry.task())
            && self.table.layer(entry.layer).priority.submission == entry.priority.submission
    }
}
