//! Which worker runs which task when: a pure machine.
//!
//! ```text
//!   Event ──► Scheduler::handle ──► Action        no socket, clock, thread, lock or random source
//!
//!   submit ─► released ─► waiting ─► queued ─► processing ─► memory ─► released ─► forgotten
//!                            ▲          ▲          │            │
//!                            │          └─ retract ┤            │ last holder lost
//!                            └───── holder lost ◄──┴────────────┘
//! ```
//!
//! The graph and the clients' wishes are ground truth; all else follows from them. A value is kept
//! while a client wants it or an active task needs it; a recipe is kept while a task that is not
//! forgotten may need its value again, so any lost value can be made anew.
//!
//! # Invariants
//!
//! - Only `transition` writes a task's state, with two exceptions that write whole stretches of
//!   new records: `submit` and `dispatch` (guarded by `the_state_is_sound_after_every_event`).
//! - Output depends on the events alone (guarded by `two_runs_of_one_seed_are_equal`).
//! - A report of an old attempt or incarnation changes nothing but a counter
//!   (guarded by `a_late_result_is_dropped`).
//! - No cascade recurses (guarded by `a_chain_of_a_million_is_released`).
//! - Where memory fills up, values are used up before new ones are made
//!   (guarded by `a_crowded_worker_uses_up_values_first`).
//! - Roots are withheld: a worker never has more than a few milliseconds of work in hand
//!   (guarded by `roots_are_withheld`).
//! - Tasks of a map go to a worker in runs, also those that read values which it holds
//!   (guarded by `a_map_over_a_map_is_sent_in_runs`).
//! - A worker that is silent for too long is lost, and never because this scheduler was held up
//!   (guarded by `a_value_of_a_frozen_worker_is_made_elsewhere_within_twenty_seconds`,
//!   `a_scheduler_that_was_held_up_loses_nobody`).
//! - A task under which an executor died runs with nothing beside it, so no innocent one is given
//!   up for it (guarded by `a_task_that_ends_executors_is_found_alone`).
//! - A value is made again only if no copy is left (guarded by
//!   `a_copy_takes_the_place_of_a_lost_value`).
//! - Tasks go only to workers that run their kind (guarded by
//!   `tasks_go_only_to_workers_that_run_their_kind`).
//! - An exchange of M writers and N readers is M + N edges, and each worker is told once where
//!   parts are (guarded by `an_exchange_of_a_thousand_by_a_thousand_costs_what_its_edges_cost`).
//! - What a writer made is kept until the last reader is done (guarded by
//!   `values_of_writers_go_when_the_last_reader_is_done_and_not_before`).
//! - A writer whose value is lost runs again, and no other (guarded by
//!   `a_lost_writer_runs_again_and_no_other`).
//!
//! Reading order: `event`, `scheduler`, `table`, `transition`, `submit`, `exchange`, `wishes`,
//! `place`, `queue`, `ahead`, `dispatch`, `send`, `report`, `values`, `hot`, `membership`,
//! `health`, `errands`, `query`, `explain`, `story`, `invariants`.

mod ahead;
mod dispatch;
mod errands;
mod event;
mod exchange;
mod explain;
mod health;
mod hot;
mod invariants;
mod membership;
mod peer;
mod place;
mod query;
mod queue;
mod report;
mod scheduler;
mod send;
mod story;
mod submit;
mod table;
mod template;
mod transition;
mod values;
mod wishes;

pub use event::{Action, Event};
pub use scheduler::{Scheduler, SchedulerOptions};

#[cfg(test)]
mod memory_tests;
#[cfg(test)]
mod tests;
