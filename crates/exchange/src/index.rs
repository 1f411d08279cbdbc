//! The index of a parted value: where each part begins and ends.

use rasker_graph::PartRange;
use std::ops::Range;

pub(crate) const MAGIC: [u8; 8] = *b"RSKRPART";
pub(crate) const VERSION: u32 = 1;
/// Parts begin at multiples of so many bytes.
pub const ALIGNMENT: u64 = 64;
const FIXED_NBYTES: usize = 16;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartedError {
    #[error(
        "value is not parted: it was written by a task that does not write to an exchange, or by \
         another version"
    )]
    NotParted,
    #[error("index of a parted value is damaged: {what}")]
    Damaged { what: &'static str },
    #[error("part {part} does not exist: the value has {n_parts} parts")]
    NoPart { part: u32, n_parts: u32 },
    #[error("parted value does not fit into {room} bytes")]
    Full { room: usize },
    #[error("bytes of a value are of no known form")]
    Form,
}

/// Whether bytes begin as a parted value does.
pub fn is_parted(value: &[u8]) -> bool {
    value.starts_with(&MAGIC)
}

/// Bytes before the first part.
pub(crate) fn index_nbytes(n_parts: u32) -> usize {
    let nbytes = FIXED_NBYTES + 8 * n_parts as usize + 8;
    nbytes.next_multiple_of(ALIGNMENT as usize)
}

pub(crate) fn start_after(end: u64) -> u64 {
    end.next_multiple_of(ALIGNMENT)
}

/// Writes the index of parts with these ends to the front of `value`.
pub(crate) fn write_index(ends: &[u64], value: &mut [u8]) {
    value[..8].copy_from_slice(&MAGIC);
    value[8..12].copy_from_slice(&VERSION.to_le_bytes());
    value[12..16].copy_from_slice(&(ends.len() as u32).to_le_bytes());
    for (end, place) in ends.iter().zip(value[FIXED_NBYTES..].chunks_exact_mut(8)) {
        place.copy_from_slice(&end.to_le_bytes());
    }
    let at = FIXED_NBYTES + 8 * ends.len();
    let checksum = rasker_store::checksum(&value[..at]);
    value[at..at + 8].copy_from_slice(&checksum.to_le_bytes());
    let first = index_nbytes(ends.len() as u32);
    value[at + 8..first].fill(0);
}

/// A parted value's index, checked against the value's length.
#[derive(Clone, Copy, Debug)]
pub struct Index<'a> {
    ends: &'a [u8],
    first: usize,
}

impl<'a> Index<'a> {
    /// Reads the index at the front of a value.
    ///
    /// # Errors
    ///
    /// If there is none, or what it says cannot be.
    pub fn open(value: &'a [u8]) -> Result<Index<'a>, PartedError> {
        if value.len() < FIXED_NBYTES || value[..8] != MAGIC {
            return Err(PartedError::NotParted);
        }
        let word = |at: usize| u32::from_le_bytes(value[at..at + 4].try_into().expect("4 bytes"));
        if word(8) != VERSION {
            return Err(PartedError::NotParted);
        }
        let n_parts = word(12);
        let first = index_nbytes(n_parts);
        if value.len() < first {
            return Err(PartedError::Damaged { what: "it is longer than the value" });
        }
        let at = FIXED_NBYTES + 8 * n_parts as usize;
        let said = u64::from_le_bytes(value[at..at + 8].try_into().expect("8 bytes"));
        if rasker_store::checksum(&value[..at]) != said {
            return Err(PartedError::Damaged { what: "it does not match its checksum" });
        }
        let index = Index { ends: &value[FIXED_NBYTES..at], first };
        let mut least = 0;
        for part in 0..n_parts {
            let end = index.end(part);
            // An aligned start behind the last end would not be a number any more.
            if end < least || end > (1 << 62) {
                return Err(PartedError::Damaged { what: "its parts overlap" });
            }
            least = start_after(end);
        }
        let last = n_parts.checked_sub(1).map_or(0, |last| index.end(last));
        if last > (value.len() - first) as u64 {
            return Err(PartedError::Damaged { what: "parts lie beyond the value's end" });
        }
        Ok(index)
    }

    pub fn n_parts(&self) -> u32 {
        (self.ends.len() / 8) as u32
    }

    fn end(&self, part: u32) -> u64 {
        let at = 8 * part as usize;
        u64::from_le_bytes(self.ends[at..at + 8].try_into().expect("8 bytes"))
    }

    fn start(&self, part: u32) -> u64 {
        part.checked_sub(1).map_or(0, |before| start_after(self.end(before)))
    }

    /// Where a part lies in the value.
    pub fn range(&self, part: u32) -> Result<Range<usize>, PartedError> {
        let n_parts = self.n_parts();
        if part >= n_parts {
            return Err(PartedError::NoPart { part, n_parts });
        }
        Ok(self.first + self.start(part) as usize..self.first + self.end(part) as usize)
    }

    /// Where neighboring parts lie, and where each of them ends, counted from the first's begin.
    pub fn span(&self, parts: PartRange) -> Result<(Range<usize>, Vec<u64>), PartedError> {
        let Some(last) = parts.end.checked_sub(1).filter(|last| *last >= parts.start) else {
            return Ok((self.first..self.first, Vec::new()));
        };
        let whole = self.range(parts.start)?.start..self.range(last)?.end;
        let from = self.start(parts.start);
        let ends = (parts.start..parts.end).map(|part| self.end(part) - from).collect();
        Ok((whole, ends))
    }
}
