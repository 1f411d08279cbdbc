//! The only code that writes a task's state. A change of one task is a step; what follows from it
//! is pushed to the list of steps.
//!
//! The counters of a task follow from the states of its dependents:
//! `waiting_dependents` counts the active ones, `alive_dependents` those that are not forgotten.

use crate::scheduler::{Scheduler, Step};
use crate::story::Moment;
use crate::table::{Recipe, State, TaskList, TaskRef};
use rasker_graph::{Run, TaskId};
use rasker_protocol::probe::{mutant, sometimes};
use rasker_protocol::{Failure, FailureKind, Finished, ToWorker, WorkerId};
use std::sync::Arc;

impl Scheduler {
    pub(crate) fn settle(&mut self) {
        while let Some(step) = self.todo.pop() {
            let (Step::Consider(task) | Step::Compute(task) | Step::Fail(task, _)) = step;
            // Its layer may have gone with an earlier step.
            let is_there = self.table.layers[task.layer as usize].is_some();
            match step {
                Step::Consider(task) if is_there => self.consider(task),
                Step::Compute(task) if is_there => self.compute(task),
                Step::Fail(task, failure) => {
                    if is_there {
                        self.fail(task, failure);
                    }
                    self.hold_failure(failure, -1);
                }
                _ => {}
            }
        }
    }

    /// The task is to fail; until then its failure is held.
    pub(crate) fn fail_later(&mut self, task: TaskRef, failure: u32) {
        self.hold_failure(failure, 1);
        self.todo.push(Step::Fail(task, failure));
    }

    pub(crate) fn set(&mut self, task: TaskRef, state: State) {
        let record = self.table.task_mut(task);
        let before = std::mem::replace(&mut record.state, state);
        if let State::Failed { failure } = state {
            self.hold_failure(failure, 1);
        }
        if let State::Failed { failure } = before {
            self.hold_failure(failure, -1);
        }
    }

    pub(crate) fn state(&self, task: TaskRef) -> State {
        self.table.task(task).state
    }

    pub(crate) fn each_dependent(
        &mut self,
        task: TaskRef,
        mut f: impl FnMut(&mut Scheduler, TaskRef),
    ) {
        let mut dependents = TaskList::new();
        self.table.dependents(task, &mut dependents);
        for dependent in dependents {
            f(self, dependent);
        }
    }

    fn each_dependency(&mut self, task: TaskRef, mut f: impl FnMut(&mut Scheduler, TaskRef)) {
        let mut dependencies = TaskList::new();
        self.table.dependencies(task, &mut dependencies);
        for dependency in dependencies {
            f(self, dependency);
        }
    }

    pub(crate) fn wake(&mut self, task: TaskRef) {
        if let State::Waiting { missing } = self.state(task) {
            if missing > 1 {
                self.set(task, State::Waiting { missing: missing - 1 });
            } else {
                self.begin(task);
            }
        }
    }

    /// All inputs are there.
    fn begin(&mut self, task: TaskRef) {
        if self.table.is_exchange(task) { self.open(task) } else { self.make_ready(task) }
    }

    /// Plans to make a value: its inputs are needed from now on.
    pub(crate) fn compute(&mut self, task: TaskRef) {
        if self.state(task) != State::Released {
            return;
        }
        if matches!(self.table.layer(task.layer).recipe, Recipe::Data { .. }) {
            let failure = self.lost_failure(task);
            self.fail_later(task, failure);
            return;
        }
        self.set(task, State::Waiting { missing: u32::MAX });
        let mut missing = 0;
        let mut failed = None;
        let is_exchange = self.table.is_exchange(task);
        let mut is_nested = false;
        self.each_dependency(task, |s, dependency| {
            s.table.task_mut(dependency).waiting_dependents += 1;
            is_nested |= is_exchange && s.table.is_exchange(dependency);
            match s.state(dependency) {
                State::Memory { .. } | State::Open { .. } => {}
                State::Failed { failure } if !mutant("failed-input-awaited") => {
                    sometimes("a task was entered over a failed input");
                    failed = Some(failure);
                }
                state => {
                    missing += 1;
                    if state == State::Released {
                        s.todo.push(Step::Compute(dependency));
                    }
                }
            }
        });
        if is_nested {
            let failure = self.nested_failure(task);
            self.fail_later(task, failure);
        } else if let Some(failure) = failed {
            self.fail_later(task, failure);
        } else if missing == 0 {
            self.begin(task);
        } else {
            self.set(task, State::Waiting { missing });
        }
    }

    fn lost_failure(&mut self, task: TaskRef) -> u32 {
        let key = self.key_text(task);
        let text = format!(
            "value \"{key}\" was lost with its last holder and has no recipe; \
             scatter it to several workers with broadcast=True, or make it in a task"
        );
        self.add_failure(Arc::new(Failure::new(FailureKind::Lost, key, text)))
    }

    /// The task is active no more: its inputs may be.
    pub(crate) fn release_inputs(&mut self, task: TaskRef) {
        self.each_dependency(task, |s, dependency| {
            let record = s.table.task_mut(dependency);
            record.waiting_dependents -= 1 + u32::from(mutant("input-released-twice"));
            if record.waiting_dependents == 0 && !record.is_wanted() {
                s.todo.push(Step::Consider(dependency));
            }
        });
    }

    /// A worker made the value.
    pub(crate) fn finish(&mut self, task: TaskRef, worker: WorkerId, nbytes: f32) {
        self.set(task, State::Memory { holder: worker, nbytes });
        if !self.deaths.is_empty() {
            self.deaths.remove(&task);
        }
        self.release_inputs(task);
        self.each_dependent(task, |s, dependent| s.wake(dependent));
        let record = self.table.task(task);
        if record.waiting_dependents == 0 && !record.is_wanted() {
            self.todo.push(Step::Consider(task));
        }
    }

    /// The task's value cannot be made; nor can those of its dependents.
    fn fail(&mut self, task: TaskRef, failure: u32) {
        let state = self.state(task);
        if matches!(state, State::Failed { .. }) || state.is_gone() {
            return;
        }
        self.set(task, State::Failed { failure });
        self.note(task, Moment::Failed, WorkerId::NOBODY);
        if state.is_active() {
            self.release_inputs(task);
        }
        if self.table.is_exchange(task) {
            self.close(task);
        }
        let reason = self.failure(failure).clone();
        if reason.kind == FailureKind::Cancelled && !mutant("cancelled-key-joined") {
            // Clients take the key of a cancelled task for a free one, so nothing joins it here.
            self.table.remove_key(task);
        }
        self.tell_wanting(task, |client, run| client.tell_failed(run, reason.clone()));
        self.each_dependent(task, |s, dependent| {
            let is_open = matches!(
                s.state(dependent),
                State::Waiting { .. } | State::Ready | State::Open { .. }
            );
            if is_open && !mutant("failure-not-passed-on") {
                s.fail_later(dependent, failure);
            }
        });
        if !self.table.task(task).is_wanted() {
            self.todo.push(Step::Consider(task));
        }
    }

    /// Calls `tell` for every client that wants the task, with that client's name for it.
    pub(crate) fn tell_wanting(
        &mut self,
        task: TaskRef,
        mut tell: impl FnMut(&mut crate::peer::Client, Run),
    ) {
        let layer = self.table.layer(task.layer);
        let record = layer.task(task.index);
        if record.wanted
            && let Some(client) = self.clients.get_mut(&layer.client)
        {
            tell(client, Run::new(layer.id, task.index, 1));
        }
        if record.also_wanted {
            for (client, name) in self.table.also_wanted.get(&task).into_iter().flatten() {
                if let Some(client) = self.clients.get_mut(client) {
                    tell(client, name.run());
                }
            }
        }
    }

    /// Whether the task is in memory: tells all who want it.
    pub(crate) fn report(&mut self, task: TaskRef) {
        let State::Memory { holder, nbytes } = self.state(task) else { return };
        let held_as = self.table.id(task);
        let nbytes = nbytes as u64;
        self.tell_wanting(task, |client, run| {
            client.tell_finished(Finished { run, held_as, holder, nbytes, values: None });
        });
    }

    /// Lets go of what nobody needs any more.
    fn consider(&mut self, task: TaskRef) {
        let record = self.table.task(task);
        let is_read = record.waiting_dependents > 0 && !mutant("freed-while-read");
        if record.is_wanted() || is_read || record.state.is_gone() {
            return;
        }
        let alive = record.alive_dependents > 0;
        match record.state {
            State::Memory { .. } => {
                self.free(task);
                self.set(task, State::Released);
                if alive {
                    self.note(task, Moment::Unneeded, WorkerId::NOBODY);
                }
                // Its worker may keep the value while a call reads it: the next one is told apart.
                self.table.task_mut(task).attempt += 1;
            }
            State::Waiting { .. } | State::Ready | State::Open { .. } => {
                self.set(task, State::Released);
                self.release_inputs(task);
                if self.table.is_exchange(task) {
                    self.close(task);
                }
            }
            State::Processing { worker } => {
                sometimes("a task was let go while it was with a worker");
                self.stop(task, worker);
                self.set(task, State::Released);
                self.release_inputs(task);
            }
            _ => {}
        }
        if !alive {
            self.forget(task);
        }
    }

    /// Tells a worker that a call need not run, and takes it off its load.
    pub(crate) fn stop(&mut self, task: TaskRef, worker: WorkerId) {
        let attempt = u32::from(self.table.task(task).attempt);
        self.table.task_mut(task).attempt += 1;
        let run = self.table.id(task).run();
        self.story.add(self.now_ns, run, Moment::Withdrawn, worker);
        self.unload(task, 1, worker);
        if mutant("cancel-not-sent") {
            return;
        }
        let id = worker;
        if let Some(worker) = self.worker_mut(worker) {
            match worker.out.last_mut() {
                Some(ToWorker::Cancel(runs)) => runs.push((run, attempt)),
                _ => worker.out.push(ToWorker::Cancel(vec![(run, attempt)])),
            }
        }
        self.free_stray(task, id);
    }

    /// A call ended without a value, and its worker may hold one of an earlier attempt.
    pub(crate) fn free_stray(&mut self, task: TaskRef, worker: WorkerId) {
        let is_stray = std::mem::replace(&mut self.table.task_mut(task).is_stray, false);
        if is_stray && !mutant("stray-value-kept") {
            sometimes("a call ended beside a value of an earlier attempt");
            self.free_at(worker, self.table.id(task));
        }
    }

    pub(crate) fn free_run_at(&mut self, worker: WorkerId, run: Run) {
        if let Some(worker) = self.worker_mut(worker) {
            worker.out.push(ToWorker::Free(vec![run]));
        }
    }

    pub(crate) fn free_at(&mut self, worker: WorkerId, id: TaskId) {
        if let Some(worker) = self.worker_mut(worker) {
            match worker.out.last_mut() {
                Some(ToWorker::Free(runs)) => Run::push(runs, id),
                _ => worker.out.push(ToWorker::Free(vec![id.run()])),
            }
        }
    }

    /// Frees the value on all its holders.
    pub(crate) fn free(&mut self, task: TaskRef) {
        let State::Memory { holder, .. } = self.state(task) else { return };
        let id = self.table.id(task);
        let replicas = self.table.replicas.remove(&task).unwrap_or_default();
        if !self.transfers.is_empty() {
            self.transfers.remove(&task);
        }
        for worker in std::iter::once(holder).chain(replicas) {
            self.free_at(worker, id);
        }
    }

    fn forget(&mut self, task: TaskRef) {
        if !mutant("forgotten-key-kept") {
            self.table.remove_key(task);
        }
        self.table.clear_edges(task);
        if !self.deaths.is_empty() {
            self.deaths.remove(&task);
        }
        self.set(task, State::Forgotten);
        self.each_dependency(task, |s, dependency| {
            let record = s.table.task_mut(dependency);
            record.alive_dependents -= 1;
            if record.alive_dependents == 0 {
                s.table.clear_edges(dependency);
                s.todo.push(Step::Consider(dependency));
            }
        });
        let layer = self.table.layer_mut(task.layer);
        if let Recipe::Page(page) = &mut layer.recipe
            && let Ok(at) = page.blobs.binary_search_by_key(&task.index, |(index, _)| *index)
        {
            page.blobs[at].1 = rasker_graph::Blob::EMPTY;
        }
        self.drop_tasks(task.layer, 1);
    }

    /// `n` more tasks of a layer are forgotten; the layer goes with its last.
    pub(crate) fn drop_tasks(&mut self, slot: u32, n: u32) {
        let layer = self.table.layer_mut(slot);
        layer.alive -= n;
        if layer.alive > 0 {
            return;
        }
        let priority = layer.priority;
        self.roots.remove(&(priority, slot));
        for template in crate::submit::templates_of(&self.table.layer(slot).recipe) {
            self.templates.layer_removed(template);
        }
        self.detach_layer(slot);
        self.table.remove_layer(slot);
    }

    /// Layers that were read by position no longer know this one.
    fn detach_layer(&mut self, slot: u32) {
        let mut read = Vec::new();
        if let Recipe::Map(map) = &self.table.layer(slot).recipe {
            for input in &map.inputs {
                if let crate::table::MapInput::Tasks { layer, .. } = input {
                    read.push(*layer);
                }
            }
        }
        for layer in read {
            if let Some(layer) = self.table.layers[layer as usize].as_mut() {
                layer.dependents.retain(|(dependent, _)| *dependent != slot);
            }
        }
    }

    /// A holder of the value is gone. If it was the last one the value has to be made again.
    pub(crate) fn lose(&mut self, task: TaskRef, worker: WorkerId) {
        let State::Memory { holder, nbytes } = self.state(task) else { return };
        let replicas = self.table.replicas.get_mut(&task);
        let mut other = None;
        if let Some(replicas) = replicas {
            replicas.retain(|r| *r != worker);
            if holder == worker && !mutant("recovery-ignores-copies") {
                other = replicas.pop();
            }
            if replicas.is_empty() {
                self.table.replicas.remove(&task);
            }
        }
        if holder != worker {
            return;
        }
        if let Some(holder) = other {
            self.set(task, State::Memory { holder, nbytes });
            sometimes("a copy stood in for a lost value");
            self.note(task, Moment::Moved, worker);
            if !mutant("moved-value-not-told") {
                self.report(task);
            }
            self.moved(task);
            return;
        }
        self.set(task, State::Released);
        self.note(task, Moment::Lost, worker);
        if !self.transfers.is_empty() {
            self.transfers.remove(&task);
        }
        self.table.task_mut(task).attempt += 1;
        self.each_dependent(task, Scheduler::miss);
        let record = self.table.task(task);
        if record.is_wanted() || record.waiting_dependents > 0 {
            self.todo.push(Step::Compute(task));
            self.tell_wanting(task, |client, run| client.tell_pending(run));
        } else {
            self.todo.push(Step::Consider(task));
        }
    }

    /// Takes a call back that a worker was to run, to be planned anew.
    pub(crate) fn take_back(&mut self, task: TaskRef) {
        self.table.task_mut(task).attempt += u16::from(!mutant("attempt-not-raised"));
        self.set(task, State::Released);
        self.release_inputs(task);
        self.todo.push(Step::Compute(task));
    }
}
