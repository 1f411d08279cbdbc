//! What an arena, its slabs and segments promise, seen from outside.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rasker_store::{Arena, ArenaOptions, Region, RegionId, RegionWatcher, Segment, StoreError};
use rustix::fs::{MemfdFlags, SealFlags};

const MIB: usize = 1 << 20;

fn arena() -> Arena {
    Arena::new(ArenaOptions::default())
}

fn segment(arena: &Arena, content: &[u8]) -> Segment {
    let mut slab = arena.allocate(content.len()).unwrap();
    slab.copy_from_slice(content);
    slab.seal()
}

fn import(segment: &Segment) -> Arc<Region> {
    let fd = segment.region_fd().try_clone_to_owned().unwrap();
    Region::import(segment.descriptor().region, fd).unwrap()
}

/// A small generator of numbers: the same ones in each run.
struct Xorshift(u64);

impl Xorshift {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

#[test]
fn a_freed_range_is_used_again_and_is_warm() {
    let arena = arena();
    let first = arena.allocate(8 * MIB).unwrap().seal();
    let place = first.descriptor();
    let reserved = arena.nbytes_reserved();
    drop(first);
    assert_eq!(arena.nbytes_in_use(), 0);
    let faults_before = minor_faults();
    let mut again = arena.allocate(8 * MIB).unwrap();
    again.fill(7);
    let n_faults = minor_faults() - faults_before;
    assert_eq!(again.seal().descriptor(), place);
    assert_eq!(arena.nbytes_reserved(), reserved);
    // 2048 pages were written to; other threads of this test process may fault a few meanwhile.
    assert!(n_faults < 200, "{n_faults} page faults in a range that should be warm");
}

/// Page faults of this thread that the kernel served without a disk.
fn minor_faults() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    after_name.split_whitespace().nth(7).unwrap().parse().unwrap()
}

#[test]
fn a_sealed_segment_outlives_its_arena() {
    let arena = arena();
    let segment = segment(&arena, b"still here");
    drop(arena);
    assert_eq!(segment.as_slice(), b"still here");
}

#[test]
fn a_lease_keeps_the_range_from_being_used_again() {
    let arena = arena();
    let first = segment(&arena, &[1; 5000]);
    let place = first.descriptor();
    let lease = first.clone();
    let map = first.map_private().unwrap();
    drop(first);
    assert_ne!(segment(&arena, &[2; 5000]).descriptor().offset, place.offset);
    drop(lease);
    assert_ne!(segment(&arena, &[3; 5000]).descriptor().offset, place.offset);
    assert_eq!(map.as_slice(), [1; 5000]);
    drop(map);
    assert_eq!(segment(&arena, &[4; 5000]).descriptor().offset, place.offset);
}

#[test]
fn a_private_map_is_writable_and_leaves_the_segment_as_it_is() {
    let arena = arena();
    for nbytes in [1, 5000, 3 * MIB, 20 * MIB] {
        let segment = segment(&arena, &vec![9; nbytes]);
        let mut map = segment.map_private().unwrap();
        map.as_mut_slice().fill(1);
        assert!(segment.as_slice().iter().all(|&byte| byte == 9));
        assert!(map.as_slice().iter().all(|&byte| byte == 1));
        assert_eq!(map.len(), nbytes);
    }
}

#[test]
fn an_empty_value_is_a_segment_too() {
    let arena = arena();
    let segment = segment(&arena, b"");
    assert!(segment.is_empty());
    assert!(segment.map_private().unwrap().is_empty());
    let region = import(&segment);
    assert!(region.segment(segment.descriptor().offset, 0, Box::new(|| ())).unwrap().is_empty());
}

#[test]
fn a_guest_reads_the_same_bytes_and_reports_its_last_release() {
    let arena = arena();
    let segment = segment(&arena, b"shared by two");
    let region = import(&segment);
    let n_released = Arc::new(AtomicUsize::new(0));
    let counter = n_released.clone();
    let place = segment.descriptor();
    let on_release = Box::new(move || {
        counter.fetch_add(1, Ordering::SeqCst);
    });
    let guest = region.segment(place.offset, place.len, on_release).unwrap();
    assert_eq!(guest.as_slice(), b"shared by two");
    assert_eq!(guest.checksum(), segment.checksum());
    assert_ne!(guest.as_slice().as_ptr(), segment.as_slice().as_ptr());
    let map = guest.map_private().unwrap();
    drop(guest.clone());
    drop(guest);
    assert_eq!(n_released.load(Ordering::SeqCst), 0);
    drop(map);
    assert_eq!(n_released.load(Ordering::SeqCst), 1);
}

#[test]
fn a_private_map_of_a_guest_need_not_start_at_a_page() {
    let arena = arena();
    let content: Vec<u8> = (0..10_000).map(|i| (i % 251) as u8).collect();
    let segment = segment(&arena, &content);
    let guest = import(&segment)
        .segment(segment.descriptor().offset + 4099, 3000, Box::new(|| ()))
        .unwrap();
    assert_eq!(guest.map_private().unwrap().as_slice(), &content[4099..7099]);
}

#[test]
fn a_peer_cannot_write_to_a_region() {
    let arena = arena();
    let segment = segment(&arena, b"sealed");
    let fd = segment.region_fd().try_clone_to_owned().unwrap();
    assert!(rustix::io::pwrite(&fd, b"x", segment.descriptor().offset).is_err());
    assert!(rustix::fs::ftruncate(&fd, 0).is_err());
    assert!(rustix::fs::fcntl_add_seals(&fd, SealFlags::WRITE).is_err());
    // Opening it anew gives no more rights either.
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
    if let Ok(mut file) = std::fs::OpenOptions::new().write(true).open(path) {
        assert!(file.write(b"x").is_err());
    }
    assert_eq!(segment.as_slice(), b"sealed");
}

#[test]
fn a_descriptor_that_can_shrink_is_refused() {
    let memfd = |seals: SealFlags, nbytes: u64| -> OwnedFd {
        let fd = rustix::fs::memfd_create("test", MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&fd, nbytes).unwrap();
        rustix::fs::fcntl_add_seals(&fd, seals).unwrap();
        fd
    };
    let refused = |fd: OwnedFd| {
        let result = Region::import(RegionId(1), fd);
        matches!(result, Err(StoreError::RegionRefused { .. }))
    };
    assert!(refused(memfd(SealFlags::empty(), 4096)));
    assert!(refused(memfd(SealFlags::GROW, 4096)));
    assert!(refused(memfd(SealFlags::SHRINK | SealFlags::GROW, 0)));
    assert!(refused(OwnedFd::from(std::fs::File::open("/proc/self/exe").unwrap())));
    assert!(refused(OwnedFd::from(std::os::unix::net::UnixStream::pair().unwrap().0)));
    assert!(!refused(memfd(SealFlags::SHRINK, 4096)));
}

#[test]
fn a_segment_beyond_the_region_is_refused() {
    let arena = arena();
    let segment = segment(&arena, b"x");
    let region = import(&segment);
    let nbytes = region.nbytes() as u64;
    let n_released = Arc::new(AtomicUsize::new(0));
    let wrong = [
        (nbytes, 1),
        (0, nbytes + 1),
        (nbytes + 1, 0),
        (u64::MAX, 1),
        (1, u64::MAX),
        (nbytes - 1, 2),
    ];
    for (offset, len) in wrong {
        let counter = n_released.clone();
        let on_release = Box::new(move || {
            counter.fetch_add(1, Ordering::SeqCst);
        });
        let result = region.segment(offset, len, on_release);
        assert!(matches!(result, Err(StoreError::OutOfBounds { .. })), "{offset} {len}");
    }
    assert_eq!(n_released.load(Ordering::SeqCst), wrong.len());
    assert!(region.segment(nbytes, 0, Box::new(|| ())).is_ok());
    assert!(region.segment(0, nbytes, Box::new(|| ())).is_ok());
}

#[test]
fn an_arena_refuses_more_than_its_limit() {
    let arena = Arena::new(ArenaOptions { limit_nbytes: 10 * MIB, ..ArenaOptions::default() });
    let half = arena.allocate(5 * MIB).unwrap();
    let error = arena.allocate(6 * MIB).err().unwrap();
    assert!(matches!(error, StoreError::LimitReached { .. }), "{error}");
    let rest = arena.allocate(5 * MIB).unwrap();
    assert!(arena.nbytes_reserved() <= 10 * MIB);
    assert!(arena.allocate(1).is_err());
    drop((half, rest));
    // All that is reserved is idle now: it makes room for a value of another size.
    arena.allocate(10 * MIB).unwrap();
    assert!(arena.allocate(usize::MAX).is_err());
}

#[test]
fn idle_regions_return_to_the_kernel_and_watchers_are_told() {
    struct Watcher(AtomicUsize);
    impl RegionWatcher for Watcher {
        fn region_ended(&self, _: RegionId) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let options = ArenaOptions { warm_nbytes: 100 * MIB, ..ArenaOptions::default() };
    let arena = Arena::new(options);
    let watcher = Arc::new(Watcher(AtomicUsize::new(0)));
    let watching: Arc<dyn RegionWatcher> = watcher.clone();
    let segments: Vec<_> = (0..4).map(|_| arena.allocate(70 * MIB).unwrap().seal()).collect();
    for segment in &segments {
        segment.watch_region(Arc::downgrade(&watching));
    }
    assert_eq!(arena.nbytes_reserved(), 280 * MIB);
    drop(segments);
    assert_eq!(arena.nbytes_reserved(), 70 * MIB, "a bounded amount stays warm");
    assert_eq!(watcher.0.load(Ordering::SeqCst), 3);
    assert_eq!(arena.nbytes_idle(), arena.nbytes_reserved());
    arena.trim();
    assert_eq!(arena.nbytes_reserved(), 0);
    assert_eq!(watcher.0.load(Ordering::SeqCst), 4);
    assert_eq!(arena.nbytes_in_use(), 0);
}

#[test]
fn a_truncated_slab_gives_its_end_back() {
    let arena = arena();
    let mut slab = arena.allocate(MIB).unwrap();
    slab[..3].copy_from_slice(b"abc");
    slab.truncate(3);
    assert_eq!(arena.nbytes_in_use(), rustix::param::page_size());
    assert_eq!(slab.seal().as_slice(), b"abc");
    assert_eq!(arena.nbytes_in_use(), 0);
}

#[test]
fn ranges_in_use_never_overlap() {
    let page = rustix::param::page_size();
    for seed in 1..=20 {
        let mut random = Xorshift(0x9e37_79b9_7f4a_7c15u64.wrapping_mul(seed));
        let options =
            ArenaOptions { region_nbytes: 4 * MIB, limit_nbytes: 64 * MIB, warm_nbytes: 8 * MIB };
        let arena = Arena::new(options);
        let mut live: Vec<(Segment, u8)> = Vec::new();
        for step in 0..2000 {
            if random.below(100) < 55 {
                let nbytes = 1 << random.below(23);
                let nbytes = 1 + random.below(nbytes);
                let Ok(mut slab) = arena.allocate(nbytes) else {
                    continue;
                };
                let mark = step as u8;
                // Both ends of each page: an overlap by a page cannot stay unseen.
                slab.chunks_mut(page).for_each(|chunk| {
                    chunk[0] = mark;
                    *chunk.last_mut().unwrap() = mark;
                });
                slab.truncate(nbytes - random.below(nbytes));
                live.push((slab.seal(), mark));
            } else if !live.is_empty() {
                let (segment, mark) = live.swap_remove(random.below(live.len()));
                assert_eq!(segment[0], mark, "seed {seed}, step {step}");
                assert!(
                    segment.chunks(page).all(|chunk| chunk[0] == mark),
                    "seed {seed}, step {step}"
                );
            }
            let expected: usize = live.iter().map(|(s, _)| s.len().next_multiple_of(page)).sum();
            assert_eq!(arena.nbytes_in_use(), expected, "seed {seed}, step {step}");
            assert!(arena.nbytes_reserved() <= 64 * MIB);
        }
        assert!(
            live.iter().all(|(segment, mark)| segment.chunks(page).all(|chunk| chunk[0] == *mark))
        );
        live.clear();
        arena.trim();
        assert!(arena.nbytes_reserved() <= 4 * MIB);
    }
}

#[test]
fn threads_share_an_arena() {
    let arena = Arena::new(ArenaOptions {
        region_nbytes: 4 * MIB,
        warm_nbytes: MIB,
        ..ArenaOptions::default()
    });
    std::thread::scope(|scope| {
        for mark in 1..=4u8 {
            let arena = arena.clone();
            scope.spawn(move || {
                let mut random = Xorshift(u64::from(mark) << 40 | 99);
                for _ in 0..300 {
                    let mut slab = arena.allocate(1 + random.below(3 * MIB)).unwrap();
                    slab.fill(mark);
                    let segment = slab.seal();
                    assert!(segment.iter().all(|&byte| byte == mark));
                }
            });
        }
    });
    assert_eq!(arena.nbytes_in_use(), 0);
}

#[test]
fn memory_that_the_next_value_likely_needs_stays_when_the_rest_is_given_back() {
    let options = ArenaOptions { region_nbytes: 2 * MIB, ..ArenaOptions::default() };
    let arena = Arena::new(options);
    arena.keep_warm(32 * MIB);
    let slabs: Vec<_> = (0..4).map(|_| arena.allocate(8 * MIB).unwrap()).collect();
    assert_eq!((arena.nbytes_idle(), arena.nbytes_reserved()), (0, 32 * MIB));
    drop(slabs);
    assert_eq!((arena.nbytes_idle(), arena.nbytes_reserved()), (32 * MIB, 32 * MIB));
    arena.trim();
    assert_eq!(arena.nbytes_reserved(), 8 * MIB);
    // One that is large beside what may be kept is none to keep.
    drop(arena.allocate(24 * MIB).unwrap());
    arena.trim();
    assert!(arena.nbytes_reserved() <= 8 * MIB, "{} bytes", arena.nbytes_reserved());
}
