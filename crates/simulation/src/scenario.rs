//! One run as a list: knobs, acts of users, faults. A seed makes one; so does a text.
//!
//! Every act and fault has a seed of its own, so that taking one away leaves the others what they
//! were: that is what lets a failing run be made smaller.

use crate::random::{Random, mix};
use crate::swarm::Swarm;
use std::fmt;

/// Declares an enum with the name of each variant in text.
macro_rules! named {
    ($(#[$doc:meta])* $kind:ident { $($variant:ident $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $kind { $($variant,)* }

        impl $kind {
            pub fn name(self) -> &'static str {
                match self { $($kind::$variant => $name,)* }
            }

            fn named(name: &str) -> Option<$kind> {
                match name { $($name => Some($kind::$variant),)* _ => None }
            }
        }
    };
}

named! {
    /// What a user does.
    Act {
        Map "map", MapOver "map-over", Page "page", Named "named", Storm "storm",
        LetGo "let-go", Cancel "cancel", Retry "retry", Adopt "adopt", Scatter "scatter",
        Gather "gather", Hold "hold", Ask "ask", Restart "restart", Leave "leave",
        Exchange "exchange",
    }
}

named! {
    /// What goes wrong.
    Fault {
        Kill "kill", Zombie "zombie", Join "join", Replace "replace",
        ExecutorDeath "executor-death", Cut "cut", HalfOpen "half-open", Freeze "freeze",
        Stall "stall", Retire "retire",
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct PlannedAct {
    pub at_ns: u64,
    pub user: usize,
    pub act: Act,
    pub seed: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PlannedFault {
    pub at_ns: u64,
    pub fault: Fault,
    pub seed: u64,
}

/// Everything that a run depends on.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    pub seed: u64,
    pub swarm: Swarm,
    pub acts: Vec<PlannedAct>,
    pub faults: Vec<PlannedFault>,
}

fn weighted<T: Copy>(random: &mut Random, choices: &[(T, u64)]) -> Option<T> {
    let total: u64 = choices.iter().map(|(_, weight)| weight).sum();
    let mut at = random.below(total.max(1));
    for (choice, weight) in choices {
        if at < *weight {
            return Some(*choice);
        }
        at -= weight;
    }
    None
}

impl Scenario {
    pub fn of(seed: u64) -> Scenario {
        let mut random = Random::new(seed);
        let swarm = Swarm::new(&mut random);
        let s = &swarm;
        let able = [
            (Act::Map, s.map),
            (Act::MapOver, s.map_over),
            (Act::Page, s.page),
            (Act::Named, s.named),
            (Act::Storm, s.storm),
            (Act::LetGo, s.let_go),
            (Act::Cancel, s.cancel),
            (Act::Retry, s.retry),
            (Act::Adopt, s.adopt),
            (Act::Scatter, s.scatter),
            (Act::Gather, s.gather),
            (Act::Hold, s.hold),
            (Act::Ask, s.ask),
            (Act::Restart, s.restart),
            (Act::Leave, s.leave),
            (Act::Exchange, s.exchange),
        ];
        let n_acts = *random.pick(&[4, 8, 8, 16, 40]);
        let pause = (s.delay_ns + s.call_ns) * 4;
        let (mut acts, mut end) = (Vec::new(), 1);
        for user in 0..s.n_users as usize {
            let mut at_ns = 0;
            for _ in 0..n_acts {
                at_ns += random.below(pause);
                let seed = random.next();
                acts.extend(weighted(&mut random, &able).map(|act| PlannedAct {
                    at_ns,
                    user,
                    act,
                    seed,
                }));
            }
            end = end.max(at_ns);
        }
        let wrong = [
            (Fault::Kill, s.kill),
            (Fault::Zombie, s.zombie),
            (Fault::Join, s.join),
            (Fault::Replace, s.replace),
            (Fault::ExecutorDeath, s.executor_death),
            (Fault::Cut, s.cut),
            (Fault::HalfOpen, s.half_open),
            (Fault::Freeze, s.freeze),
            (Fault::Stall, s.stall),
            (Fault::Retire, s.retire),
        ];
        let n_faults = random.between(1, 4) * random.between(1, 5);
        let mut faults = Vec::new();
        for _ in 0..n_faults {
            let (at_ns, seed) = (random.below(end), random.next());
            let fault = weighted(&mut random, &wrong);
            faults.extend(fault.map(|fault| PlannedFault { at_ns, fault, seed }));
        }
        faults.sort_by_key(|fault| fault.at_ns);
        Scenario { seed, swarm, acts, faults }
    }

    /// When the last act or fault comes about.
    pub fn end_ns(&self) -> u64 {
        let acts = self.acts.iter().map(|act| act.at_ns);
        acts.chain(self.faults.iter().map(|fault| fault.at_ns)).max().unwrap_or(0)
    }

    /// The random numbers that are not of an act or a fault.
    pub fn random(&self) -> Random {
        Random::new(mix(self.seed, 0xA11))
    }

    /// Reads what `Display` writes; lines that begin with `#` are comments.
    pub fn parse(text: &str) -> Result<Scenario, String> {
        let (swarm, acts, faults) = (Swarm::default(), Vec::new(), Vec::new());
        let mut scenario = Scenario { seed: 0, swarm, acts, faults };
        for (number, line) in text.lines().enumerate() {
            let words: Vec<&str> = line.split_whitespace().collect();
            if words.first().is_none_or(|word| word.starts_with('#')) {
                continue;
            }
            if scenario.read(&words).is_none() {
                return Err(format!("line {} says nothing known: {line}", number + 1));
            }
        }
        Ok(scenario)
    }

    fn read(&mut self, words: &[&str]) -> Option<()> {
        match words {
            ["seed", seed] => self.seed = seed.parse().ok()?,
            ["knob", name, value] => {
                if !self.swarm.set(name, value.parse().ok()?) {
                    return None;
                }
            }
            ["act", at_ns, user, act, seed] => self.acts.push(PlannedAct {
                at_ns: at_ns.parse().ok()?,
                user: user.parse().ok()?,
                act: Act::named(act)?,
                seed: seed.parse().ok()?,
            }),
            ["fault", at_ns, fault, seed] => self.faults.push(PlannedFault {
                at_ns: at_ns.parse().ok()?,
                fault: Fault::named(fault)?,
                seed: seed.parse().ok()?,
            }),
            _ => return None,
        }
        Some(())
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}", self.seed)?;
        for (name, value) in self.swarm.knobs().into_iter().filter(|(_, value)| *value > 0) {
            writeln!(f, "knob {name} {value}")?;
        }
        for PlannedAct { at_ns, user, act, seed } in &self.acts {
            writeln!(f, "act {at_ns} {user} {} {seed}", act.name())?;
        }
        for PlannedFault { at_ns, fault, seed } in &self.faults {
            writeln!(f, "fault {at_ns} {} {seed}", fault.name())?;
        }
        Ok(())
    }
}
