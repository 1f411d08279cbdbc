//! What the scheduler knows of each task: dense records in chunks, edges in one arena.
//!
//! A layer without dependencies is expanded only as far as its cursor, so that ten million tasks
//! that wait for a free thread are one number.

use crate::template::TemplateIx;
use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashTable};
use rasker_graph::{Blob, ClientId, Column, Key, LayerId, Options, Reading, Run, TaskId};
use rasker_protocol::{Priority, WorkerId};
use smallvec::SmallVec;
use std::sync::Arc;

pub(crate) type Map<K, V> = HashMap<K, V, FixedState>;

/// A task by its place in the table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct TaskRef {
    pub layer: u32,
    pub index: u32,
}

/// A few tasks, without an allocation.
pub(crate) type TaskList = SmallVec<[TaskRef; 8]>;

/// Exactly what exists in each state.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum State {
    /// No value and no plan to make one; kept because a descendant may need it again.
    Released,
    Waiting {
        missing: u32,
    },
    Ready,
    Processing {
        worker: WorkerId,
    },
    Memory {
        holder: WorkerId,
        nbytes: f32,
    },
    /// An exchange whose writers are all in memory.
    Open {
        /// Changes with every change of where the parts are.
        version: u32,
        nbytes: f32,
    },
    Failed {
        failure: u32,
    },
    /// The same key as another task.
    Alias {
        of: TaskRef,
    },
    Forgotten,
}

impl State {
    /// Whether the task still needs its inputs.
    pub fn is_active(self) -> bool {
        matches!(
            self,
            State::Waiting { .. } | State::Ready | State::Processing { .. } | State::Open { .. }
        )
    }
    pub fn is_pending(self) -> bool {
        matches!(self, State::Waiting { .. } | State::Ready | State::Processing { .. })
    }
    /// Whether dependents can begin, as far as this task goes.
    pub fn is_there(self) -> bool {
        matches!(self, State::Memory { .. } | State::Open { .. })
    }
    pub fn is_processing(self) -> bool {
        matches!(self, State::Processing { .. })
    }
    pub fn is_gone(self) -> bool {
        matches!(self, State::Forgotten | State::Alias { .. })
    }
    pub fn name(self) -> &'static str {
        match self {
            State::Released => "released",
            State::Waiting { .. } => "waiting",
            State::Ready => "queued",
            State::Processing { .. } => "processing",
            State::Memory { .. } | State::Open { .. } => "memory",
            State::Failed { .. } => "erred",
            State::Alias { .. } => "alias",
            State::Forgotten => "forgotten",
        }
    }
}

pub(crate) const NO_EDGE: u32 = u32::MAX;

#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub state: State,
    /// Head of the list of listed dependents.
    pub dependents: u32,
    /// Dependents that are active.
    pub waiting_dependents: u32,
    /// Dependents that are not forgotten: they may need this task's recipe.
    pub alive_dependents: u32,
    pub attempt: u16,
    pub retries_used: u8,
    pub suspicion: u8,
    /// The submitting client wants it.
    pub wanted: bool,
    /// Other clients, or aliases, want it: see `Table::also_wanted`.
    pub also_wanted: bool,
    /// While it is processing: its worker may hold a value of an earlier attempt, which the value
    /// of this one replaces.
    pub is_stray: bool,
}

const _: () = assert!(size_of::<Task>() <= 32);

impl Task {
    pub fn new(state: State, wanted: bool) -> Task {
        Task {
            state,
            dependents: NO_EDGE,
            waiting_dependents: 0,
            alive_dependents: 0,
            attempt: 0,
            retries_used: 0,
            suspicion: 0,
            wanted,
            also_wanted: false,
            is_stray: false,
        }
    }
    pub fn is_wanted(&self) -> bool {
        self.wanted || self.also_wanted
    }
}

struct Edge {
    dependent: TaskRef,
    /// The dependent's layer when the edge was made: its place may be used again before the
    /// dependency is forgotten.
    serial: u32,
    next: u32,
}

/// What a layer's tasks run.
pub(crate) enum Recipe {
    Map(MapRecipe),
    Page(Box<PageRecipe>),
    /// Scattered values: there is no recipe.
    Data {
        keys: Vec<Key>,
        names: Vec<Arc<str>>,
    },
}

pub(crate) struct MapRecipe {
    pub template: TemplateIx,
    pub key: Key,
    pub name: Arc<str>,
    pub inputs: Vec<MapInput>,
    pub constants: Blob,
}

pub(crate) enum MapInput {
    Values(Column),
    /// Task `i` reads task `first + i` of the layer.
    Tasks {
        layer: u32,
        first: u32,
    },
    List(Vec<TaskRef>),
}

pub(crate) struct PageRecipe {
    pub templates: Vec<TemplateIx>,
    pub tasks: Vec<Listed>,
    pub names: Vec<(u32, Arc<str>)>,
    pub options: Vec<(u32, Arc<Options>)>,
    pub args: bytes::Bytes,
    pub blobs: Vec<(u32, Blob)>,
    pub dependencies: Vec<TaskRef>,
    pub fused: Vec<(u32, TemplateIx)>,
    /// Positions that are exchanges, and which parts of exchanges tasks read.
    pub exchanges: Vec<u32>,
    pub readings: Vec<Reading>,
}

/// What is kept of a listed task, in one line of memory: in a large graph it is not in the cache,
/// nor would any other be.
#[repr(align(64))]
pub(crate) struct Listed {
    pub record: Task,
    pub key: Key,
    /// Place of its template among the page's.
    pub template: u32,
    /// Where its arguments end; they begin where those of the task before end.
    pub args_end: u32,
    /// Where its dependencies begin and end.
    pub reads: (u32, u32),
}

const _: () = assert!(size_of::<Listed>() == 64);

impl PageRecipe {
    pub fn task(&self, index: u32) -> &Listed {
        &self.tasks[index as usize]
    }
    pub fn args_of(&self, index: u32) -> std::ops::Range<usize> {
        let start = index.checked_sub(1).map_or(0, |before| self.task(before).args_end);
        start as usize..self.task(index).args_end as usize
    }
    pub fn reads(&self, index: u32) -> &[TaskRef] {
        let (start, end) = self.task(index).reads;
        &self.dependencies[start as usize..end as usize]
    }
}

pub(crate) struct LayerState {
    pub id: LayerId,
    /// Tells layers apart that stood in the same place.
    serial: u32,
    pub client: ClientId,
    pub count: u32,
    pub priority: Priority,
    pub options: Arc<Options>,
    pub wants_values: bool,
    pub recipe: Recipe,
    /// Map layers that read this one by position.
    pub dependents: Vec<(u32, u32)>,
    /// Records, unless the recipe lists them.
    chunks: Vec<Box<[Task]>>,
    pub expanded: u32,
    /// Tasks from here on are roots that nobody looked at yet.
    pub cursor: u32,
    /// Tasks that are not forgotten.
    pub alive: u32,
    /// The client still wants tasks beyond `expanded`.
    pub wanted: bool,
    pub has_aliases: bool,
}

const CHUNK_BITS: u32 = 10;
const CHUNK: u32 = 1 << CHUNK_BITS;

impl LayerState {
    pub fn task(&self, index: u32) -> &Task {
        if let Recipe::Page(page) = &self.recipe {
            return &page.task(index).record;
        }
        &self.chunks[(index >> CHUNK_BITS) as usize][(index & (CHUNK - 1)) as usize]
    }
    pub fn task_mut(&mut self, index: u32) -> &mut Task {
        if let Recipe::Page(page) = &mut self.recipe {
            return &mut page.tasks[index as usize].record;
        }
        &mut self.chunks[(index >> CHUNK_BITS) as usize][(index & (CHUNK - 1)) as usize]
    }
    /// Makes records up to at least `end`; new ones are roots that wait for the cursor.
    /// Returns how many were made.
    pub fn expand(&mut self, end: u32) -> u32 {
        let before = self.expanded;
        while self.expanded < end {
            let n = CHUNK.min(self.count - self.expanded);
            let task = Task::new(State::Ready, self.wanted);
            self.chunks.push(vec![task; n as usize].into());
            self.expanded += n;
        }
        self.expanded - before
    }
    pub fn nbytes(&self) -> usize {
        self.chunks.iter().map(|chunk| size_of_val::<[Task]>(chunk)).sum()
    }
}

#[derive(Default)]
pub(crate) struct Table {
    pub layers: Vec<Option<Box<LayerState>>>,
    free: Vec<u32>,
    serial: u32,
    pub by_id: Map<LayerId, u32>,
    pub by_layer_key: Map<Key, u32>,
    by_key: HashTable<TaskRef>,
    edges: Vec<Edge>,
    /// Heads of lists that nobody needs: their edges are used again one by one.
    free_edges: Vec<u32>,
    /// Further holders of values.
    pub replicas: Map<TaskRef, SmallVec<[WorkerId; 2]>>,
    /// Further wishes: the client, and its own name for the task.
    pub also_wanted: Map<TaskRef, Vec<(ClientId, TaskId)>>,
}

impl Table {
    pub fn layer(&self, layer: u32) -> &LayerState {
        self.layers[layer as usize].as_ref().expect("a layer that is alive")
    }
    pub fn layer_mut(&mut self, layer: u32) -> &mut LayerState {
        self.layers[layer as usize].as_mut().expect("a layer that is alive")
    }
    pub fn task(&self, task: TaskRef) -> &Task {
        self.layer(task.layer).task(task.index)
    }
    pub fn task_mut(&mut self, task: TaskRef) -> &mut Task {
        self.layer_mut(task.layer).task_mut(task.index)
    }
    pub fn id(&self, task: TaskRef) -> TaskId {
        TaskId::new(self.layer(task.layer).id, task.index)
    }

    /// The part of a run that a peer named which its layer has; none if there is no such layer.
    pub fn clip(&self, run: Run) -> Option<Run> {
        let count = self.layer(*self.by_id.get(&run.layer)?).count;
        let start = run.start.min(count);
        Some(Run::new(run.layer, start, run.end().min(count) - start))
    }

    /// The place of a task that a peer named; none if it is forgotten.
    pub fn find(&self, task: TaskId) -> Option<TaskRef> {
        let layer = *self.by_id.get(&task.layer)?;
        let found = TaskRef { layer, index: task.index };
        let state = self.layer(layer);
        if task.index >= state.expanded {
            return (task.index < state.count).then_some(found);
        }
        match state.task(task.index).state {
            State::Alias { of } => Some(of),
            State::Forgotten => None,
            _ => Some(found),
        }
    }

    /// How many tasks of a run that a peer named are still to end.
    pub fn n_pending(&self, run: Run) -> u32 {
        let Some(layer) = self.by_id.get(&run.layer) else { return 0 };
        let layer = self.layer(*layer);
        let (start, end) = (run.start.min(layer.count), run.end().min(layer.count));
        let is_pending = |index: &u32| match layer.task(*index).state {
            State::Alias { of } => self.task(of).state.is_pending(),
            state => state.is_pending(),
        };
        let expanded = (start..end.min(layer.expanded)).filter(is_pending).count() as u32;
        expanded + end.saturating_sub(layer.expanded.max(start))
    }

    pub fn add_layer(&mut self, mut layer: LayerState) -> u32 {
        let id = layer.id;
        self.serial = self.serial.wrapping_add(1);
        layer.serial = self.serial;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.layers.push(None);
            self.layers.len() as u32 - 1
        });
        self.layers[slot as usize] = Some(Box::new(layer));
        self.by_id.insert(id, slot);
        slot
    }

    pub fn remove_layer(&mut self, slot: u32) {
        self.remove_layer_key(slot);
        let layer = self.layers[slot as usize].take().expect("a layer that is alive");
        self.by_id.remove(&layer.id);
        self.free.push(slot);
    }

    /// The layer's key may be used again for another layer.
    pub fn remove_layer_key(&mut self, slot: u32) {
        if let Recipe::Map(map) = &self.layer(slot).recipe {
            let key = map.key;
            if self.by_layer_key.get(&key) == Some(&slot) {
                self.by_layer_key.remove(&key);
            }
        }
    }

    pub fn new_layer(id: LayerId, client: ClientId, count: u32, recipe: Recipe) -> LayerState {
        let expanded = if let Recipe::Page(_) = &recipe { count } else { 0 };
        LayerState {
            id,
            serial: 0,
            client,
            count,
            priority: Priority::default(),
            options: Arc::default(),
            wants_values: false,
            recipe,
            dependents: Vec::new(),
            chunks: Vec::new(),
            expanded,
            cursor: count,
            alive: count,
            wanted: true,
            has_aliases: false,
        }
    }

    /// The key of a task that has one of its own.
    pub fn own_key(&self, task: TaskRef) -> Option<Key> {
        match &self.layer(task.layer).recipe {
            Recipe::Page(page) => Some(page.task(task.index).key),
            Recipe::Data { keys, .. } => Some(keys[task.index as usize]),
            Recipe::Map(_) => None,
        }
    }

    pub fn n_keys(&self) -> usize {
        self.by_key.len()
    }

    pub fn find_key(&self, key: Key) -> Option<TaskRef> {
        self.by_key.find(key.0 as u64, |task| self.own_key(*task) == Some(key)).copied()
    }

    pub fn add_key(&mut self, key: Key, task: TaskRef) {
        // The table cannot borrow itself to rehash, so it is lent out for the call.
        let mut by_key = std::mem::take(&mut self.by_key);
        by_key.insert_unique(key.0 as u64, task, |task| {
            self.own_key(*task).map_or(0, |key| key.0 as u64)
        });
        self.by_key = by_key;
    }

    pub fn reserve_keys(&mut self, n: usize) {
        let mut by_key = std::mem::take(&mut self.by_key);
        by_key.reserve(n, |task| self.own_key(*task).map_or(0, |key| key.0 as u64));
        self.by_key = by_key;
    }

    /// Reads the part of the table where a key would stand.
    pub fn read_near(&self, key: Key) {
        let found = self.by_key.find(key.0 as u64, |task| {
            std::hint::black_box(task.index);
            false
        });
        std::hint::black_box(found);
    }

    /// An edge's dependent and the edge after it.
    pub fn edge(&self, at: u32) -> (TaskRef, u32) {
        let edge = &self.edges[at as usize];
        (edge.dependent, edge.next)
    }

    pub fn remove_key(&mut self, task: TaskRef) {
        let Some(key) = self.own_key(task) else { return };
        if let Ok(entry) = self.by_key.find_entry(key.0 as u64, |other| *other == task) {
            entry.remove();
        }
    }

    pub fn add_edge(&mut self, dependency: TaskRef, dependent: TaskRef) {
        let next = self.task(dependency).dependents;
        let serial = self.layer(dependent.layer).serial;
        let edge = Edge { dependent, serial, next };
        let at = match self.free_edges.last_mut() {
            Some(first) => {
                let at = *first;
                match self.edges[at as usize].next {
                    NO_EDGE => drop(self.free_edges.pop()),
                    follow => *first = follow,
                }
                self.edges[at as usize] = edge;
                at
            }
            None => {
                self.edges.push(edge);
                self.edges.len() as u32 - 1
            }
        };
        self.task_mut(dependency).dependents = at;
    }

    /// Forgets a task's list of dependents.
    pub fn clear_edges(&mut self, task: TaskRef) {
        let head = std::mem::replace(&mut self.task_mut(task).dependents, NO_EDGE);
        if head != NO_EDGE {
            self.free_edges.push(head);
        }
    }

    /// All dependents, listed and by formula.
    pub fn dependents(&self, task: TaskRef, into: &mut TaskList) {
        let layer = self.layer(task.layer);
        let mut at = layer.task(task.index).dependents;
        while at != NO_EDGE {
            let edge = &self.edges[at as usize];
            let same = self.layers[edge.dependent.layer as usize].as_ref();
            if same.is_some_and(|layer| layer.serial == edge.serial) {
                into.push(edge.dependent);
            }
            at = edge.next;
        }
        for &(dependent, first) in &layer.dependents {
            if task.index >= first && task.index - first < self.layer(dependent).count {
                into.push(TaskRef { layer: dependent, index: task.index - first });
            }
        }
    }

    /// All dependencies, listed and by formula.
    pub fn dependencies(&self, task: TaskRef, into: &mut TaskList) {
        match &self.layer(task.layer).recipe {
            Recipe::Data { .. } => {}
            Recipe::Page(page) => {
                // One by one: mostly there are two or three, too few to call for a copy.
                for dependency in page.reads(task.index) {
                    into.push(*dependency);
                }
            }
            Recipe::Map(map) => {
                for input in &map.inputs {
                    match input {
                        MapInput::Values(_) => {}
                        MapInput::Tasks { layer, first } => {
                            into.push(TaskRef { layer: *layer, index: first + task.index });
                        }
                        MapInput::List(tasks) => into.push(tasks[task.index as usize]),
                    }
                }
            }
        }
    }

    pub fn is_exchange(&self, task: TaskRef) -> bool {
        match &self.layer(task.layer).recipe {
            Recipe::Page(page) if !page.exchanges.is_empty() => {
                page.exchanges.binary_search(&task.index).is_ok()
            }
            _ => false,
        }
    }

    /// The arguments of a listed task.
    pub fn args(&self, task: TaskRef) -> Option<Blob> {
        let Recipe::Page(page) = &self.layer(task.layer).recipe else { return None };
        Some(match page.blobs.binary_search_by_key(&task.index, |(index, _)| *index) {
            Ok(at) => page.blobs[at].1.clone(),
            Err(_) => Blob::Bytes(page.args.slice(page.args_of(task.index))),
        })
    }

    pub fn options(&self, task: TaskRef) -> &Arc<Options> {
        let layer = self.layer(task.layer);
        if let Recipe::Page(page) = &layer.recipe
            && let Ok(at) = page.options.binary_search_by_key(&task.index, |(index, _)| *index)
        {
            return &page.options[at].1;
        }
        &layer.options
    }

    /// Bytes of the table itself, without the arguments it keeps for its clients.
    pub fn nbytes(&self) -> usize {
        let layers = self.layers.iter().flatten().map(|layer| {
            let recipe = match &layer.recipe {
                Recipe::Page(page) => {
                    page.tasks.len() * size_of::<Listed>()
                        + page.args.len()
                        + page.dependencies.len() * size_of::<TaskRef>()
                }
                Recipe::Map(_) => 0,
                Recipe::Data { keys, .. } => keys.len() * 16,
            };
            size_of::<LayerState>() + layer.nbytes() + recipe
        });
        layers.sum::<usize>()
            + self.edges.capacity() * size_of::<Edge>()
            + self.by_key.allocation_size()
    }
}
