//! Making a parted value, with sizes known before or not.

use crate::index::{PartedError, index_nbytes, start_after, write_index};
use std::io;
use std::ops::{Deref, DerefMut, Range};

/// Where parts of known sizes go: so that they are written side by side, by several threads too.
#[derive(Clone, Debug)]
pub struct Layout {
    ends: Vec<u64>,
}

impl Layout {
    pub fn of(sizes: impl IntoIterator<Item = u64>) -> Layout {
        let mut ends = Vec::new();
        for size in sizes {
            let start = ends.last().map_or(0, |end| start_after(*end));
            ends.push(start + size);
        }
        Layout { ends }
    }

    /// Bytes of the whole value.
    pub fn nbytes(&self) -> usize {
        index_nbytes(self.ends.len() as u32) + self.ends.last().copied().unwrap_or(0) as usize
    }

    /// Where a part goes in the value.
    pub fn range(&self, part: u32) -> Range<usize> {
        let part = part as usize;
        let start = part.checked_sub(1).map_or(0, |before| start_after(self.ends[before]));
        let first = index_nbytes(self.ends.len() as u32);
        first + start as usize..first + self.ends[part] as usize
    }

    /// Writes the index to the front of the value.
    pub fn write_index(&self, value: &mut [u8]) {
        write_index(&self.ends, value);
    }

    /// Writes the whole value, of parts whose pieces follow each other and have the sizes that
    /// this layout was made of.
    pub fn write<P: Deref<Target = [u8]>>(&self, parts: &[Vec<P>], value: &mut [u8]) {
        self.write_index(value);
        for (part, pieces) in (0..).zip(parts) {
            let mut place = self.range(part).start;
            for piece in pieces {
                value[place..place + piece.len()].copy_from_slice(piece);
                place += piece.len();
            }
        }
    }
}

/// Writes parts one after the other into memory that is at least large enough: what is left of it
/// can be given back afterwards.
pub struct PartedWriter<B> {
    value: B,
    n_parts: u32,
    ends: Vec<u64>,
    first: usize,
    /// Where the open part ends so far, counted from the first part.
    at: u64,
}

impl<B: DerefMut<Target = [u8]>> PartedWriter<B> {
    /// The most that a value of so many parts and bytes takes.
    pub fn nbytes_max(n_parts: u32, nbytes: usize) -> usize {
        index_nbytes(n_parts) + nbytes + 64 * n_parts as usize
    }

    /// # Errors
    ///
    /// If not even the index fits.
    pub fn new(value: B, n_parts: u32) -> Result<PartedWriter<B>, PartedError> {
        let first = index_nbytes(n_parts);
        if value.len() < first {
            return Err(PartedError::Full { room: value.len() });
        }
        let ends = Vec::with_capacity(n_parts as usize);
        Ok(PartedWriter { value, n_parts, ends, first, at: 0 })
    }

    /// Ends the part that is open; what is written from here on is the next one.
    pub fn end_part(&mut self) {
        assert!(self.ends.len() < self.n_parts as usize, "no more parts than were announced");
        self.ends.push(self.at);
        self.at = start_after(self.at);
    }

    /// Ends all parts, the last ones empty. The memory, and how much of it is the value.
    pub fn finish(mut self) -> (B, usize) {
        while self.ends.len() < self.n_parts as usize {
            self.end_part();
        }
        let nbytes = self.first + self.ends.last().copied().unwrap_or(0) as usize;
        write_index(&self.ends, &mut self.value);
        (self.value, nbytes)
    }
}

impl<B: DerefMut<Target = [u8]>> io::Write for PartedWriter<B> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let start = self.first + self.at as usize;
        let room = self.value.len();
        let Some(place) = self.value.get_mut(start..start + bytes.len()) else {
            return Err(io::Error::new(io::ErrorKind::WriteZero, PartedError::Full { room }));
        };
        place.copy_from_slice(bytes);
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
