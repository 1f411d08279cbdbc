//! Runs many seeds, or one scenario:
//!
//! - `simulate [--seeds 2000] [--from 0] [--threads 2] [--exact] [--marks]`: many seeds; with
//!   `--marks` it fails too if one of the listed states was never reached.
//! - `simulate --mutants [--seeds 3000]`: how many seeds it takes to find each mutant.
//! - `simulate --shrink SEED [--mutant NAME]`: the smallest scenario that fails as the seed does.
//! - `simulate --scenario FILE [--verbose]`: runs a text scenario.

use rasker_simulation::{Options, Scenario, marks, mutants, run, run_scenario, shrink};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

struct Arguments(Vec<String>);

impl Arguments {
    fn text(&self, name: &str) -> Option<&str> {
        let at = self.0.iter().position(|argument| argument == name)?;
        self.0.get(at + 1).map(String::as_str)
    }
    fn number(&self, name: &str, default: u64) -> u64 {
        self.text(name).and_then(|text| text.parse().ok()).unwrap_or(default)
    }
    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|argument| argument == name)
    }
}

fn main() -> ExitCode {
    let arguments = Arguments(std::env::args().collect());
    let mutant = arguments.text("--mutant").map(|name| {
        let known = mutants::MUTANTS.iter().find(|known| **known == name);
        *known.unwrap_or_else(|| panic!("mutant \"{name}\" is not in the list"))
    });
    let options = Options {
        exact: arguments.has("--exact"),
        verbose: arguments.has("--verbose"),
        mutant,
        ..Options::default()
    };
    let is_good = if let Some(file) = arguments.text("--scenario") {
        replay(file, &options)
    } else if arguments.has("--shrink") {
        let scenario = Scenario::of(arguments.number("--shrink", 0));
        print!("{}", shrink(&scenario, &options, arguments.number("--runs", 4000) as u32));
        true
    } else if arguments.has("--mutants") {
        hunt(arguments.number("--seeds", 3000), arguments.number("--threads", 2))
    } else {
        seeds(&arguments, &options)
    };
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn replay(file: &str, options: &Options) -> bool {
    let text = std::fs::read_to_string(file).expect("the scenario can be read");
    let scenario = Scenario::parse(&text).expect("the scenario can be understood");
    let result = run_scenario(&scenario, options);
    match &result {
        Ok(summary) => println!("passed with {} events", summary.n_events),
        Err(failure) => println!("{failure}"),
    }
    result.is_ok()
}

/// Runs `work` for each number below `n`, on so many threads.
fn spread(n: u64, n_threads: u64, work: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..n_threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= n {
                        return;
                    }
                    work(number);
                }
            });
        }
    });
}

fn hunt(budget: u64, n_threads: u64) -> bool {
    std::panic::set_hook(Box::new(|_| {}));
    let found = Mutex::new(Vec::new());
    spread(mutants::MUTANTS.len() as u64, n_threads, |at| {
        let mutant = mutants::MUTANTS[at as usize];
        let started = std::time::Instant::now();
        let caught = mutants::catch(mutant, budget);
        let seconds = started.elapsed().as_secs_f64();
        found.lock().expect("no panic while held").push((mutant, seconds, caught));
    });
    let mut found = found.into_inner().expect("no panic while held");
    found.sort_by_key(|(mutant, ..)| *mutant);
    for (mutant, seconds, caught) in &found {
        match caught {
            Some((n, what)) => println!("{n:>6} seeds {seconds:>6.2} s  {mutant}: {what}"),
            None => println!("   not found {seconds:>6.2} s  {mutant}"),
        }
    }
    let n_caught = found.iter().filter(|(.., caught)| caught.is_some()).count();
    println!("{n_caught} of {} mutants were caught", found.len());
    n_caught == found.len()
}

fn seeds(arguments: &Arguments, options: &Options) -> bool {
    let (from, n) = (arguments.number("--from", 0), arguments.number("--seeds", 2000));
    let results = Mutex::new((Vec::new(), BTreeMap::<&str, (u64, u64)>::new(), 0u64));
    let started = std::time::Instant::now();
    spread(n, arguments.number("--threads", 2), |number| {
        let seed = from + number;
        let result = std::panic::catch_unwind(|| run(seed, options));
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
    });
    let (mut failures, counts, n_events) = results.into_inner().expect("no panic while held");
    failures.sort();
    for (_, failure) in failures.iter().take(40) {
        println!("{failure}");
    }
    for (what, (seeds, times)) in &counts {
        println!("{seeds:>8} seeds {times:>10} times  {what}");
    }
    let mut is_good = failures.is_empty();
    if arguments.has("--marks") {
        for mark in marks::MARKS.iter().filter(|mark| !counts.contains_key(**mark)) {
            println!("never reached: {mark}");
            is_good = false;
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("{n} seeds, {n_events} events, {seconds:.1} s, {} failed", failures.len());
    is_good
}
