//! Lines of ready tasks.

use crate::ahead::BATCH;
use crate::table::TaskRef;
use rasker_protocol::Priority;
use smallvec::SmallVec;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

/// A ready task in a queue; the smallest runs first. An entry whose task is no longer ready is
/// skipped when it is met.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Entry {
    pub priority: Priority,
    pub layer: u32,
    pub index: u32,
}

impl Entry {
    pub fn task(self) -> TaskRef {
        TaskRef { layer: self.layer, index: self.index }
    }
}

/// Positions of one layer's tasks of one priority, the smallest first. Tasks mostly become ready
/// in the order in which they are to run: those stand in a line, which costs nothing to keep in
/// order, and only the others in a heap.
#[derive(Default)]
struct Row {
    line: VecDeque<u32>,
    heap: BinaryHeap<Reverse<u32>>,
}

impl Row {
    fn push(&mut self, index: u32) {
        if self.line.back().is_none_or(|last| *last <= index) {
            self.line.push_back(index);
        } else {
            self.heap.push(Reverse(index));
        }
    }

    fn first(&self) -> Option<u32> {
        let first = self.heap.peek().map(|Reverse(index)| *index);
        self.line.front().copied().into_iter().chain(first).min()
    }

    fn pop(&mut self) {
        match (self.line.front(), self.heap.peek()) {
            (Some(first), Some(Reverse(other))) if other < first => drop(self.heap.pop()),
            (Some(_), _) => drop(self.line.pop_front()),
            (None, _) => drop(self.heap.pop()),
        }
    }

    fn is_empty(&self) -> bool {
        self.line.is_empty() && self.heap.is_empty()
    }

    fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.line.iter().copied().chain(self.heap.iter().map(|Reverse(index)| *index))
    }
}

/// Entries, the smallest first. What those of a layer have in common is kept once, so that a
/// long queue is a few bytes for each.
#[derive(Default)]
pub(crate) struct Queue {
    rows: BTreeMap<(Priority, u32), Row>,
    len: usize,
    /// So many of the next entries were shown to be read ahead.
    n_ahead: usize,
    /// An empty one, for its memory.
    spare: Row,
}

impl Queue {
    pub fn push(&mut self, entry: Entry) {
        let row = self.rows.entry((entry.priority, entry.layer));
        row.or_insert_with(|| std::mem::take(&mut self.spare)).push(entry.index);
        self.len += 1;
    }

    pub fn peek(&self) -> Option<Entry> {
        let (&(priority, layer), row) = self.rows.first_key_value()?;
        Some(Entry { priority, layer, index: row.first()? })
    }

    /// Takes out what `peek` shows.
    pub fn pop(&mut self) {
        self.pop_with(Row::pop);
    }

    fn pop_with(&mut self, pop: impl FnOnce(&mut Row)) {
        let Some(mut first) = self.rows.first_entry() else { return };
        pop(first.get_mut());
        if first.get().is_empty() {
            self.spare = first.remove();
        }
        self.len -= 1;
        self.n_ahead = self.n_ahead.saturating_sub(1);
    }

    /// The entry that another worker may best take: the last of those that are as urgent as the
    /// first, as its neighbors are the farthest from being run here.
    pub fn peek_to_lend(&self) -> Option<Entry> {
        let (&(priority, layer), row) = self.rows.first_key_value()?;
        let index = row.line.back().copied().or(row.first())?;
        Some(Entry { priority, layer, index })
    }

    /// Takes out what `peek_to_lend` shows.
    pub fn pop_to_lend(&mut self) {
        self.pop_with(|row| {
            if row.line.pop_back().is_none() {
                row.pop();
            }
        });
    }

    /// Every so often, most of the tasks that are met next, so that what is known of them can be
    /// read ahead.
    pub fn look_ahead(&mut self) -> SmallVec<[TaskRef; BATCH]> {
        if self.n_ahead > 0 || self.len < BATCH {
            return SmallVec::new();
        }
        self.n_ahead = BATCH / 2;
        let Some((&(_, layer), row)) = self.rows.first_key_value() else {
            return SmallVec::new();
        };
        // The first of a heap stand near its top.
        let first = row.heap.as_slice().iter().take(BATCH / 2).map(|Reverse(index)| *index);
        let next = first.chain(row.line.iter().copied()).take(BATCH);
        next.map(|index| TaskRef { layer, index }).collect()
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// In no order of use, but always the same one.
    pub fn iter(&self) -> impl Iterator<Item = Entry> + '_ {
        self.rows.iter().flat_map(|(&(priority, layer), row)| {
            row.iter().map(move |index| Entry { priority, layer, index })
        })
    }
}
