//! The machines at work: events go in, and what they ask for is carried out.

use crate::audit::Heard;
use crate::exchanges;
use crate::executor::{Begun, Executor, read};
use crate::world::{Asker, Event, Place, World};
use rasker_protocol::{ExecutorId, FromExecutor, FromHolder, ToHolder, ToWorker, WorkerId};
use rasker_scheduler::{Action as SchedulerAction, Event as SchedulerEvent};
use rasker_worker::{Action as WorkerAction, Event as WorkerEvent, ReaderId};

/// A call that waits for its own tasks looks at them no less often than so, ns, by a quarter.
const LOOK_NS_MAX: u64 = 1_000_000_000;

impl World {
    pub fn scheduler_handles(&mut self, event: SchedulerEvent) -> Result<(), String> {
        let is_turn = matches!(event, SchedulerEvent::Turn);
        let now = self.now + self.options.clock_shift_ns;
        let found = self.found_again(&event);
        self.note_orphans(&event);
        let (heard, n_stale) = (Heard::of(&event), self.scheduler.n_stale());
        self.scheduler.handle(now, event, &mut self.scheduler_out);
        self.check_found(&found);
        if let Some(heard) = heard {
            self.note_values(heard, self.scheduler.n_stale() == n_stale);
        }
        self.n_scheduler_events += 1;
        let every = self.options.check_every.max(1 + self.scheduler.n_tasks() / 40);
        if self.n_scheduler_events.is_multiple_of(every) {
            self.check_scheduler()?;
        }
        if is_turn && self.n_scheduler_events.is_multiple_of(16 * every) {
            self.check_queues()?;
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
                    self.look_at_farewell(worker, &message);
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

    pub fn worker_handles(&mut self, id: WorkerId, event: WorkerEvent) {
        if let WorkerEvent::FromScheduler(ToWorker::Dismissed { .. }) = event {
            return self.worker_parts(id);
        }
        let Some(node) = self.workers.get_mut(&id).filter(|node| node.is_there) else { return };
        let is_turn = matches!(event, WorkerEvent::Turn);
        let mut out = Vec::new();
        node.machine.handle(event, &mut out);
        if let Some(wrong) = node.machine.audit().into_iter().next() {
            self.book.wrong.push(format!("{id:?}: {wrong}"));
        }
        let Some(node) = self.workers.get_mut(&id) else { return };
        let due = !is_turn && !std::mem::replace(&mut node.is_turn_due, !is_turn);
        if due {
            let after = self.random.below(self.swarm.batch_ns + 1);
            self.at(after, Event::WorkerTurn(id));
        }
        self.perform(id, out);
        self.watch_memory(id);
    }

    pub fn perform(&mut self, id: WorkerId, out: Vec<WorkerAction>) {
        for action in out {
            self.trace("worker", &(id, &action));
            match action {
                WorkerAction::ToScheduler(message) => {
                    self.look_at_report(id, &message);
                    let event = SchedulerEvent::FromWorker { worker: id, message };
                    self.tell_scheduler(Place::Worker(id), event);
                }
                WorkerAction::ToExecutor(executor, message) => {
                    let home = self.home(id);
                    let (from, to) = (Place::Worker(home), Place::Executor(home, executor));
                    self.over(from, to, Event::Executor(id, executor, message));
                }
                WorkerAction::StartExecutor(executor, kind) => {
                    let node = self.workers.get_mut(&id).expect("the worker that speaks");
                    let memory = self.swarm.memory > 0;
                    node.executors.insert(executor, Executor::new(kind, node.nthreads, memory));
                    let home = self.home(id);
                    let (from, to) = (Place::Worker(home), Place::Executor(home, executor));
                    self.over(from, to, Event::ExecutorUp(id, executor));
                }
                WorkerAction::StopExecutor(executor) => {
                    let node = self.workers.get_mut(&id).expect("the worker that speaks");
                    node.executors.remove(&executor);
                }
                WorkerAction::Reply(reader, message) => self.reply(reader, message),
                WorkerAction::Fetch { worker, address, tasks } => {
                    self.look_at_fetch(id, worker, &address, tasks.len());
                    let asker = Asker::Worker { worker: id, tasks: tasks.clone() };
                    self.ask(worker, asker, |id| ToHolder::Get { id, tasks });
                }
                WorkerAction::FetchParts { request, worker, address, reads } => {
                    self.look_at_fetch(id, worker, &address, reads.len());
                    self.book.count("parts were fetched");
                    let asker = Asker::Parts { worker: id, request };
                    self.ask(worker, asker, |id| ToHolder::GetParts { id, reads });
                }
                WorkerAction::ReplyParts { reader, id, parts } => {
                    self.reply(reader, exchanges::answer(id, parts, read));
                }
                // Requests to a worker that is gone are answered when it goes.
                WorkerAction::PeerGone { .. } => {}
                WorkerAction::Close { .. } => self.worker_ends(id),
                action @ (WorkerAction::Spill { .. }
                | WorkerAction::ReadParts { .. }
                | WorkerAction::Restore { .. }
                | WorkerAction::Forget { .. }) => self.disk_does(id, action),
                WorkerAction::KillExecutor(executor) => {
                    self.book.count("an executor was ended for its memory");
                    self.executor_dies(id, executor);
                }
                WorkerAction::Log(_) | WorkerAction::Trim => {}
            }
        }
    }

    /// Brings a request to a worker; one that is not there answers that it has nothing.
    pub fn ask(&mut self, worker: WorkerId, asker: Asker, message: impl FnOnce(u64) -> ToHolder) {
        self.n_asked += 1;
        let number = self.n_asked;
        let at = self.now_called(worker);
        let message = message(number);
        let is_elsewhere = at != worker && matches!(message, ToHolder::Put { .. });
        if is_elsewhere || !self.workers.get(&at).is_some_and(|node| node.is_there) {
            return self.answer(worker, number, asker, None);
        }
        self.asked.insert(number, (worker, asker));
        let reader = ReaderId(number);
        let event = WorkerEvent::Request { reader, local: false, message };
        self.over(Place::Reader(number), Place::Worker(at), Event::Worker(at, event));
    }

    fn reply(&mut self, reader: ReaderId, message: FromHolder) {
        if let Some((worker, asker)) = self.asked.remove(&reader.0) {
            self.answer(worker, reader.0, asker, Some(message));
        }
    }

    pub fn answer(
        &mut self,
        holder: WorkerId,
        number: u64,
        asker: Asker,
        message: Option<FromHolder>,
    ) {
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
            Asker::Parts { worker, request } => {
                let pieces = match message {
                    Some(FromHolder::GotParts { pieces, .. }) => pieces,
                    _ => Vec::new(),
                };
                let event = WorkerEvent::Pieces { request, pieces };
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

    pub fn executor(&mut self, worker: WorkerId, id: ExecutorId) -> Option<&mut Executor> {
        self.workers.get_mut(&worker).filter(|n| n.is_there)?.executors.get_mut(&id)
    }

    pub fn executor_says(&mut self, worker: WorkerId, id: ExecutorId, message: FromExecutor) {
        let event = WorkerEvent::FromExecutor { executor: id, message };
        let home = self.home(worker);
        let (from, to) = (Place::Executor(home, id), Place::Worker(home));
        self.over(from, to, Event::Worker(worker, event));
    }

    pub fn executor_works(&mut self, worker: WorkerId, id: ExecutorId) {
        let call_ns = self.swarm.call_ns;
        let mut random = self.random.clone();
        let Some(executor) = self.executor(worker, id) else { return };
        let begun = executor.work(&mut random, call_ns);
        let complaints = std::mem::take(&mut executor.complaints);
        self.random = random;
        self.check_slots(worker);
        self.book.wrong.extend(complaints);
        for begun in begun {
            match begun {
                Begun::Ends { share, after_ns } => {
                    self.at(after_ns, Event::ShareEnds(worker, id, share));
                }
                Begun::Dies => self.executor_dies(worker, id),
                Begun::Never => self.book.count("a call that never ends began"),
                Begun::Submits { share } => {
                    let user = self.nested_begins(share);
                    self.executor_says(worker, id, FromExecutor::Seceded { by: 1 });
                    let (executor, pause) = (id, call_ns);
                    let looks = Event::NestedLooks { worker, executor, share, user, pause };
                    self.at(call_ns, looks);
                }
            }
        }
    }

    /// All executors of a worker together run no more calls than it has threads, but for those
    /// that only wait for others.
    fn check_slots(&mut self, id: WorkerId) {
        let Some(node) = self.workers.get(&id) else { return };
        let n_running: u32 = node.executors.values().map(Executor::n_running).sum();
        let n_more = node.executors.values().map(Executor::n_running).max().unwrap_or(0);
        if n_running > node.nthreads {
            let wrong = format!("{id:?} runs {n_running} calls on {} threads", node.nthreads);
            self.book.wrong.push(wrong);
        }
        if n_more < n_running {
            self.book.count("native calls ran beside others");
        }
    }

    pub fn executor_dies(&mut self, worker: WorkerId, id: ExecutorId) {
        let Some(node) = self.workers.get_mut(&worker) else { return };
        if let Some(executor) = node.executors.remove(&id) {
            // It says what it runs, unless the seed has it silent.
            let running = self.swarm.memory > 0;
            let running = running.then(|| executor.running_calls());
            node.n_deaths += 1;
            self.oracle.n_deaths += 1;
            self.book.count("an executor died");
            let reason = "signal 11".into();
            let event = WorkerEvent::ExecutorLost { executor: id, reason, running };
            let home = self.home(worker);
            let (from, to) = (Place::Executor(home, id), Place::Worker(home));
            self.over(from, to, Event::Worker(worker, event));
        }
    }

    /// A call submits tasks of its own, under a client of its own.
    fn nested_begins(&mut self, share: u64) -> usize {
        self.book.count("a call submitted tasks");
        let user = self.user_joins(0);
        self.with_user(user, |user, scene| user.submit_nested(share, scene));
        user
    }

    /// The call ends when its own tasks have ended, whatever they came to.
    pub fn nested_looks(
        &mut self,
        (worker, executor, share): (WorkerId, ExecutorId, u64),
        user: usize,
        pause: u64,
    ) {
        let id = executor;
        let is_there = self.executor(worker, id).is_some_and(|executor| executor.runs(share));
        if is_there && !self.users[user].is_satisfied() {
            // Ever less often: what it waits for may wait for minutes, where memory is short.
            let least = self.swarm.call_ns + self.swarm.delay_ns * 8;
            let pause = pause.max(least).min(LOOK_NS_MAX) * 5 / 4;
            let looks = Event::NestedLooks { worker, executor, share, user, pause };
            return self.at(pause, looks);
        }
        self.with_user(user, |user, scene| {
            while !user.handles.is_empty() {
                user.drop_handle(0);
            }
            user.settle(scene);
        });
        if is_there {
            self.book.count("a call read what it had submitted");
            self.executor_says(worker, id, FromExecutor::Seceded { by: -1 });
            self.at(1, Event::ShareEnds(worker, id, share));
        }
    }
}
