//! Identifiers. All are plain integers; what a user names is exchanged for one at the door.

use serde::{Deserialize, Serialize};
use std::fmt;

/// One client session, given out by the scheduler and never used twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct ClientId(pub u32);

/// A layer of one client: the client's id above, its own count below.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LayerId(pub u64);

impl LayerId {
    pub fn new(client: ClientId, count: u32) -> LayerId {
        LayerId((u64::from(client.0) << 32) | u64::from(count))
    }
    pub fn client(self) -> ClientId {
        ClientId((self.0 >> 32) as u32)
    }
}

impl fmt::Debug for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "L{}.{}", self.0 >> 32, self.0 as u32)
    }
}

/// One task: a position in a layer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TaskId {
    pub layer: LayerId,
    pub index: u32,
}

impl TaskId {
    pub fn new(layer: LayerId, index: u32) -> TaskId {
        TaskId { layer, index }
    }
    pub fn run(self) -> Run {
        Run { layer: self.layer, start: self.index, count: 1 }
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}#{}", self.layer, self.index)
    }
}

/// Contiguous positions of one layer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Run {
    pub layer: LayerId,
    pub start: u32,
    pub count: u32,
}

impl Run {
    pub fn new(layer: LayerId, start: u32, count: u32) -> Run {
        Run { layer, start, count }
    }
    /// The first position after it; a count from elsewhere may claim more than there are.
    pub fn end(self) -> u32 {
        self.start.saturating_add(self.count)
    }
    pub fn indices(self) -> std::ops::Range<u32> {
        self.start..self.end()
    }
    pub fn tasks(self) -> impl Iterator<Item = TaskId> {
        self.indices().map(move |index| TaskId { layer: self.layer, index })
    }
    pub fn contains(self, task: TaskId) -> bool {
        self.layer == task.layer && self.start <= task.index && task.index < self.end()
    }
    /// The part that both runs have in common.
    pub fn intersect(self, other: Run) -> Option<Run> {
        if self.layer != other.layer {
            return None;
        }
        let start = self.start.max(other.start);
        let end = self.end().min(other.end());
        (start < end).then(|| Run::new(self.layer, start, end - start))
    }
    /// The parts of this run that are not in `other`.
    pub fn without(self, other: Run) -> Vec<Run> {
        let Some(common) = self.intersect(other) else { return vec![self] };
        let before = Run::new(self.layer, self.start, common.start - self.start);
        let after = Run::new(self.layer, common.end(), self.end() - common.end());
        [before, after].into_iter().filter(|part| part.count > 0).collect()
    }
    /// Adds `task` to the end of the last of `runs`, or starts a new one.
    pub fn push(runs: &mut Vec<Run>, task: TaskId) {
        match runs.last_mut() {
            Some(run) if run.layer == task.layer && run.end() == task.index => run.count += 1,
            _ => runs.push(task.run()),
        }
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}#{}+{}", self.layer, self.start, self.count)
    }
}

/// The hash of a key: of its text, or of the call that makes it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key(pub u128);

impl Key {
    /// The key of one position of a layer whose own key is `self`.
    pub fn item(self, index: u32) -> Key {
        // A fixed odd multiplier spreads neighbours over the table; the layer's key is a hash.
        Key(self.0
            ^ (u128::from(index) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The hash of a template's code.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TemplateId(pub u128);

impl fmt::Debug for TemplateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{:08x}", self.0 as u32)
    }
}
