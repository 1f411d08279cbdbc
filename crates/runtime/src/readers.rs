//! Getting values from their holders: in this process by its inbox, elsewhere by a connection.

use crate::routes::parse_route;
use crate::wire::{Outlet, outlet, pump};
use crate::worker_loop::WorkerHandle;
use parking_lot::Mutex;
use rasker_graph::{PartRange, Run, TaskId};
use rasker_protocol::{Failure, FromHolder, GotPiece, Hello, ToHolder, Value, WorkerId, encode};
use rasker_transport::{Address, Credentials, LinkOptions, TlsClient, connect};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;

/// What a holder answered, by task.
pub type Got = Vec<(TaskId, Result<Option<Value>, Arc<Failure>>)>;

/// Workers of this process, by id.
pub(crate) type Directory = Arc<Mutex<HashMap<WorkerId, WorkerHandle>>>;

/// How other processes are reached.
#[derive(Clone, Default)]
pub(crate) struct Access {
    pub credentials: Option<Credentials>,
    pub tls: Option<TlsClient>,
    pub link: LinkOptions,
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

type Pending = Arc<Mutex<HashMap<u64, oneshot::Sender<FromHolder>>>>;

struct Remote {
    outlet: Outlet<ToHolder>,
    pending: Pending,
}

/// See the module.
pub(crate) struct Readers {
    directory: Directory,
    access: Access,
    remotes: tokio::sync::Mutex<HashMap<WorkerId, Arc<Remote>>>,
    ids: AtomicU64,
}

impl Readers {
    pub fn new(directory: Directory, access: Access) -> Arc<Readers> {
        Arc::new(Readers {
            directory,
            access,
            remotes: tokio::sync::Mutex::new(HashMap::new()),
            ids: AtomicU64::new(1),
        })
    }

    /// Values of a worker; `None` for those that could not be had.
    pub async fn get(&self, worker: WorkerId, address: &str, tasks: Vec<TaskId>) -> Got {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let message = ToHolder::Get { id, tasks: tasks.clone() };
        match self.ask(worker, address, id, message).await {
            Some(FromHolder::Got { values, .. }) => values,
            _ => tasks.into_iter().map(|task| (task, Ok(None))).collect(),
        }
    }

    /// Parts of values of a worker; those that could not be had are not among them.
    pub async fn get_parts(
        &self,
        worker: WorkerId,
        address: &str,
        reads: Vec<(Run, PartRange)>,
    ) -> Vec<GotPiece> {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let message = ToHolder::GetParts { id, reads };
        match self.ask(worker, address, id, message).await {
            Some(FromHolder::GotParts { pieces, .. }) => pieces,
            _ => Vec::new(),
        }
    }

    /// Stores values at a worker; false if it could not be done.
    pub async fn put(&self, worker: WorkerId, address: &str, values: Vec<(TaskId, Value)>) -> bool {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let message = ToHolder::Put { id, values };
        matches!(self.ask(worker, address, id, message).await, Some(FromHolder::Stored { .. }))
    }

    /// The worker is gone: whoever waits for its answer gets none.
    pub async fn forget(&self, worker: WorkerId) {
        if let Some(remote) = self.remotes.lock().await.remove(&worker) {
            remote.pending.lock().clear();
        }
    }

    async fn ask(
        &self,
        worker: WorkerId,
        address: &str,
        id: u64,
        message: ToHolder,
    ) -> Option<FromHolder> {
        let (answer, answered) = oneshot::channel();
        let local = self.directory.lock().get(&worker).cloned();
        if let Some(local) = local {
            local.request(message, answer);
            return answered.await.ok();
        }
        let remote = self.remote(worker, address).await?;
        remote.pending.lock().insert(id, answer);
        if !(remote.outlet)(message) {
            remote.pending.lock().remove(&id);
            self.remotes.lock().await.remove(&worker);
            return None;
        }
        let answer = answered.await.ok();
        if answer.is_none() {
            self.remotes.lock().await.remove(&worker);
        }
        answer
    }

    async fn remote(&self, worker: WorkerId, address: &str) -> Option<Arc<Remote>> {
        let mut remotes = self.remotes.lock().await;
        if let Some(remote) = remotes.get(&worker) {
            return Some(remote.clone());
        }
        let credentials = self.access.credentials.as_ref()?;
        let mut opened = None;
        // A worker may say several addresses: the nearest way first.
        for route in address.split(' ') {
            let Some((address, pinned)) = parse_route(route) else { continue };
            if let Address::Unix(path) = &address
                && !path.exists()
            {
                continue;
            }
            let hello = encode(&Hello::Reader).ok()?.0;
            let tls = pinned.as_ref().or(self.access.tls.as_ref());
            let link = self.access.link.clone();
            if let Ok(connected) =
                connect(&address, credentials, hello, tls, CONNECT_TIMEOUT, link).await
            {
                opened = Some(connected);
                break;
            }
        }
        let (connection, _) = opened?;
        let (sender, receiver) = connection.split();
        let pending: Pending = Arc::default();
        let answers = pending.clone();
        tokio::spawn(async move {
            pump(receiver, |message: FromHolder| {
                let (FromHolder::Got { id, .. }
                | FromHolder::GotParts { id, .. }
                | FromHolder::Stored { id }) = &message;
                if let Some(answer) = answers.lock().remove(id) {
                    let _ = answer.send(message);
                }
                true
            })
            .await;
            answers.lock().clear();
        });
        let remote = Arc::new(Remote { outlet: outlet(sender), pending });
        remotes.insert(worker, remote.clone());
        Some(remote)
    }
}
