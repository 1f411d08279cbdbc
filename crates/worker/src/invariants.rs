//! Relations between the parts of the state, recounted: for tests and simulation.

use crate::Map;
use crate::worker::Worker;
use rasker_graph::TaskId;

impl Worker {
    /// What is wrong with the state; empty when all is well.
    pub fn audit(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (number, waiting) in &self.waiting {
            let is_awaited =
                |input: &&TaskId| self.wanted_by.get(*input).is_some_and(|by| by.contains(number));
            let awaited: Vec<&TaskId> = waiting.inputs.iter().filter(is_awaited).collect();
            for input in &awaited {
                let comes = self.fetching.contains_key(*input)
                    || self.exporting.contains(*input)
                    || self.governor.brings(**input)
                    || self.unread.contains(*input);
                if !comes {
                    wrong.push(format!("a call waits for {input:?}, which nobody brings (28)"));
                }
            }
            let (n, n_missing) = (awaited.len(), waiting.n_missing);
            if n != n_missing as usize {
                wrong.push(format!("a call waits for {n} inputs, counted {n_missing} (28)"));
            }
            if n_missing == 0 && waiting.n_requests == 0 {
                wrong.push(format!("{:?} waits for nothing (2)", waiting.calls.run));
            }
        }
        for executor in &self.executors {
            let given: u32 = executor.given.iter().map(|given| given.run.count).sum();
            if given != executor.n_given {
                wrong.push(format!("{} calls given, counted {given} (1)", executor.n_given));
            }
            let miscounted = executor.miscounted();
            if !miscounted.is_empty() {
                wrong.push(format!("calls of {miscounted:?} are not counted as given (1)"));
            }
            let mut pins: Map<TaskId, u32> = Map::default();
            for task in executor.given.iter().flat_map(|given| &given.reads) {
                *pins.entry(*task).or_default() += 1;
            }
            for (task, n) in pins {
                if executor.n_pins(task) < n {
                    wrong.push(format!("{task:?} is read {n} times and not pinned (14)"));
                }
            }
        }
        wrong.extend(self.governor.audit());
        wrong
    }

    /// The tasks whose values are here.
    pub fn holdings(&self) -> Vec<TaskId> {
        let mut tasks: Vec<TaskId> = self.held.tasks().collect();
        tasks.sort_unstable();
        tasks
    }
}
