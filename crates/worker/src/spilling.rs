//! Values leave memory and come back; the governor says which, and when.

use crate::event::Action;
use crate::governor::{Measured, Stage};
use crate::held::Form;
use crate::worker::Worker;
use hashbrown::HashSet;
use rasker_graph::{Run, TaskId};
use rasker_protocol::probe::{mutant, sometimes};
use rasker_protocol::{
    Calls, ExecutorId, Failure, FailureKind, FromWorker, Progress, ToExecutor, Value,
};
use std::sync::Arc;

/// Inputs of so many ready calls are kept, and read back before they are asked for.
const AHEAD: usize = 8;
/// What is read ahead takes this share of the limit at most.
const AHEAD_SHARE: f64 = 0.25;
/// An executor that holds so much beyond its values while nothing runs is started anew.
const RECYCLE_SHARE: f64 = 0.5;
/// Memory is full of values if they take this share of the limit.
const FULL_SHARE: f64 = 0.5;
/// So many measurements without change come before that.
const RECYCLE_AFTER: u32 = 20;

/// An executor that is being ended for its memory.
pub(crate) struct Doom {
    pub executor: ExecutorId,
    pub reason: String,
    /// Its memory grew while the call that runs was running.
    pub is_to_blame: bool,
}

type Tasks = HashSet<TaskId, foldhash::fast::FixedState>;

impl Worker {
    /// Lets values go, wherever they are.
    pub(crate) fn let_go(&mut self, run: Run) {
        for gone in self.held.remove(run) {
            if let Some((executor, nbytes)) = gone.live_in {
                self.governor.on_live_gone(nbytes);
                if let Some(executor) = self.executor_mut(executor) {
                    executor.drop_value(gone.task);
                }
            }
            self.let_go_of_record(gone.task);
        }
    }

    pub(crate) fn let_go_of_record(&mut self, task: TaskId) {
        if self.governor.is_empty() {
            return;
        }
        let Some(left) = self.governor.leave(task) else { return };
        if left.was_coming && !mutant("reader-of-freed-value-forgotten") {
            self.unread.push(task);
        }
        if let Some(record) = left.record
            && !mutant("record-not-forgotten")
        {
            self.forgotten.push(record);
        }
    }

    /// Says what is to be done for values that were let go of.
    pub(crate) fn settle(&mut self, out: &mut Vec<Action>) {
        out.extend(self.forgotten.drain(..).map(|record| Action::Forget { record }));
        for task in std::mem::take(&mut self.unread) {
            sometimes("a value was let go of before it was back from the disk");
            self.answer_requests(task, &Ok(None), out);
            self.arrived(task, self.held.contains(task));
        }
    }

    /// Makes room if there is too little, and reads back what calls wait for.
    pub(crate) fn govern(&mut self, out: &mut Vec<Action>) {
        if self.governor.n_away > 0 {
            self.look_ahead();
        }
        self.see_first_wanted();
        if self.governor.wants_room(&self.held) {
            let needed = self.needed();
            while self.governor.wants_room(&self.held) {
                let pinned = |task| needed.contains(&task) || self.is_in_use(task);
                let Some(task) = self.governor.victim(pinned) else { break };
                self.send_away(task, out);
            }
        } else if self.governor.n_away == 0 && self.governor.leaving_nbytes == 0 {
            self.governor.is_spilling = false;
        }
        self.read_back(out);
        self.look(out);
    }

    /// Inputs of calls that wait for others of their inputs, and of those that are next.
    fn needed(&self) -> Tasks {
        let mut needed = Tasks::default();
        let mut add = |calls: &Calls, n: u32| {
            for index in calls.run.indices().take(n as usize) {
                calls.each_dependency(index, |task| {
                    needed.insert(task);
                });
            }
        };
        self.waiting.values().for_each(|waiting| add(&waiting.calls, u32::MAX));
        let nthreads = self.options.nthreads;
        self.ready.iter().take(nthreads as usize).for_each(|calls| add(calls, nthreads));
        needed
    }

    fn is_in_use(&self, task: TaskId) -> bool {
        self.exporting.contains(&task)
            || self.requests_for.contains_key(&task)
            || self.wanted_by.contains_key(&task)
            || self.executors.iter().any(|executor| executor.has_pinned(task))
    }

    /// Takes the next step on a value's way out.
    fn send_away(&mut self, task: TaskId, out: &mut Vec<Action>) {
        let entry = self.governor.get(task).expect("a victim is known");
        let has_record = entry.record.is_some();
        if entry.is_copy {
            // The scheduler frees it if it is held elsewhere; else it is an only copy from now on.
            self.governor.is_no_copy(task);
            self.governor.touch(task);
            self.progress.push(Progress::Spare { runs: vec![task.run()] });
            return;
        }
        if !std::mem::replace(&mut self.governor.is_spilling, true) {
            let held = self.held.nbytes >> 20;
            let used = self.governor.used(&self.held) >> 20;
            let limit = self.governor.options.limit_nbytes >> 20;
            out.push(Action::Log(format!(
                "values go to disk: {used} MiB of {limit} MiB are in use, {held} MiB by values"
            )));
        }
        if has_record {
            return self.is_away(task);
        }
        let executor = self.python_executor().map(|executor| executor.id);
        match (self.held.get(task), executor) {
            (Some(Form::Live { executor, .. }), _) => {
                self.governor.set(task, Stage::Leaving);
                self.export(task, executor, None);
            }
            (Some(Form::Value(value @ Value::Object { .. })), Some(executor)) => {
                self.governor.set(task, Stage::Leaving);
                self.export(task, executor, Some(value));
            }
            (Some(Form::Value(value @ Value::Encoded { .. })), _) => {
                self.governor.set(task, Stage::Leaving);
                self.write(task, value, out);
            }
            _ => self.governor.set(task, Stage::Stuck),
        }
    }

    fn write(&mut self, task: TaskId, value: Value, out: &mut Vec<Action>) {
        match self.governor.begin_record(task) {
            Some(record) => out.push(Action::Spill { record, value }),
            None => {
                self.governor.set(task, Stage::Here);
                self.governor.refuse("the quota of the disk is used up");
            }
        }
    }

    fn is_away(&mut self, task: TaskId) {
        let nbytes = self.governor.get(task).expect("just seen").nbytes;
        self.governor.set(task, Stage::Away);
        self.held.replace(task, Form::Spilled { nbytes });
    }

    /// Bytes of a value that is to leave were made, or could not be.
    pub(crate) fn on_demoted(&mut self, task: TaskId, value: Option<Value>, out: &mut Vec<Action>) {
        if self.governor.get(task).is_none_or(|entry| entry.stage != Stage::Leaving) {
            return;
        }
        match value {
            Some(value @ Value::Encoded { .. }) => {
                self.held.replace(task, Form::Value(value.clone()));
                self.governor.resize(task, value.nbytes());
                self.write(task, value, out);
            }
            _ => self.governor.set(task, Stage::Stuck),
        }
    }

    pub(crate) fn on_spilled(
        &mut self,
        record: u64,
        nbytes: u64,
        result: Result<u64, String>,
        out: &mut Vec<Action>,
    ) {
        let is_whole = result.is_ok();
        match result {
            Ok(elapsed_ns) => {
                self.governor.disk.written_nbytes += nbytes;
                self.governor.disk.write_ns += elapsed_ns;
                self.governor.trouble = None;
            }
            Err(reason) => {
                if self.governor.trouble.is_none() {
                    out.push(Action::Log(format!("values stay in memory: {reason}")));
                }
                self.governor.trouble = Some(reason);
            }
        }
        match self.governor.end_record(record, nbytes, is_whole) {
            None if is_whole => out.push(Action::Forget { record }),
            None => {}
            Some(task)
                if self.is_in_use(task) || (!is_whole && !mutant("unwritten-value-dropped")) =>
            {
                sometimes("a value was needed while it left");
                self.governor.set(task, Stage::Here);
            }
            Some(task) => {
                sometimes("a value left for the disk");
                self.is_away(task);
            }
        }
    }

    /// Asks for a spilled value.
    pub(crate) fn want(&mut self, task: TaskId) {
        if self.governor.get(task).is_some_and(|entry| entry.stage == Stage::Away) {
            self.governor.set(task, Stage::Wanted);
            self.to_restore.push_back(task);
        }
    }

    /// Asks for spilled inputs of the calls that are next.
    fn look_ahead(&mut self) {
        let most = self.governor.options.share(AHEAD_SHARE);
        let mut inputs: Vec<TaskId> = Vec::new();
        for calls in self.ready.iter().take(AHEAD) {
            for index in calls.run.indices().take(AHEAD) {
                calls.each_dependency(index, |task| inputs.push(task));
            }
        }
        for task in inputs {
            if self.governor.coming_nbytes + self.governor.wanted_nbytes < most {
                self.want(task);
            }
        }
    }

    /// The first in line to come back: whether it fits decides whether any does.
    fn see_first_wanted(&mut self) {
        let wanted = |task: &TaskId| {
            let entry = self.governor.get(*task);
            entry.filter(|entry| entry.stage == Stage::Wanted).map(|entry| entry.nbytes)
        };
        self.governor.first_wanted_nbytes = self.to_restore.iter().find_map(wanted).unwrap_or(0);
    }

    fn read_back(&mut self, out: &mut Vec<Action>) {
        while let Some(&task) = self.to_restore.front() {
            let entry = self.governor.get(task).filter(|entry| entry.stage == Stage::Wanted);
            let Some((nbytes, record)) = entry.and_then(|e| Some((e.nbytes, e.record?))) else {
                self.to_restore.pop_front();
                continue;
            };
            if !self.governor.has_room_for(nbytes, &self.held, self.is_running()) {
                break;
            }
            self.to_restore.pop_front();
            self.governor.set(task, Stage::Coming);
            self.governor.reading.insert(record, task);
            out.push(Action::Restore { record });
        }
    }

    pub(crate) fn on_restored(
        &mut self,
        record: u64,
        result: Result<(Value, u64), String>,
        out: &mut Vec<Action>,
    ) {
        let Some(task) = self.governor.reading.remove(&record) else { return };
        let is_wanted = self.governor.get(task).is_some_and(|entry| entry.record == Some(record));
        if !is_wanted {
            // It was freed meanwhile.
            return;
        }
        let value = match result {
            Ok((value, elapsed_ns)) => {
                self.governor.disk.read_nbytes += value.nbytes();
                self.governor.disk.read_ns += elapsed_ns;
                self.governor.set(task, Stage::Here);
                self.governor.touch(task);
                self.held.replace(task, Form::Value(value.clone()));
                Some(value)
            }
            Err(reason) => {
                self.governor.disk.n_lost += 1;
                if self.governor.disk.n_lost.is_power_of_two() {
                    let n = self.governor.disk.n_lost;
                    out.push(Action::Log(format!(
                        "a spilled value is lost ({n} so far): {reason}"
                    )));
                }
                sometimes("a spilled value was lost");
                self.let_go(task.run());
                if !mutant("damaged-record-not-told") {
                    self.progress.push(Progress::Dropped { runs: vec![task.run()] });
                }
                None
            }
        };
        let is_here = value.is_some();
        self.answer_requests(task, &Ok(value), out);
        self.arrived(task, is_here);
    }

    /// An executor has taken shared memory or given it back.
    pub(crate) fn on_shared(&mut self, id: ExecutorId, nbytes: u64, out: &mut Vec<Action>) {
        self.executor_mut(id).expect("the executor that speaks").shared_nbytes = nbytes;
        self.governor.on_shared(self.executors.iter().map(|e| (e.id, e.shared_nbytes)));
        self.end_who_grows(out);
    }

    pub(crate) fn on_measured(&mut self, measured: Measured, out: &mut Vec<Action>) {
        let is_idle = self.governor.is_paused && !self.is_running();
        self.governor.on_measured(measured, self.held.nbytes, is_idle);
        self.governor.count_over(&self.held);
        if self.governor.is_idle_too_much(&self.held) {
            out.push(Action::Trim);
        }
        if self.governor.is_trim_due(&self.held) {
            self.trim(out);
        }
        self.end_who_grows(out);
    }

    fn end_who_grows(&mut self, out: &mut Vec<Action>) {
        let Some((executor, nbytes)) = self.governor.doomed(&self.held) else { return };
        let is_running = |e: &crate::executor::Executor| e.id == executor && e.n_given > 0;
        if !self.executors.iter().any(is_running) || self.doomed.is_some() {
            return;
        }
        let (used, limit) =
            (self.governor.used(&self.held) >> 20, self.governor.options.limit_nbytes >> 20);
        // Where values fill the memory and cannot leave, nothing else can be done for a call.
        let is_full = self.held.nbytes > self.governor.options.share(FULL_SHARE);
        let is_to_blame = is_full || self.governor.has_grown(executor, nbytes, &self.held);
        let trouble = self.governor.trouble.clone().unwrap_or_default();
        let reason = format!(
            "the worker used {used} MiB of {limit} MiB, {} MiB of them in this executor and {} MiB \
             in values{}{trouble}",
            nbytes >> 20,
            self.held.nbytes >> 20,
            if trouble.is_empty() { "" } else { ", which cannot go to disk: " },
        );
        out.push(Action::Log(format!("an executor is ended: {reason}")));
        self.doomed = Some(Doom { executor, reason, is_to_blame });
        out.push(Action::KillExecutor(executor));
    }

    /// Pauses and goes on, and says so.
    fn look(&mut self, out: &mut Vec<Action>) {
        let changed = self.governor.look(&self.held);
        if let Some(is_paused) = changed {
            let used = self.governor.used(&self.held) >> 20;
            let limit = self.governor.options.limit_nbytes >> 20;
            let what = if is_paused { "pauses" } else { "goes on" };
            out.push(Action::Log(format!("{what}: {used} MiB of {limit} MiB are in use")));
            if is_paused {
                sometimes("a worker was paused for its memory");
                self.trim(out);
            }
        }
        let is_idle = self.executors.iter().all(|executor| executor.n_given == 0);
        let is_moving = self.governor.leaving_nbytes + self.governor.coming_nbytes > 0;
        if self.governor.is_paused && is_idle && !is_moving {
            self.give_back(out);
        }
        for executor in &mut self.executors {
            executor.tell_crowded(self.governor.is_crowded);
        }
        // Without anything that runs or leaves, waiting would be for ever.
        let has_to_wait = self.is_running() || is_moving || self.governor.waits_for_disk();
        let is_paused = self.governor.is_paused && has_to_wait;
        let now = (is_paused, self.governor.is_crowded);
        if std::mem::replace(&mut self.governor.told, now) != now {
            let status = self.status(self.governor.used(&self.held));
            out.push(Action::ToScheduler(FromWorker::Status(status)));
        }
    }

    fn trim(&mut self, out: &mut Vec<Action>) {
        self.governor.n_since_trim = 0;
        for executor in &mut self.executors {
            executor.out.push(ToExecutor::Trim);
            let id = executor.id;
            executor.speak(|message| out.push(Action::ToExecutor(id, message)));
        }
    }

    /// Nothing runs and memory is short all the same: executors give back what they can, and one
    /// that keeps too much beside its values is started anew.
    fn give_back(&mut self, out: &mut Vec<Action>) {
        if !std::mem::replace(&mut self.governor.has_trimmed, true) {
            return self.trim(out);
        }
        if self.governor.n_idle < RECYCLE_AFTER {
            return;
        }
        let most = self.governor.options.share(RECYCLE_SHARE);
        let own = |(id, nbytes, _): &(ExecutorId, u64, u64)| {
            let beyond = nbytes.saturating_sub(self.held.live_nbytes);
            (beyond > most && self.held.live_nbytes == 0).then_some(*id)
        };
        if let Some(executor) = self.governor.measured.executors.iter().find_map(own) {
            out.push(Action::Log(
                "an executor is started anew: it keeps memory that no value needs".to_owned(),
            ));
            out.push(Action::StopExecutor(executor));
            self.on_executor_lost(executor, "it was started anew", None, out);
            self.governor.on_measured(Measured::default(), 0, false);
        }
    }

    /// What ran in an executor that was ended for its memory fails, if it was one call under which
    /// the memory grew. Several are tried again, as any of them may have been the one.
    /// `key` is that of the task if it was one call.
    pub(crate) fn out_of_memory(
        &mut self,
        run: Run,
        attempt: u32,
        doom: &Doom,
        key: Option<String>,
    ) {
        let reason = &doom.reason;
        let Some(key) = key.filter(|_| doom.is_to_blame) else {
            let reason = format!("the executor was ended for its memory: {reason}");
            return self.progress.push(Progress::Crashed { run, attempt, reason });
        };
        let text = format!("task \"{key}\" needed too much memory: {reason}");
        self.fail_for_memory(run, attempt, key, text);
    }

    pub(crate) fn fail_for_memory(&mut self, run: Run, attempt: u32, key: String, text: String) {
        let failure = Arc::new(Failure::new(FailureKind::OutOfMemory, key, text));
        self.progress.push(Progress::Failed { run, attempt, failure });
    }

    /// Whether the inputs of a call could ever be in memory together; if not, it fails.
    pub(crate) fn can_hold_inputs(&mut self, calls: &Calls) -> bool {
        let limit = self.governor.options.limit_nbytes;
        if limit == 0 {
            return true;
        }
        let nbytes = |task| self.governor.get(task).map_or(0, |entry| entry.nbytes);
        let inputs = |index| {
            let mut sum = 0u64;
            calls.each_dependency(index, |task| sum = sum.saturating_add(nbytes(task)));
            sum
        };
        let most = calls.run.indices().map(inputs).max().unwrap_or(0);
        if most <= limit {
            return true;
        }
        let key = calls.label.of(calls.run.start);
        let text = format!(
            "task \"{key}\" needs too much memory: its inputs take {} MiB, its worker may use \
             {} MiB; reduce the inputs in steps, or raise the memory limit",
            most >> 20,
            limit >> 20
        );
        self.fail_for_memory(calls.run, calls.attempt, key, text);
        false
    }
}
