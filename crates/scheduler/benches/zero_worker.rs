//! What a task costs the scheduler machine alone: its workers answer at once.
//!
//! `cargo bench -p rasker-scheduler --bench zero_worker -- [--least 10000] [--most 10000000]
//! [--shapes tree,random] [--workers 2,24,168]` prints a table: time in the machine per task, from
//! submission to the last report and for the release, and bytes per task while all values are held.
//! It stands beside the machine and not in the simulator, whose machines carry hooks.

use rasker_graph::*;
use rasker_protocol::*;
use rasker_scheduler::{Action, Event, Scheduler};
use std::time::{Duration, Instant};

const CLIENT: ClientId = ClientId(1);
const CALL_NS: u64 = 1000;

struct Cluster {
    scheduler: Scheduler,
    out: Vec<Action>,
    /// Time in the machine.
    spent: Duration,
    n_finished: u64,
    n_messages: u64,
}

impl Cluster {
    fn new(n_workers: u32) -> Cluster {
        let (scheduler, out, spent) = (Scheduler::default(), Vec::new(), Duration::ZERO);
        let mut cluster = Cluster { scheduler, out, spent, n_finished: 0, n_messages: 0 };
        cluster.event(Event::ClientJoined { client: CLIENT, name: "zero".into() });
        for id in 0..n_workers {
            let hello = WorkerHello {
                routes: String::new(),
                name: format!("w{id}"),
                address: format!("zero://{id}"),
                host: "zero".into(),
                pid: 0,
                nthreads: 1,
                memory_limit: 0,
                resources: Vec::new(),
                python: String::new(),
                runs: Kinds::BOTH,
            };
            cluster.event(Event::WorkerJoined { worker: WorkerId(id), hello });
        }
        cluster
    }

    fn event(&mut self, event: Event) {
        let started = Instant::now();
        self.scheduler.handle(0, event, &mut self.out);
        self.spent += started.elapsed();
    }

    fn client(&mut self, message: FromClient) {
        self.event(Event::FromClient { client: CLIENT, message });
    }

    fn run(&mut self) {
        loop {
            self.event(Event::Turn);
            if self.out.is_empty() {
                return;
            }
            for action in std::mem::take(&mut self.out) {
                self.n_messages += 1;
                match action {
                    Action::ToWorker(worker, ToWorker::Compute { calls, .. }) => {
                        let message = FromWorker::Progress(calls.iter().map(finished).collect());
                        self.n_messages += 1;
                        self.event(Event::FromWorker { worker, message });
                    }
                    Action::ToClient(_, ToClient::Finished(items)) => {
                        self.n_finished +=
                            items.iter().map(|item| u64::from(item.run.count)).sum::<u64>();
                    }
                    _ => {}
                }
            }
        }
    }
}

fn finished(calls: &Calls) -> Progress {
    let (run, attempt, n) = (calls.run, calls.attempt, u64::from(calls.run.count));
    Progress::Finished { run, attempt, elapsed_ns: n * CALL_NS, nbytes: n * 8, values: None }
}

fn layer(count: u32, work: Work) -> Layer {
    let id = LayerId::new(CLIENT, 1);
    Layer { id, count, work, options: Default::default(), wants_values: true }
}

fn independent(count: u32) -> Layer {
    let inputs = vec![Input::Values(Column::range(0, 1, count))];
    let (template, key, name) = (TemplateId(1), Key(1), "inc".into());
    layer(count, Work::Map(MapWork { template, key, name, inputs, constants: Blob::EMPTY }))
}

/// A page whose task `i` reads the tasks that `reads(i)` names.
fn page(count: u32, mut reads: impl FnMut(u32) -> Vec<u32>) -> Layer {
    let mut page = Page { templates: vec![TemplateId(1)], ..Page::default() };
    for index in 0..count {
        page.template.push(0);
        page.keys.push(Key(1).item(index));
        page.args.extend_from_slice(&index.to_le_bytes());
        page.arg_ends.push(page.args.len() as u32);
        let reads = reads(index).into_iter().map(|at| TaskId::new(LayerId::new(CLIENT, 1), at));
        page.dependencies.extend(reads);
        page.dependency_ends.push(page.dependencies.len() as u32);
    }
    layer(count, Work::Page(Box::new(page)))
}

/// Pairs are joined, and pairs of those, down to one.
fn tree(count: u32) -> Layer {
    let leaves = count / 2 + 1;
    page(2 * leaves - 1, |index| match index.checked_sub(leaves) {
        Some(at) => vec![2 * at, 2 * at + 1],
        None => vec![],
    })
}

/// The last task reads all others.
fn merge(count: u32) -> Layer {
    page(count, |index| if index + 1 == count { (0..index).collect() } else { vec![] })
}

/// Each task reads up to three of those before it.
fn random(count: u32) -> Layer {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 33
    };
    page(count, |index| {
        let n = if index == 0 { 0 } else { next() % 4 };
        (0..n).map(|_| (next() % u64::from(index)) as u32).collect()
    })
}

fn measure(shape: &str, n_workers: u32, layer: Layer) {
    let (id, count) = (layer.id, layer.count);
    let mut cluster = Cluster::new(n_workers);
    cluster.spent = Duration::ZERO;
    let template = Template {
        id: TemplateId(1),
        kind: Default::default(),
        name: "inc".into(),
        code: Blob::EMPTY,
    };
    let submit = Submit { templates: vec![template], layers: vec![layer] };
    cluster.client(FromClient::Submit(submit));
    cluster.run();
    assert_eq!(cluster.n_finished, u64::from(count), "every task is reported once");
    let per_task = |spent: Duration| spent.as_secs_f64() * 1e6 / f64::from(count);
    let (run_us, n_messages) = (per_task(cluster.spent), cluster.n_messages);
    let nbytes = cluster.scheduler.nbytes() as f64 / f64::from(count);
    cluster.spent = Duration::ZERO;
    cluster.client(FromClient::Release(vec![Run::new(id, 0, count)]));
    cluster.event(Event::Turn);
    assert_eq!(cluster.scheduler.n_tasks(), 0, "nothing is left");
    let release_us = per_task(cluster.spent);
    println!(
        "{shape:<12}{count:>10}{n_workers:>9}{run_us:>12.3}{release_us:>12.3}{nbytes:>10.1}\
         {n_messages:>12}"
    );
}

type Shape = (&'static str, fn(u32) -> Layer);

/// What follows an option on the command line.
fn option(name: &str) -> Option<String> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.nth(1)
}

fn main() {
    let number = |name| option(name).and_then(|number| number.parse().ok());
    let least = number("--least").unwrap_or(0);
    let most = number("--most").unwrap_or(10_000_000);
    let chosen = option("--shapes");
    let workers = option("--workers").unwrap_or_else(|| "2,24,168".to_owned());
    println!(
        "{:<12}{:>10}{:>9}{:>12}{:>12}{:>10}{:>12}",
        "shape", "tasks", "workers", "run µs", "release µs", "bytes", "messages"
    );
    let shapes: [Shape; 4] =
        [("independent", independent), ("tree", tree), ("merge", merge), ("random", random)];
    for (shape, make) in shapes {
        if chosen.as_ref().is_some_and(|chosen| !chosen.split(',').any(|name| name == shape)) {
            continue;
        }
        let counts = [10_000, 100_000, 1_000_000, 10_000_000].into_iter();
        for count in counts.filter(|count| (least..=most).contains(count)) {
            for n_workers in workers.split(',').filter_map(|n| n.parse().ok()) {
                measure(shape, n_workers, make(count));
            }
        }
    }
}
