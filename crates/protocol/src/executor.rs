//! Messages between a worker and its executors. The worker trusts nothing an executor writes:
//! what it reports is checked against what it was given.

use crate::{Datum, Failure, Label, Value};
use rasker_graph::{Blob, Column, PartRange, Run, TaskId, Template, TemplateId};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use std::sync::Arc;

/// One executor of a worker; never used twice by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ExecutorId(pub u32);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToExecutor {
    /// Plain settings, read before anything else.
    Setup(Datum),
    Define(Vec<Template>),
    Calls(Vec<ExecutorCalls>),
    /// Live values that nobody needs any more.
    Drop(Vec<Run>),
    /// Make bytes of live values, or of those given; each is answered.
    Export(Vec<(TaskId, Option<Value>)>),
    /// Hand back calls that have not begun; answered by `Recalled`.
    Recall,
    /// Calls of these attempts need not run any more; one that is running may go on.
    Cancel(Vec<(Run, u32)>),
    /// Give memory that is not in use back to the system.
    Trim,
    /// Memory is filling up, so that values may have to leave it soon; or not any more.
    Crowded(bool),
    /// A call out of band, also while others run; answered.
    Run {
        id: u64,
        call: Blob,
    },
    Close,
}

/// Calls with their inputs at hand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExecutorCalls {
    pub run: Run,
    pub attempt: u32,
    pub template: TemplateId,
    pub label: Label,
    pub work: ExecutorWork,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ExecutorWork {
    Map { inputs: Vec<GivenInput>, constants: Blob },
    One { args: Blob, given: SmallVec<[Given; 2]> },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum GivenInput {
    Values(Column),
    Each(Vec<Given>),
}

/// One input value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Given {
    /// Alive in this executor.
    Live(TaskId),
    Value(Value),
    /// The same parts of what each writer of an exchange made, in their order.
    Parts {
        parts: PartRange,
        written: Vec<Written>,
    },
}

/// What a reader gets of one writer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Written {
    /// The parts, cut out by their holder.
    Piece(Piece),
    /// All of it, as it is here anyway.
    Whole(Value),
}

/// Neighboring parts of one value, cut out of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Piece {
    /// Where each part ends in `data`.
    pub ends: SmallVec<[u64; 1]>,
    pub data: Blob,
}

impl Piece {
    pub fn nbytes(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FromExecutor {
    /// Up, with this process id (0 for threads of the worker's own process).
    /// `board` tells at any time what each thread runs, for those who can read its memory.
    Ready {
        board: Option<Blob>,
        pid: u32,
    },
    Done(Vec<Done>),
    Recalled(Vec<(Run, u32)>),
    /// None if the value is not here any more.
    Exported {
        task: TaskId,
        value: Result<Option<Value>, Arc<Failure>>,
    },
    Answer {
        id: u64,
        answer: Blob,
    },
    /// Shared memory that it took so far, bytes; told when it has changed.
    Shared {
        nbytes: u64,
    },
    /// A call gave up its thread, or took it again: calls that may run at once changed by this.
    Seceded {
        by: i32,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Done {
    pub run: Run,
    pub attempt: u32,
    /// Time the calls took together, ns.
    pub elapsed_ns: u64,
    pub outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// Small results, one per task of the run.
    Values(Column),
    /// One result, kept alive in the executor.
    Live { nbytes: u64 },
    /// One result as bytes, or as an object of the worker's own process.
    Value(Value),
    /// All tasks of the run failed so.
    Failed(Arc<Failure>),
}
