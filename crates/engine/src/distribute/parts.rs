//! What a task writes: for each part, its rows as bytes.

use super::bytes::Encoded;
use super::hash::{hash_rows, part_of};
use super::range::{Comparable, Cutter};
use crate::{EngineError, Kind, Result};
use datafusion::arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use datafusion::arrow::buffer::Buffer;
use datafusion::arrow::compute::{BatchCoalescer, take_record_batch};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::physical_expr::PhysicalExpr;
use std::sync::Arc;

/// Rows of a batch that travels.
const N_ROWS: usize = 8192;

/// Buffers of each part, in order; to be copied side by side.
#[derive(Debug)]
pub struct Parts(pub Vec<Vec<Buffer>>);

impl Parts {
    /// Bytes of each part.
    pub fn nbytes(&self) -> Vec<usize> {
        self.0.iter().map(|part| part.iter().map(Buffer::len).sum()).collect()
    }
}

pub(super) struct Part {
    /// Gathers rows; also copies text out of the large buffers that it was read into.
    gathered: BatchCoalescer,
    encoded: Encoded,
}

impl Part {
    fn new(schema: &SchemaRef) -> Result<Part> {
        let gathered = BatchCoalescer::new(schema.clone(), N_ROWS);
        Ok(Part { gathered, encoded: Encoded::new(schema)? })
    }

    pub fn push(&mut self, batch: RecordBatch) -> Result<()> {
        self.gathered.push_batch(batch)?;
        self.flush()
    }

    fn flush(&mut self) -> Result<()> {
        while let Some(batch) = self.gathered.next_completed_batch() {
            self.encoded.push(&batch)?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<Buffer>> {
        self.gathered.finish_buffered_batch()?;
        self.flush()?;
        self.encoded.finish()?;
        Ok(self.encoded.buffers)
    }
}

/// How a task's rows are shared out to parts.
pub(super) enum Sharing {
    /// To one.
    None,
    Hash(Vec<Arc<dyn PhysicalExpr>>),
    /// All to the part that the task of the same number reads, beside a sample of their keys.
    Sample {
        keys: Comparable,
        partition: usize,
    },
    Range(Cutter),
}

/// Shares rows out to parts.
pub(super) struct PartWriter {
    sharing: Sharing,
    parts: Vec<Part>,
    n_rows: usize,
    hashes: Vec<u64>,
    rows: Vec<Vec<u32>>,
}

impl PartWriter {
    pub fn new(schema: &SchemaRef, sharing: Sharing, n_parts: usize) -> Result<PartWriter> {
        let part = |at: usize| match &sharing {
            Sharing::Sample { keys, .. } if at == 0 => Part::new(keys.schema()),
            _ => Part::new(schema),
        };
        let parts = (0..n_parts).map(part).collect::<Result<_>>()?;
        let rows = vec![Vec::new(); n_parts];
        Ok(PartWriter { sharing, parts, n_rows: 0, hashes: Vec::new(), rows })
    }

    pub fn push(&mut self, batch: RecordBatch) -> Result<()> {
        let before = self.n_rows;
        self.n_rows += batch.num_rows();
        match (&mut self.sharing, self.parts.as_mut_slice()) {
            (Sharing::Sample { keys, partition }, parts) => {
                if let Some(sample) = keys.sample(&batch, before)? {
                    parts[0].push(sample)?;
                }
                parts[1 + *partition].push(batch)
            }
            (_, [part]) => part.push(batch),
            (Sharing::Range(cutter), parts) => cutter.push(&batch, parts),
            (Sharing::Hash(keys), parts) => {
                let n = batch.num_rows();
                let keys = keys.iter().map(|key| Ok(key.evaluate(&batch)?.into_array(n)?));
                let keys = keys.collect::<Result<Vec<ArrayRef>>>()?;
                hash_rows(&keys, &mut self.hashes)?;
                let n_parts = parts.len();
                for (row, hash) in self.hashes.iter().enumerate() {
                    self.rows[part_of(*hash, n_parts)].push(row as u32);
                }
                for (part, rows) in parts.iter_mut().zip(&mut self.rows) {
                    if !rows.is_empty() {
                        let rows = UInt32Array::from(std::mem::take(rows));
                        part.push(take_record_batch(&batch, &rows)?)?;
                    }
                }
                Ok(())
            }
            (Sharing::None, _) => {
                Err(EngineError::new(Kind::Internal, "nothing says how rows are shared out"))
            }
        }
    }

    pub fn finish(self) -> Result<Parts> {
        // Most parts of a sampled run are nobody's.
        let only = match self.sharing {
            Sharing::Sample { partition, .. } => Some(1 + partition),
            _ => None,
        };
        let finish = |(at, part): (usize, Part)| match only {
            Some(only) if at > 0 && at != only => Ok(Vec::new()),
            _ => part.finish(),
        };
        self.parts.into_iter().enumerate().map(finish).collect::<Result<_>>().map(Parts)
    }
}
