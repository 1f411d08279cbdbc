//! The engine.
mod estimate;
pub mod hot;
mod join_order;
mod row_filter;
mod selectivity;
