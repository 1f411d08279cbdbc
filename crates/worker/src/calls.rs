//! A call's way through the worker: inputs gathered, ready, given to an executor, done.

use crate::event::Action;
use crate::executor::{Executor, FEED_NS};
use crate::held::Form;
use crate::parts::Absent;
use crate::worker::Worker;
use rasker_graph::{Input, Run, TaskId, TemplateKind};
use rasker_protocol::probe::{mutant, sometimes};
use rasker_protocol::{
    CallWork, Calls, Done, ExecutorCalls, ExecutorId, ExecutorWork, Failure, FailureKind,
    FromExecutor, FromWorker, Given, GivenInput, Outcome, Piece, Priority, Progress, ToExecutor,
    Value, WorkerId,
};
use smallvec::SmallVec;
use std::sync::Arc;

/// What a call is taken to last before one has been seen: one at a time.
const UNKNOWN_NS: f64 = FEED_NS;

type ReadyKey = (Priority, u64, u32);

pub(crate) fn ready_key(calls: &Calls) -> ReadyKey {
    (calls.priority, calls.run.layer.0, calls.run.start)
}

impl Worker {
    /// Takes calls in: ready if all inputs are here, else their inputs are sent for.
    pub(crate) fn admit(&mut self, calls: Calls) {
        let kind = self.kind_of(calls.template);
        if !self.options.runs.has(kind) {
            return self.refuse(&calls, format!("it was given to a worker that runs no {kind:?}"));
        }
        if kind == TemplateKind::Python && !calls.reads.is_empty() {
            let why = "an exchange is read by native tasks only, until Python can read parts";
            return self.refuse(&calls, why.to_owned());
        }
        if self.labels.len() > 4096 {
            self.labels.pop_first();
        }
        self.labels.insert(calls.run, calls.label.clone());
        if !calls.has_dependencies() {
            self.ready.insert(ready_key(&calls), calls);
            return;
        }
        let mut missing = hashbrown::HashSet::default();
        let has_large = !self.governor.is_empty();
        for index in calls.run.indices() {
            for input in calls.dependencies(index) {
                if !self.held.contains(input) {
                    missing.insert(input);
                } else if has_large {
                    self.governor.touch(input);
                }
            }
        }
        let absent = self.absent_parts(&calls);
        if self.give_back_unreadable(&calls, &absent) {
            return;
        }
        // Parts of values that live in an executor are asked for when the call's turn has come.
        if missing.is_empty() && !absent.is_to_be_asked_for() {
            self.ready.insert(ready_key(&calls), calls);
            return;
        }
        let mut homeless = Vec::new();
        let mut inputs: Vec<TaskId> = missing.iter().copied().collect();
        inputs.sort_unstable();
        let sources = Sources::of(&calls);
        for input in inputs {
            if self.fetching.contains_key(&input) {
                continue;
            }
            match sources.find(input) {
                Some(worker) => {
                    self.fetching.insert(input, worker);
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
    fn give_up(&mut self, calls: &Calls, inputs: &[TaskId]) {
        let sources = Sources::of(calls);
        let gone: hashbrown::HashSet<TaskId, foldhash::fast::FixedState> =
            inputs.iter().copied().collect();
        for index in calls.run.indices() {
            let mut read = calls.dependencies(index);
            read.sort_unstable();
            read.dedup();
            let inputs = read.into_iter().filter(|input| gone.contains(input));
            let inputs = inputs.filter_map(|input| Some((input, sources.find(input)?)));
            let task = TaskId::new(calls.run.layer, index);
            let inputs = inputs.collect();
            if !mutant("missing-input-not-told") {
                self.progress.push(Progress::Missing { task, attempt: calls.attempt, inputs });
            }
        }
    }

    /// Calls that waited for inputs are gone.
    pub(crate) fn waits_no_more(&mut self, number: u64) {
        let Some(waiting) = self.waiting.remove(&number) else { return };
        self.drop_pieces(&waiting.calls);
        for input in waiting.missing {
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
            waiting.missing.remove(&input);
            if !is_here {
                let calls = waiting.calls.clone();
                self.waits_no_more(number);
                self.give_up(&calls, &[input]);
            } else {
                self.move_on(number);
            }
        }
    }

    /// Gives ready calls to executors with room, the first in line first.
    pub(crate) fn feed(&mut self) {
        let is_tight = self.governor.is_tight(&self.held);
        loop {
            if self.governor.is_paused && self.is_running() {
                return;
            }
            let Some((key, at, n)) = self.next_to_give(is_tight) else { return };
            let mut calls = self.ready.remove(&key).expect("just seen");
            if calls.run.count > n {
                let front = calls.split_front(n);
                self.ready.insert(ready_key(&calls), calls);
                calls = front;
            }
            self.give(at, calls);
        }
    }

    /// The first calls in line for which there is room: where, and for how many of them. Calls of
    /// one kind do not wait behind those of the other whose executor is not up.
    fn next_to_give(&self, is_tight: bool) -> Option<(ReadyKey, usize, u32)> {
        // What reads values may make room; what makes new ones waits for the disk.
        let waits = self.governor.is_paused && self.governor.waits_for_disk();
        let mut blocked: SmallVec<[usize; 2]> = SmallVec::new();
        for (key, calls) in &self.ready {
            if waits && !calls.has_dependencies() {
                continue;
            }
            let Some(at) = self.executor_for(calls) else { continue };
            if blocked.contains(&at) {
                continue;
            }
            match self.room(at, calls, is_tight, !blocked.is_empty()) {
                0 => blocked.push(at),
                n => return Some((*key, at, n)),
            }
            if blocked.len() == self.executors.len() {
                break;
            }
        }
        None
    }

    fn executor_for(&self, calls: &Calls) -> Option<usize> {
        match &self.executors[..] {
            [_] => Some(0),
            several => {
                let kind = self.kind_of(calls.template);
                several.iter().position(|executor| executor.kind == kind)
            }
        }
    }

    /// How many more calls like these an executor may be given. All executors share the slots, so
    /// one is given calls in advance only while the others have none and nobody waits before them.
    fn room(&self, at: usize, calls: &Calls, is_tight: bool, is_behind: bool) -> u32 {
        let executor = &self.executors[at];
        if !executor.is_up || executor.is_reserved() {
            return 0;
        }
        let in_hand = match mutant("slots-not-shared") {
            true => executor.n_given,
            false => self.n_in_hand(),
        };
        let idle = self.n_slots().saturating_sub(in_hand);
        if calls.alone {
            return u32::from(executor.is_free() && idle > 0);
        }
        if is_tight {
            return if self.governor.is_paused { idle.min(1) } else { idle };
        }
        if is_behind || in_hand > executor.n_given {
            return idle;
        }
        let duration = |id| self.durations.get(&id).copied().unwrap_or(UNKNOWN_NS);
        let depth = FEED_NS * f64::from(executor.nthreads);
        let ahead = (depth - executor.load_ns(duration)) / duration(calls.template);
        idle.max(ahead.max(0.0) as u32)
    }

    fn give(&mut self, at: usize, calls: Calls) {
        let id = self.executors[at].id;
        let mut missing = hashbrown::HashSet::default();
        let mut reads = SmallVec::new();
        let absent = self.absent_parts(&calls);
        if self.give_back_unreadable(&calls, &absent) {
            return;
        }
        if !absent.is_empty() {
            missing.extend(absent.live.iter().copied());
            missing.extend(
                calls
                    .dependencies(calls.run.start)
                    .into_iter()
                    .filter(|task| !matches!(self.held.get(*task), Some(Form::Value(_)))),
            );
            return self.wait_for_exports(calls, missing, absent);
        }
        let mut pieces_nbytes = 0;
        if !self.governor.is_empty() {
            for index in calls.run.indices() {
                let inputs = calls.dependencies(index);
                reads.extend(inputs.into_iter().filter(|task| self.is_large_here(*task)));
            }
        }
        let work = match &calls.work {
            CallWork::One { args, dependencies } if calls.reads.is_empty() => {
                let given = dependencies.iter().map(|task| self.given(*task, id, &mut missing));
                ExecutorWork::One { args: args.clone(), given: given.collect() }
            }
            CallWork::One { args, dependencies } => {
                let number = (TaskId::new(calls.run.layer, calls.run.start), calls.attempt);
                let pieces = self.pieces.get(&number).cloned().unwrap_or_default();
                pieces_nbytes = pieces.values().map(Piece::nbytes).sum();
                let given = (0..).zip(dependencies).map(|(place, task)| {
                    match calls.reads.iter().find(|(other, _)| *other == place) {
                        Some((_, parts)) => self.given_parts(*task, *parts, &pieces, &mut reads),
                        None => self.given(*task, id, &mut missing),
                    }
                });
                ExecutorWork::One { args: args.clone(), given: given.collect() }
            }
            CallWork::Map { inputs, constants } => {
                let count = calls.run.count;
                let inputs = inputs.iter().map(|input| match input {
                    Input::Values(column) => GivenInput::Values(column.clone()),
                    Input::Tasks(first) => GivenInput::Each(
                        (0..count)
                            .map(|i| TaskId::new(first.layer, first.index + i))
                            .map(|task| self.given(task, id, &mut missing))
                            .collect(),
                    ),
                    Input::TaskList(tasks) => GivenInput::Each(
                        tasks.iter().map(|task| self.given(*task, id, &mut missing)).collect(),
                    ),
                });
                ExecutorWork::Map { inputs: inputs.collect(), constants: constants.clone() }
            }
        };
        if !missing.is_empty() {
            return self.wait_for_exports(calls, missing, Absent::default());
        }
        // They are counted until the call is done.
        self.pieces.remove(&(TaskId::new(calls.run.layer, calls.run.start), calls.attempt));
        let executor = &mut self.executors[at];
        executor.alone = calls.alone;
        executor.teach(calls.template, &self.templates);
        for step in &calls.fused {
            executor.teach(*step, &self.templates);
        }
        let Calls { run, attempt, template, label, .. } = calls;
        let calls = ExecutorCalls { run, attempt, template, label, work };
        executor.give(calls, reads, pieces_nbytes);
    }

    /// Whether a value is here as bytes, and large enough to matter; live ones are pinned anyway.
    pub(crate) fn is_large_here(&self, task: TaskId) -> bool {
        self.governor.get(task).is_some() && matches!(self.held.get(task), Some(Form::Value(_)))
    }

    /// An input as an executor can take it; `missing` gets those that live in another one, and
    /// those that went away meanwhile.
    fn given(
        &self,
        task: TaskId,
        executor: ExecutorId,
        missing: &mut hashbrown::HashSet<TaskId, foldhash::fast::FixedState>,
    ) -> Given {
        let is_native =
            self.executors.iter().any(|e| e.id == executor && e.kind == TemplateKind::Native);
        match self.held.get(task) {
            Some(Form::Live { executor: e, .. }) if e == executor => Given::Live(task),
            Some(Form::Value(Value::Object { .. })) if is_native => {
                missing.insert(task);
                Given::Live(task)
            }
            Some(Form::Value(value)) => Given::Value(value),
            _ => {
                missing.insert(task);
                Given::Live(task)
            }
        }
    }

    fn wait_for_exports(
        &mut self,
        calls: Calls,
        missing: hashbrown::HashSet<TaskId, foldhash::fast::FixedState>,
        absent: Absent,
    ) {
        let mut gone: SmallVec<[TaskId; 2]> = SmallVec::new();
        if !self.can_hold_inputs(&calls) {
            return self.drop_pieces(&calls);
        }
        let mut inputs: SmallVec<[TaskId; 4]> = missing.iter().copied().collect();
        inputs.sort_unstable();
        for input in inputs {
            match self.held.get(input) {
                Some(Form::Live { executor, .. }) => self.export(input, executor, None),
                Some(Form::Spilled { .. }) => self.want(input),
                Some(Form::Value(value @ Value::Object { .. })) => {
                    match self.python_executor().map(|executor| executor.id) {
                        Some(executor) => self.export(input, executor, Some(value)),
                        None => gone.push(input),
                    }
                }
                _ => gone.push(input),
            }
        }
        if !gone.is_empty() {
            gone.sort_unstable();
            self.drop_pieces(&calls);
            return self.give_up(&calls, &gone);
        }
        self.wait_for(calls, missing, absent);
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
        if self.executor_mut(id).is_none() {
            // From an executor that is counted as lost.
            self.n_disbelieved += 1;
            return;
        }
        match message {
            FromExecutor::Ready { .. } => self.executor_mut(id).expect("just seen").is_up = true,
            FromExecutor::Done(dones) => dones.into_iter().for_each(|done| self.on_done(id, done)),
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
                let executor = self.executor_mut(id).expect("just seen");
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
        let executor = self.executor_mut(id).expect("just seen");
        if attempt > 0 && !matches!(outcome, Outcome::Live { .. }) {
            // Nothing of an earlier attempt is to stay.
            run.tasks().for_each(|task| executor.drop_value(task));
        }
        self.governor.has_ended = true;
        self.observe(given.template, run.count, elapsed_ns);
        let (form, values) = match outcome {
            Outcome::Failed(failure) => {
                let is_cancelled = failure.kind == FailureKind::Cancelled;
                self.progress.push(if is_cancelled && !given.is_cancelled {
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
        let nbytes = match &form {
            Form::Value(value) => value.nbytes(),
            Form::Live { nbytes, .. } | Form::Spilled { nbytes } => *nbytes,
        };
        self.let_go_of_earlier(run);
        self.keep(run, form, false);
        if mutant("report-sent-twice") {
            let values = values.clone();
            self.progress.push(Progress::Finished { run, attempt, elapsed_ns, nbytes, values });
        }
        self.progress.push(Progress::Finished { run, attempt, elapsed_ns, nbytes, values });
        for task in run.tasks() {
            if self.wanted_by.contains_key(&task) {
                self.arrived(task, true);
            }
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
        for (_, calls) in std::mem::take(&mut self.ready) {
            any = true;
            self.drop_pieces(&calls);
            if mutant("retraction-forgotten") {
                continue;
            }
            sometimes("ready calls were handed back");
            self.progress.push(Progress::Retracted { run: calls.run, attempt: calls.attempt });
            if mutant("retracted-and-kept") {
                self.ready.insert(ready_key(&calls), calls);
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
            if let Some(given) = executor.take(run, attempt) {
                pieces_nbytes += given.pieces_nbytes;
                if attempt > 0 {
                    // It was to take the place of an earlier value, which nobody drops else.
                    run.tasks().for_each(|task| executor.drop_value(task));
                }
                sometimes("calls came back from an executor");
                back.push(Progress::Retracted { run, attempt });
            }
        }
        self.governor.count_pieces(pieces_nbytes, false);
        self.progress.extend(back);
    }

    pub(crate) fn cancel(&mut self, run: Run, attempt: u32) {
        let matches =
            |calls: &Calls| calls.attempt == attempt && calls.run.intersect(run).is_some();
        let keys: Vec<ReadyKey> =
            self.ready.iter().filter(|(_, calls)| matches(calls)).map(|(key, _)| *key).collect();
        for key in keys {
            let calls = self.ready.remove(&key).expect("just listed");
            self.drop_pieces(&calls);
            for part in without(calls, run) {
                self.ready.insert(ready_key(&part), part);
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
                if given.attempt == attempt && given.run.intersect(run).is_some() {
                    sometimes("a call was cancelled while an executor had it");
                    given.is_cancelled = true;
                    is_given = true;
                }
            }
            if is_given {
                executor.out.push(ToExecutor::Cancel(vec![(run, attempt)]));
            }
        }
    }

    /// The values of an earlier attempt make place; live ones were told to their executor before.
    fn let_go_of_earlier(&mut self, run: Run) {
        for gone in self.held.remove(run) {
            self.let_go_of_record(gone.task);
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
                Some(doom) => self.out_of_memory(run, attempt, doom, is_alone),
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
struct Sources(Vec<(Run, WorkerId)>);

impl Sources {
    fn of(calls: &Calls) -> Sources {
        let mut sources: Vec<(Run, WorkerId)> =
            calls.sources.iter().map(|source| (source.run, source.worker)).collect();
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
