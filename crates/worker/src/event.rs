//! Everything that can happen to a worker, and everything it can ask for.

use crate::governor::Measured;
use crate::parts::{PartReply, RecordRead};
use rasker_graph::{PartRange, Run, TaskId, TemplateKind};
use rasker_protocol::{
    ExecutorId, FromExecutor, FromHolder, FromWorker, GotPiece, ToExecutor, ToHolder, ToWorker,
    Value, WorkerId,
};

/// Somebody who asks for values, for as long as its connection lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReaderId(pub u64);

#[derive(Clone, Debug)]
pub enum Event {
    FromScheduler(ToWorker),
    /// An executor that was asked for is up.
    ExecutorJoined {
        executor: ExecutorId,
    },
    ExecutorLost {
        executor: ExecutorId,
        reason: String,
        /// The calls that ran in it, with their attempts, as it had made known; if it had not, the
        /// ones given first are taken for them.
        running: Option<Vec<(TaskId, u32)>>,
    },
    FromExecutor {
        executor: ExecutorId,
        message: FromExecutor,
    },
    /// `local` readers live in this process and can take objects as they are.
    Request {
        reader: ReaderId,
        local: bool,
        message: ToHolder,
    },
    ReaderLeft {
        reader: ReaderId,
    },
    /// The answer to `Fetch`; values that could not be had are `None`.
    Fetched {
        worker: WorkerId,
        values: Vec<(TaskId, Option<Value>)>,
    },
    /// The answer to `FetchParts` or `ReadParts`; what could not be had is not among them, or is
    /// `None`.
    Pieces {
        request: u64,
        pieces: Vec<GotPiece>,
    },
    /// The connection to the scheduler ended, and is to be made anew.
    SchedulerLost,
    /// A scheduler let this worker in again, in the same life or another one.
    Joined {
        is_same_epoch: bool,
    },
    /// The answer to `Spill`: time it took in ns, or why the value could not be written.
    Spilled {
        record: u64,
        nbytes: u64,
        result: Result<u64, String>,
    },
    /// The answer to `Restore`: the value and the time it took in ns, or why it is lost.
    Restored {
        record: u64,
        result: Result<(Value, u64), String>,
    },
    /// Native calls have reserved, or ask for, so much memory in all.
    Reserved {
        nbytes: u64,
    },
    /// Comes often while calls run, if there is a limit to memory.
    Measured(Measured),
    /// Time to say how things are.
    Tick {
        memory_nbytes: u64,
    },
    /// The end of a batch of events.
    Turn,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    ToScheduler(FromWorker),
    ToExecutor(ExecutorId, ToExecutor),
    StartExecutor(ExecutorId, TemplateKind),
    StopExecutor(ExecutorId),
    Reply(ReaderId, FromHolder),
    /// Answered by `Fetched`, also when the peer is gone.
    Fetch {
        worker: WorkerId,
        address: String,
        tasks: Vec<TaskId>,
    },
    /// Answered by `Pieces`, also when the peer is gone.
    FetchParts {
        request: u64,
        worker: WorkerId,
        address: String,
        reads: Vec<(Run, PartRange)>,
    },
    /// Read parts of spilled values, and nothing else of them; answered by `Pieces`.
    ReadParts {
        request: u64,
        reads: Vec<RecordRead>,
    },
    /// The answer to `GetParts`, once parts are cut out of the values that are here as a whole.
    ReplyParts {
        reader: ReaderId,
        id: u64,
        parts: Vec<PartReply>,
    },
    /// Nothing is to be expected of this peer any more.
    PeerGone {
        worker: WorkerId,
    },
    /// Write a value to disk under a number of its own; answered by `Spilled`.
    Spill {
        record: u64,
        value: Value,
    },
    /// Read a value back; answered by `Restored`. Its record stays.
    Restore {
        record: u64,
    },
    /// A record is not needed any more.
    Forget {
        record: u64,
    },
    /// Memory that is kept for values that come back is to be given to the system.
    Trim,
    /// Ends an executor at once, as it takes too much memory; `ExecutorLost` follows.
    KillExecutor(ExecutorId),
    /// For whoever looks after this worker.
    Log(String),
    /// The scheduler asked this worker to end.
    Close {
        reason: String,
    },
}
