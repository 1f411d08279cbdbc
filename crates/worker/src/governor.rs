//! Keeps a worker within its memory: what is held, what is measured, and what is to be done.
//!
//! ```text
//!   share of the limit    what happens
//!   0.2   crowded         the scheduler prefers what uses up values to what makes new ones;
//!                         executors make arrays where they can leave from
//!   0.6   target          values held beyond it leave: second copies, then to disk
//!   0.7   spill           measured beyond it: values leave until 0.65; no calls in advance
//!   0.8   pause           no new call while one runs, none from the scheduler
//!   0.95  terminate       the executor that grows is ended, and its call fails
//! ```
//!
//! The thresholds are Dask's. Numbers come with events; nothing here looks at a clock or a process.

use crate::Map;
use crate::held::Held;
use rasker_graph::TaskId;
use rasker_protocol::probe::mutant;
use rasker_protocol::{DiskStatus, ExecutorId};
use std::collections::VecDeque;

/// So many notes of when values were needed are kept in any case.
const NOTES_LEAST: usize = 64;
/// Smaller values are not worth a file.
pub(crate) const SPILL_NBYTES_MIN: u64 = 16 << 10;
/// From this share of the limit on, what uses up values is preferred.
const CROWDED: f64 = 0.2;
/// A threshold that was passed upwards is passed downwards this much lower.
const SLACK: f64 = 0.05;
/// Values on their way out take this share of the limit at most, and at least so many bytes.
const LEAVING: f64 = 0.125;
const LEAVING_NBYTES_MIN: u64 = 8 << 20;
/// Values on their way back take this share of the limit at most, but for two that are larger.
const COMING: f64 = 0.08;
/// A call is to blame if memory grew by this share of the limit under it.
const BLAME: f64 = 0.25;
/// Executors are told to give memory back no more often than after so many measurements: usually,
/// and beyond the last threshold.
const TRIM_EVERY: u32 = 5;
const TRIM_AGAIN: u32 = 3;
/// An executor that does not grow is ended after so many measurements beyond the last threshold.
const OVER_MAX: u32 = 20;
/// After a disk has refused a value it is left alone for so many ticks.
const REST_TICKS: u32 = 2;

/// How much memory a worker may use, and what happens on the way there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MemoryOptions {
    /// Bytes; 0 for no limit.
    pub limit_nbytes: u64,
    /// Shares of the limit; 0 switches a step off.
    pub target: f64,
    pub spill: f64,
    pub pause: f64,
    pub terminate: f64,
    /// There is a disk to spill to.
    pub has_disk: bool,
    /// The most that may lie there, bytes.
    pub disk_nbytes_max: u64,
}

impl Default for MemoryOptions {
    fn default() -> MemoryOptions {
        MemoryOptions {
            limit_nbytes: 0,
            target: 0.6,
            spill: 0.7,
            pause: 0.8,
            terminate: 0.95,
            has_disk: false,
            disk_nbytes_max: u64::MAX,
        }
    }
}

impl MemoryOptions {
    pub(crate) fn share(&self, share: f64) -> u64 {
        if share <= 0.0 { u64::MAX } else { (self.limit_nbytes as f64 * share) as u64 }
    }
}

/// Memory that was taken a moment ago need not be seen yet.
const SHARED_UNSEEN_NBYTES: u64 = 64 << 20;
/// Whoever waits for a disk that takes nothing does so for this long: a minute.
const PATIENCE_TICKS: u32 = 120;

/// What was measured of a worker's processes, bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Outside executors.
    pub core_nbytes: u64,
    /// What of it is kept for values that come back from the disk, and empty.
    pub idle_nbytes: u64,
    /// Of executors that are processes of their own: memory of their own, and shared memory that
    /// they have mapped, of which the latter is an upper bound.
    pub executors: Vec<(ExecutorId, u64, u64)>,
}

impl Measured {
    fn total(&self) -> u64 {
        self.core_nbytes + self.executors.iter().map(|(_, own, _)| own).sum::<u64>()
    }
}

/// Where a value stands on its way to the disk and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Here,
    /// Its bytes are being made, or written.
    Leaving,
    Away,
    /// Asked for; read when there is room.
    Wanted,
    Coming,
    /// It has no bytes, so it stays.
    Stuck,
}

#[derive(Debug)]
pub(crate) struct Entry {
    stamp: u64,
    pub nbytes: u64,
    pub stage: Stage,
    /// The whole record of it on disk, which stays as long as the value does.
    pub record: Option<u64>,
    /// Fetched from another worker, which may hold it still.
    pub is_copy: bool,
    /// It came back from the disk, into memory that is kept for the next when it goes.
    came_back: bool,
}

/// What is left of a value that is held no longer.
pub(crate) struct Left {
    /// The record on disk that is to go with it.
    pub record: Option<u64>,
    /// It was on its way back, or was to be.
    pub was_coming: bool,
}

/// Which values are large enough to matter, in the order they were last needed.
#[derive(Debug, Default)]
pub(crate) struct Governor {
    pub options: MemoryOptions,
    /// The least of the thresholds.
    calm_nbytes: u64,
    entries: Map<TaskId, Entry>,
    /// When each value was needed, in that order; only the last time of each counts.
    order: VecDeque<(u64, TaskId)>,
    clock: u64,
    n_records: u64,
    /// Records that are being written.
    pub writing: Map<u64, TaskId>,
    /// Records that are being read.
    pub reading: Map<u64, TaskId>,
    pub leaving_nbytes: u64,
    pub coming_nbytes: u64,
    pub wanted_nbytes: u64,
    /// The size of the first of those that are wanted. Room is made for it alone: what leaves
    /// early is missed early, and its memory goes unused meanwhile.
    pub first_wanted_nbytes: u64,
    pub n_away: u32,
    /// Records on disk, also those whose values are in memory too.
    pub disk_nbytes: u64,
    pub disk: DiskStatus,
    rest: u32,
    pub measured: Measured,
    /// All of what was measured.
    total_nbytes: u64,
    /// What native calls have reserved or ask for, bytes.
    pub native_nbytes: u64,
    /// Pieces of exchanges that calls in hand read.
    pub pieces_nbytes: u64,
    /// A call ended since the last measurement; what executors had when one ended.
    pub has_ended: bool,
    floor: (Vec<(ExecutorId, u64)>, u64),
    held_nbytes: u64,
    /// Why the disk took no value the last time, and for how long that has been so.
    pub trouble: Option<String>,
    trouble_ticks: u32,
    shared: Vec<(ExecutorId, u64)>,
    shared_nbytes: u64,
    /// Measurements in a row beyond the last threshold, and beyond the one from which on values
    /// leave for what is measured.
    n_over: u32,
    n_tight: u32,
    /// Measurements since executors were told to give memory back.
    pub n_since_trim: u32,
    /// Measurements in a row while nothing ran and the worker was paused.
    pub n_idle: u32,
    /// Bytes of live values that left since the last measurement.
    left_nbytes: u64,
    pub is_spilling: bool,
    pub is_paused: bool,
    pub is_crowded: bool,
    /// What the scheduler was told last.
    pub told: (bool, bool),
    /// Executors were told to give memory back since the pause began.
    pub has_trimmed: bool,
}

impl Governor {
    pub fn new(options: MemoryOptions) -> Governor {
        let shares =
            [CROWDED, options.target, options.spill, options.pause, options.terminate].into_iter();
        let calm_nbytes = shares.map(|share| options.share(share)).min().unwrap_or(0);
        Governor { options, calm_nbytes, ..Governor::default() }
    }

    /// Whether nothing has to be done or told: no threshold is passed or was passed before, and
    /// no value is on its way out or back.
    pub fn is_calm(&self, held: &Held) -> bool {
        let was_passed = self.is_paused | self.is_crowded | self.is_spilling;
        let is_told = self.told.0 | self.told.1;
        let moving = self.leaving_nbytes | self.coming_nbytes | self.wanted_nbytes;
        let is_at_rest = (moving | self.first_wanted_nbytes) == 0 && self.n_away == 0;
        !self.is_on()
            || (is_at_rest && !was_passed && !is_told && self.used(held) <= self.calm_nbytes)
    }

    pub fn is_on(&self) -> bool {
        self.options.limit_nbytes > 0
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// A value came to be held.
    pub fn enter(&mut self, task: TaskId, nbytes: u64, is_copy: bool) {
        if nbytes < SPILL_NBYTES_MIN || !self.is_on() || self.entries.contains_key(&task) {
            return;
        }
        self.clock += 1;
        let (stage, record, came_back) = (Stage::Here, None, false);
        let entry = Entry { stamp: self.clock, nbytes, stage, record, is_copy, came_back };
        self.entries.insert(task, entry);
        self.note(task);
    }

    /// A value is needed now. What was noted before of it, and of values that left, is dropped
    /// when there is more of that than of the rest.
    fn note(&mut self, task: TaskId) {
        self.order.push_back((self.clock, task));
        if self.order.len() > 2 * self.entries.len() + NOTES_LEAST {
            let entries = &self.entries;
            let is_last = |(stamp, task): &(u64, TaskId)| {
                entries.get(task).is_some_and(|entry| entry.stamp == *stamp)
            };
            self.order.retain(is_last);
        }
    }

    pub fn get(&self, task: TaskId) -> Option<&Entry> {
        self.entries.get(&task)
    }

    /// A value is needed: it is among the last to leave.
    pub fn touch(&mut self, task: TaskId) {
        if let Some(entry) = self.entries.get_mut(&task) {
            self.clock += 1;
            entry.stamp = self.clock;
            self.note(task);
        }
    }

    /// A value is held no longer; none if it was too small to be known here.
    pub fn leave(&mut self, task: TaskId) -> Option<Left> {
        let entry = self.entries.remove(&task)?;
        // A record that is being written of it is of no use.
        self.writing.retain(|_, other| *other != task);
        let was_coming = matches!(entry.stage, Stage::Wanted | Stage::Coming);
        self.count(entry.stage, entry.nbytes, false);
        if entry.came_back {
            self.keep_idle(entry.nbytes);
        }
        if entry.record.is_some() {
            self.disk_nbytes -= entry.nbytes;
        }
        Some(Left { record: entry.record, was_coming })
    }

    /// What comes back and goes again is seen at once, as it is measured only now and then.
    fn keep_idle(&mut self, nbytes: u64) {
        self.measured.idle_nbytes = self.measured.idle_nbytes.saturating_add(nbytes);
    }

    fn count(&mut self, stage: Stage, nbytes: u64, is_more: bool) {
        let sum = match stage {
            Stage::Leaving => &mut self.leaving_nbytes,
            Stage::Wanted => &mut self.wanted_nbytes,
            Stage::Coming => &mut self.coming_nbytes,
            Stage::Here | Stage::Away | Stage::Stuck => &mut 0,
        };
        *sum = if is_more { *sum + nbytes } else { sum.wrapping_sub(nbytes) };
        if matches!(stage, Stage::Away | Stage::Wanted | Stage::Coming) {
            self.n_away = self.n_away.wrapping_add_signed(if is_more { 1 } else { -1 });
        }
    }

    pub fn set(&mut self, task: TaskId, stage: Stage) {
        let Some(entry) = self.entries.get_mut(&task) else { return };
        let (before, nbytes) = (entry.stage, entry.nbytes);
        entry.stage = stage;
        if before == Stage::Coming && stage == Stage::Here {
            entry.came_back = true;
            self.measured.idle_nbytes = self.measured.idle_nbytes.saturating_sub(nbytes);
        } else if stage == Stage::Away && std::mem::take(&mut entry.came_back) {
            self.keep_idle(nbytes);
        }
        self.count(before, nbytes, false);
        self.count(stage, nbytes, true);
    }

    /// A live value of so many bytes was dropped or became a segment.
    pub fn on_live_gone(&mut self, nbytes: u64) {
        self.left_nbytes += nbytes;
    }

    /// The bytes of a value turned out to be so many.
    pub fn resize(&mut self, task: TaskId, nbytes: u64) {
        let Some(entry) = self.entries.get_mut(&task) else { return };
        let (stage, before) = (entry.stage, std::mem::replace(&mut entry.nbytes, nbytes));
        self.count(stage, before, false);
        self.count(stage, nbytes, true);
    }

    /// Pieces came or went; their sizes are claims of whoever sent them.
    pub fn count_pieces(&mut self, nbytes: u64, is_more: bool) {
        self.pieces_nbytes = match is_more {
            true => self.pieces_nbytes.saturating_add(nbytes),
            false => self.pieces_nbytes.saturating_sub(nbytes),
        };
    }

    pub fn is_no_copy(&mut self, task: TaskId) {
        if let Some(entry) = self.entries.get_mut(&task) {
            entry.is_copy = false;
        }
    }

    /// Everything is let go; the records that are to go with it.
    pub fn clear(&mut self) -> Vec<u64> {
        let mut tasks: Vec<TaskId> = self.entries.keys().copied().collect();
        tasks.sort_unstable();
        self.reading.clear();
        self.writing.clear();
        tasks.into_iter().filter_map(|task| self.leave(task)?.record).collect()
    }

    /// Whether a value is on its way back, or is to be.
    pub fn brings(&self, task: TaskId) -> bool {
        let entry = self.entries.get(&task);
        entry.is_some_and(|entry| matches!(entry.stage, Stage::Wanted | Stage::Coming))
    }

    /// What the counters say and a recount does not: for tests and simulation (15, 16).
    pub fn audit(&self) -> Vec<String> {
        let sum = |stages: &[Stage]| -> u64 {
            let among = self.entries.values().filter(|entry| stages.contains(&entry.stage));
            among.map(|entry| entry.nbytes).sum()
        };
        let n_away = self
            .entries
            .values()
            .filter(|entry| matches!(entry.stage, Stage::Away | Stage::Wanted | Stage::Coming));
        let counted = [
            ("leaving", self.leaving_nbytes, sum(&[Stage::Leaving])),
            ("wanted", self.wanted_nbytes, sum(&[Stage::Wanted])),
            ("coming", self.coming_nbytes, sum(&[Stage::Coming])),
            ("away", u64::from(self.n_away), n_away.count() as u64),
        ];
        let mut wrong: Vec<String> = counted
            .into_iter()
            .filter(|(_, n, recount)| n != recount)
            .map(|(what, n, recount)| format!("{n} are {what}, counted {recount} (15)"))
            .collect();
        for (task, entry) in &self.entries {
            let is_away = matches!(entry.stage, Stage::Away | Stage::Wanted | Stage::Coming);
            if is_away && entry.record.is_none() {
                wrong.push(format!("{task:?} is on disk without a record (16)"));
            }
        }
        if self.disk_nbytes > self.options.disk_nbytes_max {
            wrong.push(format!("{} bytes are on disk, beyond the quota (15)", self.disk_nbytes));
        }
        wrong
    }

    /// A number for a new record, with room on the disk; none if there is too little.
    pub fn begin_record(&mut self, task: TaskId) -> Option<u64> {
        let entry = self.entries.get(&task)?;
        if self.disk_nbytes.saturating_add(entry.nbytes) > self.options.disk_nbytes_max
            && !mutant("quota-ignored")
        {
            return None;
        }
        self.disk_nbytes += entry.nbytes;
        self.n_records += 1;
        self.writing.insert(self.n_records, task);
        Some(self.n_records)
    }

    /// A record was written, or was not. The value it is of, unless that is gone.
    pub fn end_record(&mut self, record: u64, nbytes: u64, is_whole: bool) -> Option<TaskId> {
        let task = self.writing.remove(&record);
        if !is_whole || task.is_none() {
            self.disk_nbytes -= nbytes;
        }
        if !is_whole {
            self.rest = REST_TICKS;
        }
        let task = task?;
        if is_whole {
            self.entries.get_mut(&task)?.record = Some(record);
        }
        Some(task)
    }

    pub fn tick(&mut self) {
        self.rest = self.rest.saturating_sub(1);
        self.trouble_ticks = if self.trouble.is_some() { self.trouble_ticks + 1 } else { 0 };
    }

    /// The disk takes nothing more, for now.
    pub fn refuse(&mut self, reason: &str) {
        self.rest = REST_TICKS;
        self.trouble = Some(reason.to_owned());
    }

    fn can_write(&self) -> bool {
        self.options.has_disk && self.rest == 0 && self.disk_nbytes < self.options.disk_nbytes_max
    }

    /// Executors have taken so much shared memory, as they say.
    pub fn on_shared(&mut self, shared: impl Iterator<Item = (ExecutorId, u64)>) {
        self.shared.clear();
        self.shared.extend(shared);
        self.shared_nbytes = self.shared.iter().map(|(id, told)| self.shared_of(*id, *told)).sum();
    }

    /// What an executor says of its shared memory counts as far as it can be.
    fn shared_of(&self, id: ExecutorId, told: u64) -> u64 {
        let seen = self.measured.executors.iter().find(|(other, ..)| *other == id);
        seen.map_or(told, |(_, _, mapped)| told.min(mapped + SHARED_UNSEEN_NBYTES))
    }

    pub fn on_measured(&mut self, measured: Measured, held_nbytes: u64, is_idle: bool) {
        self.total_nbytes = measured.total();
        let before = std::mem::replace(&mut self.measured, measured);
        if std::mem::take(&mut self.has_ended) {
            let total = |(id, own, _): (ExecutorId, u64, u64)| (id, own + self.told_shared(id));
            self.floor = (before.executors.into_iter().map(total).collect(), self.held_nbytes);
        }
        self.shared_nbytes = self.shared.iter().map(|(id, told)| self.shared_of(*id, *told)).sum();
        self.held_nbytes = held_nbytes;
        self.n_idle = if is_idle { self.n_idle + 1 } else { 0 };
        if !self.is_paused {
            self.has_trimmed = false;
        }
        self.left_nbytes = 0;
        self.n_since_trim = self.n_since_trim.saturating_add(1);
    }

    /// Counts measurements beyond the last threshold.
    pub fn count_over(&mut self, held: &Held) {
        let is_over = self.used(held) > self.options.share(self.options.terminate);
        self.n_over = if is_over { self.n_over + 1 } else { 0 };
        self.n_tight = if self.is_tight(held) { self.n_tight.saturating_add(1) } else { 0 };
    }

    fn told_shared(&self, id: ExecutorId) -> u64 {
        let told = self.shared.iter().find(|(other, _)| *other == id);
        told.map_or(0, |(id, told)| self.shared_of(*id, *told))
    }

    /// Whether an executor took a good part of the limit since a call ended the last time, beside
    /// the values that are held.
    pub fn has_grown(&self, executor: ExecutorId, nbytes: u64, held: &Held) -> bool {
        let (executors, held_before) = &self.floor;
        let before = executors.iter().find(|(id, _)| *id == executor).map_or(0, |(_, n)| *n);
        let own_before = before.saturating_sub(*held_before);
        let own = nbytes.saturating_sub(held.nbytes).saturating_sub(own_before);
        own.min(nbytes.saturating_sub(before)) > self.options.share(BLAME)
    }

    /// Whether values could leave but for the disk, which is given some time.
    pub fn waits_for_disk(&self) -> bool {
        self.trouble.is_some() && self.trouble_ticks < PATIENCE_TICKS
    }

    pub fn is_moving(&self) -> bool {
        self.leaving_nbytes + self.coming_nbytes + self.wanted_nbytes > 0
    }

    /// Memory in use, bytes: as measured, with the shared memory that executors have taken, and
    /// never less than what is held. What is kept empty for values that come back does not count:
    /// those fill it first, and it is given back before anything is stopped for want of memory.
    pub fn used(&self, held: &Held) -> u64 {
        self.used_with(self.coming_nbytes, held)
    }

    /// What is kept empty, of what was measured.
    fn idle_nbytes(&self) -> u64 {
        self.measured.idle_nbytes.min(self.measured.core_nbytes)
    }

    /// The same, if values of so many bytes were on their way back.
    fn used_with(&self, coming_nbytes: u64, held: &Held) -> u64 {
        let measured = self.total_nbytes.saturating_sub(self.left_nbytes) + self.shared_nbytes;
        let measured = measured.saturating_sub(self.idle_nbytes());
        // Reserved memory counts before it is filled, and is measured from then on.
        let promised =
            held.nbytes.saturating_add(self.native_nbytes.saturating_add(self.pieces_nbytes));
        measured.max(promised).saturating_add(coming_nbytes)
    }

    /// Bytes that have still to leave.
    fn excess(&self, held: &Held) -> u64 {
        let target = self.options.share(self.options.target);
        let next = self.first_wanted_nbytes;
        let values = held.nbytes.saturating_add(self.coming_nbytes + next);
        let needed = values.saturating_add(self.native_nbytes.saturating_add(self.pieces_nbytes));
        let beyond = needed.saturating_sub(target);
        let spill = self.options.share(self.options.spill);
        let used = self.used_with(self.coming_nbytes + next, held);
        // Executors are told to give back what no value needs before values leave for it; unless
        // there is no time for that.
        let is_lasting = self.n_tight > 1 || used > self.options.share(self.options.pause);
        let measured = match used > spill {
            true if is_lasting => {
                let until = self.options.share(self.options.spill - SLACK).max(target);
                used.saturating_sub(until.min(spill))
            }
            // What is to come back has to find room all the same.
            true if next > 0 => (used - spill).min(next),
            _ => 0,
        };
        beyond.max(measured).saturating_sub(self.leaving_nbytes)
    }

    /// Whether a value has to leave now.
    pub fn wants_room(&self, held: &Held) -> bool {
        let most = self.options.share(LEAVING).max(LEAVING_NBYTES_MIN);
        self.leaving_nbytes < most && !self.entries.is_empty() && self.excess(held) > 0
    }

    /// The value that was needed least recently and can leave.
    pub fn victim(&self, is_pinned: impl Fn(TaskId) -> bool) -> Option<TaskId> {
        let can_write = self.can_write();
        let can_leave = |(stamp, task): &(u64, TaskId)| {
            let Some(entry) = self.entries.get(task) else { return false };
            let has_way = can_write || entry.record.is_some() || entry.is_copy;
            entry.stamp == *stamp && entry.stage == Stage::Here && has_way && !is_pinned(*task)
        };
        self.order.iter().find(|note| can_leave(note)).map(|(_, task)| *task)
    }

    /// Whether a value of so many bytes may come back now. Where nothing else can happen, it may.
    pub fn has_room_for(&self, nbytes: u64, held: &Held, is_running: bool) -> bool {
        let coming_nbytes = self.coming_nbytes;
        if !is_running && coming_nbytes == 0 && self.leaving_nbytes == 0 {
            return true;
        }
        let is_queue_full =
            coming_nbytes > nbytes && coming_nbytes + nbytes > self.options.share(COMING);
        let used = self.used_with(coming_nbytes + nbytes, held);
        !is_queue_full && used <= self.options.share(self.options.spill)
    }

    /// Looks where memory stands; whether the pause began (true) or ended (false) just now.
    pub fn look(&mut self, held: &Held) -> Option<bool> {
        let used = self.used(held);
        let passed = |share: f64, was: bool| {
            used > self.options.share(if was { share - SLACK } else { share })
        };
        let is_paused = self.options.pause > 0.0 && passed(self.options.pause, self.is_paused);
        self.is_crowded = passed(CROWDED, self.is_crowded);
        let changed = is_paused != self.is_paused;
        self.is_paused = is_paused;
        changed.then_some(is_paused)
    }

    /// Whether so much is in use that calls are to run one by one, without others in advance.
    pub fn is_tight(&self, held: &Held) -> bool {
        self.is_on() && self.used(held) > self.options.share(self.options.spill)
    }

    /// Whether memory that is kept empty is to be given back: with it, no more could run.
    pub fn is_idle_too_much(&self, held: &Held) -> bool {
        let idle_nbytes = self.idle_nbytes();
        let pause = self.options.share(self.options.pause);
        idle_nbytes > 0 && self.used(held).saturating_add(idle_nbytes) > pause
    }

    /// Whether executors are to give back memory that no value needs: before values leave for it,
    /// and before any of them has to end.
    pub fn is_trim_due(&self, held: &Held) -> bool {
        let used = self.used(held);
        let is_over = used > self.options.share(self.options.terminate);
        let after = if is_over { TRIM_AGAIN } else { TRIM_EVERY };
        used > self.options.share(self.options.spill) && self.n_since_trim > after
    }

    /// The executor that has to end: it alone can bring memory back below the last threshold.
    pub fn doomed(&self, held: &Held) -> Option<(ExecutorId, u64)> {
        let used = self.used(held);
        if used <= self.options.share(self.options.terminate) {
            return None;
        }
        // What is leaving may be enough, as long as there is time.
        if self.leaving_nbytes > 0 && used <= self.options.limit_nbytes {
            return None;
        }
        let total = |(id, own, _): &(ExecutorId, u64, u64)| (*id, own + self.told_shared(*id));
        let largest = self.measured.executors.iter().map(total).max_by_key(|(_, nbytes)| *nbytes);
        // One that does not grow gets the time to give back what it does not need.
        let is_due = |(id, nbytes): &(ExecutorId, u64)| {
            self.n_over >= OVER_MAX || self.has_grown(*id, *nbytes, held)
        };
        largest.filter(is_due)
    }

    /// Bytes of spilled values, as they are told.
    pub fn away_nbytes(&self) -> u64 {
        let away = |entry: &&Entry| matches!(entry.stage, Stage::Away | Stage::Wanted);
        if self.n_away == 0 {
            return 0;
        }
        self.entries.values().filter(away).map(|entry| entry.nbytes).sum()
    }
}
