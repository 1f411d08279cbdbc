//! The world: machines, links between them, and one clock that jumps from event to event.

use crate::executor::{Begun, Executor};
use crate::oracle::Oracle;
use crate::random::{Random, mix};
use crate::swarm::Swarm;
use crate::user::{Book, Scene, Tag, User, Wish};
use crate::{Failure, Options, Summary};
use rasker_graph::{ClientId, TaskId, Template};
use rasker_protocol::{
    ExecutorId, FromExecutor, FromHolder, ToClient, ToExecutor, ToHolder, ToWorker, WorkerHello,
    WorkerId,
};
use rasker_scheduler::{Action as SchedulerAction, Event as SchedulerEvent, Scheduler};
use rasker_worker::{
    Action as WorkerAction, Event as WorkerEvent, MemoryOptions, ReaderId, Worker, WorkerOptions,
};
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
    Stored { user: usize, client: ClientId, number: u64, worker: WorkerId, ok: bool },
    Act(usize),
    Flush(usize),
    Fault,
}

/// Who asked a worker for something.
#[derive(Clone)]
enum Asker {
    Worker { worker: WorkerId, tasks: Vec<TaskId> },
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
    has_gpu: bool,
    /// When the scheduler hears of it.
    joined_at: u64,
}

pub(crate) struct World {
    pub random: Random,
    pub swarm: Swarm,
    options: Options,
    now: u64,
    heap: BinaryHeap<Reverse<(u64, u64, u64)>>,
    events: HashMap<u64, Event>,
    n_events: u64,
    links: HashMap<(Place, Place), u64>,
    pub scheduler: Scheduler,
    is_turn_due: bool,
    scheduler_out: Vec<SchedulerAction>,
    pub workers: BTreeMap<WorkerId, WorkerNode>,
    next_worker: u32,
    pub users: Vec<User>,
    next_client: u32,
    flush_due: Vec<bool>,
    asked: BTreeMap<u64, (WorkerId, Asker)>,
    n_asked: u64,
    pub oracle: Oracle,
    pub book: Book,
    faults_left: u64,
    taught: HashSet<(WorkerId, u128)>,
    pub digest: u64,
    n_handled: u64,
    n_scheduler_events: u64,
    is_healed: bool,
}

impl World {
    pub fn new(seed: u64, options: &Options) -> World {
        let mut random = Random::new(seed);
        let swarm = Swarm::new(&mut random);
        let mut world = World {
            faults_left: swarm.n_faults,
            random,
            swarm,
            options: options.clone(),
            now: 0,
            heap: BinaryHeap::new(),
            events: HashMap::new(),
            n_events: 0,
            links: HashMap::new(),
            scheduler: Scheduler::default(),
            is_turn_due: false,
            scheduler_out: Vec::new(),
            workers: BTreeMap::new(),
            next_worker: 0,
            users: Vec::new(),
            next_client: 1,
            flush_due: Vec::new(),
            asked: BTreeMap::new(),
            n_asked: 0,
            oracle: Oracle::default(),
            book: Book::default(),
            taught: HashSet::new(),
            digest: seed,
            n_handled: 0,
            n_scheduler_events: 0,
            is_healed: false,
        };
        for _ in 0..world.swarm.n_workers {
            world.worker_joins(None);
        }
        for user in 0..world.swarm.n_users as usize {
            let client = world.new_client(user);
            world.users.push(User::new(client, world.swarm.n_acts));
            world.flush_due.push(false);
            world.act_later(user);
        }
        if world.faults_left > 0 {
            world.fault_later();
        }
        world
    }

    fn new_client(&mut self, _user: usize) -> ClientId {
        let client = ClientId(self.next_client);
        self.next_client += 1;
        let event = SchedulerEvent::ClientJoined { client, name: format!("{client:?}") };
        self.tell_scheduler(Place::User(client.0 as usize), event);
        client
    }

    fn act_later(&mut self, user: usize) {
        let longest = (self.swarm.delay_ns + self.swarm.call_ns) * 4;
        let after = self.random.below(longest);
        self.at(after, Event::Act(user));
    }

    fn fault_later(&mut self) {
        let acts = self.swarm.n_acts * (self.swarm.delay_ns + self.swarm.call_ns) * 4;
        let after = self.random.below(acts.max(1));
        self.at(after, Event::Fault);
    }

    /// Enters an event that comes about after so long; ties are broken by the seed.
    fn at(&mut self, after: u64, event: Event) {
        let number = self.n_events;
        self.n_events += 1;
        self.events.insert(number, event);
        let tie = self.random.next();
        self.heap.push(Reverse((self.now + after, tie, number)));
    }

    /// Sends over a link: messages of one link stay in order.
    fn over(&mut self, from: Place, to: Place, event: Event) {
        let delay = 1 + self.random.below(self.swarm.delay_ns);
        let arrival = self.links.entry((from, to)).or_insert(0);
        *arrival = (*arrival + 1).max(self.now + delay);
        let after = *arrival - self.now;
        self.at(after, event);
    }

    pub fn tell_scheduler(&mut self, from: Place, event: SchedulerEvent) {
        self.over(from, Place::Scheduler, Event::Scheduler(event));
    }

    /// Runs until nothing is left to happen.
    pub fn run(&mut self) -> Result<(), String> {
        while let Some(Reverse((time, _, number))) = self.heap.pop() {
            self.now = time;
            let event = self.events.remove(&number).expect("an event that was entered");
            self.digest = mix(mix(self.digest, time), number);
            self.happen(event)?;
            self.n_handled += 1;
            if self.n_handled > self.options.events_max {
                return Err(format!("still busy after {} events", self.n_handled));
            }
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
                    executor.handle(message, &mut say);
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
            Event::Act(user) => self.act(user),
            Event::Flush(user) => {
                self.flush_due[user] = false;
                self.with_user(user, |user, scene| {
                    user.client.flush(&mut user.actions);
                    user.settle(scene);
                });
            }
            Event::Fault => self.fault(),
        }
        Ok(())
    }

    fn scheduler_handles(&mut self, event: SchedulerEvent) -> Result<(), String> {
        let is_turn = matches!(event, SchedulerEvent::Turn);
        self.scheduler.handle(self.now, event, &mut self.scheduler_out);
        self.n_scheduler_events += 1;
        let every = self.options.check_every.max(1 + self.scheduler.n_tasks() / 40);
        if self.n_scheduler_events.is_multiple_of(every) {
            self.check_scheduler()?;
        }
        if !is_turn && !self.is_turn_due {
            self.is_turn_due = true;
            let after = self.random.below(self.swarm.batch_ns + 1);
            self.at(after, Event::SchedulerTurn);
        }
        for action in std::mem::take(&mut self.scheduler_out) {
            self.trace("scheduler", &action);
            match action {
                SchedulerAction::ToClient(client, message) => {
                    if let Some(user) = self.users.iter().position(|u| u.client.id() == client) {
                        let to = Place::User(client.0 as usize);
                        self.over(Place::Scheduler, to, Event::Client(user, client, message));
                    }
                }
                SchedulerAction::ToWorker(worker, message) => {
                    self.look_at_calls(worker, &message);
                    let event = WorkerEvent::FromScheduler(message);
                    self.over(
                        Place::Scheduler,
                        Place::Worker(worker),
                        Event::Worker(worker, event),
                    );
                }
            }
        }
        Ok(())
    }

    pub fn check_scheduler(&mut self) -> Result<(), String> {
        match self.scheduler.check().first() {
            Some(wrong) => Err(format!("scheduler: {wrong}")),
            None => Ok(()),
        }
    }

    /// Tasks run where their users allow it, and workers know what they are to run.
    fn look_at_calls(&mut self, id: WorkerId, message: &ToWorker) {
        if let ToWorker::Restart = message {
            self.taught.retain(|(worker, _)| *worker != id);
        }
        let ToWorker::Compute { templates, calls, .. } = message else { return };
        for Template { id: template, .. } in templates {
            if !self.taught.insert((id, template.0)) {
                self.book.wrong.push(format!("{id:?} is sent {template:?} twice"));
            }
        }
        let Some(node) = self.workers.get(&id) else { return };
        let (name, has_gpu) = (format!("w{}", node.name), node.has_gpu);
        for calls in calls {
            if calls.run.count > 1 {
                self.book.count("tasks were sent as a run");
            }
            if calls.attempt > 0 {
                self.book.count("a task was sent again");
            }
            if !calls.sources.is_empty() {
                self.book.count("a task was sent away from its inputs");
            }
            if !self.taught.contains(&(id, calls.template.0)) {
                self.book.wrong.push(format!("{id:?} was never sent {:?}", calls.template));
            }
            let task = TaskId::new(calls.run.layer, calls.run.start);
            let of_layer = self.book.restricted.get(&calls.run.layer);
            let Some(options) = of_layer.or_else(|| self.book.restricted_tasks.get(&task)) else {
                continue;
            };
            let is_named = options.workers.is_empty() || options.workers.contains(&name);
            let is_able = options.resources.is_empty() || has_gpu;
            if !(is_named || options.allow_other_workers) || !is_able {
                self.book.wrong.push(format!("{:?} may not run on {name}: {options:?}", calls.run));
            }
        }
    }

    fn worker_handles(&mut self, id: WorkerId, event: WorkerEvent) {
        let Some(node) = self.workers.get_mut(&id).filter(|node| node.is_there) else { return };
        let is_turn = matches!(event, WorkerEvent::Turn);
        let mut out = Vec::new();
        node.machine.handle(event, &mut out);
        let due = !is_turn && !std::mem::replace(&mut node.is_turn_due, !is_turn);
        if due {
            let after = self.random.below(self.swarm.batch_ns + 1);
            self.at(after, Event::WorkerTurn(id));
        }
        self.perform(id, out);
    }

    fn perform(&mut self, id: WorkerId, out: Vec<WorkerAction>) {
        for action in out {
            self.trace("worker", &action);
            match action {
                WorkerAction::ToScheduler(message) => {
                    let event = SchedulerEvent::FromWorker { worker: id, message };
                    self.tell_scheduler(Place::Worker(id), event);
                }
                WorkerAction::ToExecutor(executor, message) => {
                    let (from, to) = (Place::Worker(id), Place::Executor(id, executor));
                    self.over(from, to, Event::Executor(id, executor, message));
                }
                WorkerAction::StartExecutor(executor) => {
                    let node = self.workers.get_mut(&id).expect("the worker that speaks");
                    node.executors.insert(executor, Executor::new(node.nthreads));
                    let (from, to) = (Place::Worker(id), Place::Executor(id, executor));
                    self.over(from, to, Event::ExecutorUp(id, executor));
                }
                WorkerAction::StopExecutor(executor) => {
                    let node = self.workers.get_mut(&id).expect("the worker that speaks");
                    node.executors.remove(&executor);
                }
                WorkerAction::Reply(reader, message) => self.reply(reader, message),
                WorkerAction::Fetch { worker, tasks, .. } => {
                    let asker = Asker::Worker { worker: id, tasks: tasks.clone() };
                    self.ask(worker, asker, |id| ToHolder::Get { id, tasks });
                }
                // Requests to a worker that is gone are answered when it goes.
                WorkerAction::PeerGone { .. } => {}
                WorkerAction::Close { .. } => self.worker_ends(id),
                WorkerAction::Spill { .. }
                | WorkerAction::Restore { .. }
                | WorkerAction::Forget { .. }
                | WorkerAction::KillExecutor(_)
                | WorkerAction::Log(_) => unreachable!("memory has no limit here"),
            }
        }
    }

    /// Brings a request to a worker; one that is not there answers that it has nothing.
    fn ask(&mut self, worker: WorkerId, asker: Asker, message: impl FnOnce(u64) -> ToHolder) {
        self.n_asked += 1;
        let number = self.n_asked;
        if !self.workers.get(&worker).is_some_and(|node| node.is_there) {
            return self.answer(worker, number, asker, None);
        }
        self.asked.insert(number, (worker, asker));
        let (reader, message) = (ReaderId(number), message(number));
        let event = WorkerEvent::Request { reader, local: false, message };
        self.over(Place::Reader(number), Place::Worker(worker), Event::Worker(worker, event));
    }

    fn reply(&mut self, reader: ReaderId, message: FromHolder) {
        if let Some((worker, asker)) = self.asked.remove(&reader.0) {
            self.answer(worker, reader.0, asker, Some(message));
        }
    }

    fn answer(&mut self, holder: WorkerId, number: u64, asker: Asker, message: Option<FromHolder>) {
        let from = Place::Reader(number);
        match asker {
            Asker::Worker { worker, tasks } => {
                let values = match message {
                    Some(FromHolder::Got { values, .. }) => values
                        .into_iter()
                        .map(|(task, value)| (task, value.ok().flatten()))
                        .collect(),
                    _ => tasks.into_iter().map(|task| (task, None)).collect(),
                };
                let event = WorkerEvent::Fetched { worker: holder, values };
                self.over(from, Place::Worker(worker), Event::Worker(worker, event));
            }
            Asker::Get { user, tag } => {
                let nothing = FromHolder::Got { id: 0, values: vec![] };
                let message = message.unwrap_or(nothing);
                self.over(from, Place::User(user), Event::Got(user, tag, message));
            }
            Asker::Put { user, client, number } => {
                let ok = message.is_some();
                let event = Event::Stored { user, client, number, worker: holder, ok };
                self.over(from, Place::User(user), event);
            }
        }
    }

    fn executor(&mut self, worker: WorkerId, id: ExecutorId) -> Option<&mut Executor> {
        self.workers.get_mut(&worker).filter(|n| n.is_there)?.executors.get_mut(&id)
    }

    fn executor_says(&mut self, worker: WorkerId, id: ExecutorId, message: FromExecutor) {
        let event = WorkerEvent::FromExecutor { executor: id, message };
        self.over(Place::Executor(worker, id), Place::Worker(worker), Event::Worker(worker, event));
    }

    fn executor_works(&mut self, worker: WorkerId, id: ExecutorId) {
        let call_ns = self.swarm.call_ns;
        let mut random = self.random.clone();
        let Some(executor) = self.executor(worker, id) else { return };
        let begun = executor.work(&mut random, call_ns);
        let complaints = std::mem::take(&mut executor.complaints);
        self.random = random;
        self.book.wrong.extend(complaints);
        for begun in begun {
            match begun {
                Begun::Ends { share, after_ns } => {
                    self.at(after_ns, Event::ShareEnds(worker, id, share));
                }
                Begun::Dies => self.executor_dies(worker, id),
            }
        }
    }

    fn executor_dies(&mut self, worker: WorkerId, id: ExecutorId) {
        let Some(node) = self.workers.get_mut(&worker) else { return };
        if node.executors.remove(&id).is_some() {
            self.oracle.n_deaths += 1;
            self.book.count("an executor died");
            let event = WorkerEvent::ExecutorLost {
                executor: id,
                reason: "signal 11".into(),
                running: None,
            };
            let (from, to) = (Place::Executor(worker, id), Place::Worker(worker));
            self.over(from, to, Event::Worker(worker, event));
        }
    }

    pub(crate) fn worker_joins(&mut self, name: Option<u64>) {
        let id = WorkerId(self.next_worker);
        self.next_worker += 1;
        let nthreads = self.random.between(1, 3) as u32;
        let name = name.unwrap_or(u64::from(id.0) % 2);
        let has_gpu = self.is_healed || self.random.chance(50);
        let hello = WorkerHello {
            name: format!("w{name}"),
            address: format!("sim://{}", id.0),
            routes: String::new(),
            host: "sim".into(),
            pid: id.0,
            nthreads,
            memory_limit: 0,
            resources: if has_gpu { vec![("gpu".into(), 1.0)] } else { vec![] },
            python: String::new(),
        };
        let shares_objects = self.swarm.objects;
        // Without a limit the governor rests: its own tests stand in the worker's crate.
        let memory = MemoryOptions::default();
        let options = WorkerOptions { nthreads, shares_objects, local_clients: false, memory };
        let node = WorkerNode {
            machine: Worker::new(options),
            name,
            executors: BTreeMap::new(),
            is_turn_due: false,
            is_there: true,
            is_counted: true,
            nthreads,
            has_gpu,
            joined_at: 0,
        };
        self.workers.insert(id, node);
        self.book.workers.insert(id);
        self.tell_scheduler(Place::Worker(id), SchedulerEvent::WorkerJoined { worker: id, hello });
        let joined_at = self.links[&(Place::Worker(id), Place::Scheduler)];
        let mut out = Vec::new();
        let node = self.workers.get_mut(&id).expect("just entered");
        node.joined_at = joined_at;
        node.machine.start(&mut out);
        self.perform(id, out);
    }

    /// The worker is no more: who asked it for something gets nothing.
    fn worker_ends(&mut self, id: WorkerId) {
        if let Some(node) = self.workers.get_mut(&id) {
            node.is_there = false;
            node.executors.clear();
        }
        self.book.workers.remove(&id);
        let open: Vec<u64> =
            self.asked.iter().filter(|(_, (w, _))| *w == id).map(|(number, _)| *number).collect();
        for number in open {
            let (worker, asker) = self.asked.remove(&number).expect("just listed");
            self.answer(worker, number, asker, None);
        }
    }

    /// The scheduler counts a worker as lost, whether it is or not.
    fn worker_is_given_up(&mut self, id: WorkerId) {
        if let Some(node) = self.workers.get_mut(&id) {
            node.is_counted = false;
        }
        self.book.workers.remove(&id);
        self.oracle.n_losses += 1;
        let event = SchedulerEvent::WorkerLeft { worker: id, reason: "lost".into() };
        // By another way than the worker's own messages: some of those arrive later.
        let joined = self.workers.get(&id).map_or(0, |node| node.joined_at);
        let after =
            (self.random.below(self.swarm.delay_ns)).max(joined.saturating_sub(self.now) + 1);
        self.at(after, Event::Scheduler(event));
    }

    fn fault(&mut self) {
        self.faults_left = self.faults_left.saturating_sub(1);
        if self.is_healed {
            return;
        }
        if self.faults_left > 0 {
            self.fault_later();
        }
        let there: Vec<WorkerId> = self
            .workers
            .iter()
            .filter(|(_, n)| n.is_there && n.is_counted)
            .map(|(id, _)| *id)
            .collect();
        if there.is_empty() || (self.swarm.joins && self.random.chance(30)) {
            self.book.count("a worker joined");
            return self.worker_joins(None);
        }
        let id = *self.random.pick(&there);
        match self.random.below(3) {
            0 if self.swarm.kills => {
                self.book.count("a worker was lost");
                self.worker_ends(id);
                self.worker_is_given_up(id);
            }
            1 if self.swarm.zombies => {
                self.book.count("a worker was given up and went on");
                self.worker_is_given_up(id);
            }
            _ if self.swarm.executor_deaths => {
                let executor = self.workers[&id].executors.keys().next().copied();
                if let Some(executor) = executor {
                    self.executor_dies(id, executor);
                }
            }
            _ => {}
        }
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

    fn act(&mut self, at: usize) {
        let can_leave = self.users[at].scatters.is_empty();
        if self.swarm.leaves && can_leave && self.random.chance(5) {
            self.book.count("a client left");
            let client = self.users[at].client.id();
            let from = Place::User(client.0 as usize);
            self.tell_scheduler(from, SchedulerEvent::ClientLeft { client });
            let acts = self.users[at].acts_left;
            let client = self.new_client(at);
            self.users[at] = User::new(client, acts);
            self.users[at].inner_seed = u64::from(client.0);
        }
        self.with_user(at, |user, scene| user.act(scene));
        if self.users[at].acts_left > 0 {
            self.act_later(at);
        }
    }

    /// No more faults; every name and resource is there at least once.
    pub fn heal(&mut self) {
        self.is_healed = true;
        let zombies: Vec<WorkerId> = (self.workers.iter())
            .filter(|(_, node)| node.is_there && !node.is_counted)
            .map(|(id, _)| *id)
            .collect();
        for id in zombies {
            self.worker_ends(id);
        }
        for name in 0..2 {
            self.worker_joins(Some(name));
        }
    }

    fn trace(&mut self, who: &str, what: &dyn std::fmt::Debug) {
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
        Summary { digest: self.digest, n_events: self.n_handled, counts }
    }

    pub fn failure(&self, seed: u64, what: String) -> Failure {
        Failure { seed, what, at_ns: self.now, n_events: self.n_handled }
    }
}
