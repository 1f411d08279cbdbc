//! Where ready tasks go, and when.
//!
//! Roots are withheld: a worker gets as many as it can run in a few milliseconds. A task with
//! inputs waits beside the worker that holds most of them; a worker with free threads and nothing
//! of its own takes what waits beside a busy one. Nothing here looks at all workers for each task.

use crate::peer::{DEPTH_NS, Depth, Entry, Load, Queue};
use crate::scheduler::Scheduler;
use crate::table::{MapInput, PageRecipe, Recipe, State, Task, TaskRef};
use crate::template::TemplateIx;
use rasker_graph::{Input, Key, Options, Run, TaskId};
use rasker_protocol::probe::{mutant, sometimes};
use rasker_protocol::{CallWork, Calls, Label, Priority, Source, ToWorker, WorkerId};
use smallvec::SmallVec;
use std::cmp::Reverse;

/// No more calls than this go to one thread at a time.
const RUN_MAX: u32 = 16_384;
/// A run leaves this many times itself for every other thread, so that the end is even.
const SHARE: u32 = 2;

impl Scheduler {
    pub(crate) fn make_ready(&mut self, task: TaskRef) {
        self.set(task, State::Ready);
        let entry = self.entry(task);
        let options = self.table.options(task);
        if !options.workers.is_empty() || !options.resources.is_empty() {
            let options = options.clone();
            return self.bind(task, entry, &options);
        }
        match self.best_holder(task) {
            Some(worker) => {
                self.worker_mut(worker).expect("a holder is alive").pending.push(Reverse(entry));
            }
            None => self.ready.push(Reverse(entry)),
        }
    }

    fn entry(&self, task: TaskRef) -> Entry {
        let layer = self.table.layer(task.layer);
        let mut priority = layer.priority;
        if let Recipe::Page(_) = &layer.recipe {
            priority.user = self.table.options(task).priority.saturating_neg();
        }
        Entry { priority, index: task.index, layer: task.layer }
    }

    /// The worker that holds most bytes of the inputs; of several, the one with least to do.
    fn best_holder(&self, task: TaskRef) -> Option<WorkerId> {
        let mut dependencies = crate::table::TaskList::new();
        self.table.dependencies(task, &mut dependencies);
        let mut held: SmallVec<[(WorkerId, f32); 4]> = SmallVec::new();
        for dependency in dependencies.iter().take(16) {
            if let State::Memory { holder, nbytes } = self.state(*dependency) {
                match held.iter_mut().find(|(worker, _)| *worker == holder) {
                    Some((_, sum)) => *sum += nbytes + 1.0,
                    None => held.push((holder, nbytes + 1.0)),
                }
            }
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

    /// A task that names workers or resources goes to the least busy worker that may run it.
    fn bind(&mut self, task: TaskRef, entry: Entry, options: &Options) {
        let able = |s: &Scheduler, any: bool| {
            let can =
                s.alive.iter().filter(|w| s.worker(**w).expect("alive").can_run(options, any));
            can.copied().min_by_key(|w| {
                let worker = s.worker(*w).expect("alive");
                let load = worker.n_processing as usize + worker.bound.len();
                (load / worker.hello.nthreads.max(1) as usize, load)
            })
        };
        let mut worker = able(self, false);
        if worker.is_none() && options.allow_other_workers {
            worker = able(self, true);
        }
        match worker {
            Some(worker) => {
                self.worker_mut(worker).expect("alive").bound.push(Reverse(entry));
            }
            None => {
                sometimes("no worker may run a task");
                self.unplaceable.push(task);
            }
        }
    }

    /// Tasks that nobody could run are looked at again: a worker came or went.
    pub(crate) fn place_again(&mut self) {
        for task in std::mem::take(&mut self.unplaceable) {
            if self.is_ready(task) {
                self.make_ready(task);
            }
        }
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

    /// Hands out work until no worker has room or nothing is ready.
    pub(crate) fn dispatch(&mut self) {
        let n_threads: u32 =
            self.alive.iter().map(|w| self.worker(*w).expect("alive").hello.nthreads).sum();
        let mut open: SmallVec<[(WorkerId, f64); 8]> = SmallVec::new();
        for &id in &self.alive {
            let worker = self.worker(id).expect("alive");
            open.push((id, worker.occupancy_ns(&self.templates)));
        }
        // The least busy worker chooses first, again and again; before all, those with a thread
        // that has nothing to do. If there is nothing for such a one, the others get no more than
        // they can begin at once: what they were given beyond that would be asked back.
        let mut depth = Depth::Full;
        while !open.is_empty() {
            let rank = |(id, occupancy): (WorkerId, f64)| {
                let worker = self.worker(id).expect("alive");
                (!worker.is_idle(), occupancy / f64::from(worker.hello.nthreads.max(1)))
            };
            let at = (0..open.len())
                .min_by(|a, b| {
                    let (a, b) = (rank(open[*a]), rank(open[*b]));
                    a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
                })
                .expect("not empty");
            let (id, occupancy) = open[at];
            match self.give(id, Load { occupancy, depth, n_threads }) {
                Some(ns) => open[at].1 += ns,
                None => {
                    if self.worker(id).expect("alive").is_idle() {
                        depth = Depth::Threads;
                    }
                    open.swap_remove(at);
                }
            }
        }
        self.retract();
    }

    /// Gives a worker its next run; the time it will take, or none if it has no room or there is
    /// nothing for it.
    fn give(&mut self, id: WorkerId, load: Load) -> Option<f64> {
        if let Some(ns) = self.give_bound(id, load) {
            return Some(ns);
        }
        let own = self.next_of(Some(id));
        let shared = self.next_of(None);
        let root = self.roots.keys().next().copied();
        let first = own.into_iter().chain(shared).min();
        if let Some((priority, slot)) = root
            && first.is_none_or(|entry| (priority, slot) < (entry.priority, entry.layer))
        {
            return self.give_roots(id, slot, load);
        }
        let (entry, victim) = match first {
            Some(entry) => (entry, None),
            None => {
                let (entry, victim) = self.find_to_steal(id, load.occupancy)?;
                (entry, Some(victim))
            }
        };
        let template = self.template_of(entry.task()).expect("a task with a recipe");
        let duration = self.templates.duration_ns(template);
        if self.worker(id).expect("alive").room(load, duration) == 0 {
            return None;
        }
        let queue = if let Some(victim) = victim {
            &mut self.worker_mut(victim).expect("alive").pending
        } else if own == Some(entry) {
            &mut self.worker_mut(id).expect("alive").pending
        } else {
            &mut self.ready
        };
        queue.pop();
        self.send(id, entry.task());
        Some(duration)
    }

    /// The first entry of a queue whose task is still ready.
    fn next_of(&mut self, worker: Option<WorkerId>) -> Option<Entry> {
        loop {
            let queue = match worker {
                Some(id) => &mut self.worker_mut(id).expect("alive").pending,
                None => &mut self.ready,
            };
            let Reverse(entry) = *queue.peek()?;
            if self.is_due(entry) {
                return Some(entry);
            }
            match worker {
                Some(id) => self.worker_mut(id).expect("alive").pending.pop(),
                None => self.ready.pop(),
            };
        }
    }

    /// An entry that waits beside another worker, if that one is busy and this one idle.
    fn find_to_steal(&mut self, thief: WorkerId, occupancy: f64) -> Option<(Entry, WorkerId)> {
        let worker = self.worker(thief).expect("alive");
        if occupancy > DEPTH_NS * f64::from(worker.hello.nthreads) / 2.0 {
            return None;
        }
        let victim = self
            .alive
            .iter()
            .copied()
            .filter(|w| *w != thief)
            .max_by_key(|w| self.worker(*w).expect("alive").pending.len())?;
        let other = self.worker(victim).expect("alive");
        if other.pending.is_empty() || other.n_processing < other.hello.nthreads {
            return None;
        }
        sometimes("an idle worker looked at a busy one's queue");
        Some((self.next_of(Some(victim))?, victim))
    }

    fn give_bound(&mut self, id: WorkerId, load: Load) -> Option<f64> {
        let mut kept = Queue::new();
        let mut given = None;
        while let Some(Reverse(entry)) = self.worker_mut(id).expect("alive").bound.pop() {
            if !self.is_due(entry) {
                continue;
            }
            let task = entry.task();
            let template = self.template_of(task).expect("a task with a recipe");
            let duration = self.templates.duration_ns(template);
            let options = self.table.options(task).clone();
            let worker = self.worker(id).expect("alive");
            if worker.room(load, duration) == 0 || !worker.has_free(&options) {
                kept.push(Reverse(entry));
                if kept.len() > 64 {
                    break;
                }
                continue;
            }
            self.send(id, task);
            given = Some(duration);
            break;
        }
        if !mutant("wakeup-lost-on-resource-return") {
            self.worker_mut(id).expect("alive").bound.append(&mut kept);
        }
        given
    }

    /// Cuts a run off the front of a layer of roots.
    fn give_roots(&mut self, id: WorkerId, slot: u32, load: Load) -> Option<f64> {
        let layer = self.table.layer(slot);
        let Recipe::Map(map) = &layer.recipe else { unreachable!("roots are maps") };
        let template = map.template;
        let duration = self.templates.duration_ns(template);
        let worker = self.worker(id).expect("alive");
        let left = layer.count - layer.cursor;
        let fair = (left / (SHARE * load.n_threads.max(1))).max(1);
        let room = worker.room(load, duration);
        let n = room.min(fair).min(left).min(RUN_MAX * worker.hello.nthreads.max(1));
        if left > 0 && n == 0 {
            return None;
        }
        let layer = self.table.layer_mut(slot);
        let start = layer.cursor;
        layer.expand(start + n);
        // The run ends where a task was forgotten before its turn, or cancelled and retried: it
        // stands in a queue then, at another attempt.
        let is_next = |task: &Task| task.state == State::Ready && task.attempt == 0;
        let mut end = start;
        while end < start + n && is_next(layer.task(end)) {
            layer.task_mut(end).state = State::Processing { worker: id };
            end += 1;
        }
        layer.cursor = end;
        while layer.cursor < layer.expanded && !is_next(layer.task(layer.cursor)) {
            layer.cursor += 1;
        }
        let priority = layer.priority;
        if layer.cursor >= layer.count {
            self.roots.remove(&(priority, slot));
        }
        let count = end - start;
        if count > 0 {
            self.send_run(id, slot, start, count, template);
        }
        Some(f64::from(count) * duration)
    }

    fn send_run(&mut self, id: WorkerId, slot: u32, start: u32, count: u32, template: TemplateIx) {
        let layer = self.table.layer(slot);
        let Recipe::Map(map) = &layer.recipe else { unreachable!("roots are maps") };
        let inputs = map.inputs.iter().map(|input| match input {
            MapInput::Values(column) => Input::Values(column.slice(start, count)),
            _ => unreachable!("roots read no tasks"),
        });
        let calls = Calls {
            run: Run::new(layer.id, start, count),
            attempt: 0,
            priority: layer.priority,
            template: self.templates.get(template).template.id,
            fused: SmallVec::new(),
            label: Label { name: map.name.clone(), key: map.key, layer: true, text: None },
            work: CallWork::Map { inputs: inputs.collect(), constants: map.constants.clone() },
            sources: SmallVec::new(),
        };
        let options = layer.options.clone();
        self.teach(id, template);
        let worker = self.worker_mut(id).expect("alive");
        worker.begin(template, count, &options);
        worker.calls.push(calls);
    }

    /// A worker gets each template once.
    fn teach(&mut self, id: WorkerId, template: TemplateIx) {
        let template = &self.templates.get(template).template;
        let worker = self.workers[id.0 as usize].as_deref_mut().expect("alive");
        if worker.known.insert(template.id) {
            worker.templates.push(template.clone());
        }
    }

    /// Sends one ready task.
    fn send(&mut self, id: WorkerId, task: TaskRef) {
        self.set(task, State::Processing { worker: id });
        let template = self.template_of(task).expect("a task with a recipe");
        self.teach(id, template);
        let fused: SmallVec<[TemplateIx; 1]> = match &self.table.layer(task.layer).recipe {
            Recipe::Page(page) if !page.fused.is_empty() => {
                let from = page.fused.partition_point(|(at, _)| *at < task.index);
                let steps = page.fused[from..].iter().take_while(|(at, _)| *at == task.index);
                steps.map(|(_, t)| *t).collect()
            }
            _ => SmallVec::new(),
        };
        for step in &fused {
            self.teach(id, *step);
        }
        let calls = Calls {
            run: self.table.id(task).run(),
            attempt: u32::from(self.table.task(task).attempt),
            priority: self.entry(task).priority,
            template: self.templates.get(template).template.id,
            fused: fused.iter().map(|t| self.templates.get(*t).template.id).collect(),
            label: self.label(task),
            work: self.call_work(task),
            sources: self.sources(task, id),
        };
        let options = self.table.options(task).clone();
        let worker = self.worker_mut(id).expect("alive");
        worker.begin(template, 1, &options);
        worker.calls.push(calls);
    }

    pub(crate) fn call_work(&self, task: TaskRef) -> CallWork {
        let id = |task: &TaskRef| self.table.id(*task);
        match &self.table.layer(task.layer).recipe {
            Recipe::Page(page) => {
                let args = self.table.args(task).expect("a page has arguments");
                let span = PageRecipe::span(&page.dependency_ends, task.index);
                CallWork::One {
                    args,
                    dependencies: page.dependencies[span].iter().map(id).collect(),
                }
            }
            Recipe::Map(map) => {
                let inputs = map.inputs.iter().map(|input| match input {
                    MapInput::Values(column) => Input::Values(column.slice(task.index, 1)),
                    MapInput::Tasks { layer, first } => {
                        Input::Tasks(id(&TaskRef { layer: *layer, index: first + task.index }))
                    }
                    MapInput::List(tasks) => Input::Tasks(id(&tasks[task.index as usize])),
                });
                CallWork::Map { inputs: inputs.collect(), constants: map.constants.clone() }
            }
            Recipe::Data { .. } => unreachable!("data is never computed"),
        }
    }

    /// Where the inputs are that the worker does not have.
    fn sources(&self, task: TaskRef, worker: WorkerId) -> SmallVec<[Source; 2]> {
        let mut dependencies = crate::table::TaskList::new();
        self.table.dependencies(task, &mut dependencies);
        let away = dependencies.iter().filter(|d| !self.is_held_by(**d, worker));
        away.filter_map(|dependency| match self.state(*dependency) {
            State::Memory { holder, nbytes } => Some(Source {
                run: self.table.id(*dependency).run(),
                worker: holder,
                nbytes: nbytes as u64,
            }),
            _ => None,
        })
        .collect()
    }

    pub(crate) fn label(&self, task: TaskRef) -> Label {
        match &self.table.layer(task.layer).recipe {
            Recipe::Map(map) => {
                Label { name: map.name.clone(), key: map.key, layer: true, text: None }
            }
            Recipe::Page(page) => {
                let template = self.template_of(task).expect("a page has templates");
                let text = page.names.binary_search_by_key(&task.index, |(index, _)| *index);
                Label {
                    name: self.templates.get(template).template.name.clone(),
                    key: page.keys[task.index as usize],
                    layer: false,
                    text: text.ok().map(|at| page.names[at].1.clone()),
                }
            }
            Recipe::Data { keys, names } => Label {
                name: names[task.index as usize].clone(),
                key: keys.get(task.index as usize).copied().unwrap_or(Key(0)),
                layer: false,
                text: Some(names[task.index as usize].clone()),
            },
        }
    }

    pub(crate) fn key_text(&self, task: TaskRef) -> String {
        self.label(task).of(task.index)
    }

    /// When a worker has nothing to do and another has calls that wait behind long ones, those are
    /// asked back.
    fn retract(&mut self) {
        let idle = self.alive.iter().any(|w| self.worker(*w).expect("alive").is_idle());
        if !idle {
            return;
        }
        let victim = self.alive.iter().copied().max_by_key(|w| {
            let worker = self.worker(*w).expect("alive");
            worker.n_processing.saturating_sub(worker.hello.nthreads)
        });
        let Some(id) = victim else { return };
        let worker = self.worker_mut(id).expect("alive");
        if worker.n_processing > worker.hello.nthreads && !worker.retracting {
            worker.retracting = true;
            worker.out.push(ToWorker::Retract);
            sometimes("calls were asked back");
        }
    }

    /// For tests of order: where a task stands in line.
    pub fn priority_of(&self, id: TaskId) -> Option<Priority> {
        let task = self.table.find(id)?;
        Some(self.entry(task).priority)
    }
}
