//! Values come and go: fetched from peers, put by clients, handed to readers.

use crate::event::{Action, ReaderId};
use crate::governor::SPILL_NBYTES_MIN;
use crate::held::Form;
use crate::worker::{Request, Worker};
use hashbrown::hash_map::Entry;
use rasker_graph::{Run, TaskId};
use rasker_protocol::probe::{mutant, sometimes};
use rasker_protocol::{Failure, FromHolder, Progress, ToHolder, Value, WorkerId};
use std::sync::Arc;

impl Worker {
    /// Takes a value in; one that is held already stays as it is.
    pub(crate) fn keep(&mut self, task: TaskId, value: Value, is_copy: bool) {
        let form = Form::Value(value);
        if let Some(nbytes) = self.movable(&form) {
            self.governor.enter(task, nbytes, is_copy);
        }
        self.held.insert(task, form);
    }

    /// Takes values in that were made here; those of earlier attempts make place. Live ones were
    /// told to their executor before.
    pub(crate) fn put(&mut self, run: Run, form: Form) {
        let nbytes = self.movable(&form);
        for gone in self.held.put(run, form) {
            self.let_go_of_record(gone.task);
        }
        if let Some(nbytes) = nbytes {
            self.governor.enter(TaskId::new(run.layer, run.start), nbytes, false);
        }
    }

    /// The size of a value that can leave, if it is worth it.
    fn movable(&self, form: &Form) -> Option<u64> {
        if !self.governor.is_on() || matches!(form, Form::Value(Value::Column(_))) {
            return None;
        }
        Some(form.nbytes()).filter(|nbytes| *nbytes >= SPILL_NBYTES_MIN)
    }

    pub(crate) fn on_fetched(
        &mut self,
        from: WorkerId,
        values: Vec<(TaskId, Option<Value>)>,
        out: &mut Vec<Action>,
    ) {
        for (task, value) in values {
            match self.fetching.entry(task) {
                Entry::Occupied(entry) if *entry.get() == from => entry.remove(),
                // It may have been sent for elsewhere since.
                _ => continue,
            };
            // Nobody may wait for it any more; then it is not kept.
            let wanted = self.wanted_by.get(&task).is_some_and(|numbers| {
                numbers.iter().any(|number| self.waiting.contains_key(number))
            });
            let is_copy = !self.copying.is_empty() && self.copying.contains(&task);
            if !wanted && !is_copy {
                sometimes("an input came that nobody wanted any more");
            }
            let value = value.filter(|value| value.fits(1));
            if !self.requests_for.is_empty() {
                self.answer_requests(task, &Ok(value.clone()), out);
            }
            if let Some(value) = value
                && (wanted || is_copy)
            {
                if is_copy {
                    self.copying.remove(&task);
                }
                let nbytes = value.nbytes();
                self.keep(task, value, true);
                if !mutant("copy-not-told") {
                    self.progress.push(Progress::Copied { run: task.run(), nbytes });
                }
                self.arrived(task, true);
            } else {
                self.not_fetched(task, out);
            }
        }
    }

    pub(crate) fn on_request(
        &mut self,
        reader: ReaderId,
        local: bool,
        message: ToHolder,
        out: &mut Vec<Action>,
    ) {
        match message {
            ToHolder::Put { id, values } => {
                for (task, value) in values.into_iter().filter(|(_, value)| value.fits(1)) {
                    self.keep(task, value, false);
                }
                out.push(Action::Reply(reader, FromHolder::Stored { id }));
            }
            ToHolder::GetParts { id, reads } => self.on_get_parts(reader, id, reads, out),
            ToHolder::Get { id, tasks } => self.on_get(reader, local, id, &tasks, out),
        }
    }

    fn on_get(
        &mut self,
        reader: ReaderId,
        local: bool,
        id: u64,
        tasks: &[TaskId],
        out: &mut Vec<Action>,
    ) {
        let mut request = Request::new(reader, id);
        let number = self.n_requests;
        self.n_requests += 1;
        for &task in tasks {
            match self.held.get(task) {
                // It is on its way here, and the reader was sent to get it from here.
                None if self.fetching.contains_key(&task) => {
                    request.left += 1;
                    self.requests_for.entry(task).or_default().push(number);
                }
                None => request.values.push((task, Ok(None))),
                Some(Form::Live { executor, .. }) => {
                    request.left += 1;
                    self.requests_for.entry(task).or_default().push(number);
                    self.export(task, executor, None);
                }
                Some(Form::Spilled { .. }) => {
                    request.left += 1;
                    self.requests_for.entry(task).or_default().push(number);
                    self.want(task);
                }
                Some(Form::Value(value @ Value::Object { .. })) if !local => {
                    let Some(executor) = self.python_executor().map(|e| e.id) else {
                        request.values.push((task, Ok(None)));
                        continue;
                    };
                    request.left += 1;
                    self.requests_for.entry(task).or_default().push(number);
                    self.export(task, executor, Some(value));
                }
                Some(Form::Value(value)) => request.values.push((task, Ok(Some(value)))),
            }
        }
        if request.left == 0 {
            self.reply(request, out);
        } else {
            self.requests.insert(number, request);
        }
    }

    /// Bytes of a live value, or why there are none.
    pub(crate) fn on_exported(
        &mut self,
        task: TaskId,
        value: Result<Option<Value>, Arc<Failure>>,
        out: &mut Vec<Action>,
    ) {
        self.exporting.remove(&task);
        // A value that is not one value is none.
        let value = value.map(|value| value.filter(|value| value.fits(1)));
        self.answer_requests(task, &value, out);
        match value {
            Ok(Some(value)) => {
                // A live value stays alive beside its bytes only as long as its executor keeps it.
                self.take_bytes(task, value.clone());
                self.on_demoted(task, Some(value), out);
                self.arrived(task, true);
            }
            Ok(None) => {
                self.on_demoted(task, None, out);
                self.arrived(task, false);
            }
            Err(failure) => {
                self.on_demoted(task, None, out);
                self.fail_readers(task, &failure);
            }
        }
    }

    /// Readers that wait for a value get it.
    pub(crate) fn answer_requests(
        &mut self,
        task: TaskId,
        value: &Result<Option<Value>, Arc<Failure>>,
        out: &mut Vec<Action>,
    ) {
        for number in self.requests_for.remove(&task).unwrap_or_default() {
            let Some(request) = self.requests.get_mut(&number) else { continue };
            request.values.push((task, value.clone()));
            request.left -= 1;
            if request.left == 0 {
                let request = self.requests.remove(&number).expect("just seen");
                self.reply(request, out);
            }
        }
    }

    fn take_bytes(&mut self, task: TaskId, value: Value) {
        // Native calls cannot read objects: where one waits, the bytes take their place.
        let is_awaited = self.wanted_by.contains_key(&task);
        if let Some(Form::Value(Value::Object { .. })) = self.held.single(task)
            && is_awaited
        {
            self.governor.resize(task, value.nbytes());
            self.held.replace(task, Form::Value(value));
        } else if let Some(&Form::Live { executor, nbytes }) = self.held.single(task)
            && (is_awaited || !self.options.shares_objects)
        {
            self.governor.on_live_gone(nbytes);
            self.governor.resize(task, value.nbytes());
            self.held.replace(task, Form::Value(value));
            if let Some(executor) = self.executor_mut(executor) {
                executor.drop_value(task);
            }
        }
    }

    /// Calls that need the bytes of a value that cannot be written fail with its reason.
    fn fail_readers(&mut self, task: TaskId, failure: &Arc<Failure>) {
        for number in self.wanted_by.remove(&task).unwrap_or_default() {
            if let Some(waiting) = self.waiting.get(&number) {
                let (run, attempt) = (waiting.calls.run, waiting.calls.attempt);
                self.waits_no_more(number);
                let failure = failure.clone();
                self.progress.push(Progress::Failed { run, attempt, failure });
            }
        }
    }
}
