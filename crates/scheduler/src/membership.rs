//! Workers and clients come and go.

use crate::peer::{Client, Worker};
use crate::scheduler::Scheduler;
use crate::table::{State, TaskRef};
use rasker_graph::ClientId;
use rasker_protocol::probe::{mutant, sometimes};
use rasker_protocol::{ToClient, ToWorker, WorkerHello, WorkerId};

impl Scheduler {
    pub(crate) fn on_client_joined(&mut self, client: ClientId, name: String) {
        let mut state = Client { name, ..Client::default() };
        let peers: Vec<_> =
            self.alive.iter().filter_map(|w| self.worker(*w)).map(Worker::peer).collect();
        if !peers.is_empty() {
            state.out.push(ToClient::Peers(peers));
        }
        self.clients.insert(client, state);
    }

    pub(crate) fn on_client_left(&mut self, client: ClientId) {
        if self.clients.remove(&client).is_some() {
            self.release_client(client);
            self.templates.client_left(client);
            self.questions.retain(|_, question| question.client != client);
        }
    }

    pub(crate) fn on_worker_joined(&mut self, id: WorkerId, hello: WorkerHello) {
        let at = id.0 as usize;
        if self.workers.len() <= at {
            self.workers.resize_with(at + 1, || None);
        }
        let mut newcomer = Worker::new(id, hello);
        newcomer.heard_ns = self.now_ns;
        let peer = newcomer.peer();
        for &other in &self.alive {
            let worker = self.workers[other.0 as usize].as_deref_mut().expect("alive");
            newcomer.peers.push(worker.peer());
            if !mutant("newcomer-not-announced") {
                worker.peers.push(peer.clone());
            }
        }
        for client in self.clients.values_mut() {
            client.out.push(ToClient::Peers(vec![peer.clone()]));
        }
        self.workers[at] = Some(Box::new(newcomer));
        self.alive.push(id);
        self.alive.sort_unstable();
        self.compare_kinds();
        if !mutant("unplaceable-forgotten") {
            self.place_classes();
        }
    }

    /// A worker is gone. `blames` tells whether its calls may have brought that about.
    pub(crate) fn on_worker_left(&mut self, mut id: WorkerId, reason: &str, blames: bool) {
        if let Some(namesake) = self.namesake(id) {
            sometimes("a worker was lost after its successor had come");
            if mutant("late-loss-removes-successor") {
                id = namesake;
            }
        }
        if self.worker(id).is_none() {
            return;
        }
        let is_back = mutant("identity-by-address") && self.namesake(id).is_some();
        let (mut running, mut held) = (self.in_hand(id), self.held_by(id));
        if is_back {
            (running, held) = Default::default();
        }
        let worker = self.workers[id.0 as usize].take().expect("just seen");
        self.alive.retain(|w| *w != id);
        self.count_sidelined();
        self.compare_kinds();
        self.place_classes();
        worker.borrowed.values().cloned().for_each(|lenders| self.repay(lenders));
        for client in self.clients.values_mut() {
            client.out.push(ToClient::PeersGone(vec![id]));
        }
        for &other in &self.alive {
            let other = self.workers[other.0 as usize].as_deref_mut().expect("alive");
            match other.out.last_mut() {
                Some(ToWorker::PeersGone(gone)) => gone.push(id),
                _ => other.out.push(ToWorker::PeersGone(vec![id])),
            }
        }
        for task in held {
            self.lose(task, id);
        }
        self.settle();
        // Only what it had begun can have ended it.
        let mut n_suspects = if blames { worker.hello.nthreads } else { 0 };
        for task in running {
            let alive = self.table.layers[task.layer as usize].is_some();
            if alive && self.state(task) == (State::Processing { worker: id }) {
                match n_suspects {
                    0 => self.take_back(task),
                    _ => self.on_crashed(task, &worker.hello.address, reason),
                }
                n_suspects = n_suspects.saturating_sub(1);
                self.settle();
            }
        }
        for entry in worker.pending.iter() {
            if self.is_due(entry) && !mutant("queue-of-lost-worker-forgotten") {
                self.make_ready(entry.task());
            }
        }
        self.errands_without(id);
        self.transfers_without(id);
        self.story.remember(id, worker.hello.address);
        self.answer_for(id);
    }

    /// A later worker at the same address.
    fn namesake(&self, id: WorkerId) -> Option<WorkerId> {
        let address = &self.worker(id)?.hello.address;
        let same = |w: &WorkerId| {
            *w != id && self.worker(*w).is_some_and(|worker| worker.hello.address == *address)
        };
        self.alive.iter().copied().rev().find(same)
    }

    /// Values of which the worker holds a copy, or the only one. Looks at all tasks.
    fn held_by(&self, id: WorkerId) -> Vec<TaskRef> {
        let mut held = Vec::new();
        self.each_task(|task| {
            if matches!(self.state(task), State::Memory { holder, .. } if holder == id) {
                held.push(task);
            }
        });
        let replicas = self.table.replicas.iter();
        let is_copy =
            |holders: &[WorkerId]| holders.contains(&id) && !mutant("replica-of-lost-worker-kept");
        let mut copied: Vec<TaskRef> =
            replicas.filter(|(_, holders)| is_copy(holders)).map(|(task, _)| *task).collect();
        copied.sort_unstable();
        held.extend(copied);
        held
    }
}
