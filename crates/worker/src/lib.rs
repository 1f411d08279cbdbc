//! What to fetch, run and keep next: a pure machine.
//!
//! ```text
//!   Compute ─► inputs here? ─ yes ─► ready ─► given to an executor ─► done: held + reported
//!                  │ no                ▲
//!                  └► fetched from peers, exported by executors
//! ```
//!
//! Values are held as stretches of small ones, as encoded bytes, as objects of this process, or
//! live in the heap of the executor that made them; the last become bytes when somebody else asks,
//! or when they have to leave: `governor` keeps the worker within its memory.
//!
//! # Invariants
//!
//! - What an executor reports is believed only for calls it was given
//!   (guarded by `an_answer_to_no_question_is_not_believed`).
//! - A call whose inputs cannot be had is given back, never kept
//!   (guarded by `a_call_without_inputs_is_given_back`).
//! - An executor's death is laid at the door of the calls that ran in it, not of those that
//!   waited (guarded by `calls_that_only_waited_are_not_blamed`).
//! - A call that is to be alone has nothing beside it (guarded by
//!   `a_suspect_runs_with_nothing_beside_it`).
//! - No call waits for a peer that is gone (guarded by
//!   `a_call_does_not_wait_for_a_peer_that_is_gone`).
//! - Inputs of calls in hand are never evicted (guarded by `inputs_in_use_stay_in_memory`).
//! - What is in memory, coming back or leaving stays within the limit, as long as values can leave
//!   (guarded by `values_stay_within_the_limit`).
//! - A value is in memory or on disk, and both are counted (guarded by
//!   `what_is_spilled_and_what_is_in_memory_is_all_that_is_held`).
//! - A damaged record is never handed out: its value counts as lost
//!   (guarded by `a_damaged_record_is_a_lost_value`).
//! - Memory that is kept empty for values that come back is filled by them and makes no worker
//!   pause (guarded by `values_that_come_back_fill_what_is_kept_for_them` and
//!   `memory_kept_for_values_is_given_back_before_a_worker_pauses`).
//! - A task has one value here at most, single or in a column
//!   (guarded by `a_task_has_one_value_however_values_come`).
//! - Ready calls run in the order of their ranks, however they come
//!   (guarded by `calls_stand_in_line_however_they_come`).
//! - Executors share the slots, so that native calls and others together run no more at once than
//!   there are threads (guarded by `native_calls_and_others_share_the_slots`).
//! - A reader's parts are asked for once of each holder, and come in the order of the writers
//!   (guarded by `parts_are_asked_for_once_of_each_holder_and_given_in_order`).
//! - No call reads parts of an object or of a live value: they become bytes before (guarded by
//!   `parts_of_live_values_and_objects_become_bytes_before_a_python_call_reads_them`).
//! - Of a spilled value nothing is read but the parts that are asked for
//!   (guarded by `parts_of_a_spilled_value_are_read_and_nothing_else_of_it`).
//!
//! Reading order: `event`, `worker`, `calls`, `ready`, `feeding`, `values`, `parts`, `held`,
//! `membership`, `executor`, `governor`, `spilling`, `invariants`.

mod calls;
mod event;
mod executor;
mod feeding;
mod governor;
mod held;
mod invariants;
mod membership;
mod parts;
mod ready;
mod spilling;
mod values;
mod worker;

pub use event::{Action, Event, ReaderId};
pub use governor::{Measured, MemoryOptions};
pub use parts::{HeldPart, PartReply, RecordRead};
pub use worker::{Worker, WorkerOptions};

pub(crate) type Map<K, V> = hashbrown::HashMap<K, V, foldhash::fast::FixedState>;

#[cfg(test)]
mod memory_tests;
#[cfg(test)]
mod parts_tests;
#[cfg(test)]
mod tests;
