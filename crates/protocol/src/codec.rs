//! The codec: postcard for the message, attachments for what is large.

use bytes::Bytes;
use rasker_graph::Blob;
use serde::{Serialize, de::DeserializeOwned};

/// A message that could not be written or read.
#[derive(Debug, thiserror::Error)]
#[error("message could not be {action}: {source}")]
pub struct CodecError {
    action: &'static str,
    source: postcard::Error,
}

/// The message's bytes, and the values that travel beside them.
pub fn encode<M: Serialize>(message: &M) -> Result<(Bytes, Vec<Blob>), CodecError> {
    let (head, attachments) = Blob::detach(|| postcard::to_stdvec(message));
    let head = head.map_err(|source| CodecError { action: "written", source })?;
    Ok((head.into(), attachments))
}

pub fn decode<M: DeserializeOwned>(head: &[u8], attachments: Vec<Blob>) -> Result<M, CodecError> {
    Blob::attach(attachments, || postcard::from_bytes(head))
        .map_err(|source| CodecError { action: "read", source })
}
