//! Batches as bytes: an Arrow stream, aligned so that readers use it in place.

use crate::Result;
use ::bytes::Bytes;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::buffer::Buffer;
use datafusion::arrow::datatypes::Schema;
use datafusion::arrow::error::ArrowError;
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
pub(super) fn decode(bytes: Bytes) -> impl Iterator<Item = Result<RecordBatch, DataFusionError>> {
    let mut buffer = Buffer::from(bytes);
    let mut decoder = StreamDecoder::new();
    std::iter::from_fn(move || {
        while !buffer.is_empty() {
            match decoder.decode(&mut buffer) {
                Ok(Some(batch)) => return Some(Ok(batch)),
                Ok(None) => {}
                Err(error) => {
                    buffer = Buffer::from(&[] as &[u8]);
                    return Some(Err(ArrowError::into(error)));
                }
            }
        }
        None
    })
}
