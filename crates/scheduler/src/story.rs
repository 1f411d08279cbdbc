//! What has happened to tasks lately: a ring of entries, each for a run of tasks, so that it costs
//! the same however much happens, and a map of a million is one line.

use crate::scheduler::Scheduler;
use crate::table::TaskRef;
use rasker_graph::{Key, Run, TaskId};
use rasker_protocol::{Datum, WorkerId};
use std::collections::{BTreeMap, VecDeque};

/// Entries that are kept: 2 MiB.
const ENTRIES_MAX: usize = 1 << 16;
/// Workers that are gone and whose addresses are kept.
const GONE_MAX: usize = 1000;

/// What can happen to a task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Moment {
    Submitted,
    Scattered,
    Given,
    Finished,
    Failed,
    Crashed,
    Retracted,
    Missed,
    Withdrawn,
    Copied,
    Lost,
    Moved,
    Found,
    Retried,
    Unneeded,
}

impl Moment {
    /// The states before and after, and the cause; an address may follow.
    fn words(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Moment::Submitted => ("released", "waiting", "a client submitted it"),
            Moment::Scattered => ("released", "memory", "a client put it on a worker"),
            Moment::Given => ("waiting", "processing", "given to"),
            Moment::Finished => ("processing", "memory", "finished on"),
            Moment::Failed => ("processing", "erred", "it or an input of it failed"),
            Moment::Crashed => ("processing", "released", "its executor died on"),
            Moment::Retracted => ("processing", "released", "handed back by"),
            Moment::Missed => ("processing", "released", "an input could not be had by"),
            Moment::Withdrawn => ("processing", "released", "taken off"),
            Moment::Copied => ("memory", "memory", "copied to"),
            Moment::Lost => ("memory", "released", "lost with"),
            Moment::Moved => ("memory", "memory", "a copy stands in for the one that was on"),
            Moment::Found => ("erred", "memory", "found again on"),
            Moment::Retried => ("erred", "released", "a client retried it"),
            Moment::Unneeded => ("memory", "released", "nobody needs it"),
        }
    }
}

#[derive(Clone, Copy)]
struct Entry {
    run: Run,
    at_ns: u64,
    worker: WorkerId,
    moment: Moment,
}

const _: () = assert!(size_of::<Entry>() <= 32);

#[derive(Default)]
pub(crate) struct Story {
    entries: VecDeque<Entry>,
    n_added: u64,
    gone: BTreeMap<WorkerId, String>,
}

impl Story {
    pub fn add(&mut self, at_ns: u64, run: Run, moment: Moment, worker: WorkerId) {
        self.n_added += 1;
        if let Some(last) = self.entries.back_mut()
            && (last.moment, last.worker, last.at_ns) == (moment, worker, at_ns)
            && last.run.layer == run.layer
            && last.run.end() == run.start
        {
            last.run.count += run.count;
            return;
        }
        if self.entries.len() == ENTRIES_MAX {
            self.entries.pop_front();
        }
        self.entries.push_back(Entry { run, at_ns, worker, moment });
    }

    /// A worker is gone; what is told of it names it all the same.
    pub fn remember(&mut self, worker: WorkerId, address: String) {
        if self.gone.len() == GONE_MAX {
            self.gone.pop_first();
        }
        self.gone.insert(worker, address);
    }
}

impl Scheduler {
    /// A count of what has happened to tasks so far.
    pub fn n_done(&self) -> u64 {
        self.story.n_added
    }

    /// Whether there is something to be done: calls in hand, or tasks that wait for their turn.
    pub fn is_busy(&self) -> bool {
        let mut waiting = self.workers.iter().flatten().flat_map(|worker| worker.pending.iter());
        let mut restricted = self.classes.iter().flat_map(|class| class.queue.iter());
        !self.roots.is_empty()
            || self.workers.iter().flatten().any(|worker| worker.n_processing > 0)
            || self.ready.iter().any(|entry| self.is_due(entry))
            || restricted.any(|entry| self.is_due(entry))
            || waiting.any(|entry| self.is_due(entry))
    }

    pub(crate) fn note(&mut self, task: TaskRef, moment: Moment, worker: WorkerId) {
        let run = self.table.id(task).run();
        self.story.add(self.now_ns, run, moment, worker);
    }

    /// What is remembered of tasks: key, states before and after, cause, and how long ago, in s.
    pub(crate) fn tell_story(&self, keys: &[Key]) -> Datum {
        let mut rows = Vec::new();
        for key in keys {
            let Some(task) = self.task_of(*key) else { continue };
            let (id, text) = (self.table.id(task), self.key_text(task));
            rows.extend(self.story_of(id).map(|entry| (entry.at_ns, text.clone(), entry)));
        }
        rows.sort_by_key(|(at_ns, ..)| *at_ns);
        let row = |(at_ns, text, entry): (u64, String, Entry)| {
            let (start, finish, cause) = entry.moment.words();
            let cause = match self.address_of(entry.worker) {
                Some(address) => format!("{cause} {address}"),
                None => cause.to_owned(),
            };
            let age = self.now_ns.saturating_sub(at_ns) as f64 / 1e9;
            Datum::from(vec![text.into(), start.into(), finish.into(), cause.into(), age.into()])
        };
        Datum::List(rows.into_iter().map(row).collect())
    }

    fn story_of(&self, id: TaskId) -> impl Iterator<Item = Entry> {
        self.story.entries.iter().filter(move |entry| entry.run.contains(id)).copied()
    }

    fn address_of(&self, id: WorkerId) -> Option<&str> {
        let there = self.worker(id).map(|worker| worker.hello.address.as_str());
        there.or_else(|| self.story.gone.get(&id).map(String::as_str))
    }
}
