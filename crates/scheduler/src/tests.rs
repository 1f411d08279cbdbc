mod exchange;
mod recovery;
mod values;

use crate::{Action, Event, Scheduler};
use rasker_graph::*;
use rasker_protocol::*;

const CLIENT: ClientId = ClientId(1);

fn template() -> Template {
    Template {
        id: TemplateId(1),
        kind: TemplateKind::Python,
        name: "inc".into(),
        code: Blob::EMPTY,
    }
}

/// A scheduler whose workers answer at once.
pub(crate) struct Cluster {
    scheduler: Scheduler,
    pub(crate) out: Vec<Action>,
    pub(crate) finished: u64,
    failed: u64,
    /// Time that each call is said to take, ns.
    pub(crate) call_ns: u64,
    /// What workers were given, in order.
    pub(crate) given: Vec<(WorkerId, Run, u32)>,
    /// The state is recounted after each event.
    pub(crate) is_checked: bool,
    /// Of workers that join, bytes.
    pub(crate) memory_limit: u64,
    now_ns: u64,
}

impl Cluster {
    pub(crate) fn new(n_workers: u32) -> Cluster {
        let mut cluster = Cluster {
            scheduler: Scheduler::default(),
            out: vec![],
            finished: 0,
            failed: 0,
            call_ns: 100,
            given: vec![],
            is_checked: false,
            memory_limit: 0,
            now_ns: 0,
        };
        cluster.event(Event::ClientJoined { client: CLIENT, name: "test".into() });
        (0..n_workers).for_each(|id| cluster.join(id));
        cluster
    }

    pub(crate) fn join(&mut self, id: u32) {
        let hello = WorkerHello {
            name: format!("w{id}"),
            address: format!("tcp://w{id}"),
            routes: String::new(),
            host: "here".into(),
            pid: 0,
            nthreads: 1,
            memory_limit: self.memory_limit,
            resources: vec![],
            python: String::new(),
            runs: Kinds::BOTH,
        };
        self.event(Event::WorkerJoined { worker: WorkerId(id), hello });
    }

    fn leave(&mut self, id: u32) {
        self.event(Event::WorkerLeft { worker: WorkerId(id), reason: "killed".into() });
    }

    pub(crate) fn event(&mut self, event: Event) {
        let before = self.is_checked.then(|| format!("{event:?}"));
        self.scheduler.handle(self.now_ns, event, &mut self.out);
        if let Some(event) = before {
            assert_eq!(self.scheduler.check(), Vec::<String>::new(), "after {event}");
        }
    }

    fn client(&mut self, message: FromClient) {
        self.event(Event::FromClient { client: CLIENT, message });
    }

    pub(crate) fn progress(&mut self, worker: WorkerId, progress: Progress) {
        let message = FromWorker::Progress(vec![progress]);
        self.event(Event::FromWorker { worker, message });
    }

    pub(crate) fn finish(&mut self, worker: WorkerId, run: Run, attempt: u32) {
        let n = u64::from(run.count);
        let (elapsed_ns, nbytes) = (n * self.call_ns, n * 8);
        self.progress(
            worker,
            Progress::Finished { run, attempt, elapsed_ns, nbytes, values: None },
        );
    }

    pub(crate) fn submit(&mut self, layers: Vec<Layer>) {
        let submit = Submit { templates: vec![template()], layers };
        self.event(Event::FromClient { client: CLIENT, message: FromClient::Submit(submit) });
    }

    /// One turn: what workers were given in it.
    pub(crate) fn turn(&mut self) -> Vec<(WorkerId, Run, u32)> {
        self.event(Event::Turn);
        let mut given = vec![];
        for action in std::mem::take(&mut self.out) {
            match action {
                Action::ToWorker(worker, ToWorker::Compute { calls, .. }) => {
                    given.extend(calls.iter().map(|calls| (worker, calls.run, calls.attempt)));
                }
                Action::ToClient(_, ToClient::Finished(finished)) => {
                    self.finished += finished.iter().map(|f| u64::from(f.run.count)).sum::<u64>();
                }
                Action::ToClient(_, ToClient::Failed(failed)) => {
                    self.failed += failed.iter().map(|(run, _)| u64::from(run.count)).sum::<u64>();
                }
                _ => {}
            }
        }
        self.given.extend_from_slice(&given);
        given
    }

    /// One turn, after which the workers answer at once. Returns whether there was work.
    pub(crate) fn step(&mut self) -> bool {
        let given = self.turn();
        for (worker, run, attempt) in &given {
            self.finish(*worker, *run, *attempt);
        }
        !given.is_empty()
    }

    pub(crate) fn run(&mut self) {
        while self.step() {}
    }
}

pub(crate) fn map_layer(n: u32, count: u32, inputs: Vec<Input>) -> Layer {
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

pub(crate) fn inc(n: u32, count: u32) -> Layer {
    map_layer(n, count, vec![Input::Values(Column::range(0, 1, count))])
}

/// Listed tasks: each one's key, its argument, and what it reads.
fn page(n: u32, tasks: &[(u128, u8, Vec<TaskId>)]) -> Layer {
    let mut page = Page { templates: vec![TemplateId(1)], ..Page::default() };
    for (key, arg, reads) in tasks {
        page.template.push(0);
        page.keys.push(Key(*key));
        page.args.push(*arg);
        page.arg_ends.push(page.args.len() as u32);
        page.dependencies.extend(reads);
        page.dependency_ends.push(page.dependencies.len() as u32);
    }
    let (id, count) = (LayerId::new(CLIENT, n), page.len() as u32);
    let work = Work::Page(Box::new(page));
    Layer { id, count, work, options: Default::default(), wants_values: true }
}

/// Only the last task of a page is wanted for itself.
fn only_last(mut layer: Layer) -> Layer {
    if let Work::Page(page) = &mut layer.work {
        page.unwanted = (0..layer.count - 1).collect();
    }
    layer
}

fn key(n: u32, at: usize) -> u128 {
    (u128::from(n) << 64) + at as u128
}

pub(crate) fn task(n: u32, index: u32) -> TaskId {
    TaskId::new(LayerId::new(CLIENT, n), index)
}

fn tree(n: u32, leaves: u32) -> Layer {
    let mut tasks: Vec<_> = (0..leaves as usize).map(|at| (key(n, at), 0, vec![])).collect();
    let mut level: Vec<TaskId> = (0..leaves).map(|at| task(n, at)).collect();
    while level.len() > 1 {
        let mut next = vec![];
        for pair in level.chunks(2) {
            next.push(task(n, tasks.len() as u32));
            tasks.push((key(n, tasks.len()), 0, pair.to_vec()));
        }
        level = next;
    }
    only_last(page(n, &tasks))
}

fn chain(n: u32, length: u32) -> Layer {
    let reads = |at: u32| at.checked_sub(1).map(|before| task(n, before)).into_iter().collect();
    let tasks: Vec<_> = (0..length).map(|at| (key(n, at as usize), 0, reads(at))).collect();
    only_last(page(n, &tasks))
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

#[test]
fn a_map_over_a_map_is_sent_in_runs() {
    let mut cluster = Cluster::new(2);
    cluster.is_checked = true;
    let over = |layer| vec![Input::Tasks(TaskId::new(LayerId::new(CLIENT, layer), 0))];
    cluster.submit(vec![inc(1, 4000), map_layer(2, 4000, over(1)), map_layer(3, 4000, over(2))]);
    cluster.run();
    assert_eq!(cluster.finished, 12_000);
    let upper = LayerId::new(CLIENT, 3);
    let runs = cluster.given.iter().filter(|(_, run, _)| run.layer == upper);
    let (n_runs, n_tasks) = runs.fold((0, 0), |(n, sum), (_, run, _)| (n + 1, sum + run.count));
    assert_eq!(n_tasks, 4000, "each task is given once");
    assert!(n_runs < 200, "{n_runs} messages for 4000 tasks");
}

#[test]
fn the_state_is_sound_after_every_event() {
    let mut cluster = Cluster::new(3);
    cluster.is_checked = true;
    cluster.submit(vec![inc(1, 60), map_layer(2, 40, vec![Input::Tasks(task(1, 10))])]);
    cluster.submit(vec![tree(3, 32), page(4, &[(1, 0, vec![]), (2, 0, vec![task(1, 3)])])]);
    cluster.submit(vec![page(5, &[(1, 0, vec![]), (3, 0, vec![task(4, 1), task(3, 0)])])]);
    (0..2).for_each(|_| assert!(cluster.step()));
    // One worker goes with values that it holds and calls that it runs; another one comes.
    assert!(!cluster.turn().is_empty());
    cluster.leave(0);
    cluster.join(3);
    cluster.client(FromClient::Release(vec![Run::new(LayerId::new(CLIENT, 1), 0, 30)]));
    for (worker, run, attempt) in cluster.turn() {
        let key = "inc".to_owned();
        let failure = Failure::new(FailureKind::Exception, key, "raised").into();
        cluster.progress(worker, Progress::Failed { run, attempt, failure });
    }
    let reason = String::new();
    cluster.client(FromClient::Cancel { runs: vec![task(2, 5).run()], reason });
    cluster.client(FromClient::Retry(vec![task(3, 62), task(2, 5), task(1, 40)]));
    for (worker, run, attempt) in cluster.turn() {
        cluster.progress(worker, Progress::Retracted { run, attempt });
    }
    for (worker, run, attempt) in cluster.turn() {
        cluster.progress(worker, Progress::Crashed { run, attempt, reason: "killed".into() });
    }
    cluster.run();
    (1..4).for_each(|id| cluster.leave(id));
    cluster.join(4);
    cluster.run();
    assert!(cluster.finished > 100, "{} finished", cluster.finished);
    assert!(cluster.failed > 0);
    cluster.event(Event::ClientLeft { client: CLIENT });
    assert_eq!(cluster.scheduler.n_tasks(), 0);
}

#[test]
fn a_late_result_is_dropped() {
    let mut cluster = Cluster::new(2);
    cluster.submit(vec![page(1, &[(1, 0, vec![])])]);
    let [(first, run, attempt)] = cluster.turn()[..] else { panic!("one call") };
    cluster.progress(first, Progress::Retracted { run, attempt });
    let [(second, _, later)] = cluster.turn()[..] else { panic!("one call") };
    assert_ne!(attempt, later);
    let before = cluster.scheduler.describe(task(1, 0));
    cluster.finish(if first == second { WorkerId(1) } else { first }, run, attempt);
    assert_eq!(cluster.scheduler.describe(task(1, 0)), before);
    assert_eq!((cluster.scheduler.n_stale(), cluster.turn()), (1, vec![]));
    // Nor is a worker believed that counts as lost.
    cluster.leave(second.0);
    cluster.finish(second, run, later);
    assert_eq!((cluster.scheduler.n_stale(), cluster.finished), (2, 0));
    cluster.run();
    assert_eq!(cluster.finished, 1);
    assert_eq!(cluster.scheduler.check(), Vec::<String>::new());
}

#[test]
fn a_chain_of_a_million_is_released() {
    const LENGTH: u32 = 1_000_000;
    let cascades = || {
        let mut cluster = Cluster::new(1);
        cluster.submit(vec![chain(1, LENGTH)]);
        assert_eq!(cluster.scheduler.n_tasks(), u64::from(LENGTH));
        cluster.client(FromClient::Release(vec![task(1, LENGTH - 1).run()]));
        assert_eq!(cluster.scheduler.n_tasks(), 0);
        cluster.submit(vec![chain(2, LENGTH / 10)]);
        let reason = String::new();
        cluster.client(FromClient::Cancel { runs: vec![task(2, 0).run()], reason });
        cluster.turn();
        assert_eq!(cluster.failed, 1);
    };
    // Anything that went down once per task would not fit here.
    let thread = std::thread::Builder::new().stack_size(256 << 10);
    thread.spawn(cascades).expect("a thread").join().expect("no overflow");
}

#[test]
fn roots_are_withheld() {
    const COUNT: u32 = 1_000_000;
    let mut cluster = Cluster::new(2);
    cluster.call_ns = 1_000_000;
    cluster.submit(vec![inc(1, COUNT)]);
    for turn in 0..100 {
        let given = cluster.turn();
        for id in [WorkerId(0), WorkerId(1)] {
            let own = given.iter().filter(|(worker, ..)| *worker == id);
            let n: u32 = own.map(|(_, run, _)| run.count).sum();
            // The first call is a guess; from then on five calls are five milliseconds.
            let most = if turn == 0 { 1 } else { 5 };
            assert!((1..=most).contains(&n), "{n} calls in hand at turn {turn}");
        }
        given.iter().for_each(|(worker, run, attempt)| cluster.finish(*worker, *run, *attempt));
    }
    // What is withheld has no record yet.
    assert!(cluster.scheduler.nbytes() < 100_000, "{} bytes", cluster.scheduler.nbytes());
}

#[test]
fn a_released_key_starts_a_new_generation() {
    let mut cluster = Cluster::new(1);
    let reader = (8, 0, vec![task(1, 0)]);
    cluster.submit(vec![page(1, &[(7, 1, vec![]), reader])]);
    cluster.run();
    // Its reader keeps the recipe, not the key: another call may have that.
    cluster.client(FromClient::Release(vec![task(1, 0).run()]));
    cluster.given.clear();
    cluster.submit(vec![page(2, &[(7, 2, vec![])])]);
    cluster.run();
    assert_eq!(cluster.given, [(WorkerId(0), task(2, 0).run(), 0)]);
    // While the key is wanted it is joined, whatever the call.
    cluster.submit(vec![page(3, &[(7, 3, vec![])])]);
    cluster.run();
    assert_eq!((cluster.given.len(), cluster.finished), (1, 4));
    // An id is one generation for ever.
    cluster.submit(vec![page(2, &[(9, 9, vec![])])]);
    cluster.run();
    assert_eq!((cluster.given.len(), cluster.scheduler.n_stale()), (1, 1));
    assert_eq!(cluster.scheduler.check(), Vec::<String>::new());
}

#[test]
fn a_key_whose_input_was_cancelled_may_be_used_anew() {
    let mut cluster = Cluster::new(1);
    cluster.submit(vec![page(1, &[(1, 0, vec![]), (2, 0, vec![task(1, 0)])])]);
    let reason = String::new();
    cluster.client(FromClient::Cancel { runs: vec![task(1, 0).run()], reason });
    cluster.run();
    assert_eq!((cluster.finished, cluster.failed), (0, 2));
    cluster.submit(vec![page(2, &[(2, 0, vec![])])]);
    cluster.run();
    assert_eq!((cluster.finished, cluster.failed), (1, 2));
}

#[test]
fn a_value_that_was_freed_is_made_again_at_another_attempt() {
    let mut cluster = Cluster::new(1);
    cluster.submit(vec![page(1, &[(1, 0, vec![]), (2, 0, vec![task(1, 0)])])]);
    cluster.run();
    cluster.client(FromClient::Release(vec![task(1, 0).run()]));
    cluster.given.clear();
    // The reader's recipe needs it once more.
    cluster.leave(0);
    cluster.join(1);
    cluster.run();
    let given = [(WorkerId(1), task(1, 0).run(), 1), (WorkerId(1), task(1, 1).run(), 1)];
    assert_eq!(cluster.given, given);
}

#[test]
fn a_retry_that_comes_after_the_value_hears_of_it_again() {
    let mut cluster = Cluster::new(1);
    cluster.submit(vec![inc(1, 1)]);
    cluster.run();
    assert_eq!(cluster.finished, 1);
    cluster.client(FromClient::Retry(vec![task(1, 0)]));
    cluster.run();
    assert_eq!((cluster.finished, cluster.given.len()), (2, 1));
}

#[test]
fn a_run_that_claims_to_be_endless_costs_nothing() {
    let mut cluster = Cluster::new(1);
    cluster.is_checked = true;
    let started = std::time::Instant::now();
    for layer in [LayerId::new(CLIENT, 1), LayerId::new(CLIENT, 9)] {
        let run = Run::new(layer, 1, u32::MAX);
        cluster.client(FromClient::Cancel { runs: vec![run], reason: String::new() });
        cluster.client(FromClient::Release(vec![run]));
        cluster.finish(WorkerId(0), run, 0);
        cluster.progress(WorkerId(0), Progress::Copied { run, nbytes: 0 });
        cluster.progress(WorkerId(0), Progress::Retracted { run, attempt: 0 });
        cluster.progress(WorkerId(0), Progress::Dropped { runs: vec![run] });
    }
    assert!(started.elapsed().as_secs() < 1, "{:?}", started.elapsed());
}

#[test]
fn a_task_that_reads_itself_is_refused() {
    let mut cluster = Cluster::new(1);
    let id = LayerId::new(CLIENT, 1);
    let inputs = vec![Input::Tasks(TaskId::new(id, 0))];
    let (template, key, name) = (TemplateId(1), Key(1), "inc".into());
    let work = MapWork { template, key, name, inputs, constants: Blob::EMPTY };
    let work = Work::Map(work);
    let options = Default::default();
    cluster.submit(vec![Layer { id, count: 2, work, options, wants_values: true }]);
    assert_eq!(cluster.scheduler.n_tasks(), 0);
    assert_eq!(cluster.scheduler.n_stale(), 1);
}
