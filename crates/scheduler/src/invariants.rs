//! Every relation between the parts of the state, recounted from the tasks themselves.

use crate::scheduler::Scheduler;
use crate::table::{Map, State, TaskList, TaskRef};
use foldhash::fast::FixedState;
use hashbrown::HashSet;
use rasker_graph::{ClientId, TaskId};
use rasker_protocol::WorkerId;
use std::hash::{BuildHasher, Hash, Hasher};

impl Scheduler {
    /// What is wrong with the state; empty when all is well. For tests and simulation: it looks at
    /// every task.
    pub fn check(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut waiting: Map<TaskRef, u32> = Map::default();
        let mut alive: Map<TaskRef, u32> = Map::default();
        let mut load: Map<WorkerId, u32> = Map::default();
        let mut in_use: Map<(WorkerId, &str), f64> = Map::default();
        self.each_record(|task| {
            let state = self.state(task);
            if state.is_gone() {
                return;
            }
            let mut dependencies = TaskList::new();
            self.table.dependencies(task, &mut dependencies);
            let mut missing = 0;
            for dependency in dependencies {
                *alive.entry(dependency).or_default() += 1;
                if state.is_active() {
                    *waiting.entry(dependency).or_default() += 1;
                }
                if !self.state(dependency).is_there() {
                    missing += 1;
                }
            }
            if let State::Processing { worker } = state {
                *load.entry(worker).or_default() += 1;
                for (name, amount) in &self.table.options(task).resources {
                    *in_use.entry((worker, name.as_str())).or_default() += amount;
                }
            }
            self.check_state(task, state, missing, &mut wrong);
        });
        self.each_record(|task| {
            let record = self.table.task(task);
            if record.state.is_gone() {
                return;
            }
            let counts = (record.waiting_dependents, record.alive_dependents);
            let expected =
                (waiting.get(&task).copied().unwrap_or(0), alive.get(&task).copied().unwrap_or(0));
            if counts != expected {
                wrong.push(format!("{task:?}: dependents {counts:?}, counted {expected:?} (1)"));
            }
            if record.retries_used > self.table.options(task).retries {
                wrong.push(format!("{task:?} was retried {} times (20)", record.retries_used));
            }
            if !record.is_wanted() && expected == (0, 0) {
                wrong.push(format!("{task:?} is kept and nobody needs it: {:?}", record.state));
            }
        });
        for &id in &self.alive {
            let (n, counted) =
                (self.worker(id).expect("alive").n_processing, load.get(&id).copied().unwrap_or(0));
            if n != counted {
                wrong.push(format!("{id:?} has {n} calls in hand, counted {counted} (1)"));
            }
            self.check_resources(id, &in_use, &mut wrong);
        }
        for (task, replicas) in &self.table.replicas {
            let is_held = matches!(self.state(*task), State::Memory { holder, .. }
                if !replicas.contains(&holder));
            if !is_held {
                wrong.push(format!("{task:?} has copies on {replicas:?} beside no value (4)"));
            }
        }
        wrong
    }

    /// Invariant 17: what is in use is what the calls in hand ask for, and no more than there is.
    fn check_resources(
        &self,
        id: WorkerId,
        in_use: &Map<(WorkerId, &str), f64>,
        wrong: &mut Vec<String>,
    ) {
        let worker = self.worker(id).expect("alive");
        for (name, total) in &worker.hello.resources {
            let used = in_use.get(&(id, name.as_str())).copied().unwrap_or(0.0);
            let left = worker.n_available(name);
            if (left + used - total).abs() > 1e-6 || left < -1e-6 {
                wrong.push(format!("{id:?} has {left} of {total} {name}, {used} in use (17)"));
            }
        }
    }

    /// Tasks that are ready and stand in no queue, so that nothing will come of them.
    pub fn check_queues(&self) -> Vec<String> {
        let mut queued: HashSet<TaskRef, foldhash::fast::FixedState> = HashSet::default();
        queued.extend(self.ready.iter().map(|entry| entry.task()));
        queued.extend(self.classes.iter().flat_map(|c| c.queue.iter()).map(|entry| entry.task()));
        for worker in self.workers.iter().flatten() {
            queued.extend(worker.pending.iter().map(|entry| entry.task()));
        }
        let mut wrong = Vec::new();
        self.each_record(|task| {
            let layer = self.table.layer(task.layer);
            let is_root = task.index >= layer.cursor
                && self.roots.contains_key(&(layer.priority, task.layer));
            if self.state(task) == State::Ready && !is_root && !queued.contains(&task) {
                wrong.push(format!("{task:?} is ready and stands in no queue (27)"));
            }
        });
        wrong
    }

    /// Errands that wait for copies, or for workers to have nothing in hand: for simulation.
    pub fn n_errands(&self) -> usize {
        self.errands.len()
    }

    /// Whether a worker is not heard of: for simulation.
    pub fn is_suspect(&self, id: WorkerId) -> bool {
        self.worker(id).is_some_and(|worker| worker.is_suspect)
    }

    /// Whether a worker is there, as far as is known: for simulation.
    pub fn counts(&self, id: WorkerId) -> bool {
        self.worker(id).is_some()
    }

    /// Whether a worker may be given work and values: for simulation.
    pub fn takes_work(&self, id: WorkerId) -> bool {
        self.worker(id).is_some_and(|worker| worker.takes_work())
    }

    /// Whether a task failed as a value was lost: for simulation.
    pub fn is_given_up(&self, id: TaskId) -> bool {
        self.table.find(id).is_some_and(|task| self.is_lost(task))
    }

    /// Whether executors died under a task: for simulation.
    pub fn is_quarantined(&self, id: TaskId) -> bool {
        let known = self.table.find(id);
        known.is_some_and(|task| self.table.task(task).suspicion > 0)
    }

    /// A number that stands for the tasks of one client and what became of them: for fuzzing.
    pub fn fingerprint(&self, client: ClientId) -> u64 {
        let mut hasher = FixedState::default().build_hasher();
        for layer in self.table.layers.iter().flatten().filter(|l| l.id.client() == client) {
            (layer.id, layer.count, layer.alive).hash(&mut hasher);
            for index in 0..layer.expanded {
                let task = layer.task(index);
                let used = (task.attempt, task.retries_used, task.suspicion, task.wanted);
                (index, used, task.state.name()).hash(&mut hasher);
            }
        }
        hasher.finish()
    }

    /// Which worker is believed to hold what: for simulation.
    pub fn holdings(&self) -> Vec<(WorkerId, TaskId)> {
        let mut held = Vec::new();
        self.each_record(|task| {
            if let State::Memory { holder, .. } = self.state(task) {
                let replicas = self.table.replicas.get(&task).into_iter().flatten();
                let holders = std::iter::once(&holder).chain(replicas);
                held.extend(holders.map(|worker| (*worker, self.table.id(task))));
            }
        });
        held
    }

    /// A task and its inputs in words: for simulation.
    pub fn describe(&self, id: TaskId) -> String {
        let Some(task) = self.table.find(id) else { return format!("{id:?}: unknown") };
        if task.index >= self.table.layer(task.layer).expanded {
            return format!("{id:?} is a root that nobody looked at");
        }
        let mut inputs = TaskList::new();
        self.table.dependencies(task, &mut inputs);
        let inputs = inputs.iter().map(|input| (self.table.id(*input), self.state(*input)));
        let inputs: Vec<_> = inputs.collect();
        format!(
            "{id:?} is {:?}, {:?}, reads {inputs:?}",
            self.table.id(task),
            self.table.task(task)
        )
    }

    fn each_record(&self, mut f: impl FnMut(TaskRef)) {
        for (slot, layer) in (0..).zip(&self.table.layers) {
            for index in 0..layer.as_ref().map_or(0, |layer| layer.expanded) {
                f(TaskRef { layer: slot, index });
            }
        }
    }

    fn check_state(&self, task: TaskRef, state: State, missing: u32, wrong: &mut Vec<String>) {
        let here = |worker: WorkerId| self.worker(worker).is_some();
        let ok = match state {
            State::Waiting { missing: m } => m == missing && m > 0,
            State::Ready => missing == 0 && !self.table.is_exchange(task),
            State::Open { .. } => {
                let record = self.table.task(task);
                let is_needed = record.is_wanted() || record.waiting_dependents > 0;
                missing == 0 && is_needed && self.table.is_exchange(task)
            }
            State::Processing { worker } => here(worker),
            State::Memory { holder, .. } => {
                here(holder)
                    && self.table.replicas.get(&task).is_none_or(|r| r.iter().all(|w| here(*w)))
            }
            State::Released => {
                let record = self.table.task(task);
                !record.is_wanted() && record.waiting_dependents == 0
            }
            State::Failed { .. } | State::Alias { .. } | State::Forgotten => true,
        };
        if !ok {
            wrong.push(format!("{task:?} is {state:?} with {missing} inputs missing"));
        }
    }
}
