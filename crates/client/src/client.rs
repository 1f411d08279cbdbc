//! The machine: futures, what is known of them, and who waits.

use crate::Map;
use crate::pieces::{Ending, Pieces};
use hashbrown::HashSet;
use rasker_graph::{
    Blob, ClientId, Key, Layer, LayerId, MapWork, Options, Page, Run, TaskId, Template, TemplateId,
    Work,
};
use rasker_protocol::probe::{mutant, sometimes};
use rasker_protocol::{
    Datum, Failure, FailureKind, Finished, FromClient, Query, Scattered, Submit, ToClient, WorkerId,
};
use std::sync::Arc;

/// Somebody who waits for tasks to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WaitId(pub u64);

/// What the machine asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Send(FromClient),
    /// What this wait was for has come about.
    Wake(WaitId),
    Answer {
        id: u64,
        answer: Datum,
    },
    PeerCame {
        worker: WorkerId,
        address: String,
    },
    PeerGone {
        worker: WorkerId,
    },
}

/// A task to be entered.
pub struct NewTask<'a> {
    pub key: Key,
    /// The key as text, where it is not made from the function's name and the hash.
    pub name: Option<Arc<str>>,
    pub template: TemplateId,
    pub args: &'a [u8],
    /// Arguments that are too large for a page, or bound to this process; `args` is empty then.
    pub blob: Option<Blob>,
    pub dependencies: &'a [TaskId],
    pub options: Option<Arc<Options>>,
    /// Templates of fused steps.
    pub fused: &'a [TemplateId],
}

enum Holds {
    /// Holds on each task.
    Tasks(Vec<u32>),
    /// Holds on the whole layer, and on single tasks beside it.
    Whole { holds: u32, tasks: Map<u32, u32> },
}

struct LayerState {
    count: u32,
    holds: Holds,
    n_held: u32,
    keys: Vec<Key>,
    pieces: Pieces,
    waits: Vec<(u32, u32, WaitId)>,
}

/// See the crate's essay.
pub struct Client {
    id: ClientId,
    n_layers: u32,
    layers: Map<LayerId, LayerState>,
    pub(crate) keys: Map<Key, TaskId>,
    maps: Map<Key, LayerId>,
    templates: Map<TemplateId, Template>,
    sent: HashSet<TemplateId, foldhash::fast::FixedState>,
    pub(crate) page: Page,
    pub(crate) page_layer: LayerId,
    page_templates: Map<TemplateId, u32>,
    waits: Map<WaitId, u32>,
    waits_for: Map<TaskId, Vec<WaitId>>,
    n_waits: u64,
    released: Vec<Run>,
    /// Tasks among `released` by the keys they had.
    released_keys: Map<Key, TaskId>,
    /// To be released before the open page is submitted.
    released_first: Vec<Run>,
    /// Inner tasks of a page that was sealed while others that may read them were entered.
    inner_of_sealed: Vec<TaskId>,
    /// Messages that are ready to be sent.
    unsent: Vec<FromClient>,
    n_queries: u64,
    /// Values that were let go: whoever owns the lock drops them after it, as that may run code.
    let_go: Vec<Pieces>,
}

impl Client {
    pub fn new(id: ClientId) -> Client {
        Client {
            id,
            n_layers: 1,
            layers: Map::default(),
            keys: Map::default(),
            maps: Map::default(),
            templates: Map::default(),
            sent: HashSet::default(),
            page: Page::default(),
            page_layer: LayerId::new(id, 0),
            page_templates: Map::default(),
            waits: Map::default(),
            waits_for: Map::default(),
            n_waits: 0,
            released: Vec::new(),
            released_keys: Map::default(),
            released_first: Vec::new(),
            inner_of_sealed: Vec::new(),
            unsent: Vec::new(),
            n_queries: 0,
            let_go: Vec::new(),
        }
    }

    /// Values that were let go since the last time.
    pub fn take_let_go(&mut self) -> impl Sized + use<> {
        std::mem::take(&mut self.let_go)
    }

    pub fn id(&self) -> ClientId {
        self.id
    }

    fn new_layer(&mut self) -> LayerId {
        let id = LayerId::new(self.id, self.n_layers);
        self.n_layers += 1;
        id
    }

    /// Makes a template known; it is sent with the first layer that uses it.
    pub fn add_template(&mut self, template: Template) {
        self.templates.entry(template.id).or_insert(template);
    }

    pub fn has_template(&self, id: TemplateId) -> bool {
        self.templates.contains_key(&id)
    }

    /// The task with this key, with one more hold on it.
    pub fn find(&mut self, key: Key) -> Option<TaskId> {
        let task = *self.keys.get(&key)?;
        let cancelled = |failure: &Failure| failure.kind == FailureKind::Cancelled;
        if matches!(self.ending(task), Some(Ending::Failed(failure)) if cancelled(&failure)) {
            // Nothing comes of that one any more; the key may be used anew.
            self.keys.remove(&key);
            return None;
        }
        self.hold(task);
        Some(task)
    }

    /// Enters a task with one hold on it, or joins the one that has its key.
    pub fn submit(&mut self, new: NewTask<'_>) -> TaskId {
        if let Some(task) = self.find(new.key) {
            return task;
        }
        let released = self.released_keys.get(&new.key).copied();
        if let Some(task) = released.filter(|_| !mutant("release-overtaken-by-submit")) {
            sometimes("a key was used again before its release was sent");
            self.release_before(task);
        }
        let index = self.enter(&new);
        let task = TaskId::new(self.page_layer, index);
        self.keys.insert(new.key, task);
        let layer = self.layers.get_mut(&self.page_layer).expect("the open page");
        let Holds::Tasks(holds) = &mut layer.holds else { unreachable!("a page") };
        holds.push(1);
        layer.keys.push(new.key);
        layer.count += 1;
        layer.n_held += 1;
        task
    }

    /// Enters a task that only other tasks will ask for; they name it by the id returned.
    pub fn submit_inner(&mut self, new: NewTask<'_>) -> TaskId {
        if let Some(task) = self.keys.get(&new.key) {
            return *task;
        }
        let index = self.enter(&new);
        self.add_inner(new.key, index)
    }

    pub(crate) fn add_inner(&mut self, key: Key, index: u32) -> TaskId {
        self.page.unwanted.push(index);
        let layer = self.layers.get_mut(&self.page_layer).expect("the open page");
        let Holds::Tasks(holds) = &mut layer.holds else { unreachable!("a page") };
        holds.push(0);
        layer.keys.push(key);
        layer.count += 1;
        TaskId::new(self.page_layer, index)
    }

    /// A key that was let go is used again: the scheduler is to hear of it in this order, or it
    /// would take the new task for the old one.
    fn release_before(&mut self, task: TaskId) {
        if task.layer == self.page_layer || self.page.dependencies.contains(&task) {
            // Tasks that are entered from now on may read inner tasks of this page, which without
            // a reader would be forgotten with it: they are wanted until the next page is sent.
            let (layer, inner) = (self.page_layer, std::mem::take(&mut self.page.unwanted));
            self.seal();
            self.inner_of_sealed = inner.into_iter().map(|at| TaskId::new(layer, at)).collect();
            return;
        }
        let runs = std::mem::take(&mut self.released);
        for run in runs {
            if run.contains(task) {
                self.released_first.push(task.run());
                let (before, after) = (task.index - run.start, run.end() - task.index - 1);
                let parts = [
                    Run::new(run.layer, run.start, before),
                    Run::new(run.layer, task.index + 1, after),
                ];
                self.released.extend(parts.into_iter().filter(|part| part.count > 0));
            } else {
                self.released.push(run);
            }
        }
        self.released_keys.retain(|_, other| *other != task);
    }

    fn enter(&mut self, new: &NewTask<'_>) -> u32 {
        self.open_page();
        let page = &mut self.page;
        let template = *self.page_templates.entry(new.template).or_insert_with(|| {
            page.templates.push(new.template);
            page.templates.len() as u32 - 1
        });
        self.list(new, template)
    }

    fn open_page(&mut self) {
        if self.page.is_empty() {
            self.page_layer = self.new_layer();
            let state = LayerState {
                count: 0,
                holds: Holds::Tasks(Vec::new()),
                n_held: 0,
                keys: Vec::new(),
                pieces: Pieces::default(),
                waits: Vec::new(),
            };
            self.layers.insert(self.page_layer, state);
        }
    }

    /// Lists a task in the open page.
    pub(crate) fn list(&mut self, new: &NewTask<'_>, template: u32) -> u32 {
        self.open_page();
        let page = &mut self.page;
        let index = page.len() as u32;
        page.template.push(template);
        page.keys.push(new.key);
        if let Some(name) = &new.name {
            page.names.push((index, name.clone()));
        }
        if let Some(options) = &new.options {
            page.options.push((index, options.clone()));
        }
        page.args.extend_from_slice(new.args);
        page.arg_ends.push(page.args.len() as u32);
        if let Some(blob) = &new.blob {
            page.blobs.push((index, blob.clone()));
        }
        page.dependencies.extend_from_slice(new.dependencies);
        page.dependency_ends.push(page.dependencies.len() as u32);
        page.fused.extend(new.fused.iter().map(|template| (index, *template)));
        index
    }

    /// The layer of this key, with one more hold on it.
    pub fn find_map(&mut self, key: Key) -> Option<LayerId> {
        let id = *self.maps.get(&key)?;
        self.hold_layer(id);
        Some(id)
    }

    /// Enters a map layer with one hold on it.
    pub fn map(
        &mut self,
        work: MapWork,
        count: u32,
        options: Arc<Options>,
        out: &mut Vec<Action>,
    ) -> LayerId {
        self.flush(out);
        let id = self.new_layer();
        let (key, template) = (work.key, work.template);
        let state = LayerState {
            count,
            holds: Holds::Whole { holds: 1, tasks: Map::default() },
            n_held: 1,
            keys: vec![key],
            pieces: Pieces::default(),
            waits: Vec::new(),
        };
        self.layers.insert(id, state);
        self.maps.insert(key, id);
        let work = Work::Map(work);
        let layer = Layer { id, count, work, options, wants_values: true };
        let submit = Submit { templates: self.unsent_templates([template]), layers: vec![layer] };
        out.push(Action::Send(FromClient::Submit(submit)));
        id
    }

    fn unsent_templates(&mut self, ids: impl IntoIterator<Item = TemplateId>) -> Vec<Template> {
        let new = ids.into_iter().filter(|id| self.sent.insert(*id));
        new.filter_map(|id| self.templates.get(&id).cloned()).collect()
    }

    /// Sends what was entered and released since the last time.
    pub fn flush(&mut self, out: &mut Vec<Action>) {
        self.seal();
        out.extend(self.unsent.drain(..).map(Action::Send));
    }

    /// Makes messages of what was entered and released; they are sent with the next flush.
    fn seal(&mut self) {
        if !self.released_first.is_empty() {
            self.unsent.push(FromClient::Release(std::mem::take(&mut self.released_first)));
        }
        if !self.page.is_empty() {
            let page = std::mem::take(&mut self.page);
            self.page_templates.clear();
            let used = page.templates.iter().chain(page.fused.iter().map(|(_, t)| t));
            let used: Vec<TemplateId> = used.copied().collect();
            let templates = self.unsent_templates(used);
            let layer = Layer {
                id: self.page_layer,
                count: page.len() as u32,
                work: Work::Page(Box::new(page)),
                options: Arc::default(),
                wants_values: true,
            };
            let submit = Submit { templates, layers: vec![layer] };
            self.unsent.push(FromClient::Submit(submit));
            // Everything may have been let go while the page was open.
            self.sweep(self.page_layer);
        }
        for task in std::mem::take(&mut self.inner_of_sealed) {
            Run::push(&mut self.released, task);
        }
        if !self.released.is_empty() {
            let runs = std::mem::take(&mut self.released);
            self.unsent.push(FromClient::Release(runs));
        }
        self.released_keys.clear();
    }

    /// Whether `flush` has something to send.
    pub fn has_unsent(&self) -> bool {
        !self.page.is_empty()
            || !self.released.is_empty()
            || !self.released_first.is_empty()
            || !self.inner_of_sealed.is_empty()
            || !self.unsent.is_empty()
    }

    /// Enters values that were put on workers, with one hold on each.
    pub fn scatter_layer(&mut self) -> LayerId {
        self.new_layer()
    }

    pub fn scattered(&mut self, scattered: Scattered, out: &mut Vec<Action>) {
        self.flush(out);
        let count = scattered.keys.len() as u32;
        let state = LayerState {
            count,
            holds: Holds::Tasks(vec![1; count as usize]),
            n_held: count,
            keys: scattered.keys.clone(),
            pieces: Pieces::default(),
            waits: Vec::new(),
        };
        for (index, key) in (0..).zip(&scattered.keys) {
            self.keys.insert(*key, TaskId::new(scattered.layer, index));
        }
        self.layers.insert(scattered.layer, state);
        out.push(Action::Send(FromClient::Scattered(scattered)));
    }

    /// A hold on a task that was submitted elsewhere.
    pub fn adopt(&mut self, key: Key, index: Option<u32>, out: &mut Vec<Action>) -> TaskId {
        let own = index.map_or(key, |index| key.item(index));
        if let Some(task) = self.find(own) {
            return task;
        }
        self.flush(out);
        let layer = self.new_layer();
        let state = LayerState {
            count: 1,
            holds: Holds::Tasks(vec![1]),
            n_held: 1,
            keys: vec![own],
            pieces: Pieces::default(),
            waits: Vec::new(),
        };
        self.layers.insert(layer, state);
        let task = TaskId::new(layer, 0);
        self.keys.insert(own, task);
        out.push(Action::Send(FromClient::Adopt { task, key, index }));
        task
    }

    pub fn hold(&mut self, task: TaskId) {
        let Some(layer) = self.layers.get_mut(&task.layer) else { return };
        match &mut layer.holds {
            Holds::Tasks(holds) => {
                holds[task.index as usize] += 1;
                if holds[task.index as usize] == 1 {
                    layer.n_held += 1;
                }
            }
            Holds::Whole { tasks, .. } => *tasks.entry(task.index).or_insert(0) += 1,
        }
    }

    pub fn hold_layer(&mut self, id: LayerId) {
        if let Some(layer) = self.layers.get_mut(&id)
            && let Holds::Whole { holds, .. } = &mut layer.holds
        {
            *holds += 1;
        }
    }

    /// Takes a hold away; a task without one is released.
    pub fn drop_task(&mut self, task: TaskId) {
        let Some(layer) = self.layers.get_mut(&task.layer) else { return };
        match &mut layer.holds {
            Holds::Tasks(holds) => {
                let holds = &mut holds[task.index as usize];
                *holds = holds.saturating_sub(1);
                if *holds > 0 {
                    return;
                }
                layer.n_held -= 1;
                let key = layer.keys[task.index as usize];
                if self.keys.get(&key) == Some(&task) {
                    self.keys.remove(&key);
                    self.released_keys.insert(key, task);
                }
            }
            Holds::Whole { holds, tasks } => {
                if let Some(n) = tasks.get_mut(&task.index) {
                    *n -= 1;
                    if *n > 0 {
                        return;
                    }
                    tasks.remove(&task.index);
                }
                if *holds > 0 {
                    return;
                }
            }
        }
        self.let_go.push(layer.pieces.split_off(task.index, 1));
        if mutant("release-not-sent") {
            return;
        }
        Run::push(&mut self.released, task);
        self.sweep(task.layer);
    }

    /// Takes a hold on a whole layer away.
    pub fn drop_layer(&mut self, id: LayerId) {
        let Some(layer) = self.layers.get_mut(&id) else { return };
        let Holds::Whole { holds, tasks } = &mut layer.holds else { return };
        *holds = holds.saturating_sub(1);
        if *holds > 0 {
            return;
        }
        let key = layer.keys[0];
        if self.maps.get(&key) == Some(&id) {
            self.maps.remove(&key);
        }
        let mut kept: Vec<u32> = tasks.keys().copied().collect();
        kept.sort_unstable();
        let mut at = 0;
        for end in kept.into_iter().chain([layer.count]) {
            if at < end {
                self.let_go.push(layer.pieces.split_off(at, end - at));
                self.released.push(Run::new(id, at, end - at));
            }
            at = end + 1;
        }
        self.sweep(id);
    }

    fn sweep(&mut self, id: LayerId) {
        let Some(layer) = self.layers.get(&id) else { return };
        let held = match &layer.holds {
            Holds::Tasks(_) => layer.n_held > 0,
            Holds::Whole { holds, tasks } => *holds > 0 || !tasks.is_empty(),
        };
        // A page that is still open may get more tasks.
        let open = id == self.page_layer && !self.page.is_empty();
        if !held
            && !open
            && let Some(layer) = self.layers.remove(&id)
        {
            self.let_go.push(layer.pieces);
        }
    }

    /// How a task ended; none while it is pending.
    pub fn ending(&self, task: TaskId) -> Option<Ending> {
        self.layers.get(&task.layer)?.pieces.get(task.index)
    }

    /// From `task` on: how many tasks ended alike, and how.
    pub fn stretch(&self, task: TaskId) -> Option<(u32, Ending)> {
        self.layers.get(&task.layer)?.pieces.stretch(task.index)
    }

    /// Whether this client holds anything of the task.
    pub fn knows(&self, task: TaskId) -> bool {
        self.layers.contains_key(&task.layer)
    }

    /// Waits until `count` of the tasks in `runs` have ended; none if they have.
    pub fn wait(&mut self, runs: &[Run], count: u32) -> Option<WaitId> {
        let ended: u32 = runs.iter().map(|run| self.n_ended(*run)).sum();
        if ended >= count {
            return None;
        }
        let id = WaitId(self.n_waits);
        self.n_waits += 1;
        self.waits.insert(id, count - ended);
        for run in runs {
            if run.count == 1 {
                let task = TaskId::new(run.layer, run.start);
                if self.n_ended(*run) == 0 {
                    self.waits_for.entry(task).or_default().push(id);
                }
            } else if let Some(layer) = self.layers.get_mut(&run.layer) {
                layer.waits.push((run.start, run.count, id));
            }
        }
        Some(id)
    }

    fn n_ended(&self, run: Run) -> u32 {
        let Some(layer) = self.layers.get(&run.layer) else { return run.count };
        if run.start == 0 && run.count == layer.count {
            return layer.pieces.n_ended;
        }
        let (mut at, mut n) = (run.start, 0);
        while at < run.end() {
            match layer.pieces.stretch(at) {
                Some((count, _)) => {
                    let count = count.min(run.end() - at);
                    n += count;
                    at += count;
                }
                None => at += 1,
            }
        }
        n
    }

    pub fn cancel_wait(&mut self, id: WaitId) {
        self.waits.remove(&id);
    }

    /// What the scheduler said.
    pub fn handle(&mut self, message: ToClient, out: &mut Vec<Action>) {
        match message {
            ToClient::Finished(items) => {
                for Finished { run, held_as, holder, nbytes, values } in items {
                    let Some(run) = self.clip(run) else { continue };
                    // Values that do not fit the run are asked of their holder.
                    let values = values.filter(|value| value.fits(run.count));
                    let ending = Ending::Finished { holder, held_as, nbytes, value: values };
                    self.finished(run, ending, out);
                }
            }
            ToClient::Failed(items) => {
                for (run, failure) in items {
                    let Some(run) = self.clip(run) else { continue };
                    self.finished(run, Ending::Failed(failure), out);
                }
            }
            ToClient::Pending(runs) => {
                let runs: Vec<Run> = runs.iter().filter_map(|run| self.clip(*run)).collect();
                for task in runs.into_iter().flat_map(Run::tasks) {
                    // What this client cancelled stays so until it asks for it again itself.
                    let layer = self.layers.get(&task.layer);
                    if layer.is_some_and(|layer| !layer.pieces.is_cancelled(task.index)) {
                        self.unended(task.run());
                    }
                }
            }
            ToClient::Answer { id, answer } => out.push(Action::Answer { id, answer }),
            ToClient::Peers(peers) => {
                out.extend(
                    peers.into_iter().map(|peer| Action::PeerCame {
                        worker: peer.worker,
                        address: peer.address,
                    }),
                );
            }
            ToClient::PeersGone(gone) => {
                out.extend(gone.into_iter().map(|worker| Action::PeerGone { worker }));
            }
        }
    }

    /// The part of a run that its layer has; none if there is no such layer.
    fn clip(&self, run: Run) -> Option<Run> {
        let count = self.layers.get(&run.layer)?.count;
        let start = run.start.min(count);
        let end = run.end().min(count);
        (start < end).then(|| Run::new(run.layer, start, end - start))
    }

    /// Tasks are pending again: waits on their layer count them anew.
    fn unended(&mut self, run: Run) {
        let Some(layer) = self.layers.get_mut(&run.layer) else { return };
        for (start, count) in layer.pieces.remove(run.start, run.count) {
            let stretch = Run::new(run.layer, start, count);
            for &(from, n, wait) in &layer.waits {
                if let Some(both) = stretch.intersect(Run::new(run.layer, from, n))
                    && let Some(left) = self.waits.get_mut(&wait)
                {
                    sometimes("a wait counts a task anew");
                    *left += both.count * u32::from(!mutant("wait-not-reset"));
                }
            }
        }
    }

    /// Endings of tasks, less those that were on their way when the user cancelled.
    fn finished(&mut self, run: Run, ending: Ending, out: &mut Vec<Action>) {
        let Some(layer) = self.layers.get(&run.layer) else { return };
        let open = layer.pieces.not_cancelled(run.start, run.count);
        if open == [(run.start, run.count)] || mutant("cancelled-future-revived") {
            return self.ended(run, ending, out);
        }
        sometimes("a result was under way when its future was cancelled");
        for (start, count) in open {
            let part = ending.slice(start - run.start, count);
            self.ended(Run::new(run.layer, start, count), part, out);
        }
    }

    fn ended(&mut self, run: Run, ending: Ending, out: &mut Vec<Action>) {
        let Some(layer) = self.layers.get_mut(&run.layer) else { return };
        let new = layer.pieces.insert(run.start, run.count, ending);
        let mut woken: Vec<(WaitId, u32)> = Vec::new();
        for (start, count) in new {
            let stretch = Run::new(run.layer, start, count);
            for &(from, n, wait) in &layer.waits {
                if let Some(both) = stretch.intersect(Run::new(run.layer, from, n)) {
                    woken.push((wait, both.count));
                }
            }
            if !self.waits_for.is_empty() {
                for task in stretch.tasks() {
                    let waits = self.waits_for.remove(&task).unwrap_or_default();
                    woken.extend(waits.into_iter().map(|wait| (wait, 1)));
                }
            }
        }
        for (wait, n) in woken {
            if let Some(left) = self.waits.get_mut(&wait) {
                *left = left.saturating_sub(n);
                if *left == 0 && !mutant("wake-up-lost") {
                    self.waits.remove(&wait);
                    out.push(Action::Wake(wait));
                }
            }
        }
        let waits = &self.waits;
        layer.waits.retain(|(_, _, wait)| waits.contains_key(wait));
    }

    pub fn ask(&mut self, query: Query, out: &mut Vec<Action>) -> u64 {
        self.flush(out);
        self.n_queries += 1;
        let id = self.n_queries;
        out.push(Action::Send(FromClient::Ask { id, query }));
        id
    }

    pub fn cancel(&mut self, runs: Vec<Run>, reason: &str, out: &mut Vec<Action>) {
        self.flush(out);
        for run in &runs {
            // The keys may be used again at once, for something else.
            let Some(layer) = self.layers.get(&run.layer) else { continue };
            match &layer.holds {
                Holds::Tasks(_) => {
                    for task in run.tasks() {
                        // A later task may have the key already.
                        let key = &layer.keys[task.index as usize];
                        if self.keys.get(key) == Some(&task) {
                            self.keys.remove(key);
                        }
                    }
                }
                Holds::Whole { .. } => {
                    if self.maps.get(&layer.keys[0]) == Some(&run.layer) {
                        self.maps.remove(&layer.keys[0]);
                    }
                }
            }
        }
        let failure = Failure::new(FailureKind::Cancelled, "", reason);
        let ending = Ending::Failed(Arc::new(failure));
        for run in &runs {
            self.ended(*run, ending.clone(), out);
        }
        let reason = reason.to_owned();
        out.push(Action::Send(FromClient::Cancel { runs, reason }));
    }

    pub fn retry(&mut self, tasks: Vec<TaskId>, out: &mut Vec<Action>) {
        self.flush(out);
        for task in &tasks {
            self.unended(task.run());
        }
        out.push(Action::Send(FromClient::Retry(tasks)));
    }

    /// The connection is gone: whatever is pending ends so.
    pub fn disconnected(&mut self, failure: &Arc<rasker_protocol::Failure>, out: &mut Vec<Action>) {
        let ids: Vec<(LayerId, u32)> = self.layers.iter().map(|(id, l)| (*id, l.count)).collect();
        for (id, count) in ids {
            let mut at = 0;
            while at < count {
                match self.stretch(TaskId::new(id, at)) {
                    Some((n, _)) => at += n,
                    None => {
                        let from = at;
                        while at < count && self.stretch(TaskId::new(id, at)).is_none() {
                            at += 1;
                        }
                        let run = Run::new(id, from, at - from);
                        self.ended(run, Ending::Failed(failure.clone()), out);
                    }
                }
            }
        }
    }

    /// Tasks that are held and have not ended: for tests.
    pub fn n_pending(&self) -> u64 {
        self.layers.values().map(|l| u64::from(l.count - l.pieces.n_ended)).sum()
    }
}
