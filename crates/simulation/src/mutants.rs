//! Ways in which the machines are broken on purpose, one at a time: each must be found.
//!
//! The places are the calls of `rasker_protocol::probe::mutant` in the machines.

use crate::{Options, Scenario, failure_of};

/// Every way there is, by name.
pub const MUTANTS: &[&str] = &[
    "all-assigned-blamed",
    "attempt-not-raised",
    "cancel-not-sent",
    "cancelled-future-revived",
    "cancelled-key-joined",
    "completion-by-key-alone",
    "copy-not-told",
    "copy-of-nothing-counted",
    "crash-not-counted",
    "damaged-record-not-told",
    "exchange-stays-open",
    "export-of-dead-executor-awaited",
    "failed-input-awaited",
    "failure-not-passed-on",
    "fetch-error-ignored",
    "forgotten-key-kept",
    "found-value-freed",
    "free-ignored",
    "freed-while-read",
    "identity-by-address",
    "input-released-twice",
    "inventory-empty",
    "key-joined-by-name-alone",
    "kind-ignored",
    "late-loss-removes-successor",
    "late-value-freed-for-copy",
    "late-value-kept",
    "late-wish-not-told",
    "missing-input-ignored",
    "missing-input-not-told",
    "missing-part-not-told",
    "moved-part-not-told",
    "moved-value-not-told",
    "newcomer-not-announced",
    "parked-reader-forgotten",
    "parts-of-object-given",
    "pinned-value-dropped",
    "quarantine-not-alone",
    "queue-of-lost-worker-forgotten",
    "quota-ignored",
    "reader-of-freed-value-forgotten",
    "ready-without-input",
    "record-not-forgotten",
    "recovery-ignores-copies",
    "release-lost",
    "release-not-sent",
    "release-overtaken-by-submit",
    "replica-of-lost-worker-kept",
    "report-sent-twice",
    "resource-kept",
    "resource-overbooked",
    "resource-returned-twice",
    "restriction-ignored",
    "retracted-and-kept",
    "retraction-forgotten",
    "slots-not-shared",
    "stale-incarnation-accepted",
    "stray-value-kept",
    "suspect-given-work",
    "unbounded-retry",
    "unplaceable-forgotten",
    "unwritten-value-dropped",
    "values-of-dead-executor-kept",
    "wait-not-reset",
    "wake-up-lost",
    "wakeup-lost-on-resource-return",
    "writers-freed-when-open",
    "writers-out-of-order",
    "wrong-part-read",
];

/// Scenarios that once failed, and go on to show rare mutants.
const SCENARIOS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");

/// Every scenario that is kept, by its name.
pub fn scenarios() -> Vec<(String, Scenario)> {
    let files = std::fs::read_dir(SCENARIOS).expect("the folder of scenarios");
    let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    let read = |path: std::path::PathBuf| {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).expect("a readable scenario");
        let scenario = Scenario::parse(&text).unwrap_or_else(|wrong| panic!("{name}: {wrong}"));
        (name, scenario)
    };
    paths.into_iter().map(read).collect()
}

/// How many runs it took to find a mutant, and what was found; none if it took more seeds than so
/// many. A scenario
/// with the mutant's name is tried first: the rarest would take too many seeds.
pub fn catch(mutant: &'static str, n_seeds: u64) -> Option<(u64, String)> {
    let options = Options { mutant: Some(mutant), ..Options::default() };
    let known = || scenarios().into_iter().filter(|(name, _)| *name == mutant);
    let mut seeds = (0..n_seeds).map(Scenario::of);
    let mut known = known().map(|(_, scenario)| scenario);
    (1..)
        .map_while(|n| Some((n, known.next().or_else(|| seeds.next())?)))
        .find_map(|(n, scenario)| Some((n, failure_of(&scenario, &options)?.what)))
}
