//! Workers and clients come and go.

use crate::peer::{Client, Worker};
use crate::scheduler::Scheduler;
use crate::table::{State, TaskRef};
use rasker_graph::ClientId;
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
            worker.peers.push(peer.clone());
        }
        for client in self.clients.values_mut() {
            client.out.push(ToClient::Peers(vec![peer.clone()]));
        }
        self.workers[at] = Some(Box::new(newcomer));
        self.alive.push(id);
        self.alive.sort_unstable();
        self.place_classes();
    }

    pub(crate) fn on_worker_left(&mut self, id: WorkerId, reason: &str) {
        let Some(worker) = self.workers.get_mut(id.0 as usize).and_then(Option::take) else {
            return;
        };
        self.alive.retain(|w| *w != id);
        worker.borrowed.values().cloned().for_each(|lenders| self.repay(lenders));
        self.place_classes();
        for client in self.clients.values_mut() {
            client.out.push(ToClient::PeersGone(vec![id]));
        }
        let (mut held, mut running) = (Vec::new(), Vec::new());
        for (slot, layer) in (0..).zip(&self.table.layers) {
            let Some(layer) = layer else { continue };
            for index in 0..layer.expanded {
                let task = TaskRef { layer: slot, index };
                match layer.task(index).state {
                    State::Memory { holder, .. } if holder == id => held.push(task),
                    State::Processing { worker } if worker == id => running.push(task),
                    _ => {}
                }
            }
        }
        let copied: Vec<TaskRef> = (self.table.replicas.iter())
            .filter(|(_, replicas)| replicas.contains(&id))
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
        self.move_queue(&worker);
        self.answer_for(id);
    }

    /// What waited beside a worker that is gone is placed anew.
    fn move_queue(&mut self, worker: &Worker) {
        for entry in worker.pending.iter() {
            if self.is_due(entry) {
                self.make_ready(entry.task());
            }
        }
    }
}
