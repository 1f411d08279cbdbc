//! The machine: its parts and its one door.

use crate::Map;
use crate::calls::Inputs;
use crate::event::{Action, Event, ReaderId};
use crate::executor::Executor;
use crate::governor::{Governor, MemoryOptions};
use crate::held::Held;
use crate::parts::{PartReply, PartsAhead, PartsFor, PieceKey, Pieces, RecordRead};
use crate::ready::Ready;
use crate::spilling::Doom;
use hashbrown::HashSet;
use rasker_graph::{TaskId, Template, TemplateId, TemplateKind};
use rasker_protocol::{
    Calls, Datum, ExecutorId, FromHolder, FromWorker, Holding, Kinds, Progress, Source, ToExecutor,
    ToWorker, WorkerId, WorkerStatus,
};
use smallvec::SmallVec;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// How a worker is set up.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    pub nthreads: u32,
    /// What is run here: an executor is started for each kind.
    pub runs: Kinds,
    /// Executors are threads of this process: results are objects that everyone here can take.
    pub shares_objects: bool,
    /// Clients of the scheduler live in this process too, so objects may ride with reports.
    pub local_clients: bool,
    pub memory: MemoryOptions,
}

/// A call whose inputs are not all here.
pub(crate) struct Waiting {
    pub calls: Calls,
    /// What was not here at first, in order, each once: of those that are still missing
    /// `Worker::wanted_by` tells.
    pub inputs: Inputs,
    pub n_missing: u32,
    /// Requests for parts that are not answered.
    pub n_requests: u32,
}

/// A reader's request that waits for exports.
pub(crate) struct Request {
    pub reader: ReaderId,
    pub id: u64,
    pub left: u32,
    pub values: Vec<(TaskId, Holding)>,
    /// It asks for parts: those at hand, and those of values whose bytes are being made.
    pub is_of_parts: bool,
    pub parts: Vec<PartReply>,
    pub awaited: Vec<PieceKey>,
}

impl Request {
    pub fn new(reader: ReaderId, id: u64) -> Request {
        Request {
            reader,
            id,
            left: 0,
            values: Vec::new(),
            is_of_parts: false,
            parts: Vec::new(),
            awaited: Vec::new(),
        }
    }
}

/// See the crate's essay.
pub struct Worker {
    pub(crate) options: WorkerOptions,
    pub(crate) held: Held,
    pub(crate) templates: Map<TemplateId, Template>,
    /// Among them is one of a native task.
    pub(crate) knows_native: bool,
    pub(crate) durations: Map<TemplateId, f64>,
    pub(crate) ready: Ready,
    pub(crate) waiting: Map<u64, Waiting>,
    pub(crate) n_waiting: u64,
    /// Calls that wait for an input to arrive or to be exported.
    pub(crate) wanted_by: Map<TaskId, SmallVec<[u64; 2]>>,
    /// Inputs on their way, and from whom.
    pub(crate) fetching: Map<TaskId, WorkerId>,
    /// Of those on their way, the ones that are to stay.
    pub(crate) copying: HashSet<TaskId, foldhash::fast::FixedState>,
    pub(crate) to_fetch: BTreeMap<WorkerId, Vec<TaskId>>,
    pub(crate) exporting: HashSet<TaskId, foldhash::fast::FixedState>,
    pub(crate) requests: Map<u64, Request>,
    pub(crate) n_requests: u64,
    pub(crate) requests_for: Map<TaskId, Vec<u64>>,
    /// Who has what was written to open exchanges, in the order of the writers.
    pub(crate) exchanges: Map<TaskId, Arc<[Source]>>,
    /// Pieces that came for calls which are not given to an executor yet.
    pub(crate) pieces: Map<(TaskId, u32), Pieces>,
    pub(crate) parts_requests: Map<u64, PartsFor>,
    pub(crate) n_parts_requests: u64,
    pub(crate) parts_ahead: PartsAhead,
    pub(crate) to_read: Vec<(u64, Vec<RecordRead>)>,
    pub(crate) peers: Map<WorkerId, String>,
    pub(crate) executors: Vec<Executor>,
    pub(crate) n_executors: u32,
    pub(crate) progress: Vec<Progress>,
    /// There is no scheduler now.
    pub(crate) is_parted: bool,
    pub(crate) n_disbelieved: u64,
    pub(crate) governor: Governor,
    /// Spilled values that are to come back as there is room.
    pub(crate) to_restore: VecDeque<TaskId>,
    /// Records on disk that are to go.
    pub(crate) forgotten: Vec<u64>,
    /// Values that were to be read back and were let go of: who waits for them is to hear of it.
    pub(crate) unread: Vec<TaskId>,
    /// The executor that is being ended for its memory.
    pub(crate) doomed: Option<Doom>,
}

impl Worker {
    pub fn new(options: WorkerOptions) -> Worker {
        Worker {
            governor: Governor::new(options.memory),
            to_restore: VecDeque::new(),
            forgotten: Vec::new(),
            unread: Vec::new(),
            doomed: None,
            options,
            held: Held::default(),
            templates: Map::default(),
            knows_native: false,
            durations: Map::default(),
            ready: Ready::default(),
            waiting: Map::default(),
            n_waiting: 0,
            wanted_by: Map::default(),
            fetching: Map::default(),
            copying: HashSet::default(),
            to_fetch: BTreeMap::new(),
            exporting: HashSet::default(),
            requests: Map::default(),
            n_requests: 0,
            requests_for: Map::default(),
            exchanges: Map::default(),
            pieces: Map::default(),
            parts_requests: Map::default(),
            n_parts_requests: 0,
            parts_ahead: PartsAhead::default(),
            to_read: Vec::new(),
            peers: Map::default(),
            executors: Vec::new(),
            n_executors: 0,
            progress: Vec::new(),
            is_parted: false,
            n_disbelieved: 0,
        }
    }

    /// Asks for the first executors.
    pub fn start(&mut self, out: &mut Vec<Action>) {
        for kind in self.options.runs.iter() {
            self.start_executor(kind, out);
        }
    }

    pub(crate) fn start_executor(&mut self, kind: TemplateKind, out: &mut Vec<Action>) {
        let id = ExecutorId(self.n_executors);
        self.n_executors += 1;
        self.executors.push(Executor::new(id, kind, self.options.nthreads));
        out.push(Action::StartExecutor(id, kind));
    }

    /// The one door: what happened goes in, what is to be done comes out.
    pub fn handle(&mut self, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::FromScheduler(message) => self.on_scheduler(message, out),
            Event::ExecutorJoined { executor } => {
                if let Some(executor) = self.executor_mut(executor) {
                    executor.is_up = true;
                }
            }
            Event::ExecutorLost { executor, reason, running } => {
                self.on_executor_lost(executor, &reason, running.as_deref(), out)
            }
            Event::FromExecutor { executor, message } => self.on_executor(executor, message, out),
            Event::Request { reader, local, message } => {
                self.on_request(reader, local, message, out)
            }
            Event::ReaderLeft { reader } => {
                self.requests.retain(|_, request| request.reader != reader);
            }
            Event::Fetched { worker, values } => self.on_fetched(worker, values, out),
            Event::Pieces { request, pieces } => self.on_pieces(request, pieces, out),
            Event::Spilled { record, nbytes, result } => {
                self.on_spilled(record, nbytes, result, out)
            }
            Event::Restored { record, result } => self.on_restored(record, result, out),
            Event::Measured(measured) => self.on_measured(measured, out),
            Event::Reserved { nbytes } => self.governor.native_nbytes = nbytes,
            Event::Tick { memory_nbytes } => {
                self.governor.tick();
                let used = self.governor.used(&self.held);
                let is_on = self.governor.is_on();
                let status = self.status(if is_on { used } else { memory_nbytes });
                out.push(Action::ToScheduler(FromWorker::Status(status)));
            }
            Event::SchedulerLost => self.part(out),
            Event::Joined { is_same_epoch } => self.rejoin(is_same_epoch, out),
            Event::Turn => self.turn(out),
        }
    }

    fn on_scheduler(&mut self, message: ToWorker, out: &mut Vec<Action>) {
        match message {
            ToWorker::Compute { templates, calls, peers, exchanges } => {
                for template in templates {
                    self.knows_native |= template.kind == TemplateKind::Native;
                    self.templates.insert(template.id, template);
                }
                for peer in peers {
                    self.peers.insert(peer.worker, peer.address);
                }
                for open in exchanges {
                    self.exchanges.insert(open.exchange, open.writers);
                }
                for calls in calls {
                    self.admit(calls);
                }
            }
            ToWorker::Free(runs) => runs.into_iter().for_each(|run| self.free(run)),
            ToWorker::Cancel(runs) => {
                for (run, attempt) in runs {
                    self.cancel(run, attempt);
                }
            }
            ToWorker::Retract => self.retract(),
            ToWorker::Run { id, call } => match self.python_executor() {
                Some(executor) if executor.is_up => {
                    executor.out.push(ToExecutor::Run { id, call });
                }
                _ => {
                    let answer = Datum::Null;
                    out.push(Action::ToScheduler(FromWorker::Answer { id, answer }));
                }
            },
            ToWorker::CallStack { id } => {
                let answer = self.running_keys();
                out.push(Action::ToScheduler(FromWorker::Answer { id, answer }));
            }
            ToWorker::Restart => self.restart(out),
            ToWorker::Copy(sources) => self.copy(sources),
            ToWorker::PeersGone(gone) => self.on_peers_gone(&gone, out),
            // Where a worker can join again, its connection is ended before this gets here.
            ToWorker::Dismissed { reason } | ToWorker::Close { reason } => {
                out.push(Action::Close { reason });
            }
        }
    }

    pub(crate) fn executor_mut(&mut self, id: ExecutorId) -> Option<&mut Executor> {
        self.executors.iter_mut().find(|executor| executor.id == id)
    }

    /// Where Python runs, and with it what only Python can turn into bytes.
    pub(crate) fn python_executor(&mut self) -> Option<&mut Executor> {
        self.executors.iter_mut().find(|executor| executor.kind == TemplateKind::Python)
    }

    /// Calls that may run here at once, on all executors together: more while some of them only
    /// wait for others.
    pub(crate) fn n_slots(&self) -> u32 {
        let more = self.executors.iter().map(|e| i64::from(e.n_seceded())).sum::<i64>();
        (i64::from(self.options.nthreads) + more).clamp(0, i64::from(u32::MAX)) as u32
    }

    /// Calls in hand of all executors.
    pub(crate) fn n_in_hand(&self) -> u32 {
        self.executors.iter().map(|executor| executor.n_given).sum()
    }

    pub(crate) fn kind_of(&self, template: TemplateId) -> TemplateKind {
        if !self.knows_native {
            return TemplateKind::Python;
        }
        self.templates.get(&template).map_or(TemplateKind::Python, |template| template.kind)
    }

    fn running_keys(&self) -> Datum {
        let mut keys = Vec::new();
        for executor in &self.executors {
            let running = executor.given.iter().take(executor.nthreads as usize);
            keys.extend(running.map(|given| Datum::Text(given.label.of(given.run.start))));
        }
        Datum::List(keys)
    }

    pub(crate) fn restart(&mut self, out: &mut Vec<Action>) {
        self.forgotten.extend(self.governor.clear());
        self.to_restore.clear();
        self.unread.clear();
        self.held.clear();
        self.templates.clear();
        self.ready.clear();
        self.waiting.clear();
        self.wanted_by.clear();
        self.fetching.clear();
        self.copying.clear();
        self.to_fetch.clear();
        self.forget_exchanges();
        self.exporting.clear();
        self.progress.clear();
        self.requests_for.clear();
        let mut open: Vec<(u64, Request)> = self.requests.drain().collect();
        open.sort_by_key(|(number, _)| *number);
        for (_, request) in open {
            // What is not among the values is not here.
            self.reply(request, out);
        }
        for executor in std::mem::take(&mut self.executors) {
            out.push(Action::StopExecutor(executor.id));
        }
        self.start(out);
    }

    pub(crate) fn status(&self, memory_nbytes: u64) -> WorkerStatus {
        let (is_paused, is_crowded) = self.governor.told;
        WorkerStatus {
            memory_nbytes,
            is_paused,
            is_crowded,
            spilled_nbytes: self.governor.away_nbytes(),
            disk: self.governor.disk,
            held_nbytes: self.held.nbytes,
            running: self.n_in_hand(),
            ready: self.ready.iter().map(|calls| calls.run.count).sum(),
        }
    }

    /// Feeds the executors and says what the batch has gathered.
    fn turn(&mut self, out: &mut Vec<Action>) {
        // Mostly there is memory enough, so that nothing of it has to be looked at.
        let is_calm = self.governor.is_calm(&self.held) && self.to_restore.is_empty();
        self.feed(!is_calm && self.governor.is_tight(&self.held));
        if !self.forgotten.is_empty() || !self.unread.is_empty() {
            self.settle(out);
        }
        if !is_calm {
            self.govern(out);
        }
        let may_fetch = is_calm || self.may_fetch();
        if may_fetch && !self.to_fetch.is_empty() {
            for (worker, tasks) in std::mem::take(&mut self.to_fetch) {
                let address = self.peers.get(&worker).cloned().unwrap_or_default();
                out.push(Action::Fetch { worker, address, tasks });
            }
        }
        self.ask_for_parts(may_fetch, out);
        for executor in &mut self.executors {
            let id = executor.id;
            executor.speak(|message| out.push(Action::ToExecutor(id, message)));
        }
        if self.is_parted {
            self.progress.clear();
        } else if !self.progress.is_empty() {
            let progress = std::mem::take(&mut self.progress);
            out.push(Action::ToScheduler(FromWorker::Progress(progress)));
        }
    }

    /// Where memory is short, what runs or leaves comes before what is to be fetched.
    fn may_fetch(&self) -> bool {
        let can_wait = self.is_running() || self.governor.is_moving();
        !(can_wait && self.governor.is_tight(&self.held))
    }

    pub(crate) fn reply(&mut self, request: Request, out: &mut Vec<Action>) {
        if request.is_of_parts {
            return out.push(Worker::reply_parts(request));
        }
        let Request { reader, id, values, .. } = request;
        out.push(Action::Reply(reader, FromHolder::Got { id, values }));
    }

    /// Whether executors have calls in hand that do not only wait for tasks of their own: what
    /// those wait for may be what is to run here.
    pub fn is_running(&self) -> bool {
        self.executors.iter().any(|executor| !executor.is_free())
    }

    /// Whether values stay in memory that the disk did not take: time will tell.
    pub fn waits_for_disk(&self) -> bool {
        self.governor.trouble.is_some()
    }

    /// Whether memory is to be measured often.
    pub fn wants_measuring(&self) -> bool {
        let governor = &self.governor;
        governor.is_on() && (self.is_running() || governor.is_paused || governor.is_moving())
    }

    /// Memory in use that native calls have not reserved, bytes.
    pub fn used_by_others(&self) -> u64 {
        let used = self.governor.used(&self.held);
        used.saturating_sub(self.governor.native_nbytes)
    }

    /// Memory of values that could leave for the disk, bytes: at most.
    pub fn movable_nbytes(&self) -> u64 {
        if self.governor.options.has_disk { self.held.nbytes } else { 0 }
    }

    /// Memory that may be taken until an executor has to be ended, bytes; none without a limit.
    pub fn memory_left(&self) -> Option<u64> {
        let options = &self.governor.options;
        let used = self.governor.used(&self.held);
        self.governor.is_on().then(|| options.limit_nbytes.saturating_sub(used))
    }

    /// Whether nothing is held, running or under way: the end of a clean run.
    pub fn is_idle(&self) -> bool {
        self.held.is_empty()
            && self.ready.is_empty()
            && self.waiting.is_empty()
            && self.fetching.is_empty()
            && self.copying.is_empty()
            && self.exporting.is_empty()
            && self.wanted_by.is_empty()
            && self.requests.is_empty()
            && self.exchanges.is_empty()
            && self.pieces.is_empty()
            && self.parts_requests.is_empty()
            && self.governor.is_empty()
            && self.governor.pieces_nbytes == 0
            && self.executors.iter().all(|executor| executor.given.is_empty())
    }

    /// What keeps the worker from being idle, in words.
    pub fn leftovers(&self) -> String {
        let given: usize = self.executors.iter().map(|executor| executor.given.len()).sum();
        format!(
            "{:?}, {} ready, {} waiting, {} on their way, {} exported, {} wanted, {} requests, \
             {given} given, {} exchanges, {} pieces, {} requests for parts",
            self.held,
            self.ready.len(),
            self.waiting.len(),
            self.fetching.len(),
            self.exporting.len(),
            self.wanted_by.len(),
            self.requests.len(),
            self.exchanges.len(),
            self.pieces.len(),
            self.parts_requests.len(),
        )
    }
}
