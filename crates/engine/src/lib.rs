//! DataFusion, and what it lacks for speed and for small memory.
//!
//! This crate alone links DataFusion. Its plans are made better by rules of the physical
//! optimizer, all given by [`hot::physical_rules`], and by a join that spills.
//!
//! ```text
//! DataFusion's rules … join_selection ─▶ join_order ─▶ … DataFusion's rules … ─┐
//!                  row_filter ─▶ local_read ─▶ spill_join ◀────────────────────┘
//! ```
//!
//! Invariants:
//! - The rules change how a query is answered and never what is answered:
//!   `every_query_gives_the_same_rows_with_and_without_the_rules`.
//! - The same query over the same files gets the same plan each time:
//!   `a_plan_is_the_same_each_time_it_is_made`.
//! - A join gives the same rows whether it spills or not:
//!   `a_spilling_join_gives_the_rows_of_the_join_it_stands_for`.
//! - A join fails for want of memory only where the rows of one key do not fit, and says so:
//!   `a_key_that_alone_exceeds_memory_is_an_error_that_names_the_join_key`.
//!
//! Read `hot` first, then `join_order` with `estimate` and `selectivity`, then `join`.

mod estimate;
pub mod hot;
pub mod join;
mod join_order;
mod local_reader;
mod row_filter;
mod selectivity;
