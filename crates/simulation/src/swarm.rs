//! What one seed is made of: a random subset of work, faults and delays.
//!
//! A seed that has every feature at once reaches few deep states of any of them; so each seed has
//! some features and lacks others.

use crate::random::Random;

#[derive(Clone, Debug)]
pub struct Swarm {
    pub n_users: u64,
    pub n_workers: u64,
    /// Acts of each user.
    pub n_acts: u64,
    pub size: u64,
    /// Longest time a message is under way, ns.
    pub delay_ns: u64,
    /// Longest time that a machine gathers events before its turn, ns.
    pub batch_ns: u64,
    /// Longest time of a call, ns.
    pub call_ns: u64,
    pub n_faults: u64,
    pub kills: bool,
    pub zombies: bool,
    pub joins: bool,
    pub executor_deaths: bool,
    pub live: bool,
    pub encoded: bool,
    pub objects: bool,
    pub raising: bool,
    pub flaky: bool,
    pub poison: bool,
    pub maps: bool,
    pub maps_over: bool,
    pub pages: bool,
    pub named: bool,
    pub drops: bool,
    pub cancels: bool,
    pub retries: bool,
    pub adopts: bool,
    pub scatters: bool,
    pub leaves: bool,
    pub restricted: bool,
    pub restarts: bool,
}

impl Swarm {
    pub fn new(random: &mut Random) -> Swarm {
        let calm = random.chance(15);
        let mut on = |percent: u64| random.chance(percent);
        let faults = !calm && on(75);
        let (maps, pages) = (on(70), on(70));
        let mut swarm = Swarm {
            n_users: 1,
            n_workers: 1,
            n_acts: 0,
            size: 0,
            delay_ns: 0,
            batch_ns: 0,
            call_ns: 0,
            n_faults: 0,
            kills: faults && on(60),
            zombies: faults && on(40),
            joins: on(50),
            executor_deaths: faults && on(50),
            live: on(70),
            encoded: on(40),
            objects: on(15),
            raising: on(30),
            flaky: on(30),
            poison: faults && on(15),
            maps: maps || !pages,
            maps_over: on(60),
            pages,
            named: on(30),
            drops: on(70),
            cancels: on(35),
            retries: on(40),
            adopts: on(35),
            scatters: on(35),
            leaves: on(15),
            restricted: on(25),
            restarts: on(5),
        };
        // A value that is put on a worker while it restarts is gone before anybody hears of it.
        swarm.scatters &= !swarm.restarts;
        swarm.n_users = random.between(1, 3);
        swarm.n_workers = random.between(1, 4);
        swarm.n_acts = *random.pick(&[4, 10, 25, 50]);
        swarm.size = *random.pick(&[4, 12, 40, 150]);
        swarm.delay_ns = *random.pick(&[10_000, 300_000, 20_000_000]);
        swarm.batch_ns = *random.pick(&[0, 50_000, 3_000_000]);
        swarm.call_ns = *random.pick(&[2_000, 500_000, 10_000_000]);
        swarm.n_faults = if faults { random.between(1, 4) * random.between(1, 6) } else { 0 };
        swarm
    }
}
