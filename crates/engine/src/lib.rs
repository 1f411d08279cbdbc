//! The engine.
mod estimate;
pub mod hot;
pub mod join;
mod join_order;
mod local_reader;
mod row_filter;
mod selectivity;
