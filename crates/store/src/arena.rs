//! The memory that this process allocates values from: regions, recycled range by range.
//!
//! Warm ranges (pages that the kernel has already given) are used first, then the untouched tail of
//! a region, then a new region. Regions grow with the arena, so that their number (each costs a
//! descriptor here and in every guest) stays small.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::StoreError;
use crate::ranges::{FreeRanges, RegionIndex};
use crate::region::RegionMemory;
use crate::segment::{Lease, Segment};

/// Pages are taken from the kernel in steps of this size at least, so that small values do not pay
/// a system call each.
const RESERVE_STEP_NBYTES: usize = 2 << 20;
/// No region made for growth's sake is larger than this.
const REGION_NBYTES_MAX: usize = 4 << 30;

#[derive(Clone, Debug)]
pub struct ArenaOptions {
    /// The address space of the first regions; their memory is reserved as it is used.
    pub region_nbytes: usize,
    /// The most memory that is reserved at a time.
    pub limit_nbytes: usize,
    /// How much memory of wholly free regions is kept for the next values without being asked.
    pub warm_nbytes: usize,
}

impl Default for ArenaOptions {
    fn default() -> Self {
        Self { region_nbytes: 64 << 20, limit_nbytes: usize::MAX, warm_nbytes: 512 << 20 }
    }
}

/// Memory regions that this process allocates from. Cloning gives another handle on the same arena.
#[derive(Clone)]
pub struct Arena {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    options: ArenaOptions,
    /// `warm_nbytes` of the options, until it was set anew.
    warm_nbytes: AtomicUsize,
    /// Likewise.
    region_nbytes: AtomicUsize,
    limit_nbytes: AtomicUsize,
    /// What was asked for last, in whole pages.
    latest_nbytes: AtomicUsize,
    page_nbytes: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    regions: BTreeMap<RegionIndex, OwnRegion>,
    free: FreeRanges,
    next_index: RegionIndex,
    in_use_nbytes: usize,
    reserved_nbytes: usize,
    /// Reserved memory of regions in which nothing is in use.
    idle_nbytes: usize,
}

struct OwnRegion {
    memory: Arc<RegionMemory>,
    /// The pages below this offset are reserved, or being reserved by the thread that claimed them.
    reserved_nbytes: usize,
    in_use_nbytes: usize,
}

/// A range that an allocation has claimed.
struct Claim {
    index: RegionIndex,
    memory: Arc<RegionMemory>,
    offset: usize,
    len: usize,
    /// The part at the end of the range whose pages are still to be reserved.
    unreserved_nbytes: usize,
}

impl Arena {
    pub fn new(options: ArenaOptions) -> Self {
        let page_nbytes = rustix::param::page_size();
        let region_nbytes =
            options.region_nbytes.max(RESERVE_STEP_NBYTES).next_multiple_of(page_nbytes);
        let options = ArenaOptions { region_nbytes, ..options };
        let shared = Shared {
            warm_nbytes: AtomicUsize::new(options.warm_nbytes),
            region_nbytes: AtomicUsize::new(options.region_nbytes),
            limit_nbytes: AtomicUsize::new(options.limit_nbytes),
            latest_nbytes: AtomicUsize::new(0),
            options,
            page_nbytes,
            state: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Fits the arena to a process that may use so much memory: no more is taken, only a small part
    /// of it is kept for the next values, and regions are small, so that they become free as a
    /// whole.
    pub fn fit(&self, memory_limit_nbytes: u64) {
        let limit = usize::try_from(memory_limit_nbytes).unwrap_or(usize::MAX);
        let warm_nbytes = (limit / 8).min(self.shared.options.warm_nbytes);
        let most = self.shared.options.region_nbytes;
        let region_nbytes = (limit / 64).clamp(RESERVE_STEP_NBYTES, most.max(RESERVE_STEP_NBYTES));
        self.shared.warm_nbytes.store(warm_nbytes, Ordering::Relaxed);
        self.shared.region_nbytes.store(region_nbytes, Ordering::Relaxed);
        let limit_nbytes = limit.min(self.shared.options.limit_nbytes);
        self.shared.limit_nbytes.store(limit_nbytes, Ordering::Relaxed);
        self.shared.trim(warm_nbytes);
    }

    /// Exclusive memory for a value of `nbytes` bytes, aligned to pages. What it holds is left from
    /// earlier values or zero.
    pub fn allocate(&self, nbytes: usize) -> Result<Slab, StoreError> {
        let claim = self.shared.claim(nbytes)?;
        if claim.unreserved_nbytes > 0 {
            // Outside the lock: the kernel zeroes these pages, which takes a while.
            let start = claim.offset + claim.len - claim.unreserved_nbytes;
            if let Err(error) = claim.memory.reserve(start, claim.unreserved_nbytes) {
                self.shared.abandon(&claim);
                return Err(error);
            }
        }
        // What a step reserved beyond the wish goes straight to the free ranges.
        let len = self.shared.range_nbytes(nbytes)?;
        if claim.len > len {
            self.shared.release(claim.index, claim.offset + len, claim.len - len);
        }
        Ok(Slab {
            memory: claim.memory.clone(),
            offset: claim.offset,
            len: nbytes,
            range: OwnRange {
                arena: self.shared.clone(),
                index: claim.index,
                offset: claim.offset,
                len,
            },
        })
    }

    /// Memory that slabs and segments occupy, in whole pages.
    pub fn nbytes_in_use(&self) -> usize {
        self.shared.state.lock().in_use_nbytes
    }

    /// Memory taken from the kernel, in use or warm.
    pub fn nbytes_reserved(&self) -> usize {
        self.shared.state.lock().reserved_nbytes
    }

    /// Memory taken from the kernel that nothing is in: the next slabs cost no more.
    pub fn nbytes_idle(&self) -> usize {
        let state = self.shared.state.lock();
        state.reserved_nbytes - state.in_use_nbytes
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Keeps so much memory of wholly free regions for the next values, where `fit` chose another
    /// amount.
    pub fn keep_warm(&self, nbytes: usize) {
        self.shared.warm_nbytes.store(nbytes, Ordering::Relaxed);
        self.shared.trim(nbytes);
    }

    /// Returns wholly free regions to the kernel, all but one region's worth, or but what the
    /// latest value took if that is little beside what may be kept: the next is likely of its size.
    pub fn trim(&self) {
        let warm_nbytes = self.shared.warm_nbytes.load(Ordering::Relaxed);
        let latest = self.shared.latest_nbytes.load(Ordering::Relaxed);
        let latest = if latest <= warm_nbytes / 2 { latest } else { 0 };
        let keep = self.shared.region_nbytes.load(Ordering::Relaxed).max(latest);
        self.shared.trim(keep.min(warm_nbytes));
    }
}

/// For `fork`.
impl Shared {
    /// Locks the state until it is unlocked by force.
    pub(crate) fn lock_over_fork(&self) {
        std::mem::forget(self.state.lock());
    }

    /// # Safety
    ///
    /// This thread has called `lock_over_fork`.
    pub(crate) unsafe fn unlock_after_fork(&self, in_child: bool) {
        // SAFETY: the caller's word.
        unsafe { crate::fork::unlock(&self.state, in_child) };
    }

    /// Puts a copy of its own in the place of each region; false if there is too little memory.
    ///
    /// # Safety
    ///
    /// This thread has called `lock_over_fork` and is the only one of its process.
    pub(crate) unsafe fn copy_regions(&self) -> bool {
        // SAFETY: the caller's word.
        let state = unsafe { &*self.state.data_ptr() };
        let mut regions = state.regions.values();
        regions.all(|region| region.memory.mapping().become_private(region.reserved_nbytes))
    }
}

impl Shared {
    fn range_nbytes(&self, nbytes: usize) -> Result<usize, StoreError> {
        let rounded = nbytes.max(1).checked_next_multiple_of(self.page_nbytes);
        rounded
            .filter(|&n| n <= isize::MAX as usize)
            .ok_or_else(|| self.limit_reached(nbytes, &self.state.lock()))
    }

    fn limit_reached(&self, wanted_nbytes: usize, state: &State) -> StoreError {
        StoreError::LimitReached {
            wanted_nbytes,
            reserved_nbytes: state.reserved_nbytes,
            in_use_nbytes: state.in_use_nbytes,
            limit_nbytes: self.limit_nbytes.load(Ordering::Relaxed),
        }
    }

    fn claim(&self, nbytes: usize) -> Result<Claim, StoreError> {
        let len = self.range_nbytes(nbytes)?;
        self.latest_nbytes.store(len, Ordering::Relaxed);
        if let Some(claim) = self.claim_warm(len, &mut self.state.lock()) {
            return Ok(claim);
        }
        self.make_room(nbytes, len)?;
        {
            let mut state = self.state.lock();
            // Another thread may have given ranges back meanwhile.
            if let Some(claim) = self.claim_warm(len, &mut state) {
                return Ok(claim);
            }
            if let Some(claim) = self.claim_tail(len, &mut state) {
                return Ok(claim);
            }
        }
        self.add_region(len)?;
        let claim = self.claim_tail(len, &mut self.state.lock());
        // Only other threads that take the whole new region at this very moment can make this fail.
        claim.ok_or_else(|| self.limit_reached(nbytes, &self.state.lock()))
    }

    /// Sees to it that reserving `len` more bytes keeps within the limit, if need be by returning
    /// idle regions.
    fn make_room(&self, nbytes: usize, len: usize) -> Result<(), StoreError> {
        let limit = self.limit_nbytes.load(Ordering::Relaxed);
        if self.state.lock().reserved_nbytes.saturating_add(len) <= limit {
            return Ok(());
        }
        self.trim(0);
        let state = self.state.lock();
        if state.reserved_nbytes.saturating_add(len) > limit {
            return Err(self.limit_reached(nbytes, &state));
        }
        Ok(())
    }

    fn claim_warm(&self, len: usize, state: &mut State) -> Option<Claim> {
        let (index, offset) = state.free.take(len)?;
        let memory = state.use_range(index, len);
        Some(Claim { index, memory, offset, len, unreserved_nbytes: 0 })
    }

    /// Claims memory from the part of a region that was never used, together with a free range
    /// right before it.
    fn claim_tail(&self, len: usize, state: &mut State) -> Option<Claim> {
        let fits = |region: &OwnRegion| region.memory.nbytes() - region.reserved_nbytes >= len;
        let (&index, region) = state.regions.iter().find(|(_, region)| fits(region))?;
        let tail = region.reserved_nbytes;
        let tail_room = region.memory.nbytes() - tail;
        let limit = self.limit_nbytes.load(Ordering::Relaxed);
        let limit_room = limit.saturating_sub(state.reserved_nbytes);
        let offset = state.free.take_ending_at(index, tail).unwrap_or(tail);
        // A free range as long as `len` would have been claimed warm, but another thread may just
        // have given one back.
        let missing = len.saturating_sub(tail - offset);
        let step = missing
            .max(RESERVE_STEP_NBYTES)
            .min(tail_room)
            .min(limit_room - limit_room % self.page_nbytes);
        let unreserved_nbytes = step.max(missing);
        let len = tail - offset + unreserved_nbytes;
        let memory = state.use_range(index, len);
        state.reserved_nbytes += unreserved_nbytes;
        state.regions.get_mut(&index)?.reserved_nbytes += unreserved_nbytes;
        Some(Claim { index, memory, offset, len, unreserved_nbytes })
    }

    /// Undoes a claim whose pages the kernel refused.
    fn abandon(&self, claim: &Claim) {
        let mut state = self.state.lock();
        let end = claim.offset + claim.len;
        let Some(region) = state.regions.get_mut(&claim.index) else {
            return;
        };
        let warm_nbytes = claim.len - claim.unreserved_nbytes;
        // If another thread has claimed what follows, the hole stays until the whole region is
        // returned.
        if region.reserved_nbytes == end {
            region.reserved_nbytes -= claim.unreserved_nbytes;
            state.reserved_nbytes -= claim.unreserved_nbytes;
        }
        if warm_nbytes > 0 {
            state.free.give(claim.index, claim.offset, warm_nbytes);
        }
        state.unuse_range(claim.index, claim.len);
    }

    fn add_region(&self, len: usize) -> Result<(), StoreError> {
        let grown = (self.state.lock().reserved_nbytes / 16).min(REGION_NBYTES_MAX);
        let smallest = self.region_nbytes.load(Ordering::Relaxed);
        let nbytes = smallest.max(grown).max(len).next_multiple_of(self.page_nbytes);
        let memory = RegionMemory::create(nbytes)?;
        let mut state = self.state.lock();
        let index = state.next_index;
        state.next_index += 1;
        state.regions.insert(index, OwnRegion { memory, reserved_nbytes: 0, in_use_nbytes: 0 });
        Ok(())
    }

    fn release(&self, index: RegionIndex, offset: usize, len: usize) {
        let warm_nbytes = self.warm_nbytes.load(Ordering::Relaxed);
        let has_too_much_idle = {
            let mut state = self.state.lock();
            state.free.give(index, offset, len);
            state.unuse_range(index, len);
            state.idle_nbytes > warm_nbytes
        };
        if has_too_much_idle {
            self.trim(warm_nbytes);
        }
    }

    /// Returns idle regions, the largest first, until at most `keep_nbytes` of idle memory are
    /// left.
    fn trim(&self, keep_nbytes: usize) {
        let mut returned = Vec::new();
        {
            let mut state = self.state.lock();
            while state.idle_nbytes > keep_nbytes {
                let idle = state.regions.iter().filter(|(_, region)| region.in_use_nbytes == 0);
                let Some((&index, _)) = idle.max_by_key(|(_, region)| region.reserved_nbytes)
                else {
                    break;
                };
                let Some(region) = state.regions.remove(&index) else {
                    break;
                };
                state.free.forget_region(index);
                state.idle_nbytes -= region.reserved_nbytes;
                state.reserved_nbytes -= region.reserved_nbytes;
                returned.push(region.memory);
            }
        }
        // Unmapping takes a while and tells watchers, which may take other locks: only after ours
        // is open again.
        drop(returned);
    }
}

impl State {
    /// Accounts for a range that goes into use.
    fn use_range(&mut self, index: RegionIndex, len: usize) -> Arc<RegionMemory> {
        let region = self.regions.get_mut(&index).expect("free ranges lie in regions of the arena");
        if region.in_use_nbytes == 0 {
            self.idle_nbytes -= region.reserved_nbytes;
        }
        region.in_use_nbytes += len;
        self.in_use_nbytes += len;
        region.memory.clone()
    }

    /// Accounts for a range that goes out of use.
    fn unuse_range(&mut self, index: RegionIndex, len: usize) {
        let region = self.regions.get_mut(&index).expect("a region in use stays in the arena");
        region.in_use_nbytes -= len;
        self.in_use_nbytes -= len;
        if region.in_use_nbytes == 0 {
            self.idle_nbytes += region.reserved_nbytes;
        }
    }
}

/// A range of an arena that is in use; given back when dropped.
pub(crate) struct OwnRange {
    arena: Arc<Shared>,
    index: RegionIndex,
    offset: usize,
    len: usize,
}

impl Drop for OwnRange {
    fn drop(&mut self) {
        self.arena.release(self.index, self.offset, self.len);
    }
}

/// An exclusive, writable range. Dropping it gives the range back; sealing it makes it a segment.
pub struct Slab {
    memory: Arc<RegionMemory>,
    offset: usize,
    len: usize,
    range: OwnRange,
}

impl Slab {
    /// Makes the slab shorter and gives the pages behind its new end back; for values whose size
    /// was only estimated.
    pub fn truncate(&mut self, len: usize) {
        assert!(len <= self.len, "cannot truncate a slab of {} bytes to {len}", self.len);
        self.len = len;
        let kept = len.max(1).next_multiple_of(self.range.arena.page_nbytes);
        let freed = self.range.len - kept;
        if freed > 0 {
            self.range.len = kept;
            self.range.arena.release(self.range.index, self.offset + kept, freed);
        }
    }

    /// Ends writing: from here on the bytes can be shared and never change.
    pub fn seal(self) -> Segment {
        Segment::new(self.memory, self.offset, self.len, Lease::own(self.range))
    }
}

impl Deref for Slab {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the range lies within the mapping, which `memory` keeps; all its pages are
        // reserved; the arena lends no range twice, and no guest can write to it, so that only
        // `&mut self` changes these bytes.
        unsafe { std::slice::from_raw_parts(self.memory.mapping().at(self.offset), self.len) }
    }
}

impl DerefMut for Slab {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; the mapping of an owner is writable, and `&mut self` makes this
        // slice the only one.
        unsafe { std::slice::from_raw_parts_mut(self.memory.mapping().at(self.offset), self.len) }
    }
}
