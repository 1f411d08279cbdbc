//! What to fetch, run and keep next: a pure machine.
//!
//! ```text
//!   Compute ─► inputs here? ─ yes ─► ready ─► given to an executor ─► done: held + reported
//!                  │ no                ▲
//!                  └► fetched from peers, exported by executors
//! ```
//!
//! Values are held as stretches of small ones, as encoded bytes, as objects of this process, or
//! live in the heap of the executor that made them; the last become bytes when somebody else asks.
//!
//! # Invariants
//!
//! - What an executor reports is believed only for calls it was given
//!   (guarded by `an_answer_to_no_question_is_not_believed`).
//! - A call whose inputs cannot be had is given back, never kept
//!   (guarded by `a_call_without_inputs_is_given_back`).
//! - An executor's death is laid at the door of the calls that ran in it, not of those that
//!   waited (guarded by `calls_that_only_waited_are_not_blamed`).
//!
//! Reading order: `event`, `worker`, `calls`, `values`, `held`, `executor`, `invariants`.

mod calls;
mod event;
mod executor;
mod held;
mod invariants;
mod values;
mod worker;

pub use event::{Action, Event, ReaderId};
pub use worker::{Worker, WorkerOptions};

pub(crate) type Map<K, V> = hashbrown::HashMap<K, V, foldhash::fast::FixedState>;

#[cfg(test)]
mod tests;
