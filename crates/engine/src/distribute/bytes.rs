//! Batches as bytes: an Arrow stream, aligned so that readers use it in place.

use crate::Result;
use ::bytes::Bytes;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::buffer::Buffer;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::arrow::ipc::reader::StreamDecoder;
use datafusion::arrow::ipc::writer::StreamEncoder;
use datafusion::error::DataFusionError;

/// Buffers of a stream, in order; they share the batches' memory.
pub(super) struct Encoded {
    encoder: Option<StreamEncoder>,
    pub buffers: Vec<Buffer>,
}

impl Encoded {
    pub fn new(schema: &Schema) -> Result<Encoded> {
        Ok(Encoded { encoder: Some(StreamEncoder::try_new(schema)?), buffers: Vec::new() })
    }

    pub fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        let encoder = self.encoder.as_mut().expect("it is not finished");
        self.buffers.extend(encoder.encode(batch)?);
        Ok(())
    }

    pub fn finish(&mut self) -> Result<()> {
        if let Some(encoder) = self.encoder.take() {
            self.buffers.extend(encoder.finish()?);
        }
        Ok(())
    }
}

/// The batches of a stream, read in place as they are asked for.
pub(super) struct Decoded {
    buffer: Buffer,
    decoder: StreamDecoder,
}

impl Decoded {
    pub fn new(bytes: Bytes) -> Decoded {
        Decoded { buffer: Buffer::from(bytes), decoder: StreamDecoder::new() }
    }

    /// The columns, once the beginning was read.
    pub fn schema(&self) -> Option<SchemaRef> {
        self.decoder.schema()
    }
}

impl Iterator for Decoded {
    type Item = Result<RecordBatch, DataFusionError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.buffer.is_empty() {
            match self.decoder.decode(&mut self.buffer) {
                Ok(Some(batch)) => return Some(Ok(batch)),
                Ok(None) => {}
                Err(error) => {
                    self.buffer = Buffer::from(&[] as &[u8]);
                    return Some(Err(error.into()));
                }
            }
        }
        None
    }
}
