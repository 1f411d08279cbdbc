//! Workers that fall silent, and those that come back under another name with what they hold.

use crate::random::Random;
use crate::world::{Event, Place, World};
use rasker_protocol::{ToHolder, ToWorker, WorkerId};
use rasker_scheduler::Event as SchedulerEvent;
use rasker_worker::Event as WorkerEvent;

const SECOND_NS: u64 = 1_000_000_000;
/// Longest silence, s: beyond what makes a worker lost.
const STALL_MAX: u64 = 9;

impl World {
    /// What a worker that had this name is called now.
    pub fn now_called(&self, mut id: WorkerId) -> WorkerId {
        while let Some(later) = self.later.get(&id) {
            id = *later;
        }
        id
    }

    pub fn home(&self, id: WorkerId) -> WorkerId {
        self.workers.get(&id).map_or(id, |node| node.home)
    }

    /// Events of a process find it under its new name; those of a connection that ended do not.
    pub fn redirected(&mut self, event: Event) -> Option<Event> {
        if self.later.is_empty() {
            return Some(event);
        }
        Some(match event {
            Event::Worker(id, WorkerEvent::FromScheduler(_)) if self.later.contains_key(&id) => {
                return None;
            }
            // Values are put where their client believes to be; a later incarnation is not there.
            Event::Worker(
                id,
                WorkerEvent::Request { reader, message: ToHolder::Put { .. }, .. },
            ) if self.later.contains_key(&id) => {
                if let Some((worker, asker)) = self.asked.remove(&reader.0) {
                    self.answer(worker, reader.0, asker, None);
                }
                return None;
            }
            Event::Worker(id, event) => Event::Worker(self.now_called(id), event),
            Event::Measures(id) => Event::Measures(self.now_called(id)),
            Event::WorkerTicks(id) => Event::WorkerTicks(self.now_called(id)),
            Event::WorkerTurn(id) => Event::WorkerTurn(self.now_called(id)),
            Event::Executor(id, executor, message) => {
                Event::Executor(self.now_called(id), executor, message)
            }
            Event::ExecutorUp(id, executor) => Event::ExecutorUp(self.now_called(id), executor),
            Event::ShareEnds(id, executor, share) => {
                Event::ShareEnds(self.now_called(id), executor, share)
            }
            Event::NestedLooks { worker, executor, share, user, pause } => {
                let worker = self.now_called(worker);
                Event::NestedLooks { worker, executor, share, user, pause }
            }
            other => other,
        })
    }

    /// The worker does nothing for seconds, and the scheduler finds out by itself.
    pub fn stall(&mut self, id: WorkerId, random: &mut Random) {
        self.book.count("a worker was silent for seconds");
        let node = self.workers.get_mut(&id).expect("just listed");
        node.frozen_until = self.now + random.between(SECOND_NS, STALL_MAX * SECOND_NS);
        if self.n_ticks == 0 {
            self.at(0, Event::Ticks(0));
        }
        self.n_ticks = STALL_MAX as u32 + 2;
    }

    pub fn ticks(&mut self, n: u32) {
        self.at(0, Event::Scheduler(SchedulerEvent::Tick));
        let there: Vec<WorkerId> =
            self.workers.iter().filter(|(_, node)| node.is_there).map(|(id, _)| *id).collect();
        for id in there {
            self.at(1, Event::Worker(id, WorkerEvent::Tick { memory_nbytes: 0 }));
        }
        self.n_ticks = self.n_ticks.saturating_sub(1);
        if self.n_ticks > 0 {
            self.at(SECOND_NS, Event::Ticks(n + 1));
        }
    }

    /// The scheduler lets a worker go: to end, or because it was silent.
    pub fn look_at_farewell(&mut self, id: WorkerId, message: &ToWorker) {
        let is_dismissed = matches!(message, ToWorker::Dismissed { .. });
        if !is_dismissed && !matches!(message, ToWorker::Close { .. }) {
            return;
        }
        let is_other = |other: &&WorkerId| **other != id && self.scheduler.takes_work(**other);
        let is_last = !self.workers.keys().any(|other| is_other(&other));
        let Some(node) = self.workers.get_mut(&id) else { return };
        node.is_counted = false;
        node.comes_back |= is_dismissed;
        // Who is retired takes its values along only where nobody could take them.
        let is_undisturbed = self.swarm.only_retires();
        self.oracle.n_losses += u32::from(is_dismissed || is_last || !is_undisturbed);
        self.book.count(match is_dismissed {
            true => "a silent worker was counted as lost",
            false => "a worker ended when it was told to",
        });
    }

    /// The worker finds its connection gone, and looks for the scheduler.
    pub fn worker_parts(&mut self, id: WorkerId) {
        let Some(node) = self.workers.get_mut(&id).filter(|node| node.is_there) else { return };
        node.comes_back = true;
        node.is_counted = false;
        (node.deaf_from, node.mute_from) = (self.now, self.now);
        self.worker_handles(id, WorkerEvent::SchedulerLost);
        let after = self.random.below(self.swarm.delay_ns.max(1) * 4);
        self.at(after, Event::Rejoins(id));
    }

    /// The scheduler lets it in under a new name.
    pub fn worker_rejoins(&mut self, before: WorkerId) {
        let is_there = self.workers.get(&before).is_some_and(|node| node.is_there);
        if !is_there {
            return;
        }
        let mut node = self.workers.remove(&before).expect("just seen");
        let id = WorkerId(self.next_worker);
        self.next_worker += 1;
        self.later.insert(before, id);
        (node.deaf_from, node.mute_from) = (u64::MAX, u64::MAX);
        (node.is_counted, node.comes_back) = (true, false);
        let hello = node.hello.clone();
        self.workers.insert(id, node);
        self.book.count("a worker joined again");
        self.tell_scheduler(Place::Worker(id), SchedulerEvent::WorkerJoined { worker: id, hello });
        let joined_at = self.links[&(Place::Worker(id), Place::Scheduler)];
        self.workers.get_mut(&id).expect("just entered").joined_at = joined_at;
        self.worker_handles(id, WorkerEvent::Joined { is_same_epoch: true });
    }
}
