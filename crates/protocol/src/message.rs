//! Messages between client, scheduler and worker, as a contract.

use crate::{Calls, Datum, Failure, OpenExchange, Piece, Source};
use rasker_graph::{
    Blob, Column, Key, Layer, LayerId, PartRange, Run, TaskId, Template, TemplateKind,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// One registration of a worker, given out by the scheduler and never used twice: its incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WorkerId(pub u32);

impl WorkerId {
    /// In place of a holder that nobody has named.
    pub const NOBODY: WorkerId = WorkerId(u32::MAX);
}

/// The first thing said on a connection, in the handshake.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Hello {
    Client {
        name: String,
        python: String,
        /// A session that was cut off and is to go on.
        resumes: Option<Resumes>,
        /// By which a scheduler of the same host sees whether the client is gone for good.
        process: Option<Process>,
    },
    Worker(WorkerHello),
    /// A client or worker that wants values.
    Reader,
}

/// A process, as others of its host can recognize it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The host, as no other one calls itself.
    pub host: String,
    pub pid: u32,
    /// When it began, as the kernel counts: the number may be used again.
    pub started: u64,
}

/// A client session that was cut off, as its client knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resumes {
    /// The secret of the session, from its first welcome.
    pub session: u128,
    /// Messages of the scheduler that have come.
    pub n_received: u64,
}

/// What travels on a client's connection. Messages count up from the start of the session; what
/// is not acknowledged is kept by its sender and said again when the session goes on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Tracked<M> {
    Message(M),
    /// So many messages have come.
    Received(u64),
    /// The sender ends the session: nothing of it is to be kept.
    Goodbye,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerHello {
    pub name: String,
    /// What it is called by.
    pub address: String,
    /// Where others ask for values: addresses, the nearest way first.
    pub routes: String,
    pub host: String,
    pub pid: u32,
    pub nthreads: u32,
    pub memory_limit: u64,
    pub resources: Vec<(String, f64)>,
    pub python: String,
    pub runs: Kinds,
}

/// The kinds of templates that a worker runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Kinds {
    pub python: bool,
    pub native: bool,
}

impl Kinds {
    pub const NONE: Kinds = Kinds { python: false, native: false };
    pub const PYTHON: Kinds = Kinds { python: true, native: false };
    pub const NATIVE: Kinds = Kinds { python: false, native: true };
    pub const BOTH: Kinds = Kinds { python: true, native: true };

    pub fn has(self, kind: TemplateKind) -> bool {
        match kind {
            TemplateKind::Python => self.python,
            TemplateKind::Native => self.native,
        }
    }

    /// Those of either.
    pub fn or(self, other: Kinds) -> Kinds {
        Kinds { python: self.python || other.python, native: self.native || other.native }
    }

    /// All that are not among these.
    pub fn others(self) -> Kinds {
        Kinds { python: !self.python, native: !self.native }
    }

    pub fn iter(self) -> impl Iterator<Item = TemplateKind> {
        TemplateKind::ALL.into_iter().filter(move |kind| self.has(*kind))
    }
}

/// The answer to a hello.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    pub epoch: u64,
    /// The id given to the newcomer: a `ClientId` or a `WorkerId`.
    pub id: u32,
    pub protocol: u16,
    /// A client's session, which nobody else can guess; 0 for a worker, or for a session that
    /// cannot go on.
    pub session: u128,
    /// Messages of this client that had come before.
    pub n_received: u64,
}

/// What a worker holds for a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// Small values, one per position.
    Column(Column),
    /// One value in the encoding of the executors: bytes, or a segment.
    Encoded { blob: Blob, nbytes: u64 },
    /// One value as it is, in this process.
    Object { object: Blob, nbytes: u64 },
}

impl Value {
    pub fn nbytes(&self) -> u64 {
        match self {
            Value::Column(column) => column.nbytes() as u64,
            Value::Encoded { nbytes, .. } | Value::Object { nbytes, .. } => *nbytes,
        }
    }
    /// Whether it is the value of so many tasks: asked of one that came from elsewhere.
    pub fn fits(&self, count: u32) -> bool {
        match self {
            Value::Column(column) => column.len() == count,
            Value::Encoded { .. } | Value::Object { .. } => count == 1,
        }
    }
    /// The values at `start..start + count`; only a column has more than one.
    pub fn slice(&self, start: u32, count: u32) -> Value {
        match self {
            Value::Column(column) => Value::Column(column.slice(start, count)),
            one => one.clone(),
        }
    }
}

/// Client to scheduler. Applied in order; nothing is answered but `Ask`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FromClient {
    Submit(Submit),
    /// The client holds these no longer.
    Release(Vec<Run>),
    /// Nobody is to have these any more; all clients are told.
    Cancel {
        runs: Vec<Run>,
        reason: String,
    },
    /// Failed tasks are to run again.
    Retry(Vec<TaskId>),
    /// Values that the client has put on workers.
    Scattered(Scattered),
    /// The client wants the task with this key under a new name of its own.
    /// `key` is a task's own, or its layer's with the position in `index`.
    Adopt {
        task: TaskId,
        key: Key,
        index: Option<u32>,
    },
    /// Answered by `ToClient::Answer` with the same id.
    Ask {
        id: u64,
        query: Query,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Submit {
    /// Templates that this client has not sent before.
    pub templates: Vec<Template>,
    pub layers: Vec<Layer>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scattered {
    pub layer: LayerId,
    pub keys: Vec<Key>,
    pub names: Vec<Arc<str>>,
    pub nbytes: Vec<u64>,
    /// Workers that hold each value.
    pub holders: Vec<Vec<WorkerId>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Query {
    /// Everything about scheduler and workers.
    Info,
    /// Holders by key; all keys when none are named.
    WhoHas(Vec<Key>),
    /// Keys by worker.
    HasWhat,
    /// Keys by worker that is to run them.
    Processing,
    /// Why a task is not running.
    Explain(Key),
    /// What has happened to tasks lately.
    Story(Vec<Key>),
    /// The call that failed: of the task itself, or of the one it depends on.
    Call(Key),
    Events(Option<String>),
    LogEvent {
        topic: String,
        message: Datum,
    },
    /// Workers by id, to ask them for values.
    Peers,
    /// A call out of band on the named workers, or on all.
    Run {
        workers: Vec<String>,
        call: Blob,
    },
    /// What runs on the workers now.
    CallStack,
    /// Forget everything and start the executors anew.
    Restart,
    /// Let workers end without loss: answered when they have, with their addresses.
    Retire {
        workers: Vec<String>,
    },
    /// Values are to be on so many workers, of those named or of all; answered when they are.
    Replicate {
        keys: Vec<Key>,
        n: u32,
        workers: Vec<String>,
    },
    /// Values move from full workers to others.
    Rebalance {
        keys: Vec<Key>,
        workers: Vec<String>,
    },
    /// How many of the tasks are still to end.
    Pending(Vec<Run>),
}

/// Scheduler to client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToClient {
    /// Tasks that are in memory. A task may be reported again when its value has moved.
    Finished(Vec<Finished>),
    Failed(Vec<(Run, Arc<Failure>)>),
    /// Values that were lost and are being computed again.
    Pending(Vec<Run>),
    Answer {
        id: u64,
        answer: Datum,
    },
    /// Workers that came, with their data address; replaces what was known of the same id.
    Peers(Vec<Peer>),
    PeersGone(Vec<WorkerId>),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    /// The client's own names for the tasks.
    pub run: Run,
    /// The name of the first of them on the workers.
    pub held_as: TaskId,
    pub holder: WorkerId,
    pub nbytes: u64,
    /// Small values ride along.
    pub values: Option<Value>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    pub worker: WorkerId,
    pub address: String,
    pub name: String,
}

/// Scheduler to worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToWorker {
    /// Every call is answered by progress, unless it is cancelled.
    Compute {
        templates: Vec<Template>,
        calls: Vec<Calls>,
        peers: Vec<Peer>,
        /// Exchanges that the calls read, unless they were told before and have not changed.
        exchanges: Vec<OpenExchange>,
    },
    /// Values and exchanges that nobody needs any more.
    Free(Vec<Run>),
    /// Calls that need not run any more.
    Cancel(Vec<(Run, u32)>),
    /// Hand back calls that have not begun.
    Retract,
    /// A call out of band; answered.
    Run {
        id: u64,
        call: Blob,
    },
    /// What runs now; answered.
    CallStack {
        id: u64,
    },
    /// Drop everything and start the executors anew.
    Restart,
    /// Fetch these values and keep them; each is answered by `Copied` or `NotCopied`.
    Copy(Vec<Source>),
    /// Workers that are gone: nothing comes from them any more.
    PeersGone(Vec<WorkerId>),
    /// It was counted as lost, and may join again under a new incarnation.
    Dismissed {
        reason: String,
    },
    Close {
        reason: String,
    },
}

/// Worker to scheduler.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FromWorker {
    Progress(Vec<Progress>),
    Answer {
        id: u64,
        answer: Datum,
    },
    Status(WorkerStatus),
    /// What an earlier incarnation of this worker made and is still here, with its size: said
    /// first by a worker that joins again.
    Inventory(Vec<(Run, u64)>),
    /// It was asked to end: no more work, and what is only here is to go elsewhere.
    Retire,
    /// It ends now, by nobody's fault.
    Leaving {
        reason: String,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Progress {
    Finished {
        run: Run,
        attempt: u32,
        elapsed_ns: u64,
        nbytes: u64,
        values: Option<Value>,
    },
    Failed {
        run: Run,
        attempt: u32,
        failure: Arc<Failure>,
    },
    /// The executor died under these calls; only those that ran in it.
    Crashed {
        run: Run,
        attempt: u32,
        reason: String,
    },
    /// Handed back without having begun.
    Retracted {
        run: Run,
        attempt: u32,
    },
    /// The call was given up because inputs were not where they should be; those that should
    /// have been here, as no other holder was named, are said to be with `WorkerId::NOBODY`.
    Missing {
        task: TaskId,
        attempt: u32,
        inputs: Vec<(TaskId, WorkerId)>,
    },
    /// A copy of a value came to this worker.
    Copied {
        run: Run,
        nbytes: u64,
    },
    /// A value that was to be copied could not be had.
    NotCopied {
        runs: Vec<Run>,
    },
    /// Values that this worker held are gone with an executor.
    Dropped {
        runs: Vec<Run>,
    },
    /// Copies that the worker would rather not keep: those that are held elsewhere too are freed.
    Spare {
        runs: Vec<Run>,
    },
    /// Calls that run here at once: more than before while some wait for others.
    Threads {
        nthreads: u32,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    pub memory_nbytes: u64,
    /// Values in memory.
    pub held_nbytes: u64,
    pub running: u32,
    pub ready: u32,
    /// Too little memory is left for new work: none is to be given.
    pub is_paused: bool,
    /// A good part of the memory is in use: what uses up values is to be given before what makes
    /// new ones.
    pub is_crowded: bool,
    /// Values on disk only.
    pub spilled_nbytes: u64,
    pub disk: DiskStatus,
}

/// What went to a worker's disk and came back, since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskStatus {
    pub written_nbytes: u64,
    pub write_ns: u64,
    pub read_nbytes: u64,
    pub read_ns: u64,
    /// Values that did not come back as they were written.
    pub n_lost: u64,
}

/// What a holder has of a task: nothing, a value, or a value that cannot be written down.
pub type Holding = Result<Option<Value>, Arc<Failure>>;

/// Parts of one task's value; none if it is not there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GotPiece {
    pub task: TaskId,
    pub parts: PartRange,
    pub piece: Result<Option<Piece>, Arc<Failure>>,
}

/// To whoever holds values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToHolder {
    Get {
        id: u64,
        tasks: Vec<TaskId>,
    },
    /// Parts of values that were written to exchanges.
    GetParts {
        id: u64,
        reads: Vec<(Run, PartRange)>,
    },
    Put {
        id: u64,
        values: Vec<(TaskId, Value)>,
    },
}

/// The answers. A value that is not there is `None`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FromHolder {
    Got { id: u64, values: Vec<(TaskId, Holding)> },
    GotParts { id: u64, pieces: Vec<GotPiece> },
    Stored { id: u64 },
}
