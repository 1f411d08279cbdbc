//! Exchanges: tasks without work of their own, by which M writers hand their parts to N readers.
//!
//! An exchange depends on its writers and its readers depend on it, so there are M + N edges. It is
//! open while all writers are in memory, and has no value and no holder. A reader's call names the
//! exchange and a range of parts; who holds what the writers made is told to each worker once.

use crate::scheduler::Scheduler;
use crate::table::{Recipe, State, TaskList, TaskRef};
use rasker_graph::{PartRange, TaskId};
use rasker_protocol::probe::{mutant, sometimes};
use rasker_protocol::{Failure, FailureKind, OpenExchange, Source, WorkerId};
use smallvec::SmallVec;
use std::sync::Arc;

impl Scheduler {
    /// All writers are in memory: readers may begin.
    pub(crate) fn open(&mut self, exchange: TaskRef) {
        sometimes("an exchange opened");
        let mut writers = TaskList::new();
        self.table.dependencies(exchange, &mut writers);
        let nbytes = writers.iter().map(|writer| match self.state(*writer) {
            State::Memory { nbytes, .. } => nbytes,
            _ => 0.0,
        });
        let nbytes = nbytes.sum();
        let version = self.next_version();
        self.set(exchange, State::Open { version, nbytes });
        if mutant("writers-freed-when-open") {
            writers.iter().for_each(|writer| self.free(*writer));
        }
        self.each_dependent(exchange, |s, reader| {
            // An exchange of exchanges fails instead: see `compute`.
            if !s.table.is_exchange(reader) {
                s.wake(reader);
            }
        });
        let record = self.table.task(exchange);
        if record.waiting_dependents == 0 && !record.is_wanted() {
            self.todo.push(crate::scheduler::Step::Consider(exchange));
        }
    }

    fn next_version(&mut self) -> u32 {
        self.n_openings = self.n_openings.wrapping_add(1);
        self.n_openings
    }

    /// An input of a task is gone.
    pub(crate) fn miss(&mut self, task: TaskRef) {
        match self.state(task) {
            State::Waiting { missing } => self.set(task, State::Waiting { missing: missing + 1 }),
            State::Ready if !mutant("ready-without-input") => {
                sometimes("a ready task lost an input");
                self.set(task, State::Waiting { missing: 1 });
            }
            State::Open { .. } if !mutant("exchange-stays-open") => {
                sometimes("an exchange closed as a writer's value was lost");
                self.set(task, State::Waiting { missing: 1 });
                self.each_dependent(task, |s, reader| {
                    if !s.table.is_exchange(reader) {
                        s.miss(reader);
                    }
                });
            }
            _ => {}
        }
    }

    /// What a writer made has moved: workers are told anew where it is before they read it.
    pub(crate) fn moved(&mut self, writer: TaskRef) {
        self.each_dependent(writer, |s, exchange| s.tell_anew(exchange));
    }

    pub(crate) fn tell_anew(&mut self, exchange: TaskRef) {
        if let State::Open { nbytes, .. } = self.state(exchange)
            && !mutant("moved-part-not-told")
        {
            let version = self.next_version();
            self.set(exchange, State::Open { version, nbytes });
        }
    }

    /// An exchange is needed no more: workers forget it.
    pub(crate) fn close(&mut self, exchange: TaskRef) {
        let id = self.table.id(exchange);
        for at in 0..self.alive.len() {
            let worker = self.alive[at];
            let known = self.worker_mut(worker).expect("alive").exchanges.remove(&exchange);
            if known.is_some() {
                self.free_at(worker, id);
            }
        }
    }

    pub(crate) fn nested_failure(&mut self, task: TaskRef) -> u32 {
        let key = self.key_text(task);
        let text = format!("exchange \"{key}\" reads another exchange; let tasks read that one");
        self.add_failure(Arc::new(Failure::new(FailureKind::Unpicklable, key, text)))
    }

    /// The exchanges that a task reads, by their place among its dependencies.
    pub(crate) fn reads(&self, task: TaskRef) -> SmallVec<[(u32, PartRange); 1]> {
        let Recipe::Page(page) = &self.table.layer(task.layer).recipe else {
            return SmallVec::new();
        };
        let from = page.readings.partition_point(|reading| reading.reader < task.index);
        let own = page.readings[from..].iter().take_while(|r| r.reader == task.index);
        let inputs = page.reads(task.index);
        let is_exchange = |place: u32| {
            let input = inputs.get(place as usize);
            input.is_some_and(|input| self.table.is_exchange(*input))
        };
        own.filter(|r| is_exchange(r.place)).map(|r| (r.place, r.parts)).collect()
    }

    /// A worker that is given a reader learns where the parts are, if it does not know.
    pub(crate) fn teach_exchanges(&mut self, id: WorkerId, task: TaskRef) {
        for (place, _) in self.reads(task) {
            let Recipe::Page(page) = &self.table.layer(task.layer).recipe else { return };
            let exchange = page.reads(task.index)[place as usize];
            let State::Open { version, .. } = self.state(exchange) else { continue };
            let worker = self.worker_mut(id).expect("alive");
            if worker.exchanges.insert(exchange, version) == Some(version) {
                continue;
            }
            let writers = self.writers(exchange, id);
            let exchange = self.table.id(exchange);
            let told = &mut self.worker_mut(id).expect("alive").opened;
            told.retain(|other| other.exchange != exchange);
            told.push(OpenExchange { exchange, writers });
        }
    }

    /// Who has what the writers made, in their order; neighbors in one place are one run.
    fn writers(&self, exchange: TaskRef, reader: WorkerId) -> Arc<[Source]> {
        let mut writers = TaskList::new();
        self.table.dependencies(exchange, &mut writers);
        let mut sources: Vec<Source> = Vec::new();
        for writer in writers {
            let source = match self.is_held_by(writer, reader) {
                true => self.source_at(writer, reader),
                false => self.source_for(writer, reader),
            };
            let Some(source) = source else { continue };
            Source::join(&mut sources, source);
        }
        sources.into()
    }

    fn source_at(&self, task: TaskRef, worker: WorkerId) -> Option<Source> {
        let State::Memory { nbytes, .. } = self.state(task) else { return None };
        Some(Source { run: self.table.id(task).run(), worker, nbytes: nbytes as u64 })
    }

    /// What a reader gets out of an exchange, roughly, bytes.
    pub(crate) fn part_nbytes(&self, exchange: TaskRef) -> f32 {
        match self.state(exchange) {
            State::Open { nbytes, .. } => {
                nbytes / self.table.task(exchange).alive_dependents.max(1) as f32
            }
            _ => 0.0,
        }
    }

    /// A reader could not get its parts: it is told anew where they are.
    pub(crate) fn reread(&mut self, task: TaskRef, named: &[(TaskId, WorkerId)]) {
        let Recipe::Page(page) = &self.table.layer(task.layer).recipe else { return };
        if page.readings.is_empty() || named.is_empty() {
            return;
        }
        let mut dependencies = TaskList::new();
        self.table.dependencies(task, &mut dependencies);
        for exchange in dependencies {
            self.tell_anew(exchange);
        }
    }
}
