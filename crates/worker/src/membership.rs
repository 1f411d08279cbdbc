//! The worker among others: peers that go, copies that are to be made, and a scheduler that was
//! lost and is found again.

use crate::event::Action;
use crate::worker::Worker;
use rasker_graph::TaskId;
use rasker_protocol::probe::mutant;
use rasker_protocol::{FromWorker, Progress, Source, ToExecutor, WorkerId};

impl Worker {
    /// Sends for values that are to be kept here.
    pub(crate) fn copy(&mut self, sources: Vec<Source>) {
        for source in sources {
            let each = source.nbytes / u64::from(source.run.count.max(1));
            for task in source.run.tasks() {
                if self.held.contains(task) {
                    self.progress.push(Progress::Copied { run: task.run(), nbytes: each });
                    continue;
                }
                self.copying.insert(task);
                if !self.fetching.contains_key(&task) {
                    self.fetching.insert(task, source.worker);
                    self.to_fetch.entry(source.worker).or_default().push(task);
                }
            }
        }
    }

    /// What was to come from these workers comes no more.
    pub(crate) fn on_peers_gone(&mut self, gone: &[WorkerId], out: &mut Vec<Action>) {
        for worker in gone {
            self.peers.remove(worker);
            self.to_fetch.remove(worker);
            out.push(Action::PeerGone { worker: *worker });
        }
        self.parts_are_lost_with(gone);
        let lost = self.fetching.iter().filter(|(_, worker)| gone.contains(worker));
        let mut lost: Vec<TaskId> = lost.map(|(task, _)| *task).collect();
        lost.sort_unstable();
        for task in lost {
            self.fetching.remove(&task);
            self.not_fetched(task, out);
        }
    }

    /// A value could not be had: the calls that wait for it are given back.
    pub(crate) fn not_fetched(&mut self, task: TaskId, out: &mut Vec<Action>) {
        if !mutant("parked-reader-forgotten") {
            self.answer_requests(task, &Ok(None), out);
        }
        if self.copying.remove(&task) {
            self.progress.push(Progress::NotCopied { runs: vec![task.run()] });
        }
        self.arrived(task, false);
    }

    /// The scheduler is lost: its calls are void, the values stay. What runs goes on to its end,
    /// as nothing can stop it.
    pub(crate) fn part(&mut self, out: &mut Vec<Action>) {
        self.is_parted = true;
        self.ready.clear();
        let numbers: Vec<u64> = self.waiting.keys().copied().collect();
        for number in numbers {
            self.waits_no_more(number);
        }
        let mut coming: Vec<TaskId> = self.fetching.drain().map(|(task, _)| task).collect();
        coming.sort_unstable();
        for task in coming {
            self.answer_requests(task, &Ok(None), out);
        }
        self.to_fetch.clear();
        self.forget_exchanges();
        self.copying.clear();
        self.peers.clear();
        for executor in &mut self.executors {
            let mut runs = Vec::new();
            for given in &mut executor.given {
                given.is_cancelled = true;
                given.cancelled.push(given.run);
                runs.push((given.run, given.attempt));
            }
            if !runs.is_empty() {
                executor.out.push(ToExecutor::Cancel(runs));
            }
        }
    }

    /// A scheduler let this worker in again. One of another epoch gives the names of tasks anew,
    /// so the values that have them are of no use.
    pub(crate) fn rejoin(&mut self, is_same_epoch: bool, out: &mut Vec<Action>) {
        self.is_parted = false;
        // Of what ended meanwhile there was nobody to tell; the values are in the inventory.
        self.progress.clear();
        if !is_same_epoch {
            return self.restart(out);
        }
        let mut held = self.held.inventory();
        if mutant("inventory-empty") {
            held.clear();
        }
        out.push(Action::ToScheduler(FromWorker::Inventory(held)));
    }
}
