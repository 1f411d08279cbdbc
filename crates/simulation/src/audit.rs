//! What must hold after every event, by the numbers of the project's list of invariants.
//!
//! Those of one machine are checked by it: `Scheduler::check` (1 to 5, 12, 17, 20),
//! `Scheduler::check_queues` (27), `Worker::audit` (1, 14). Here are those that only somebody who
//! sees all messages can know.

use crate::oracle::{deed, kind};
use crate::world::World;
use rasker_graph::{Run, TaskId, Template};
use rasker_protocol::{FromClient, FromWorker, Progress, ToWorker, WorkerId};
use rasker_scheduler::Event as SchedulerEvent;
use std::collections::{BTreeSet, HashMap, HashSet};

/// What was said of each attempt.
#[derive(Default)]
pub(crate) struct Ledger {
    /// The last attempt that was sent, of each task.
    sent: HashMap<TaskId, u32>,
    /// To whom each attempt was sent.
    given: HashMap<(TaskId, u32), WorkerId>,
    answered: HashSet<(TaskId, u32)>,
    /// Values that were not where the scheduler said, as it was told.
    disproved: HashSet<(TaskId, WorkerId)>,
}

/// What a message says of values.
pub(crate) struct Heard {
    worker: WorkerId,
    missing: Vec<(TaskId, WorkerId)>,
    here: Vec<Run>,
}

impl Heard {
    pub fn of(event: &SchedulerEvent) -> Option<Heard> {
        let SchedulerEvent::FromWorker { worker, message: FromWorker::Progress(items) } = event
        else {
            return None;
        };
        let mut heard = Heard { worker: *worker, missing: Vec::new(), here: Vec::new() };
        for item in items {
            match item {
                Progress::Missing { inputs, .. } => {
                    heard.missing.extend(inputs.iter().map(|(input, holder)| match *holder {
                        WorkerId::NOBODY => (*input, heard.worker),
                        holder => (*input, holder),
                    }))
                }
                Progress::Finished { run, .. } | Progress::Copied { run, .. } => {
                    heard.here.push(*run);
                }
                _ => {}
            }
        }
        Some(heard)
    }
}

/// Events that one task may cost before something goes in circles, on top of a fixed number.
const EVENTS_PER_TASK: u64 = 400;
const EVENTS_FIXED: u64 = 150_000;
const EVENTS_PER_LOOK: u64 = 10;

impl World {
    /// Invariants 1 to 5, 17 and 20, recounted by the scheduler itself.
    pub fn check_scheduler(&mut self) -> Result<(), String> {
        match self.scheduler.check().first() {
            Some(wrong) => Err(format!("scheduler: {wrong}")),
            None => Ok(()),
        }
    }

    /// Invariant 27: what is ready stands in a queue, so that something will come of it.
    pub fn check_queues(&mut self) -> Result<(), String> {
        match self.scheduler.check_queues().first() {
            Some(wrong) => Err(format!("scheduler: {wrong}")),
            None => Ok(()),
        }
    }

    /// Invariant 29: events are bounded by the work there is.
    pub fn check_pace(&self) -> Result<(), String> {
        let entered = self.oracle.n_nodes() + self.users.len() as u64;
        let most = EVENTS_FIXED + EVENTS_PER_TASK * entered + EVENTS_PER_LOOK * self.n_looks;
        let most = most.min(self.options.events_max);
        if self.n_handled > most {
            let unmet = self.unmet().unwrap_or_default();
            return Err(format!("still busy after {} events (29); {unmet}", self.n_handled));
        }
        Ok(())
    }

    /// What some user still waits for.
    pub fn unmet(&self) -> Option<String> {
        let mut all = Vec::new();
        for user in self.users.iter().filter(|user| !user.is_satisfied()) {
            let (task, unmet) = user.unmet();
            let known = task.map_or(String::new(), |task| self.scheduler.describe(task));
            all.push(format!("{:?} still waits for {unmet}: {known}", user.client.id()));
        }
        // The last users are those of calls that submitted tasks, for which others may wait.
        all.pop()
    }

    /// Tasks run where their users allow it, and workers know what they are to run.
    pub fn look_at_calls(&mut self, id: WorkerId, message: &ToWorker) {
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
        let runs = node.hello.runs;
        for calls in calls {
            if calls.run.count > 1 {
                self.book.count("tasks were sent as a run");
                if calls.has_dependencies() {
                    self.book.count("tasks that read others were sent as a run");
                }
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
            if !runs.has(kind(deed(calls.template))) {
                self.book.wrong.push(format!("{id:?} runs {runs:?} and is given {:?}", calls.run));
            }
            self.look_at_attempts(id, calls.run, calls.attempt);
            if self.scheduler.is_suspect(id) {
                self.book
                    .wrong
                    .push(format!("{id:?} is not heard of and is given {:?}", calls.run));
            }
            let first = TaskId::new(calls.run.layer, calls.run.start);
            if self.scheduler.is_quarantined(first) && !calls.alone {
                self.book.wrong.push(format!("{first:?} is in quarantine and not alone"));
            }
            // Whoever is sent for a value has it before long, and others may be sent to it.
            for task in calls.sources.iter().flat_map(|source| source.run.tasks()) {
                self.ledger.disproved.remove(&(task, id));
            }
            for source in &calls.sources {
                let mut tasks = source.run.tasks();
                if tasks.any(|task| self.ledger.disproved.contains(&(task, source.worker))) {
                    let wrong = format!("{source:?} was disproved and is named again (30)");
                    self.book.wrong.push(wrong);
                }
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

    /// The scheduler has taken in what a worker said of values.
    pub fn note_values(&mut self, heard: Heard, is_believed: bool) {
        if is_believed {
            self.ledger.disproved.extend(heard.missing);
        }
        if !self.ledger.disproved.is_empty() {
            for task in heard.here.iter().flat_map(|run| run.tasks()) {
                self.ledger.disproved.remove(&(task, heard.worker));
            }
        }
    }

    /// Invariant 6: attempt numbers strictly rise.
    fn look_at_attempts(&mut self, id: WorkerId, run: Run, attempt: u32) {
        for task in run.tasks() {
            let before = self.ledger.sent.insert(task, attempt);
            if before.is_some_and(|before| before >= attempt) {
                self.book.wrong.push(format!("{task:?} is sent at attempt {attempt} again (6)"));
            }
            self.ledger.given.insert((task, attempt), id);
        }
    }

    /// Invariants 7, 12 and 18: a worker answers each call that it was given, and once.
    pub fn look_at_report(&mut self, id: WorkerId, message: &FromWorker) {
        let FromWorker::Progress(items) = message else { return };
        for item in items {
            match item {
                Progress::Finished { run, attempt, .. } => {
                    self.look_at_answer(id, *run, *attempt);
                }
                Progress::Failed { run, attempt, .. } | Progress::Retracted { run, attempt } => {
                    self.look_at_answer(id, *run, *attempt)
                }
                Progress::Missing { task, attempt, .. } => {
                    self.book.count("a call was given up for want of inputs");
                    self.look_at_answer(id, task.run(), *attempt);
                }
                Progress::Crashed { run, attempt, .. } => {
                    self.look_at_answer(id, *run, *attempt);
                    let node = self.workers.get_mut(&id).expect("the worker that speaks");
                    node.n_blamed += run.count;
                    if node.n_blamed > node.n_deaths * node.nthreads {
                        let (blamed, deaths) = (node.n_blamed, node.n_deaths);
                        let wrong = format!("{blamed} calls are blamed for {deaths} deaths (18)");
                        self.book.wrong.push(wrong);
                    }
                }
                Progress::Copied { .. } => self.book.count("a value was copied"),
                Progress::Dropped { .. } => self.book.count("values went with an executor"),
                Progress::NotCopied { .. } | Progress::Spare { .. } | Progress::Threads { .. } => {}
            }
        }
    }

    fn look_at_answer(&mut self, id: WorkerId, run: Run, attempt: u32) {
        for task in run.tasks() {
            let given = self.ledger.given.get(&(task, attempt));
            if given.map(|given| self.now_called(*given)) != Some(id) {
                let wrong =
                    format!("{id:?} answers for {task:?} at {attempt}, not given to it (7)");
                self.book.wrong.push(wrong);
            }
            if !self.ledger.answered.insert((task, attempt)) {
                self.book.wrong.push(format!("{task:?} at {attempt} is answered twice (12)"));
            }
        }
    }

    /// A worker knows where its peers are.
    pub fn look_at_fetch(&mut self, id: WorkerId, from: WorkerId, address: &str, n: usize) {
        self.book.count("inputs were fetched");
        if n > 1 {
            self.book.count("several inputs were fetched as one");
        }
        let Some(node) = self.workers.get(&self.now_called(from)) else { return };
        if address != format!("sim://{}", node.slot) {
            self.book.wrong.push(format!("{id:?} looks for {from:?} at {address:?}"));
        }
    }

    /// Values were put on workers that are gone when their client tells of them.
    pub fn note_orphans(&mut self, event: &SchedulerEvent) {
        let SchedulerEvent::FromClient { message: FromClient::Scattered(scattered), .. } = event
        else {
            return;
        };
        let is_lost =
            |holders: &Vec<WorkerId>| !holders.iter().any(|id| self.scheduler.counts(*id));
        if scattered.holders.iter().any(is_lost) {
            self.book.count("values were put on a worker that was about to end");
            self.oracle.n_losses += 1;
        }
    }

    /// What a worker that joined again brings of values that were given up as lost.
    pub fn found_again(&self, event: &SchedulerEvent) -> Vec<TaskId> {
        let SchedulerEvent::FromWorker { worker, message: FromWorker::Inventory(held) } = event
        else {
            return Vec::new();
        };
        if !self.scheduler.counts(*worker) {
            return Vec::new();
        }
        let tasks = held.iter().flat_map(|(run, _)| run.tasks());
        tasks.filter(|task| self.scheduler.is_given_up(*task)).collect()
    }

    /// Invariant 5: what was found again is not lost any more.
    pub fn check_found(&mut self, found: &[TaskId]) {
        if let Some(task) = found.iter().find(|task| self.scheduler.is_given_up(**task)) {
            self.book.wrong.push(format!("{task:?} came back with its worker and is lost (5)"));
        }
    }

    /// Invariant 30, once nothing is under way: what the scheduler believes of workers is so, and
    /// none of them holds what it does not know of (11).
    pub fn compare_views(&self) -> Result<(), String> {
        let mut believed: HashMap<WorkerId, BTreeSet<TaskId>> = HashMap::new();
        for (worker, task) in self.scheduler.holdings() {
            believed.entry(worker).or_default().insert(task);
        }
        for (id, node) in self.workers.iter().filter(|(_, n)| n.is_there && n.is_counted) {
            let held: BTreeSet<TaskId> = node.machine.holdings().into_iter().collect();
            let thought = believed.remove(id).unwrap_or_default();
            if let Some(task) = thought.difference(&held).next() {
                return Err(format!("{id:?} is believed to hold {task:?} and does not (30)"));
            }
            if let Some(task) = held.difference(&thought).next() {
                return Err(format!("{id:?} holds {task:?} and nobody knows (30)"));
            }
        }
        match believed.into_iter().next() {
            Some((id, _)) => Err(format!("{id:?} is gone and is believed to hold values (4)")),
            None => Ok(()),
        }
    }
}
