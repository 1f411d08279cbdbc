//! A physical plan as stages of tasks: cut at its exchanges, run a partition at a time.
//!
//! ```text
//!   plan ─► split ─► Stage 0 ─ parts ─► Stage 1 ─ parts ─► … ─► the last stage's values
//!                      └ Fragment (bytes, once per worker) ─► run(partition, inputs) ─► parts
//! ```
//!
//! A stage's plan keeps all its partitions; a task runs one of them, as if there were no other.
//! Leaves that read other stages are [`TaskInput`]s, which are given their bytes when the task
//! runs. So a task's rows depend on the fragment, the partition and the inputs alone, and a task
//! that is run again gives the same rows.

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;

mod bytes;
mod codec;
mod fragment;
mod given;
mod hash;
mod input;
mod joins;
mod narrow;
mod parts;
mod range;
mod run;
mod split;

pub use fragment::Fragment;
pub use given::Given;
pub use parts::Parts;
pub use run::{FragmentRunner, Reservations};
pub use split::{Reads, Stage};

pub(crate) use given::MemoryTables;
pub(crate) use input::TaskInput;
pub(crate) use joins::BringTogether;
pub(crate) use split::split;

/// The columns and the batches of one part, as a task wrote it.
pub fn batches_of(part: ::bytes::Bytes) -> crate::Result<(SchemaRef, Vec<RecordBatch>)> {
    let mut batches = Vec::new();
    let mut rows = bytes::Decoded::new(part);
    for batch in rows.by_ref() {
        let batch = batch?;
        let schema = crate::query::plain_schema(&batch.schema());
        batches.push(crate::query::plain(batch, &schema)?);
    }
    let Some(schema) = rows.schema() else {
        return Err(crate::EngineError::new(crate::Kind::Internal, "a part has no columns"));
    };
    Ok((crate::query::plain_schema(&schema), batches))
}
