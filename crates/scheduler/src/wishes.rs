//! What clients want and let go of: tasks under further names, values of their own, release,
//! cancellation and retries.

use crate::ahead::BATCH;
use crate::scheduler::{Scheduler, Step};
use crate::story::Moment;
use crate::table::{Recipe, State, Table, TaskList, TaskRef};
use rasker_graph::{ClientId, Key, LayerId, Run, TaskId};
use rasker_protocol::probe::{mutant, sometimes};
use rasker_protocol::{Failure, FailureKind, Finished, Scattered, WorkerId};
use std::sync::Arc;

impl Scheduler {
    /// The key is somebody's already: the task there is wanted once more.
    pub(crate) fn make_alias(&mut self, task: TaskRef, of: TaskRef) {
        let client = self.table.layer(task.layer).client;
        let wanted = self.table.task(task).wanted;
        self.table.layer_mut(task.layer).has_aliases = true;
        self.set(task, State::Alias { of });
        // What the alias itself was to read it reads no more; nothing was entered for it.
        if wanted {
            let name = self.table.id(task);
            self.want(of, client, name);
        }
    }

    /// A client wants a task under a name of its own.
    fn want(&mut self, task: TaskRef, client: ClientId, name: TaskId) {
        self.table.also_wanted.entry(task).or_default().push((client, name));
        self.table.task_mut(task).also_wanted = true;
        match self.state(task) {
            State::Released => self.todo.push(Step::Compute(task)),
            State::Memory { .. } if mutant("late-wish-not-told") => {}
            State::Memory { holder, nbytes } => {
                sometimes("a value was wished for that was there");
                let held_as = self.table.id(task);
                if let Some(client) = self.clients.get_mut(&client) {
                    client.tell_finished(Finished {
                        run: name.run(),
                        held_as,
                        holder,
                        nbytes: nbytes as u64,
                        values: None,
                    });
                }
            }
            State::Failed { failure } => {
                let failure = self.failure(failure).clone();
                if let Some(client) = self.clients.get_mut(&client) {
                    client.tell_failed(name.run(), failure);
                }
            }
            _ => {}
        }
    }

    pub(crate) fn on_scattered(&mut self, client: ClientId, scattered: Scattered) {
        let Scattered { layer: id, keys, names, nbytes, holders } = scattered;
        let count = keys.len() as u32;
        let sound =
            nbytes.len() == keys.len() && holders.len() == keys.len() && names.len() == keys.len();
        if !sound || count == 0 || id.client() != client || self.table.by_id.contains_key(&id) {
            self.n_stale += 1;
            return;
        }
        let recipe = Recipe::Data { keys: keys.clone(), names };
        let slot = self.table.add_layer(Table::new_layer(id, client, count, recipe));
        self.table.layer_mut(slot).expand(count);
        for (index, key) in (0..count).zip(keys) {
            let task = TaskRef { layer: slot, index };
            self.set(task, State::Released);
            if self.table.find_key(key).is_none() {
                self.table.add_key(key, task);
            }
            let mut there = holders[index as usize].iter().filter(|w| self.worker(**w).is_some());
            let Some(&holder) = there.next() else {
                self.todo.push(Step::Compute(task));
                continue;
            };
            let mut others: smallvec::SmallVec<[WorkerId; 2]> = smallvec::SmallVec::new();
            for &other in there {
                if other != holder && !others.contains(&other) {
                    others.push(other);
                }
            }
            if !others.is_empty() {
                self.table.replicas.insert(task, others);
            }
            self.note(task, Moment::Scattered, holder);
            self.set(task, State::Memory { holder, nbytes: nbytes[index as usize] as f32 });
            self.report(task);
        }
    }

    pub(crate) fn on_adopt(
        &mut self,
        client: ClientId,
        name: TaskId,
        key: Key,
        index: Option<u32>,
    ) {
        let is_own = name.index == 0 && name.layer.client() == client;
        if !is_own || self.table.by_id.contains_key(&name.layer) {
            self.n_stale += 1;
            return;
        }
        let found = match index {
            None => self.table.find_key(key),
            Some(index) => self.table.by_layer_key.get(&key).copied().and_then(|slot| {
                let id = self.table.layer(slot).id;
                self.table.find(TaskId::new(id, index))
            }),
        };
        let Some(task) = found else {
            let text = "no task has this key; it was released or never submitted";
            let failure = Arc::new(Failure::new(FailureKind::Cancelled, format!("{key:?}"), text));
            if let Some(client) = self.clients.get_mut(&client) {
                client.tell_failed(name.run(), failure);
            }
            return;
        };
        if self.table.is_exchange(task) {
            let text = "an exchange has no value; ask for the tasks that read it";
            let failure =
                Arc::new(Failure::new(FailureKind::Unpicklable, format!("{key:?}"), text));
            if let Some(client) = self.clients.get_mut(&client) {
                client.tell_failed(name.run(), failure);
            }
            return;
        }
        self.table.layer_mut(task.layer).expand(task.index + 1);
        let recipe = Recipe::Data { keys: vec![Key(0)], names: vec!["".into()] };
        let mut state = Table::new_layer(name.layer, client, 1, recipe);
        state.has_aliases = true;
        let slot = self.table.add_layer(state);
        self.table.layer_mut(slot).expand(1);
        self.make_alias(TaskRef { layer: slot, index: 0 }, task);
    }

    pub(crate) fn on_release(&mut self, client: ClientId, runs: &[Run]) {
        if mutant("release-lost") && runs.len() == 1 {
            return;
        }
        for run in runs {
            let Some(&slot) = self.table.by_id.get(&run.layer) else { continue };
            if self.table.layer(slot).client != client {
                continue;
            }
            let end = run.end().min(self.table.layer(slot).count);
            self.release_unseen(slot, run.start, end);
            for index in run.start..end {
                let Some(layer) = self.table.layers[slot as usize].as_ref() else { break };
                if layer.id != run.layer || index >= layer.expanded {
                    break;
                }
                if ((index - run.start) as usize).is_multiple_of(BATCH) {
                    self.table.read_ahead_of_release(slot, index, end);
                }
                self.unwant(TaskRef { layer: slot, index });
                self.settle();
            }
        }
    }

    /// Roots that nobody looked at yet and nobody wants are cut off, or are given records.
    fn release_unseen(&mut self, slot: u32, start: u32, end: u32) {
        let layer = self.table.layer_mut(slot);
        if end <= layer.expanded {
            return;
        }
        if start <= layer.expanded && end == layer.count {
            let n = layer.count - layer.expanded;
            layer.count = layer.expanded;
            layer.cursor = layer.cursor.min(layer.count);
            self.drop_tasks(slot, n);
        } else {
            layer.expand(end);
        }
    }

    fn unwant(&mut self, task: TaskRef) {
        let record = self.table.task_mut(task);
        let was = std::mem::replace(&mut record.wanted, false);
        match record.state {
            State::Alias { of } if was => {
                let name = self.table.id(task);
                self.unwant_as(of, name);
                self.set(task, State::Forgotten);
                self.drop_tasks(task.layer, 1);
            }
            State::Alias { .. } | State::Forgotten => {}
            _ => self.todo.push(Step::Consider(task)),
        }
    }

    fn unwant_as(&mut self, task: TaskRef, name: TaskId) {
        let Some(wishes) = self.table.also_wanted.get_mut(&task) else { return };
        wishes.retain(|(_, n)| *n != name);
        if wishes.is_empty() {
            self.table.also_wanted.remove(&task);
            self.table.task_mut(task).also_wanted = false;
            self.todo.push(Step::Consider(task));
        }
    }

    /// Everything a client wanted is wanted by it no more.
    pub(crate) fn release_client(&mut self, client: ClientId) {
        let layers: Vec<(LayerId, u32)> = (self.table.layers.iter().flatten())
            .filter(|layer| layer.client == client)
            .map(|layer| (layer.id, layer.count))
            .collect();
        for (id, count) in layers {
            self.on_release(client, &[Run::new(id, 0, count)]);
        }
    }

    pub(crate) fn on_cancel(&mut self, runs: &[Run], reason: &str) {
        for run in runs.iter().filter_map(|run| self.table.clip(*run)).collect::<Vec<_>>() {
            for id in run.tasks() {
                let Some(task) = self.table.find(id) else { continue };
                self.table.layer_mut(task.layer).expand(task.index + 1);
                let key = self.key_text(task);
                let text = if reason.is_empty() { "cancelled by a client" } else { reason };
                let failure = Failure::new(FailureKind::Cancelled, key, text);
                let failure = self.add_failure(Arc::new(failure));
                if !mutant("cancelled-key-joined") {
                    self.table.remove_key(task);
                }
                self.table.remove_layer_key(task.layer);
                if let State::Processing { worker } = self.state(task) {
                    sometimes("a task was cancelled while it was with a worker");
                    self.stop(task, worker);
                }
                self.free(task);
                self.fail_later(task, failure);
                self.settle();
            }
        }
    }

    pub(crate) fn on_retry(&mut self, client: ClientId, tasks: &[TaskId]) {
        let mut open: Vec<TaskRef> = Vec::new();
        for id in tasks {
            match self.table.find(*id) {
                Some(task) => {
                    self.table.layer_mut(task.layer).expand(task.index + 1);
                    open.push(task);
                }
                None => {
                    let text = "there is no recipe for it here any more; submit it again";
                    let failure = Failure::new(FailureKind::Cancelled, format!("{id:?}"), text);
                    if let Some(client) = self.clients.get_mut(&client) {
                        client.tell_failed(id.run(), Arc::new(failure));
                    }
                }
            }
        }
        let again = open.clone();
        while let Some(task) = open.pop() {
            if matches!(self.state(task), State::Failed { .. }) {
                self.set(task, State::Released);
                self.note(task, Moment::Retried, WorkerId::NOBODY);
                let record = self.table.task_mut(task);
                record.retries_used = 0;
                record.suspicion = 0;
                record.attempt += 1;
                let mut dependencies = TaskList::new();
                self.table.dependencies(task, &mut dependencies);
                open.extend(dependencies);
            }
        }
        for task in again {
            if matches!(self.state(task), State::Memory { .. }) {
                sometimes("a retry came after another's");
                // Somebody else's retry was first; whoever asks now does not know it any more.
                self.report(task);
                continue;
            }
            self.tell_wanting(task, |client, run| client.tell_pending(run));
            self.todo.push(Step::Compute(task));
        }
    }
}
