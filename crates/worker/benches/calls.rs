//! What a call costs the worker machine alone: its executor and its peers answer at once.
//!
//! `cargo bench -p rasker-worker --bench calls -- [--count 100000] [--batches 1,64]
//! [--shapes single,chain] [--limit 8388608]` prints time in the machine per call, for calls that
//! come one in a message and many in one; the limit to memory is in KiB. Instructions are counted
//! with `valgrind --tool=callgrind --toggle-collect=rasker_worker::worker::Worker::handle` and two
//! counts, whose difference leaves out what is done once. The machine is set up as workers are: a
//! limit to its memory, a disk, and an executor for each kind of calls.

use rasker_graph::*;
use rasker_protocol::*;
use rasker_worker::{Action, Event, MemoryOptions, Worker, WorkerOptions};
use smallvec::{SmallVec, smallvec};
use std::time::{Duration, Instant};

const CALL_NS: u64 = 1000;
const PEER: WorkerId = WorkerId(7);
const LAYER: LayerId = LayerId(1 << 32);
/// Values that a peer holds.
const ELSEWHERE: LayerId = LayerId(2 << 32);

/// What calls look like, what they read, and what they make.
#[derive(Clone, Copy)]
struct Shape {
    name: &'static str,
    /// The calls of a message are one run of a layer.
    is_layer: bool,
    /// Inputs that were made here, by calls of the messages before.
    n_inputs: u32,
    /// Inputs that a peer holds.
    n_elsewhere: u32,
    made: Made,
}

#[derive(Clone, Copy)]
enum Made {
    /// A small value, which is reported with its call.
    Small,
    /// An object that stays in the executor.
    Live,
    /// Bytes, enough of them to leave for the disk one day.
    Large,
}

const SHAPES: [Shape; 7] = [
    Shape { name: "layer", is_layer: true, n_inputs: 0, n_elsewhere: 0, made: Made::Small },
    Shape { name: "single", is_layer: false, n_inputs: 0, n_elsewhere: 0, made: Made::Small },
    Shape { name: "chain", is_layer: false, n_inputs: 1, n_elsewhere: 0, made: Made::Small },
    Shape { name: "pairs", is_layer: false, n_inputs: 2, n_elsewhere: 0, made: Made::Small },
    Shape { name: "live", is_layer: false, n_inputs: 1, n_elsewhere: 0, made: Made::Live },
    Shape { name: "large", is_layer: false, n_inputs: 1, n_elsewhere: 0, made: Made::Large },
    Shape { name: "fetch", is_layer: false, n_inputs: 0, n_elsewhere: 1, made: Made::Small },
];

struct Node {
    worker: Worker,
    out: Vec<Action>,
    shape: Shape,
    label: Label,
    large: Blob,
    /// Time in the machine.
    spent: Duration,
    n_finished: u64,
}

impl Node {
    fn new(shape: Shape, limit_nbytes: u64) -> Node {
        let options = WorkerOptions {
            nthreads: 1,
            runs: Kinds::BOTH,
            shares_objects: false,
            local_clients: false,
            memory: MemoryOptions { limit_nbytes, has_disk: true, ..Default::default() },
        };
        let mut worker = Worker::new(options);
        let mut out = Vec::new();
        worker.start(&mut out);
        let label = Label { name: "inc".into(), key: Key(1), layer: shape.is_layer, text: None };
        let large = Blob::from(vec![0; 64 << 10]);
        let (spent, n_finished) = (Duration::ZERO, 0);
        let mut node = Node { worker, out: vec![], shape, label, large, spent, n_finished };
        for action in out {
            if let Action::StartExecutor(executor, _) = action {
                node.event(Event::ExecutorJoined { executor });
            }
        }
        node
    }

    fn event(&mut self, event: Event) {
        let started = Instant::now();
        self.worker.handle(event, &mut self.out);
        self.spent += started.elapsed();
    }

    /// Has the calls of `run` done: those that it names, and whatever they need.
    fn run(&mut self, run: Run, freed: Vec<Run>) {
        let calls = match self.shape.is_layer {
            true => vec![self.layer(run)],
            false => run.tasks().map(|task| self.single(task, run.count)).collect(),
        };
        let peer = Peer { worker: PEER, address: "zero://7".into(), name: "peer".into() };
        let is_first = run.start < run.count;
        let template = Template {
            id: TemplateId(1),
            kind: TemplateKind::Python,
            name: "inc".into(),
            code: Blob::EMPTY,
        };
        let message = ToWorker::Compute {
            templates: if is_first { vec![template] } else { vec![] },
            calls,
            peers: if is_first { vec![peer] } else { vec![] },
            exchanges: vec![],
        };
        self.event(Event::FromScheduler(message));
        if !freed.is_empty() {
            self.event(Event::FromScheduler(ToWorker::Free(freed)));
        }
        // A turn ends with what it led to; answers are events of the next.
        let mut has_news = true;
        while has_news {
            self.event(Event::Turn);
            let mut out = std::mem::take(&mut self.out);
            has_news = false;
            for action in out.drain(..) {
                has_news |= self.perform(action);
            }
            if self.out.is_empty() {
                self.out = out;
            }
        }
    }

    /// Whether it was answered.
    fn perform(&mut self, action: Action) -> bool {
        match action {
            Action::ToExecutor(executor, ToExecutor::Calls(calls)) => {
                let dones = calls.iter().map(|calls| self.done(calls)).collect();
                let message = FromExecutor::Done(dones);
                self.event(Event::FromExecutor { executor, message });
                true
            }
            Action::Fetch { worker, tasks, .. } => {
                let value = |task: TaskId| Value::Column(Column::range(task.index.into(), 1, 1));
                let values = tasks.into_iter().map(|task| (task, Some(value(task)))).collect();
                self.event(Event::Fetched { worker, values });
                true
            }
            Action::ToScheduler(FromWorker::Progress(progress)) => {
                let n_finished = progress.iter().map(|progress| match progress {
                    Progress::Finished { run, .. } => u64::from(run.count),
                    Progress::Copied { .. } => 0,
                    other => panic!("{other:?}"),
                });
                self.n_finished += n_finished.sum::<u64>();
                false
            }
            _ => false,
        }
    }

    fn done(&self, calls: &ExecutorCalls) -> Done {
        let (run, attempt) = (calls.run, calls.attempt);
        let outcome = match self.shape.made {
            Made::Small => Outcome::Values(Column::range(run.start.into(), 1, run.count)),
            Made::Live => Outcome::Live { nbytes: 1000 },
            Made::Large => {
                let blob = self.large.clone();
                Outcome::Value(Value::Encoded { nbytes: blob.len() as u64, blob })
            }
        };
        Done { run, attempt, elapsed_ns: u64::from(run.count) * CALL_NS, outcome }
    }

    fn layer(&self, run: Run) -> Calls {
        let inputs = vec![Input::Values(Column::range(run.start.into(), 1, run.count))];
        self.calls(run, CallWork::Map { inputs, constants: Blob::EMPTY })
    }

    fn single(&self, task: TaskId, batch: u32) -> Calls {
        let mut dependencies = SmallVec::new();
        for back in 1..=self.shape.n_inputs {
            let input = task.index.checked_sub(back * batch);
            dependencies.extend(input.map(|index| TaskId::new(task.layer, index)));
        }
        let mut sources = SmallVec::new();
        for at in 0..self.shape.n_elsewhere {
            let input = TaskId::new(ELSEWHERE, task.index * self.shape.n_elsewhere + at);
            dependencies.push(input);
            sources.push(Source { run: input.run(), worker: PEER, nbytes: 8 });
        }
        let args = Blob::from(task.index.to_le_bytes().to_vec());
        let mut calls = self.calls(task.run(), CallWork::One { args, dependencies });
        calls.sources = sources;
        calls
    }

    fn calls(&self, run: Run, work: CallWork) -> Calls {
        Calls {
            run,
            attempt: 0,
            priority: Priority::default(),
            template: TemplateId(1),
            fused: smallvec![],
            label: self.label.clone(),
            work,
            sources: smallvec![],
            alone: false,
            reads: smallvec![],
        }
    }
}

fn measure(shape: Shape, batch: u32, count: u32, limit_nbytes: u64) {
    let mut node = Node::new(shape, limit_nbytes);
    // Calls are short: the worker is to know that before it is measured.
    node.run(Run::new(LAYER, 0, 1), vec![Run::new(LAYER, 0, 1)]);
    node = Node { spent: Duration::ZERO, n_finished: 0, ..node };
    for start in (0..count).step_by(batch as usize) {
        // What the last calls that read it are done with is let go of, and what they fetched.
        let behind = (shape.n_inputs + 1) * batch;
        let mut freed = Vec::new();
        if let Some(start) = start.checked_sub(behind) {
            freed.push(Run::new(LAYER, start, batch));
        }
        if let Some(start) = start.checked_sub(batch).filter(|_| shape.n_elsewhere > 0) {
            freed.push(Run::new(ELSEWHERE, start, batch * shape.n_elsewhere));
        }
        node.run(Run::new(LAYER, start, batch), freed);
    }
    assert_eq!(node.n_finished, u64::from(count), "every call is reported once");
    let ns = node.spent.as_secs_f64() * 1e9 / f64::from(count);
    let all = [Run::new(LAYER, 0, count), Run::new(ELSEWHERE, 0, count * shape.n_elsewhere)];
    node.event(Event::FromScheduler(ToWorker::Free(all.to_vec())));
    node.event(Event::Turn);
    assert!(node.worker.is_idle(), "something is left: {}", node.worker.leftovers());
    println!("{:<10}{batch:>12}{count:>10}{ns:>14.0}", shape.name);
}

/// What follows an option on the command line.
fn option(name: &str) -> Option<String> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.nth(1)
}

fn main() {
    let count: u32 = option("--count").and_then(|n| n.parse().ok()).unwrap_or(100_000);
    let limit: u64 = option("--limit").and_then(|n| n.parse().ok()).unwrap_or(8 << 20);
    let batches = option("--batches").unwrap_or_else(|| "1,64".to_owned());
    let chosen = option("--shapes");
    println!("{:<10}{:>12}{:>10}{:>14}", "shape", "per message", "calls", "ns per call");
    for shape in SHAPES {
        if chosen.as_ref().is_some_and(|chosen| !chosen.split(',').any(|name| name == shape.name)) {
            continue;
        }
        for batch in batches.split(',').filter_map(|batch| batch.parse().ok()) {
            measure(shape, batch, count.next_multiple_of(batch), limit << 10);
        }
    }
}
