//! What workers report of the calls they were given.

use crate::ahead::BATCH;
use crate::scheduler::Scheduler;
use crate::story::Moment;
use crate::table::{Recipe, State, TaskRef};
use crate::template::TemplateIx;
use rasker_graph::{Run, TaskId};
use rasker_protocol::probe::{mutant, sometimes};
use rasker_protocol::{Failure, FailureKind, Finished, Progress, Value, WorkerId};
use smallvec::SmallVec;
use std::sync::Arc;

/// No worker runs more calls at once.
const THREADS_MAX: u32 = 1 << 16;

impl Scheduler {
    /// Reads ahead for the reports of single tasks; those of runs stand side by side in memory.
    pub(crate) fn read_ahead_of_progress(&self, batch: &[Progress]) {
        if batch.len() < 2 || !self.table.is_worth_reading_ahead() {
            return;
        }
        let mut tasks: SmallVec<[TaskRef; BATCH]> = SmallVec::new();
        for progress in batch {
            if let Progress::Finished { run, .. } = progress
                && run.count == 1
                && let Some(&layer) = self.table.by_id.get(&run.layer)
            {
                tasks.push(TaskRef { layer, index: run.start });
            }
        }
        self.table.read_ahead_of_reports(&tasks);
    }

    pub(crate) fn on_progress(&mut self, worker: WorkerId, progress: &Progress) {
        match progress {
            Progress::Finished { run, attempt, elapsed_ns, nbytes, values } => {
                self.on_finished(worker, *run, *attempt, *elapsed_ns, *nbytes, values.as_ref());
            }
            Progress::Failed { run, attempt, failure } => {
                self.each_current(worker, *run, *attempt, |s, task| s.on_failed(task, failure));
            }
            Progress::Crashed { run, attempt, reason } => {
                let address = self.worker(worker).expect("just seen").hello.address.clone();
                self.each_current(worker, *run, *attempt, |s, task| {
                    s.note(task, Moment::Crashed, worker);
                    s.on_crashed(task, &address, reason);
                });
            }
            Progress::Retracted { run, attempt } => {
                // An input may have been lost meanwhile, so the call is planned anew.
                self.each_current(worker, *run, *attempt, |s, task| {
                    s.note(task, Moment::Retracted, worker);
                    s.take_back(task);
                });
            }
            Progress::Missing { task, attempt, inputs } => {
                self.on_missing(worker, *task, *attempt, inputs);
            }
            Progress::Copied { run, .. } => self.on_copied(worker, *run),
            Progress::NotCopied { runs } => {
                self.errands_fail(worker, runs);
            }
            Progress::Spare { runs } => {
                let runs: Vec<Run> = runs.iter().filter_map(|run| self.table.clip(*run)).collect();
                for id in runs.into_iter().flat_map(Run::tasks) {
                    self.spare(worker, id);
                }
            }
            Progress::Threads { nthreads } => {
                let nthreads = (*nthreads).min(THREADS_MAX);
                self.worker_mut(worker).expect("just seen").hello.nthreads = nthreads;
            }
            Progress::Dropped { runs } => {
                let runs: Vec<Run> = runs.iter().filter_map(|run| self.table.clip(*run)).collect();
                for id in runs.into_iter().flat_map(Run::tasks) {
                    if let Some(task) = self.table.find(id)
                        && task.index < self.table.layer(task.layer).expanded
                    {
                        self.lose(task, worker);
                    }
                }
            }
        }
    }

    /// Whether this is the attempt that the worker was given last.
    fn is_current(&self, worker: WorkerId, task: TaskRef, attempt: u32) -> bool {
        let layer = self.table.layer(task.layer);
        if task.index >= layer.expanded {
            return false;
        }
        let record = layer.task(task.index);
        let is_there = record.state == (State::Processing { worker })
            || mutant("completion-by-key-alone") && record.state.is_processing();
        let is_last = u32::from(record.attempt) == attempt || mutant("completion-by-key-alone");
        is_there && is_last
    }

    /// Calls `f` for the tasks of a run whose attempt is current, taken off the worker's load.
    fn each_current(
        &mut self,
        worker: WorkerId,
        run: Run,
        attempt: u32,
        mut f: impl FnMut(&mut Scheduler, TaskRef),
    ) {
        let Some(run) = self.table.clip(run) else {
            self.n_stale += u64::from(run.count > 0);
            return;
        };
        for id in run.tasks() {
            match self.table.find(id) {
                Some(task) if self.is_current(worker, task, attempt) => {
                    self.unload(task, 1, worker);
                    self.free_stray(task, worker);
                    f(self, task);
                    self.settle();
                }
                _ => self.n_stale += 1,
            }
        }
    }

    pub(crate) fn template_of(&self, task: TaskRef) -> Option<TemplateIx> {
        match &self.table.layer(task.layer).recipe {
            Recipe::Map(map) => Some(map.template),
            // Exchanges have none.
            Recipe::Page(page) => {
                page.templates.get(page.task(task.index).template as usize).copied()
            }
            Recipe::Data { .. } => None,
        }
    }

    /// `count` calls like this one are off the worker's hands.
    pub(crate) fn unload(&mut self, task: TaskRef, count: u32, worker: WorkerId) {
        let Some(template) = self.template_of(task) else { return };
        let worker = self.workers.get_mut(worker.0 as usize).and_then(|w| w.as_deref_mut());
        let Some(worker) = worker else { return };
        worker.end(template, count, self.table.options(task));
        if !worker.borrowed.is_empty()
            && let Some(lenders) = worker.borrowed.remove(&task)
        {
            self.repay(lenders);
        }
    }

    fn on_finished(
        &mut self,
        worker: WorkerId,
        run: Run,
        attempt: u32,
        elapsed_ns: u64,
        nbytes: u64,
        values: Option<&Value>,
    ) {
        if let Some(worker) = self.worker_mut(worker) {
            worker.retracting = false;
        }
        let Some(&slot) = self.table.by_id.get(&run.layer) else {
            return self.discard(worker, run);
        };
        let first = TaskRef { layer: slot, index: run.start };
        if run.count == 0 {
            return;
        }
        let values = values.filter(|values| values.fits(run.count));
        if run.end() > self.table.layer(slot).expanded {
            return self.discard(worker, run);
        }
        if let Some(template) = self.template_of(first) {
            self.templates.observe(template, run.count, elapsed_ns, nbytes);
        }
        let each = nbytes as f32 / run.count as f32;
        // Stretches of the run that are current, and of those that the client wants.
        let mut wanted: Option<Run> = None;
        let mut n_current = 0;
        for index in run.indices() {
            let task = TaskRef { layer: slot, index };
            if !self.is_current(worker, task, attempt) {
                self.discard(worker, Run::new(run.layer, index, 1));
                continue;
            }
            n_current += 1;
            if self.table.task(task).wanted {
                match &mut wanted {
                    Some(stretch) if stretch.end() == index => stretch.count += 1,
                    _ => {
                        self.report_run(slot, wanted, run, each, worker, values);
                        wanted = Some(Run::new(run.layer, index, 1));
                    }
                }
            }
            self.finish(task, worker, each);
            if self.table.task(task).also_wanted {
                self.report_others(task, worker, each);
            }
        }
        self.report_run(slot, wanted, run, each, worker, values);
        if n_current > 0 {
            self.story.add(self.now_ns, run, Moment::Finished, worker);
            self.unload(first, n_current, worker);
        }
    }

    /// Tells the client that submitted the layer of a stretch of finished tasks.
    fn report_run(
        &mut self,
        slot: u32,
        stretch: Option<Run>,
        run: Run,
        each: f32,
        holder: WorkerId,
        values: Option<&Value>,
    ) {
        let Some(stretch) = stretch else { return };
        let layer = self.table.layer(slot);
        let (client, rides) = (layer.client, layer.wants_values);
        let values = values
            .filter(|_| rides)
            .map(|column| column.slice(stretch.start - run.start, stretch.count));
        let nbytes = (each * stretch.count as f32) as u64;
        let held_as = TaskId::new(stretch.layer, stretch.start);
        if let Some(client) = self.clients.get_mut(&client) {
            client.tell_finished(Finished { run: stretch, held_as, holder, nbytes, values });
        }
    }

    fn report_others(&mut self, task: TaskRef, holder: WorkerId, nbytes: f32) {
        let held_as = self.table.id(task);
        let nbytes = nbytes as u64;
        for (client, name) in self.table.also_wanted.get(&task).into_iter().flatten() {
            if let Some(client) = self.clients.get_mut(client) {
                let run = name.run();
                client.tell_finished(Finished { run, held_as, holder, nbytes, values: None });
            }
        }
    }

    /// A result of an attempt that counts no more: the worker may drop it, unless it holds the
    /// value for another reason. While it runs a later attempt a `Free` might meet the value of
    /// that one, so it waits for its end.
    pub(crate) fn discard(&mut self, worker: WorkerId, run: Run) {
        self.n_stale += u64::from(run.count);
        if mutant("late-value-kept") {
            return;
        }
        let Some(run) = self.table.clip(run) else { return self.free_run_at(worker, run) };
        for id in run.tasks() {
            match self.table.find(id) {
                Some(task) if self.is_held_by(task, worker) => {}
                // It is to have a copy, and says that it has one when it is asked for it.
                Some(_) if self.is_to_copy(worker, id) && !mutant("late-value-freed-for-copy") => {
                    sometimes("a late value was taken for a copy");
                }
                Some(task) if self.is_processing_at(task, worker) => {
                    sometimes("a late value met a later attempt on the same worker");
                    self.table.task_mut(task).is_stray = true;
                }
                _ => self.free_at(worker, id),
            }
        }
    }

    pub(crate) fn is_processing_at(&self, task: TaskRef, worker: WorkerId) -> bool {
        let layer = self.table.layer(task.layer);
        task.index < layer.expanded
            && layer.task(task.index).state == (State::Processing { worker })
    }

    pub(crate) fn is_held_by(&self, task: TaskRef, worker: WorkerId) -> bool {
        if task.index >= self.table.layer(task.layer).expanded {
            return false;
        }
        matches!(self.state(task), State::Memory { holder, .. } if holder == worker)
            || (!self.table.replicas.is_empty()
                && self.table.replicas.get(&task).is_some_and(|r| r.contains(&worker)))
    }

    fn on_failed(&mut self, task: TaskRef, failure: &Arc<Failure>) {
        let allowed = self.table.options(task).retries;
        let record = self.table.task_mut(task);
        let may_again = record.retries_used < allowed || mutant("unbounded-retry");
        if may_again && failure.kind == FailureKind::Exception {
            record.retries_used = record.retries_used.wrapping_add(1);
            sometimes("a call was tried again after an exception");
            return self.take_back(task);
        }
        let attempts = u32::from(record.retries_used) + 1;
        let failure = if attempts > 1 {
            Arc::new(Failure { attempts, ..(**failure).clone() })
        } else {
            failure.clone()
        };
        let failure = self.add_failure(failure);
        self.fail_later(task, failure);
    }

    /// The task ran in an executor or on a worker that died. From now on it runs alone, so that no
    /// other task is taken for the one that brings executors down.
    pub(crate) fn on_crashed(&mut self, task: TaskRef, worker: &str, reason: &str) {
        let record = self.table.task_mut(task);
        record.suspicion = record.suspicion.saturating_add(u8::from(!mutant("crash-not-counted")));
        let n = record.suspicion;
        let line = format!("attempt {n} on {worker}: {reason}");
        let history = self.deaths.entry(task).or_default();
        history.push(line);
        if n <= self.options.allowed_failures {
            return self.take_back(task);
        }
        let history = self.deaths.remove(&task).unwrap_or_default();
        let key = self.key_text(task);
        let alone = if n > 1 { ", at last with nothing beside it" } else { "" };
        let text = format!(
            "task \"{key}\" was running {n} times while its executor died{alone}; \
             the last time, on {worker}: {reason}"
        );
        let mut failure = Failure::new(FailureKind::Killed, key, text);
        failure.attempts = u32::from(n);
        failure.worker = worker.to_owned();
        failure.history = history;
        let failure = self.add_failure(Arc::new(failure));
        self.fail_later(task, failure);
    }

    /// A call was given up: inputs were not where this scheduler said.
    fn on_missing(
        &mut self,
        worker: WorkerId,
        id: TaskId,
        attempt: u32,
        inputs: &[(TaskId, WorkerId)],
    ) {
        let current = self.table.find(id).filter(|task| self.is_current(worker, *task, attempt));
        if current.is_none() {
            // What was said of its inputs then need not be so now.
            self.n_stale += 1;
            return;
        }
        if let Some(task) = current {
            self.reread(task, inputs);
        }
        // Of what no other holder was named it was taken to be there.
        let holder = |holder: WorkerId| if holder == WorkerId::NOBODY { worker } else { holder };
        let named = inputs.iter();
        let gone: Vec<(TaskRef, WorkerId)> =
            named.filter_map(|(id, at)| Some((self.table.find(*id)?, holder(*at)))).collect();
        for (input, holder) in gone.into_iter().filter(|_| !mutant("missing-input-ignored")) {
            self.transfer_ended(input, worker);
            self.transfer_ended(input, holder);
            if self.is_held_by(input, holder) {
                sometimes("an input was not where it was believed to be");
                self.lose(input, holder);
                self.free_at(holder, self.table.id(input));
            }
        }
        self.settle();
        self.each_current(worker, id.run(), attempt, |s, task| {
            s.note(task, Moment::Missed, worker);
            s.take_back(task);
        });
    }

    /// A worker is short of memory: a copy that is only a replica there goes.
    fn spare(&mut self, worker: WorkerId, id: TaskId) {
        let Some(task) = self.table.find(id) else { return };
        let Some(replicas) = self.table.replicas.get_mut(&task) else { return };
        let before = replicas.len();
        replicas.retain(|other| *other != worker);
        let was_replica = replicas.len() < before;
        if replicas.is_empty() {
            self.table.replicas.remove(&task);
        }
        if was_replica {
            self.free_at(worker, id);
        }
    }
}
