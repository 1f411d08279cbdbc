//! What must be done: tasks, layers of tasks, and the values that travel with them.
//!
//! A **layer** is a template and a count. `client.map(f, range(1_000_000))` is one layer whose
//! inputs are a formula; a batch of `submit`s or a `delayed` graph is one layer whose tasks are
//! listed ([`Page`]). Nothing is ever expanded here: a layer of ten million tasks is a few
//! hundred bytes until a scheduler runs it.
//!
//! ```text
//!   Template ──┐
//!   Input ─────┤► Layer ─► (LayerId, index) = TaskId ─► Run (contiguous positions)
//!   Options ───┘
//!   Column: many small values side by side      Blob: one opaque value
//! ```
//!
//! # Invariants
//!
//! - A `TaskId` is never used twice, so a task's id is also the generation of its key
//!   (guarded by `a_released_key_starts_a_new_generation`).
//! - Slicing a [`Column`] copies no value (guarded by `slices_of_a_column_share_its_bytes`).
//! - [`order`] visits every task after its dependencies, at any depth
//!   (guarded by `order_puts_dependencies_first_at_any_depth`).
//!
//! Reading order: `id`, `blob`, `column`, `layer`, `order`.

mod blob;
mod column;
mod id;
mod layer;
mod order;

pub use blob::{Blob, LocalObject};
pub use column::{Column, Items};
pub use id::{ClientId, Key, LayerId, Run, TaskId, TemplateId};
pub use layer::{
    Input, Layer, MapWork, NO_TEMPLATE, Options, Page, PartRange, Reading, Template, TemplateKind,
    Work,
};
pub use order::{Adjacency, Cycle, cull, order};

#[cfg(test)]
mod tests;
