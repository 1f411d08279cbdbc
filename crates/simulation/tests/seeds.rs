//! Whole clusters, one per seed.

use rasker_simulation::{Options, failure_of, mutants, run};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Builds without optimization do a share, so that they stay quick.
const SEEDS: u64 = if cfg!(debug_assertions) { 300 } else { 10_000 };

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

/// One in a hundred of the seeds above.
#[test]
fn two_runs_of_one_seed_are_equal() {
    let options = Options { exact: true, ..Options::default() };
    let mut digests = std::collections::BTreeSet::new();
    let seeds = (0..SEEDS).step_by(100);
    for seed in seeds.clone() {
        let first = run(seed, &options).expect("the seed passes");
        assert_eq!(run(seed, &options).expect("the seed passes"), first, "seed {seed}");
        digests.insert(first.digest);
    }
    assert_eq!(digests.len(), seeds.count(), "seeds that differ run differently");
}

#[test]
fn a_shifted_clock_changes_nothing() {
    let now = Options { exact: true, ..Options::default() };
    let later = Options { clock_shift_ns: 86_400_000_000_000, ..now.clone() };
    for seed in (7..SEEDS).step_by(100) {
        let (a, b) = (run(seed, &now), run(seed, &later));
        assert_eq!(a.expect("the seed passes"), b.expect("the seed passes"), "seed {seed}");
    }
}

#[test]
fn scenarios_that_once_failed_pass() {
    let kept = mutants::scenarios();
    assert!(!kept.is_empty(), "there is a folder of scenarios");
    for (name, scenario) in kept {
        assert_eq!(failure_of(&scenario, &Options::default()), None, "{name}");
    }
}
