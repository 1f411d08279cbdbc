//! Prints how fast values are copied into an arena: `cargo test --release -p rasker-store --
//! --ignored --nocapture`.

use std::time::Instant;

use rasker_store::{Arena, ArenaOptions};

#[test]
#[ignore = "a measurement, not a test"]
fn copying_into_a_warm_slab_runs_at_the_speed_of_memory() {
    let source = vec![1u8; 128 << 20];
    let mut target = vec![2u8; 128 << 20];
    let arena = Arena::new(ArenaOptions::default());
    for round in 0..4 {
        let started = Instant::now();
        target.copy_from_slice(&source);
        let plain = started.elapsed();
        let started = Instant::now();
        let mut slab = arena.allocate(source.len()).unwrap();
        let allocated = started.elapsed();
        slab.copy_from_slice(&source);
        let copied = started.elapsed();
        let segment = slab.seal();
        let started = Instant::now();
        let map = segment.map_private().unwrap();
        let mapped = started.elapsed();
        let started = Instant::now();
        let sum: u64 = map.as_slice().chunks(4096).map(|page| u64::from(page[0])).sum();
        let touched = started.elapsed();
        let started = Instant::now();
        segment.checksum();
        let hashed = started.elapsed();
        assert_eq!(sum, 32768);
        println!(
            "round {round}: plain copy {plain:?}; slab: allocate {allocated:?}, with copy \
             {copied:?}; map {mapped:?}, touch each page {touched:?}, checksum {hashed:?}"
        );
    }
    let started = Instant::now();
    for _ in 0..100_000 {
        drop(arena.allocate(70_000).unwrap());
    }
    println!("allocate and free 70 kB: {:?}", started.elapsed() / 100_000);
}
