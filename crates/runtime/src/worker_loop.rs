//! Feeds a worker machine and performs what it asks for.

use crate::budget::Budget;
use crate::disk::Disk;
use crate::executors::{ExecutorKind, ExecutorLink, launch, launch_threads};
use crate::memory::{CoreMemory, LOOK_EVERY, look_after, process_nbytes};
use crate::native::{NativeCore, NativeRunner};
use crate::readers::Readers;
use crate::wire::Outlet;
use rasker_exchange::cut;
use rasker_graph::{TaskId, TemplateKind};
use rasker_protocol::{
    ExecutorId, Failure, FailureKind, FromExecutor, FromHolder, FromWorker, GotPiece, ToHolder,
    ToWorker,
};
use rasker_store::{Arena, ArenaOptions};
use rasker_transport::LinkOptions;
use rasker_worker::{
    Action, Event, HeldPart, Measured, PartReply, ReaderId, Worker, WorkerOptions,
};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

const BATCH: usize = 1024;
const STATUS_EVERY: Duration = Duration::from_millis(500);
/// An executor that cannot be started is tried again after this long.
const START_AGAIN: Duration = Duration::from_secs(1);

pub(crate) enum Input {
    FromScheduler(ToWorker),
    FromExecutor(ExecutorId, FromExecutor),
    /// With the reason, and the calls that ran in it if that is known.
    ExecutorLost(ExecutorId, String, Option<Vec<(TaskId, u32)>>),
    /// A reader of this process; it gets one answer.
    Local(ToHolder, oneshot::Sender<FromHolder>),
    Reader(ReaderId, Outlet<FromHolder>),
    FromReader(ReaderId, ToHolder),
    ReaderLeft(ReaderId),
    Event(Event),
    /// No more work, and end when what is only here is elsewhere.
    Retire,
    Stop(String),
}

pub(crate) type WorkerInbox = UnboundedSender<Input>;

/// The way to a worker of this process.
#[derive(Clone)]
pub(crate) struct WorkerHandle {
    pub inbox: WorkerInbox,
    readers: Arc<AtomicU64>,
}

impl WorkerHandle {
    pub fn request(&self, message: ToHolder, answer: oneshot::Sender<FromHolder>) {
        let _ = self.inbox.send(Input::Local(message, answer));
    }
    pub fn new_reader(&self) -> ReaderId {
        ReaderId(self.readers.fetch_add(1, Ordering::Relaxed))
    }
    pub fn retire(&self) {
        let _ = self.inbox.send(Input::Retire);
    }
    pub fn stop(&self, reason: &str) {
        let _ = self.inbox.send(Input::Stop(reason.to_owned()));
    }
}

/// What a worker's loop works with.
pub(crate) struct Surroundings {
    pub options: WorkerOptions,
    pub executors: ExecutorKind,
    pub native: Option<Arc<dyn NativeRunner>>,
    pub link: LinkOptions,
    pub readers: Arc<Readers>,
    pub to_scheduler: Outlet<FromWorker>,
    pub name: String,
    pub spill_folder: Option<PathBuf>,
    pub core_memory: CoreMemory,
}

pub(crate) fn new_worker() -> (WorkerHandle, UnboundedReceiver<Input>) {
    let (inbox, events) = unbounded_channel();
    (WorkerHandle { inbox, readers: Arc::new(AtomicU64::new(1)) }, events)
}

struct Loop {
    machine: Worker,
    handle: WorkerHandle,
    around: Surroundings,
    executors: HashMap<ExecutorId, ExecutorLink>,
    local: HashMap<ReaderId, oneshot::Sender<FromHolder>>,
    remote: HashMap<ReaderId, Outlet<FromHolder>>,
    disk: Disk,
    /// Native calls' memory, and where their results lie.
    budget: Arc<Budget>,
    native_arena: Arena,
    /// When memory is to be measured again.
    look_at: Instant,
    out: Vec<Action>,
    ended: Option<String>,
}

/// Runs a worker until it is stopped; why it ended.
pub(crate) async fn run(
    handle: WorkerHandle,
    mut events: UnboundedReceiver<Input>,
    around: Surroundings,
) -> String {
    let limit_nbytes = around.options.memory.limit_nbytes;
    let mut disk = Disk::new(around.spill_folder.clone(), handle.inbox.clone());
    if limit_nbytes > 0 {
        disk.open(limit_nbytes);
    }
    let (budget, native_arena) = native_memory(&around.options, &handle.inbox);
    let mut this = Loop {
        budget,
        native_arena,
        machine: Worker::new(around.options.clone()),
        disk,
        look_at: Instant::now(),
        handle,
        around,
        executors: HashMap::new(),
        local: HashMap::new(),
        remote: HashMap::new(),
        out: Vec::new(),
        ended: None,
    };
    this.machine.start(&mut this.out);
    this.perform();
    let mut status = tokio::time::interval(STATUS_EVERY);
    status.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while this.ended.is_none() {
        tokio::select! {
            biased;
            input = events.recv() => {
                let mut next = input;
                let mut n = 0;
                while let Some(input) = next {
                    this.take(input);
                    n += 1;
                    next = if n < BATCH { events.try_recv().ok() } else { None };
                }
            }
            _ = look.tick(), if this.machine.wants_measuring() => {
                if Instant::now() < this.look_at {
                    continue;
                }
                this.measure();
            }
            _ = status.tick() => {
                this.disk.trim_at_rest();
                this.measure();
                let memory_nbytes = resident_nbytes();
                this.machine.handle(Event::Tick { memory_nbytes }, &mut this.out);
            }
        }
        this.machine.handle(Event::Turn, &mut this.out);
        this.perform();
    }
    for (_, executor) in this.executors.drain() {
        executor.close();
    }
    this.ended.unwrap_or_default()
}

/// What native calls may take, and where their results go.
fn native_memory(options: &WorkerOptions, inbox: &WorkerInbox) -> (Arc<Budget>, Arena) {
    let limit_nbytes = options.memory.limit_nbytes;
    let arena = Arena::new(ArenaOptions::default());
    if limit_nbytes > 0 {
        arena.fit(limit_nbytes);
    }
    let inbox = inbox.clone();
    let tell = Box::new(move |nbytes| {
        let _ = inbox.send(Input::Event(Event::Reserved { nbytes }));
    });
    (Arc::new(Budget::new(limit_nbytes, options.nthreads, tell)), arena)
}

/// Resident memory of this process, bytes.
fn resident_nbytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}

impl Loop {
    /// Measures what the worker takes, if there is a limit to it.
    fn measure(&mut self) {
        if self.around.options.memory.limit_nbytes == 0 {
            return;
        }
        let in_core = match self.around.core_memory {
            CoreMemory::Values => 0,
            CoreMemory::Process { n_workers } => {
                let own = process_nbytes(std::process::id()).map_or(0, |(own, _)| own);
                let arena = self.around.link.arena.as_ref().map_or(0, |a| a.nbytes_reserved());
                (own + arena as u64) / u64::from(n_workers.max(1))
            }
        };
        let reserved = match self.around.core_memory {
            CoreMemory::Values => self.budget.reserved_nbytes(),
            CoreMemory::Process { .. } => 0,
        };
        let native_nbytes = self.native_arena.nbytes_reserved() as u64 + reserved;
        let core_nbytes = in_core + self.disk.nbytes_in_memory() + native_nbytes;
        let mut executors = Vec::with_capacity(self.executors.len());
        for (id, executor) in &self.executors {
            if let Some((own, shared)) = executor.pid().and_then(process_nbytes) {
                executors.push((*id, own, shared));
            }
        }
        executors.sort_unstable();
        let idle_nbytes = self.disk.nbytes_idle();
        let event = Event::Measured(Measured { core_nbytes, idle_nbytes, executors });
        self.machine.handle(event, &mut self.out);
        let left = self.machine.memory_left().unwrap_or(u64::MAX);
        self.look_at = Instant::now() + look_after(left);
    }

    fn take(&mut self, input: Input) {
        let event = match input {
            Input::FromScheduler(message) => Event::FromScheduler(message),
            Input::FromExecutor(executor, message) => Event::FromExecutor { executor, message },
            Input::ExecutorLost(executor, reason, running) => {
                self.executors.remove(&executor);
                Event::ExecutorLost { executor, reason, running }
            }
            Input::Local(message, answer) => {
                let reader = self.handle.new_reader();
                self.local.insert(reader, answer);
                Event::Request { reader, local: true, message }
            }
            Input::Reader(reader, outlet) => {
                self.remote.insert(reader, outlet);
                return;
            }
            Input::FromReader(reader, message) => Event::Request { reader, local: false, message },
            Input::ReaderLeft(reader) => {
                self.remote.remove(&reader);
                Event::ReaderLeft { reader }
            }
            Input::Event(event) => event,
            Input::Retire => {
                (self.around.to_scheduler)(FromWorker::Retire);
                return;
            }
            Input::Stop(reason) => {
                (self.around.to_scheduler)(FromWorker::Leaving { reason: reason.clone() });
                self.ended = Some(reason);
                return;
            }
        };
        self.machine.handle(event, &mut self.out);
    }

    fn perform(&mut self) {
        if self.around.native.is_some() && self.around.options.memory.limit_nbytes > 0 {
            self.budget.publish(self.machine.used_by_others(), self.machine.movable_nbytes());
        }
        for action in std::mem::take(&mut self.out) {
            match action {
                Action::ToScheduler(message) => {
                    (self.around.to_scheduler)(message);
                }
                Action::ToExecutor(id, message) => {
                    if let Some(executor) = self.executors.get(&id) {
                        (executor.outlet)(message);
                    }
                }
                Action::StartExecutor(id, kind) => self.start(id, kind),
                Action::StopExecutor(id) => {
                    if let Some(executor) = self.executors.remove(&id) {
                        executor.close();
                    }
                }
                Action::Reply(reader, message) => self.reply(reader, message),
                Action::Fetch { worker, address, tasks } => {
                    let (readers, inbox) = (self.around.readers.clone(), self.handle.inbox.clone());
                    tokio::spawn(async move {
                        let got = readers.get(worker, &address, tasks).await;
                        let values =
                            got.into_iter().map(|(task, value)| (task, value.ok().flatten()));
                        let event = Event::Fetched { worker, values: values.collect() };
                        let _ = inbox.send(Input::Event(event));
                    });
                }
                Action::FetchParts { request, worker, address, reads } => {
                    let (readers, inbox) = (self.around.readers.clone(), self.handle.inbox.clone());
                    tokio::spawn(async move {
                        let pieces = readers.get_parts(worker, &address, reads).await;
                        let _ = inbox.send(Input::Event(Event::Pieces { request, pieces }));
                    });
                }
                Action::ReadParts { request, reads } => self.disk.read_parts(request, reads),
                Action::ReplyParts { reader, id, parts } => {
                    let pieces = parts.into_iter().map(got_piece).collect();
                    self.reply(reader, FromHolder::GotParts { id, pieces });
                }
                Action::PeerGone { worker } => {
                    let readers = self.around.readers.clone();
                    tokio::spawn(async move { readers.forget(worker).await });
                }
                Action::Spill { record, value } => self.disk.write(record, value),
                Action::Restore { record } => self.disk.read(record),
                Action::Forget { record } => self.disk.forget(record),
                Action::Trim => self.disk.trim(),
                Action::KillExecutor(id) => {
                    if let Some(executor) = self.executors.get(&id) {
                        executor.kill();
                    }
                }
                Action::Log(text) => eprintln!("rasker worker {}: {text}", self.around.name),
                Action::Close { reason } => self.ended = Some(reason),
            }
        }
    }

    fn reply(&mut self, reader: ReaderId, message: FromHolder) {
        if let Some(answer) = self.local.remove(&reader) {
            let _ = answer.send(message);
        } else if let Some(outlet) = self.remote.get(&reader) {
            outlet(message);
        }
    }

    fn start(&mut self, id: ExecutorId, kind: TemplateKind) {
        let Surroundings { executors, options, link, native, name, .. } = &self.around;
        let inbox = &self.handle.inbox;
        let launched = match (kind, native) {
            (TemplateKind::Python, _) => launch(executors, id, options.nthreads, link, inbox),
            (TemplateKind::Native, Some(runner)) => {
                let (arena, budget) = (self.native_arena.clone(), self.budget.clone());
                let core = NativeCore::new(runner.clone(), arena, budget, name.clone());
                Ok(launch_threads(Arc::new(core), id, options.nthreads, inbox))
            }
            (TemplateKind::Native, None) => Err("this worker runs nothing native".to_owned()),
        };
        match launched {
            Ok(executor) => {
                self.executors.insert(id, executor);
            }
            Err(reason) => {
                let inbox = self.handle.inbox.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(START_AGAIN).await;
                    let _ = inbox.send(Input::ExecutorLost(id, reason, None));
                });
            }
        }
    }
}

/// Cuts what a reader asked for out of a value that is here as a whole.
fn got_piece(reply: PartReply) -> GotPiece {
    let PartReply { task, parts, part } = reply;
    let piece = part.and_then(|part| match part {
        None => Ok(None),
        Some(HeldPart::Piece(piece)) => Ok(Some(piece)),
        Some(HeldPart::Whole(value)) => cut(&value, parts).map(Some).map_err(|error| {
            let text = format!("parts {}..{} cannot be read: {error}", parts.start, parts.end);
            Arc::new(Failure::new(FailureKind::Exception, format!("{task:?}"), text))
        }),
    });
    GotPiece { task, parts, piece }
}
