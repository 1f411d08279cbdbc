//! Exchanges among the tasks of the open page, and who reads which parts of them.

use crate::client::{Client, NewTask};
use rasker_graph::{Key, NO_TEMPLATE, PartRange, Reading, TaskId, TemplateId};

impl Client {
    /// Enters an exchange of what these tasks write, in this order. It has no value: only readers
    /// ask for it, and its writers are kept for them.
    pub fn exchange(&mut self, key: Key, writers: &[TaskId]) -> TaskId {
        if let Some(task) = self.keys.get(&key) {
            return *task;
        }
        let new = NewTask {
            key,
            name: None,
            template: TemplateId(0),
            args: &[],
            blob: None,
            dependencies: writers,
            options: None,
            fused: &[],
        };
        let index = self.list(&new, NO_TEMPLATE);
        self.page.exchanges.push(index);
        self.add_inner(key, index)
    }

    /// Enters a task that reads parts of exchanges, which stand among its dependencies at the
    /// places given, ascending. It has one hold on it if it is `wanted`; else other tasks name it.
    pub fn submit_reader(
        &mut self,
        new: NewTask<'_>,
        reads: &[(u32, PartRange)],
        wanted: bool,
    ) -> TaskId {
        let is_known = self.keys.contains_key(&new.key);
        let task = if wanted { self.submit(new) } else { self.submit_inner(new) };
        if !is_known && task.layer == self.page_layer && task.index as usize + 1 == self.page.len()
        {
            let readings = reads.iter().map(|(place, parts)| Reading {
                reader: task.index,
                place: *place,
                parts: *parts,
            });
            self.page.readings.extend(readings);
        }
        task
    }
}
