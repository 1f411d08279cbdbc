//! Whole clusters, one per seed.

use rasker_simulation::{Options, run};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Builds without optimization do a share, so that they stay quick.
const SEEDS: u64 = if cfg!(debug_assertions) { 300 } else { 5000 };

#[test]
fn thousands_of_seeds_pass() {
    let next = AtomicU64::new(0);
    let failures = Mutex::new(Vec::new());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= SEEDS {
                return;
            }
            let failure = match std::panic::catch_unwind(|| run(seed, &Options::default())) {
                Ok(Ok(_)) => continue,
                Ok(Err(failure)) => failure.to_string(),
                Err(_) => format!("seed {seed}: panicked"),
            };
            failures.lock().expect("no panic while held").push(failure);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    let failures = failures.into_inner().expect("no panic while held");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn two_runs_of_one_seed_are_equal() {
    let options = Options { exact: true, ..Options::default() };
    let mut digests = std::collections::BTreeSet::new();
    for seed in 0..40 {
        let first = run(seed, &options).expect("the seed passes");
        assert_eq!(run(seed, &options).expect("the seed passes"), first, "seed {seed}");
        digests.insert(first.digest);
    }
    assert_eq!(digests.len(), 40, "seeds that differ run differently");
}
