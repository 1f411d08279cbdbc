//! Copies that somebody asked for: to retire a worker, for more replicas, for balance.

use crate::scheduler::Scheduler;
use crate::table::{Map, State, TaskRef};
use rasker_graph::{ClientId, Key, Run, TaskId};
use rasker_protocol::probe::sometimes;
use rasker_protocol::{Datum, Source, ToWorker, WorkerId};
use std::collections::{BTreeMap, BTreeSet};

/// A copy is asked for so often before its errand goes on without it.
const TRIES_MAX: u32 = 3;
/// A worker that is to end waits for so many rounds of copies; what cannot be copied even then is
/// made again elsewhere.
const ROUNDS_MAX: u32 = 3;

/// Something that takes copies, and who is told when it is done.
pub(crate) struct Errand {
    pub asked_by: Option<(ClientId, u64)>,
    pub purpose: Purpose,
    /// Copies under way: of what, to whom, and how often it was asked for.
    pub open: Map<(TaskId, WorkerId), u32>,
}

pub(crate) enum Purpose {
    /// These workers end when nothing is only there.
    Retire { workers: Vec<WorkerId>, rounds: Map<WorkerId, u32>, ended: Vec<Datum> },
    /// The values are on more workers then.
    Replicate,
    /// The values are let go by their first holder when the copy is there.
    Move { from: Map<TaskId, WorkerId> },
}

/// Workers that may get copies, with the bytes that they hold and will hold.
type Receivers = BTreeMap<WorkerId, u64>;

impl Scheduler {
    /// A worker is to end: by its own wish, as its process was told to.
    pub(crate) fn retire(&mut self, id: WorkerId) {
        if !self.worker(id).is_some_and(|worker| worker.is_retiring) {
            self.begin_to_retire(None, vec![id]);
        }
    }

    pub(crate) fn on_retire(&mut self, client: ClientId, question: u64, names: &[String]) {
        let is_meant = |id: &WorkerId| {
            let worker = self.worker(*id).expect("alive");
            !worker.is_retiring && names.iter().any(|name| worker.is(name))
        };
        let workers = self.alive.iter().copied().filter(is_meant).collect();
        self.begin_to_retire(Some((client, question)), workers);
    }

    fn begin_to_retire(&mut self, asked_by: Option<(ClientId, u64)>, workers: Vec<WorkerId>) {
        for &id in &workers {
            let worker = self.worker_mut(id).expect("alive");
            worker.is_retiring = true;
            worker.retracting = true;
            worker.out.push(ToWorker::Retract);
        }
        self.count_sidelined();
        for &id in &workers {
            self.move_pending(id);
        }
        let purpose = Purpose::Retire { workers, rounds: Map::default(), ended: Vec::new() };
        self.errands.push(Errand { asked_by, purpose, open: Map::default() });
    }

    /// Lets errands go on, and ends those that are done.
    pub(crate) fn run_errands(&mut self) {
        let mut at = 0;
        while at < self.errands.len() {
            let is_done = self.errands[at].open.is_empty() && self.run_errand(at);
            if !is_done {
                at += 1;
                continue;
            }
            let errand = self.errands.remove(at);
            let answer = match errand.purpose {
                Purpose::Retire { ended, .. } => Datum::List(ended),
                _ => Datum::Null,
            };
            if let Some((client, id)) = errand.asked_by {
                self.answer(client, id, answer);
            }
        }
    }

    /// Whether the errand, which has no copy under way, is done.
    fn run_errand(&mut self, at: usize) -> bool {
        let Purpose::Retire { workers, .. } = &self.errands[at].purpose else { return true };
        let there = workers.iter().copied().filter(|id| self.worker(*id).is_some());
        let there: Vec<WorkerId> = there.collect();
        let is_empty = |id: &&WorkerId| self.worker(**id).expect("alive").n_processing == 0;
        let free: Vec<WorkerId> = there.iter().filter(is_empty).copied().collect();
        if free.is_empty() {
            return there.is_empty();
        }
        let alone = self.held_only_by(&there);
        let mut receivers = self.receivers(&[]);
        let has_to_end = self.errands[at].asked_by.is_none();
        if !alone.is_empty() && receivers.is_empty() && !has_to_end {
            // There is nowhere to go for what they hold: they stay.
            for &id in &there {
                self.worker_mut(id).expect("alive").is_retiring = false;
            }
            self.count_sidelined();
            return true;
        }
        let mut stay: Vec<WorkerId> = Vec::new();
        for task in alone {
            let State::Memory { holder, .. } = self.state(task) else { continue };
            let is_free = free.contains(&holder);
            if is_free && self.copy_to_least(at, task, &mut receivers) && !stay.contains(&holder) {
                stay.push(holder);
            }
        }
        let Purpose::Retire { rounds, .. } = &mut self.errands[at].purpose else { return true };
        stay.retain(|id| {
            let round = rounds.entry(*id).or_insert(0);
            *round += 1;
            *round <= ROUNDS_MAX
        });
        let leave = free.into_iter().filter(|id| !stay.contains(id)).collect::<Vec<_>>();
        for id in leave {
            self.end_worker(at, id);
        }
        self.errands[at].open.is_empty() && there.iter().all(|id| self.worker(*id).is_none())
    }

    fn end_worker(&mut self, at: usize, id: WorkerId) {
        sometimes("a worker was retired");
        let address = self.worker(id).expect("alive").hello.address.clone();
        let reason = "it was retired".to_owned();
        self.farewells.push((id, ToWorker::Close { reason: reason.clone() }));
        self.on_worker_left(id, &reason, false);
        if let Purpose::Retire { ended, .. } = &mut self.errands[at].purpose {
            ended.push(address.into());
        }
    }

    /// Values that nobody else holds. Looks at all tasks.
    fn held_only_by(&self, workers: &[WorkerId]) -> Vec<TaskRef> {
        let mut alone = Vec::new();
        self.each_task(|task| {
            let State::Memory { holder, .. } = self.state(task) else { return };
            if workers.contains(&holder)
                && self.holders_of(task).iter().all(|id| {
                    let worker = self.worker(*id);
                    worker.is_none_or(|w| w.is_retiring || w.is_suspect)
                })
            {
                alone.push(task);
            }
        });
        alone
    }

    fn receivers(&self, names: &[String]) -> Receivers {
        let there = self.alive.iter().map(|id| self.worker(*id).expect("alive"));
        there
            .filter(|worker| worker.takes_work())
            .filter(|worker| names.is_empty() || names.iter().any(|name| worker.is(name)))
            .map(|worker| (worker.id, worker.status.held_nbytes))
            .collect()
    }

    /// Asks the receiver that holds least, and not this value, to copy it. False if there is none.
    fn copy_to_least(&mut self, at: usize, task: TaskRef, receivers: &mut Receivers) -> bool {
        let id = self.table.id(task);
        let errand = &self.errands[at];
        let is_new =
            |to: WorkerId| !self.is_held_by(task, to) && !errand.open.contains_key(&(id, to));
        let least =
            receivers.iter().filter(|(to, _)| is_new(**to)).min_by_key(|(to, n)| (**n, **to));
        let Some(to) = least.map(|(to, _)| *to) else { return false };
        let Some(source) = self.source_for(task, to) else { return false };
        *receivers.get_mut(&to).expect("just found") += source.nbytes;
        sometimes("a copy was asked for");
        self.errands[at].open.insert((id, to), 1);
        self.ask_for_copy(task, to);
        true
    }

    fn ask_for_copy(&mut self, task: TaskRef, to: WorkerId) {
        let Some(source) = self.source_for(task, to) else { return };
        let Some(worker) = self.worker_mut(to) else { return };
        match worker.out.last_mut() {
            Some(ToWorker::Copy(sources)) => Source::join(sources, source),
            _ => worker.out.push(ToWorker::Copy(vec![source])),
        }
    }

    /// Whether a worker was asked for a copy of a value that some errand waits for.
    pub(crate) fn is_to_copy(&self, worker: WorkerId, id: TaskId) -> bool {
        self.errands.iter().any(|errand| errand.open.contains_key(&(id, worker)))
    }

    /// A copy is there: an errand may have waited for it.
    pub(crate) fn errand_copied(&mut self, task: TaskRef, worker: WorkerId) {
        if self.errands.is_empty() {
            return;
        }
        let id = self.table.id(task);
        for at in 0..self.errands.len() {
            let errand = &mut self.errands[at];
            if errand.open.remove(&(id, worker)).is_none() {
                continue;
            }
            if let Purpose::Move { from } = &errand.purpose
                && let Some(&from) = from.get(&id)
                && self.is_held_by(task, from)
                && self.is_held_by(task, worker)
            {
                self.lose(task, from);
                self.free_at(from, id);
            }
        }
    }

    /// Copies of these values could not be made, or came too late. Looks at what is under way, as
    /// a peer may name any number of tasks.
    pub(crate) fn errands_fail(&mut self, worker: WorkerId, runs: &[Run]) {
        let open = self.errands.iter().flat_map(|errand| errand.open.keys());
        let named = |id: &TaskId| runs.iter().any(|run| run.contains(*id));
        let failed: BTreeSet<TaskId> =
            (open.filter(|(_, to)| *to == worker)).map(|(id, _)| *id).filter(named).collect();
        failed.into_iter().for_each(|id| self.on_not_copied(worker, id));
    }

    /// A copy could not be made: from another holder, perhaps.
    fn on_not_copied(&mut self, worker: WorkerId, id: TaskId) {
        let known = self.table.find(id);
        for at in 0..self.errands.len() {
            let Some(tries) = self.errands[at].open.get_mut(&(id, worker)) else { continue };
            *tries += 1;
            let may_try = *tries <= TRIES_MAX;
            let task = known.filter(|task| matches!(self.state(*task), State::Memory { .. }));
            match task {
                Some(task) if may_try => self.ask_for_copy(task, worker),
                _ => drop(self.errands[at].open.remove(&(id, worker))),
            }
        }
    }

    /// A worker that is gone copies nothing.
    pub(crate) fn errands_without(&mut self, worker: WorkerId) {
        for errand in &mut self.errands {
            errand.open.retain(|(_, to), _| *to != worker);
        }
    }

    pub(crate) fn on_replicate(
        &mut self,
        asked_by: (ClientId, u64),
        keys: &[Key],
        n: u32,
        names: &[String],
    ) {
        let (purpose, open) = (Purpose::Replicate, Map::default());
        self.errands.push(Errand { asked_by: Some(asked_by), purpose, open });
        let at = self.errands.len() - 1;
        let mut receivers = self.receivers(names);
        for key in keys {
            let Some(task) = self.task_of(*key) else { continue };
            let n_held = self.holders_of(task).len() as u32;
            if n_held == 0 {
                continue;
            }
            for _ in n_held..n {
                if !self.copy_to_least(at, task, &mut receivers) {
                    break;
                }
            }
        }
    }

    /// Values move from the workers that hold most to those that hold least, until none holds much
    /// more than its share. What calls wait for stays where they are.
    pub(crate) fn on_rebalance(
        &mut self,
        asked_by: (ClientId, u64),
        keys: &[Key],
        names: &[String],
    ) {
        let mut held: Receivers = self.receivers(names).into_keys().map(|id| (id, 0)).collect();
        let mut movable: BTreeMap<WorkerId, Vec<(u64, TaskRef)>> = BTreeMap::new();
        let chosen: Vec<TaskRef> = keys.iter().filter_map(|key| self.task_of(*key)).collect();
        let mut look = |task: TaskRef| {
            let State::Memory { holder, nbytes } = self.state(task) else { return };
            let Some(total) = held.get_mut(&holder) else { return };
            *total += nbytes as u64;
            let is_free = self.table.task(task).waiting_dependents == 0;
            if is_free && !self.table.replicas.contains_key(&task) {
                movable.entry(holder).or_default().push((nbytes as u64, task));
            }
        };
        match keys.is_empty() {
            true => self.each_task(&mut look),
            false => chosen.into_iter().for_each(&mut look),
        }
        let share = held.values().sum::<u64>() / held.len().max(1) as u64;
        let mut moves: Vec<(TaskRef, WorkerId, WorkerId)> = Vec::new();
        for (from, mut tasks) in movable {
            tasks.sort_unstable_by(|a, b| b.cmp(a));
            for (nbytes, task) in tasks {
                let least = held.iter().min_by_key(|(id, n)| (**n, **id));
                let Some((to, n)) = least.map(|(to, n)| (*to, *n)) else { break };
                let gains = n + nbytes < held[&from] && held[&from] > share + share / 20;
                if to != from && gains {
                    *held.get_mut(&to).expect("just found") += nbytes;
                    *held.get_mut(&from).expect("a holder") -= nbytes;
                    moves.push((task, from, to));
                }
            }
        }
        let named = moves.iter().map(|(task, from, _)| (self.table.id(*task), *from));
        let purpose = Purpose::Move { from: named.collect() };
        let open = moves.iter().map(|(task, _, to)| ((self.table.id(*task), *to), 1)).collect();
        self.errands.push(Errand { asked_by: Some(asked_by), purpose, open });
        for (task, _, to) in moves {
            self.ask_for_copy(task, to);
        }
    }
}
