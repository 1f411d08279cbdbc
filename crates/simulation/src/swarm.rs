//! What one seed is made of: a random subset of work, faults and delays, each at a random rate.
//!
//! A seed that has every feature at once reaches few deep states of any of them; so each seed has
//! some features and lacks others.

use crate::random::Random;

/// Declares the knobs once: fields, and the same by name for text scenarios.
macro_rules! knobs {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Zero is off; else a weight among its like, or percent.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct Swarm { $($(#[$doc])* pub $name: u64,)* }

        impl Swarm {
            pub fn knobs(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }

            /// False if there is no knob of this name.
            pub fn set(&mut self, name: &str, value: u64) -> bool {
                match name {
                    $(stringify!($name) => self.$name = value,)*
                    _ => return false,
                }
                true
            }
        }
    };
}

knobs! {
    n_users,
    n_workers,
    /// Largest number of tasks that one act enters, roughly.
    size,
    /// Longest time a message is under way, ns.
    delay_ns,
    /// Longest time that a machine gathers events before its turn, ns.
    batch_ns,
    /// Longest time of a call, ns.
    call_ns,
    /// Percent of links that are slower by a factor, each direction for itself.
    slow,
    // What calls do.
    live, encoded, objects, raising, flaky, poison, endless, nested,
    // What users do.
    map, map_over, page, named, storm, let_go, cancel, retry, adopt, scatter, gather, hold, ask,
    restart, leave,
    /// Percent of tasks that name workers or resources.
    restricted,
    // What goes wrong.
    kill, zombie, join, replace, executor_death, cut, half_open, freeze, stall, retire,
    /// Percent of cut connections after which the worker joins again.
    rejoin,
    /// What runs natively, and percent of workers that run only one kind of task.
    native, lacking, exchange,
    /// Whether readers are spread over those that are about to have a value.
    spread,
    /// A worker's limit to memory, in units of large values; percent of writes that find the disk
    /// full, and of reads that find a damaged record; what a disk may hold, in small units; calls
    /// that take too much.
    memory, disk_full, damage, quota, hog,
}

impl Swarm {
    /// Whether nothing else goes wrong with workers than that they are told to end.
    pub fn only_retires(&self) -> bool {
        let others = [self.kill, self.zombie, self.replace, self.executor_death, self.poison];
        let more = [self.cut, self.half_open, self.freeze, self.stall, self.endless];
        others.iter().chain(&more).all(|knob| *knob == 0)
    }

    pub fn new(random: &mut Random) -> Swarm {
        let calm = random.chance(15);
        let faults = !calm && random.chance(80);
        let mut swarm = Swarm {
            n_users: random.between(1, 3),
            n_workers: random.between(1, 4),
            size: *random.pick(&[4, 4, 12, 12, 40, 120]),
            delay_ns: *random.pick(&[10_000, 300_000, 20_000_000]),
            batch_ns: *random.pick(&[0, 50_000, 3_000_000]),
            call_ns: *random.pick(&[2_000, 500_000, 10_000_000]),
            ..Swarm::default()
        };
        let mut on =
            |percent, most| if random.chance(percent) { random.between(1, most) } else { 0 };
        swarm.slow = on(25, 40);
        swarm.live = on(70, 4);
        swarm.encoded = on(40, 2);
        swarm.objects = on(15, 4);
        swarm.raising = on(30, 6);
        swarm.flaky = on(30, 9);
        swarm.endless = on(12, 2);
        swarm.nested = on(15, 3);
        swarm.map = on(70, 4);
        swarm.map_over = on(60, 3);
        swarm.page = on(70, 5);
        swarm.named = on(30, 3);
        swarm.storm = on(25, 2);
        swarm.let_go = on(70, 4);
        swarm.cancel = on(35, 2);
        swarm.retry = on(40, 3);
        swarm.adopt = on(35, 3);
        swarm.scatter = on(35, 2);
        swarm.gather = on(100, 3);
        swarm.hold = on(60, 1);
        swarm.ask = on(60, 1);
        swarm.restart = on(5, 1);
        swarm.leave = on(15, 1);
        swarm.restricted = on(25, 40);
        swarm.join = on(50, 3);
        if faults {
            swarm.poison = on(15, 3);
            swarm.kill = on(60, 4);
            swarm.zombie = on(40, 3);
            swarm.replace = on(40, 3);
            swarm.executor_death = on(50, 4);
            swarm.cut = on(30, 3);
            swarm.half_open = on(20, 2);
            swarm.freeze = on(25, 3);
            swarm.stall = on(20, 2);
            swarm.retire = on(25, 2);
            swarm.rejoin = on(60, 100);
        }
        if swarm.map + swarm.page == 0 {
            swarm.map = 3;
        }
        if swarm.restart > 0 {
            // A value that is put on a worker while it restarts is gone before anybody hears.
            swarm.scatter = 0;
        }
        if swarm.objects > 0 {
            swarm.live = 0;
        }
        swarm.native = on(40, 3);
        swarm.lacking = on(40, 60);
        swarm.exchange = on(45, 4);
        swarm.spread = on(50, 1);
        swarm.limit_memory(random, faults);
        swarm
    }

    fn limit_memory(&mut self, random: &mut Random, faults: bool) {
        let mut on = |percent: u64, most: u64| match random.chance(percent) {
            true => random.between(1, most),
            false => 0,
        };
        // The largest value is a twelfth of the limit at most: no call is to fail for it.
        self.memory = on(35, 18);
        if self.memory == 0 {
            return;
        }
        self.memory += 12;
        if faults {
            self.disk_full = on(25, 40);
            self.damage = on(25, 40);
            // Data that fits nowhere makes calls wait for a minute each: too long to look at.
            self.quota = on(10, 20) * 200;
            if self.nested > 0 {
                // A call that waits for tasks of its own runs, and so nothing else is let through
                // where neither memory nor disk has room: known, and not solved yet.
                self.quota = 0;
            }
            self.hog = on(25, 3);
        }
    }
}
