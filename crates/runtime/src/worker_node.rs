//! A worker of its own process: it joins a scheduler elsewhere, and joins again when it was lost.

use crate::cluster::Core;
use crate::executors::{ExecutorKind, Home};
use crate::memory::{CoreMemory, MemorySettings};
use crate::native::NativeRunner;
use crate::node::{Trust, greet};
use crate::readers::{Access, Directory, Readers};
use crate::routes::{Door, Routes, serve_values};
use crate::wire::{Outlet, pump, to_frame};
use crate::worker_loop::{self, Surroundings, WorkerHandle, WorkerInbox};
use parking_lot::Mutex;
use rasker_protocol::{FromWorker, Hello, ToWorker, Welcome, WorkerHello};
use rasker_store::{Arena, ArenaOptions};
use rasker_transport::{Address, LinkOptions, Receiver, Sender};
use rasker_worker::{Event, WorkerOptions};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A scheduler that cannot be reached is tried again after so long, and ever longer.
const TRY_AGAIN: Duration = Duration::from_millis(50);
const TRY_AGAIN_MAX: Duration = Duration::from_secs(2);
/// Time for one attempt.
const GREETING_MAX: Duration = Duration::from_secs(10);

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
    /// What runs native tasks; none of them are run without it.
    pub native: Option<Arc<dyn NativeRunner>>,
    pub python: String,
    pub shares_memory: bool,
    pub timeout: Duration,
    /// A scheduler that was lost is looked for so long.
    pub search: Duration,
}

/// A worker that has joined a scheduler elsewhere.
pub struct WorkerNode {
    core: Core,
    worker: WorkerHandle,
    pub address: String,
    ended: Mutex<std::sync::mpsc::Receiver<String>>,
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
        let (joined, routes) = handle.block_on(async {
            let toward = options.scheduler.parse::<Address>().ok();
            let door = Door { host, port: *port, toward, shares_memory: *shares_memory };
            let routes = serve_values(&worker_, &door, trust, link_.clone())
                .await
                .map_err(|error| error.to_string())?;
            let hello = Hello::Worker(hello_of(&options, &routes));
            let joined = greet(&options.scheduler, trust, &hello, *timeout, link_.clone()).await?;
            let way = Way {
                scheduler: options.scheduler.clone(),
                trust: trust.clone(),
                hello,
                link: link_,
                search: options.search,
            };
            Ok::<_, String>(((joined, way), routes))
        })?;
        let ((sender, receiver, welcome), way) = joined;
        let address = routes.address.clone();
        let shares_objects = matches!(options.executors, ExecutorKind::Threads(_));
        let name = options.name.clone().unwrap_or_else(|| address.clone());
        let executors = options.executors.at(Home {
            address: &address,
            name: &name,
            scheduler: &options.scheduler,
            token: &options.trust.credentials.token,
            memory_limit: options.memory.options.limit_nbytes,
        });
        let access = Access {
            credentials: Some(options.trust.credentials.clone()),
            tls: options.trust.client.clone(),
            link: link.clone(),
        };
        let uplink: Uplink = Arc::new(Mutex::new(Some(sender)));
        let around = Surroundings {
            options: WorkerOptions {
                nthreads: options.nthreads,
                runs: options.executors.runs(options.native.is_some()),
                shares_objects,
                local_clients: false,
                memory: options.memory.options,
            },
            name,
            spill_folder: options.memory.folder.clone(),
            core_memory: CoreMemory::Process { n_workers: options.n_workers },
            executors,
            native: options.native.clone(),
            link,
            readers: Readers::new(Directory::default(), access),
            to_scheduler: outlet_into(uplink.clone()),
        };
        let inbox = worker.inbox.clone();
        handle.spawn(way.keep(inbox, uplink, receiver, welcome.epoch));
        let running = worker.clone();
        handle.spawn(async move {
            let reason = worker_loop::run(running, events, around).await;
            drop(routes);
            let _ = say.send(reason);
        });
        Ok(WorkerNode { core, worker, address, ended: Mutex::new(ended) })
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

    /// Asks for no more work, and for what is only here to go elsewhere: it ends after that.
    pub fn retire(&self) {
        self.worker.retire();
    }

    pub fn close(&self) {
        self.worker.stop("the worker was asked to end");
        let _ = self.wait(Duration::from_secs(3));
        self.core.stop();
    }
}

/// The connection to the scheduler, while there is one.
type Uplink = Arc<Mutex<Option<Sender>>>;

/// An outlet into whichever connection there is at the time.
fn outlet_into(uplink: Uplink) -> Outlet<FromWorker> {
    Box::new(move |message| {
        let link = uplink.lock();
        let Some(sender) = link.as_ref() else { return false };
        to_frame(&message).is_ok_and(|frame| sender.send(frame).is_ok())
    })
}

/// How the scheduler is reached.
struct Way {
    scheduler: String,
    trust: Trust,
    hello: Hello,
    link: LinkOptions,
    search: Duration,
}

impl Way {
    /// Brings messages of the scheduler to the worker; joins again when it is cut off or was
    /// counted as lost.
    async fn keep(
        self,
        inbox: WorkerInbox,
        uplink: Uplink,
        mut receiver: Receiver,
        mut epoch: u64,
    ) {
        loop {
            let mut is_closed = false;
            let mut take = |message: ToWorker| {
                if matches!(message, ToWorker::Dismissed { .. }) {
                    return false;
                }
                is_closed |= matches!(message, ToWorker::Close { .. });
                inbox.send(worker_loop::Input::FromScheduler(message)).is_ok()
            };
            let reason = pump(receiver, &mut take).await;
            uplink.lock().take();
            if is_closed || inbox.send(worker_loop::Input::Event(Event::SchedulerLost)).is_err() {
                return;
            }
            let Some((sender, again, welcome)) = self.search(&inbox).await else {
                let reason = format!(
                    "{reason}; the scheduler was not found again within {} s",
                    self.search.as_secs()
                );
                let _ = inbox.send(worker_loop::Input::Stop(reason));
                return;
            };
            receiver = again;
            let is_same_epoch = std::mem::replace(&mut epoch, welcome.epoch) == welcome.epoch;
            *uplink.lock() = Some(sender);
            let _ = inbox.send(worker_loop::Input::Event(Event::Joined { is_same_epoch }));
        }
    }

    /// Looks for the scheduler until it lets this worker in.
    async fn search(&self, inbox: &WorkerInbox) -> Option<(Sender, Receiver, Welcome)> {
        let until = Instant::now() + self.search;
        let mut pause = TRY_AGAIN;
        while Instant::now() < until && !inbox.is_closed() {
            let (trust, link) = (&self.trust, self.link.clone());
            match greet(&self.scheduler, trust, &self.hello, GREETING_MAX, link).await {
                Ok(joined) => return Some(joined),
                Err(_) => tokio::time::sleep(pause).await,
            }
            pause = (pause * 2).min(TRY_AGAIN_MAX);
        }
        None
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
        runs: options.executors.runs(options.native.is_some()),
    }
}
