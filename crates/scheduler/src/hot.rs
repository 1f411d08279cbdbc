//! Values that many workers want at once: who is to get them from whom.
//!
//! A holder serves a few readers at a time. Beyond that, a reader is sent to one that is about to
//! have the value, which answers as soon as it does; so a value goes to a hundred workers in a few
//! rounds, and its first holder serves about ten of them.

use crate::scheduler::Scheduler;
use crate::table::{State, TaskRef};
use crate::values::Holders;
use rasker_protocol::probe::sometimes;
use rasker_protocol::{Source, WorkerId};

/// Transfers of one value that are under way: reader, and whom it was sent to.
#[derive(Default)]
pub(crate) struct Transfers(Vec<(WorkerId, WorkerId)>);

impl Transfers {
    fn n_from(&self, source: WorkerId) -> usize {
        self.0.iter().filter(|(_, from)| *from == source).count()
    }

    fn end(&mut self, reader: WorkerId) {
        self.0.retain(|(to, _)| *to != reader);
    }
}

impl Scheduler {
    /// Where a call's input is to come from. Only a call's first attempt is sent to a worker that
    /// does not have it yet.
    pub(crate) fn source_among(
        &mut self,
        task: TaskRef,
        reader: WorkerId,
        is_first: bool,
    ) -> Option<Source> {
        let State::Memory { nbytes, .. } = self.state(task) else { return None };
        if (nbytes as u64) < self.options.spread_nbytes {
            return self.source_for(task, reader);
        }
        let worker = self.least_asked(task, reader, is_first);
        Some(Source { run: self.table.id(task).run(), worker, nbytes: nbytes as u64 })
    }

    /// Whom a reader is sent to for a value that takes time to bring over.
    fn least_asked(&mut self, task: TaskRef, reader: WorkerId, is_first: bool) -> WorkerId {
        let holders = self.heard_holders_of(task);
        let transfers = self.transfers.entry(task).or_default();
        transfers.end(reader);
        // Those that get it from a holder: a longer chain could be closed to a ring.
        let coming = transfers.0.iter().filter(|(_, from)| holders.contains(from));
        let coming: Holders =
            coming.map(|(to, _)| *to).filter(|to| !holders.contains(to)).collect();
        let there = holders.iter().map(|id| (transfers.n_from(*id), 0, *id));
        let soon = coming.iter().map(|id| (transfers.n_from(*id) + 1, 1, *id));
        let soon = soon.filter(|_| is_first);
        let (_, is_coming, source) = there.chain(soon).min().expect("a value has a holder");
        transfers.0.push((reader, source));
        if is_coming == 1 {
            sometimes("a reader was sent to one that was about to have the value");
        }
        source
    }

    /// A value came to a reader, or it does not have it.
    pub(crate) fn transfer_ended(&mut self, task: TaskRef, reader: WorkerId) {
        if let Some(transfers) = self.transfers.get_mut(&task) {
            transfers.end(reader);
            if transfers.0.is_empty() {
                self.transfers.remove(&task);
            }
        }
    }

    /// A worker that is gone brings nothing over.
    pub(crate) fn transfers_without(&mut self, worker: WorkerId) {
        self.transfers.retain(|_, transfers| {
            transfers.0.retain(|(to, from)| *to != worker && *from != worker);
            !transfers.0.is_empty()
        });
    }
}
