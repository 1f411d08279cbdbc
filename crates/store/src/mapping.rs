//! The one place that maps memory: a range of addresses that is unmapped when dropped.

use std::os::fd::AsFd;
use std::ptr::NonNull;

use rustix::mm::{Advice, MapFlags, ProtFlags};

/// How a file is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Shared with every other map of the file, and writable: the owner of a region.
    SharedWrite,
    /// Shared with every other map of the file, and read-only: a guest.
    SharedRead,
    /// Writable, and seen by nobody else: a page is copied when it is first written to.
    Private,
}

/// A mapped range of a file. Never empty.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping is a range of addresses that any thread may use; what is read or written
// through it is the concern of the types that lend out slices of it (Slab: exclusive, Segment:
// immutable).
unsafe impl Send for Mapping {}
// SAFETY: as above; the methods that take `&self` change nothing.
unsafe impl Sync for Mapping {}

impl Mapping {
    pub(crate) fn new(
        fd: impl AsFd,
        offset: u64,
        len: usize,
        access: Access,
    ) -> rustix::io::Result<Self> {
        let (protection, flags) = match access {
            Access::SharedWrite => (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED),
            Access::SharedRead => (ProtFlags::READ, MapFlags::SHARED),
            Access::Private => (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE),
        };
        // SAFETY: with a null hint and without MAP_FIXED the kernel chooses addresses that nothing
        // uses.
        let start =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, protection, flags, fd, offset)? };
        match NonNull::new(start.cast()) {
            Some(start) => Ok(Self { start, len }),
            None => Err(rustix::io::Errno::NOMEM),
        }
    }

    /// Puts memory of this process alone in the place of the mapping, with the same first
    /// `n_kept` bytes and zeros after them. False if the kernel has none to give.
    pub(crate) fn become_private(&self, n_kept: usize) -> bool {
        let (protection, flags) =
            (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::NORESERVE);
        // SAFETY: the new range is at addresses that nothing uses; it is as long as this one, so
        // that the copy stays within both, and `mremap` puts it exactly in this one's place. Who
        // holds pointers into the mapping finds the same bytes there.
        unsafe {
            let Ok(copy) =
                rustix::mm::mmap_anonymous(std::ptr::null_mut(), self.len, protection, flags)
            else {
                return false;
            };
            std::ptr::copy_nonoverlapping(self.at(0), copy.cast(), n_kept.min(self.len));
            let flags = rustix::mm::MremapFlags::MAYMOVE;
            rustix::mm::mremap_fixed(copy, self.len, self.len, flags, self.at(0).cast()).is_ok()
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The address `offset` bytes into the mapping.
    pub(crate) fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset <= self.len, "offset {offset} is beyond a mapping of {} bytes", self.len);
        // SAFETY: the offset was just checked to lie within the mapping, or at its end.
        unsafe { self.start.as_ptr().add(offset) }
    }

    /// Advice changes how fast pages arrive and never what they hold, so that failing to give it is
    /// no error.
    pub(crate) fn advise(&self, offset: usize, len: usize, advice: Harmless) {
        assert!(offset <= self.len && len <= self.len - offset, "advice beyond a mapping");
        let advice = match advice {
            Harmless::HugePages => Advice::LinuxHugepage,
            Harmless::PopulateRead => Advice::LinuxPopulateRead,
            Harmless::PopulateWrite => Advice::LinuxPopulateWrite,
        };
        // SAFETY: the range lies within this mapping, and each kind of advice leaves the content as
        // it is.
        let _ = unsafe { rustix::mm::madvise(self.at(offset).cast(), len, advice) };
    }
}

/// The kinds of advice that leave content as it is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Harmless {
    HugePages,
    PopulateRead,
    PopulateWrite,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `new`, is unmapped only here, and every slice of it
        // borrows from a value that holds this mapping.
        let result = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
        debug_assert!(result.is_ok(), "munmap of our own mapping failed");
    }
}
