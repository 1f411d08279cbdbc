//! What travels: frames, and how large they may be.

use bytes::Bytes;
use rasker_store::{Arena, Segment};

/// One unit on the wire: a small head, and large attachments that are never copied into it.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    pub head: Bytes,
    pub attachments: Vec<Attachment>,
}

impl Frame {
    /// A frame without attachments.
    pub fn new(head: impl Into<Bytes>) -> Self {
        Self { head: head.into(), attachments: Vec::new() }
    }
}

/// Bytes that travel beside a head. A segment travels over a Unix socket as its place in shared
/// memory, and over other connections as its bytes, which arrive as a segment if the receiver has
/// an arena and as plain bytes otherwise.
#[derive(Clone, Debug)]
pub enum Attachment {
    Bytes(Bytes),
    Segment(Segment),
}

impl Attachment {
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Segment(segment) => segment,
        }
    }

    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl AsRef<[u8]> for Attachment {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

/// What a peer may send. More than that ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub head_nbytes: usize,
    pub attachment_nbytes: u64,
    pub n_attachments: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { head_nbytes: 64 << 20, attachment_nbytes: 64 << 30, n_attachments: 1 << 16 }
    }
}

/// How a connection behaves.
#[derive(Clone)]
pub struct LinkOptions {
    pub limits: Limits,
    /// Where large attachments land: they arrive as segments then, in memory that is warm.
    pub arena: Option<Arena>,
    /// `Sender::ready` waits while more than this many bytes are queued.
    pub queued_nbytes_max: usize,
}

impl Default for LinkOptions {
    fn default() -> Self {
        Self { limits: Limits::default(), arena: None, queued_nbytes_max: 16 << 20 }
    }
}
