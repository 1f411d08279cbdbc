//! Workers and clients as the scheduler knows them.

use crate::queue::Queue;
use crate::table::{Map, TaskRef};
use crate::template::{TemplateIx, Templates};
use hashbrown::HashSet;
use rasker_graph::{ClientId, Options, Run, TemplateId};
use rasker_protocol::probe::mutant;
use rasker_protocol::{
    Calls, Failure, Finished, OpenExchange, Peer, ToClient, ToWorker, WorkerHello, WorkerId,
    WorkerStatus,
};
use smallvec::SmallVec;
use std::sync::Arc;

/// Work that a worker has in hand per thread, ns: enough that it does not run dry between
/// reports, little enough that none of it waits long behind a slow call.
pub(crate) const DEPTH_NS: f64 = 5e6;

/// Results of more than this share of a worker's memory are large.
const LARGE: f64 = 1e-3;
/// Large results of calls in hand take this share of a worker's memory at most.
const AHEAD: f64 = 0.05;

/// How much a worker may have in hand.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Depth {
    /// A few milliseconds of work.
    Full,
    /// What it can begin at once.
    Threads,
}

/// How things stand when a worker is given work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Time that the worker's calls in hand will take, ns.
    pub occupancy: f64,
    pub depth: Depth,
    /// Threads of all workers.
    pub n_threads: u32,
}

pub(crate) struct Worker {
    pub id: WorkerId,
    pub hello: WorkerHello,
    pub status: WorkerStatus,
    /// Ready tasks whose inputs are mostly here; others may take them.
    pub pending: Queue,
    /// Classes of restricted tasks that may run here.
    pub classes: Vec<usize>,
    pub n_processing: u32,
    /// Values of this worker that calls elsewhere are about to use up.
    pub n_lent: u32,
    /// For calls in hand, the workers whose last use of a value they are.
    pub borrowed: Map<TaskRef, SmallVec<[WorkerId; 4]>>,
    /// Calls in hand by template; those of the template met last stand beside the others.
    processing: Map<TemplateIx, u32>,
    latest: (TemplateIx, u32),
    available: Vec<(String, f64)>,
    pub known: HashSet<TemplateId, foldhash::fast::FixedState>,
    /// The one of them that was used last.
    pub taught: Option<TemplateId>,
    /// Open exchanges that it knows, and in which version.
    pub exchanges: Map<TaskRef, u32>,
    /// It was asked for calls back, and has finished none since: what it gave back may come to it
    /// again, so asking at once would go round in circles.
    pub retracting: bool,
    /// When it was last heard, on the scheduler's clock.
    pub heard_ns: u64,
    /// It has been silent for a while: it gets no work, and is taken back when it speaks.
    pub is_suspect: bool,
    /// It is to end: it gets no work, and its values go elsewhere.
    pub is_retiring: bool,
    // What is to be said at the end of the turn.
    calls: Vec<Calls>,
    /// How many calls it got at the last turn with any.
    n_calls_before: usize,
    pub templates: Vec<rasker_graph::Template>,
    pub peers: Vec<Peer>,
    pub opened: Vec<OpenExchange>,
    pub out: Vec<ToWorker>,
}

impl Worker {
    pub fn new(id: WorkerId, hello: WorkerHello) -> Worker {
        Worker {
            id,
            available: hello.resources.clone(),
            hello,
            status: WorkerStatus::default(),
            pending: Queue::default(),
            classes: Vec::new(),
            n_processing: 0,
            n_lent: 0,
            borrowed: Map::default(),
            processing: Map::default(),
            latest: (TemplateIx::MAX, 0),
            known: HashSet::default(),
            taught: None,
            retracting: false,
            heard_ns: 0,
            is_suspect: false,
            is_retiring: false,
            calls: Vec::new(),
            n_calls_before: 0,
            templates: Vec::new(),
            peers: Vec::new(),
            exchanges: Map::default(),
            opened: Vec::new(),
            out: Vec::new(),
        }
    }

    pub fn peer(&self) -> Peer {
        Peer { worker: self.id, address: self.hello.routes.clone(), name: self.hello.name.clone() }
    }

    /// A call that the worker is told of at the end of the turn. As a turn is mostly like the one
    /// before, the list has room for all from the first.
    pub fn push_calls(&mut self, calls: Calls) {
        if self.calls.is_empty() {
            self.calls.reserve(self.n_calls_before);
        }
        self.calls.push(calls);
    }

    pub fn has_calls(&self) -> bool {
        !self.calls.is_empty()
    }

    pub fn take_calls(&mut self) -> Vec<Calls> {
        if self.has_calls() {
            self.n_calls_before = self.calls.len();
        }
        std::mem::take(&mut self.calls)
    }

    pub fn begin(&mut self, template: TemplateIx, count: u32, options: &Options) {
        self.n_processing += count;
        self.turn_to(template);
        self.latest.1 += count;
        self.reserve(options, -1.0);
    }

    pub fn end(&mut self, template: TemplateIx, count: u32, options: &Options) {
        self.n_processing -= count;
        self.turn_to(template);
        self.latest.1 -= count;
        let times = f64::from(1 + u8::from(mutant("resource-returned-twice")));
        if !mutant("resource-kept") {
            self.reserve(options, times);
        }
    }

    /// Takes the count of this template out of the table: most calls are like the one before.
    fn turn_to(&mut self, template: TemplateIx) {
        let (before, n) = self.latest;
        if before == template {
            return;
        }
        if n > 0 {
            self.processing.insert(before, n);
        }
        self.latest = (template, self.processing.remove(&template).unwrap_or(0));
    }

    fn reserve(&mut self, options: &Options, sign: f64) {
        for (name, amount) in &options.resources {
            if let Some((_, left)) = self.available.iter_mut().find(|(n, _)| n == name) {
                *left += sign * amount;
            }
        }
    }

    /// How much of a resource is not in use.
    pub fn n_available(&self, resource: &str) -> f64 {
        self.available.iter().find(|(n, _)| n == resource).map_or(0.0, |(_, left)| *left)
    }

    /// Whether the resources a task asks for are free now.
    pub fn has_free(&self, options: &Options) -> bool {
        mutant("resource-overbooked")
            || options.resources.iter().all(|(name, amount)| {
                self.available.iter().any(|(n, left)| n == name && *left + 1e-9 >= *amount)
            })
    }

    /// Whether a task may ever run here.
    pub fn can_run(&self, options: &Options, any_worker: bool) -> bool {
        let named = any_worker
            || mutant("restriction-ignored")
            || options.workers.is_empty()
            || options.workers.iter().any(|w| self.is(w));
        named
            && options.resources.iter().all(|(name, amount)| {
                self.hello.resources.iter().any(|(n, total)| n == name && total >= amount)
            })
    }

    /// Whether a user means this worker: by name, address or host.
    pub fn is(&self, name: &str) -> bool {
        self.hello.name == name || self.hello.address == name || self.hello.host == name
    }

    /// Time that the work in hand will take, ns, over all threads.
    pub fn occupancy_ns(&self, templates: &Templates) -> f64 {
        let ns = |(t, n): (TemplateIx, u32)| f64::from(n) * templates.duration_ns(t);
        let latest = if self.latest.1 > 0 { ns(self.latest) } else { 0.0 };
        latest + self.processing.iter().map(|(t, n)| ns((*t, *n))).sum::<f64>()
    }

    /// Whether it may be given work.
    pub fn takes_work(&self) -> bool {
        (!self.is_suspect || mutant("suspect-given-work")) && !self.is_retiring
    }

    /// Whether a thread has nothing to do, and memory to do it in.
    pub fn is_idle(&self) -> bool {
        self.n_processing < self.hello.nthreads && !self.status.is_paused
    }

    /// Whether results of so many bytes each fill this worker's memory before long.
    pub fn is_filled_by(&self, result_nbytes: f64) -> bool {
        result_nbytes > LARGE * self.hello.memory_limit as f64 && self.hello.memory_limit > 0
    }

    /// How many more calls of `duration_ns`, with results of `nbytes`, this worker can take now.
    pub fn room(&self, load: Load, (duration_ns, nbytes): (f64, f64)) -> u32 {
        if self.status.is_paused {
            return 0;
        }
        let idle = self.hello.nthreads.saturating_sub(self.n_processing);
        match load.depth {
            Depth::Threads => idle,
            Depth::Full => {
                let depth = DEPTH_NS * f64::from(self.hello.nthreads);
                let fits = ((depth - load.occupancy) / duration_ns).max(0.0) as u32;
                if !self.is_filled_by(nbytes) {
                    return idle.max(fits);
                }
                // What is made in advance must not have to leave memory again.
                let ahead = AHEAD * self.hello.memory_limit as f64 / nbytes;
                idle.max(fits.min((ahead as u32).saturating_sub(self.n_processing)))
            }
        }
    }
}

#[derive(Default)]
pub(crate) struct Client {
    pub name: String,
    /// What is to be said at the end of the turn.
    pub out: Vec<ToClient>,
    /// What became of tasks, in the order in which it did: a task may fail, be retried and finish
    /// within one turn.
    pub told: Vec<ToClient>,
}

impl Client {
    pub fn tell_finished(&mut self, finished: Finished) {
        match self.told.last_mut() {
            Some(ToClient::Finished(items)) => items.push(finished),
            _ => self.told.push(ToClient::Finished(vec![finished])),
        }
    }

    pub fn tell_failed(&mut self, run: Run, failure: Arc<Failure>) {
        match self.told.last_mut() {
            Some(ToClient::Failed(items)) => items.push((run, failure)),
            _ => self.told.push(ToClient::Failed(vec![(run, failure)])),
        }
    }

    pub fn tell_pending(&mut self, run: Run) {
        match self.told.last_mut() {
            Some(ToClient::Pending(runs)) => runs.push(run),
            _ => self.told.push(ToClient::Pending(vec![run])),
        }
    }
}

/// A question that workers are answering for a client.
pub(crate) struct Question {
    pub client: ClientId,
    pub id: u64,
    pub waiting: Vec<WorkerId>,
    pub answers: Vec<(String, rasker_protocol::Datum)>,
}
