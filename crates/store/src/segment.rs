//! Sealed bytes, and the leases that keep their range from being used again.

use std::fmt;
use std::ops::Deref;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, OnceLock, Weak};

use serde::{Deserialize, Serialize};

use crate::arena::OwnRange;
use crate::mapping::{Access, Harmless, Mapping};
use crate::region::{RegionId, RegionMemory, RegionWatcher};
use crate::{StoreError, checksum};

/// Private maps up to this size have all their pages looked up at once; for larger ones a reader
/// may not need them all.
const POPULATE_NBYTES_MAX: usize = 16 << 20;

/// Where a segment lies: what another process needs besides the region's file descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Descriptor {
    pub region: RegionId,
    pub offset: u64,
    pub len: u64,
}

/// Sealed, immutable bytes in some region. A clone is another lease; when the last one is dropped,
/// the range returns to its owner: to the arena if it is ours, else through the `on_release` that
/// was given when it was imported.
#[derive(Clone)]
pub struct Segment {
    sealed: Arc<Sealed>,
    /// A part of it, counted from its begin.
    part: Option<(usize, usize)>,
}

struct Sealed {
    memory: Arc<RegionMemory>,
    offset: usize,
    len: usize,
    checksum: OnceLock<u64>,
    _lease: Lease,
}

/// What happens when nobody needs a range any more.
pub(crate) struct Lease {
    _own: Option<OwnRange>,
    on_release: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl Lease {
    pub(crate) fn own(range: OwnRange) -> Self {
        Self { _own: Some(range), on_release: None }
    }

    pub(crate) fn foreign(on_release: Box<dyn FnOnce() + Send + Sync>) -> Self {
        Self { _own: None, on_release: Some(on_release) }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(on_release) = self.on_release.take() {
            on_release();
        }
    }
}

impl Segment {
    pub(crate) fn new(memory: Arc<RegionMemory>, offset: usize, len: usize, lease: Lease) -> Self {
        let sealed = Sealed { memory, offset, len, checksum: OnceLock::new(), _lease: lease };
        Self { sealed: Arc::new(sealed), part: None }
    }

    /// Some of these bytes, with a lease on all of them.
    pub fn slice(&self, range: std::ops::Range<usize>) -> Segment {
        assert!(range.start <= range.end && range.end <= self.len(), "a slice within the segment");
        let start = self.part.map_or(0, |(start, _)| start) + range.start;
        Segment { sealed: self.sealed.clone(), part: Some((start, range.len())) }
    }

    /// Where it begins in its region, and how long it is.
    fn place(&self) -> (usize, usize) {
        let Sealed { offset, len, .. } = &*self.sealed;
        self.part.map_or((*offset, *len), |(start, len)| (offset + start, len))
    }

    pub fn as_slice(&self) -> &[u8] {
        let (offset, len) = self.place();
        let memory = &self.sealed.memory;
        // SAFETY: the range lies within the mapping, which `memory` keeps. In an own region nobody
        // writes to a sealed range while a lease is out. A foreign region cannot shrink, and its
        // owner, which is of our own making and holds a lease for us, does not write to a sealed
        // range; an owner that breaks this rule can make us read other bytes, which readers must
        // take as untrusted anyway, but nothing outside the range.
        unsafe { std::slice::from_raw_parts(memory.mapping().at(offset), len) }
    }

    /// The first byte, for the owner of a shared slab.
    pub(crate) fn start(&self) -> *mut u8 {
        self.sealed.memory.mapping().at(self.place().0)
    }

    pub fn len(&self) -> usize {
        self.place().1
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn descriptor(&self) -> Descriptor {
        let (offset, len) = self.place();
        Descriptor { region: self.sealed.memory.id(), offset: offset as u64, len: len as u64 }
    }

    /// The region's file descriptor, to be sent to a process that has not seen this region yet.
    pub fn region_fd(&self) -> BorrowedFd<'_> {
        self.sealed.memory.fd()
    }

    /// Asks to be told when the region of this segment is gone.
    pub fn watch_region(&self, watcher: Weak<dyn RegionWatcher>) {
        self.sealed.memory.watch(watcher);
    }

    /// The checksum of the bytes, computed when first asked for.
    pub fn checksum(&self) -> u64 {
        match self.part {
            Some(_) => checksum(self.as_slice()),
            None => *self.sealed.checksum.get_or_init(|| checksum(self.as_slice())),
        }
    }

    /// Maps just this range as memory that can be written to without anybody else seeing it. It
    /// holds a lease.
    pub fn map_private(&self) -> Result<PrivateMap, StoreError> {
        let (offset, len) = self.place();
        let memory = &self.sealed.memory;
        // A segment of another process need not start at a page.
        let skipped = offset % rustix::param::page_size();
        let mapping = Mapping::new(
            memory.fd(),
            (offset - skipped) as u64,
            (len + skipped).max(1),
            Access::Private,
        )
        .map_err(|errno| StoreError::system("cannot map a segment", errno))?;
        if len <= POPULATE_NBYTES_MAX {
            mapping.advise(0, mapping.len(), Harmless::PopulateRead);
        }
        Ok(PrivateMap { mapping, skipped, len, segment: self.clone() })
    }
}

impl Deref for Segment {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl AsRef<[u8]> for Segment {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Segment").field(&self.descriptor()).finish()
    }
}

/// A private, writable map of one segment. Writing copies the page written to; the segment stays as
/// it is.
pub struct PrivateMap {
    mapping: Mapping,
    skipped: usize,
    len: usize,
    segment: Segment,
}

impl PrivateMap {
    /// The first byte. Valid for reads and writes of `len` bytes until the map is dropped; who
    /// writes through it answers for there being no other use of those bytes at that time.
    pub fn as_mut_ptr(&self) -> *mut u8 {
        self.mapping.at(self.skipped)
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn segment(&self) -> &Segment {
        &self.segment
    }

    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the mapping holds `len` bytes from `skipped` on; writers through `as_mut_ptr`
        // answer for themselves.
        unsafe { std::slice::from_raw_parts(self.as_mut_ptr(), self.len) }
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` makes this the only slice of these bytes; they are
        // private to this mapping.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr(), self.len) }
    }
}
