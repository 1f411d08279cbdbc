//! The world: machines, links between them, and one clock that jumps from event to event.

use crate::audit::Ledger;
use crate::executor::Executor;
use crate::memory::Disk;
use crate::oracle::Oracle;
use crate::random::{Random, mix};
use crate::scenario::{Act, PlannedAct, PlannedFault, Scenario};
use crate::swarm::Swarm;
use crate::user::{Book, Scene, Tag, User, Wish};
use crate::{Failure, Options, Summary};
use rasker_graph::{ClientId, TaskId};
use rasker_protocol::{
    ExecutorId, FromExecutor, FromHolder, ToClient, ToExecutor, ToHolder, WorkerHello, WorkerId,
};
use rasker_scheduler::{
    Action as SchedulerAction, Event as SchedulerEvent, Scheduler, SchedulerOptions,
};
use rasker_worker::{Event as WorkerEvent, Worker};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};

/// The end of a link.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Place {
    Scheduler,
    Worker(WorkerId),
    Executor(WorkerId, ExecutorId),
    User(usize),
    Reader(u64),
}

/// Something that comes about at its time.
pub(crate) enum Event {
    Scheduler(SchedulerEvent),
    SchedulerTurn,
    Worker(WorkerId, WorkerEvent),
    WorkerTurn(WorkerId),
    Executor(WorkerId, ExecutorId, ToExecutor),
    ExecutorUp(WorkerId, ExecutorId),
    ShareEnds(WorkerId, ExecutorId, u64),
    Client(usize, ClientId, ToClient),
    Got(usize, Tag, FromHolder),
    Stored {
        user: usize,
        client: ClientId,
        number: u64,
        worker: WorkerId,
        ok: bool,
    },
    Act(PlannedAct),
    Flush(usize),
    Fault(PlannedFault),
    /// The process of a worker ends.
    WorkerEnds(WorkerId),
    /// A worker finds that its scheduler is lost, and is let in again.
    Parts(WorkerId),
    Rejoins(WorkerId),
    /// Somebody looks how much memory a worker uses; it says how it is.
    Measures(WorkerId),
    WorkerTicks(WorkerId),
    /// The scheduler looks who is silent, and workers say how they are; so often from then on.
    Ticks(u32),
    /// A call that submitted tasks of its own looks whether they are done.
    NestedLooks {
        worker: WorkerId,
        executor: ExecutorId,
        share: u64,
        user: usize,
        /// Looked last so long after the time before, ns.
        pause: u64,
    },
}

/// Who asked a worker for something.
#[derive(Clone)]
pub(crate) enum Asker {
    Worker { worker: WorkerId, tasks: Vec<TaskId> },
    Parts { worker: WorkerId, request: u64 },
    Get { user: usize, tag: Tag },
    Put { user: usize, client: ClientId, number: u64 },
}

pub(crate) struct WorkerNode {
    pub machine: Worker,
    pub name: u64,
    pub executors: BTreeMap<ExecutorId, Executor>,
    pub is_turn_due: bool,
    /// Whether it exists, and whether the scheduler counts on it.
    pub is_there: bool,
    pub is_counted: bool,
    pub nthreads: u32,
    pub has_gpu: bool,
    /// When the scheduler hears of it.
    pub joined_at: u64,
    /// Where it runs: a later worker may run at the same place under the same address.
    pub slot: u32,
    pub hello: WorkerHello,
    /// Its first incarnation: what is between it and its executors goes under that name.
    pub home: WorkerId,
    /// It was silent, or lost its scheduler, and comes back.
    pub comes_back: bool,
    /// From then on nothing of what it says, or of what it is told, arrives.
    pub deaf_from: u64,
    pub mute_from: u64,
    /// It does nothing until then.
    pub frozen_until: u64,
    /// Executors that died here, and calls that were blamed for it.
    pub n_deaths: u32,
    pub n_blamed: u32,
    pub disk: Disk,
    /// It is to be measured, or ticks, before long.
    pub is_measured: bool,
    pub is_ticking: bool,
}

pub(crate) struct World {
    pub random: Random,
    pub swarm: Swarm,
    pub options: Options,
    pub now: u64,
    heap: BinaryHeap<Reverse<(u64, u64, u64)>>,
    events: HashMap<u64, Event>,
    n_events: u64,
    pub links: HashMap<(Place, Place), u64>,
    /// By how much some links are slower than others.
    pub slow: HashMap<(Place, Place), u64>,
    pub scheduler: Scheduler,
    pub is_turn_due: bool,
    pub scheduler_out: Vec<SchedulerAction>,
    pub workers: BTreeMap<WorkerId, WorkerNode>,
    pub next_worker: u32,
    /// Incarnations that joined again under another name.
    pub later: HashMap<WorkerId, WorkerId>,
    pub n_ticks: u32,
    pub users: Vec<User>,
    next_client: u32,
    flush_due: Vec<bool>,
    pub asked: BTreeMap<u64, (WorkerId, Asker)>,
    pub n_asked: u64,
    pub oracle: Oracle,
    pub book: Book,
    pub taught: HashSet<(WorkerId, u128)>,
    pub ledger: Ledger,
    pub digest: u64,
    pub n_handled: u64,
    n_deferred: u64,
    pub n_scheduler_events: u64,
    pub is_healed: bool,
    /// How often workers looked at their memory.
    pub n_looks: u64,
}

impl World {
    pub fn new(scenario: &Scenario, options: &Options) -> World {
        let world_spreads = scenario.swarm.spread > 0;
        let mut world = World {
            random: scenario.random(),
            swarm: scenario.swarm.clone(),
            options: options.clone(),
            now: 0,
            heap: BinaryHeap::new(),
            events: HashMap::new(),
            n_events: 0,
            links: HashMap::new(),
            slow: HashMap::new(),
            scheduler: Scheduler::new(SchedulerOptions {
                suspect_after_ns: 2_000_000_000,
                lost_after_ns: 5_000_000_000,
                spread_nbytes: if world_spreads { 1 } else { u64::MAX },
                ..SchedulerOptions::default()
            }),
            is_turn_due: false,
            scheduler_out: Vec::new(),
            workers: BTreeMap::new(),
            next_worker: 0,
            later: HashMap::new(),
            n_ticks: 0,
            users: Vec::new(),
            next_client: 1,
            flush_due: Vec::new(),
            asked: BTreeMap::new(),
            n_asked: 0,
            oracle: Oracle::default(),
            book: Book::default(),
            taught: HashSet::new(),
            ledger: Ledger::default(),
            digest: scenario.seed,
            n_handled: 0,
            n_deferred: 0,
            n_scheduler_events: 0,
            is_healed: false,
            n_looks: 0,
        };
        world.oracle.limit_nbytes = world.memory_options().limit_nbytes;
        world.oracle.has_quota = world.swarm.quota > 0;
        for slot in 0..world.swarm.n_workers as u32 {
            world.worker_joins(None, slot);
        }
        for user in 0..world.swarm.n_users as usize {
            let n_acts = scenario.acts.iter().filter(|act| act.user == user).count();
            world.user_joins(n_acts as u64);
        }
        if world.swarm.stall > 0 {
            world.at(0, Event::Scheduler(SchedulerEvent::Tick));
        }
        let n_users = world.users.len();
        for act in scenario.acts.iter().filter(|act| act.user < n_users) {
            world.at(act.at_ns, Event::Act(act.clone()));
        }
        for fault in &scenario.faults {
            world.at(fault.at_ns, Event::Fault(fault.clone()));
        }
        world
    }

    pub fn user_joins(&mut self, n_acts: u64) -> usize {
        let client = self.new_client();
        self.users.push(User::new(client, n_acts));
        self.flush_due.push(false);
        self.users.len() - 1
    }

    fn new_client(&mut self) -> ClientId {
        let client = ClientId(self.next_client);
        self.next_client += 1;
        let event = SchedulerEvent::ClientJoined { client, name: format!("{client:?}") };
        self.tell_scheduler(Place::User(client.0 as usize), event);
        client
    }

    /// Enters an event that comes about after so long; ties are broken by the seed.
    pub fn at(&mut self, after: u64, event: Event) {
        let number = self.n_events;
        self.n_events += 1;
        self.events.insert(number, event);
        let tie = self.random.next();
        self.heap.push(Reverse((self.now + after, tie, number)));
    }

    /// Sends over a link: messages of one link stay in order.
    pub fn over(&mut self, from: Place, to: Place, event: Event) {
        let factor = self.slow.get(&(from, to)).copied().unwrap_or(1);
        let delay = 1 + self.random.below(self.swarm.delay_ns.max(1)) * factor;
        let arrival = self.links.entry((from, to)).or_insert(0);
        *arrival = (*arrival + 1).max(self.now + delay);
        let after = *arrival - self.now;
        self.at(after, event);
    }

    pub fn tell_scheduler(&mut self, from: Place, event: SchedulerEvent) {
        self.over(from, Place::Scheduler, Event::Scheduler(event));
    }

    /// Runs until the time has come, or nothing is left to happen.
    pub fn run(&mut self, until: u64) -> Result<(), String> {
        while let Some(Reverse((time, ..))) = self.heap.peek()
            && *time <= until
        {
            let Some(Reverse((time, _, number))) = self.heap.pop() else { break };
            self.now = time;
            let event = self.events.remove(&number).expect("an event that was entered");
            let Some(event) = self.redirected(event) else { continue };
            self.digest = mix(mix(self.digest, time), number);
            let frozen_until = self.frozen_until(&event);
            if frozen_until > time {
                // What comes while a worker is frozen keeps its order.
                self.n_deferred += 1;
                self.events.insert(number, event);
                self.heap.push(Reverse((frozen_until, self.n_deferred, number)));
                continue;
            }
            if self.is_cut_off(&event) {
                self.book.count("a message was lost with its connection");
                continue;
            }
            self.happen(event)?;
            self.n_handled += 1;
            self.check_pace()?;
            if let Some(wrong) = self.book.wrong.first() {
                return Err(wrong.clone());
            }
        }
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Scheduler(event) => self.scheduler_handles(event)?,
            Event::SchedulerTurn => {
                self.is_turn_due = false;
                self.scheduler_handles(SchedulerEvent::Turn)?;
            }
            Event::Worker(worker, event) => self.worker_handles(worker, event),
            Event::WorkerTurn(worker) => {
                if let Some(node) = self.workers.get_mut(&worker) {
                    node.is_turn_due = false;
                }
                self.worker_handles(worker, WorkerEvent::Turn);
            }
            Event::Executor(worker, id, message) => {
                if let Some(executor) = self.executor(worker, id) {
                    let mut say = Vec::new();
                    let ended = executor.handle(message, &mut say);
                    for share in ended {
                        self.at(1, Event::ShareEnds(worker, id, share));
                    }
                    say.into_iter().for_each(|message| self.executor_says(worker, id, message));
                    self.executor_works(worker, id);
                }
            }
            Event::ExecutorUp(worker, id) => {
                if let Some(executor) = self.executor(worker, id) {
                    executor.is_up = true;
                    self.executor_says(worker, id, FromExecutor::Ready { pid: 1, board: None });
                    self.executor_works(worker, id);
                }
            }
            Event::ShareEnds(worker, id, share) => {
                let said = self.executor(worker, id).and_then(|executor| executor.end(share));
                if let Some(message) = said {
                    self.executor_says(worker, id, message);
                    self.executor_works(worker, id);
                }
            }
            Event::Client(user, client, message) => {
                if self.users[user].client.id() == client {
                    self.with_user(user, |user, scene| user.on_message(message, scene));
                }
            }
            Event::Got(user, tag, message) => {
                self.with_user(user, |user, scene| user.on_got(tag, message, scene));
            }
            Event::Stored { user, client, number, worker, ok } => {
                if self.users[user].client.id() == client {
                    let stored = |user: &mut User, scene: &mut Scene<'_>| {
                        user.on_stored(number, worker, ok, scene);
                    };
                    self.with_user(user, stored);
                }
            }
            Event::Act(planned) => self.act(&planned),
            Event::Flush(user) => self.flush(user),
            Event::Fault(planned) => self.fault(&planned),
            Event::WorkerEnds(worker) => self.worker_ends(worker),
            Event::Parts(worker) => self.worker_parts(worker),
            Event::Rejoins(worker) => self.worker_rejoins(worker),
            Event::Ticks(left) => self.ticks(left),
            Event::Measures(worker) => self.measures(worker),
            Event::WorkerTicks(worker) => self.worker_ticks(worker),
            Event::NestedLooks { worker, executor, share, user, pause } => {
                self.nested_looks((worker, executor, share), user, pause);
            }
        }
        Ok(())
    }

    pub(crate) fn with_user(&mut self, at: usize, f: impl FnOnce(&mut User, &mut Scene<'_>)) {
        let user = &mut self.users[at];
        let mut scene = Scene {
            random: &mut self.random,
            oracle: &mut self.oracle,
            swarm: &self.swarm,
            book: &mut self.book,
        };
        f(user, &mut scene);
        let client = user.client.id();
        let is_unsent = user.client.has_unsent();
        let wishes = std::mem::take(&mut user.wishes);
        for wish in wishes {
            match wish {
                Wish::Send(message) => {
                    self.trace("client", &(client, &message));
                    let event = SchedulerEvent::FromClient { client, message };
                    self.tell_scheduler(Place::User(client.0 as usize), event);
                }
                Wish::Get { holder, tag, task } => {
                    let asker = Asker::Get { user: at, tag };
                    self.ask(holder, asker, |id| ToHolder::Get { id, tasks: vec![task] });
                }
                Wish::Put { worker, number, values } => {
                    let asker = Asker::Put { user: at, client, number };
                    self.ask(worker, asker, |id| ToHolder::Put { id, values });
                }
            }
        }
        if is_unsent && !self.flush_due[at] {
            self.flush_due[at] = true;
            let after = self.random.below(self.swarm.batch_ns + 1);
            self.at(after, Event::Flush(at));
        }
    }

    fn flush(&mut self, user: usize) {
        self.flush_due[user] = false;
        self.with_user(user, |user, scene| {
            user.client.flush(&mut user.actions);
            user.settle(scene);
        });
    }

    fn act(&mut self, planned: &PlannedAct) {
        let at = planned.user;
        if planned.act == Act::Leave {
            // Values that are on their way to workers would belong to nobody.
            if self.users[at].scatters.is_empty() {
                self.client_leaves(at);
            }
            self.users[at].acts_left -= 1;
            return;
        }
        let mut random = Random::new(planned.seed);
        std::mem::swap(&mut random, &mut self.random);
        self.with_user(at, |user, scene| user.act(planned.act, scene));
        std::mem::swap(&mut random, &mut self.random);
    }

    pub fn client_leaves(&mut self, at: usize) {
        self.book.count("a client left");
        let client = self.users[at].client.id();
        let from = Place::User(client.0 as usize);
        self.tell_scheduler(from, SchedulerEvent::ClientLeft { client });
        let acts = self.users[at].acts_left;
        let client = self.new_client();
        self.users[at] = User::new(client, acts);
    }

    pub fn trace(&mut self, who: &str, what: &dyn std::fmt::Debug) {
        if self.options.exact {
            let text = format!("{what:?}");
            let words = text.as_bytes().chunks(8);
            self.digest = words.fold(self.digest, |digest, word| {
                let mut bytes = [0; 8];
                bytes[..word.len()].copy_from_slice(word);
                mix(digest, u64::from_le_bytes(bytes))
            });
        }
        if self.options.verbose {
            eprintln!("{:>12} {who}: {what:?}", self.now);
        }
    }

    pub fn summary(&self) -> Summary {
        let mut counts = self.book.counts.clone();
        if self.scheduler.n_stale() > 0 {
            *counts.entry("a late message was dropped").or_default() += self.scheduler.n_stale();
        }
        counts.extend(rasker_protocol::probe::take_reached());
        Summary { digest: self.digest, n_events: self.n_handled, counts }
    }

    pub fn failure(&self, seed: u64, what: String) -> Failure {
        Failure { seed, what, at_ns: self.now, n_events: self.n_handled }
    }
}
