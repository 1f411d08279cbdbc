//! Which futures live, what is known of them, who waits for them: a pure machine.
//!
//! ```text
//!   submit, map ─► open page ─ flush ─► Submit          handles dropped ─ flush ─► Release
//!   Finished, Failed ─► pieces ─► waits that are over
//! ```
//!
//! Tasks that are submitted one by one gather in a page until they are sent, so that thousands of
//! `submit`s are one message. A key that is held is joined, never submitted twice.
//!
//! # Invariants
//!
//! - What was submitted is sent before what was released after it
//!   (guarded by `a_release_never_overtakes_its_submit`).
//! - A wait ends as soon as enough of its tasks have ended, however they are reported
//!   (guarded by `a_wait_counts_each_task_once`).
//! - A task without a hold is released exactly once
//!   (guarded by `a_dropped_layer_keeps_the_tasks_held_beside_it`).
//!
//! Reading order: `client`, `exchange`, `pieces`.

mod client;
mod exchange;
mod pieces;

pub use client::{Action, Client, NewTask, WaitId};
pub use pieces::Ending;

pub(crate) type Map<K, V> = hashbrown::HashMap<K, V, foldhash::fast::FixedState>;

#[cfg(test)]
mod tests;
