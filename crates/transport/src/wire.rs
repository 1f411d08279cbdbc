//! The layout of a frame.
//!
//! ```text
//! magic u8 · version u8 · kind u8 · 0 · head_len u32 · n_attachments u32
//! form u8 · len u64 · region u64 · offset u64          for each attachment
//! head                                                 head_len bytes
//! checksum u64 of all above                            between hosts only
//! content · checksum u64                               for each attachment that travels
//! ```
//!
//! All numbers are little-endian. The checksum of an attachment follows its content, so that both
//! sides compute it piece by piece while the bytes move, and no loop stands still for a large
//! value. Within a host there are no checksums: nothing leaves memory. The n-th segment sent over a
//! connection has the lease number n, on both sides, without being told.

pub(crate) const MAGIC: u8 = 0xA7;
pub(crate) const VERSION: u8 = 1;
pub(crate) const FIXED_NBYTES: usize = 12;
pub(crate) const ENTRY_NBYTES: usize = 25;
pub(crate) const CHECKSUM_NBYTES: usize = 8;

/// What a frame is for. All but the first kind stay within this crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A frame of the user's.
    User = 0,
    /// A region's descriptor comes with these bytes; the head is the number that names the region
    /// from now on.
    Region = 1,
    /// The region with the number in the head is gone.
    RegionEnd = 2,
    /// The leases with the numbers in the head are back.
    Leases = 3,
    /// No user frame follows.
    End = 4,
}

impl Kind {
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        [Self::User, Self::Region, Self::RegionEnd, Self::Leases, Self::End]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// One row of the table of attachments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Content { len: u64 },
    Place { len: u64, region: u64, offset: u64 },
}

impl Entry {
    pub(crate) fn to_bytes(self) -> [u8; ENTRY_NBYTES] {
        let (form, len, region, offset) = match self {
            Self::Content { len } => (0, len, 0, 0),
            Self::Place { len, region, offset } => (1, len, region, offset),
        };
        let mut bytes = [form; ENTRY_NBYTES];
        bytes[1..9].copy_from_slice(&len.to_le_bytes());
        bytes[9..17].copy_from_slice(&region.to_le_bytes());
        bytes[17..25].copy_from_slice(&offset.to_le_bytes());
        bytes
    }

    /// `bytes` holds `ENTRY_NBYTES` bytes.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let len = u64_at(bytes, 1);
        match bytes[0] {
            0 => Some(Self::Content { len }),
            1 => Some(Self::Place { len, region: u64_at(bytes, 9), offset: u64_at(bytes, 17) }),
            _ => None,
        }
    }
}

pub(crate) fn fixed_part(kind: Kind, head_len: u32, n_attachments: u32) -> [u8; FIXED_NBYTES] {
    let mut bytes = [0; FIXED_NBYTES];
    bytes[0] = MAGIC;
    bytes[1] = VERSION;
    bytes[2] = kind as u8;
    bytes[4..8].copy_from_slice(&head_len.to_le_bytes());
    bytes[8..12].copy_from_slice(&n_attachments.to_le_bytes());
    bytes
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
