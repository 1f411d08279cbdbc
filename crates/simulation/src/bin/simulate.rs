//! Runs many seeds: `simulate --seeds 2000 --from 0 [--threads 2] [--exact] [--verbose]`.

use rasker_simulation::{Options, run};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |name: &str, default: u64| {
        let at = arguments.iter().position(|argument| argument == name);
        at.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(default)
    };
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let (from, n) = (number("--from", 0), number("--seeds", 2000));
    let options =
        Options { exact: has("--exact"), verbose: has("--verbose"), ..Options::default() };
    let next = AtomicU64::new(from);
    let results = Mutex::new((Vec::new(), BTreeMap::<&str, (u64, u64)>::new(), 0u64));
    let started = std::time::Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..number("--threads", 2) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + n {
                        return;
                    }
                    let result = std::panic::catch_unwind(|| run(seed, &options));
                    let mut results = results.lock().expect("no panic while held");
                    match result {
                        Ok(Ok(summary)) => {
                            results.2 += summary.n_events;
                            for (what, n) in summary.counts {
                                let (seeds, times) = results.1.entry(what).or_default();
                                *seeds += 1;
                                *times += n;
                            }
                        }
                        Ok(Err(failure)) => results.0.push((seed, failure.to_string())),
                        Err(_) => results.0.push((seed, format!("seed {seed}: panicked"))),
                    }
                }
            });
        }
    });
    let (mut failures, counts, n_events) = results.into_inner().expect("no panic while held");
    failures.sort();
    for (_, failure) in failures.iter().take(40) {
        println!("{failure}");
    }
    for (what, (seeds, times)) in &counts {
        println!("{seeds:>8} seeds {times:>10} times  {what}");
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("{n} seeds, {n_events} events, {seconds:.1} s, {} failed", failures.len());
    std::process::exit(i32::from(!failures.is_empty()));
}
