//! Which worker gets what, and when.
//!
//! Roots are withheld: a worker gets as many as it can run in a few milliseconds. A task with
//! inputs waits beside the worker that holds most of them; a worker with free threads and nothing
//! of its own takes what waits beside a busy one. Workers stand in a heap by their load, so that
//! finding the next one for a task does not look at all of them.

use crate::peer::{DEPTH_NS, Depth, Load};
use crate::queue::Entry;
use crate::scheduler::Scheduler;
use crate::table::{Recipe, State, Task, TaskList, TaskRef};
use rasker_graph::{Run, TaskId};
use rasker_protocol::probe::{mutant, sometimes};
use rasker_protocol::{Priority, ToWorker, WorkerId};
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

/// No more calls than this go to one thread at a time.
const RUN_MAX: u32 = 16_384;
/// A run leaves this many times itself for every other thread, so that the end is even.
const SHARE: u32 = 2;

/// A worker beside which many short calls wait is given some of them before it is another one's
/// turn, until it has so much more to do, ns: to turn to another one for each costs more than the
/// calls.
const SPELL_NS: f64 = 20e3;
/// So many are many.
const SPELL_MIN: usize = 8;

/// A worker's place in the line for work: those with an idle thread first, then the least busy.
#[derive(Clone, Copy)]
pub(crate) struct Rank {
    is_busy: bool,
    /// Its work in hand for each thread, ns.
    per_thread: f64,
    occupancy: f64,
    nthreads: u32,
    id: WorkerId,
}

impl Rank {
    fn new(is_busy: bool, occupancy: f64, nthreads: u32, id: WorkerId) -> Rank {
        let per_thread = occupancy / f64::from(nthreads);
        Rank { is_busy, per_thread, occupancy, nthreads, id }
    }
}

impl Ord for Rank {
    fn cmp(&self, other: &Rank) -> Ordering {
        let by_load = || self.per_thread.total_cmp(&other.per_thread);
        self.is_busy.cmp(&other.is_busy).then_with(by_load).then(self.id.cmp(&other.id))
    }
}
impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Rank) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Rank {
    fn eq(&self, other: &Rank) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Rank {}

/// Workers by what waits beside them, the most first. Nothing is added while work is handed out,
/// so a worker's true place is never before the one it has here.
#[derive(Default)]
struct Victims {
    heap: Option<BinaryHeap<(usize, Reverse<WorkerId>)>>,
}

impl Scheduler {
    /// Hands out work until no worker has room or nothing is ready.
    pub(crate) fn dispatch(&mut self) {
        let mut n_threads = 0;
        let mut open = std::mem::take(&mut self.spare_ranks);
        open.clear();
        for &id in &self.alive {
            let worker = self.worker(id).expect("alive");
            if !worker.takes_work() {
                continue;
            }
            n_threads += worker.hello.nthreads;
            let is_busy = !worker.is_idle();
            let occupancy = worker.occupancy_ns(&self.templates);
            let nthreads = worker.hello.nthreads.max(1);
            // One that is busy for long has no room for anything.
            if !is_busy || occupancy < DEPTH_NS * f64::from(nthreads) {
                open.push(Reverse(Rank::new(is_busy, occupancy, nthreads, id)));
            }
        }
        // The least busy worker chooses first, again and again; before all, those with a thread
        // that has nothing to do. If there is nothing for such a one, the others get no more than
        // they can begin at once: what they were given beyond that would be asked back.
        let mut open = BinaryHeap::from(open);
        let mut victims = Victims::default();
        let mut depth = Depth::Full;
        while let Some(mut first) = open.peek_mut() {
            let Rank { id, mut occupancy, nthreads, .. } = first.0;
            let end = occupancy + SPELL_NS;
            let given = loop {
                match self.give(id, Load { occupancy, depth, n_threads }, &mut victims) {
                    Some(ns) => occupancy += ns,
                    None => break false,
                }
                let is_crowded = self.worker(id).expect("alive").status.is_crowded;
                if occupancy >= end || is_crowded || self.n_pending(id) < SPELL_MIN {
                    break true;
                }
            };
            let is_busy = !self.worker(id).expect("alive").is_idle();
            if given {
                first.0 = Rank::new(is_busy, occupancy, nthreads, id);
            } else {
                if !is_busy {
                    depth = Depth::Threads;
                }
                PeekMut::pop(first);
            }
        }
        self.spare_ranks = open.into_vec();
        self.retract();
    }

    /// Gives a worker its next run; the time it will take, or none if it has no room or there is
    /// nothing for it.
    fn give(&mut self, id: WorkerId, load: Load, victims: &mut Victims) -> Option<f64> {
        if let Some(ns) = self.give_restricted(id, load) {
            return Some(ns);
        }
        let own = self.next_of(Some(id));
        let shared = self.next_of(None);
        let root = self.first_root(id);
        // A worker whose memory fills up uses up values before it makes new ones: its own, or
        // those of a worker that is busy.
        let is_crowded = root.is_some_and(|(_, slot)| self.is_crowded_by(id, slot));
        let mut taken = None;
        if is_crowded && own.is_none() {
            taken = self.find_to_steal(id, 0.0, victims);
        }
        let first = match taken {
            Some((entry, _)) => Some(entry),
            None => self.first_of(id, own, shared),
        };
        let reads = own.or(taken.map(|(entry, _)| entry));
        let uses_up = |user: i64| {
            is_crowded && first.is_some_and(|f| Some(f) == reads && f.priority.user <= user)
        };
        if let Some((priority, slot)) = root
            && !uses_up(priority.user)
            && first.is_none_or(|entry| (priority, slot) < (entry.priority, entry.layer))
        {
            // Those that are on their way to be used up elsewhere make room soon.
            if is_crowded && self.worker(id).expect("alive").n_lent > 0 {
                return None;
            }
            return self.give_roots(id, slot, load);
        }
        let (entry, victim) = match first {
            Some(entry) => (entry, taken.map(|(_, victim)| victim)),
            None => {
                let (entry, victim) = self.find_to_steal(id, load.occupancy, victims)?;
                (entry, Some(victim))
            }
        };
        let template = self.template_of(entry.task()).expect("a task with a recipe");
        let duration = self.templates.duration_ns(template);
        let cost = (duration, self.templates.result_nbytes(template));
        let load = Load { depth: self.depth_for(id, entry.task(), load.depth), ..load };
        let room = self.worker(id).expect("alive").room(load, cost);
        if room == 0 {
            return None;
        }
        if let Some(victim) = victim {
            self.worker_mut(victim).expect("alive").pending.pop_to_lend();
        } else if own == Some(entry) {
            self.worker_mut(id).expect("alive").pending.pop();
            let count = self.take_followers(id, entry, room);
            if count > 1 {
                let run = Run::new(self.table.layer(entry.layer).id, entry.index, count);
                for index in run.indices() {
                    self.set(TaskRef { index, ..entry.task() }, State::Processing { worker: id });
                }
                self.send_run(id, run, entry);
                return Some(f64::from(count) * duration);
            }
        } else {
            self.ready.pop();
        }
        self.send(id, entry);
        Some(duration)
    }

    /// Takes those of a map's tasks out of a worker's queue that follow the one that was just
    /// taken and may be sent with it as a run: all their inputs are at that worker, and it is the
    /// first attempt of each. How many tasks the run has.
    fn take_followers(&mut self, id: WorkerId, first: Entry, room: u32) -> u32 {
        let worker = self.worker(id).expect("alive");
        // Others may have to help with what is left.
        let n_pending = worker.pending.len() as u32 + 1;
        let fair = n_pending / (SHARE * worker.hello.nthreads.max(1));
        let n_max = room.min(fair).min(RUN_MAX);
        if n_max <= 1 || worker.status.is_crowded || !self.fits_a_run(id, first.task()) {
            return 1;
        }
        let mut count = 1;
        while count < n_max {
            let next = Entry { index: first.index + count, ..first };
            if self.next_of(Some(id)) != Some(next) || !self.fits_a_run(id, next.task()) {
                break;
            }
            self.worker_mut(id).expect("alive").pending.pop();
            count += 1;
        }
        count
    }

    /// Whether a task of a map may be sent to a worker within a run.
    fn fits_a_run(&self, id: WorkerId, task: TaskRef) -> bool {
        let Recipe::Map(_) = &self.table.layer(task.layer).recipe else { return false };
        let record = self.table.task(task);
        if record.attempt > 0 || record.suspicion > 0 {
            return false;
        }
        let mut dependencies = TaskList::new();
        self.table.dependencies(task, &mut dependencies);
        dependencies.iter().all(|input| self.is_held_by(*input, id))
    }

    /// The first layer of roots that a worker may run.
    fn first_root(&self, id: WorkerId) -> Option<(Priority, u32)> {
        let mut roots = self.roots.keys().copied();
        roots.find(|(_, slot)| self.runs(id, TaskRef { layer: *slot, index: 0 }))
    }

    /// A worker whose memory fills up gets no large inputs in advance.
    fn depth_for(&self, id: WorkerId, task: TaskRef, depth: Depth) -> Depth {
        let worker = self.worker(id).expect("alive");
        if !worker.status.is_crowded {
            return depth;
        }
        let mut dependencies = TaskList::new();
        self.table.dependencies(task, &mut dependencies);
        let nbytes = dependencies.iter().map(|dependency| match self.state(*dependency) {
            State::Memory { nbytes, .. } => f64::from(nbytes),
            _ => f64::from(self.part_nbytes(*dependency)),
        });
        if worker.is_filled_by(nbytes.sum()) { Depth::Threads } else { depth }
    }

    /// Whether a worker's memory fills up and roots of a layer would fill it further.
    fn is_crowded_by(&self, id: WorkerId, slot: u32) -> bool {
        let worker = self.worker(id).expect("alive");
        if !worker.status.is_crowded {
            return false;
        }
        let Recipe::Map(map) = &self.table.layer(slot).recipe else { return false };
        worker.is_filled_by(self.templates.result_nbytes(map.template))
    }

    /// The first of the entries beside a worker and those that anybody may take; when its memory
    /// fills up, one that reads values of its own, unless its user says otherwise.
    fn first_of(&self, id: WorkerId, own: Option<Entry>, shared: Option<Entry>) -> Option<Entry> {
        match (own, shared) {
            (Some(own), Some(shared)) if self.worker(id).expect("alive").status.is_crowded => {
                let is_later = shared.priority.user < own.priority.user;
                Some(if is_later { shared } else { own })
            }
            (own, shared) => own.into_iter().chain(shared).min(),
        }
    }

    /// The first entry of a queue whose task is still ready.
    fn next_of(&mut self, worker: Option<WorkerId>) -> Option<Entry> {
        if self.table.is_worth_reading_ahead() {
            let queue = match worker {
                Some(id) => &mut self.worker_mut(id).expect("alive").pending,
                None => &mut self.ready,
            };
            let next = queue.look_ahead();
            if !next.is_empty() {
                self.table.read_ahead_of_calls(&next);
            }
        }
        loop {
            let queue = match worker {
                Some(id) => &mut self.worker_mut(id).expect("alive").pending,
                None => &mut self.ready,
            };
            let entry = queue.peek()?;
            if self.is_due(entry) {
                return Some(entry);
            }
            match worker {
                Some(id) => self.worker_mut(id).expect("alive").pending.pop(),
                None => self.ready.pop(),
            };
        }
    }

    /// The entry beside a worker that another one may best take.
    fn next_to_lend(&mut self, victim: WorkerId) -> Option<Entry> {
        loop {
            let entry = self.worker(victim).expect("alive").pending.peek_to_lend()?;
            if self.is_due(entry) {
                return Some(entry);
            }
            self.worker_mut(victim).expect("alive").pending.pop_to_lend();
        }
    }

    /// An entry that waits beside another worker, if that one is busy and this one idle.
    fn find_to_steal(
        &mut self,
        thief: WorkerId,
        occupancy: f64,
        victims: &mut Victims,
    ) -> Option<(Entry, WorkerId)> {
        let worker = self.worker(thief).expect("alive");
        if occupancy > DEPTH_NS * f64::from(worker.hello.nthreads) / 2.0 {
            return None;
        }
        let heap = victims.heap.get_or_insert_with(|| {
            let waiting = |id: &WorkerId| (self.n_pending(*id), Reverse(*id));
            self.alive.iter().map(waiting).filter(|(n, _)| *n > 0).collect()
        });
        loop {
            let mut most = heap.peek_mut()?;
            let (n, Reverse(victim)) = *most;
            let now = self.n_pending(victim);
            if now == 0 {
                PeekMut::pop(most);
                continue;
            }
            if now < n {
                most.0 = now;
                continue;
            }
            // One that is paused cannot use up its values itself.
            if self.worker(victim).expect("alive").is_idle() {
                return None;
            }
            if let Some(entry) = self.next_to_lend(victim) {
                if !self.runs(thief, entry.task()) {
                    return None;
                }
                sometimes("an idle worker looked at a busy one's queue");
                return Some((entry, victim));
            }
        }
    }

    fn n_pending(&self, id: WorkerId) -> usize {
        self.worker(id).expect("alive").pending.len()
    }

    /// Gives a worker the first of the tasks that ask for it or for what it has.
    fn give_restricted(&mut self, id: WorkerId, load: Load) -> Option<f64> {
        let mut best: Option<(Entry, usize, f64)> = None;
        for i in 0..self.worker(id).expect("alive").classes.len() {
            let class = self.worker(id).expect("alive").classes[i];
            let Some(entry) = self.next_of_class(class) else { continue };
            if best.is_some_and(|(other, ..)| other < entry) {
                continue;
            }
            let template = self.template_of(entry.task()).expect("a task with a recipe");
            let duration = self.templates.duration_ns(template);
            let cost = (duration, self.templates.result_nbytes(template));
            let worker = self.worker(id).expect("alive");
            let is_free = worker.has_free(&self.classes[class].options);
            if !is_free && mutant("wakeup-lost-on-resource-return") {
                self.classes[class].queue.pop();
                continue;
            }
            if is_free && worker.room(load, cost) > 0 {
                best = Some((entry, class, duration));
            }
        }
        let (entry, class, duration) = best?;
        self.classes[class].queue.pop();
        self.send(id, entry);
        Some(duration)
    }

    fn next_of_class(&mut self, class: usize) -> Option<Entry> {
        loop {
            let entry = self.classes[class].queue.peek()?;
            if self.is_due(entry) {
                return Some(entry);
            }
            self.classes[class].queue.pop();
        }
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
        let room = worker.room(load, (duration, self.templates.result_nbytes(template)));
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
            let run = Run::new(self.table.layer(slot).id, start, count);
            self.send_run(id, run, Entry { priority, layer: slot, index: start });
        }
        Some(f64::from(count) * duration)
    }

    /// When a worker has nothing to do and another has calls that wait behind long ones, those are
    /// asked back.
    fn retract(&mut self) {
        let is_free = |w: &WorkerId| {
            let worker = self.worker(*w).expect("alive");
            // One that does not run everything might get nothing of what is asked back.
            worker.is_idle() && worker.takes_work() && worker.hello.runs == self.offered
        };
        if !self.alive.iter().any(is_free) {
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
