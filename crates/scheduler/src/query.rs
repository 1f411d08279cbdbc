//! Questions, answered from the state as it is.

use crate::peer::Question;
use crate::scheduler::Scheduler;
use crate::table::{State, TaskRef};
use rasker_graph::{ClientId, Key};
use rasker_protocol::{CallWork, Datum, Query, ToClient, ToWorker, WorkerId};

/// Logged events that are kept.
const EVENTS_MAX: usize = 10_000;

impl Scheduler {
    pub(crate) fn on_query(&mut self, client: ClientId, id: u64, query: Query) {
        let answer = match query {
            Query::Info | Query::Peers => self.info(),
            Query::WhoHas(keys) => self.who_has(&keys),
            Query::HasWhat => self.by_worker(|s, task| match s.state(task) {
                State::Memory { holder, .. } => Some(holder),
                _ => None,
            }),
            Query::Processing => self.by_worker(|s, task| match s.state(task) {
                State::Processing { worker } => Some(worker),
                _ => None,
            }),
            Query::Explain(key) => self.explain(key),
            Query::Story(keys) => self.tell_story(&keys),
            Query::Pending(runs) => {
                let left = runs.into_iter().map(|run| u64::from(self.table.n_pending(run)));
                Datum::from(left.sum::<u64>())
            }
            Query::Call(key) => self.failed_call(key),
            Query::Events(topic) => self.logged(topic.as_deref()),
            Query::LogEvent { topic, message } => {
                if self.events.len() == EVENTS_MAX {
                    self.events.pop_front();
                }
                self.events.push_back((topic, self.now_ns as f64 / 1e9, message));
                Datum::Null
            }
            Query::Run { workers, call } => {
                return self.ask_workers(client, id, &workers, |id| ToWorker::Run {
                    id,
                    call: call.clone(),
                });
            }
            Query::CallStack => {
                return self.ask_workers(client, id, &[], |id| ToWorker::CallStack { id });
            }
            Query::Retire { workers } => return self.on_retire(client, id, &workers),
            Query::Replicate { keys, n, workers } => {
                return self.on_replicate((client, id), &keys, n, &workers);
            }
            Query::Rebalance { keys, workers } => {
                return self.on_rebalance((client, id), &keys, &workers);
            }
            Query::Restart => {
                self.restart();
                Datum::Null
            }
        };
        self.answer(client, id, answer);
    }

    pub(crate) fn answer(&mut self, client: ClientId, id: u64, answer: Datum) {
        if let Some(client) = self.clients.get_mut(&client) {
            client.out.push(ToClient::Answer { id, answer });
        }
    }

    fn info(&self) -> Datum {
        let workers = self.alive.iter().filter_map(|id| self.worker(*id)).map(|worker| {
            let hello = &worker.hello;
            let resources = hello.resources.iter();
            let datum = Datum::from([
                ("id", Datum::from(worker.id.0)),
                ("name", hello.name.clone().into()),
                ("host", hello.host.clone().into()),
                ("pid", hello.pid.into()),
                ("nthreads", hello.nthreads.into()),
                ("memory_limit", hello.memory_limit.into()),
                ("python", hello.python.clone().into()),
                (
                    "resources",
                    Datum::Map(resources.map(|(n, v)| (n.clone(), (*v).into())).collect()),
                ),
                ("processing", worker.n_processing.into()),
                ("memory", worker.status.memory_nbytes.into()),
                ("held", worker.status.held_nbytes.into()),
                ("spilled", worker.status.spilled_nbytes.into()),
                ("paused", Datum::Bool(worker.status.is_paused)),
                ("disk_written", worker.status.disk.written_nbytes.into()),
                ("disk_write_ns", worker.status.disk.write_ns.into()),
                ("disk_read", worker.status.disk.read_nbytes.into()),
                ("disk_read_ns", worker.status.disk.read_ns.into()),
                ("disk_lost", worker.status.disk.n_lost.into()),
            ]);
            (hello.address.clone(), datum)
        });
        let clients = self.clients.values().map(|client| Datum::from(client.name.clone()));
        Datum::from([
            ("type", "Scheduler".into()),
            ("workers", Datum::Map(workers.collect())),
            ("clients", Datum::List(clients.collect())),
            ("tasks", self.n_tasks().into()),
            ("stale", self.n_stale.into()),
        ])
    }

    pub(crate) fn each_task(&self, mut f: impl FnMut(TaskRef)) {
        for (slot, layer) in (0..).zip(&self.table.layers) {
            let Some(layer) = layer else { continue };
            for index in 0..layer.expanded {
                f(TaskRef { layer: slot, index });
            }
        }
    }

    fn by_worker(&self, worker_of: impl Fn(&Scheduler, TaskRef) -> Option<WorkerId>) -> Datum {
        let mut lists: Vec<(WorkerId, Vec<Datum>)> =
            self.alive.iter().map(|id| (*id, Vec::new())).collect();
        self.each_task(|task| {
            if let Some(id) = worker_of(self, task)
                && let Ok(at) = lists.binary_search_by_key(&id, |(id, _)| *id)
            {
                lists[at].1.push(self.key_text(task).into());
            }
        });
        let named = lists.into_iter().filter_map(|(id, keys)| {
            Some((self.worker(id)?.hello.address.clone(), Datum::List(keys)))
        });
        Datum::Map(named.collect())
    }

    pub(crate) fn holders(&self, task: TaskRef) -> Datum {
        let State::Memory { holder, .. } = self.state(task) else { return Datum::List(Vec::new()) };
        let replicas = self.table.replicas.get(&task).into_iter().flatten();
        let addresses = std::iter::once(&holder)
            .chain(replicas)
            .filter_map(|id| Some(Datum::from(self.worker(*id)?.hello.address.clone())));
        Datum::List(addresses.collect())
    }

    /// Finds a task by its own key, or by that of a position in a layer.
    pub(crate) fn task_of(&self, key: Key) -> Option<TaskRef> {
        self.table.find_key(key).or_else(|| {
            self.table.by_layer_key.iter().find_map(|(layer, slot)| {
                let expanded = self.table.layer(*slot).expanded;
                let index = (0..expanded).find(|index| layer.item(*index) == key)?;
                Some(TaskRef { layer: *slot, index })
            })
        })
    }

    fn who_has(&self, keys: &[Key]) -> Datum {
        let mut found = Vec::new();
        if keys.is_empty() {
            self.each_task(|task| {
                if matches!(self.state(task), State::Memory { .. }) {
                    found.push((self.key_text(task), self.holders(task)));
                }
            });
        } else {
            for key in keys {
                let holders = self.task_of(*key).map(|task| self.holders(task));
                found.push((format!("{key:?}"), holders.unwrap_or(Datum::List(Vec::new()))));
            }
        }
        Datum::Map(found)
    }

    /// Code, arguments and inputs of the call at the root of a failure.
    fn failed_call(&self, key: Key) -> Datum {
        let Some(mut task) = self.task_of(key) else { return Datum::Null };
        'search: loop {
            let mut dependencies = crate::table::TaskList::new();
            self.table.dependencies(task, &mut dependencies);
            for dependency in dependencies {
                if matches!(self.state(dependency), State::Failed { .. }) {
                    task = dependency;
                    continue 'search;
                }
            }
            break;
        }
        let Some(template) = self.template_of(task) else { return Datum::Null };
        let bytes = |blob: &rasker_graph::Blob| match blob {
            rasker_graph::Blob::Bytes(bytes) => Datum::Bytes(bytes.to_vec()),
            rasker_graph::Blob::Local(_) => Datum::Null,
        };
        let work = match self.call_work(task) {
            CallWork::One { args, dependencies } => {
                let inputs = dependencies.iter().filter_map(|id| self.table.find(*id));
                let inputs = inputs.map(|input| Datum::Text(self.key_text(input)));
                Datum::from([("args", bytes(&args)), ("inputs", Datum::List(inputs.collect()))])
            }
            CallWork::Map { .. } => Datum::Null,
        };
        Datum::from([
            ("key", self.key_text(task).into()),
            ("code", bytes(&self.templates.get(template).template.code)),
            ("work", work),
        ])
    }

    fn logged(&self, topic: Option<&str>) -> Datum {
        let events = self.events.iter().filter(|(t, ..)| topic.is_none_or(|topic| topic == t));
        let rows = events.map(|(topic, time, message)| {
            Datum::List(vec![topic.clone().into(), (*time).into(), message.clone()])
        });
        Datum::List(rows.collect())
    }

    fn ask_workers(
        &mut self,
        client: ClientId,
        id: u64,
        names: &[String],
        message: impl Fn(u64) -> ToWorker,
    ) {
        self.n_questions += 1;
        let number = self.n_questions;
        let mut waiting = Vec::new();
        for at in self.alive.clone() {
            let worker = self.worker_mut(at).expect("alive");
            if names.is_empty() || names.iter().any(|name| worker.is(name)) {
                worker.out.push(message(number));
                waiting.push(at);
            }
        }
        let question = Question { client, id, waiting, answers: Vec::new() };
        self.questions.insert(number, question);
        self.close_question(number);
    }

    pub(crate) fn on_answer(&mut self, worker: WorkerId, number: u64, answer: Datum) {
        let address = self.worker(worker).expect("just seen").hello.address.clone();
        let Some(question) = self.questions.get_mut(&number) else { return };
        if let Some(at) = question.waiting.iter().position(|w| *w == worker) {
            question.waiting.swap_remove(at);
            question.answers.push((address, answer));
            self.close_question(number);
        }
    }

    /// A worker that is gone answers no more.
    pub(crate) fn answer_for(&mut self, worker: WorkerId) {
        let numbers: Vec<u64> = self.questions.keys().copied().collect();
        for number in numbers {
            if let Some(question) = self.questions.get_mut(&number) {
                question.waiting.retain(|w| *w != worker);
            }
            self.close_question(number);
        }
    }

    fn close_question(&mut self, number: u64) {
        if self.questions.get(&number).is_some_and(|question| question.waiting.is_empty()) {
            let question = self.questions.remove(&number).expect("just seen");
            self.answer(question.client, question.id, Datum::Map(question.answers));
        }
    }

    /// Forgets every task and starts the executors anew.
    fn restart(&mut self) {
        let clients: Vec<ClientId> = self.clients.keys().copied().collect();
        let layers: Vec<_> = self.table.layers.iter().flatten().map(|l| (l.id, l.count)).collect();
        for (id, count) in layers {
            let run = rasker_graph::Run::new(id, 0, count);
            self.on_cancel(&[run], "the cluster was restarted");
        }
        for client in clients {
            self.release_client(client);
        }
        // Workers forget what they were to bring over, and say nothing of it.
        self.errands.iter_mut().for_each(|errand| errand.open.clear());
        self.transfers.clear();
        for id in self.alive.clone() {
            let worker = self.worker_mut(id).expect("alive");
            worker.known.clear();
            worker.exchanges.clear();
            worker.taught = None;
            worker.out.push(ToWorker::Restart);
        }
    }
}
