//! One executor as its worker knows it: what it was given and has not answered.

use crate::Map;
use hashbrown::HashSet;
use rasker_graph::{Run, TaskId, Template, TemplateId};
use rasker_protocol::{ExecutorCalls, ExecutorId, ToExecutor};
use std::collections::VecDeque;

/// Work an executor has in hand per thread, ns: enough to hide the way to it and back.
pub(crate) const FEED_NS: f64 = 2e6;

pub(crate) struct Given {
    pub run: Run,
    pub attempt: u32,
    pub template: TemplateId,
}

pub(crate) struct Executor {
    pub id: ExecutorId,
    pub is_up: bool,
    /// Calls that run at once.
    pub nthreads: u32,
    /// Calls in the order they were given, less what is done.
    pub given: VecDeque<Given>,
    pub n_given: u32,
    known: HashSet<TemplateId, foldhash::fast::FixedState>,
    // What is to be said at the end of the turn.
    pub templates: Vec<Template>,
    pub calls: Vec<ExecutorCalls>,
    pub dropped: Vec<Run>,
    pub out: Vec<ToExecutor>,
    pub recalling: bool,
}

impl Executor {
    pub fn new(id: ExecutorId, nthreads: u32) -> Executor {
        Executor {
            id,
            is_up: false,
            nthreads,
            given: VecDeque::new(),
            n_given: 0,
            known: HashSet::default(),
            templates: Vec::new(),
            calls: Vec::new(),
            dropped: Vec::new(),
            out: Vec::new(),
            recalling: false,
        }
    }

    pub fn teach(&mut self, id: TemplateId, templates: &Map<TemplateId, Template>) {
        if self.known.insert(id)
            && let Some(template) = templates.get(&id)
        {
            self.templates.push(template.clone());
        }
    }

    pub fn give(&mut self, calls: ExecutorCalls) {
        self.n_given += calls.run.count;
        self.given.push_back(Given {
            run: calls.run,
            attempt: calls.attempt,
            template: calls.template,
        });
        self.calls.push(calls);
    }

    /// Takes answered calls off; none if they were never given: the answer is not believed.
    pub fn take(&mut self, run: Run, attempt: u32) -> Option<TemplateId> {
        let at = self.given.iter().position(|given| {
            given.attempt == attempt && given.run.intersect(run) == Some(run)
        })?;
        let given = &mut self.given[at];
        let template = given.template;
        self.n_given -= run.count;
        let whole = given.run;
        if whole == run {
            self.given.remove(at);
        } else if run.start == whole.start {
            given.run = Run::new(run.layer, run.end(), whole.end() - run.end());
        } else {
            given.run.count = run.start - whole.start;
            if run.end() < whole.end() {
                let rest = Run::new(run.layer, run.end(), whole.end() - run.end());
                self.given.insert(at + 1, Given { run: rest, attempt, template });
            }
        }
        Some(template)
    }

    /// Time the calls in hand will take, ns.
    pub fn load_ns(&self, duration_ns: impl Fn(TemplateId) -> f64) -> f64 {
        self.given.iter().map(|g| f64::from(g.run.count) * duration_ns(g.template)).sum()
    }

    pub fn drop_value(&mut self, task: TaskId) {
        Run::push(&mut self.dropped, task);
    }

    /// What is to be said now, in an order that makes sense to the executor.
    pub fn speak(&mut self, mut say: impl FnMut(ToExecutor)) {
        if !self.is_up {
            return;
        }
        // Values go first: a task that is computed anew under the same id must not be dropped.
        if !self.dropped.is_empty() {
            say(ToExecutor::Drop(std::mem::take(&mut self.dropped)));
        }
        if !self.templates.is_empty() {
            say(ToExecutor::Define(std::mem::take(&mut self.templates)));
        }
        if !self.calls.is_empty() {
            say(ToExecutor::Calls(std::mem::take(&mut self.calls)));
        }
        self.out.drain(..).for_each(&mut say);
    }
}
