//! Makes a failing scenario smaller: without this fault, that act, half the tasks, does it still
//! fail in the same way?

use crate::scenario::Scenario;
use crate::{Failure, Options, run_scenario};

/// A failure is the same if it begins with the same words; numbers may differ.
fn kind(what: &str) -> String {
    let words = what.split_whitespace().filter(|word| !word.contains(|c: char| c.is_ascii_digit()));
    words.take(6).collect::<Vec<_>>().join(" ")
}

/// Runs a scenario; a panic is a failure too.
pub fn failure_of(scenario: &Scenario, options: &Options) -> Option<Failure> {
    let run = || run_scenario(scenario, options);
    match std::panic::catch_unwind(run) {
        Ok(result) => result.err(),
        Err(_) => {
            let what = "panicked".to_owned();
            Some(Failure { seed: scenario.seed, what, at_ns: 0, n_events: 0 })
        }
    }
}

/// The smallest scenario found within `n_runs` that fails as `scenario` does.
pub fn shrink(scenario: &Scenario, options: &Options, mut n_runs: u32) -> Scenario {
    let mut best = scenario.clone();
    let Some(first) = failure_of(&best, options) else { return best };
    let wanted = kind(&first.what);
    let mut fails = |candidate: &Scenario| {
        n_runs = n_runs.saturating_sub(1);
        n_runs > 0
            && failure_of(candidate, options).is_some_and(|failure| kind(&failure.what) == wanted)
    };
    loop {
        let before = best.clone();
        thin(&mut best, &mut fails, |scenario| &mut scenario.faults);
        thin(&mut best, &mut fails, |scenario| &mut scenario.acts);
        for (name, value) in best.swarm.knobs() {
            let least = u64::from(["n_users", "n_workers", "delay_ns", "call_ns"].contains(&name));
            for smaller in [least, value / 2] {
                let mut candidate = best.clone();
                if smaller < value && candidate.swarm.set(name, smaller) && fails(&candidate) {
                    best = candidate;
                    break;
                }
            }
        }
        if best == before {
            return best;
        }
    }
}

/// Takes pieces out of a list, halves first, single ones last.
fn thin<T: Clone>(
    best: &mut Scenario,
    fails: &mut impl FnMut(&Scenario) -> bool,
    list: impl Fn(&mut Scenario) -> &mut Vec<T>,
) {
    let mut size = list(best).len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        while at < list(best).len() {
            let mut candidate = best.clone();
            let items = list(&mut candidate);
            let end = (at + size).min(items.len());
            items.drain(at..end);
            if fails(&candidate) {
                *best = candidate;
            } else {
                at += size;
            }
        }
        size /= 2;
    }
}
