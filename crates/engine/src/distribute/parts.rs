//! What a task writes: for each part, its rows as bytes.

use super::bytes::Encoded;
use super::hash::{hash_rows, part_of};
use crate::Result;
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

struct Part {
    /// Gathers rows; also copies text out of the large buffers that it was read into.
    gathered: BatchCoalescer,
    encoded: Encoded,
}

impl Part {
    fn new(schema: &SchemaRef) -> Result<Part> {
        let gathered = BatchCoalescer::new(schema.clone(), N_ROWS);
        Ok(Part { gathered, encoded: Encoded::new(schema)? })
    }

    fn push(&mut self, batch: RecordBatch) -> Result<()> {
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

/// Shares rows out to parts.
pub(super) struct PartWriter {
    keys: Vec<Arc<dyn PhysicalExpr>>,
    parts: Vec<Part>,
    hashes: Vec<u64>,
    rows: Vec<Vec<u32>>,
}

impl PartWriter {
    /// With one part no keys are needed.
    pub fn new(
        schema: &SchemaRef,
        keys: Vec<Arc<dyn PhysicalExpr>>,
        n_parts: usize,
    ) -> Result<PartWriter> {
        let parts = (0..n_parts).map(|_| Part::new(schema)).collect::<Result<_>>()?;
        let rows = vec![Vec::new(); n_parts];
        Ok(PartWriter { keys, parts, hashes: Vec::new(), rows })
    }

    pub fn push(&mut self, batch: RecordBatch) -> Result<()> {
        if let [part] = self.parts.as_mut_slice() {
            return part.push(batch);
        }
        let n = batch.num_rows();
        let keys = self.keys.iter().map(|key| Ok(key.evaluate(&batch)?.into_array(n)?));
        let keys = keys.collect::<Result<Vec<ArrayRef>>>()?;
        hash_rows(&keys, &mut self.hashes)?;
        let n_parts = self.parts.len();
        for (row, hash) in self.hashes.iter().enumerate() {
            self.rows[part_of(*hash, n_parts)].push(row as u32);
        }
        for (part, rows) in self.parts.iter_mut().zip(&mut self.rows) {
            if !rows.is_empty() {
                let rows = UInt32Array::from(std::mem::take(rows));
                part.push(take_record_batch(&batch, &rows)?)?;
            }
        }
        Ok(())
    }

    pub fn finish(self) -> Result<Parts> {
        self.parts.into_iter().map(Part::finish).collect::<Result<_>>().map(Parts)
    }
}
