//! What can go wrong with bytes.

use std::io;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    #[error(
        "no room in the arena for {wanted_nbytes} bytes: {reserved_nbytes} of at most \
         {limit_nbytes} bytes are reserved, {in_use_nbytes} in use; \
         release or spill values, or raise the memory limit"
    )]
    LimitReached {
        wanted_nbytes: usize,
        reserved_nbytes: usize,
        in_use_nbytes: usize,
        limit_nbytes: usize,
    },
    #[error(
        "no shared memory for {wanted_nbytes} bytes: {source}; release or spill values, or give \
         the process more memory"
    )]
    OutOfMemory { wanted_nbytes: usize, source: io::Error },
    #[error("region refused: {reason}; a region is a memfd sealed against shrinking")]
    RegionRefused { reason: String },
    #[error(
        "segment refused: {len} bytes at {offset} do not lie within the {region_nbytes} bytes of \
         its region"
    )]
    OutOfBounds { offset: u64, len: u64, region_nbytes: u64 },
    #[error("spilled value {key_hash:016x} is damaged: {what}; treat this replica as lost")]
    Damaged { key_hash: u64, what: String },
    #[error(
        "disk full: cannot spill {nbytes} bytes; free space in the spill folder or choose another"
    )]
    DiskFull { nbytes: u64 },
    #[error("{what}: {source}")]
    System { what: String, source: io::Error },
}

impl StoreError {
    pub(crate) fn system(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::System { what: what.into(), source: source.into() }
    }
}
