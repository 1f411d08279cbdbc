//! Messages that mean nothing good, at random and from the corpus of the fuzzer.

use rasker_simulation::fuzz::TARGETS;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

/// Random inputs of each target.
const INPUTS: u64 = if cfg!(debug_assertions) { 300 } else { 60_000 };

fn corpus(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let files = std::fs::read_dir(folder).expect("a folder for each target");
    let mut files: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
    files.sort();
    files
}

/// The state of SplitMix64, and a number from it.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn input(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let length = [20, 80, 300, 900][(next(&mut state) % 4) as usize];
    (0..length).map(|_| next(&mut state) as u8).collect()
}

fn resident_nbytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    statm.split(' ').nth(1).expect("a second field").parse::<usize>().expect("a number") * 4096
}

/// Every target with every input: no panic, and no memory to speak of.
fn feed_all(names: &[&str]) {
    let before = resident_nbytes();
    for (name, target) in TARGETS.iter().filter(|(name, _)| names.contains(name)) {
        for seed in 0..INPUTS {
            let bytes = input(seed);
            let result = catch_unwind(|| target(&bytes));
            assert!(result.is_ok(), "target {name} with random input {seed}");
        }
        for file in corpus(name) {
            let bytes = std::fs::read(&file).expect("a readable file");
            let result = catch_unwind(|| target(&bytes));
            assert!(result.is_ok(), "target {name} with {}", file.display());
        }
    }
    let made = resident_nbytes().saturating_sub(before);
    assert!(made < 64 << 20, "{made} bytes are left or were needed at once");
}

#[test]
fn messages_stand_any_damage() {
    feed_all(&["decode", "mutate"]);
}

#[test]
fn machines_stand_what_peers_may_say() {
    feed_all(&["scheduler", "worker", "client"]);
}
