//! The extension module `rasker._native`: converts, calls, wraps. The only room that links PyO3.
//!
//! ```text
//!   Session, Handle ── arguments ─► encode ─► compact | pickle | object     user's process
//!   runner          ◄─ calls ────── compact | pickle | object               executor
//! ```
//!
//! # Invariants
//!
//! - A function is pickled once, however many tasks call it
//!   (guarded by `test_functions_are_pickled_once`).
//! - Large buffers are mapped by their readers, not copied, and are writable there
//!   (guarded by `test_arrays_from_processes_are_writable`).
//! - A task gets the parts it reads in the order of part and writer
//!   (guarded by `test_parts_come_in_the_order_of_part_and_writer`).
//! - What a function of a statement raises is raised as it was
//!   (guarded by `test_what_a_function_raises_is_raised_as_it_was`).
//! - Nothing waits with the interpreter lock held
//!   (guarded by `test_other_threads_run_while_one_waits`).
//!
//! Reading order: `compact`, `pickle`, `segment`, `values`, `encode`, `columns`, `runner`, `task`,
//! `handle`, `session`, `graph`, `cluster`, `executor`, `exchange`, `sql`, `fragments`,
//! `functions`.

mod allocator;
mod array_memory;
mod chain;
mod cluster;
mod columns;
mod compact;
mod datum;
mod encode;
mod exchange;
mod executor;
mod failure;
mod fragments;
mod functions;
mod gather;
mod graph;
mod handle;
mod lifetime;
mod nodes;
mod pickle;
mod requests;
mod runner;
mod scatter;
mod segment;
mod session;
mod sql;
mod stages;
mod tables;
mod task;
mod values;

use pyo3::prelude::*;

#[pymodule]
mod _native {
    #[pymodule_export]
    use crate::cluster::LocalCluster;
    #[pymodule_export]
    use crate::exchange::{Parted, Parts, exchange};
    #[pymodule_export]
    use crate::executor::executor_main;
    #[pymodule_export]
    use crate::functions::SqlFragment;
    #[pymodule_export]
    use crate::handle::{Handle, Handles, Ref};
    #[pymodule_export]
    use crate::nodes::{connect, run_scheduler, run_worker};
    #[pymodule_export]
    use crate::session::{Options, Session, register_classes};
    #[pymodule_export]
    use crate::sql::{SqlContext, SqlQuery, Texts};
    #[pymodule_export]
    use crate::task::{current_task, rejoin, running_tasks, secede};

    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::allocator::set_up();
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
