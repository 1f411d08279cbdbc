//! One client's session: its machine behind a lock, shared by the user's threads and the loop.
//!
//! Entering a task takes the lock and returns; the loop sends what has gathered. Whoever is about
//! to wait sends it himself, which saves the way through the loop.

use crate::readers::{Got, Readers};
use crate::wire::Outlet;
use parking_lot::{Condvar, Mutex};
use rasker_client::{Action, Client, Ending, WaitId};
use rasker_graph::{ClientId, Run, TaskId};
use rasker_protocol::{Datum, Failure, FailureKind, FromClient, Query, ToClient, Value, WorkerId};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::Notify;

/// Something that is done once, when a wait is over.
pub type Callback = Box<dyn FnOnce() + Send>;

/// Answers that come one by one; for any thread to wait for.
pub struct Answers<T>(Mutex<mpsc::Receiver<T>>);

impl<T> Answers<T> {
    fn new() -> (mpsc::Sender<T>, Answers<T>) {
        let (sender, receiver) = mpsc::channel();
        (sender, Answers(Mutex::new(receiver)))
    }

    /// The next answer; an error if none came in time, or none will.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, mpsc::RecvTimeoutError> {
        self.0.lock().recv_timeout(timeout)
    }
}

enum Wake {
    Waiter(Arc<Waiter>),
    Callback(Callback),
}

/// A thread's place to wait.
#[derive(Default)]
pub struct Waiter {
    over: Mutex<bool>,
    change: Condvar,
}

impl Waiter {
    fn wake(&self) {
        *self.over.lock() = true;
        self.change.notify_all();
    }

    /// Whether it was over before `deadline`.
    pub fn wait(&self, deadline: Option<Instant>) -> bool {
        let mut over = self.over.lock();
        while !*over {
            match deadline {
                None => self.change.wait(&mut over),
                Some(at) => {
                    if self.change.wait_until(&mut over, at).timed_out() {
                        return *over;
                    }
                }
            }
        }
        true
    }
}

struct Shared {
    machine: Mutex<Client>,
    outlet: Outlet<FromClient>,
    wakes: Mutex<HashMap<WaitId, Wake>>,
    answers: Mutex<HashMap<u64, mpsc::Sender<Datum>>>,
    peers: Mutex<HashMap<WorkerId, String>>,
    readers: Arc<Readers>,
    handle: Handle,
    to_flush: Notify,
    is_flushing: AtomicBool,
    callbacks: Mutex<Option<mpsc::Sender<Callback>>>,
    ended: Mutex<Option<String>>,
    sent_nbytes: Box<dyn Fn() -> u64 + Send + Sync>,
}

/// What is entered gathers this long before it is sent, unless somebody waits.
const GATHER: Duration = Duration::from_millis(1);

/// See the module. Clones share the session.
#[derive(Clone)]
pub struct Session(Arc<Shared>);

impl Session {
    pub(crate) fn new(
        id: ClientId,
        outlet: Outlet<FromClient>,
        readers: Arc<Readers>,
        handle: Handle,
        sent_nbytes: Box<dyn Fn() -> u64 + Send + Sync>,
    ) -> Session {
        let session = Session(Arc::new(Shared {
            machine: Mutex::new(Client::new(id)),
            outlet,
            wakes: Mutex::default(),
            answers: Mutex::default(),
            peers: Mutex::default(),
            readers,
            handle: handle.clone(),
            to_flush: Notify::new(),
            is_flushing: AtomicBool::new(false),
            callbacks: Mutex::new(None),
            ended: Mutex::new(None),
            sent_nbytes,
        }));
        let weak = Arc::downgrade(&session.0);
        handle.spawn(async move {
            while let Some(shared) = weak.upgrade() {
                let session = Session(shared);
                if session.0.ended.lock().is_some() {
                    return;
                }
                // The session may go while this waits, so it is not held meanwhile.
                let notified =
                    tokio::time::timeout(Duration::from_secs(5), session.0.to_flush.notified());
                if notified.await.is_ok() {
                    // Who waits flushes for himself; others lose nothing by it, and a burst of
                    // submits is planned as a whole.
                    tokio::time::sleep(GATHER).await;
                    session.0.is_flushing.store(false, Ordering::SeqCst);
                    session.flush();
                }
            }
        });
        session
    }

    pub fn id(&self) -> ClientId {
        self.0.machine.lock().id()
    }

    /// Lets `f` work on the machine and does what it asks for.
    pub fn with<R>(&self, f: impl FnOnce(&mut Client, &mut Vec<Action>) -> R) -> R {
        let mut out = Vec::new();
        let mut machine = self.0.machine.lock();
        let result = f(&mut machine, &mut out);
        // Values may be objects whose end runs code of the user's, which may come back here.
        let let_go = machine.take_let_go();
        if out.is_empty() {
            drop(machine);
            drop(let_go);
            return result;
        }
        // Messages leave in the order they were made: under the lock.
        out.retain_mut(|action| match action {
            Action::Send(_) => {
                let Action::Send(message) =
                    std::mem::replace(action, Action::Wake(WaitId(u64::MAX)))
                else {
                    unreachable!("just matched")
                };
                (self.0.outlet)(message);
                false
            }
            _ => true,
        });
        drop(machine);
        drop(let_go);
        for action in out {
            self.perform(action);
        }
        result
    }

    fn perform(&self, action: Action) {
        match action {
            Action::Send(_) => {}
            Action::Wake(id) => {
                let wake = self.0.wakes.lock().remove(&id);
                match wake {
                    Some(Wake::Waiter(waiter)) => waiter.wake(),
                    Some(Wake::Callback(callback)) => self.call_back(callback),
                    None => {}
                }
            }
            Action::Answer { id, answer } => {
                if let Some(asker) = self.0.answers.lock().remove(&id) {
                    let _ = asker.send(answer);
                }
            }
            Action::PeerCame { worker, address } => {
                self.0.peers.lock().insert(worker, address);
            }
            Action::PeerGone { worker } => {
                self.0.peers.lock().remove(&worker);
                let readers = self.0.readers.clone();
                self.0.handle.spawn(async move { readers.forget(worker).await });
            }
        }
    }

    /// Runs a callback on the session's own thread for them, which is started with the first.
    fn call_back(&self, callback: Callback) {
        let mut callbacks = self.0.callbacks.lock();
        let sender = callbacks.get_or_insert_with(|| {
            let (sender, receiver) = mpsc::channel::<Callback>();
            let run = move || receiver.into_iter().for_each(|callback| callback());
            let thread = std::thread::Builder::new().name("rasker-callbacks".to_owned());
            thread.spawn(run).expect("a thread can start");
            sender
        });
        let _ = sender.send(callback);
    }

    /// Something was entered or dropped: it will be sent soon.
    pub fn touched(&self) {
        if !self.0.is_flushing.swap(true, Ordering::SeqCst) {
            self.0.to_flush.notify_one();
        }
    }

    /// Sends what has gathered.
    pub fn flush(&self) {
        self.with(|machine, out| machine.flush(out));
    }

    pub(crate) fn receive(&self, message: ToClient) {
        self.with(|machine, out| machine.handle(message, out));
    }

    /// The connection ended: everything pending ends with it.
    pub(crate) fn end(&self, reason: &str) {
        let mut ended = self.0.ended.lock();
        if ended.is_some() {
            return;
        }
        *ended = Some(reason.to_owned());
        drop(ended);
        let failure = Arc::new(Failure::new(FailureKind::Cancelled, "", reason));
        self.with(|machine, out| machine.disconnected(&failure, out));
        self.0.answers.lock().clear();
        self.0.to_flush.notify_one();
        *self.0.callbacks.lock() = None;
    }

    /// Why the session is over, if it is.
    pub fn ended(&self) -> Option<String> {
        self.0.ended.lock().clone()
    }

    pub fn ending(&self, task: TaskId) -> Option<Ending> {
        self.0.machine.lock().ending(task)
    }

    /// A place to wait until `count` of the tasks have ended; none if they have. What was entered
    /// is sent first.
    pub fn waiter(&self, runs: &[Run], count: u32) -> Option<(WaitId, Arc<Waiter>)> {
        let waiter = Arc::new(Waiter::default());
        let id = self.with(|machine, out| {
            machine.flush(out);
            let id = machine.wait(runs, count)?;
            self.0.wakes.lock().insert(id, Wake::Waiter(waiter.clone()));
            Some(id)
        })?;
        if self.ended().is_some() {
            waiter.wake();
        }
        Some((id, waiter))
    }

    pub fn cancel_wait(&self, id: WaitId) {
        self.0.machine.lock().cancel_wait(id);
        self.0.wakes.lock().remove(&id);
    }

    /// Calls `callback` on the thread for callbacks when the task has ended; gives it back if it
    /// has.
    pub fn when_ended(&self, task: TaskId, callback: Callback) -> Option<Callback> {
        let mut callback = Some(callback);
        self.with(|machine, out| {
            machine.flush(out);
            if let Some(id) = machine.wait(&[task.run()], 1) {
                let callback = callback.take().expect("not yet taken");
                self.0.wakes.lock().insert(id, Wake::Callback(callback));
            }
        });
        callback
    }

    /// Sends for values at their holders; one answer comes from each holder.
    pub fn fetch(&self, wanted: Vec<(WorkerId, TaskId)>) -> (usize, Answers<Got>) {
        let mut by_worker: HashMap<WorkerId, Vec<TaskId>> = HashMap::new();
        for (worker, task) in wanted {
            by_worker.entry(worker).or_default().push(task);
        }
        let (sender, receiver) = Answers::new();
        let n = by_worker.len();
        for (worker, tasks) in by_worker {
            let (readers, sender) = (self.0.readers.clone(), sender.clone());
            let address = self.0.peers.lock().get(&worker).cloned().unwrap_or_default();
            self.0.handle.spawn(async move {
                let _ = sender.send(readers.get(worker, &address, tasks).await);
            });
        }
        (n, receiver)
    }

    /// Stores values at workers; `true` for each worker that has them.
    pub fn put(
        &self,
        values: Vec<(WorkerId, Vec<(TaskId, Value)>)>,
    ) -> (usize, Answers<(WorkerId, bool)>) {
        let (sender, receiver) = Answers::new();
        let n = values.len();
        for (worker, values) in values {
            let (readers, sender) = (self.0.readers.clone(), sender.clone());
            let address = self.0.peers.lock().get(&worker).cloned().unwrap_or_default();
            self.0.handle.spawn(async move {
                let _ = sender.send((worker, readers.put(worker, &address, values).await));
            });
        }
        (n, receiver)
    }

    /// Workers that are there, with their addresses.
    pub fn workers(&self) -> Vec<(WorkerId, String)> {
        let peers = self.0.peers.lock();
        let mut workers: Vec<_> =
            peers.iter().map(|(id, address)| (*id, address.clone())).collect();
        workers.sort_unstable();
        workers
    }

    pub fn ask(&self, query: Query) -> Answers<Datum> {
        let (sender, receiver) = Answers::new();
        self.with(|machine, out| {
            let id = machine.ask(query, out);
            self.0.answers.lock().insert(id, sender);
        });
        if self.ended().is_some() {
            self.0.answers.lock().clear();
        }
        receiver
    }

    /// Bytes sent to the scheduler so far.
    pub fn sent_nbytes(&self) -> u64 {
        (self.0.sent_nbytes)()
    }
}
