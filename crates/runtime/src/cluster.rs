//! Scheduler, workers and clients of one process, all on one thread of their own.

use crate::executors::{ExecutorKind, Home};
use crate::memory::{CoreMemory, MemorySettings};
use crate::native::NativeRunner;
use crate::node::{Trust, serve_scheduler};
use crate::readers::{Access, Directory, Readers};
use crate::routes::{Door, serve_values};
use crate::scheduler_loop::{self, SchedulerHandle};
use crate::session::Session;
use crate::wire::{Outlet, to_frame};
use crate::worker_loop::{self, Surroundings, WorkerHandle};
use parking_lot::Mutex;
use rasker_graph::ClientId;
use rasker_protocol::{FromClient, FromWorker, WorkerHello, WorkerId};
use rasker_scheduler::SchedulerOptions;
use rasker_store::{Arena, ArenaOptions};
use rasker_transport::{Credentials, LinkOptions, Token, TransportError};
use rasker_worker::WorkerOptions;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

const LOOPBACK: &str = "127.0.0.1";

/// How a cluster of this process is set up.
pub struct ClusterOptions {
    pub name: String,
    pub n_workers: u32,
    pub nthreads: u32,
    /// Of each worker.
    pub memory: MemorySettings,
    pub resources: Vec<(String, f64)>,
    pub executors: ExecutorKind,
    /// What runs native tasks; none of them are run without it.
    pub native: Option<Arc<dyn NativeRunner>>,
    pub python: String,
    /// Listen on the loopback interface, so that other processes of this user can join.
    pub listens: bool,
    pub scheduler: SchedulerOptions,
}

/// A thread that runs loops.
pub(crate) struct Core {
    pub handle: Handle,
    stop: Mutex<Option<oneshot::Sender<()>>>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Core {
    pub fn start(name: &str) -> std::io::Result<Core> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            runtime.block_on(async {
                let _ = stopped.await;
                // Loops that were told to end get the time to say good-bye.
                tokio::time::sleep(Duration::from_millis(1)).await;
            });
            runtime.shutdown_background();
        })?;
        Ok(Core { handle, stop: Mutex::new(Some(stop)), thread: Mutex::new(Some(thread)) })
    }

    pub fn stop(&self) {
        self.stop.lock().take();
        if let Some(thread) = self.thread.lock().take()
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

/// See the module. Dropping it ends it.
pub struct Cluster {
    core: Core,
    scheduler: SchedulerHandle,
    workers: Mutex<Vec<(WorkerHandle, oneshot::Receiver<()>)>>,
    directory: Directory,
    arena: Arena,
    sessions: Mutex<Vec<(ClientId, Session)>>,
    /// Where other processes reach it, if it listens.
    pub address: Option<String>,
    pub trust: Trust,
}

impl Cluster {
    pub fn start(options: &ClusterOptions) -> std::io::Result<Cluster> {
        let core = Core::start("rasker-core")?;
        let (scheduler, scheduling) = scheduler_loop::scheduler(options.scheduler.clone());
        core.handle.spawn(scheduling);
        let token = Token::generate().map_err(std::io::Error::other)?;
        let credentials = Credentials { token };
        let trust = Trust { credentials, server: None, client: None, insecure: false };
        let address = if options.listens {
            let served = serve_scheduler(&core, &scheduler, LOOPBACK, 0, &trust);
            Some(served.map_err(std::io::Error::other)?)
        } else {
            None
        };
        let cluster = Cluster {
            address,
            trust,
            core,
            scheduler,
            workers: Mutex::default(),
            directory: Directory::default(),
            arena: Arena::new(ArenaOptions::default()),
            sessions: Mutex::default(),
        };
        for index in 0..options.n_workers {
            cluster.add_worker(options, index).map_err(std::io::Error::other)?;
        }
        Ok(cluster)
    }

    fn link(&self) -> LinkOptions {
        LinkOptions { arena: Some(self.arena.clone()), ..LinkOptions::default() }
    }

    /// How workers of other processes that have joined are reached.
    fn access(&self) -> Access {
        Access { credentials: Some(self.trust.credentials.clone()), tls: None, link: self.link() }
    }

    /// Memory in which values of this process are put for others to map.
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    fn add_worker(&self, options: &ClusterOptions, index: u32) -> Result<(), TransportError> {
        let id = WorkerId(self.scheduler.new_id());
        let (worker, events) = worker_loop::new_worker();
        self.directory.lock().insert(id, worker.clone());
        let shares_objects = matches!(options.executors, ExecutorKind::Threads(_));
        let mut address = format!("inproc://{}/{index}", options.name);
        let mut routes = None;
        if self.address.is_some() {
            let door = Door { host: LOOPBACK, port: 0, toward: None, shares_memory: true };
            let serving = serve_values(&worker, &door, &self.trust, self.link());
            let served = self.core.handle.block_on(serving)?;
            address = served.address.clone();
            routes = Some(served);
        }
        let inproc = || format!("inproc://{}", options.name);
        let executors = options.executors.at(Home {
            address: &address,
            name: &index.to_string(),
            scheduler: &self.address.clone().unwrap_or_else(inproc),
            token: &self.trust.credentials.token,
            memory_limit: options.memory.options.limit_nbytes,
        });
        let hello = WorkerHello {
            name: index.to_string(),
            address,
            routes: routes.as_ref().map_or(String::new(), |routes| routes.routes.clone()),
            host: "127.0.0.1".into(),
            pid: std::process::id(),
            nthreads: options.nthreads,
            memory_limit: options.memory.options.limit_nbytes,
            resources: options.resources.clone(),
            python: options.python.clone(),
            runs: options.executors.runs(options.native.is_some()),
        };
        let inbox = worker.inbox.clone();
        let outlet =
            Box::new(move |message| inbox.send(worker_loop::Input::FromScheduler(message)).is_ok());
        self.scheduler.send(scheduler_loop::Input::Worker(id, hello, outlet));
        let to_scheduler = self.uplink_of(id);
        let around = Surroundings {
            options: WorkerOptions {
                nthreads: options.nthreads,
                runs: options.executors.runs(options.native.is_some()),
                shares_objects,
                local_clients: shares_objects,
                memory: options.memory.options,
            },
            name: index.to_string(),
            spill_folder: options.memory.folder.clone(),
            core_memory: CoreMemory::of(shares_objects, options.n_workers),
            executors,
            native: options.native.clone(),
            link: self.link(),
            readers: Readers::new(self.directory.clone(), self.access()),
            to_scheduler,
        };
        let (ended, end) = oneshot::channel();
        let (scheduler, handle, directory) =
            (self.scheduler.clone(), worker.clone(), self.directory.clone());
        self.core.handle.spawn(async move {
            let reason = worker_loop::run(handle, events, around).await;
            directory.lock().remove(&id);
            drop(routes);
            scheduler.send(scheduler_loop::Input::WorkerLeft(id, reason));
            let _ = ended.send(());
        });
        self.workers.lock().push((worker, end));
        Ok(())
    }

    fn uplink_of(&self, id: WorkerId) -> Outlet<FromWorker> {
        let scheduler = self.scheduler.clone();
        Box::new(move |message| scheduler.send(scheduler_loop::Input::FromWorker(id, message)))
    }

    /// A new client of this cluster.
    pub fn connect(&self, name: &str) -> Session {
        let id = ClientId(self.scheduler.new_id());
        let sent = Arc::new(AtomicU64::new(0));
        let (scheduler, counter) = (self.scheduler.clone(), sent.clone());
        let outlet = Box::new(move |message: FromClient| {
            count(&message, &counter);
            scheduler.send(scheduler_loop::Input::FromClient(id, message))
        });
        let readers = Readers::new(self.directory.clone(), self.access());
        let handle = self.core.handle.clone();
        let sent_nbytes = Box::new(move || sent.load(Ordering::Relaxed));
        let session = Session::new(id, outlet, readers, handle, sent_nbytes);
        let receiving = session.clone();
        let outlet = Box::new(move |message| {
            receiving.receive(message);
            true
        });
        self.scheduler.send(scheduler_loop::Input::Client(id, name.to_owned(), outlet));
        self.sessions.lock().push((id, session.clone()));
        session
    }

    /// Ends one client's session.
    pub fn disconnect(&self, session: &Session) {
        let id = session.id();
        session.flush();
        self.scheduler.send(scheduler_loop::Input::ClientLeft(id));
        self.sessions.lock().retain(|(other, _)| *other != id);
        session.end("the client was closed");
    }

    /// Ends everything and waits until executors are told, at most `timeout`.
    pub fn close(&self, timeout: Duration) {
        for (_, session) in std::mem::take(&mut *self.sessions.lock()) {
            session.end("the cluster was closed");
        }
        let workers = std::mem::take(&mut *self.workers.lock());
        for (worker, _) in &workers {
            worker.stop("the cluster was closed");
        }
        let until = Instant::now() + timeout;
        for (_, mut end) in workers {
            while end.try_recv() == Err(oneshot::error::TryRecvError::Empty)
                && Instant::now() < until
            {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        self.scheduler.send(scheduler_loop::Input::Stop);
        self.core.stop();
    }
}

/// Adds what a message would take on the wire. Submissions are counted, as they are what grows.
fn count(message: &FromClient, counter: &AtomicU64) {
    if let FromClient::Submit(submit) = message {
        let large = submit.layers.iter().any(|layer| layer.count > 10_000);
        // Small ones never leave this process: encoding each to count it would cost more than all
        // else about it.
        if !large {
            return;
        }
        let nbytes = to_frame(message).map_or(0, |frame| {
            frame.head.len() + frame.attachments.iter().map(|a| a.len()).sum::<usize>()
        });
        counter.fetch_add(nbytes as u64, Ordering::Relaxed);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.close(Duration::from_secs(2));
    }
}
