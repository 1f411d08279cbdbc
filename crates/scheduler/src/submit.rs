//! What clients ask for: layers, values of their own, and to let go of both.

use crate::scheduler::{Scheduler, Step};
use crate::table::{
    MapInput, MapRecipe, PageRecipe, Recipe, State, Table, Task, TaskList, TaskRef,
};
use crate::template::TemplateIx;
use rasker_graph::{
    ClientId, Input, Key, Layer, LayerId, MapWork, Page, Run, TaskId, TemplateId, Work,
};
use rasker_protocol::probe::{mutant, sometimes};
use rasker_protocol::{Failure, FailureKind, Priority, Scattered, Submit, WorkerId};
use std::sync::Arc;

/// The templates that a layer keeps in use.
pub(crate) fn templates_of(recipe: &Recipe) -> Vec<TemplateIx> {
    match recipe {
        Recipe::Map(map) => vec![map.template],
        Recipe::Page(page) => {
            page.templates.iter().copied().chain(page.fused.iter().map(|(_, t)| *t)).collect()
        }
        Recipe::Data { .. } => Vec::new(),
    }
}

impl Scheduler {
    pub(crate) fn on_submit(&mut self, client: ClientId, submit: Submit) {
        for template in submit.templates {
            self.templates.add(template, client);
        }
        for layer in submit.layers {
            if !layer.is_sound()
                || layer.id.client() != client
                || self.table.by_id.contains_key(&layer.id)
            {
                // Not a layer of this client's making; its tasks will be unknown to all.
                self.n_stale += 1;
                continue;
            }
            if layer.count > 0 {
                self.add_layer(client, layer);
            }
        }
    }

    fn add_layer(&mut self, client: ClientId, layer: Layer) {
        self.n_submitted += 1;
        let user = layer.options.priority.saturating_neg();
        let priority = Priority { user, submission: self.n_submitted };
        let Layer { id, count, work, options, wants_values } = layer;
        let mut firsts = Vec::new();
        let (recipe, page) = match work {
            Work::Map(map) => match self.map_recipe(map, &mut firsts) {
                Some(recipe) => (Recipe::Map(recipe), None),
                None => return self.refuse(client, id, count),
            },
            Work::Page(page) => match self.page_recipe(&page) {
                Some(recipe) => (Recipe::Page(Box::new(recipe)), Some(page)),
                None => return self.refuse(client, id, count),
            },
        };
        for template in templates_of(&recipe) {
            self.templates.layer_added(template);
        }
        let mut state = Table::new_layer(id, client, count, recipe);
        state.priority = priority;
        state.options = options;
        state.wants_values = wants_values;
        let slot = self.table.add_layer(state);
        match page {
            Some(page) => self.add_page(slot, &page),
            None => self.add_map(slot, &firsts),
        }
    }

    /// A layer that names a template nobody sent: its client is told that it failed.
    fn refuse(&mut self, client: ClientId, id: LayerId, count: u32) {
        let text = "the layer names a template that was never sent; submit it again";
        let failure = Arc::new(Failure::new(FailureKind::Unpicklable, format!("{id:?}"), text));
        if let Some(client) = self.clients.get_mut(&client) {
            client.tell_failed(Run::new(id, 0, count), failure);
        }
    }

    /// `firsts` gets the inputs that are read by position.
    fn map_recipe(&mut self, map: MapWork, firsts: &mut Vec<(usize, TaskId)>) -> Option<MapRecipe> {
        let template = self.templates.find(map.template)?;
        let mut inputs = Vec::with_capacity(map.inputs.len());
        for (at, input) in map.inputs.into_iter().enumerate() {
            inputs.push(match input {
                Input::Values(column) => MapInput::Values(column),
                Input::Tasks(first) => {
                    firsts.push((at, first));
                    MapInput::List(Vec::new())
                }
                Input::TaskList(tasks) => {
                    MapInput::List(tasks.iter().map(|task| self.resolve(*task)).collect())
                }
            });
        }
        let MapWork { key, name, constants, .. } = map;
        Some(MapRecipe { template, key, name, inputs, constants })
    }

    fn page_recipe(&mut self, page: &Page) -> Option<PageRecipe> {
        let find = |s: &Scheduler, id: &TemplateId| s.templates.find(*id);
        let templates = page.templates.iter().map(|id| find(self, id)).collect::<Option<_>>()?;
        let fused = page.fused.iter().map(|(at, id)| Some((*at, find(self, id)?)));
        Some(PageRecipe {
            templates,
            fused: fused.collect::<Option<_>>()?,
            template: page.template.clone(),
            keys: page.keys.clone(),
            names: page.names.clone(),
            options: page.options.clone(),
            arg_ends: page.arg_ends.clone(),
            args: page.args.clone().into(),
            blobs: page.blobs.clone(),
            dependency_ends: page.dependency_ends.clone(),
            // Filled task by task: a task may depend on earlier ones of its own page.
            dependencies: Vec::with_capacity(page.dependencies.len()),
        })
    }

    /// The place of a task that a client reads. One that is gone becomes a value without recipe,
    /// so that the reader fails with its name instead of waiting for ever.
    fn resolve(&mut self, id: TaskId) -> TaskRef {
        if let Some(task) = self.table.find(id) {
            let layer = self.table.layer_mut(task.layer);
            layer.expand(task.index + 1);
            return task;
        }
        self.n_submitted += 1;
        let layer = LayerId(u64::MAX - self.n_submitted);
        let name: Arc<str> = format!("{id:?}").into();
        let recipe = Recipe::Data { keys: vec![Key(u128::from(layer.0))], names: vec![name] };
        let mut state = Table::new_layer(layer, id.layer.client(), 1, recipe);
        state.wanted = false;
        let slot = self.table.add_layer(state);
        let task = TaskRef { layer: slot, index: 0 };
        self.table.layer_mut(slot).expand(1);
        self.set(task, State::Released);
        // Its reader may turn out to be an alias, which reads nothing.
        self.todo.push(Step::Consider(task));
        task
    }

    fn add_page(&mut self, slot: u32, page: &Page) {
        let count = page.len() as u32;
        {
            let layer = self.table.layer_mut(slot);
            layer.expand(count);
            for index in 0..count {
                *layer.task_mut(index) = Task::new(State::Released, true);
            }
            for &index in &page.unwanted {
                layer.task_mut(index).wanted = false;
            }
        }
        for index in 0..count {
            let task = TaskRef { layer: slot, index };
            for id in page.dependencies_of(index) {
                let dependency = self.resolve(*id);
                self.page_mut(slot).dependencies.push(dependency);
            }
            let key = page.keys[index as usize];
            match self.table.find_key(key) {
                Some(of)
                    if self.table.task(of).is_wanted()
                        || self.is_same_call(task, of)
                        || mutant("key-joined-by-name-alone") =>
                {
                    sometimes("a key was joined");
                    self.make_alias(task, of);
                }
                other => {
                    // Only descendants need the other one: the key starts a new generation.
                    if let Some(other) = other {
                        sometimes("a key began a new generation beside the old one");
                        self.table.remove_key(other);
                    }
                    self.table.add_key(key, task);
                    self.link(task);
                }
            }
        }
        // The last pushed is worked off first; the order of submission is kept by priority.
        for index in 0..count {
            let task = TaskRef { layer: slot, index };
            self.todo.push(match self.table.task(task).wanted {
                true => Step::Compute(task),
                // Its readers ask for it, if it has any.
                false => Step::Consider(task),
            });
        }
        self.settle_layer(slot, count);
    }

    fn is_same_call(&self, task: TaskRef, other: TaskRef) -> bool {
        if self.template_of(task) != self.template_of(other) {
            return false;
        }
        let (mut reads, mut others) = (TaskList::new(), TaskList::new());
        self.table.dependencies(task, &mut reads);
        self.table.dependencies(other, &mut others);
        reads == others && self.table.args(task) == self.table.args(other)
    }

    /// An unwanted alias has served its purpose once its page is resolved.
    fn settle_layer(&mut self, slot: u32, count: u32) {
        if !self.table.layer(slot).has_aliases {
            return;
        }
        let mut gone = 0;
        for index in 0..count {
            let task = TaskRef { layer: slot, index };
            let record = self.table.task(task);
            if matches!(record.state, State::Alias { .. }) && !record.wanted {
                self.set(task, State::Forgotten);
                gone += 1;
            }
        }
        if gone > 0 {
            self.drop_tasks(slot, gone);
        }
    }

    fn page_mut(&mut self, slot: u32) -> &mut PageRecipe {
        match &mut self.table.layer_mut(slot).recipe {
            Recipe::Page(page) => page,
            _ => unreachable!("a page"),
        }
    }

    /// Enters a task with its dependencies.
    fn link(&mut self, task: TaskRef) {
        let mut dependencies = crate::table::TaskList::new();
        self.table.dependencies(task, &mut dependencies);
        for dependency in dependencies {
            self.table.add_edge(dependency, task);
            self.table.task_mut(dependency).alive_dependents += 1;
        }
    }

    /// The key is somebody's already: the task there is wanted once more.
    fn make_alias(&mut self, task: TaskRef, of: TaskRef) {
        let client = self.table.layer(task.layer).client;
        let wanted = self.table.task(task).wanted;
        self.table.layer_mut(task.layer).has_aliases = true;
        self.set(task, State::Alias { of });
        // What the alias itself was to read it reads no more; nothing was entered for it.
        if wanted {
            let name = self.table.id(task);
            self.want(of, client, name);
        }
    }

    /// A client wants a task under a name of its own.
    fn want(&mut self, task: TaskRef, client: ClientId, name: TaskId) {
        self.table.also_wanted.entry(task).or_default().push((client, name));
        self.table.task_mut(task).also_wanted = true;
        match self.state(task) {
            State::Released => self.todo.push(Step::Compute(task)),
            State::Memory { .. } if mutant("late-wish-not-told") => {}
            State::Memory { holder, nbytes } => {
                sometimes("a value was wished for that was there");
                let held_as = self.table.id(task);
                if let Some(client) = self.clients.get_mut(&client) {
                    client.tell_finished(rasker_protocol::Finished {
                        run: name.run(),
                        held_as,
                        holder,
                        nbytes: nbytes as u64,
                        values: None,
                    });
                }
            }
            State::Failed { failure } => {
                let failure = self.failure(failure).clone();
                if let Some(client) = self.clients.get_mut(&client) {
                    client.tell_failed(name.run(), failure);
                }
            }
            _ => {}
        }
    }

    fn add_map(&mut self, slot: u32, firsts: &[(usize, TaskId)]) {
        self.read_by_position(slot, firsts);
        let layer = self.table.layer_mut(slot);
        let Recipe::Map(map) = &layer.recipe else { unreachable!("a map") };
        let (key, count) = (map.key, layer.count);
        let is_root = map.inputs.iter().all(|input| matches!(input, MapInput::Values(_)));
        let is_free = layer.options.workers.is_empty() && layer.options.resources.is_empty();
        let same = self.table.by_layer_key.get(&key).copied();
        self.table.by_layer_key.insert(key, slot);
        if is_root && is_free && same.is_none() {
            let layer = self.table.layer_mut(slot);
            layer.cursor = 0;
            let priority = layer.priority;
            self.roots.insert((priority, slot), ());
            return;
        }
        self.table.layer_mut(slot).expand(count);
        for index in 0..count {
            let task = TaskRef { layer: slot, index };
            self.table.task_mut(task).state = State::Released;
            let twin = same.map(|layer| TaskRef { layer, index }).filter(|twin| {
                let layer = self.table.layer(twin.layer);
                index < layer.count
                    && (index >= layer.expanded || !layer.task(index).state.is_gone())
            });
            if let Some(twin) = twin {
                self.table.layer_mut(twin.layer).expand(index + 1);
                self.make_alias(task, twin);
            } else {
                self.link_map(task);
                self.todo.push(Step::Compute(task));
            }
        }
        // Steps are worked off from the end.
        self.todo.reverse();
    }

    /// Enters listed inputs as edges; those by position need none, only their counts.
    fn link_map(&mut self, task: TaskRef) {
        let Recipe::Map(map) = &self.table.layer(task.layer).recipe else { unreachable!("a map") };
        let mut listed = crate::table::TaskList::new();
        let mut counted = crate::table::TaskList::new();
        for input in &map.inputs {
            match input {
                MapInput::Values(_) => {}
                MapInput::List(tasks) => listed.push(tasks[task.index as usize]),
                MapInput::Tasks { layer, first } => {
                    counted.push(TaskRef { layer: *layer, index: first + task.index });
                }
            }
        }
        for dependency in &listed {
            self.table.add_edge(*dependency, task);
        }
        for dependency in listed.into_iter().chain(counted) {
            self.table.task_mut(dependency).alive_dependents += 1;
        }
    }

    /// Inputs that are whole stretches of another layer are read by position: no edges.
    fn read_by_position(&mut self, slot: u32, firsts: &[(usize, TaskId)]) {
        let count = self.table.layer(slot).count;
        for &(at, first) in firsts {
            let input = self.input_by_position(slot, first, count);
            if let Recipe::Map(map) = &mut self.table.layer_mut(slot).recipe {
                map.inputs[at] = input;
            }
        }
    }

    fn input_by_position(&mut self, slot: u32, first: TaskId, count: u32) -> MapInput {
        if let Some(&layer) = self.table.by_id.get(&first.layer) {
            let source = self.table.layer_mut(layer);
            let range = first.index..first.index + count;
            if !source.has_aliases && range.end <= source.count {
                source.expand(range.end);
                if !range.clone().any(|i| source.task(i).state.is_gone()) {
                    source.dependents.push((slot, first.index));
                    return MapInput::Tasks { layer, first: first.index };
                }
            }
        }
        let names = (0..count).map(|i| TaskId::new(first.layer, first.index + i));
        MapInput::List(names.map(|name| self.resolve(name)).collect())
    }

    pub(crate) fn on_scattered(&mut self, client: ClientId, scattered: Scattered) {
        let Scattered { layer: id, keys, names, nbytes, holders } = scattered;
        let count = keys.len() as u32;
        let sound =
            nbytes.len() == keys.len() && holders.len() == keys.len() && names.len() == keys.len();
        if !sound || count == 0 || id.client() != client || self.table.by_id.contains_key(&id) {
            self.n_stale += 1;
            return;
        }
        let recipe = Recipe::Data { keys: keys.clone(), names };
        let slot = self.table.add_layer(Table::new_layer(id, client, count, recipe));
        self.table.layer_mut(slot).expand(count);
        for (index, key) in (0..count).zip(keys) {
            let task = TaskRef { layer: slot, index };
            self.set(task, State::Released);
            if self.table.find_key(key).is_none() {
                self.table.add_key(key, task);
            }
            let mut there = holders[index as usize].iter().filter(|w| self.worker(**w).is_some());
            let Some(&holder) = there.next() else {
                self.todo.push(Step::Compute(task));
                continue;
            };
            let mut others: smallvec::SmallVec<[WorkerId; 2]> = smallvec::SmallVec::new();
            for &other in there {
                if other != holder && !others.contains(&other) {
                    others.push(other);
                }
            }
            if !others.is_empty() {
                self.table.replicas.insert(task, others);
            }
            self.set(task, State::Memory { holder, nbytes: nbytes[index as usize] as f32 });
            self.report(task);
        }
    }

    pub(crate) fn on_adopt(
        &mut self,
        client: ClientId,
        name: TaskId,
        key: Key,
        index: Option<u32>,
    ) {
        let is_own = name.index == 0 && name.layer.client() == client;
        if !is_own || self.table.by_id.contains_key(&name.layer) {
            self.n_stale += 1;
            return;
        }
        let found = match index {
            None => self.table.find_key(key),
            Some(index) => self.table.by_layer_key.get(&key).copied().and_then(|slot| {
                let id = self.table.layer(slot).id;
                self.table.find(TaskId::new(id, index))
            }),
        };
        let Some(task) = found else {
            let text = "no task has this key; it was released or never submitted";
            let failure = Arc::new(Failure::new(FailureKind::Cancelled, format!("{key:?}"), text));
            if let Some(client) = self.clients.get_mut(&client) {
                client.tell_failed(name.run(), failure);
            }
            return;
        };
        self.table.layer_mut(task.layer).expand(task.index + 1);
        let recipe = Recipe::Data { keys: vec![Key(0)], names: vec!["".into()] };
        let mut state = Table::new_layer(name.layer, client, 1, recipe);
        state.has_aliases = true;
        let slot = self.table.add_layer(state);
        self.table.layer_mut(slot).expand(1);
        self.make_alias(TaskRef { layer: slot, index: 0 }, task);
    }

    pub(crate) fn on_release(&mut self, client: ClientId, runs: &[Run]) {
        if mutant("release-lost") && runs.len() == 1 {
            return;
        }
        for run in runs {
            let Some(&slot) = self.table.by_id.get(&run.layer) else { continue };
            if self.table.layer(slot).client != client {
                continue;
            }
            let end = run.end().min(self.table.layer(slot).count);
            self.release_unseen(slot, run.start, end);
            for index in run.start..end {
                let Some(layer) = self.table.layers[slot as usize].as_ref() else { break };
                if layer.id != run.layer || index >= layer.expanded {
                    break;
                }
                self.unwant(TaskRef { layer: slot, index });
                self.settle();
            }
        }
    }

    /// Roots that nobody looked at yet and nobody wants are cut off, or are given records.
    fn release_unseen(&mut self, slot: u32, start: u32, end: u32) {
        let layer = self.table.layer_mut(slot);
        if end <= layer.expanded {
            return;
        }
        if start <= layer.expanded && end == layer.count {
            let n = layer.count - layer.expanded;
            layer.count = layer.expanded;
            layer.cursor = layer.cursor.min(layer.count);
            self.drop_tasks(slot, n);
        } else {
            layer.expand(end);
        }
    }

    fn unwant(&mut self, task: TaskRef) {
        let record = self.table.task_mut(task);
        let was = std::mem::replace(&mut record.wanted, false);
        match record.state {
            State::Alias { of } if was => {
                let name = self.table.id(task);
                self.unwant_as(of, name);
                self.set(task, State::Forgotten);
                self.drop_tasks(task.layer, 1);
            }
            State::Alias { .. } | State::Forgotten => {}
            _ => self.todo.push(Step::Consider(task)),
        }
    }

    fn unwant_as(&mut self, task: TaskRef, name: TaskId) {
        let Some(wishes) = self.table.also_wanted.get_mut(&task) else { return };
        wishes.retain(|(_, n)| *n != name);
        if wishes.is_empty() {
            self.table.also_wanted.remove(&task);
            self.table.task_mut(task).also_wanted = false;
            self.todo.push(Step::Consider(task));
        }
    }

    /// Everything a client wanted is wanted by it no more.
    pub(crate) fn release_client(&mut self, client: ClientId) {
        let layers: Vec<(LayerId, u32)> = (self.table.layers.iter().flatten())
            .filter(|layer| layer.client == client)
            .map(|layer| (layer.id, layer.count))
            .collect();
        for (id, count) in layers {
            self.on_release(client, &[Run::new(id, 0, count)]);
        }
    }

    pub(crate) fn on_cancel(&mut self, runs: &[Run], reason: &str) {
        for run in runs.iter().filter_map(|run| self.table.clip(*run)).collect::<Vec<_>>() {
            for id in run.tasks() {
                let Some(task) = self.table.find(id) else { continue };
                self.table.layer_mut(task.layer).expand(task.index + 1);
                let key = self.key_text(task);
                let text = if reason.is_empty() { "cancelled by a client" } else { reason };
                let failure = Failure::new(FailureKind::Cancelled, key, text);
                let failure = self.add_failure(Arc::new(failure));
                if !mutant("cancelled-key-joined") {
                    self.table.remove_key(task);
                }
                self.table.remove_layer_key(task.layer);
                if let State::Processing { worker } = self.state(task) {
                    sometimes("a task was cancelled while it was with a worker");
                    self.stop(task, worker);
                }
                self.free(task);
                self.fail_later(task, failure);
                self.settle();
            }
        }
    }

    pub(crate) fn on_retry(&mut self, client: ClientId, tasks: &[TaskId]) {
        let mut open: Vec<TaskRef> = Vec::new();
        for id in tasks {
            match self.table.find(*id) {
                Some(task) => {
                    self.table.layer_mut(task.layer).expand(task.index + 1);
                    open.push(task);
                }
                None => {
                    let text = "there is no recipe for it here any more; submit it again";
                    let failure = Failure::new(FailureKind::Cancelled, format!("{id:?}"), text);
                    if let Some(client) = self.clients.get_mut(&client) {
                        client.tell_failed(id.run(), Arc::new(failure));
                    }
                }
            }
        }
        let again = open.clone();
        while let Some(task) = open.pop() {
            if matches!(self.state(task), State::Failed { .. }) {
                self.set(task, State::Released);
                let record = self.table.task_mut(task);
                record.retries_used = 0;
                record.suspicion = 0;
                record.attempt += 1;
                let mut dependencies = crate::table::TaskList::new();
                self.table.dependencies(task, &mut dependencies);
                open.extend(dependencies);
            }
        }
        for task in again {
            if matches!(self.state(task), State::Memory { .. }) {
                sometimes("a retry came after another's");
                // Somebody else's retry was first; whoever asks now does not know it any more.
                self.report(task);
                continue;
            }
            self.tell_wanting(task, |client, run| client.tell_pending(run));
            self.todo.push(Step::Compute(task));
        }
    }
}
