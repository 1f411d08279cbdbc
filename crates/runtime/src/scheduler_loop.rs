//! Feeds the scheduler machine and performs what it asks for.

use crate::client_door::Guests;
use crate::wire::Outlet;
use rasker_graph::ClientId;
use rasker_protocol::{FromClient, FromWorker, ToClient, ToWorker, WorkerHello, WorkerId};
use rasker_scheduler::{Action, Event, Scheduler, SchedulerOptions};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Events are handled in batches of at most this many before something is decided.
const BATCH: usize = 4096;
/// The machine hears of the time this often.
const TICK: Duration = Duration::from_secs(1);

pub(crate) enum Input {
    Client(ClientId, String, Outlet<ToClient>),
    FromClient(ClientId, FromClient),
    ClientLeft(ClientId),
    Worker(WorkerId, WorkerHello, Outlet<ToWorker>),
    FromWorker(WorkerId, FromWorker),
    WorkerLeft(WorkerId, String),
    Stop,
}

/// The way to a scheduler of this process.
#[derive(Clone)]
pub(crate) struct SchedulerHandle {
    inbox: UnboundedSender<Input>,
    ids: Arc<AtomicU32>,
    pub epoch: u64,
    /// Clients of other processes.
    pub guests: Guests,
    start: Instant,
    /// When something was done last, ms after the start.
    busy_until: Arc<AtomicU64>,
}

impl SchedulerHandle {
    pub fn idle_for(&self) -> Duration {
        let last = Duration::from_millis(self.busy_until.load(Ordering::Relaxed));
        self.start.elapsed().saturating_sub(last)
    }
    /// A number that no other peer of this scheduler has.
    pub fn new_id(&self) -> u32 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }
    pub fn send(&self, input: Input) -> bool {
        self.inbox.send(input).is_ok()
    }
}

/// A scheduler and its loop, to be spawned.
pub(crate) fn scheduler(
    options: SchedulerOptions,
) -> (SchedulerHandle, impl Future<Output = ()> + Send) {
    let (inbox, events) = unbounded_channel();
    let epoch = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(1, |since| since.as_millis() as u64);
    let (ids, guests) = (Arc::new(AtomicU32::new(1)), Guests::default());
    let (start, busy_until) = (Instant::now(), Arc::default());
    let handle = SchedulerHandle { inbox, ids, epoch, guests, start, busy_until };
    let running = run(events, options, handle.clone());
    (handle, running)
}

struct Loop {
    machine: Scheduler,
    clients: BTreeMap<ClientId, Outlet<ToClient>>,
    workers: BTreeMap<WorkerId, Outlet<ToWorker>>,
    guests: Guests,
    start: Instant,
    busy_until: Arc<AtomicU64>,
    n_done: u64,
    out: Vec<Action>,
}

async fn run(
    mut events: UnboundedReceiver<Input>,
    options: SchedulerOptions,
    handle: SchedulerHandle,
) {
    // Its own inbox must not keep the loop alive.
    let SchedulerHandle { inbox, guests, start, busy_until, .. } = handle;
    drop(inbox);
    let mut this = Loop {
        machine: Scheduler::new(options),
        clients: BTreeMap::new(),
        workers: BTreeMap::new(),
        guests,
        start,
        busy_until,
        n_done: 0,
        out: Vec::new(),
    };
    let mut watch = tokio::time::interval(TICK);
    // A loop that was held up ticks once when it goes on: the machine sees the gap.
    watch.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            input = events.recv() => {
                let Some(input) = input else { return };
                let mut next = Some(input);
                let mut n = 0;
                while let Some(input) = next {
                    if !this.take(input) {
                        return;
                    }
                    n += 1;
                    next = if n < BATCH { events.try_recv().ok() } else { None };
                }
            }
            _ = watch.tick() => {
                this.handle(Event::Tick);
                this.look_for_work();
            }
        }
        this.turn();
    }
}

impl Loop {
    fn handle(&mut self, event: Event) {
        let now = self.start.elapsed().as_nanos() as u64;
        self.machine.handle(now, event, &mut self.out);
    }

    /// Notes whether something was done since the last tick, or is to be done.
    fn look_for_work(&mut self) {
        let n_done = std::mem::replace(&mut self.n_done, self.machine.n_done());
        if n_done != self.n_done || self.machine.is_busy() {
            let now = self.start.elapsed().as_millis() as u64;
            self.busy_until.store(now, Ordering::Relaxed);
        }
    }

    fn take(&mut self, input: Input) -> bool {
        match input {
            Input::Client(client, name, outlet) => {
                self.clients.insert(client, outlet);
                self.handle(Event::ClientJoined { client, name });
            }
            Input::FromClient(client, message) => {
                self.handle(Event::FromClient { client, message });
            }
            Input::ClientLeft(client) => {
                self.clients.remove(&client);
                self.handle(Event::ClientLeft { client });
            }
            Input::Worker(worker, hello, outlet) => {
                self.workers.insert(worker, outlet);
                self.handle(Event::WorkerJoined { worker, hello });
            }
            Input::FromWorker(worker, message) => {
                self.handle(Event::FromWorker { worker, message });
            }
            Input::WorkerLeft(worker, reason) => {
                self.workers.remove(&worker);
                self.handle(Event::WorkerLeft { worker, reason });
            }
            Input::Stop => {
                for outlet in self.workers.values() {
                    outlet(ToWorker::Close { reason: "the scheduler was closed".into() });
                }
                self.guests.say_goodbye();
                return false;
            }
        }
        true
    }

    fn turn(&mut self) {
        self.handle(Event::Turn);
        for action in std::mem::take(&mut self.out) {
            match action {
                Action::ToClient(client, message) => {
                    if let Some(outlet) = self.clients.get(&client) {
                        outlet(message);
                    }
                }
                Action::ToWorker(worker, message) => {
                    let is_last =
                        matches!(message, ToWorker::Close { .. } | ToWorker::Dismissed { .. });
                    if let Some(outlet) = self.workers.get(&worker) {
                        outlet(message);
                    }
                    if is_last {
                        self.workers.remove(&worker);
                    }
                }
            }
        }
    }
}
