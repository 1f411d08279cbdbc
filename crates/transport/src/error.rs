//! What can go wrong between two peers.

use std::io;

use rasker_store::StoreError;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    #[error(
        "address `{text}` is not understood: {reason}; \
         write tcp://host:port, tls://host:port or unix:///path"
    )]
    Address { text: String, reason: String },
    #[error("cannot connect to {address}: {source}; is the scheduler or worker running there?")]
    Connect { address: String, source: io::Error },
    #[error("cannot listen on {address}: {source}; choose another port or stop what uses it")]
    Listen { address: String, source: io::Error },
    #[error(
        "{address} can be reached from other hosts without encryption; \
         use tls://, listen on 127.0.0.1, or allow it \
         with --insecure"
    )]
    Exposed { address: String },
    #[error("{peer} did not finish the handshake within {seconds} s; connection closed")]
    Slow { peer: String, seconds: f64 },
    #[error(
        "{peer} does not speak this protocol: it began with {found}; \
         is another program listening there?"
    )]
    NotRasker { peer: String, found: String },
    #[error(
        "{peer} speaks protocol version {theirs}, this side speaks {ours}; \
         install the same version on both sides"
    )]
    Version { peer: String, ours: u16, theirs: u16 },
    #[error(
        "token does not match the one of {peer}; \
         give both sides the same token file (scheduler file or --token-file)"
    )]
    Token { peer: String },
    #[error("refused by {peer}: {reason}")]
    Refused { peer: String, reason: String },
    #[error("handshake with {peer} failed: {reason}")]
    Handshake { peer: String, reason: String },
    #[error("connection to {peer} is closed")]
    Closed { peer: String },
    #[error("connection to {peer} ended in the middle of a frame")]
    Truncated { peer: String },
    #[error("{peer} sent {what} of {n}, more than the limit of {limit}; connection closed")]
    Limit { peer: String, what: &'static str, n: u64, limit: u64 },
    #[error(
        "{what} from {peer} arrived damaged: checksum {found:016x} instead of {expected:016x}; \
         ask for it again"
    )]
    Damaged { peer: String, what: String, expected: u64, found: u64 },
    #[error("{peer} broke the protocol: {reason}; connection closed")]
    Protocol { peer: String, reason: String },
    #[error("token file {path}: {reason}")]
    TokenFile { path: String, reason: String },
    #[error("cannot set up TLS: {reason}")]
    Tls { reason: String },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("connection to {peer} failed: {source}")]
    Io { peer: String, source: io::Error },
}
