//! What is written to an exchange: one value with all its parts, and how parts are cut out of it.
//!
//! A writer makes one *parted* value: an index and, behind it, the parts side by side. It is a
//! value like any other: it lies in shared memory, goes to disk and comes back. A reader gets the
//! same part of every writer's value without a copy, as the index says where it lies.
//!
//! ```text
//!   0         8         12       16            24 + 8 n                 aligned to 64 bytes
//!   ┌─────────┬─────────┬────────┬─────────────┬──────────┬─── … ──┬─────────┬─────────┬───
//!   │ magic   │ version │ n      │ end of each part (u64)  │checksum│ part 0  │ part 1  │ …
//!   └─────────┴─────────┴────────┴─────────────┴──────────┴─── … ──┴─────────┴─────────┴───
//! ```
//!
//! Ends count from the first part's first byte; each part begins at a multiple of 64 bytes, so that
//! Arrow's buffers can be used where they are. Bytes between parts are of no meaning.
//!
//! # Invariants
//!
//! - A part is what was written to it (guarded by `parts_come_back_as_they_were_written`).
//! - A damaged index is refused, and no part lies outside its value
//!   (guarded by `damage_to_an_index_is_refused`).
//! - Cutting copies no more than a few kibibytes (guarded by `a_large_part_is_not_copied`).
//!
//! Reading order: `index`, `writer`, `cut`.

mod cut;
mod index;
mod writer;

pub use cut::{Part, PartsRead, bytes_of, cut, parts_of};
pub use index::{ALIGNMENT, Index, PartedError, is_parted};
pub use writer::{Layout, PartedWriter};
