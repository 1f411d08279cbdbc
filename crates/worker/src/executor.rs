//! One executor as its worker knows it: what it was given and has not answered.

use crate::Map;
use hashbrown::HashSet;
use rasker_graph::{Run, TaskId, Template, TemplateId, TemplateKind};
use rasker_protocol::probe::{mutant, sometimes};
use rasker_protocol::{
    ExecutorCalls, ExecutorId, ExecutorWork, Given as Input, GivenInput, Label, ToExecutor,
};
use smallvec::SmallVec;
use std::collections::VecDeque;

/// Work an executor has in hand per thread, ns: enough to hide the way to it and back.
pub(crate) const FEED_NS: f64 = 2e6;

#[derive(Clone)]
pub(crate) struct Given {
    pub run: Run,
    pub attempt: u32,
    pub template: TemplateId,
    pub label: Label,
    pub is_cancelled: bool,
    /// What of it nobody wants to hear of any more.
    pub cancelled: SmallVec<[Run; 1]>,
    /// Live and large values that the calls read.
    pub reads: SmallVec<[TaskId; 2]>,
    /// Pieces of exchanges that the call reads, bytes.
    pub pieces_nbytes: u64,
}

fn live(input: &Input) -> Option<TaskId> {
    match input {
        Input::Live(task) => Some(*task),
        Input::Value(_) | Input::Parts { .. } => None,
    }
}

/// Whether all of `run`, which may claim anything, lies in `given`.
fn has_all(given: Run, run: Run) -> bool {
    given.layer == run.layer
        && run.count > 0
        && run.start >= given.start
        && u64::from(run.start - given.start) + u64::from(run.count) <= u64::from(given.count)
}

pub(crate) struct Executor {
    pub id: ExecutorId,
    pub kind: TemplateKind,
    pub is_up: bool,
    /// Calls that run at once: one more for each that only waits for others.
    pub nthreads: u32,
    own_threads: u32,
    /// Calls in the order they were given, less what is done.
    pub given: VecDeque<Given>,
    pub n_given: u32,
    /// How many of them there are of each template.
    n_of: Vec<(TemplateId, u32)>,
    known: HashSet<TemplateId, foldhash::fast::FixedState>,
    /// The one of them that was asked for last.
    known_last: Option<TemplateId>,
    // What is to be said at the end of the turn.
    pub templates: Vec<Template>,
    pub calls: Vec<ExecutorCalls>,
    dropped: Vec<TaskId>,
    pub out: Vec<ToExecutor>,
    pub recalling: bool,
    /// Shared memory that it says it has taken, bytes.
    pub shared_nbytes: u64,
    /// What it was told last of the worker's memory.
    pub knows_crowded: bool,
    /// What it was given last is to have nothing beside it.
    pub alone: bool,
    /// Live and large values that calls in hand read or that are being exported, and how often:
    /// they are dropped no sooner than these are done, and do not leave for the disk.
    pins: Map<TaskId, u32>,
}

impl Executor {
    pub fn new(id: ExecutorId, kind: TemplateKind, nthreads: u32) -> Executor {
        Executor {
            id,
            kind,
            is_up: false,
            nthreads,
            own_threads: nthreads,
            given: VecDeque::new(),
            n_given: 0,
            n_of: Vec::new(),
            known: HashSet::default(),
            known_last: None,
            templates: Vec::new(),
            calls: Vec::new(),
            dropped: Vec::new(),
            out: Vec::new(),
            recalling: false,
            shared_nbytes: 0,
            knows_crowded: false,
            alone: false,
            pins: Map::default(),
        }
    }

    /// Says whether memory is filling up, if that is news here.
    pub fn tell_crowded(&mut self, is_crowded: bool) {
        if self.is_up && std::mem::replace(&mut self.knows_crowded, is_crowded) != is_crowded {
            self.out.push(ToExecutor::Crowded(is_crowded));
        }
    }

    /// Whether a call is in hand that is to have nothing beside it.
    pub fn is_reserved(&self) -> bool {
        self.alone && !self.is_free()
    }

    /// Calls that gave up their threads while they wait for others.
    pub fn n_seceded(&self) -> i32 {
        self.nthreads.wrapping_sub(self.own_threads) as i32
    }

    /// Whether nothing runs here. Calls that wait for tasks of their own do not count: what they
    /// wait for may be what is to run here.
    pub fn is_free(&self) -> bool {
        self.n_given <= self.nthreads.saturating_sub(self.own_threads)
    }

    pub fn teach(&mut self, id: TemplateId, templates: &Map<TemplateId, Template>) {
        if self.known_last.replace(id) == Some(id) {
            return;
        }
        if self.known.insert(id)
            && let Some(template) = templates.get(&id)
        {
            self.templates.push(template.clone());
        }
    }

    /// `reads` are inputs in shared memory, which must not leave either.
    pub fn give(
        &mut self,
        calls: ExecutorCalls,
        mut reads: SmallVec<[TaskId; 2]>,
        pieces_nbytes: u64,
    ) {
        self.n_given += calls.run.count;
        match &calls.work {
            ExecutorWork::One { given, .. } => reads.extend(given.iter().filter_map(live)),
            ExecutorWork::Map { inputs, .. } => {
                for input in inputs {
                    if let GivenInput::Each(given) = input {
                        reads.extend(given.iter().filter_map(live));
                    }
                }
            }
        }
        reads.iter().for_each(|task| self.pin(*task));
        if !self.dropped.is_empty() {
            // The value of this attempt takes the place of an earlier one that is still read.
            let is_replaced =
                |task: &TaskId| calls.run.contains(*task) && self.pins.contains_key(task);
            self.dropped.retain(|task| !is_replaced(task));
        }
        self.count(calls.template, calls.run.count);
        self.given.push_back(Given {
            run: calls.run,
            attempt: calls.attempt,
            template: calls.template,
            label: calls.label.clone(),
            is_cancelled: false,
            cancelled: SmallVec::new(),
            reads,
            pieces_nbytes,
        });
        self.calls.push(calls);
    }

    fn count(&mut self, template: TemplateId, n: u32) {
        match self.n_of.iter_mut().find(|(other, _)| *other == template) {
            Some((_, sum)) => *sum += n,
            None => self.n_of.push((template, n)),
        }
    }

    fn count_off(&mut self, template: TemplateId, n: u32) {
        self.n_given -= n;
        let at = self.n_of.iter().position(|(other, _)| *other == template);
        let at = at.expect("calls in hand are counted");
        self.n_of[at].1 -= n;
        if self.n_of[at].1 == 0 {
            self.n_of.swap_remove(at);
        }
    }

    pub fn has_pinned(&self, task: TaskId) -> bool {
        self.pins.contains_key(&task)
    }

    pub fn pin(&mut self, task: TaskId) {
        *self.pins.entry(task).or_insert(0) += 1;
    }

    /// How often a value is pinned.
    pub fn n_pins(&self, task: TaskId) -> u32 {
        self.pins.get(&task).copied().unwrap_or(0)
    }

    pub fn unpin(&mut self, task: TaskId) {
        if let Some(n) = self.pins.get_mut(&task) {
            *n -= 1;
            if *n == 0 {
                self.pins.remove(&task);
            }
        }
    }

    /// Takes answered calls off; none if they were never given: the answer is not believed.
    pub fn take(&mut self, run: Run, attempt: u32) -> Option<Given> {
        let is_of = |given: &Given| given.attempt == attempt && has_all(given.run, run);
        // Calls are mostly done in the order in which they were given.
        let at = self.given.iter().position(is_of)?;
        if self.given[at].run == run {
            let given = match at {
                0 => self.given.pop_front(),
                _ => self.given.remove(at),
            }
            .expect("just found");
            self.count_off(given.template, run.count);
            given.reads.iter().for_each(|task| self.unpin(*task));
            return Some(given);
        }
        let given = &mut self.given[at];
        let (whole, template) = (given.run, given.template);
        let (before, after) = (run.start - whole.start, whole.end() - run.end());
        let taken = Given { run, reads: SmallVec::new(), ..given.clone() };
        if before == 0 {
            given.run = Run::new(run.layer, run.end(), after);
        } else {
            given.run.count = before;
            if after > 0 {
                let rest = Run::new(run.layer, run.end(), after);
                let rest = Given { run: rest, ..given.clone() };
                rest.reads.iter().for_each(|task| self.pin(*task));
                self.given.insert(at + 1, rest);
            }
        }
        self.count_off(template, run.count);
        Some(taken)
    }

    /// Time the calls in hand will take, ns.
    pub fn load_ns(&self, duration_ns: impl Fn(TemplateId) -> f64) -> f64 {
        self.n_of.iter().map(|(template, n)| f64::from(*n) * duration_ns(*template)).sum()
    }

    /// The key of a task whose call is in hand, as its user knows it.
    pub fn key_of(&self, task: TaskId) -> Option<String> {
        let given = self.given.iter().find(|given| given.run.contains(task))?;
        Some(given.label.of(task.index))
    }

    /// Templates of which more or fewer calls are counted than are in hand: for tests.
    pub fn miscounted(&self) -> Vec<TemplateId> {
        let mut n_of: Map<TemplateId, i64> = Map::default();
        for (template, n) in &self.n_of {
            *n_of.entry(*template).or_default() += i64::from(*n);
        }
        for given in &self.given {
            *n_of.entry(given.template).or_default() -= i64::from(given.run.count);
        }
        n_of.into_iter().filter(|(_, n)| *n != 0).map(|(template, _)| template).collect()
    }

    pub fn drop_value(&mut self, task: TaskId) {
        self.dropped.push(task);
    }

    /// What is to be said now, in an order that makes sense to the executor.
    pub fn speak(&mut self, mut say: impl FnMut(ToExecutor)) {
        if !self.is_up {
            return;
        }
        // Values go first: a task that is computed anew under the same id must not be dropped.
        if !self.dropped.is_empty() {
            let mut runs = Vec::new();
            self.dropped.retain(|task| {
                let is_pinned = self.pins.contains_key(task) && !mutant("pinned-value-dropped");
                if is_pinned {
                    sometimes("a value was freed while it was read");
                }
                if !is_pinned {
                    Run::push(&mut runs, *task);
                }
                is_pinned
            });
            if !runs.is_empty() {
                say(ToExecutor::Drop(runs));
            }
        }
        if !self.templates.is_empty() {
            say(ToExecutor::Define(std::mem::take(&mut self.templates)));
        }
        if !self.calls.is_empty() {
            say(ToExecutor::Calls(std::mem::take(&mut self.calls)));
        }
        if !self.out.is_empty() {
            self.out.drain(..).for_each(&mut say);
        }
    }
}
