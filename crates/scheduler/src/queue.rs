//! Lines of ready tasks.

use crate::table::TaskRef;
use rasker_protocol::Priority;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// A ready task in a queue; the smallest runs first. An entry whose task is no longer ready is
/// skipped when it is met.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Entry {
    pub priority: Priority,
    pub index: u32,
    pub layer: u32,
}

impl Entry {
    pub fn task(self) -> TaskRef {
        TaskRef { layer: self.layer, index: self.index }
    }
}

/// Entries, the smallest first. Tasks mostly become ready in the order in which they are to run:
/// those stand in a line, which costs nothing to keep in order, and only the others in a heap.
#[derive(Default)]
pub(crate) struct Queue {
    line: VecDeque<Entry>,
    heap: BinaryHeap<Reverse<Entry>>,
}

impl Queue {
    pub fn push(&mut self, entry: Entry) {
        if self.line.back().is_none_or(|last| *last <= entry) {
            self.line.push_back(entry);
        } else {
            self.heap.push(Reverse(entry));
        }
    }

    pub fn peek(&self) -> Option<Entry> {
        let first = self.heap.peek().map(|Reverse(entry)| *entry);
        self.line.front().copied().into_iter().chain(first).min()
    }

    pub fn pop(&mut self) -> Option<Entry> {
        match (self.line.front(), self.heap.peek()) {
            (Some(first), Some(Reverse(other))) if other < first => {}
            (Some(_), _) => return self.line.pop_front(),
            _ => {}
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }

    /// The entry that another worker may best take: the last of those that are as urgent as the
    /// first, as its neighbors are the farthest from being run here.
    pub fn peek_to_lend(&self) -> Option<Entry> {
        let first = self.peek()?;
        let last = self.line.back().filter(|last| last.priority == first.priority);
        Some(*last.unwrap_or(&first))
    }

    /// Takes out what `peek_to_lend` shows.
    pub fn pop_to_lend(&mut self) -> Option<Entry> {
        let lent = self.peek_to_lend()?;
        if self.line.back() == Some(&lent) { self.line.pop_back() } else { self.pop() }
    }

    pub fn len(&self) -> usize {
        self.line.len() + self.heap.len()
    }

    pub fn is_empty(&self) -> bool {
        self.line.is_empty() && self.heap.is_empty()
    }

    /// In no order of use, but always the same one.
    pub fn iter(&self) -> impl Iterator<Item = Entry> + '_ {
        self.line.iter().copied().chain(self.heap.iter().map(|Reverse(entry)| *entry))
    }
}
