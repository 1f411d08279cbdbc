//! Who is there: silence makes a worker suspect, and then lost. The scheduler doubts itself
//! first: time in which it did not look is nobody's silence.

use crate::scheduler::Scheduler;
use crate::table::{State, TaskRef};
use rasker_protocol::{Priority, ToWorker, WorkerId};

/// Ticks come this often, ns; later ones mean that the scheduler itself was held up.
pub(crate) const TICK_NS: u64 = 1_000_000_000;

impl Scheduler {
    pub(crate) fn on_tick(&mut self) {
        let gap = self.now_ns.saturating_sub(self.ticked_ns);
        self.ticked_ns = self.now_ns;
        if gap > TICK_NS * 3 / 2 {
            let now = self.now_ns;
            for worker in self.workers.iter_mut().flatten() {
                worker.heard_ns = (worker.heard_ns + gap - TICK_NS).min(now);
            }
        }
        for id in self.alive.clone() {
            let worker = self.worker(id).expect("alive");
            let silence = self.now_ns.saturating_sub(worker.heard_ns);
            if silence >= self.options.lost_after_ns {
                let seconds = silence / 1_000_000_000;
                let reason = format!("nothing was heard of it for {seconds} s");
                self.farewells.push((id, ToWorker::Dismissed { reason: reason.clone() }));
                self.on_worker_left(id, &reason, false);
            } else if silence >= self.options.suspect_after_ns && !worker.is_suspect {
                self.suspect(id);
            }
        }
    }

    /// The worker spoke: it is there, and so is what it holds.
    pub(crate) fn on_heard(&mut self, id: WorkerId) {
        let now = self.now_ns;
        let worker = self.worker_mut(id).expect("just seen");
        worker.heard_ns = now;
        if worker.is_suspect {
            worker.is_suspect = false;
            self.count_sidelined();
        }
    }

    /// What the worker has not begun, as far as can be told from here, is done elsewhere.
    fn suspect(&mut self, id: WorkerId) {
        self.worker_mut(id).expect("alive").is_suspect = true;
        self.count_sidelined();
        self.move_pending(id);
        let nthreads = self.worker(id).expect("alive").hello.nthreads as usize;
        for task in self.in_hand(id).into_iter().skip(nthreads) {
            if self.is_processing_at(task, id) {
                self.stop(task, id);
                self.plan_again(task);
                self.settle();
            }
        }
    }

    pub(crate) fn count_sidelined(&mut self) {
        let there = self.workers.iter().flatten();
        self.n_sidelined = there.filter(|worker| !worker.takes_work()).count() as u32;
    }

    /// What waits beside a worker that gets no work waits elsewhere.
    pub(crate) fn move_pending(&mut self, id: WorkerId) {
        let pending = std::mem::take(&mut self.worker_mut(id).expect("alive").pending);
        for entry in pending.iter() {
            if self.is_due(entry) {
                self.make_ready(entry.task());
            }
        }
    }

    /// The calls that a worker was given, in the order in which it begins them. Looks at all
    /// tasks: for the loss of a worker, not for its work.
    pub(crate) fn in_hand(&self, id: WorkerId) -> Vec<TaskRef> {
        let mut calls: Vec<((Priority, u64, u32), TaskRef)> = Vec::new();
        for (slot, layer) in (0..).zip(&self.table.layers) {
            let Some(layer) = layer else { continue };
            for index in 0..layer.expanded {
                if layer.task(index).state == (State::Processing { worker: id }) {
                    let task = TaskRef { layer: slot, index };
                    calls.push(((self.entry(task).priority, layer.id.0, index), task));
                }
            }
        }
        calls.sort_unstable_by_key(|(order, _)| *order);
        calls.into_iter().map(|(_, task)| task).collect()
    }

    /// A call that was taken off its worker is planned anew.
    pub(crate) fn plan_again(&mut self, task: TaskRef) {
        self.set(task, State::Released);
        self.release_inputs(task);
        self.todo.push(crate::scheduler::Step::Compute(task));
    }
}
