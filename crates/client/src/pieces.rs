//! What is known of the tasks of one layer: stretches of ended tasks, by position.

use rasker_graph::TaskId;
use rasker_protocol::{Failure, FailureKind, Value, WorkerId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How a task ended, and where its value is.
#[derive(Clone, Debug, PartialEq)]
pub enum Ending {
    Finished {
        holder: WorkerId,
        /// The name of the value on its holder.
        held_as: TaskId,
        nbytes: u64,
        value: Option<Value>,
    },
    Failed(Arc<Failure>),
}

impl Ending {
    pub(crate) fn slice(&self, start: u32, count: u32) -> Ending {
        match self {
            Ending::Failed(failure) => Ending::Failed(failure.clone()),
            Ending::Finished { holder, held_as, nbytes, value } => Ending::Finished {
                holder: *holder,
                held_as: TaskId::new(held_as.layer, held_as.index.wrapping_add(start)),
                nbytes: *nbytes,
                value: value.as_ref().map(|value| value.slice(start, count)),
            },
        }
    }
}

#[derive(Debug)]
struct Piece {
    count: u32,
    ending: Ending,
}

/// Ended tasks in stretches that do not overlap.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    pieces: BTreeMap<u32, Piece>,
    pub n_ended: u32,
}

impl Pieces {
    pub fn get(&self, index: u32) -> Option<Ending> {
        let (start, piece) = self.pieces.range(..=index).next_back()?;
        let at = index - start;
        (at < piece.count).then(|| piece.ending.slice(at, 1))
    }

    /// Whether the task was cancelled.
    pub fn is_cancelled(&self, index: u32) -> bool {
        let found = self.pieces.range(..=index).next_back();
        found.is_some_and(|(start, piece)| {
            index - start < piece.count
                && matches!(&piece.ending, Ending::Failed(f) if f.kind == FailureKind::Cancelled)
        })
    }

    /// The parts of a stretch that were not cancelled.
    pub fn not_cancelled(&self, start: u32, count: u32) -> Vec<(u32, u32)> {
        let end = start.saturating_add(count);
        let first = self.pieces.range(..=start).next_back().map_or(start, |(at, _)| *at);
        let (mut open, mut from) = (Vec::new(), start);
        for (&at, piece) in self.pieces.range(first..end) {
            let piece_end = at + piece.count;
            if piece_end <= from || !self.is_cancelled(at) {
                continue;
            }
            if from < at {
                open.push((from, at - from));
            }
            from = piece_end;
        }
        if from < end {
            open.push((from, end - from));
        }
        open
    }

    /// The stretch that `index` lies in, from `index` on: how long it is, and how it ended.
    pub fn stretch(&self, index: u32) -> Option<(u32, Ending)> {
        let (start, piece) = self.pieces.range(..=index).next_back()?;
        let at = index - start;
        (at < piece.count).then(|| (piece.count - at, piece.ending.slice(at, piece.count - at)))
    }

    /// Replaces what is known of a stretch. Returns the positions that had not ended before.
    pub fn insert(&mut self, start: u32, count: u32, ending: Ending) -> Vec<(u32, u32)> {
        let known = self.remove(start, count);
        self.pieces.insert(start, Piece { count, ending });
        self.n_ended += count;
        let mut new = Vec::new();
        let mut at = start;
        for (from, n) in known {
            if at < from {
                new.push((at, from - at));
            }
            at = from + n;
        }
        if at < start + count {
            new.push((at, start + count - at));
        }
        new
    }

    /// Takes a stretch out.
    pub fn split_off(&mut self, start: u32, count: u32) -> Pieces {
        let mut off = Pieces::default();
        let mut at = start;
        while at < start + count {
            match self.stretch(at) {
                Some((n, ending)) => {
                    let n = n.min(start + count - at);
                    off.pieces.insert(at, Piece { count: n, ending: ending.slice(0, n) });
                    at += n;
                }
                None => match self.pieces.range(at..start + count).next() {
                    Some((next, _)) => at = *next,
                    None => break,
                },
            }
        }
        self.remove(start, count);
        off
    }

    /// Forgets a stretch. Returns what was known in it.
    pub fn remove(&mut self, start: u32, count: u32) -> Vec<(u32, u32)> {
        let end = start + count;
        let from = self.pieces.range(..=start).next_back().map_or(start, |(at, _)| *at);
        let touched: Vec<u32> = self.pieces.range(from..end).map(|(at, _)| *at).collect();
        let mut gone = Vec::new();
        for at in touched {
            let piece_end = at + self.pieces[&at].count;
            let (first, last) = (at.max(start), piece_end.min(end));
            if first >= last {
                continue;
            }
            let piece = self.pieces.remove(&at).expect("just listed");
            for (a, b) in [(at, first), (last, piece_end)] {
                if a < b {
                    let ending = piece.ending.slice(a - at, b - a);
                    self.pieces.insert(a, Piece { count: b - a, ending });
                }
            }
            gone.push((first, last - first));
            self.n_ended -= last - first;
        }
        gone
    }
}
