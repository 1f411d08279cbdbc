//! The simulator finds what it is there to find.

use rasker_simulation::mutants::{MUTANTS, catch};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Seeds until a mutant must have been found; the rarest takes about a third of them.
const BUDGET: u64 = 3000;

#[test]
fn every_mutant_is_caught() {
    assert!(MUTANTS.len() >= 25);
    let next = AtomicUsize::new(0);
    let missed = Mutex::new(Vec::new());
    let work = || {
        while let Some(&mutant) = MUTANTS.get(next.fetch_add(1, Ordering::Relaxed)) {
            if catch(mutant, BUDGET).is_none() {
                missed.lock().expect("no panic while held").push(mutant);
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    let missed = missed.into_inner().expect("no panic while held");
    assert!(missed.is_empty(), "not found within {BUDGET} seeds: {missed:?}");
}
