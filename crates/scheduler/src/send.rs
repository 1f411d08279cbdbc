//! What a worker is told of the calls it gets.

use crate::queue::Entry;
use crate::scheduler::Scheduler;
use crate::story::Moment;
use crate::table::{MapInput, Recipe, State, TaskList, TaskRef};
use crate::template::TemplateIx;
use rasker_graph::{Input, Key, Run};
use rasker_protocol::probe::mutant;
use rasker_protocol::{CallWork, Calls, Label, Source, WorkerId};
use smallvec::SmallVec;

impl Scheduler {
    /// Sends a run of a map's tasks, whose inputs are all at that worker; the first is in `entry`.
    pub(crate) fn send_run(&mut self, id: WorkerId, run: Run, entry: Entry) {
        let (slot, start) = (entry.layer, run.start);
        let task_id = |task: TaskRef| self.table.id(task);
        let layer = self.table.layer(slot);
        let Recipe::Map(map) = &layer.recipe else { unreachable!("only maps are sent as runs") };
        let inputs = map.inputs.iter().map(|input| match input {
            MapInput::Values(column) => Input::Values(column.slice(start, run.count)),
            MapInput::Tasks { layer, first } => {
                Input::Tasks(task_id(TaskRef { layer: *layer, index: first + start }))
            }
            MapInput::List(tasks) => {
                let tasks = &tasks[start as usize..run.end() as usize];
                Input::TaskList(tasks.iter().map(|task| task_id(*task)).collect())
            }
        });
        let template = map.template;
        let calls = Calls {
            run,
            attempt: 0,
            priority: entry.priority,
            template: self.templates.get(template).template.id,
            fused: SmallVec::new(),
            label: Label { name: map.name.clone(), key: map.key, layer: true, text: None },
            work: CallWork::Map { inputs: inputs.collect(), constants: map.constants.clone() },
            sources: SmallVec::new(),
            alone: false,
            reads: SmallVec::new(),
        };
        self.teach(id, template);
        self.story.add(self.now_ns, calls.run, Moment::Given, id);
        let worker = self.workers[id.0 as usize].as_deref_mut().expect("alive");
        worker.begin(template, run.count, &self.table.layer(slot).options);
        worker.push_calls(calls);
    }

    /// A worker gets each template once.
    fn teach(&mut self, id: WorkerId, template: TemplateIx) {
        let template = &self.templates.get(template).template;
        let worker = self.workers[id.0 as usize].as_deref_mut().expect("alive");
        if worker.taught == Some(template.id) {
            return;
        }
        worker.taught = Some(template.id);
        if worker.known.insert(template.id) {
            worker.templates.push(template.clone());
        }
    }

    /// Sends one ready task.
    pub(crate) fn send(&mut self, id: WorkerId, entry: Entry) {
        let task = entry.task();
        self.set(task, State::Processing { worker: id });
        let template = self.template_of(task).expect("a task with a recipe");
        self.teach(id, template);
        let fused: SmallVec<[TemplateIx; 1]> = match &self.table.layer(task.layer).recipe {
            Recipe::Page(page) if !page.fused.is_empty() => {
                let from = page.fused.partition_point(|(at, _)| *at < task.index);
                let steps = page.fused[from..].iter().take_while(|(at, _)| *at == task.index);
                steps.map(|(_, t)| *t).collect()
            }
            _ => SmallVec::new(),
        };
        for step in &fused {
            self.teach(id, *step);
        }
        let reads = self.reads(task);
        if !reads.is_empty() {
            self.teach_exchanges(id, task);
        }
        let is_first = self.table.task(task).attempt == 0;
        self.note(task, Moment::Given, id);
        let calls = Calls {
            reads,
            run: self.table.id(task).run(),
            attempt: u32::from(self.table.task(task).attempt),
            priority: entry.priority,
            template: self.templates.get(template).template.id,
            fused: fused.iter().map(|t| self.templates.get(*t).template.id).collect(),
            label: self.label(task),
            work: self.call_work(task),
            sources: self.sources(task, id, is_first),
            alone: self.table.task(task).suspicion > 0 && !mutant("quarantine-not-alone"),
        };
        if !calls.sources.is_empty() {
            self.borrow(id, task);
        }
        let worker = self.workers[id.0 as usize].as_deref_mut().expect("alive");
        worker.begin(template, 1, self.table.options(task));
        worker.push_calls(calls);
    }

    /// Notes whose values a call elsewhere is about to use up, if memory is short there.
    fn borrow(&mut self, id: WorkerId, task: TaskRef) {
        let mut dependencies = TaskList::new();
        self.table.dependencies(task, &mut dependencies);
        let mut lenders = SmallVec::new();
        for dependency in dependencies {
            let record = self.table.task(dependency);
            let State::Memory { holder, .. } = record.state else { continue };
            if holder != id
                && !record.is_wanted()
                && let Some(lender) = self.worker_mut(holder)
                && lender.status.is_crowded
            {
                lender.n_lent += 1;
                lenders.push(holder);
            }
        }
        if !lenders.is_empty() {
            self.worker_mut(id).expect("alive").borrowed.insert(task, lenders);
        }
    }

    /// A call is off a worker's hands: what it was about to use up counts no more.
    pub(crate) fn repay(&mut self, lenders: SmallVec<[WorkerId; 4]>) {
        for lender in lenders {
            if let Some(lender) = self.worker_mut(lender) {
                lender.n_lent -= 1;
            }
        }
    }

    pub(crate) fn call_work(&self, task: TaskRef) -> CallWork {
        let id = |task: &TaskRef| self.table.id(*task);
        match &self.table.layer(task.layer).recipe {
            Recipe::Page(page) => {
                let args = self.table.args(task).expect("a page has arguments");
                CallWork::One {
                    args,
                    dependencies: page.reads(task.index).iter().map(id).collect(),
                }
            }
            Recipe::Map(map) => {
                let inputs = map.inputs.iter().map(|input| match input {
                    MapInput::Values(column) => Input::Values(column.slice(task.index, 1)),
                    MapInput::Tasks { layer, first } => {
                        Input::Tasks(id(&TaskRef { layer: *layer, index: first + task.index }))
                    }
                    MapInput::List(tasks) => Input::Tasks(id(&tasks[task.index as usize])),
                });
                CallWork::Map { inputs: inputs.collect(), constants: map.constants.clone() }
            }
            Recipe::Data { .. } => unreachable!("data is never computed"),
        }
    }

    /// Where the inputs are that the worker does not have.
    fn sources(
        &mut self,
        task: TaskRef,
        worker: WorkerId,
        is_first: bool,
    ) -> SmallVec<[Source; 2]> {
        let mut dependencies = TaskList::new();
        self.table.dependencies(task, &mut dependencies);
        let mut sources: SmallVec<[Source; 2]> = SmallVec::new();
        for dependency in dependencies {
            if self.is_held_by(dependency, worker) {
                continue;
            }
            let Some(source) = self.source_among(dependency, worker, is_first) else { continue };
            match sources.last_mut() {
                // Neighbors in one place travel as one run.
                Some(last)
                    if last.worker == source.worker
                        && last.run.layer == source.run.layer
                        && last.run.end() == source.run.start =>
                {
                    last.run.count += source.run.count;
                    last.nbytes += source.nbytes;
                }
                _ => sources.push(source),
            }
        }
        sources
    }

    pub(crate) fn label(&self, task: TaskRef) -> Label {
        match &self.table.layer(task.layer).recipe {
            Recipe::Map(map) => {
                Label { name: map.name.clone(), key: map.key, layer: true, text: None }
            }
            Recipe::Page(page) => {
                let template = self.template_of(task);
                let name = template.map(|ix| self.templates.get(ix).template.name.clone());
                let text = page.names.binary_search_by_key(&task.index, |(index, _)| *index);
                Label {
                    name: name.unwrap_or_else(|| "exchange".into()),
                    key: page.task(task.index).key,
                    layer: false,
                    text: text.ok().map(|at| page.names[at].1.clone()),
                }
            }
            Recipe::Data { keys, names } => Label {
                name: names[task.index as usize].clone(),
                key: keys.get(task.index as usize).copied().unwrap_or(Key(0)),
                layer: false,
                text: Some(names[task.index as usize].clone()),
            },
        }
    }

    pub(crate) fn key_text(&self, task: TaskRef) -> String {
        self.label(task).of(task.index)
    }
}
