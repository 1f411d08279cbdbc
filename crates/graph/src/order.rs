//! Static order of an arbitrary graph, and the passes that need no more than its shape.
//!
//! The order is a depth-first walk from the outputs in which the dependency that needs most
//! values at once is computed first, as in register allocation (Sethi and Ullman, 1970): the
//! fewer finished values wait for their siblings, the less memory is held.

/// Dependencies of task `i`: `dependencies[ends[i-1]..ends[i]]`, as positions.
#[derive(Clone, Debug, Default)]
pub struct Adjacency {
    pub ends: Vec<u32>,
    pub dependencies: Vec<u32>,
}

impl Adjacency {
    pub fn len(&self) -> usize {
        self.ends.len()
    }
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
    pub fn push(&mut self, dependencies: impl IntoIterator<Item = u32>) {
        self.dependencies.extend(dependencies);
        self.ends.push(self.dependencies.len() as u32);
    }
    pub fn of(&self, task: u32) -> &[u32] {
        let i = task as usize;
        let start = if i == 0 { 0 } else { self.ends[i - 1] as usize };
        &self.dependencies[start..self.ends[i] as usize]
    }
}

/// Tasks that wait for each other in a ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cycle(pub Vec<u32>);

/// Which tasks the outputs need.
pub fn cull(graph: &Adjacency, outputs: &[u32]) -> Vec<bool> {
    let mut needed = vec![false; graph.len()];
    let mut open: Vec<u32> = outputs.to_vec();
    while let Some(task) = open.pop() {
        if !std::mem::replace(&mut needed[task as usize], true) {
            open.extend(graph.of(task).iter().filter(|d| !needed[**d as usize]));
        }
    }
    needed
}

/// The needed tasks, each after its dependencies.
///
/// # Errors
///
/// One cycle, if there is one among the tasks that `outputs` need.
pub fn order(graph: &Adjacency, outputs: &[u32]) -> Result<Vec<u32>, Cycle> {
    let post = post_order(graph, outputs, None)?;
    let needs = values_held(graph, &post);
    post_order(graph, outputs, Some(&needs))
}

/// How many values are held at once while a task's own inputs are computed, as if each input were
/// used nowhere else.
fn values_held(graph: &Adjacency, post: &[u32]) -> Vec<u32> {
    let mut needs = vec![1u32; graph.len()];
    let mut inputs: Vec<u32> = Vec::new();
    for &task in post {
        inputs.clear();
        inputs.extend(graph.of(task).iter().map(|d| needs[*d as usize]));
        inputs.sort_unstable_by(|a, b| b.cmp(a));
        let held = inputs.iter().zip(0u32..).map(|(need, waiting)| need.saturating_add(waiting));
        needs[task as usize] = held.max().unwrap_or(1);
    }
    needs
}

const UNSEEN: u8 = 0;
const OPEN: u8 = 1;
const DONE: u8 = 2;

fn post_order(
    graph: &Adjacency,
    outputs: &[u32],
    needs: Option<&[u32]>,
) -> Result<Vec<u32>, Cycle> {
    let mut state = vec![UNSEEN; graph.len()];
    let mut post = Vec::with_capacity(graph.len());
    // Each frame is a task and where its unvisited dependencies begin in `todo`.
    let mut path: Vec<(u32, usize)> = Vec::new();
    let mut todo: Vec<u32> = Vec::new();
    for &output in outputs {
        if state[output as usize] == UNSEEN {
            enter(graph, needs, output, &mut state, &mut path, &mut todo);
        }
        while let Some(&(task, base)) = path.last() {
            if todo.len() == base {
                path.pop();
                state[task as usize] = DONE;
                post.push(task);
                continue;
            }
            let next = todo.pop().expect("todo is longer than base");
            match state[next as usize] {
                DONE => {}
                UNSEEN => enter(graph, needs, next, &mut state, &mut path, &mut todo),
                _ => return Err(ring(&path, next)),
            }
        }
    }
    Ok(post)
}

fn enter(
    graph: &Adjacency,
    needs: Option<&[u32]>,
    task: u32,
    state: &mut [u8],
    path: &mut Vec<(u32, usize)>,
    todo: &mut Vec<u32>,
) {
    state[task as usize] = OPEN;
    let base = todo.len();
    path.push((task, base));
    todo.extend(graph.of(task).iter().rev());
    if let Some(needs) = needs {
        // The last of `todo` is visited first: the most demanding; ties keep the given order.
        todo[base..].sort_by_key(|d| needs[*d as usize]);
    }
}

fn ring(path: &[(u32, usize)], again: u32) -> Cycle {
    let from = path.iter().position(|(task, _)| *task == again).unwrap_or(0);
    Cycle(path[from..].iter().map(|(task, _)| *task).collect())
}
