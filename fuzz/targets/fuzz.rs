//! One program for all targets: `FUZZ_TARGET` names one of `rasker_simulation::fuzz::TARGETS`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rasker_simulation::fuzz::TARGETS;
use std::sync::LazyLock;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|(target, _)| *target == name);
    found.unwrap_or_else(|| panic!("there is no fuzz target \"{name}\"; set FUZZ_TARGET")).1
});

fuzz_target!(|bytes: &[u8]| TARGET(bytes));
