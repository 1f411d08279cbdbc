//! What every task's value must be, known when the task is entered, and which failures it may
//! have instead.

use crate::exchanges::part_of;
use crate::memory::size;
use crate::random::mix;
use rasker_graph::{PartRange, TemplateId, TemplateKind};
use rasker_protocol::{Failure, FailureKind};
use std::collections::HashSet;

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct NodeId(pub u32);

/// What a function does, told by its template.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deed {
    Small,
    Live,
    Encoded,
    Object,
    Raises,
    /// Raises now and then.
    Flaky,
    /// Ends its executor.
    Poison,
    /// Runs until it is cancelled.
    Endless,
    /// Submits tasks of its own and waits for them.
    Nested,
    /// Runs natively.
    Native,
    /// Takes more memory than there is, for a while.
    Hog,
}

const DEEDS: [Deed; 11] = [
    Deed::Small,
    Deed::Live,
    Deed::Encoded,
    Deed::Object,
    Deed::Raises,
    Deed::Flaky,
    Deed::Poison,
    Deed::Endless,
    Deed::Nested,
    Deed::Native,
    Deed::Hog,
];

/// Functions of each kind.
pub const VARIANTS: u64 = 3;

pub fn template(deed: Deed, variant: u64) -> TemplateId {
    let at = DEEDS.iter().position(|d| *d == deed).expect("listed") as u64;
    TemplateId(u128::from(at * VARIANTS + variant + 1))
}

pub fn deed(template: TemplateId) -> Deed {
    DEEDS[((template.0 as u64 - 1) / VARIANTS) as usize]
}

pub fn kind(deed: Deed) -> TemplateKind {
    if deed == Deed::Native { TemplateKind::Native } else { TemplateKind::Python }
}

/// The value of a call: what the simulated executors compute too.
pub fn value_of(template: TemplateId, arg: i64, inputs: &[i64]) -> i64 {
    let start = mix(template.0 as u64, arg as u64);
    inputs.iter().fold(start, |hash, input| mix(hash, *input as u64)) as i64
}

struct Node {
    inputs: Vec<NodeId>,
    value: i64,
    /// Raises for certain.
    raises: bool,
    may_raise: bool,
    is_scattered: bool,
    may_be_missing: bool,
    is_cancelled: bool,
    is_retried: bool,
    is_poison: bool,
    is_hog: bool,
    /// It, or what it reads, runs until it is cancelled.
    is_endless: bool,
}

#[derive(Default)]
pub struct Oracle {
    nodes: Vec<Node>,
    pub n_deaths: u32,
    pub n_losses: u32,
    /// Values that a disk did not take.
    pub n_refusals: u32,
    /// There are limits to memory, bytes; how much a disk may hold is limited too.
    pub limit_nbytes: u64,
    pub has_quota: bool,
    is_restarted: bool,
}

impl Oracle {
    pub fn call(&mut self, template: TemplateId, arg: i64, inputs: Vec<NodeId>) -> NodeId {
        let values: Vec<i64> = inputs.iter().map(|input| self.value(*input)).collect();
        let deed = deed(template);
        let raises = deed == Deed::Raises || inputs.iter().any(|i| self.node(*i).raises);
        let is_endless = deed == Deed::Endless || inputs.iter().any(|i| self.is_endless(*i));
        self.add(Node {
            value: value_of(template, arg, &values),
            inputs,
            raises,
            may_raise: raises || deed == Deed::Flaky,
            is_scattered: false,
            may_be_missing: false,
            is_cancelled: false,
            is_retried: false,
            is_poison: deed == Deed::Poison,
            is_hog: deed == Deed::Hog,
            is_endless,
        })
    }

    /// A call that reads parts of what tasks wrote, or whole values, in this order.
    pub fn reader(
        &mut self,
        template: TemplateId,
        arg: i64,
        read: &[(NodeId, Option<PartRange>)],
    ) -> NodeId {
        let values: Vec<i64> = (read.iter())
            .flat_map(|(node, parts)| {
                let value = self.value(*node);
                match parts {
                    None => vec![value],
                    Some(parts) => {
                        (parts.start..parts.end).map(|part| part_of(value, part)).collect()
                    }
                }
            })
            .collect();
        let id = self.call(template, arg, read.iter().map(|(node, _)| *node).collect());
        self.nodes[id.0 as usize].value = value_of(template, arg, &values);
        id
    }

    fn leaf(&mut self, value: i64, inputs: Vec<NodeId>, raises: bool) -> Node {
        Node {
            inputs,
            value,
            raises,
            may_raise: false,
            is_scattered: false,
            may_be_missing: false,
            is_cancelled: false,
            is_retried: false,
            is_poison: false,
            is_hog: false,
            is_endless: false,
        }
    }

    pub fn scattered(&mut self, value: i64) -> NodeId {
        let node = self.leaf(value, vec![], false);
        self.add(Node { is_scattered: true, ..node })
    }

    /// Another client's name for a task that may be gone when it is asked for.
    pub fn adopted(&mut self, of: NodeId) -> NodeId {
        let node = self.leaf(self.value(of), vec![of], self.node(of).raises);
        self.add(Node { may_be_missing: true, is_endless: self.is_endless(of), ..node })
    }

    fn add(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        NodeId(self.nodes.len() as u32 - 1)
    }

    pub fn n_nodes(&self) -> u64 {
        self.nodes.len() as u64
    }

    fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    /// Whether its value is never made.
    pub fn is_endless(&self, id: NodeId) -> bool {
        self.node(id).is_endless
    }

    pub fn value(&self, id: NodeId) -> i64 {
        self.node(id).value
    }

    pub fn cancel(&mut self, id: NodeId) {
        let node = &mut self.nodes[id.0 as usize];
        node.is_cancelled = true;
        if node.may_be_missing {
            // It is another's task under a name of one's own.
            let of = node.inputs[0];
            self.cancel(of);
        }
    }

    pub fn retry(&mut self, id: NodeId) {
        let node = &mut self.nodes[id.0 as usize];
        node.is_retried = true;
        if node.may_be_missing {
            let of = node.inputs[0];
            self.retry(of);
        }
    }

    pub fn restart(&mut self) {
        self.is_restarted = true;
    }

    /// What is wrong with a value that a client saw.
    pub fn judge_value(&self, id: NodeId, seen: i64) -> Option<String> {
        let node = self.node(id);
        if node.raises {
            Some(format!("{id:?} has the value {seen:x}, but its call raises"))
        } else if node.value != seen {
            Some(format!("{id:?} has the value {seen:x} instead of {:x}", node.value))
        } else {
            None
        }
    }

    /// What is wrong with a failure that a client saw.
    pub fn judge_failure(&self, id: NodeId, failure: &Failure) -> Option<String> {
        let n = self.n_deaths + self.n_losses;
        let mut seen = HashSet::from([id]);
        let mut open = vec![id];
        // A failed task keeps no scattered value that its user lets go; tried again, it lacks it.
        let mut is_retried = false;
        while let Some(at) = open.pop() {
            let node = self.node(at);
            is_retried |= node.is_retried;
            let is_excused = match failure.kind {
                FailureKind::Exception => node.may_raise,
                FailureKind::Cancelled => {
                    node.is_cancelled || node.may_be_missing || self.is_restarted
                }
                FailureKind::Killed => node.is_poison || n > 3,
                FailureKind::Lost => {
                    let is_gone = n > 0 || node.is_cancelled || is_retried;
                    node.may_be_missing || self.is_restarted || (node.is_scattered && is_gone)
                }
                FailureKind::OutOfMemory => {
                    let inputs: u64 = node.inputs.iter().map(|i| size(self.value(*i))).sum();
                    let is_too_much = self.limit_nbytes > 0 && inputs > self.limit_nbytes;
                    let is_stuck = self.n_refusals > 0 || self.has_quota;
                    node.is_hog || is_too_much || (is_stuck && self.limit_nbytes > 0)
                }
                FailureKind::Unpicklable => false,
            };
            if is_excused {
                return None;
            }
            open.extend(node.inputs.iter().copied().filter(|input| seen.insert(*input)));
        }
        Some(format!("{id:?} failed without a reason: {:?} {}", failure.kind, failure.text))
    }
}
