//! The machine: its parts and its one door.

use crate::ahead::BATCH;
use crate::dispatch::Rank;
use crate::errands::Errand;
use crate::event::{Action, Event};
use crate::hot::Transfers;
use crate::peer::{Client, Question, Worker};
use crate::place::{Class, Stretches};
use crate::queue::Queue;
use crate::story::Story;
use crate::table::{Map, Table, TaskRef};
use crate::template::Templates;
use rasker_graph::ClientId;
use rasker_protocol::probe::{mutant, sometimes};
use rasker_protocol::{
    Datum, Failure, FromClient, FromWorker, Kinds, Priority, ToClient, ToWorker, WorkerId,
};
use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// A cascade is a list of these, worked off until it is empty: nothing here recurses.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// The task may not be needed any more.
    Consider(TaskRef),
    /// The task's value is needed and there is no plan to make it.
    Compute(TaskRef),
    Fail(TaskRef, u32),
}

/// How a scheduler is set up.
#[derive(Clone, Debug)]
pub struct SchedulerOptions {
    /// Executors that may die under a task before it is given up.
    pub allowed_failures: u8,
    /// A worker that says nothing for so long gets no new work, ns.
    pub suspect_after_ns: u64,
    /// A worker that says nothing for so long is counted as lost, ns.
    pub lost_after_ns: u64,
    /// Readers of values from this size on are spread over those that have them, bytes.
    pub spread_nbytes: u64,
}

impl Default for SchedulerOptions {
    fn default() -> SchedulerOptions {
        let second = 1_000_000_000;
        SchedulerOptions {
            allowed_failures: 3,
            suspect_after_ns: 5 * second,
            lost_after_ns: 15 * second,
            spread_nbytes: 64 << 10,
        }
    }
}

/// See the crate's essay.
pub struct Scheduler {
    pub(crate) table: Table,
    pub(crate) templates: Templates,
    pub(crate) workers: Vec<Option<Box<Worker>>>,
    /// Workers that are there, ascending.
    pub(crate) alive: Vec<WorkerId>,
    pub(crate) clients: BTreeMap<ClientId, Client>,
    pub(crate) failures: Vec<Option<(Arc<Failure>, u32)>>,
    pub(crate) free_failures: Vec<u32>,
    /// Layers with roots beyond their cursor.
    pub(crate) roots: BTreeMap<(Priority, u32), ()>,
    /// While a page is taken in: who gets those of its tasks that read nothing.
    pub(crate) stretches: Option<Stretches>,
    /// Ready tasks that any worker may run.
    pub(crate) ready: Queue,
    /// Ready tasks that ask for workers or resources.
    pub(crate) classes: Vec<Class>,
    pub(crate) todo: Vec<Step>,
    pub(crate) n_submitted: u64,
    /// Versions given to open exchanges.
    pub(crate) n_openings: u32,
    pub(crate) n_stale: u64,
    pub(crate) questions: Map<u64, Question>,
    pub(crate) n_questions: u64,
    pub(crate) events: VecDeque<(String, f64, Datum)>,
    pub(crate) options: SchedulerOptions,
    /// How executors died under tasks that are not through yet.
    pub(crate) deaths: Map<TaskRef, Vec<String>>,
    pub(crate) now_ns: u64,
    pub(crate) ticked_ns: u64,
    /// Kinds of tasks that some worker does not run, and those that some worker does.
    pub(crate) lacking: Kinds,
    pub(crate) offered: Kinds,
    /// Workers that are there and get no work.
    pub(crate) n_sidelined: u32,
    /// Last words to workers that do not count any more.
    pub(crate) farewells: Vec<(WorkerId, ToWorker)>,
    /// Copies under way for somebody, and who is told when they are there.
    pub(crate) errands: Vec<Errand>,
    pub(crate) spare_ranks: Vec<Reverse<Rank>>,
    /// Large values that are on their way between workers.
    pub(crate) transfers: Map<TaskRef, Transfers>,
    pub(crate) story: Story,
}

impl Default for Scheduler {
    fn default() -> Scheduler {
        Scheduler::new(SchedulerOptions::default())
    }
}

impl Scheduler {
    pub fn new(options: SchedulerOptions) -> Scheduler {
        Scheduler {
            table: Table::default(),
            templates: Templates::default(),
            workers: Vec::new(),
            alive: Vec::new(),
            clients: BTreeMap::new(),
            failures: Vec::new(),
            free_failures: Vec::new(),
            roots: BTreeMap::new(),
            stretches: None,
            ready: Queue::default(),
            classes: Vec::new(),
            todo: Vec::new(),
            n_submitted: 0,
            n_openings: 0,
            n_stale: 0,
            questions: Map::default(),
            n_questions: 0,
            events: VecDeque::new(),
            options,
            deaths: Map::default(),
            now_ns: 0,
            ticked_ns: 0,
            lacking: Kinds::NONE,
            offered: Kinds::NONE,
            n_sidelined: 0,
            farewells: Vec::new(),
            errands: Vec::new(),
            spare_ranks: Vec::new(),
            transfers: Map::default(),
            story: Story::default(),
        }
    }

    /// The one door: what happened goes in, what is to be done comes out. Work is handed out and
    /// messages are made at [`Event::Turn`], so that a batch of events costs one decision.
    pub fn handle(&mut self, now_ns: u64, event: Event, out: &mut Vec<Action>) {
        self.now_ns = now_ns;
        match event {
            Event::ClientJoined { client, name } => self.on_client_joined(client, name),
            Event::ClientLeft { client } => self.on_client_left(client),
            Event::FromClient { client, message } => self.on_client_message(client, message),
            Event::WorkerJoined { worker, hello } => self.on_worker_joined(worker, hello),
            Event::WorkerLeft { worker, reason } => self.on_worker_left(worker, &reason, true),
            Event::FromWorker { worker, message } => self.on_worker_message(worker, message),
            Event::Tick => self.on_tick(),
            Event::Turn => {
                self.run_errands();
                self.dispatch();
                self.speak(out);
            }
        }
        self.settle();
    }

    fn on_client_message(&mut self, client: ClientId, message: FromClient) {
        if !self.clients.contains_key(&client) {
            self.n_stale += 1;
            return;
        }
        match message {
            FromClient::Submit(submit) => self.on_submit(client, submit),
            FromClient::Release(runs) => self.on_release(client, &runs),
            FromClient::Cancel { runs, reason } => self.on_cancel(&runs, &reason),
            FromClient::Retry(tasks) => self.on_retry(client, &tasks),
            FromClient::Scattered(scattered) => self.on_scattered(client, scattered),
            FromClient::Adopt { task, key, index } => self.on_adopt(client, task, key, index),
            FromClient::Ask { id, query } => self.on_query(client, id, query),
        }
    }

    fn on_worker_message(&mut self, worker: WorkerId, message: FromWorker) {
        if self.worker(worker).is_none() && !mutant("stale-incarnation-accepted") {
            sometimes("a lost worker spoke");
            // From an incarnation that is counted as lost: whatever it says is void.
            self.n_stale += 1;
            return;
        }
        self.on_heard(worker);
        match message {
            FromWorker::Progress(items) => {
                for batch in items.chunks(BATCH) {
                    self.read_ahead_of_progress(batch);
                    for item in batch {
                        self.on_progress(worker, item);
                        self.settle();
                    }
                }
            }
            FromWorker::Answer { id, answer } => self.on_answer(worker, id, answer),
            FromWorker::Status(status) => {
                self.worker_mut(worker).expect("just seen").status = status;
            }
            FromWorker::Inventory(held) => self.on_inventory(worker, &held),
            FromWorker::Retire => self.retire(worker),
            FromWorker::Leaving { reason } => self.on_worker_left(worker, &reason, false),
        }
    }

    pub(crate) fn worker(&self, id: WorkerId) -> Option<&Worker> {
        self.workers.get(id.0 as usize)?.as_deref()
    }

    pub(crate) fn worker_mut(&mut self, id: WorkerId) -> Option<&mut Worker> {
        self.workers.get_mut(id.0 as usize)?.as_deref_mut()
    }

    /// Sends what the turn has gathered, one message of a kind per peer.
    fn speak(&mut self, out: &mut Vec<Action>) {
        for (&id, client) in &mut self.clients {
            // Answers come last: what they tell of has been told when they arrive.
            let (answers, first): (Vec<_>, Vec<_>) = client
                .out
                .drain(..)
                .partition(|message| matches!(message, ToClient::Answer { .. }));
            out.extend(first.into_iter().map(|message| Action::ToClient(id, message)));
            out.extend(client.told.drain(..).map(|message| Action::ToClient(id, message)));
            out.extend(answers.into_iter().map(|message| Action::ToClient(id, message)));
        }
        let farewells = std::mem::take(&mut self.farewells);
        out.extend(farewells.into_iter().map(|(id, message)| Action::ToWorker(id, message)));
        for &id in &self.alive {
            let worker = self.workers[id.0 as usize].as_deref_mut().expect("alive");
            if !worker.peers.is_empty() && !worker.out.is_empty() {
                // What is to be copied comes from peers that it has to know first.
                let peers = std::mem::take(&mut worker.peers);
                let message = ToWorker::Compute {
                    templates: Vec::new(),
                    calls: Vec::new(),
                    peers,
                    exchanges: Vec::new(),
                };
                out.push(Action::ToWorker(id, message));
            }
            out.extend(worker.out.drain(..).map(|message| Action::ToWorker(id, message)));
            if worker.has_calls() || !worker.peers.is_empty() {
                let message = ToWorker::Compute {
                    templates: std::mem::take(&mut worker.templates),
                    calls: worker.take_calls(),
                    peers: std::mem::take(&mut worker.peers),
                    exchanges: std::mem::take(&mut worker.opened),
                };
                out.push(Action::ToWorker(id, message));
            }
        }
    }

    /// Messages that were dropped because their sender or attempt was out of date.
    pub fn n_stale(&self) -> u64 {
        self.n_stale
    }

    /// Bytes of the records, edges and keys of all tasks.
    pub fn nbytes(&self) -> usize {
        self.table.nbytes()
    }

    /// Tasks that are not forgotten.
    pub fn n_tasks(&self) -> u64 {
        self.table.layers.iter().flatten().map(|layer| u64::from(layer.alive)).sum()
    }

    pub(crate) fn add_failure(&mut self, failure: Arc<Failure>) -> u32 {
        match self.free_failures.pop() {
            Some(at) => {
                self.failures[at as usize] = Some((failure, 0));
                at
            }
            None => {
                self.failures.push(Some((failure, 0)));
                self.failures.len() as u32 - 1
            }
        }
    }

    pub(crate) fn failure(&self, at: u32) -> &Arc<Failure> {
        &self.failures[at as usize].as_ref().expect("a failure in use").0
    }

    pub(crate) fn hold_failure(&mut self, at: u32, by: i32) {
        let slot = &mut self.failures[at as usize];
        let (_, count) = slot.as_mut().expect("a failure in use");
        *count = count.saturating_add_signed(by);
        if *count == 0 && by < 0 {
            *slot = None;
            self.free_failures.push(at);
        }
    }
}
