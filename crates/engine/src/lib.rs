//! The table engine: SQL and plan fragments over columns. The only room that links DataFusion.
//!
//! ```text
//!   text ─► statement ─► names ─► logical plan ─► physical plan ─► batches
//!             (Context)                (Query)                      (Batches)
//! ```
//!
//! A [`Context`] holds tables by name: files, batches in memory, views. A statement becomes a
//! [`Query`]; rows are made when they are asked for, on threads of an [`Environment`] that a
//! process shares.
//!
//! # Invariants
//!
//! - Names without quotes are found whatever their case
//!   (guarded by `names_are_found_whatever_their_case`).
//! - A table of files is what is there when it is asked for
//!   (guarded by `files_that_come_later_are_seen`).
//! - An error names the file, the column or the place in the text, and no library
//!   (guarded by `errors_say_what_and_where`).
//! - What people write and the planner does not know is rewritten or refused by name; nothing is
//!   left out in silence, and two workers give the rows that one process gives
//!   (guarded by `test_statements_give_their_answers`).
//! - What goes wrong on the way into a plan that travels is refused before it runs
//!   (guarded by `test_statements_give_their_answers`).
//! - The optimizer's rules change how a query is answered and never what is answered, and give the
//!   same plan each time (guarded by
//!   `every_query_gives_the_same_rows_with_and_without_the_rules`,
//!   `a_plan_is_the_same_each_time_it_is_made`).
//! - A task does nothing for the partitions of others, also when it goes to disk, and what it
//!   writes appears once however often it runs (guarded by
//!   `joins_of_which_some_tasks_go_to_disk_give_each_row_once`,
//!   `what_tasks_write_appears_once_however_often_they_run`).
//! - A stage that calls functions of the caller names them, and no other stage needs them
//!   (guarded by `functions_travel_with_the_stages_that_call_them_and_no_other`).
//! - A join gives the same rows whether it spills or not, and fails for want of memory only where
//!   the rows of one key do not fit (guarded by
//!   `a_spilling_join_gives_the_rows_of_the_join_it_stands_for`,
//!   `a_key_that_alone_exceeds_memory_is_an_error_that_names_the_join_key`).
//!
//! Reading order: `error`, `environment`, `files`, `names`, `context`, `query`, `distribute`,
//! `own_functions`, `gather_groups`, `hot`, `join_order` with `estimate` and `selectivity`, `join`.

mod context;
mod dialect;
mod distribute;
mod environment;
mod error;
mod estimate;
mod files;
mod functions;
mod gather_groups;
pub mod hot;
pub mod join;
mod join_order;
mod leaf;
mod local_reader;
mod names;
mod own_functions;
mod query;
mod row_filter;
mod row_ranges;
mod rows;
mod selectivity;
mod text;

pub use context::{Context, Parameters, TableEntry, WriteOptions};
pub use datafusion::arrow;
pub use datafusion::common::ScalarValue;
pub use distribute::{
    Fragment, FragmentRunner, Given, Parts, Reads, Reservations, Stage, batches_of,
};
pub use environment::{Environment, Settings};
pub use error::{EngineError, Kind, Result};
pub use files::{FilesOptions, FormatOptions};
pub use own_functions::{ColumnCall, OwnFunction, Signature};
pub use query::{Batches, Query, Spread, Stages};
pub use rows::Rows;
pub use text::{TextKind, text_of};
