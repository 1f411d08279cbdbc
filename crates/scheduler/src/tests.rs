use crate::{Action, Event, Scheduler};
use rasker_graph::*;
use rasker_protocol::*;

const CLIENT: ClientId = ClientId(1);

fn template() -> Template {
    Template { id: TemplateId(1), name: "inc".into(), code: Blob::EMPTY }
}

/// A scheduler whose workers answer at once.
struct Cluster {
    scheduler: Scheduler,
    out: Vec<Action>,
    finished: u64,
    messages: u64,
}

impl Cluster {
    fn new(n_workers: u32) -> Cluster {
        let mut cluster =
            Cluster { scheduler: Scheduler::new(), out: vec![], finished: 0, messages: 0 };
        cluster.event(Event::ClientJoined { client: CLIENT, name: "test".into() });
        for id in 0..n_workers {
            let hello = WorkerHello {
                name: format!("w{id}"),
                address: format!("tcp://w{id}"),
                routes: String::new(),
                host: "here".into(),
                pid: 0,
                nthreads: 1,
                memory_limit: 0,
                resources: vec![],
                python: String::new(),
            };
            cluster.event(Event::WorkerJoined { worker: WorkerId(id), hello });
        }
        cluster
    }

    fn event(&mut self, event: Event) {
        self.scheduler.handle(0, event, &mut self.out);
    }

    fn submit(&mut self, layers: Vec<Layer>) {
        let submit = Submit { templates: vec![template()], layers };
        self.event(Event::FromClient { client: CLIENT, message: FromClient::Submit(submit) });
    }

    /// Turns until nothing is said any more.
    fn run(&mut self) {
        loop {
            self.event(Event::Turn);
            if self.out.is_empty() {
                return;
            }
            for action in std::mem::take(&mut self.out) {
                self.messages += 1;
                match action {
                    Action::ToWorker(worker, ToWorker::Compute { calls, .. }) => {
                        let progress = calls.into_iter().map(|calls| Progress::Finished {
                            run: calls.run,
                            attempt: calls.attempt,
                            elapsed_ns: u64::from(calls.run.count) * 100,
                            nbytes: u64::from(calls.run.count) * 8,
                            values: None,
                        });
                        let message = FromWorker::Progress(progress.collect());
                        self.event(Event::FromWorker { worker, message });
                    }
                    Action::ToClient(_, ToClient::Finished(finished)) => {
                        self.finished +=
                            finished.iter().map(|f| u64::from(f.run.count)).sum::<u64>();
                    }
                    _ => {}
                }
            }
        }
    }
}

fn map_layer(n: u32, count: u32, inputs: Vec<Input>) -> Layer {
    let work = MapWork {
        template: TemplateId(1),
        key: Key(u128::from(n)),
        name: "inc".into(),
        inputs,
        constants: Blob::EMPTY,
    };
    let id = LayerId::new(CLIENT, n);
    Layer { id, count, work: Work::Map(work), options: Default::default(), wants_values: true }
}

fn tree(n: u32, leaves: u32) -> Layer {
    let id = LayerId::new(CLIENT, n);
    let mut page = Page { templates: vec![TemplateId(1)], ..Page::default() };
    let mut level: Vec<u32> = vec![];
    let add = |page: &mut Page, inputs: &[u32]| {
        let at = page.len() as u32;
        page.template.push(0);
        page.keys.push(Key((u128::from(n) << 64) + u128::from(at)));
        page.arg_ends.push(0);
        page.dependencies.extend(inputs.iter().map(|i| TaskId::new(id, *i)));
        page.dependency_ends.push(page.dependencies.len() as u32);
        at
    };
    for _ in 0..leaves {
        level.push(add(&mut page, &[]));
    }
    while level.len() > 1 {
        level = level.chunks(2).map(|pair| add(&mut page, pair)).collect();
    }
    let count = page.len() as u32;
    page.unwanted = (0..count - 1).collect();
    let work = Work::Page(Box::new(page));
    Layer { id, count, work, options: Default::default(), wants_values: true }
}

#[test]
fn a_map_runs_to_its_end_and_is_forgotten_when_released() {
    let mut cluster = Cluster::new(2);
    let layer = map_layer(1, 100_000, vec![Input::Values(Column::range(0, 1, 100_000))]);
    let id = layer.id;
    cluster.submit(vec![layer]);
    cluster.run();
    assert_eq!(cluster.finished, 100_000);
    assert_eq!(cluster.scheduler.check(), Vec::<String>::new());
    let message = FromClient::Release(vec![Run::new(id, 0, 100_000)]);
    cluster.event(Event::FromClient { client: CLIENT, message });
    assert_eq!(cluster.scheduler.n_tasks(), 0);
}

#[test]
fn a_tree_runs_to_its_root() {
    let mut cluster = Cluster::new(2);
    cluster.submit(vec![tree(1, 1024)]);
    cluster.run();
    assert_eq!(cluster.finished, 1);
    assert_eq!(cluster.scheduler.check(), Vec::<String>::new());
}

#[test]
fn a_map_over_a_map_reads_by_position() {
    let mut cluster = Cluster::new(3);
    let first = map_layer(1, 5000, vec![Input::Values(Column::range(0, 1, 5000))]);
    let from = TaskId::new(first.id, 1000);
    cluster.submit(vec![first, map_layer(2, 3000, vec![Input::Tasks(from)])]);
    cluster.run();
    assert_eq!(cluster.finished, 8000);
    assert_eq!(cluster.scheduler.check(), Vec::<String>::new());
}

/// Not a test of speed, which is measured elsewhere: prints what a task costs here.
#[test]
fn cost_of_a_task() {
    for (name, layer) in [
        ("map", map_layer(1, 1_000_000, vec![Input::Values(Column::range(0, 1, 1_000_000))])),
        ("tree", tree(2, 1 << 17)),
    ] {
        let mut cluster = Cluster::new(2);
        let n = layer.count;
        let t = std::time::Instant::now();
        cluster.submit(vec![layer]);
        cluster.run();
        let ns = t.elapsed().as_nanos() as f64 / f64::from(n);
        let per = cluster.scheduler.nbytes() as f64 / f64::from(n);
        eprintln!("{name}: {ns:.0} ns and {per:.0} B a task, {} messages", cluster.messages);
    }
}
