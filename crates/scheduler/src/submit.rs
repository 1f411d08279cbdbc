//! What clients ask for: layers, values of their own, and to let go of both.

use crate::ahead::BATCH;
use crate::scheduler::{Scheduler, Step};
use crate::story::Moment;
use crate::table::{
    Listed, MapInput, MapRecipe, PageRecipe, Recipe, State, Table, Task, TaskList, TaskRef,
};
use crate::template::TemplateIx;
use rasker_graph::{
    ClientId, Input, Key, Layer, LayerId, MapWork, Page, Run, TaskId, TemplateId, Work,
};
use rasker_protocol::probe::{mutant, sometimes};
use rasker_protocol::{Failure, FailureKind, Priority, Submit, WorkerId};
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
        let priority = Priority { user, keeps: true, submission: self.n_submitted };
        let Layer { id, count, work, options, wants_values } = layer;
        let mut firsts = Vec::new();
        let (recipe, page) = match work {
            Work::Map(map) => match self.map_recipe(map, &mut firsts) {
                Some(recipe) => (Recipe::Map(recipe), None),
                None => return self.refuse(client, id, count),
            },
            Work::Page(mut page) => match self.page_recipe(&mut page) {
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
        let all = Run::new(id, 0, count);
        self.story.add(self.now_ns, all, Moment::Submitted, WorkerId::NOBODY);
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

    /// Takes over what the recipe keeps; what tasks read by name stays in the page.
    fn page_recipe(&mut self, page: &mut Page) -> Option<PageRecipe> {
        let find = |s: &Scheduler, id: &TemplateId| s.templates.find(*id);
        let templates = page.templates.iter().map(|id| find(self, id)).collect::<Option<_>>()?;
        let fused = page.fused.iter().map(|(at, id)| Some((*at, find(self, id)?)));
        let mut from = 0;
        let tasks = (0..page.len()).map(|i| {
            let end = page.dependency_ends[i];
            let reads = (std::mem::replace(&mut from, end), end);
            Listed {
                record: Task::new(State::Released, true),
                key: page.keys[i],
                template: page.template[i],
                args_end: page.arg_ends[i],
                reads,
            }
        });
        let tasks = tasks.collect();
        Some(PageRecipe {
            templates,
            fused: fused.collect::<Option<_>>()?,
            tasks,
            names: std::mem::take(&mut page.names),
            options: std::mem::take(&mut page.options),
            args: std::mem::take(&mut page.args).into(),
            blobs: std::mem::take(&mut page.blobs),
            exchanges: std::mem::take(&mut page.exchanges),
            readings: std::mem::take(&mut page.readings),
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
        let layer = self.table.layer_mut(slot);
        let (id, count) = (layer.id, layer.count);
        for &index in &page.unwanted {
            layer.task_mut(index).wanted = false;
        }
        self.table.reserve_keys(count as usize);
        self.begin_stretches(page);
        let mut read = TaskList::new();
        let mut from = 0;
        // The keys of the page itself are still to come.
        let is_large = count >= 1 << 15 || self.table.is_worth_reading_ahead();
        for index in 0..count {
            if is_large && (index as usize).is_multiple_of(BATCH) {
                self.read_ahead_of_page(slot, page, index as usize);
            }
            let task = TaskRef { layer: slot, index };
            let end = page.dependency_ends[index as usize] as usize;
            read.clear();
            for dependency in &page.dependencies[from..end] {
                read.push(self.resolve_in(id, slot, *dependency));
            }
            from = end;
            self.page_mut(slot).dependencies.extend_from_slice(&read);
            self.add_listed(task, &read);
        }
        self.stretches = None;
        self.settle_layer(slot, count);
    }

    /// Reads ahead for the next tasks of a page that is entered.
    fn read_ahead_of_page(&self, slot: u32, page: &Page, from: usize) {
        let (id, end) = (self.table.layer(slot).id, page.len().min(from + BATCH));
        let first = from.checked_sub(1).map_or(0, |before| page.dependency_ends[before] as usize);
        let last = page.dependency_ends[end - 1] as usize;
        let own = page.dependencies[first..last.min(first + 4 * BATCH)].iter();
        let own = own.filter(|task| task.layer == id);
        let own = own.map(|task| TaskRef { layer: slot, index: task.index });
        self.table.read_ahead_of_keys(page.keys[from..end].iter().copied(), own);
    }

    /// As `resolve`, for a task of the layer `id`: mostly it reads tasks of its own layer.
    fn resolve_in(&mut self, id: LayerId, slot: u32, task: TaskId) -> TaskRef {
        if task.layer == id {
            let own = TaskRef { layer: slot, index: task.index };
            let layer = self.table.layer(slot);
            if task.index < layer.count && !layer.task(task.index).state.is_gone() {
                return own;
            }
        }
        self.resolve(task)
    }

    /// Enters a task of a page, and plans it if it is wanted. What it reads was entered before,
    /// unless the graph has a cycle.
    fn add_listed(&mut self, task: TaskRef, read: &[TaskRef]) {
        let key = self.table.own_key(task).expect("a page has keys");
        if let Some(of) = self.table.find_key(key) {
            if self.table.task(of).is_wanted()
                || self.is_same_call(task, of)
                || mutant("key-joined-by-name-alone")
            {
                sometimes("a key was joined");
                return self.make_alias(task, of);
            }
            // Only descendants need the other one: the key starts a new generation.
            sometimes("a key began a new generation beside the old one");
            self.table.remove_key(of);
        }
        self.table.add_key(key, task);
        for dependency in read {
            self.table.add_edge(*dependency, task);
            self.table.task_mut(*dependency).alive_dependents += 1;
        }
        if self.table.task(task).wanted {
            self.compute(task);
        } else {
            // Its readers ask for it, if it has any.
            self.todo.push(Step::Consider(task));
        }
    }

    fn is_same_call(&self, task: TaskRef, other: TaskRef) -> bool {
        if self.template_of(task) != self.template_of(other) {
            return false;
        }
        let (mut reads, mut others) = (TaskList::new(), TaskList::new());
        self.table.dependencies(task, &mut reads);
        self.table.dependencies(other, &mut others);
        reads == others
            && self.table.args(task) == self.table.args(other)
            && self.reads(task) == self.reads(other)
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
        let mut listed = TaskList::new();
        let mut counted = TaskList::new();
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
}
