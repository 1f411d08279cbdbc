//! Workers and clients come and go.

use crate::peer::{Client, Worker};
use crate::scheduler::Scheduler;
use crate::table::{State, TaskRef};
use rasker_graph::ClientId;
use rasker_protocol::probe::{mutant, sometimes};
use rasker_protocol::{ToClient, WorkerHello, WorkerId};

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
        if !mutant("unplaceable-forgotten") {
            self.place_again();
        }
    }

    pub(crate) fn on_worker_left(&mut self, mut id: WorkerId, reason: &str) {
        if let Some(namesake) = self.namesake(id) {
            sometimes("a worker was lost after its successor had come");
            if mutant("late-loss-removes-successor") {
                id = namesake;
            }
        }
        let is_back = mutant("identity-by-address") && self.namesake(id).is_some();
        let Some(worker) = self.workers.get_mut(id.0 as usize).and_then(Option::take) else {
            return;
        };
        self.alive.retain(|w| *w != id);
        for client in self.clients.values_mut() {
            client.out.push(ToClient::PeersGone(vec![id]));
        }
        let (mut held, mut running) = (Vec::new(), Vec::new());
        for (slot, layer) in (0..).zip(&self.table.layers) {
            let Some(layer) = layer else { continue };
            for index in 0..layer.expanded {
                let task = TaskRef { layer: slot, index };
                match layer.task(index).state {
                    _ if is_back => {}
                    State::Memory { holder, .. } if holder == id => held.push(task),
                    State::Processing { worker } if worker == id => running.push(task),
                    _ => {}
                }
            }
        }
        let copied: Vec<TaskRef> = (self.table.replicas.iter())
            .filter(|(_, replicas)| {
                replicas.contains(&id) && !mutant("replica-of-lost-worker-kept")
            })
            .map(|(task, _)| *task)
            .collect();
        for task in held.into_iter().chain(copied) {
            self.lose(task, id);
        }
        self.settle();
        for task in running {
            let alive = self.table.layers[task.layer as usize].is_some();
            if alive && self.state(task) == (State::Processing { worker: id }) {
                self.on_crashed(task, reason);
                self.settle();
            }
        }
        if !mutant("queue-of-lost-worker-forgotten") {
            self.move_queue(&worker);
        }
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

    /// What waited beside a worker that is gone is placed anew.
    fn move_queue(&mut self, worker: &Worker) {
        for entry in worker.pending.iter().chain(worker.bound.iter()) {
            if self.is_due(entry.0) {
                self.make_ready(entry.0.task());
            }
        }
    }
}
