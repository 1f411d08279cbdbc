//! Which ranges of an arena are free. Knows offsets and lengths, and no memory.

use std::collections::{BTreeMap, BTreeSet};

/// The number of a region within its arena.
pub(crate) type RegionIndex = u64;

/// Free ranges of all regions of an arena, found by size when asked for and by neighbor when given
/// back.
#[derive(Default, Debug)]
pub(crate) struct FreeRanges {
    by_size: BTreeSet<(usize, RegionIndex, usize)>,
    by_offset: BTreeMap<(RegionIndex, usize), usize>,
}

impl FreeRanges {
    /// Takes `len` bytes from the smallest range that has them; the rest of it stays free.
    pub(crate) fn take(&mut self, len: usize) -> Option<(RegionIndex, usize)> {
        let &(found, region, offset) = self.by_size.range((len, 0, 0)..).next()?;
        self.remove(region, offset, found);
        if found > len {
            self.insert(region, offset + len, found - len);
        }
        Some((region, offset))
    }

    /// Gives a range back, joined with the free ranges that touch it.
    pub(crate) fn give(&mut self, region: RegionIndex, mut offset: usize, mut len: usize) {
        let before = self.by_offset.range((region, 0)..(region, offset)).next_back();
        if let Some((&(_, start), &n)) = before {
            assert!(start + n <= offset, "a range was given back twice");
            if start + n == offset {
                self.remove(region, start, n);
                (offset, len) = (start, len + n);
            }
        }
        if let Some(&n) = self.by_offset.get(&(region, offset + len)) {
            self.remove(region, offset + len, n);
            len += n;
        }
        self.insert(region, offset, len);
    }

    /// Takes the free range that ends at `end`, if there is one.
    pub(crate) fn take_ending_at(&mut self, region: RegionIndex, end: usize) -> Option<usize> {
        let (&(_, start), &n) = self.by_offset.range((region, 0)..(region, end)).next_back()?;
        if start + n != end {
            return None;
        }
        self.remove(region, start, n);
        Some(start)
    }

    pub(crate) fn forget_region(&mut self, region: RegionIndex) {
        let found: Vec<_> = self
            .by_offset
            .range((region, 0)..=(region, usize::MAX))
            .map(|(k, n)| (k.1, *n))
            .collect();
        for (offset, len) in found {
            self.remove(region, offset, len);
        }
    }

    fn insert(&mut self, region: RegionIndex, offset: usize, len: usize) {
        self.by_offset.insert((region, offset), len);
        self.by_size.insert((len, region, offset));
    }

    fn remove(&mut self, region: RegionIndex, offset: usize, len: usize) {
        self.by_offset.remove(&(region, offset));
        self.by_size.remove(&(len, region, offset));
    }
}
