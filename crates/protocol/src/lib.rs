//! Every message between peers, its meaning, and the one codec.
//!
//! ```text
//!   client ──FromClient──► scheduler ──ToWorker────► worker ──ToExecutor──► executor
//!   client ◄──ToClient──── scheduler ◄──FromWorker── worker ◄─FromExecutor─ executor
//!   client, worker ──ToHolder──► worker ──FromHolder──► client, worker      (values)
//! ```
//!
//! A worker's [`WorkerId`] and a client's `ClientId` are given out once per connection, so they
//! are their incarnation; calls carry their attempt. The scheduler's epoch is agreed in the welcome
//! and holds for the connection: a scheduler of another epoch is another process at the end of
//! another connection, so no message can cross from one epoch into the next. Values never pass the
//! scheduler, except small ones that ride with a report.
//!
//! # Invariants
//!
//! - Only this crate encodes; a message survives the codec unchanged
//!   (guarded by `messages_survive_the_codec`).
//! - Decoding never trusts a length or an offset (guarded by `garbage_is_refused`).
//! - Bytes longer than a kibibyte travel beside the message, never copied into it
//!   (guarded by `large_values_travel_beside_the_message`).

mod call;
mod codec;
mod datum;
mod executor;
mod failure;
mod message;
pub mod probe;

pub use call::{CallWork, Calls, Label, OpenExchange, Priority, Source};
pub use codec::{CodecError, decode, encode};
pub use datum::Datum;
pub use executor::{
    Done, ExecutorCalls, ExecutorId, ExecutorWork, FromExecutor, Given, GivenInput, Outcome, Piece,
    ToExecutor, Written,
};
pub use failure::{Failure, FailureKind};
pub use message::{
    DiskStatus, Finished, FromClient, FromHolder, FromWorker, GotPiece, Hello, Holding, Kinds,
    Peer, Process, Progress, Query, Resumes, Scattered, Submit, ToClient, ToHolder, ToWorker,
    Tracked, Value, Welcome, WorkerHello, WorkerId, WorkerStatus,
};

/// The version of the messages; peers must agree exactly.
pub const PROTOCOL: u16 = 5;

#[cfg(test)]
mod tests;
