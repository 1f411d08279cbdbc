//! A call's way through the worker: inputs gathered, ready, given to an executor, done.

use crate::event::Action;
use crate::executor::Executor;
use crate::held::Form;
use crate::worker::Worker;
use hashbrown::hash_map::Entry;
use rasker_graph::{Run, TaskId, TemplateKind};
use rasker_protocol::probe::{mutant, sometimes};
use rasker_protocol::{
    Calls, Done, ExecutorId, Failure, FailureKind, FromExecutor, FromWorker, Outcome, Progress,
    ToExecutor, Value, WorkerId,
};
use smallvec::SmallVec;
use std::sync::Arc;

/// Inputs of calls: mostly few.
pub(crate) type Inputs = SmallVec<[TaskId; 4]>;

impl Worker {
    /// Takes calls in: ready if all inputs are here, else their inputs are sent for.
    pub(crate) fn admit(&mut self, calls: Calls) {
        let kind = self.kind_of(calls.template);
        if !self.options.runs.has(kind) {
            return self.refuse(&calls, format!("it was given to a worker that runs no {kind:?}"));
        }
        if !calls.has_dependencies() {
            return self.ready.insert(calls);
        }
        let mut missing = Inputs::new();
        let has_large = !self.governor.is_empty();
        for index in calls.run.indices() {
            calls.each_dependency(index, |input| {
                if !self.held.contains(input) {
                    missing.push(input);
                } else if has_large {
                    self.governor.touch(input);
                }
            });
        }
        let absent = self.absent_parts(&calls);
        if self.give_back_unreadable(&calls, &absent) {
            return;
        }
        // Parts of values that live in an executor are asked for when the call's turn has come.
        if missing.is_empty() && !absent.is_to_be_asked_for() {
            return self.ready.insert(calls);
        }
        missing.sort_unstable();
        missing.dedup();
        let mut homeless = Inputs::new();
        let sources = Sources::of(&calls);
        for &input in &missing {
            let Entry::Vacant(place) = self.fetching.entry(input) else { continue };
            match sources.find(input) {
                Some(worker) => {
                    place.insert(worker);
                    self.to_fetch.entry(worker).or_default().push(input);
                }
                None => homeless.push(input),
            }
        }
        if !homeless.is_empty() {
            return self.give_up(&calls, &homeless);
        }
        self.wait_for(calls, missing, absent);
    }

    /// Calls that nothing here can run fail, as they would wait for ever.
    fn refuse(&mut self, calls: &Calls, why: String) {
        let key = calls.label.of(calls.run.start);
        let text = format!("task \"{key}\" cannot run: {why}");
        let failure = Arc::new(Failure::new(FailureKind::Exception, key, text));
        let (run, attempt) = (calls.run, calls.attempt);
        self.progress.push(Progress::Failed { run, attempt, failure });
    }

    /// Tells the scheduler that inputs are not where it thought.
    pub(crate) fn give_up(&mut self, calls: &Calls, inputs: &[TaskId]) {
        let sources = Sources::of(calls);
        let gone: hashbrown::HashSet<TaskId, foldhash::fast::FixedState> =
            inputs.iter().copied().collect();
        for index in calls.run.indices() {
            let mut read = calls.dependencies(index);
            read.sort_unstable();
            read.dedup();
            let inputs = read.into_iter().filter(|input| gone.contains(input));
            let holder = |input| sources.find(input).unwrap_or(WorkerId::NOBODY);
            let inputs = inputs.map(|input| (input, holder(input))).collect();
            let task = TaskId::new(calls.run.layer, index);
            if !mutant("missing-input-not-told") {
                self.progress.push(Progress::Missing { task, attempt: calls.attempt, inputs });
            }
        }
    }

    /// Calls that waited for inputs are gone.
    pub(crate) fn waits_no_more(&mut self, number: u64) {
        let Some(waiting) = self.waiting.remove(&number) else { return };
        self.drop_pieces(&waiting.calls);
        self.asks_no_more(number);
        for input in waiting.inputs {
            if let Some(numbers) = self.wanted_by.get_mut(&input) {
                numbers.retain(|other| *other != number);
                if numbers.is_empty() {
                    self.wanted_by.remove(&input);
                }
            }
        }
    }

    /// An input is here, or will never be: the calls that wait for it move on.
    pub(crate) fn arrived(&mut self, input: TaskId, is_here: bool) {
        if !is_here {
            sometimes("an input could not be had");
            if mutant("fetch-error-ignored") {
                return;
            }
        }
        for number in self.wanted_by.remove(&input).unwrap_or_default() {
            let Some(waiting) = self.waiting.get_mut(&number) else { continue };
            waiting.n_missing -= 1;
            if !is_here {
                let calls = waiting.calls.clone();
                self.waits_no_more(number);
                self.give_up(&calls, &[input]);
            } else {
                self.move_on(number);
            }
        }
    }

    pub(crate) fn export(&mut self, task: TaskId, executor: ExecutorId, value: Option<Value>) {
        if self.exporting.insert(task)
            && let Some(executor) = self.executor_mut(executor)
        {
            executor.pin(task);
            match executor.out.last_mut() {
                Some(ToExecutor::Export(tasks)) => tasks.push((task, value)),
                _ => executor.out.push(ToExecutor::Export(vec![(task, value)])),
            }
        }
    }

    pub(crate) fn on_executor(
        &mut self,
        id: ExecutorId,
        message: FromExecutor,
        out: &mut Vec<Action>,
    ) {
        let Some(executor) = self.executor_mut(id) else {
            // From an executor that is counted as lost.
            self.n_disbelieved += 1;
            return;
        };
        match message {
            FromExecutor::Ready { .. } => executor.is_up = true,
            FromExecutor::Done(dones) => {
                self.progress.reserve(dones.len());
                dones.into_iter().for_each(|done| self.on_done(id, done));
            }
            FromExecutor::Recalled(runs) => self.on_recalled(id, runs),
            FromExecutor::Exported { task, value } => {
                if self.exporting.contains(&task) {
                    self.executor_mut(id).expect("just seen").unpin(task);
                    self.on_exported(task, value, out);
                } else {
                    self.n_disbelieved += 1;
                }
            }
            FromExecutor::Answer { id, answer } => {
                let answer = match answer {
                    rasker_graph::Blob::Bytes(bytes) => {
                        rasker_protocol::Datum::Bytes(bytes.to_vec())
                    }
                    rasker_graph::Blob::Local(_) => rasker_protocol::Datum::Null,
                };
                out.push(Action::ToScheduler(FromWorker::Answer { id, answer }));
            }
            FromExecutor::Shared { nbytes } => self.on_shared(id, nbytes, out),
            FromExecutor::Seceded { by } => {
                executor.nthreads = executor.nthreads.saturating_add_signed(by);
                let nthreads = self.n_slots();
                self.progress.push(Progress::Threads { nthreads });
            }
        }
    }

    fn on_done(&mut self, id: ExecutorId, done: Done) {
        let Done { run, attempt, elapsed_ns, outcome } = done;
        let executor = self.executor_mut(id).expect("just seen");
        let Some(given) = executor.take(run, attempt) else {
            self.n_disbelieved += 1;
            return;
        };
        self.governor.count_pieces(given.pieces_nbytes, false);
        self.governor.has_ended = true;
        self.observe(given.template, run.count, elapsed_ns);
        if given.cancelled.is_empty() || self.is_parted {
            let done = Done { run, attempt, elapsed_ns, outcome };
            return self.on_outcome(id, done, given.is_cancelled);
        }
        // Of what was cancelled nobody hears. A copy may be here or on its way, which the
        // scheduler knows: the result must not take its place.
        sometimes("a call ended that had been cancelled");
        let mut rest = vec![run];
        for cancelled in &given.cancelled {
            rest = rest.into_iter().flat_map(|part| part.without(*cancelled)).collect();
        }
        if attempt > 0 || matches!(outcome, Outcome::Live { .. }) {
            let is_void = |task: &TaskId| !rest.iter().any(|part| part.contains(*task));
            run.tasks().filter(is_void).for_each(|task| self.drop_result(id, task));
        }
        for part in rest {
            let outcome = match &outcome {
                Outcome::Values(column) if column.len() == run.count => {
                    Outcome::Values(column.slice(part.start - run.start, part.count))
                }
                Outcome::Value(value) if value.fits(run.count) => {
                    Outcome::Value(value.slice(part.start - run.start, part.count))
                }
                other => other.clone(),
            };
            let elapsed_ns = elapsed_ns / u64::from(run.count) * u64::from(part.count);
            self.on_outcome(id, Done { run: part, attempt, elapsed_ns, outcome }, true);
        }
    }

    fn on_outcome(&mut self, id: ExecutorId, done: Done, is_cancelled: bool) {
        let Done { run, attempt, elapsed_ns, outcome } = done;
        match outcome {
            _ if attempt == 0 => {}
            Outcome::Live { .. } => {}
            Outcome::Failed(_) => run.tasks().for_each(|task| self.drop_result(id, task)),
            // Nothing of an earlier attempt is to stay.
            _ => {
                let executor = self.executor_mut(id).expect("just seen");
                run.tasks().for_each(|task| executor.drop_value(task));
            }
        }
        let (form, values) = match outcome {
            Outcome::Failed(failure) => {
                let was_cancelled = failure.kind == FailureKind::Cancelled;
                self.progress.push(if was_cancelled && !is_cancelled {
                    // Nobody here cancelled it: the scheduler is to decide anew.
                    Progress::Retracted { run, attempt }
                } else {
                    Progress::Failed { run, attempt, failure }
                });
                return;
            }
            Outcome::Values(column) if column.len() == run.count => {
                let value = Value::Column(column);
                (Form::Value(value.clone()), Some(value))
            }
            Outcome::Value(value @ Value::Column(_)) if value.fits(run.count) => {
                (Form::Value(value.clone()), Some(value))
            }
            Outcome::Live { nbytes } if run.count == 1 => {
                (Form::Live { executor: id, nbytes }, None)
            }
            Outcome::Value(value) if run.count == 1 && value.fits(1) => {
                let rides = self.options.local_clients && matches!(value, Value::Object { .. });
                let riding = rides.then(|| value.clone());
                (Form::Value(value), riding)
            }
            _ => {
                // The call is off the executor's hands, so somebody has to hear of it.
                self.n_disbelieved += 1;
                let reason = "its executor gave an answer that does not fit the call".to_owned();
                self.progress.push(Progress::Crashed { run, attempt, reason });
                return;
            }
        };
        let nbytes = form.nbytes();
        self.put(run, form);
        if mutant("report-sent-twice") {
            let values = values.clone();
            self.progress.push(Progress::Finished { run, attempt, elapsed_ns, nbytes, values });
        }
        self.progress.push(Progress::Finished { run, attempt, elapsed_ns, nbytes, values });
        if !self.wanted_by.is_empty() {
            run.tasks().for_each(|task| self.arrived(task, true));
        }
    }

    /// What an executor has of a call that came to nothing is dropped; but for the value of an
    /// earlier attempt that is held, and for that of a later one that it is to run still.
    fn drop_result(&mut self, id: ExecutorId, task: TaskId) {
        let is_held =
            matches!(self.held.single(task), Some(Form::Live { executor, .. }) if *executor == id);
        let executor = self.executor_mut(id).expect("just seen");
        let is_to_come = executor.given.iter().any(|given| given.run.contains(task));
        if !is_held && !is_to_come {
            executor.drop_value(task);
        }
    }

    fn observe(&mut self, template: rasker_graph::TemplateId, count: u32, elapsed_ns: u64) {
        let seen = (elapsed_ns as f64 / f64::from(count)).max(50.0);
        let known = self.durations.entry(template).or_insert(seen);
        *known += if seen < *known { 0.6 } else { 0.2 } * (seen - *known);
    }

    /// Gives back all calls that have not begun.
    pub(crate) fn retract(&mut self) {
        let mut any = false;
        for calls in self.ready.extract(|_| true) {
            any = true;
            self.drop_pieces(&calls);
            if mutant("retraction-forgotten") {
                continue;
            }
            sometimes("ready calls were handed back");
            self.progress.push(Progress::Retracted { run: calls.run, attempt: calls.attempt });
            if mutant("retracted-and-kept") {
                self.ready.insert(calls);
            }
        }
        for executor in &mut self.executors {
            if executor.is_up && executor.n_given > executor.nthreads && !executor.recalling {
                executor.recalling = true;
                executor.out.push(ToExecutor::Recall);
                any = true;
            }
        }
        if !any {
            let run = Run::new(rasker_graph::LayerId(0), 0, 0);
            self.progress.push(Progress::Retracted { run, attempt: 0 });
        }
    }

    fn on_recalled(&mut self, id: ExecutorId, runs: Vec<(Run, u32)>) {
        let executor = self.executor_mut(id).expect("just seen");
        executor.recalling = false;
        let (mut back, mut pieces_nbytes) = (Vec::new(), 0);
        for (run, attempt) in runs {
            let Some(given) = self.executor_mut(id).expect("just seen").take(run, attempt) else {
                continue;
            };
            pieces_nbytes += given.pieces_nbytes;
            if attempt > 0 {
                // It was to take the place of an earlier value, which nobody drops else.
                run.tasks().for_each(|task| self.drop_result(id, task));
            }
            sometimes("calls came back from an executor");
            back.push(Progress::Retracted { run, attempt });
        }
        self.governor.count_pieces(pieces_nbytes, false);
        self.progress.extend(back);
    }

    pub(crate) fn cancel(&mut self, run: Run, attempt: u32) {
        let matches =
            |calls: &Calls| calls.attempt == attempt && calls.run.intersect(run).is_some();
        for calls in self.ready.extract(matches) {
            self.drop_pieces(&calls);
            for part in without(calls, run) {
                self.ready.insert(part);
            }
        }
        let numbers: Vec<u64> = (self.waiting.iter())
            .filter(|(_, waiting)| matches(&waiting.calls))
            .map(|(number, _)| *number)
            .collect();
        for number in &numbers {
            sometimes("a call was cancelled while its inputs were on their way");
            self.waits_no_more(*number);
        }
        for executor in &mut self.executors {
            let mut is_given = false;
            for given in &mut executor.given {
                if given.attempt == attempt
                    && let Some(both) = given.run.intersect(run)
                {
                    sometimes("a call was cancelled while an executor had it");
                    given.is_cancelled = true;
                    given.cancelled.push(both);
                    is_given = true;
                }
            }
            if is_given {
                executor.out.push(ToExecutor::Cancel(vec![(run, attempt)]));
            }
        }
    }

    pub(crate) fn free(&mut self, run: Run) {
        if !mutant("free-ignored") {
            self.let_go(run);
            // An exchange goes by itself, as nothing else has its name.
            if !self.exchanges.is_empty() {
                self.exchanges.retain(|exchange, _| !run.contains(*exchange));
            }
        }
    }

    /// An executor died. What ran in it is under suspicion, what only waited in it is not.
    pub(crate) fn on_executor_lost(
        &mut self,
        id: ExecutorId,
        reason: &str,
        running: Option<&[(TaskId, u32)]>,
        out: &mut Vec<Action>,
    ) {
        let Some(at) = self.executors.iter().position(|executor| executor.id == id) else { return };
        let executor = self.executors.remove(at);
        let doomed = self.doomed.take_if(|doom| doom.executor == id);
        let pieces_nbytes = executor.given.iter().map(|given| given.pieces_nbytes).sum::<u64>();
        self.governor.count_pieces(pieces_nbytes, false);
        let blamed = blamed(&executor, running, self.options.nthreads);
        let is_alone = blamed.iter().map(|(run, _)| run.count).sum::<u32>() == 1;
        for &(run, attempt) in &blamed {
            match &doomed {
                Some(doom) => {
                    let key = executor.key_of(TaskId::new(run.layer, run.start));
                    self.out_of_memory(run, attempt, doom, key.filter(|_| is_alone));
                }
                None => {
                    let reason = reason.to_owned();
                    self.progress.push(Progress::Crashed { run, attempt, reason });
                }
            }
        }
        for given in &executor.given {
            let mut rest = vec![given.run];
            for (run, _) in blamed.iter().filter(|(_, attempt)| *attempt == given.attempt) {
                rest = rest.into_iter().flat_map(|part| part.without(*run)).collect();
            }
            let attempt = given.attempt;
            let back = rest.into_iter().map(|run| Progress::Retracted { run, attempt });
            self.progress.extend(back);
        }
        let lost = match mutant("values-of-dead-executor-kept") {
            true => Vec::new(),
            false => self.held.remove_executor(id),
        };
        for task in lost.iter().flat_map(|run| run.tasks()) {
            self.let_go_of_record(task);
        }
        // Exports are asked of Python's executor alone, and there is one.
        let mut exporting: Vec<TaskId> = match executor.kind {
            TemplateKind::Python => self.exporting.iter().copied().collect(),
            TemplateKind::Native => Vec::new(),
        };
        exporting.sort_unstable();
        let mut again = Vec::new();
        for task in exporting {
            match self.held.get(task) {
                Some(Form::Value(value)) => again.push((task, value)),
                _ if mutant("export-of-dead-executor-awaited") => {}
                _ => {
                    sometimes("an executor died while it wrote a value");
                    self.on_exported(task, Ok(None), out);
                }
            }
        }
        if !lost.is_empty() {
            self.progress.push(Progress::Dropped { runs: lost });
        }
        self.start_executor(executor.kind, out);
        self.progress.push(Progress::Threads { nthreads: self.n_slots() });
        let successor = self.executors.last().expect("just started").id;
        for (task, value) in again {
            self.exporting.remove(&task);
            self.export(task, successor, Some(value));
        }
    }
}

/// Who has the inputs of some calls, to be asked for many of them.
struct Sources(SmallVec<[(Run, WorkerId); 2]>);

impl Sources {
    fn of(calls: &Calls) -> Sources {
        let sources = calls.sources.iter();
        let mut sources: SmallVec<_> = sources.map(|source| (source.run, source.worker)).collect();
        sources.sort_unstable();
        Sources(sources)
    }

    fn find(&self, input: TaskId) -> Option<WorkerId> {
        let place = (input.layer, input.index);
        let after = self.0.partition_point(|(run, _)| (run.layer, run.start) <= place);
        // Mostly it is the last that begins before it; runs may overlap, though.
        let before = self.0[..after].iter().rev();
        before.take(1).chain(&self.0).find(|(run, _)| run.contains(input)).map(|(_, w)| *w)
    }
}

/// The calls under suspicion after an executor's death: those that it said it ran, as far as it had
/// been given them. If it said nothing, as many of the first as it had threads.
fn blamed(
    executor: &Executor,
    running: Option<&[(TaskId, u32)]>,
    nthreads: u32,
) -> Vec<(Run, u32)> {
    if let Some(running) = running {
        let was_given = |task: &TaskId, attempt: u32| {
            let has = |run: Run| run.intersect(task.run()).is_some();
            executor.given.iter().any(|given| given.attempt == attempt && has(given.run))
        };
        let mut seen: Vec<(Run, u32)> = (running.iter())
            .filter(|(task, attempt)| was_given(task, *attempt))
            .map(|(task, attempt)| (task.run(), *attempt))
            .collect();
        seen.dedup();
        return seen;
    }
    let mut left = nthreads;
    let mut first = Vec::new();
    for given in &executor.given {
        let n = match mutant("all-assigned-blamed") {
            true => given.run.count,
            false => left.min(given.run.count),
        };
        left = left.saturating_sub(n);
        if n > 0 {
            first.push((Run::new(given.run.layer, given.run.start, n), given.attempt));
        }
    }
    first
}

/// The parts of `calls` outside `run`.
fn without(mut calls: Calls, run: Run) -> Vec<Calls> {
    let mut parts = Vec::new();
    if run.start > calls.run.start {
        parts.push(calls.split_front(run.start - calls.run.start));
    }
    if run.end() < calls.run.end() {
        calls.split_front(run.end() - calls.run.start);
        parts.push(calls);
    }
    parts
}
