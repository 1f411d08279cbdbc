//! Values in more than one place: copies, the loss of a holder, and what a worker that comes back
//! still has.

use crate::scheduler::{Scheduler, Step};
use crate::story::Moment;
use crate::table::{State, TaskList, TaskRef};
use rasker_graph::{Run, TaskId};
use rasker_protocol::probe::{mutant, sometimes};
use rasker_protocol::{FailureKind, Source, WorkerId};
use smallvec::SmallVec;

pub(crate) type Holders = SmallVec<[WorkerId; 4]>;

impl Scheduler {
    /// All workers that hold the value, the first holder first.
    pub(crate) fn holders_of(&self, task: TaskRef) -> Holders {
        let State::Memory { holder, .. } = self.state(task) else { return Holders::new() };
        let mut holders = Holders::from_slice(&[holder]);
        if let Some(replicas) = self.table.replicas.get(&task) {
            holders.extend_from_slice(replicas);
        }
        holders
    }

    /// Those holders that are heard of, if there are any.
    pub(crate) fn heard_holders_of(&self, task: TaskRef) -> Holders {
        let mut holders = self.holders_of(task);
        let is_heard = |id: &WorkerId| !self.worker(*id).is_some_and(|w| w.is_suspect);
        if holders.iter().any(is_heard) {
            holders.retain(|id| is_heard(id));
        }
        holders
    }

    /// Where a worker is to get a value: readers of a value with copies spread over them, and
    /// keep clear of holders that are not heard of.
    pub(crate) fn source_for(&self, task: TaskRef, reader: WorkerId) -> Option<Source> {
        let State::Memory { holder, nbytes } = self.state(task) else { return None };
        let mut worker = holder;
        if !self.table.replicas.is_empty() || self.n_sidelined > 0 {
            let holders = self.heard_holders_of(task);
            worker = holders[(reader.0 + task.index) as usize % holders.len()];
        }
        Some(Source { run: self.table.id(task).run(), worker, nbytes: nbytes as u64 })
    }

    pub(crate) fn on_copied(&mut self, worker: WorkerId, run: Run) {
        let Some(run) = self.table.clip(run) else {
            self.errands_fail(worker, &[run]);
            return self.discard(worker, run);
        };
        for id in run.tasks() {
            let task = self.table.find(id).filter(|task| {
                task.index < self.table.layer(task.layer).expanded
                    && (matches!(self.state(*task), State::Memory { .. })
                        || mutant("copy-of-nothing-counted"))
            });
            match task {
                Some(task) => self.add_replica(task, worker),
                None => {
                    // It was let go or lost meanwhile, so nobody is to wait for it.
                    self.errands_fail(worker, &[id.run()]);
                    self.discard(worker, id.run());
                }
            }
        }
    }

    fn add_replica(&mut self, task: TaskRef, worker: WorkerId) {
        if !self.is_held_by(task, worker) {
            self.table.replicas.entry(task).or_default().push(worker);
            self.note(task, Moment::Copied, worker);
        }
        self.transfer_ended(task, worker);
        self.errand_copied(task, worker);
    }

    /// What a worker that joined again still holds. A task's id is its generation, so a value of
    /// the same id is one that is wanted, or of no use to anybody.
    pub(crate) fn on_inventory(&mut self, worker: WorkerId, held: &[(Run, u64)]) {
        // Before all others, and all at once: what was lost may be needed together.
        let mut found: Vec<(TaskRef, f32)> = Vec::new();
        for &(run, nbytes) in held {
            let each = nbytes as f32 / run.count.max(1) as f32;
            let known = self.table.clip(run).into_iter().flat_map(Run::tasks);
            let known = known.filter_map(|id| self.table.find(id));
            found.extend(known.filter(|task| self.is_lost(*task)).map(|task| (task, each)));
        }
        if !found.is_empty() && !mutant("found-value-freed") {
            self.find_again(worker, &found);
            self.settle();
            self.let_found_go(&found);
            self.settle();
        }
        for &(run, nbytes) in held {
            let each = nbytes as f32 / run.count.max(1) as f32;
            let Some(known) = self.table.clip(run) else {
                self.free_run_at(worker, run);
                continue;
            };
            for id in known.tasks() {
                self.take_in(worker, id, each);
                self.settle();
            }
        }
    }

    fn take_in(&mut self, worker: WorkerId, id: TaskId, nbytes: f32) {
        let known = self.table.find(id);
        let Some(task) = known.filter(|t| t.index < self.table.layer(t.layer).expanded) else {
            return self.free_at(worker, id);
        };
        match self.state(task) {
            // Among them those that were found again just now.
            State::Memory { .. } => self.add_replica(task, worker),
            State::Waiting { .. } | State::Ready => {
                sometimes("an inventory brought a value that was to be made again");
                self.finish(task, worker, nbytes);
                self.report(task);
            }
            // Its call is under way to the same worker, whose answer takes the value's place.
            State::Processing { worker: maker } if maker == worker => {
                self.table.task_mut(task).is_stray = true;
            }
            State::Processing { worker: maker } => {
                self.stop(task, maker);
                self.finish(task, worker, nbytes);
                self.report(task);
            }
            // Nobody needs it.
            _ => self.free_at(worker, id),
        }
    }

    /// Whether the task failed because a value without a recipe was lost: its own, or an input's.
    pub(crate) fn is_lost(&self, task: TaskRef) -> bool {
        if task.index >= self.table.layer(task.layer).expanded {
            return false;
        }
        let State::Failed { failure } = self.state(task) else { return false };
        self.failure(failure).kind == FailureKind::Lost
    }

    /// Values that were given up are there after all: their futures have them from now on, and
    /// what had failed for want of them is made, as far as it is wanted still.
    fn find_again(&mut self, worker: WorkerId, values: &[(TaskRef, f32)]) {
        sometimes("a lost value was found again");
        let mut again: Vec<TaskRef> = Vec::new();
        let mut open: Vec<TaskRef> = values.iter().map(|(task, _)| *task).collect();
        while let Some(failed) = open.pop() {
            if !self.is_lost(failed) {
                continue;
            }
            self.set(failed, State::Released);
            self.table.task_mut(failed).attempt += 1;
            again.push(failed);
            let mut dependents = TaskList::new();
            self.table.dependents(failed, &mut dependents);
            open.extend(dependents);
        }
        // They are held until all that is to be made is planned: one reader that fails meanwhile
        // is not to take them from those that are planned after it.
        for &(task, nbytes) in values {
            self.set(task, State::Memory { holder: worker, nbytes });
            self.table.task_mut(task).waiting_dependents += 1;
            self.note(task, Moment::Found, worker);
            self.report(task);
        }
        // Those that nobody wants are made on the way to those that somebody does, or for calls
        // that were with a worker when their input failed, and are not failed with it.
        for failed in again {
            if matches!(self.state(failed), State::Memory { .. }) {
                continue;
            }
            let record = self.table.task(failed);
            if record.is_wanted() || record.waiting_dependents > 0 {
                self.tell_wanting(failed, |client, run| client.tell_pending(run));
                self.todo.push(Step::Compute(failed));
            } else {
                self.todo.push(Step::Consider(failed));
            }
        }
    }

    fn let_found_go(&mut self, values: &[(TaskRef, f32)]) {
        for &(task, _) in values {
            self.table.task_mut(task).waiting_dependents -= 1;
            self.todo.push(Step::Consider(task));
        }
    }
}
