//! Memory that an object lives in while others may already read it.

use crate::arena::Slab;
use crate::segment::Segment;

/// A range that its owner goes on writing to, and that can be lent out as it is.
///
/// A slab is exclusive and a segment never changes; this is both at once, for objects whose memory
/// is written by code that knows no such rules. Who lends it out answers for the object being
/// finished: a reader that maps it sees what is written later.
pub struct SharedSlab {
    segment: Segment,
}

impl Slab {
    pub fn share(self) -> SharedSlab {
        SharedSlab { segment: self.seal() }
    }
}

impl SharedSlab {
    /// The first byte. Valid for reads and writes of `len` bytes while this or a segment of it
    /// is there.
    pub fn as_mut_ptr(&self) -> *mut u8 {
        self.segment.start()
    }

    pub fn len(&self) -> usize {
        self.segment.len()
    }

    pub fn is_empty(&self) -> bool {
        self.segment.is_empty()
    }

    /// The whole range, for readers. The range is used again only when they are done as well.
    pub fn segment(&self) -> Segment {
        self.segment.clone()
    }
}
