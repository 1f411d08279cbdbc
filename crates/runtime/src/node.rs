//! Peers of other processes: they are let in here, and this process asks to be let in there.

use crate::cluster::Core;
use crate::executors::ExecutorKind;
use crate::memory::{CoreMemory, MemorySettings};
use crate::readers::{Access, Directory, Readers};
use crate::routes::{Door, Routes, advertised, serve_values};
use crate::scheduler_loop::{self, SchedulerHandle};
use crate::session::Session;
use crate::wire::{from_frame, outlet, pump, to_frame};
use crate::worker_loop::{self, Surroundings, WorkerHandle};
use bytes::Bytes;
use rasker_graph::ClientId;
use rasker_protocol::{
    Hello, PROTOCOL, ToClient, ToHolder, ToWorker, Welcome, WorkerHello, WorkerId, decode, encode,
};
use rasker_store::{Arena, ArenaOptions};
use rasker_transport::{
    Address, Connection, Credentials, LinkOptions, Listener, ListenerOptions, Peer, Receiver,
    Sender, TlsClient, TlsServer, TransportError, check_exposure, connect,
};
use rasker_worker::WorkerOptions;
use std::sync::Arc;
use std::time::Duration;

/// How a peer proves itself and hides what it says.
#[derive(Clone)]
pub struct Trust {
    pub credentials: Credentials,
    pub server: Option<TlsServer>,
    pub client: Option<TlsClient>,
    /// Listen where other hosts can read along.
    pub insecure: bool,
}

pub(crate) async fn listen(
    address: &Address,
    trust: &Trust,
    link: LinkOptions,
) -> Result<Listener, TransportError> {
    check_exposure(address, trust.server.is_some(), trust.insecure)?;
    let options = ListenerOptions { link, ..ListenerOptions::default() };
    let tls = trust.server.as_ref();
    let greet = |_: &Bytes, _: &Peer| Ok(Bytes::from_static(b"rasker"));
    Listener::bind(address, trust.credentials.clone(), tls, options, greet).await
}

/// Lets clients and workers in to a scheduler of this process, until the runtime ends.
pub(crate) async fn let_peers_in(scheduler: SchedulerHandle, listener: Listener) {
    loop {
        let (connection, hello) = match listener.accept().await {
            Ok(arrived) => arrived,
            Err(TransportError::Closed { .. }) => return,
            Err(_) => continue,
        };
        match decode::<Hello>(&hello, Vec::new()) {
            Ok(Hello::Client { name, .. }) => client_came(&scheduler, connection, name),
            Ok(Hello::Worker(hello)) => worker_came(&scheduler, connection, hello),
            // Whoever wants values from a scheduler has the wrong address.
            Ok(Hello::Reader) | Err(_) => drop(connection),
        }
    }
}

fn say_welcome(scheduler: &SchedulerHandle, sender: &Sender, id: u32) -> bool {
    let welcome = Welcome { epoch: scheduler.epoch, id, protocol: PROTOCOL };
    to_frame(&welcome).is_ok_and(|frame| sender.send(frame).is_ok())
}

fn client_came(scheduler: &SchedulerHandle, connection: Connection, name: String) {
    let id = ClientId(scheduler.new_id());
    let (sender, receiver) = connection.split();
    if !say_welcome(scheduler, &sender, id.0) {
        return;
    }
    let scheduler = scheduler.clone();
    scheduler.send(scheduler_loop::Input::Client(id, name, outlet(sender)));
    tokio::spawn(async move {
        let to = scheduler.clone();
        pump(receiver, move |message| to.send(scheduler_loop::Input::FromClient(id, message)))
            .await;
        scheduler.send(scheduler_loop::Input::ClientLeft(id));
    });
}

fn worker_came(scheduler: &SchedulerHandle, connection: Connection, hello: WorkerHello) {
    let id = WorkerId(scheduler.new_id());
    let (sender, receiver) = connection.split();
    if !say_welcome(scheduler, &sender, id.0) {
        return;
    }
    let scheduler = scheduler.clone();
    scheduler.send(scheduler_loop::Input::Worker(id, hello, outlet(sender)));
    tokio::spawn(async move {
        let to = scheduler.clone();
        let reason =
            pump(receiver, move |message| to.send(scheduler_loop::Input::FromWorker(id, message)))
                .await;
        scheduler.send(scheduler_loop::Input::WorkerLeft(id, reason));
    });
}

/// Lets readers in to a worker of this process, until the runtime ends.
pub(crate) async fn let_readers_in(worker: WorkerHandle, listener: Listener) {
    loop {
        let connection = match listener.accept().await {
            Ok((connection, _)) => connection,
            Err(TransportError::Closed { .. }) => return,
            Err(_) => continue,
        };
        let (sender, receiver) = connection.split();
        let reader = worker.new_reader();
        let inbox = worker.inbox.clone();
        let _ = inbox.send(worker_loop::Input::Reader(reader, outlet(sender)));
        tokio::spawn(async move {
            let to = inbox.clone();
            pump(receiver, move |message: ToHolder| {
                to.send(worker_loop::Input::FromReader(reader, message)).is_ok()
            })
            .await;
            let _ = inbox.send(worker_loop::Input::ReaderLeft(reader));
        });
    }
}

/// Where a scheduler can be reached, and what ends it.
pub struct SchedulerNode {
    core: Core,
    scheduler: SchedulerHandle,
    pub address: String,
}

impl SchedulerNode {
    /// Starts a scheduler that listens on `host:port`; port 0 chooses one.
    pub fn start(host: &str, port: u16, trust: &Trust) -> Result<SchedulerNode, String> {
        let core = Core::start("rasker-scheduler").map_err(|error| error.to_string())?;
        let (scheduler, scheduling) = scheduler_loop::scheduler();
        core.handle.spawn(scheduling);
        let address = serve_scheduler(&core, &scheduler, host, port, trust)?;
        Ok(SchedulerNode { core, scheduler, address })
    }

    pub fn close(&self) {
        self.scheduler.send(scheduler_loop::Input::Stop);
        std::thread::sleep(Duration::from_millis(50));
        self.core.stop();
    }
}

/// Lets a scheduler listen; its address.
pub(crate) fn serve_scheduler(
    core: &Core,
    scheduler: &SchedulerHandle,
    host: &str,
    port: u16,
    trust: &Trust,
) -> Result<String, String> {
    let host = host.to_owned();
    let address = match trust.server {
        Some(_) => Address::Tls { host, port },
        None => Address::Tcp { host, port },
    };
    let listener = core
        .handle
        .block_on(listen(&address, trust, LinkOptions::default()))
        .map_err(|error| error.to_string())?;
    let address = advertised(listener.local_address(), None).to_string();
    core.handle.spawn(let_peers_in(scheduler.clone(), listener));
    Ok(address)
}

/// How a worker of its own process is set up.
pub struct WorkerNodeOptions {
    pub scheduler: String,
    pub trust: Trust,
    pub host: String,
    pub port: u16,
    pub name: Option<String>,
    pub nthreads: u32,
    pub memory: MemorySettings,
    /// Workers of this process.
    pub n_workers: u32,
    pub resources: Vec<(String, f64)>,
    pub executors: ExecutorKind,
    pub python: String,
    pub shares_memory: bool,
    pub timeout: Duration,
}

/// A worker that has joined a scheduler elsewhere.
pub struct WorkerNode {
    core: Core,
    worker: WorkerHandle,
    pub address: String,
    ended: parking_lot::Mutex<std::sync::mpsc::Receiver<String>>,
}

async fn greet(
    address: &str,
    trust: &Trust,
    hello: &Hello,
    timeout: Duration,
    link: LinkOptions,
) -> Result<(Sender, Receiver, Welcome), String> {
    let parsed: Address = address.parse().map_err(|error: TransportError| error.to_string())?;
    let hello = encode(hello).map_err(|error| error.to_string())?.0;
    let tls = trust.client.as_ref();
    let (connection, _) = connect(&parsed, &trust.credentials, hello, tls, timeout, link)
        .await
        .map_err(|error| error.to_string())?;
    let (sender, mut receiver) = connection.split();
    let first = tokio::time::timeout(timeout, receiver.recv()).await;
    let frame = match first {
        Ok(Ok(Some(frame))) => frame,
        Ok(Ok(None)) | Err(_) => return Err(format!("{address} did not let us in")),
        Ok(Err(error)) => return Err(error.to_string()),
    };
    let welcome: Welcome = from_frame(frame).map_err(|error| error.to_string())?;
    if welcome.protocol != PROTOCOL {
        return Err(format!(
            "{address} speaks protocol {}, this process {PROTOCOL}; install the same version of \
             rasker on both sides",
            welcome.protocol
        ));
    }
    Ok((sender, receiver, welcome))
}

impl WorkerNode {
    pub fn start(options: WorkerNodeOptions) -> Result<WorkerNode, String> {
        let core = Core::start("rasker-worker").map_err(|error| error.to_string())?;
        let handle = core.handle.clone();
        let (worker, events) = worker_loop::new_worker();
        let arena = Arena::new(ArenaOptions::default());
        let link = LinkOptions { arena: Some(arena), ..LinkOptions::default() };
        let (say, ended) = std::sync::mpsc::channel();
        let WorkerNodeOptions { trust, host, port, shares_memory, timeout, .. } = &options;
        let (worker_, link_) = (worker.clone(), link.clone());
        let (address, sender, receiver, routes) = handle.block_on(async {
            let toward = options.scheduler.parse::<Address>().ok();
            let door = Door { host, port: *port, toward, shares_memory: *shares_memory };
            let routes = serve_values(&worker_, &door, trust, link_.clone())
                .await
                .map_err(|error| error.to_string())?;
            let hello = hello_of(&options, &routes);
            let (sender, receiver, _) =
                greet(&options.scheduler, trust, &Hello::Worker(hello), *timeout, link_).await?;
            Ok::<_, String>((routes.address.clone(), sender, receiver, routes))
        })?;
        let shares_objects = matches!(options.executors, ExecutorKind::Threads(_));
        let mut executors = options.executors.clone();
        executors.add_settings([
            ("worker_address", address.clone().into()),
            ("worker_name", options.name.clone().unwrap_or_else(|| address.clone()).into()),
            ("scheduler", options.scheduler.clone().into()),
            ("token", options.trust.credentials.token.to_hex().into()),
            ("memory_limit", options.memory.options.limit_nbytes.into()),
        ]);
        let access = Access {
            credentials: Some(options.trust.credentials.clone()),
            tls: options.trust.client.clone(),
            link: link.clone(),
        };
        let around = Surroundings {
            options: WorkerOptions {
                nthreads: options.nthreads,
                shares_objects,
                local_clients: false,
                memory: options.memory.options,
            },
            name: options.name.clone().unwrap_or_else(|| address.clone()),
            spill_folder: options.memory.folder.clone(),
            core_memory: CoreMemory::Process { n_workers: options.n_workers },
            executors,
            link,
            readers: Readers::new(Directory::default(), access),
            to_scheduler: outlet(sender),
        };
        let inbox = worker.inbox.clone();
        handle.spawn(async move {
            let to = inbox.clone();
            let reason = pump(receiver, move |message: ToWorker| {
                to.send(worker_loop::Input::FromScheduler(message)).is_ok()
            })
            .await;
            let _ = inbox.send(worker_loop::Input::Stop(reason));
        });
        let running = worker.clone();
        handle.spawn(async move {
            let reason = worker_loop::run(running, events, around).await;
            drop(routes);
            let _ = say.send(reason);
        });
        Ok(WorkerNode { core, worker, address, ended: parking_lot::Mutex::new(ended) })
    }

    /// Why it ended, if it did within `timeout`.
    pub fn wait(&self, timeout: Duration) -> Option<String> {
        use std::sync::mpsc::RecvTimeoutError;
        match self.ended.lock().recv_timeout(timeout) {
            Ok(reason) => Some(reason),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some("the worker has ended".into()),
        }
    }

    pub fn close(&self) {
        self.worker.stop("the worker was asked to end");
        let _ = self.wait(Duration::from_secs(3));
        self.core.stop();
    }
}

fn hello_of(options: &WorkerNodeOptions, routes: &Routes) -> WorkerHello {
    WorkerHello {
        name: options.name.clone().unwrap_or_else(|| routes.address.clone()),
        address: routes.address.clone(),
        routes: routes.routes.clone(),
        host: routes.host.clone(),
        pid: std::process::id(),
        nthreads: options.nthreads,
        memory_limit: options.memory.options.limit_nbytes,
        resources: options.resources.clone(),
        python: options.python.clone(),
    }
}

/// A client's connection to a scheduler elsewhere.
pub struct RemoteSession {
    pub session: Session,
    pub arena: Arena,
    core: Arc<Core>,
    sender: Sender,
}

impl RemoteSession {
    pub fn connect(
        address: &str,
        trust: &Trust,
        name: &str,
        python: &str,
        timeout: Duration,
    ) -> Result<RemoteSession, String> {
        let core = Core::start("rasker-client").map_err(|error| error.to_string())?;
        let arena = Arena::new(ArenaOptions::default());
        let link = LinkOptions { arena: Some(arena.clone()), ..LinkOptions::default() };
        let hello = Hello::Client { name: name.to_owned(), python: python.to_owned() };
        let greeting = greet(address, trust, &hello, timeout, link.clone());
        let (sender, receiver, welcome) = core.handle.block_on(greeting)?;
        let access = Access {
            credentials: Some(trust.credentials.clone()),
            tls: trust.client.clone(),
            link,
        };
        let readers = Readers::new(Directory::default(), access);
        let counting = sender.clone();
        let sent = Box::new(move || counting.nbytes_sent());
        let handle = core.handle.clone();
        let id = ClientId(welcome.id);
        let session = Session::new(id, outlet(sender.clone()), readers, handle.clone(), sent);
        let receiving = session.clone();
        handle.spawn(async move {
            let to = receiving.clone();
            let reason = pump(receiver, move |message: ToClient| {
                to.receive(message);
                true
            })
            .await;
            receiving.end(&format!("the connection to the scheduler ended: {reason}"));
        });
        Ok(RemoteSession { session, arena, core: Arc::new(core), sender })
    }

    /// What ends the session; it may be called more than once.
    pub fn ender(&self) -> impl Fn() + Send + Sync + 'static {
        let (session, core, sender) =
            (self.session.clone(), self.core.clone(), self.sender.clone());
        move || {
            session.flush();
            // What is queued is written before the connection is closed.
            for _ in 0..100 {
                if sender.queued_nbytes() == 0 {
                    break;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            sender.close();
            session.end("the client was closed");
            core.stop();
        }
    }
}
