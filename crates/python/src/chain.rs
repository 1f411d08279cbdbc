//! Chains: calls of a graph that run one after another as one task.
//!
//! A call whose result only one other reads, which reads nothing else, is fused with it: nothing is
//! stored, reported or scheduled in between. Bytes: the mark, the number of steps, and for each its
//! template (16 bytes), the length of its arguments, and the arguments as a task has them alone.
//! The first step reads the task's inputs, each later one the result of the step before.

use crate::compact::{self, CHAIN, Reader};
use pyo3::prelude::*;
use rasker_graph::TemplateId;

pub struct Step<'a> {
    pub template: TemplateId,
    pub args: &'a [u8],
}

pub fn write<'a>(steps: impl ExactSizeIterator<Item = Step<'a>>) -> Vec<u8> {
    let mut bytes = vec![CHAIN];
    compact::put_varint(&mut bytes, steps.len() as u64);
    for step in steps {
        bytes.extend_from_slice(&step.template.0.to_le_bytes());
        compact::put_varint(&mut bytes, step.args.len() as u64);
        bytes.extend_from_slice(step.args);
    }
    bytes
}

/// The steps, if it is a chain.
pub fn read(bytes: &[u8]) -> PyResult<Option<Vec<Step<'_>>>> {
    let Some((&CHAIN, rest)) = bytes.split_first() else { return Ok(None) };
    let mut reader = Reader::new(rest);
    let n = reader.varint()?;
    let mut steps = Vec::new();
    for _ in 0..n {
        let id = reader.take(16)?.try_into().expect("sixteen bytes");
        let len = reader.varint()? as usize;
        let args = reader.take(len)?;
        steps.push(Step { template: TemplateId(u128::from_le_bytes(id)), args });
    }
    Ok(Some(steps))
}
