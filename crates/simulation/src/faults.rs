//! What goes wrong: workers come, go, freeze and are cut off, each end hearing of it in its time.

use crate::memory::Disk;
use crate::random::Random;
use crate::scenario::{Fault, PlannedFault};
use crate::world::{Event, Place, WorkerNode, World};
use rasker_protocol::{FromWorker, Kinds, WorkerHello, WorkerId};
use rasker_scheduler::Event as SchedulerEvent;
use rasker_worker::{Event as WorkerEvent, Worker, WorkerOptions};
use std::collections::BTreeMap;

impl World {
    pub(crate) fn worker_joins(&mut self, name: Option<u64>, slot: u32) {
        let id = WorkerId(self.next_worker);
        self.next_worker += 1;
        let nthreads = self.random.between(1, 3) as u32;
        let name = name.unwrap_or(u64::from(slot) % 2);
        let has_gpu = self.is_healed || self.random.chance(50);
        let runs = self.any_kinds();
        let hello = WorkerHello {
            name: format!("w{name}"),
            address: format!("sim://{slot}"),
            routes: format!("sim://{slot}"),
            host: "sim".into(),
            pid: id.0,
            nthreads,
            memory_limit: self.memory_options().limit_nbytes,
            resources: if has_gpu { vec![("gpu".into(), 1.0)] } else { vec![] },
            python: String::new(),
            runs,
        };
        let shares_objects = self.swarm.objects > 0;
        let memory = self.memory_options();
        let options = WorkerOptions {
            nthreads,
            runs: hello.runs,
            shares_objects,
            local_clients: false,
            memory,
        };
        let node = WorkerNode {
            machine: Worker::new(options),
            name,
            executors: BTreeMap::new(),
            is_turn_due: false,
            is_there: true,
            is_counted: true,
            nthreads,
            has_gpu,
            joined_at: 0,
            slot,
            hello: hello.clone(),
            home: id,
            comes_back: false,
            deaf_from: u64::MAX,
            mute_from: u64::MAX,
            frozen_until: 0,
            n_deaths: 0,
            n_blamed: 0,
            disk: Disk::default(),
            is_measured: false,
            is_ticking: false,
        };
        self.workers.insert(id, node);
        let (here, there) = (Place::Worker(id), Place::Scheduler);
        for link in [(here, there), (there, here)] {
            // Either way for itself, so that some links are slow in one direction only.
            if self.random.chance(self.swarm.slow) {
                let factor = self.random.between(2, 20);
                self.slow.insert(link, factor);
                self.book.count("a link was slow");
            }
        }
        self.tell_scheduler(Place::Worker(id), SchedulerEvent::WorkerJoined { worker: id, hello });
        let joined_at = self.links[&(Place::Worker(id), Place::Scheduler)];
        let mut out = Vec::new();
        let node = self.workers.get_mut(&id).expect("just entered");
        node.joined_at = joined_at;
        node.machine.start(&mut out);
        self.perform(id, out);
    }

    fn any_kinds(&mut self) -> Kinds {
        let is_lacking = self.swarm.lacking > 0 && self.random.chance(self.swarm.lacking);
        match is_lacking && !self.is_healed {
            true if self.random.chance(50) => Kinds::PYTHON,
            true => Kinds::NATIVE,
            false => Kinds::BOTH,
        }
    }

    /// The worker is no more: who asked it for something gets nothing.
    pub fn worker_ends(&mut self, id: WorkerId) {
        if let Some(node) = self.workers.get_mut(&id) {
            node.is_there = false;
            node.executors.clear();
        }
        let open: Vec<u64> = self
            .asked
            .iter()
            .filter(|(_, (w, _))| self.now_called(*w) == id)
            .map(|(number, _)| *number)
            .collect();
        for number in open {
            let (worker, asker) = self.asked.remove(&number).expect("just listed");
            self.answer(worker, number, asker, None);
        }
    }

    /// The scheduler counts a worker as lost, whether it is or not, so long after now.
    fn worker_is_given_up(&mut self, id: WorkerId, after: u64) {
        let Some(node) = self.workers.get_mut(&id) else { return };
        node.is_counted = false;
        let joined_at = node.joined_at;
        self.oracle.n_losses += 1;
        let event = SchedulerEvent::WorkerLeft { worker: id, reason: "lost".into() };
        // By another way than the worker's own messages: some of those arrive later.
        let after = after.max(joined_at.saturating_sub(self.now) + 1);
        self.at(after, Event::Scheduler(event));
    }

    /// Until when whoever an event is for does nothing.
    pub fn frozen_until(&self, event: &Event) -> u64 {
        let (Event::Worker(id, _)
        | Event::Measures(id)
        | Event::WorkerTicks(id)
        | Event::Parts(id)
        | Event::Rejoins(id)
        | Event::WorkerTurn(id)
        | Event::Executor(id, ..)
        | Event::ExecutorUp(id, _)
        | Event::ShareEnds(id, ..)) = event
        else {
            return 0;
        };
        self.workers.get(id).map_or(0, |node| node.frozen_until)
    }

    /// Whether a message is lost because its connection was cut before it arrived.
    pub fn is_cut_off(&self, event: &Event) -> bool {
        match event {
            Event::Scheduler(SchedulerEvent::FromWorker { worker, .. }) => {
                self.workers.get(worker).is_some_and(|node| node.mute_from <= self.now)
            }
            Event::Worker(worker, WorkerEvent::FromScheduler(_)) => {
                self.workers.get(worker).is_some_and(|node| node.deaf_from <= self.now)
            }
            _ => false,
        }
    }

    pub fn fault(&mut self, planned: &PlannedFault) {
        if self.is_healed {
            return;
        }
        let mut random = Random::new(planned.seed);
        let there: Vec<WorkerId> = (self.workers.iter())
            .filter(|(_, node)| node.is_there && node.is_counted)
            .map(|(id, _)| *id)
            .collect();
        if there.is_empty() || planned.fault == Fault::Join {
            self.book.count("a worker joined");
            let slot = self.next_worker;
            return self.worker_joins(None, slot);
        }
        let id = *random.pick(&there);
        let soon = random.below(self.swarm.delay_ns.max(1));
        match planned.fault {
            Fault::Join => {}
            Fault::Kill => {
                self.book.count("a worker was lost");
                self.worker_ends(id);
                self.worker_is_given_up(id, soon);
            }
            Fault::Zombie => {
                self.book.count("a worker was given up and went on");
                self.worker_is_given_up(id, soon);
            }
            Fault::Replace => {
                self.book.count("a worker was replaced under its address");
                self.worker_ends(id);
                let (slot, name) = (self.workers[&id].slot, self.workers[&id].name);
                self.worker_joins(Some(name), slot);
                // The loss is heard of sooner or later than the successor.
                self.worker_is_given_up(id, soon * 2);
            }
            Fault::ExecutorDeath => {
                let executor = self.workers[&id].executors.keys().next().copied();
                if let Some(executor) = executor {
                    self.executor_dies(id, executor);
                }
            }
            Fault::Cut | Fault::HalfOpen => self.cut(id, planned.fault, &mut random),
            // One at a time: what came in the first freeze is to come before what comes later.
            Fault::Freeze | Fault::Stall if self.workers[&id].frozen_until >= self.now => {}
            Fault::Freeze => {
                self.book.count("a worker was frozen");
                let longest = (self.swarm.delay_ns + self.swarm.call_ns) * 40;
                let node = self.workers.get_mut(&id).expect("just listed");
                node.frozen_until = self.now + random.below(longest);
            }
            Fault::Stall => self.stall(id, &mut random),
            Fault::Retire => {
                self.book.count("a worker was told to end");
                let message = FromWorker::Retire;
                self.tell_scheduler(
                    Place::Worker(id),
                    SchedulerEvent::FromWorker { worker: id, message },
                );
            }
        }
    }

    /// What is under way is lost in part; each end hears of it in its own time, and of a half-open
    /// connection late.
    fn cut(&mut self, id: WorkerId, fault: Fault, random: &mut Random) {
        let delay = self.swarm.delay_ns.max(1);
        let late = if fault == Fault::HalfOpen { 40 } else { 2 };
        self.book.count(match fault {
            Fault::HalfOpen => "a connection was half open",
            _ => "a connection was cut",
        });
        let node = self.workers.get_mut(&id).expect("just listed");
        node.mute_from = node.mute_from.min(self.now + random.below(delay));
        node.deaf_from = node.deaf_from.min(self.now + random.below(delay));
        let (heard, felt) = (random.below(delay * late), random.below(delay * late));
        self.worker_is_given_up(id, delay + heard);
        let comes_back = random.chance(self.swarm.rejoin);
        self.workers.get_mut(&id).expect("just listed").comes_back = comes_back;
        self.at(felt, if comes_back { Event::Parts(id) } else { Event::WorkerEnds(id) });
    }

    /// No more faults; every name and resource is there at least once.
    pub fn heal(&mut self) {
        self.is_healed = true;
        self.slow.clear();
        let zombies: Vec<WorkerId> = (self.workers.iter())
            .filter(|(_, node)| node.is_there && !node.is_counted && !node.comes_back)
            .map(|(id, _)| *id)
            .collect();
        for id in zombies {
            self.worker_ends(id);
        }
        for name in 0..2 {
            let slot = self.next_worker;
            self.worker_joins(Some(name), slot);
        }
    }
}
