//! Regions: memfds mapped as a whole, by the process that owns them and by the guests that were
//! sent their descriptor.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use serde::{Deserialize, Serialize};

use crate::mapping::{Access, Harmless, Mapping};
use crate::segment::{Lease, Segment};
use crate::{StoreError, random_bytes};

/// Names a region within this process; chosen at random, so that ids of two processes do not
/// collide by accident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RegionId(pub u64);

impl RegionId {
    pub fn random() -> Result<Self, StoreError> {
        Ok(Self(u64::from_ne_bytes(random_bytes()?)))
    }
}

/// Told when a region is gone from this process, so that guests can be told to unmap it and its
/// memory returns to the kernel.
pub trait RegionWatcher: Send + Sync {
    fn region_ended(&self, id: RegionId);
}

/// What owned and foreign regions share: a descriptor and a mapping.
pub(crate) struct RegionMemory {
    id: RegionId,
    fd: OwnedFd,
    mapping: Mapping,
    watchers: Mutex<Vec<Weak<dyn RegionWatcher>>>,
}

impl RegionMemory {
    /// A new region of this process. Its pages are not reserved yet: see `reserve`.
    pub(crate) fn create(nbytes: usize) -> Result<Arc<Self>, StoreError> {
        let out_of_memory = |errno: rustix::io::Errno| match errno {
            rustix::io::Errno::NOMEM | rustix::io::Errno::NOSPC => {
                StoreError::OutOfMemory { wanted_nbytes: nbytes, source: errno.into() }
            }
            errno => StoreError::system("cannot create a shared memory region", errno),
        };
        let fd = create_memfd().map_err(out_of_memory)?;
        rustix::fs::ftruncate(&fd, nbytes as u64).map_err(out_of_memory)?;
        let mapping = Mapping::new(&fd, 0, nbytes, Access::SharedWrite).map_err(out_of_memory)?;
        mapping.advise(0, nbytes, Harmless::HugePages);
        // From here on this mapping is the only way to write: guests can map the region read-only
        // or private, nothing else.
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&fd, seals)
            .map_err(|errno| StoreError::system("cannot seal a shared memory region", errno))?;
        Ok(Arc::new(Self { id: RegionId::random()?, fd, mapping, watchers: Mutex::default() }))
    }

    /// Gets the pages of a range from the kernel, so that writing to it later cannot fail.
    pub(crate) fn reserve(&self, offset: usize, len: usize) -> Result<(), StoreError> {
        loop {
            match rustix::fs::fallocate(
                &self.fd,
                FallocateFlags::empty(),
                offset as u64,
                len as u64,
            ) {
                Ok(()) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => {
                    return Err(StoreError::OutOfMemory {
                        wanted_nbytes: len,
                        source: errno.into(),
                    });
                }
            }
        }
        self.mapping.advise(offset, len, Harmless::PopulateWrite);
        Ok(())
    }

    pub(crate) fn id(&self) -> RegionId {
        self.id
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(crate) fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    pub(crate) fn nbytes(&self) -> usize {
        self.mapping.len()
    }

    pub(crate) fn watch(&self, watcher: Weak<dyn RegionWatcher>) {
        let mut watchers = self.watchers.lock();
        watchers.retain(|watcher| watcher.strong_count() > 0);
        watchers.push(watcher);
    }
}

impl Drop for RegionMemory {
    fn drop(&mut self) {
        for watcher in self.watchers.get_mut().drain(..) {
            if let Some(watcher) = watcher.upgrade() {
                watcher.region_ended(self.id);
            }
        }
    }
}

fn create_memfd() -> rustix::io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match rustix::fs::memfd_create("rasker-arena", flags | MemfdFlags::NOEXEC_SEAL) {
        // Kernels before 6.3 do not know the flag that forbids running the memory as a program.
        Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create("rasker-arena", flags),
        result => result,
    }
}

/// A region of another process, received as a file descriptor and mapped read-only.
///
/// Nothing its owner says is believed: that it cannot shrink (which would turn a read into a
/// signal) and how large it is are asked of the kernel.
pub struct Region {
    memory: Arc<RegionMemory>,
}

impl Region {
    pub fn import(id: RegionId, fd: OwnedFd) -> Result<Arc<Self>, StoreError> {
        let refused = |reason: String| StoreError::RegionRefused { reason };
        let seals = rustix::fs::fcntl_get_seals(&fd)
            .map_err(|errno| refused(format!("the descriptor is not a memfd ({errno})")))?;
        if !seals.contains(SealFlags::SHRINK) {
            return Err(refused("the descriptor is not sealed against shrinking".into()));
        }
        let stat = rustix::fs::fstat(&fd)
            .map_err(|errno| refused(format!("cannot ask its size ({errno})")))?;
        let nbytes = usize::try_from(stat.st_size).unwrap_or(0);
        if nbytes == 0 {
            return Err(refused(format!("its size is {}", stat.st_size)));
        }
        let mapping = Mapping::new(&fd, 0, nbytes, Access::SharedRead)
            .map_err(|errno| refused(format!("cannot map its {nbytes} bytes ({errno})")))?;
        let memory = RegionMemory { id, fd, mapping, watchers: Mutex::default() };
        Ok(Arc::new(Self { memory: Arc::new(memory) }))
    }

    pub fn id(&self) -> RegionId {
        self.memory.id()
    }

    pub fn nbytes(&self) -> usize {
        self.memory.nbytes()
    }

    /// A segment of this region. `on_release` runs when its last clone is dropped, also on a
    /// refusal.
    pub fn segment(
        self: &Arc<Self>,
        offset: u64,
        len: u64,
        on_release: Box<dyn FnOnce() + Send + Sync>,
    ) -> Result<Segment, StoreError> {
        let lease = Lease::foreign(on_release);
        let region_nbytes = self.nbytes() as u64;
        if offset > region_nbytes || len > region_nbytes - offset {
            return Err(StoreError::OutOfBounds { offset, len, region_nbytes });
        }
        Ok(Segment::new(self.memory.clone(), offset as usize, len as usize, lease))
    }
}
