//! A failed task is a value: what went wrong, where, and how often it was tried.

use rasker_graph::Blob;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// The user's code raised.
    Exception,
    /// Its executor or worker died under it too often.
    Killed,
    /// A value without a recipe was lost with its last holder.
    Lost,
    /// The call could not be read or its result could not be written.
    Unpicklable,
    /// Somebody cancelled it.
    Cancelled,
    /// It needed more memory than its worker may use.
    OutOfMemory,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    pub kind: FailureKind,
    /// The key of the task that failed first; its dependents carry the same failure.
    pub key: String,
    /// The pickled exception with its traceback; empty when there is none.
    pub error: Blob,
    /// One line: type and message.
    pub text: String,
    /// The formatted traceback, with the user's frames.
    pub traceback: String,
    /// Address of the worker it happened on.
    pub worker: String,
    pub attempts: u32,
    /// What became of attempts before, the earliest first: one line each.
    pub history: Vec<String>,
}

impl Failure {
    pub fn new(kind: FailureKind, key: impl Into<String>, text: impl Into<String>) -> Failure {
        Failure {
            kind,
            key: key.into(),
            error: Blob::EMPTY,
            text: text.into(),
            traceback: String::new(),
            worker: String::new(),
            attempts: 1,
            history: Vec::new(),
        }
    }
}
