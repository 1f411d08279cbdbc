//! The bytes of values: shared memory, checksums and spill files. Never knows why a value exists.
//!
//! A value that leaves the heap of the process that made it becomes a *segment*: sealed bytes in a
//! memfd region that any process of the host can map. Creating such memory is slow and using it
//! again is fast (the kernel zeroes each new page), so an [`Arena`] recycles the ranges of its
//! regions instead of making a region for each value.
//!
//! ```text
//!   owner                                              guest
//!   Arena ── region (memfd, mapped writable)           Region (same memfd, mapped read-only)
//!     │ allocate         │ file descriptor ──────────▶   │ segment(offset, len, on_release)
//!     ▼                  │                               ▼
//!   Slab ── seal ──▶ Segment                           Segment ── map_private ──▶ PrivateMap
//!   (exclusive)      a lease is kept until  ◀────────  last clone dropped: on_release
//! ```
//!
//! # Invariants
//!
//! 1. No two live slabs or segments of an arena overlap: `ranges_in_use_never_overlap`.
//! 2. A range is used again only when the last lease on it is back:
//!    `a_lease_keeps_the_range_from_being_used_again`.
//! 3. A segment outlives the handle of its arena: `a_sealed_segment_outlives_its_arena`.
//! 4. Nobody but the owner can write to a region or change its size:
//!    `a_peer_cannot_write_to_a_region`.
//! 5. A foreign region is mapped only if it can never shrink, and no descriptor reaches beyond its
//!    end: `a_descriptor_that_can_shrink_is_refused`, `a_segment_beyond_the_region_is_refused`.
//! 6. All memory of a slab is reserved before it is handed out, so that too little of it is an
//!    error here and not a signal later: `an_arena_refuses_more_than_its_limit`.
//! 7. A forked process gets copies of memory that user code works in, and its parent's stays as it
//!    is: `a_fork_copies_memory_that_is_shared`.
//! 8. No damage to a spill file goes unseen: `two_hundred_kinds_of_damage_are_all_detected`.
//! 9. A checksum is that of the bytes, however they are cut and in which cache they are:
//!    `a_checksum_is_the_same_however_the_bytes_are_cut`.
//!
//! # Reading order
//!
//! `mapping` (the one place that maps memory), `region`, `ranges`, `arena`, `segment`,
//! `shared_slab`, `board`, `fork`, `checksum`, then `direct` (transfers that pass the page cache)
//! and `spill`.

mod arena;

mod board;
mod checksum;
mod direct;
mod error;
mod fork;
mod mapping;
mod ranges;
mod region;
mod segment;
mod shared_slab;
pub mod spill;

pub use arena::{Arena, ArenaOptions, Slab};

pub use board::{Board, Words, read_board};
pub use checksum::{Checksum, checksum};
pub use error::StoreError;
pub use fork::is_forked_child;
pub use region::{Region, RegionId, RegionWatcher};
pub use segment::{Descriptor, PrivateMap, Segment};
pub use shared_slab::SharedSlab;

/// Random bytes from the kernel, for names and ids that nobody may guess or repeat.
pub(crate) fn random_bytes<const N: usize>() -> Result<[u8; N], StoreError> {
    let mut bytes = [0u8; N];
    let mut filled = 0;
    while filled < N {
        let flags = rustix::rand::GetRandomFlags::empty();
        match rustix::rand::getrandom(&mut bytes[filled..], flags) {
            Ok(n) => filled += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(StoreError::system("cannot get random bytes", errno)),
        }
    }
    Ok(bytes)
}
