//! What users do: submit graphs of all shapes, let go, cancel, ask.

use crate::oracle::{Deed, NodeId, VARIANTS, deed, kind, template};
use crate::random::mix;
use crate::scenario::Act;
use crate::user::{Scatter, Scene, User, Wish};
use rasker_client::{Ending, NewTask};
use rasker_graph::{Blob, Column, Input, Key, MapWork, Options, TaskId, Template, TemplateId};
use rasker_protocol::{FailureKind, Query, Value};
use std::sync::Arc;

pub(crate) fn key_of(seed: u64, parts: impl IntoIterator<Item = u64>) -> Key {
    let hash = parts.into_iter().fold(seed, mix);
    Key((u128::from(hash) << 64) | u128::from(mix(hash, 7)))
}

pub(crate) fn any_template(scene: &mut Scene<'_>) -> TemplateId {
    let swarm = scene.swarm;
    let rare = [
        (swarm.raising, Deed::Raises),
        (swarm.flaky, Deed::Flaky),
        (swarm.poison, Deed::Poison),
        (swarm.endless, Deed::Endless),
        (swarm.nested, Deed::Nested),
        (swarm.hog, Deed::Hog),
    ];
    let common = [
        (3, Deed::Small),
        (swarm.live, Deed::Live),
        (swarm.encoded, Deed::Encoded),
        (swarm.objects, Deed::Object),
        (swarm.native, Deed::Native),
    ];
    let pick = |mut at: u64, choices: &[(u64, Deed)]| {
        for (weight, deed) in choices {
            if at < *weight {
                return Some(*deed);
            }
            at -= weight;
        }
        None
    };
    let total = common.iter().map(|(weight, _)| weight).sum();
    let deed = pick(scene.random.below(100), &rare)
        .or_else(|| pick(scene.random.below(total), &common))
        .unwrap_or(Deed::Small);
    template(deed, scene.random.below(VARIANTS))
}

pub(crate) fn any_options(scene: &mut Scene<'_>) -> Arc<Options> {
    let mut options = Options::default();
    if scene.random.chance(20) {
        options.priority = scene.random.below(5) as i64 - 2;
    }
    if scene.swarm.flaky > 0 && scene.random.chance(50) {
        options.retries = scene.random.below(4) as u8;
    }
    if scene.random.chance(scene.swarm.restricted) {
        if scene.random.chance(50) {
            options.workers = vec![format!("w{}", scene.random.below(2))];
            options.allow_other_workers = scene.random.chance(30);
        } else {
            options.resources = vec![("gpu".into(), 1.0)];
        }
    }
    Arc::new(options)
}

impl User {
    pub(crate) fn teach(&mut self, id: TemplateId) {
        self.client.add_template(Template {
            id,
            kind: kind(deed(id)),
            name: "f".into(),
            code: Blob::EMPTY,
        });
    }

    pub fn act(&mut self, act: Act, scene: &mut Scene<'_>) {
        self.acts_left = self.acts_left.saturating_sub(1);
        match act {
            Act::Map => self.map(scene),
            Act::MapOver => self.map_over(scene),
            Act::Page => self.page(scene),
            Act::Named => self.submit_named(scene),
            Act::Storm => self.storm(scene),
            Act::LetGo => self.drop_some(scene),
            Act::Cancel => self.cancel_some(scene),
            Act::Retry => self.retry_some(scene),
            Act::Adopt => self.adopt_some(scene),
            Act::Scatter => self.scatter(scene),
            Act::Gather => self.gather_some(scene),
            Act::Hold => self.hold_one(scene),
            Act::Ask => self.ask(scene),
            Act::Restart => self.restart(scene),
            Act::Exchange => self.exchange(scene),
            // The world sees to it.
            Act::Leave => {}
        }
        self.settle(scene);
    }

    /// The same key at once again for another call, after it was let go or cancelled.
    fn storm(&mut self, scene: &mut Scene<'_>) {
        let key = key_of(5, [self.inner_seed, scene.random.below(3)]);
        for _ in 0..scene.random.between(2, 6) {
            if let Some(node) = self.named.get(&key).copied() {
                let held = self.handles.iter().position(|h| h.nodes[0] == node && !h.is_layer);
                if scene.random.chance(50)
                    && let Some(at) = held
                {
                    self.cancel_handle(at, scene);
                }
                while let Some(at) = self.handles.iter().position(|h| h.nodes[0] == node) {
                    self.drop_handle(at);
                }
                self.named.remove(&key);
                scene.book.count("a key was used again at once");
            }
            let call = (any_template(scene), (scene.random.next() >> 1) as i64);
            self.enter(scene, Some(key), call, &[], true);
            if scene.random.chance(30) {
                self.client.flush(&mut self.actions);
            }
        }
    }

    /// What a call submits: a few short tasks, and one that reads them.
    pub fn submit_nested(&mut self, share: u64, scene: &mut Scene<'_>) {
        self.is_nested = true;
        let mut inputs = Vec::new();
        for at in 0..scene.random.between(1, 4) {
            let call = (template(Deed::Small, at % VARIANTS), (mix(share, at) >> 1) as i64);
            inputs.push(self.enter(scene, None, call, &[], false));
        }
        let call = (template(Deed::Small, 0), (scene.random.next() >> 1) as i64);
        self.enter(scene, None, call, &inputs, true);
        for at in 0..self.handles.len() {
            self.gather(at);
        }
        self.settle(scene);
    }

    fn map(&mut self, scene: &mut Scene<'_>) {
        let template = any_template(scene);
        let count = match deed(template) {
            // Each ends four executors, and all that was only live there is computed again.
            Deed::Poison | Deed::Endless | Deed::Nested | Deed::Hog => 1,
            _ => scene.random.between(1, scene.swarm.size * 4) as u32,
        };
        let first = scene.random.below(3) as i64;
        let key = key_of(1, [template.0 as u64, first as u64, u64::from(count)]);
        let inputs = vec![Input::Values(Column::range(first, 1, count))];
        let values = (0..count).map(|i| (first + i64::from(i), vec![]));
        self.enter_map(scene, template, key, inputs, values.collect());
    }

    fn enter_map(
        &mut self,
        scene: &mut Scene<'_>,
        template: TemplateId,
        key: Key,
        inputs: Vec<Input>,
        calls: Vec<(i64, Vec<NodeId>)>,
    ) {
        self.teach(template);
        let count = calls.len() as u32;
        let oracle = &mut *scene.oracle;
        let nodes = scene.book.maps.entry(key).or_insert_with(|| {
            calls.into_iter().map(|(arg, nodes)| oracle.call(template, arg, nodes)).collect()
        });
        let nodes = nodes.clone();
        let layer = match self.client.find_map(key) {
            Some(layer) => layer,
            None => {
                let options = any_options(scene);
                let name = "f".into();
                let work = MapWork { template, key, name, inputs, constants: Blob::EMPTY };
                let layer = self.client.map(work, count, options.clone(), &mut self.actions);
                scene.book.restricted.insert(layer, options);
                layer
            }
        };
        for (index, node) in (0..count.min(3)).zip(&nodes) {
            scene.book.adoptable.push((key, Some(index), *node));
        }
        scene.book.count("a map was submitted");
        self.add_handle(TaskId::new(layer, 0), count, true, nodes);
    }

    pub(crate) fn any_tasks(&mut self, scene: &mut Scene<'_>, n: usize) -> Vec<(TaskId, NodeId)> {
        let mut tasks = Vec::new();
        for _ in 0..n {
            if self.handles.is_empty() {
                break;
            }
            let handle = scene.random.pick(&self.handles);
            let at = scene.random.below(u64::from(handle.count)) as u32;
            tasks.push((handle.task(at), handle.nodes[at as usize]));
        }
        tasks
    }

    fn map_over(&mut self, scene: &mut Scene<'_>) {
        let template = match any_template(scene) {
            id if matches!(deed(id), Deed::Poison | Deed::Endless | Deed::Nested | Deed::Hog) => {
                return;
            }
            id => id,
        };
        if scene.random.chance(40) {
            let n = scene.random.between(1, scene.swarm.size) as usize;
            let tasks = self.any_tasks(scene, n);
            if tasks.is_empty() {
                return self.map(scene);
            }
            let ids = tasks.iter().map(|(_, node)| u64::from(node.0));
            let key = key_of(2, ids.chain([template.0 as u64]));
            let list: Vec<TaskId> = tasks.iter().map(|(task, _)| *task).collect();
            let calls = tasks.iter().map(|(_, node)| (0, vec![*node])).collect();
            return self.enter_map(scene, template, key, vec![Input::TaskList(list.into())], calls);
        }
        let layers: Vec<usize> =
            (0..self.handles.len()).filter(|i| self.handles[*i].is_layer).collect();
        if layers.is_empty() {
            return self.map(scene);
        }
        let handle = &self.handles[*scene.random.pick(&layers)];
        let start = scene.random.below(u64::from(handle.count)) as u32;
        let count = scene.random.between(1, u64::from(handle.count - start)) as u32;
        let twice = scene.random.chance(20);
        let from = &handle.nodes[start as usize..(start + count) as usize];
        let ids: Vec<u64> = from.iter().map(|node| u64::from(node.0)).collect();
        let parts =
            [template.0 as u64, u64::from(count), u64::from(twice), ids[0], ids[ids.len() - 1]];
        let key = key_of(3, parts);
        let mut inputs = vec![Input::Tasks(handle.task(start))];
        let mut calls: Vec<(i64, Vec<NodeId>)> = from.iter().map(|node| (0, vec![*node])).collect();
        if twice {
            inputs.push(Input::Tasks(handle.task(start)));
            inputs.push(Input::Values(Column::range(5, 1, count)));
            for (i, (arg, nodes)) in (5..).zip(&mut calls) {
                *arg = i;
                nodes.push(nodes[0]);
            }
        }
        scene.book.count("a map over a map was submitted");
        self.enter_map(scene, template, key, inputs, calls);
    }

    pub(crate) fn enter(
        &mut self,
        scene: &mut Scene<'_>,
        key: Option<Key>,
        call: (TemplateId, i64),
        inputs: &[(TaskId, NodeId)],
        wanted: bool,
    ) -> (TaskId, NodeId) {
        let (template, arg) = call;
        self.teach(template);
        let ids = inputs.iter().map(|(_, node)| u64::from(node.0));
        let content = key_of(4, [template.0 as u64, arg as u64].into_iter().chain(ids));
        let nodes: Vec<NodeId> = inputs.iter().map(|(_, node)| *node).collect();
        let oracle = &mut *scene.oracle;
        let node = match key {
            None => *scene
                .book
                .tasks
                .entry(content)
                .or_insert_with(|| oracle.call(template, arg, nodes)),
            Some(key) => {
                *self.named.entry(key).or_insert_with(|| oracle.call(template, arg, nodes))
            }
        };
        // A call that holds a resource must not wait for one that asks for it.
        let options = if self.is_nested { Arc::default() } else { any_options(scene) };
        let bytes = arg.to_le_bytes();
        let blob = scene.random.chance(5).then(|| Blob::from(bytes.to_vec()));
        let dependencies: Vec<TaskId> = inputs.iter().map(|(task, _)| *task).collect();
        let new = NewTask {
            key: key.unwrap_or(content),
            name: None,
            template,
            args: if blob.is_some() { &[] } else { &bytes },
            blob,
            dependencies: &dependencies,
            options: Some(options.clone()),
            fused: &[],
        };
        let task = if wanted {
            let task = self.client.submit(new);
            let node = self.joined(task, node);
            self.add_handle(task, 1, false, vec![node]);
            if key.is_none() && scene.random.chance(30) {
                scene.book.adoptable.push((content, None, node));
            }
            task
        } else {
            self.client.submit_inner(new)
        };
        scene.book.restricted_tasks.entry(task).or_insert(options);
        (task, self.joined(task, node))
    }

    /// What was adopted under a key may be missing; so may be what joins it.
    pub(crate) fn joined(&self, task: TaskId, node: NodeId) -> NodeId {
        let held = self.handles.iter().find(|handle| handle.first == task && !handle.is_layer);
        held.map_or(node, |handle| handle.nodes[0])
    }

    /// The same key again and again, for one call after the other.
    fn submit_named(&mut self, scene: &mut Scene<'_>) {
        let key = key_of(5, [self.inner_seed, scene.random.below(3)]);
        let held = self.handles.iter().find(|h| Some(&h.nodes[0]) == self.named.get(&key));
        let ending = held.and_then(|handle| self.client.ending(handle.first));
        if matches!(ending, Some(Ending::Failed(failure)) if failure.kind == FailureKind::Cancelled)
        {
            // The client takes a cancelled key for a free one.
            self.named.remove(&key);
        }
        let n_inputs = scene.random.below(3) as usize;
        let inputs = self.any_tasks(scene, n_inputs);
        let call = (any_template(scene), (scene.random.next() >> 1) as i64);
        scene.book.count("a key of the user's own was submitted");
        let (task, node) = self.enter(scene, Some(key), call, &inputs, true);
        if scene.random.chance(40) {
            // Something reads it, so that its task outlives the wish for it.
            let call = (any_template(scene), (scene.random.next() >> 1) as i64);
            self.enter(scene, None, call, &[(task, node)], true);
        }
        if scene.random.chance(50) {
            while let Some(at) = self.handles.iter().position(|h| h.first == task) {
                self.drop_handle(at);
            }
            self.named.remove(&key);
        }
    }

    fn drop_some(&mut self, scene: &mut Scene<'_>) {
        for _ in 0..scene.random.between(1, 3) {
            if !self.handles.is_empty() {
                let at = scene.random.below(self.handles.len() as u64) as usize;
                self.drop_handle(at);
                scene.book.count("a handle was dropped");
            }
        }
    }

    fn cancel_some(&mut self, scene: &mut Scene<'_>) {
        if self.handles.is_empty() {
            return;
        }
        let at = scene.random.below(self.handles.len() as u64) as usize;
        self.cancel_handle(at, scene);
    }

    pub(crate) fn cancel_handle(&mut self, at: usize, scene: &mut Scene<'_>) {
        let handle = &self.handles[at];
        for node in &handle.nodes {
            scene.oracle.cancel(*node);
        }
        let (run, nodes) = (handle.run(), handle.nodes.clone());
        self.named.retain(|_, node| !nodes.contains(node));
        self.cancelled.extend(run.tasks());
        self.client.cancel(vec![run], "", &mut self.actions);
        scene.book.count("a handle was cancelled");
    }

    fn retry_some(&mut self, scene: &mut Scene<'_>) {
        let mut failed = Vec::new();
        for handle in &self.handles {
            for at in 0..handle.count.min(50) {
                if matches!(self.client.ending(handle.task(at)), Some(Ending::Failed(_))) {
                    failed.push((handle.task(at), handle.nodes[at as usize]));
                }
            }
        }
        failed.truncate(scene.random.between(1, 20) as usize);
        if !failed.is_empty() {
            scene.book.count("a failed task was retried");
            failed.iter().for_each(|(_, node)| scene.oracle.retry(*node));
            let failed: Vec<TaskId> = failed.into_iter().map(|(task, _)| task).collect();
            self.look_again(&failed);
            failed.iter().for_each(|task| {
                self.cancelled.remove(task);
            });
            self.client.retry(failed, &mut self.actions);
        }
    }

    fn adopt_some(&mut self, scene: &mut Scene<'_>) {
        if scene.book.adoptable.is_empty() {
            return;
        }
        let (key, index, node) = *scene.random.pick(&scene.book.adoptable);
        let task = self.client.adopt(key, index, &mut self.actions);
        let node = scene.oracle.adopted(node);
        scene.book.count("a task was adopted");
        self.add_handle(task, 1, false, vec![node]);
    }

    fn scatter(&mut self, scene: &mut Scene<'_>) {
        if self.peers.is_empty() {
            return;
        }
        let workers: Vec<_> = self.peers.iter().copied().collect();
        let mut chosen = vec![*scene.random.pick(&workers)];
        let other = *scene.random.pick(&workers);
        if !chosen.contains(&other) {
            chosen.push(other);
        }
        let layer = self.client.scatter_layer();
        let n = scene.random.between(1, 4) as u32;
        let (mut nodes, mut keys, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for index in 0..n {
            let number = scene.random.next() as i64;
            nodes.push(scene.oracle.scattered(number));
            keys.push(key_of(6, [number as u64]));
            values.push((TaskId::new(layer, index), Value::Column(Column::ints(&[number]))));
        }
        let number = u64::from(layer.0 as u32);
        let n_open = chosen.len();
        self.scatters.insert(number, Scatter { layer, nodes, keys, holders: Vec::new(), n_open });
        for worker in chosen {
            self.wishes.push(Wish::Put { worker, number, values: values.clone() });
        }
    }

    fn gather_some(&mut self, scene: &mut Scene<'_>) {
        if !self.handles.is_empty() {
            let at = scene.random.below(self.handles.len() as u64) as usize;
            self.gather(at);
        }
    }

    /// A hold on one task of a layer, beside the hold on the layer.
    fn hold_one(&mut self, scene: &mut Scene<'_>) {
        let layers: Vec<usize> =
            (0..self.handles.len()).filter(|i| self.handles[*i].is_layer).collect();
        if layers.is_empty() {
            return;
        }
        let handle = &self.handles[*scene.random.pick(&layers)];
        let at = scene.random.below(u64::from(handle.count)) as u32;
        let (task, node) = (handle.task(at), handle.nodes[at as usize]);
        self.client.hold(task);
        self.add_handle(task, 1, false, vec![node]);
    }

    fn ask(&mut self, scene: &mut Scene<'_>) {
        let key = match scene.book.adoptable.last() {
            Some((key, ..)) => *key,
            None => Key(1),
        };
        let queries = [
            Query::Info,
            Query::WhoHas(vec![]),
            Query::WhoHas(vec![key]),
            Query::HasWhat,
            Query::Processing,
            Query::Explain(key),
            Query::Story(vec![key]),
            Query::Pending(self.handles.iter().map(|handle| handle.task(0).run()).collect()),
            Query::CallStack,
        ];
        let query = scene.random.pick(&queries).clone();
        let id = self.client.ask(query, &mut self.actions);
        self.questions.insert(id);
    }

    fn restart(&mut self, scene: &mut Scene<'_>) {
        scene.oracle.restart();
        scene.book.count("the cluster was restarted");
        let id = self.client.ask(Query::Restart, &mut self.actions);
        self.questions.insert(id);
    }
}
