//! The engine from outside, in one program: each that links it takes long to link.

mod context;
mod hot_rules;
mod own_functions;
mod spilling_join;
mod stages;
