//! Peers of other processes: they are let in here, and this process asks to be let in elsewhere.

use crate::cluster::Core;
use crate::routes::advertised;
use crate::scheduler_loop::{self, SchedulerHandle};
use crate::wire::{from_frame, outlet, pump, to_frame};
use crate::worker_loop::{self, WorkerHandle};
use bytes::Bytes;
use rasker_protocol::{Hello, PROTOCOL, ToHolder, Welcome, WorkerHello, WorkerId, decode, encode};
use rasker_scheduler::SchedulerOptions;
use rasker_transport::{
    Address, Connection, Credentials, LinkOptions, Listener, ListenerOptions, Peer, Receiver,
    Sender, TlsClient, TlsServer, TransportError, check_exposure, connect,
};
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
            Ok(Hello::Client { name, resumes, process, .. }) => {
                scheduler.guests.arrive(&scheduler, connection, (name, process), resumes);
            }
            Ok(Hello::Worker(hello)) => worker_came(&scheduler, connection, hello),
            // Whoever wants values from a scheduler has the wrong address.
            Ok(Hello::Reader) | Err(_) => drop(connection),
        }
    }
}

fn say_welcome(scheduler: &SchedulerHandle, sender: &Sender, id: u32) -> bool {
    let (epoch, protocol) = (scheduler.epoch, PROTOCOL);
    let welcome = Welcome { epoch, id, protocol, session: 0, n_received: 0 };
    to_frame(&welcome).is_ok_and(|frame| sender.send(frame).is_ok())
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
    pub fn start(
        host: &str,
        port: u16,
        trust: &Trust,
        options: SchedulerOptions,
    ) -> Result<SchedulerNode, String> {
        let core = Core::start("rasker-scheduler").map_err(|error| error.to_string())?;
        let (scheduler, scheduling) = scheduler_loop::scheduler(options);
        core.handle.spawn(scheduling);
        let address = serve_scheduler(&core, &scheduler, host, port, trust)?;
        Ok(SchedulerNode { core, scheduler, address })
    }

    /// How long nothing has been done or asked for, and nothing was to be done.
    pub fn idle_for(&self) -> Duration {
        self.scheduler.idle_for()
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

/// Asks to be let in.
pub(crate) async fn greet(
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
