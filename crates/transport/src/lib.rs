//! Connections and frames over TCP, TLS and Unix sockets. Never knows a message type.
//!
//! A connection carries *frames*: a small head, which is a message of the layer above, and
//! attachments, which are the bytes of values. Between two hosts, attachments travel behind the
//! head, each with a checksum. Within a host, an attachment that is a segment of shared memory
//! travels as its place: the region's descriptor is sent once, and the receiver maps it.
//!
//! ```text
//!  Sender ── send ──▶ Outbox (queue, leases) ── take ──▶ InFlight ── writev / sendmsg ──▶ socket
//!                        ▲ leases back                                                     │
//!                        └───────────────── Decoder ◀── read / recvmsg ────────────────────┘
//!  Receiver ◀── recv ───────┘  frames; segments whose release goes back through the Outbox
//! ```
//!
//! The outbox and the decoder know no socket. A tokio loop ([`Connection`]) and plain threads
//! ([`BlockingConnection`], for executor processes) drive the same two.
//!
//! # Leases
//!
//! A segment that was sent as its place is kept by the sender until the receiver says that its last
//! user is gone, or until the receiver's end of the connection is closed. Therefore a side that
//! still holds segments of the other keeps the connection open, even if its sender and receiver are
//! dropped.
//!
//! # Invariants
//!
//! 1. What arrives is what was sent, in order: `frames_of_all_sizes_make_the_round_trip`.
//! 2. Bytes that were damaged between two hosts never arrive as a frame:
//!    `a_flipped_byte_is_detected`.
//! 3. A segment crosses a Unix socket without a copy, and its range is not used again before its
//!    last reader is gone: `a_segment_crosses_a_socket_as_a_place`,
//!    `a_lease_outlives_the_connection_handles`.
//! 4. No length that a peer claims makes this side allocate:
//!    `a_huge_length_is_refused_or_allocates_nothing`.
//! 5. Nobody gets in without the token, and it never crosses the wire:
//!    `a_wrong_token_is_refused_on_both_sides`, `the_token_never_crosses_the_wire`.
//! 6. A peer that is slow at the door holds up nobody: `a_slow_peer_is_sent_away`.
//! 7. Between processes of one host nothing is sent by a timer, whatever congestion control the
//!    system has chosen: `a_socket_within_a_host_is_not_paced`.
//!
//! # Reading order
//!
//! `frame`, `wire`, `outbox`, `decoder`, `link`, then `connection` and `blocking`; at the door:
//! `address`, `token`, `handshake`, `tls`, `listener`.

mod address;
mod blocking;
mod connection;
mod decoder;
mod descriptors;
mod error;
mod frame;
mod handshake;
mod link;
mod listener;
mod outbox;
mod stream;
mod tls;
mod token;
mod wire;

pub use address::{Address, check_exposure};
pub use blocking::{BlockingConnection, BlockingReceiver, BlockingSender};
pub use connection::{Connection, Peer, Receiver, Sender};
pub use error::TransportError;
pub use frame::{Attachment, Frame, Limits, LinkOptions};
pub use listener::{Listener, ListenerOptions, Reply, connect};
pub use tls::{Fingerprint, TlsClient, TlsServer};
pub use token::{Credentials, Token};
