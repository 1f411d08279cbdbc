//! Cutting parts out of values, and what a reader gets of all its writers.

use crate::index::{ALIGNMENT, Index, PartedError};
use bytes::Bytes;
use rasker_graph::{Blob, PartRange};
use rasker_protocol::{Piece, Value, Written};
use rasker_store::Segment;
use std::sync::Arc;

/// Smaller pieces are copied: keeping the whole value for them would cost more.
const COPIED_NBYTES_MAX: usize = 4 << 10;

/// The bytes of a blob, where they are: nothing is copied.
///
/// # Errors
///
/// If the blob is an object of this process.
pub fn bytes_of(blob: &Blob) -> Result<Bytes, PartedError> {
    match blob {
        Blob::Bytes(bytes) => Ok(bytes.clone()),
        Blob::Local(_) => match blob.local::<Segment>() {
            Some(segment) => Ok(Bytes::from_owner(Segment::clone(&segment))),
            None => Err(PartedError::Form),
        },
    }
}

/// Cuts neighboring parts out of a value: a place in its memory, or a copy if it is small.
///
/// # Errors
///
/// If the value is not parted, or has no such parts.
pub fn cut(value: &Value, parts: PartRange) -> Result<Piece, PartedError> {
    let Value::Encoded { blob, .. } = value else { return Err(PartedError::NotParted) };
    let segment = blob.local::<Segment>();
    let bytes: &[u8] = match (&segment, blob) {
        (Some(segment), _) => segment.as_slice(),
        (None, Blob::Bytes(bytes)) => bytes,
        (None, Blob::Local(_)) => return Err(PartedError::Form),
    };
    let (range, ends) = Index::open(bytes)?.span(parts)?;
    let data = match (&segment, blob) {
        _ if range.len() <= COPIED_NBYTES_MAX => Blob::from(bytes[range].to_vec()),
        (Some(segment), _) => Blob::Local(Arc::new(segment.slice(range))),
        (None, Blob::Bytes(bytes)) => Blob::Bytes(bytes.slice(range)),
        (None, Blob::Local(_)) => return Err(PartedError::Form),
    };
    Ok(Piece { ends: ends.into(), data })
}

/// One part of what one writer made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub part: u32,
    /// The writer's place among the writers of the exchange.
    pub writer: u32,
    pub data: Bytes,
}

/// What a reader gets of an exchange: parts in ascending order, each in the order of the writers.
/// Empty ones are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartsRead {
    pub n_writers: u32,
    pub parts: Vec<Part>,
}

impl PartsRead {
    pub fn nbytes(&self) -> u64 {
        self.parts.iter().map(|part| part.data.len() as u64).sum()
    }
}

/// Takes what came of all writers apart.
///
/// # Errors
///
/// If a value is not parted, or a piece is not what was asked for.
pub fn parts_of(written: &[Written], parts: PartRange) -> Result<PartsRead, PartedError> {
    let mut found = Vec::new();
    for (writer, written) in (0..).zip(written) {
        let piece = match written {
            Written::Piece(piece) => piece,
            Written::Whole(value) => &cut(value, parts)?,
        };
        let data = bytes_of(&piece.data)?;
        let n_parts = parts.end.saturating_sub(parts.start);
        if piece.ends.len() != n_parts as usize {
            return Err(PartedError::Damaged { what: "a piece has too few or too many parts" });
        }
        let mut start = 0u64;
        for (part, end) in (parts.start..).zip(&piece.ends) {
            if *end < start || *end > data.len() as u64 {
                return Err(PartedError::Damaged { what: "a piece is shorter than its parts" });
            }
            if start < *end {
                let data = data.slice(start as usize..*end as usize);
                found.push(Part { part, writer, data });
            }
            start = end.next_multiple_of(ALIGNMENT).min(data.len() as u64);
        }
    }
    found.sort_by_key(|part| (part.part, part.writer));
    Ok(PartsRead { n_writers: written.len() as u32, parts: found })
}
