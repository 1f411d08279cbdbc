//! Which ready calls go to which executor, when, and with which inputs.

use crate::calls::Inputs;
use crate::executor::FEED_NS;
use crate::held::Form;
use crate::parts::Absent;
use crate::worker::Worker;
use rasker_graph::{Input, TaskId, TemplateKind};
use rasker_protocol::probe::mutant;
use rasker_protocol::{
    CallWork, Calls, ExecutorCalls, ExecutorId, ExecutorWork, Given, GivenInput, Piece, Value,
};
use smallvec::SmallVec;

/// What a call is taken to last before one has been seen: one at a time.
const UNKNOWN_NS: f64 = FEED_NS;

/// The executor that some calls are for.
#[derive(Clone, Copy)]
struct Taker {
    id: ExecutorId,
    kind: TemplateKind,
}

impl Worker {
    /// Gives ready calls to executors with room, the first in line first.
    pub(crate) fn feed(&mut self, is_tight: bool) {
        while !self.ready.is_empty() {
            if self.governor.is_paused && self.is_running() {
                return;
            }
            let Some((place, at, n)) = self.next_to_give(is_tight) else { return };
            let calls = self.ready.take(place, n);
            self.give(at, calls);
        }
    }

    /// The first calls in line for which there is room: their place, where to, and how many of
    /// them. Calls of one kind do not wait behind those of the other whose executor is not up.
    fn next_to_give(&self, is_tight: bool) -> Option<(usize, usize, u32)> {
        // What reads values may make room; what makes new ones waits for the disk.
        let waits = self.governor.is_paused && self.governor.waits_for_disk();
        let mut blocked: SmallVec<[usize; 2]> = SmallVec::new();
        for (place, calls) in self.ready.iter().enumerate() {
            if waits && !calls.has_dependencies() {
                continue;
            }
            let Some(at) = self.executor_for(calls) else { continue };
            if blocked.contains(&at) {
                continue;
            }
            match self.room(at, calls, is_tight, !blocked.is_empty()) {
                0 => blocked.push(at),
                n => return Some((place, at, n)),
            }
            if blocked.len() == self.executors.len() || !self.knows_native {
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
        let taker = Taker { id: self.executors[at].id, kind: self.executors[at].kind };
        let mut missing = Inputs::new();
        if !calls.reads.is_empty() {
            let absent = self.absent_parts(&calls);
            if self.give_back_unreadable(&calls, &absent) {
                return;
            }
            if !absent.is_empty() {
                missing.extend(absent.live.iter().copied());
                calls.each_dependency(calls.run.start, |task| {
                    if self.at_hand(task, taker).is_none() {
                        missing.push(task);
                    }
                });
                return self.wait_for_exports(calls, missing, absent);
            }
        }
        let mut reads = SmallVec::new();
        let (work, pieces_nbytes) = self.work_for(&calls, taker, &mut reads, &mut missing);
        if !missing.is_empty() {
            return self.wait_for_exports(calls, missing, Absent::default());
        }
        if !calls.reads.is_empty() {
            // They are counted until the call is done.
            self.pieces.remove(&(TaskId::new(calls.run.layer, calls.run.start), calls.attempt));
        }
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

    /// Calls with their inputs, and the bytes of the pieces among them; `reads` gets values that
    /// they read in shared memory, `missing` what is not at hand.
    fn work_for(
        &self,
        calls: &Calls,
        taker: Taker,
        reads: &mut SmallVec<[TaskId; 2]>,
        missing: &mut Inputs,
    ) -> (ExecutorWork, u64) {
        if !self.governor.is_empty() {
            for index in calls.run.indices() {
                calls.each_dependency(index, |task| {
                    if self.is_large_here(task) {
                        reads.push(task);
                    }
                });
            }
        }
        match &calls.work {
            CallWork::One { args, dependencies } if calls.reads.is_empty() => {
                let given = dependencies.iter().map(|task| self.given(*task, taker, missing));
                (ExecutorWork::One { args: args.clone(), given: given.collect() }, 0)
            }
            CallWork::One { args, dependencies } => {
                let number = (TaskId::new(calls.run.layer, calls.run.start), calls.attempt);
                let pieces = self.pieces.get(&number).cloned().unwrap_or_default();
                let given = (0..).zip(dependencies).map(|(place, task)| {
                    match calls.reads.iter().find(|(other, _)| *other == place) {
                        Some((_, parts)) => {
                            self.given_parts(*task, *parts, &pieces, reads, missing)
                        }
                        None => self.given(*task, taker, missing),
                    }
                });
                let work = ExecutorWork::One { args: args.clone(), given: given.collect() };
                (work, pieces.values().map(Piece::nbytes).sum())
            }
            CallWork::Map { inputs, constants } => {
                let count = calls.run.count;
                let inputs = inputs.iter().map(|input| match input {
                    Input::Values(column) => GivenInput::Values(column.clone()),
                    Input::Tasks(first) => GivenInput::Each(
                        (0..count)
                            .map(|i| TaskId::new(first.layer, first.index + i))
                            .map(|task| self.given(task, taker, missing))
                            .collect(),
                    ),
                    Input::TaskList(tasks) => GivenInput::Each(
                        tasks.iter().map(|task| self.given(*task, taker, missing)).collect(),
                    ),
                });
                let inputs = inputs.collect();
                (ExecutorWork::Map { inputs, constants: constants.clone() }, 0)
            }
        }
    }

    /// Whether a value is here as bytes, and large enough to matter; live ones are pinned anyway.
    pub(crate) fn is_large_here(&self, task: TaskId) -> bool {
        self.governor.get(task).is_some() && matches!(self.held.single(task), Some(Form::Value(_)))
    }

    /// An input as an executor can take it; `missing` gets those that live in another one, and
    /// those that went away meanwhile.
    fn given(&self, task: TaskId, taker: Taker, missing: &mut Inputs) -> Given {
        self.at_hand(task, taker).unwrap_or_else(|| {
            missing.push(task);
            Given::Live(task)
        })
    }

    /// An input as an executor can take it; none if it is elsewhere or in another form.
    fn at_hand(&self, task: TaskId, taker: Taker) -> Option<Given> {
        let is_native = taker.kind == TemplateKind::Native;
        match self.held.get(task) {
            Some(Form::Live { executor, .. }) if executor == taker.id => Some(Given::Live(task)),
            Some(Form::Value(Value::Object { .. })) if is_native => None,
            Some(Form::Value(value)) => Some(Given::Value(value)),
            _ => None,
        }
    }

    fn wait_for_exports(&mut self, calls: Calls, mut missing: Inputs, absent: Absent) {
        let mut gone: SmallVec<[TaskId; 2]> = SmallVec::new();
        if !self.can_hold_inputs(&calls) {
            return self.drop_pieces(&calls);
        }
        missing.sort_unstable();
        missing.dedup();
        for &input in &missing {
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
            self.drop_pieces(&calls);
            return self.give_up(&calls, &gone);
        }
        self.wait_for(calls, missing, absent);
    }
}
