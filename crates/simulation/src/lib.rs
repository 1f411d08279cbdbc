//! A whole cluster in one thread from one seed: the three machines, links that delay, executors
//! that compute hashes, users that do anything, and an oracle that knows every value.
//!
//! ```text
//!   seed ─► Swarm (what this seed has) ─► World: heap of (time, tie, event)
//!             users ◄─► scheduler ◄─► workers ◄─► executors      readers ◄─► workers
//!   every value a user sees ═ the oracle's; every scheduler event leaves a sound state
//! ```
//!
//! Each run has two phases: in the first, workers and executors are lost, given up and joined; in
//! the second nothing fails any more, and everything that is wanted must come, or fail for a reason
//! that the oracle knows. Then everyone lets go, and nothing may be left anywhere.
//!
//! # Invariants
//!
//! - A seed decides everything (guarded by `two_runs_of_one_seed_are_equal`).
//! - Many seeds pass (guarded by `thousands_of_seeds_pass`).
//!
//! - Machines that are told anything by peers stay sound, and leave what is others' alone
//!   (guarded by `machines_stand_what_peers_may_say`).
//! - A run does not depend on the clock on the wall
//!   (guarded by `a_shifted_clock_changes_nothing`).
//! - Each way in which the machines are broken on purpose is found
//!   (guarded by `every_mutant_is_caught`).
//! - What was found is never lost again: scenarios that failed are kept as texts
//!   (guarded by `scenarios_that_once_failed_pass`).
//!
//! Reading order: `swarm`, `scenario`, `oracle`, `executor`, `user`, `acts`, `pages`, `exchanges`,
//! `world`, `cluster`, `memory`, `faults`, `rejoin`, `audit`, `shrink`, `marks`, `mutants`; then
//! `fuzz`, which tells single machines anything.

mod acts;
mod audit;
mod cluster;
mod exchanges;
mod executor;
mod faults;
pub mod fuzz;
pub mod marks;
mod memory;
pub mod mutants;
mod oracle;
mod pages;
mod random;
mod rejoin;
mod scenario;
mod shrink;
mod swarm;
mod user;
mod world;

pub use scenario::Scenario;
pub use shrink::{failure_of, shrink};

use rasker_client::Action;
use rasker_protocol::probe;
use std::collections::BTreeMap;
use world::World;

/// How closely a run is watched.
#[derive(Clone, Debug)]
pub struct Options {
    /// The scheduler's state is checked after every so many of its events.
    pub check_every: u64,
    /// More events than this mean that something goes in circles.
    pub events_max: u64,
    /// Every action goes into the digest.
    pub exact: bool,
    /// Every action is printed.
    pub verbose: bool,
    /// The clocks that machines are shown are ahead by so much.
    pub clock_shift_ns: u64,
    /// The machines are broken in this way: see `mutants`.
    pub mutant: Option<&'static str>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            check_every: 1,
            events_max: 3_000_000,
            exact: false,
            verbose: false,
            clock_shift_ns: 0,
            mutant: None,
        }
    }
}

/// What happened in a run, and how often.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    pub digest: u64,
    pub n_events: u64,
    pub counts: BTreeMap<&'static str, u64>,
}

/// What went wrong, and with which seed.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    pub seed: u64,
    pub what: String,
    pub at_ns: u64,
    pub n_events: u64,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "seed {}: {} (event {}, {} ns)", self.seed, self.what, self.n_events, self.at_ns)
    }
}

/// Runs one seed to its end.
///
/// # Errors
///
/// The first thing that is not as it must be.
pub fn run(seed: u64, options: &Options) -> Result<Summary, Failure> {
    run_scenario(&Scenario::of(seed), options)
}

/// Runs one scenario to its end.
///
/// # Errors
///
/// The first thing that is not as it must be.
pub fn run_scenario(scenario: &Scenario, options: &Options) -> Result<Summary, Failure> {
    probe::choose(options.mutant);
    let _ = probe::take_reached();
    let mut world = World::new(scenario, options);
    match live(&mut world, scenario.end_ns()) {
        Ok(()) => Ok(world.summary()),
        Err(what) => Err(world.failure(scenario.seed, what)),
    }
}

fn live(world: &mut World, chaos_ends: u64) -> Result<(), String> {
    world.run(chaos_ends)?;
    world.heal();
    for user in 0..world.users.len() {
        world.with_user(user, |user, scene| user.finish(scene));
    }
    world.run(u64::MAX)?;
    world.check_scheduler()?;
    world.check_queues()?;
    if let Some(unmet) = world.unmet() {
        return Err(unmet);
    }
    world.compare_views()?;
    for user in 0..world.users.len() {
        world.with_user(user, |user, scene| {
            while !user.handles.is_empty() {
                user.drop_handle(0);
            }
            user.settle(scene);
        });
    }
    world.run(u64::MAX)?;
    world.check_scheduler()?;
    nothing_is_left(world)
}

fn nothing_is_left(world: &World) -> Result<(), String> {
    if world.scheduler.n_tasks() > 0 {
        return Err(format!("the scheduler still has {} tasks", world.scheduler.n_tasks()));
    }
    if world.scheduler.n_errands() > 0 {
        return Err(format!("{} errands never end (28)", world.scheduler.n_errands()));
    }
    for user in &world.users {
        if user.client.n_pending() > 0 || user.actions.iter().any(|a| matches!(a, Action::Send(_)))
        {
            return Err(format!("{:?} still has pending tasks", user.client.id()));
        }
    }
    for (id, node) in world.workers.iter().filter(|(_, node)| node.is_there) {
        if !node.machine.is_idle() {
            return Err(format!("{id:?} is not idle: {}", node.machine.leftovers()));
        }
        if !node.disk.is_empty() {
            return Err(format!("{id:?} has left records on its disk (11)"));
        }
        if let Some(executor) = node.executors.values().find(|executor| !executor.is_empty()) {
            return Err(format!("an executor of {id:?} still has {}", executor.leftovers()));
        }
    }
    Ok(())
}
