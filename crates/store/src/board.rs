//! A few words that one process writes and another reads at any time, also after the writer's
//! death.

use crate::StoreError;
use crate::arena::Arena;
use crate::segment::Segment;
use crate::shared_slab::SharedSlab;
use std::sync::atomic::{AtomicU64, Ordering};

/// What one slot holds.
pub type Words = [u64; 3];

/// A slot has a line of the processor's cache to itself.
const SLOT_NBYTES: usize = 64;

/// The writer's side: numbered slots, each written by one thread at a time.
pub struct Board {
    memory: SharedSlab,
}

impl Board {
    pub fn new(arena: &Arena, n_slots: usize) -> Result<Board, StoreError> {
        let mut slab = arena.allocate(n_slots.max(1) * SLOT_NBYTES)?;
        slab.fill(0);
        Ok(Board { memory: slab.share() })
    }

    /// Writes to a slot; one that is not there is nobody's to read.
    pub fn write(&self, slot: usize, words: Words) {
        if (slot + 1) * SLOT_NBYTES > self.memory.len() {
            return;
        }
        for (i, word) in words.into_iter().enumerate() {
            // SAFETY: the place lies in the slab, is aligned (a slab begins at a page), and is
            // only ever used as atomic words.
            let place = unsafe {
                let place = self.memory.as_mut_ptr().add(slot * SLOT_NBYTES).cast::<u64>();
                AtomicU64::from_ptr(place.add(i))
            };
            place.store(word, Ordering::Release);
        }
    }

    pub fn segment(&self) -> Segment {
        self.memory.segment()
    }
}

/// The reader's side: all slots that were ever written to.
pub fn read_board(segment: &Segment) -> Vec<Words> {
    let start = segment.as_slice().as_ptr();
    if !start.addr().is_multiple_of(SLOT_NBYTES) {
        return Vec::new();
    }
    let read = |at: usize| {
        let word = |i: usize| {
            // SAFETY: the place lies in the segment, which is kept meanwhile, and is aligned; the
            // writer uses it as an atomic word as well, and loads never write.
            let place = unsafe { &*start.add(at * SLOT_NBYTES).cast::<AtomicU64>().add(i) };
            place.load(Ordering::Acquire)
        };
        [word(0), word(1), word(2)]
    };
    let slots = (0..segment.len() / SLOT_NBYTES).map(read);
    slots.filter(|words| *words != [0; 3]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ArenaOptions;

    #[test]
    fn what_is_written_to_a_slot_is_read_from_the_segment() {
        let board = Board::new(&Arena::new(ArenaOptions::default()), 3).unwrap();
        board.write(1, [7, 8, 9]);
        board.write(1000, [1, 1, 1]);
        assert_eq!(read_board(&board.segment()), [[7, 8, 9]]);
        board.write(1, [0; 3]);
        assert_eq!(read_board(&board.segment()), [[0; 3]; 0]);
    }
}
