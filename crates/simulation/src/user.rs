//! A user at a client: holds futures, asks for their values, and compares them with the oracle's.

use crate::executor::read;
use crate::oracle::{NodeId, Oracle};
use crate::random::Random;
use crate::swarm::Swarm;
use rasker_client::{Action, Client, Ending, WaitId};
use rasker_graph::{ClientId, Key, LayerId, Run, TaskId};
use rasker_protocol::{Failure, FromClient, FromHolder, ToClient, Value, WorkerId};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// What all users of a world share.
pub struct Scene<'a> {
    pub random: &'a mut Random,
    pub oracle: &'a mut Oracle,
    pub swarm: &'a Swarm,
    pub book: &'a mut Book,
}

/// Keys by their meaning: who submits the same call uses the same key.
#[derive(Default)]
pub struct Book {
    pub tasks: HashMap<Key, NodeId>,
    pub maps: HashMap<Key, Vec<NodeId>>,
    /// What others may ask for: a key, the position in a layer, and what it stands for.
    pub adoptable: Vec<(Key, Option<u32>, NodeId)>,
    /// Which workers may run tasks that name some.
    pub restricted: HashMap<LayerId, Arc<rasker_graph::Options>>,
    pub restricted_tasks: HashMap<TaskId, Arc<rasker_graph::Options>>,
    pub wrong: Vec<String>,
    pub counts: BTreeMap<&'static str, u64>,
}

impl Book {
    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Seen {
    No,
    /// Its holder was asked when the layer had been reported so often.
    Asked {
        reports: u64,
    },
    /// The holder did not have it; to be asked again after the next report.
    Unlucky {
        reports: u64,
    },
    Yes,
}

pub struct Handle {
    pub number: u64,
    pub first: TaskId,
    pub count: u32,
    pub is_layer: bool,
    pub nodes: Vec<NodeId>,
    seen: Vec<Seen>,
    pub gathering: bool,
    wait: Option<WaitId>,
}

impl Handle {
    pub fn task(&self, at: u32) -> TaskId {
        TaskId::new(self.first.layer, self.first.index + at)
    }
    pub fn run(&self) -> Run {
        Run::new(self.first.layer, self.first.index, self.count)
    }
    fn is_done(&self) -> bool {
        self.seen.iter().all(|seen| *seen == Seen::Yes)
    }
}

/// What a user wants from the world.
pub enum Wish {
    Send(FromClient),
    Get { holder: WorkerId, tag: Tag, task: TaskId },
    Put { worker: WorkerId, number: u64, values: Vec<(TaskId, Value)> },
}

/// Which value was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Tag {
    pub client: ClientId,
    pub handle: u64,
    pub at: u32,
}

pub struct Scatter {
    pub layer: LayerId,
    pub nodes: Vec<NodeId>,
    pub keys: Vec<Key>,
    pub holders: Vec<WorkerId>,
    pub n_open: usize,
}

pub struct User {
    pub client: Client,
    pub handles: Vec<Handle>,
    pub n_handles: u64,
    pub acts_left: u64,
    pub scatters: BTreeMap<u64, Scatter>,
    pub named: BTreeMap<Key, NodeId>,
    reports: HashMap<LayerId, u64>,
    pub actions: Vec<Action>,
    pub wishes: Vec<Wish>,
    pub is_finishing: bool,
    pub questions: BTreeSet<u64>,
    pub inner_seed: u64,
    /// It belongs to a call that submitted tasks.
    pub is_nested: bool,
    /// Tasks that this user cancelled and has not asked for again.
    pub cancelled: HashSet<TaskId>,
    /// Workers that this user was told of.
    pub peers: BTreeSet<WorkerId>,
}

impl User {
    pub fn new(id: ClientId, acts: u64) -> User {
        User {
            client: Client::new(id),
            handles: Vec::new(),
            n_handles: 0,
            acts_left: acts,
            scatters: BTreeMap::new(),
            named: BTreeMap::new(),
            reports: HashMap::new(),
            actions: Vec::new(),
            wishes: Vec::new(),
            is_finishing: false,
            questions: BTreeSet::new(),
            inner_seed: u64::from(id.0),
            is_nested: false,
            cancelled: HashSet::new(),
            peers: BTreeSet::new(),
        }
    }

    pub fn add_handle(&mut self, first: TaskId, count: u32, is_layer: bool, nodes: Vec<NodeId>) {
        assert_eq!(nodes.len(), count as usize);
        let seen = vec![Seen::No; nodes.len()];
        let number = self.n_handles;
        self.n_handles += 1;
        let gathering = self.is_finishing;
        let wait = None;
        self.handles.push(Handle { number, first, count, is_layer, nodes, seen, gathering, wait });
    }

    /// Turns what the client machine asked for into wishes.
    pub fn settle(&mut self, scene: &mut Scene<'_>) {
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::Send(message) => self.wishes.push(Wish::Send(message)),
                Action::Wake(wait) => self.woken(wait, scene),
                Action::Answer { id, .. } => {
                    if !self.questions.remove(&id) {
                        scene.book.wrong.push(format!("an answer {id} that nobody asked for"));
                    }
                }
                Action::PeerCame { worker, .. } => {
                    self.peers.insert(worker);
                }
                Action::PeerGone { worker } => {
                    self.peers.remove(&worker);
                }
            }
        }
        self.pursue(scene);
    }

    fn woken(&mut self, wait: WaitId, scene: &mut Scene<'_>) {
        let Some(at) = self.handles.iter().position(|h| h.wait == Some(wait)) else { return };
        let handle = &mut self.handles[at];
        handle.wait = None;
        let pending = (0..handle.count).find(|i| self.client.ending(handle.task(*i)).is_none());
        if let Some(i) = pending
            && handle.count > 1
        {
            let task = handle.task(i);
            scene.book.wrong.push(format!("a wait was over before {task:?} had ended"));
        }
    }

    pub fn on_message(&mut self, message: ToClient, scene: &mut Scene<'_>) {
        let mut said = |layer| *self.reports.entry(layer).or_default() += 1;
        match &message {
            ToClient::Finished(items) => items.iter().for_each(|item| said(item.run.layer)),
            ToClient::Failed(items) => items.iter().for_each(|(run, _)| said(run.layer)),
            ToClient::Pending(runs) => {
                scene.book.count("a value was lost and is computed again");
                runs.iter().for_each(|run| said(run.layer));
            }
            _ => {}
        }
        let finished: Vec<Run> = match &message {
            ToClient::Finished(items) => items.iter().map(|item| item.run).collect(),
            _ => Vec::new(),
        };
        self.client.handle(message, &mut self.actions);
        self.check_cancelled(&finished, scene);
        self.settle(scene);
    }

    /// Invariant 13: what was cancelled shows no result later, unless it was asked for again.
    fn check_cancelled(&self, finished: &[Run], scene: &mut Scene<'_>) {
        if self.cancelled.is_empty() {
            return;
        }
        for task in finished.iter().flat_map(|run| run.tasks()) {
            if self.cancelled.contains(&task)
                && matches!(self.client.ending(task), Some(Ending::Finished { .. }))
            {
                scene.book.wrong.push(format!("{task:?} was cancelled and shows a result (13)"));
            }
        }
    }

    /// Starts to ask for everything a handle holds.
    pub fn gather(&mut self, at: usize) {
        let handle = &mut self.handles[at];
        handle.gathering = true;
        if handle.wait.is_none() {
            let run = handle.run();
            handle.wait = self.client.wait(&[run], run.count);
        }
    }

    /// Looks at what has ended among the values asked for.
    fn pursue(&mut self, scene: &mut Scene<'_>) {
        let client = self.client.id();
        for handle in &mut self.handles {
            if !handle.gathering {
                continue;
            }
            let reports = self.reports.get(&handle.first.layer).copied().unwrap_or(0);
            for at in 0..handle.count {
                let seen = handle.seen[at as usize];
                let is_open = match seen {
                    Seen::No => true,
                    Seen::Unlucky { reports: before } => before != reports,
                    Seen::Asked { .. } | Seen::Yes => false,
                };
                if !is_open {
                    continue;
                }
                let Some(ending) = self.client.ending(handle.task(at)) else { continue };
                let node = handle.nodes[at as usize];
                handle.seen[at as usize] = match ending {
                    Ending::Failed(failure) => {
                        judge_failure(scene, handle.task(at), node, &failure);
                        Seen::Yes
                    }
                    Ending::Finished { value: Some(value), .. } => {
                        judge_value(scene, handle.task(at), node, &value);
                        Seen::Yes
                    }
                    Ending::Finished { holder, held_as, .. } => {
                        let tag = Tag { client, handle: handle.number, at };
                        self.wishes.push(Wish::Get { holder, tag, task: held_as });
                        Seen::Asked { reports }
                    }
                };
            }
        }
    }

    pub fn on_got(&mut self, tag: Tag, message: FromHolder, scene: &mut Scene<'_>) {
        let FromHolder::Got { values, .. } = message else { return };
        let value = values.into_iter().next().map_or(Ok(None), |(_, value)| value);
        if tag.client != self.client.id() {
            return;
        }
        let Some(handle) = self.handles.iter_mut().find(|h| h.number == tag.handle) else { return };
        let at = tag.at as usize;
        let Seen::Asked { reports } = handle.seen[at] else { return };
        match value {
            Ok(Some(value)) => {
                judge_value(scene, handle.task(tag.at), handle.nodes[at], &value);
                handle.seen[at] = Seen::Yes;
            }
            Ok(None) => {
                scene.book.count("a holder no longer had what it was asked for");
                handle.seen[at] = Seen::Unlucky { reports };
            }
            Err(failure) => {
                scene.book.wrong.push(format!("a value could not be had: {}", failure.text));
                handle.seen[at] = Seen::Yes;
            }
        }
        self.settle(scene);
    }

    /// A worker holds what was put on it, or is gone.
    pub fn on_stored(&mut self, number: u64, worker: WorkerId, ok: bool, scene: &mut Scene<'_>) {
        let Some(scatter) = self.scatters.get_mut(&number) else { return };
        scatter.n_open -= 1;
        if ok {
            scatter.holders.push(worker);
        }
        if scatter.n_open > 0 {
            return;
        }
        let scatter = self.scatters.remove(&number).expect("just seen");
        if scatter.holders.is_empty() {
            return;
        }
        scene.book.count("values were scattered");
        let n = scatter.keys.len();
        let message = rasker_protocol::Scattered {
            layer: scatter.layer,
            names: scatter.keys.iter().map(|key| format!("{key:?}").into()).collect(),
            keys: scatter.keys,
            nbytes: vec![8; n],
            holders: vec![scatter.holders; n],
        };
        self.client.scattered(message, &mut self.actions);
        for (index, node) in (0..).zip(scatter.nodes) {
            self.add_handle(TaskId::new(scatter.layer, index), 1, false, vec![node]);
        }
        self.settle(scene);
    }

    pub fn drop_handle(&mut self, at: usize) {
        let handle = self.handles.swap_remove(at);
        if let Some(wait) = handle.wait {
            self.client.cancel_wait(wait);
        }
        handle.run().tasks().for_each(|task| {
            self.cancelled.remove(&task);
        });
        let node = handle.nodes.first().copied();
        if handle.is_layer {
            self.client.drop_layer(handle.first.layer);
        } else {
            self.client.drop_task(handle.first);
            let others = self.handles.iter().any(|h| h.first == handle.first);
            if !others {
                self.named.retain(|_, n| Some(*n) != node);
            }
        }
    }

    /// Everything that is left is to be had; then it is let go.
    pub fn finish(&mut self, scene: &mut Scene<'_>) {
        self.is_finishing = true;
        while let Some(at) = (0..self.handles.len())
            .find(|at| self.handles[*at].nodes.iter().any(|node| scene.oracle.is_endless(*node)))
        {
            if scene.random.chance(50) {
                self.cancel_handle(at, scene);
            }
            self.drop_handle(at);
        }
        for at in 0..self.handles.len() {
            self.gather(at);
        }
        self.settle(scene);
    }

    pub fn is_satisfied(&self) -> bool {
        self.acts_left == 0
            && self.scatters.is_empty()
            && self.questions.is_empty()
            && self.handles.iter().all(|handle| handle.is_done() && handle.wait.is_none())
    }

    /// What this user still waits for.
    pub fn unmet(&self) -> (Option<TaskId>, String) {
        let mut text = String::new();
        for handle in &self.handles {
            for at in 0..handle.count {
                if handle.seen[at as usize] != Seen::Yes {
                    let task = handle.task(at);
                    let ending = self.client.ending(task);
                    let seen = handle.seen[at as usize];
                    return (Some(task), format!("{task:?} ({seen:?}, known: {ending:?})"));
                }
            }
        }
        if let Some(handle) = self.handles.iter().find(|handle| handle.wait.is_some()) {
            return (None, format!("a wake-up for {:?} (28)", handle.run()));
        }
        if !self.questions.is_empty() || !self.scatters.is_empty() {
            text = format!("{} questions, {} scatters", self.questions.len(), self.scatters.len());
        }
        (None, text)
    }

    /// What was seen of these counts no more: their tasks run again.
    pub fn look_again(&mut self, tasks: &[TaskId]) {
        for handle in &mut self.handles {
            for at in 0..handle.count {
                if tasks.contains(&handle.task(at)) {
                    handle.seen[at as usize] = Seen::No;
                }
            }
        }
    }
}

fn judge_value(scene: &mut Scene<'_>, task: TaskId, node: NodeId, value: &Value) {
    scene.book.count("a value was seen");
    let wrong = match read(value) {
        Some(value) => scene.oracle.judge_value(node, value),
        None => Some(format!("{node:?} has a value that cannot be read: {value:?}")),
    };
    scene.book.wrong.extend(wrong.map(|wrong| format!("{task:?}: {wrong}")));
}

fn judge_failure(scene: &mut Scene<'_>, task: TaskId, node: NodeId, failure: &Failure) {
    scene.book.count(match failure.kind {
        rasker_protocol::FailureKind::Exception => "a call raised",
        rasker_protocol::FailureKind::Killed => "a call was killed too often",
        rasker_protocol::FailureKind::Lost => "a scattered value was lost",
        rasker_protocol::FailureKind::Unpicklable => "a call could not be written",
        rasker_protocol::FailureKind::Cancelled => "a call was cancelled",
        rasker_protocol::FailureKind::OutOfMemory => "a call took too much memory",
    });
    let wrong = scene.oracle.judge_failure(node, failure);
    scene.book.wrong.extend(wrong.map(|wrong| format!("{task:?}: {wrong}")));
}
