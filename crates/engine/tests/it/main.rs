//! The engine from outside, in one program: each that links it takes long to link.

mod context;
mod hot_rules;
mod own_functions;
mod row_ranges;
mod spilling_join;
mod stages;
