//! Exchanges: who waits for whom, who is told what, and what it costs.

use super::*;
use std::collections::BTreeMap;

const LAYER: LayerId = LayerId(1 << 32 | 77);

/// Writers, the exchange, and readers of one part each, all of one page.
fn page(n_writers: u32, n_readers: u32) -> Layer {
    let mut page = Page { templates: vec![TemplateId(1)], ..Page::default() };
    let count = n_writers + 1 + n_readers;
    for index in 0..count {
        page.template.push(if index == n_writers { NO_TEMPLATE } else { 0 });
        page.keys.push(Key(5000 + u128::from(index)));
        page.arg_ends.push(0);
        match index {
            i if i < n_writers => page.unwanted.push(i),
            i if i == n_writers => {
                page.unwanted.push(i);
                page.exchanges.push(i);
                page.dependencies.extend((0..i).map(|writer| TaskId::new(LAYER, writer)));
            }
            i => {
                page.dependencies.push(TaskId::new(LAYER, n_writers));
                let parts = PartRange::one(i - n_writers - 1);
                page.readings.push(Reading { reader: i, place: 0, parts });
            }
        }
        page.dependency_ends.push(page.dependencies.len() as u32);
    }
    let work = Work::Page(Box::new(page));
    Layer { id: LAYER, count, work, options: Default::default(), wants_values: false }
}

type Said<T> = Vec<(WorkerId, T)>;

/// One turn, in which the workers answer: the calls, and the exchanges that were told.
fn step(cluster: &mut Cluster) -> (Said<Calls>, Said<OpenExchange>) {
    cluster.event(Event::Turn);
    let (mut given, mut told) = (vec![], vec![]);
    for action in std::mem::take(&mut cluster.out) {
        match action {
            Action::ToWorker(worker, ToWorker::Compute { calls, exchanges, .. }) => {
                given.extend(calls.into_iter().map(|calls| (worker, calls)));
                told.extend(exchanges.into_iter().map(|open| (worker, open)));
            }
            Action::ToClient(_, ToClient::Finished(finished)) => {
                cluster.finished += finished.iter().map(|f| u64::from(f.run.count)).sum::<u64>();
            }
            _ => {}
        }
    }
    for (worker, calls) in &given {
        cluster.finish(*worker, calls.run, calls.attempt);
    }
    (given, told)
}

#[test]
fn readers_wait_for_all_writers_and_are_spread_over_the_workers() {
    let mut cluster = Cluster::new(4);
    cluster.is_checked = true;
    cluster.submit(vec![page(12, 40)]);
    let (mut told, mut readers) = (BTreeMap::new(), BTreeMap::new());
    let mut n_written = 0;
    loop {
        let (given, open) = step(&mut cluster);
        if given.is_empty() {
            break;
        }
        for (worker, open) in open {
            let sources: u32 = open.writers.iter().map(|source| source.run.count).sum();
            assert_eq!((open.exchange.index, sources), (12, 12));
            *told.entry(worker).or_insert(0) += 1;
        }
        for (worker, calls) in given {
            if calls.run.start < 12 {
                n_written += 1;
                continue;
            }
            assert_eq!(n_written, 12, "a reader was given before all had written");
            assert_eq!(calls.reads[..], [(0, PartRange::one(calls.run.start - 13))]);
            assert!(calls.sources.is_empty(), "where parts are is told once, not with each call");
            *readers.entry(worker).or_insert(0) += 1;
        }
    }
    assert_eq!(cluster.finished, 40);
    assert!(told.values().all(|n| *n == 1), "{told:?}");
    assert!(readers.len() == 4 && readers.values().all(|n| (6..=16).contains(n)), "{readers:?}");
    cluster.client(FromClient::Release(vec![Run::new(LAYER, 0, 53)]));
    assert_eq!(cluster.scheduler.n_tasks(), 0);
}

#[test]
fn values_of_writers_go_when_the_last_reader_is_done_and_not_before() {
    let mut cluster = Cluster::new(1);
    cluster.is_checked = true;
    cluster.submit(vec![page(3, 2)]);
    let mut freed = vec![];
    for _ in 0..12 {
        cluster.event(Event::Turn);
        for action in std::mem::take(&mut cluster.out) {
            match action {
                Action::ToWorker(worker, ToWorker::Compute { calls, .. }) => {
                    for calls in calls {
                        assert_eq!(freed, vec![], "a reader came after its parts were freed");
                        cluster.finish(worker, calls.run, calls.attempt);
                    }
                }
                Action::ToWorker(_, ToWorker::Free(runs)) => freed.extend(runs),
                _ => {}
            }
        }
    }
    let mut tasks: Vec<u32> = freed.iter().flat_map(|run| run.indices()).collect();
    tasks.sort_unstable();
    assert_eq!(tasks, [0, 1, 2, 3], "three values, and the exchange");
}

#[test]
fn a_lost_writer_runs_again_and_no_other() {
    let mut cluster = Cluster::new(2);
    cluster.is_checked = true;
    cluster.submit(vec![page(6, 4)]);
    let mut holders = BTreeMap::new();
    while holders.len() < 6 {
        let (given, _) = step(&mut cluster);
        let wrote = given.iter().filter(|(_, calls)| calls.run.start < 6);
        holders.extend(wrote.map(|(worker, calls)| (calls.run.start, *worker)));
    }
    // Readers are in hand; what they read goes with a worker.
    cluster.event(Event::Turn);
    cluster.out.clear();
    cluster.leave(0);
    let mut again: Vec<u32> = vec![];
    let mut told = 0;
    loop {
        let (given, open) = step(&mut cluster);
        if given.is_empty() {
            break;
        }
        again.extend(given.iter().map(|(_, calls)| calls.run.start).filter(|i| *i < 6));
        for (_, open) in open {
            assert!(open.writers.iter().all(|source| source.worker == WorkerId(1)));
            told += 1;
        }
    }
    let mut lost: Vec<u32> =
        holders.iter().filter(|(_, w)| **w == WorkerId(0)).map(|(i, _)| *i).collect();
    lost.sort_unstable();
    again.sort_unstable();
    assert!(!lost.is_empty() && lost.len() < 6, "both workers wrote: {holders:?}");
    assert_eq!(again, lost);
    assert!(told > 0, "the worker that is left learns where parts are now");
}

#[test]
fn an_exchange_of_a_thousand_by_a_thousand_costs_what_its_edges_cost() {
    let mut cluster = Cluster::new(8);
    let before = cluster.scheduler.nbytes();
    cluster.submit(vec![page(1000, 1000)]);
    let state = cluster.scheduler.nbytes() - before;
    assert!(state < 400_000, "{state} bytes for 2000 tasks and as many edges");
    let mut n_told = 0;
    loop {
        let (given, open) = step(&mut cluster);
        if given.is_empty() {
            break;
        }
        n_told += open.iter().map(|(_, open)| open.writers.len()).sum::<usize>();
    }
    assert_eq!(cluster.finished, 1000);
    assert!(n_told <= 8 * 1000, "each worker hears of each writer once: {n_told}");
}

#[test]
fn an_exchange_has_no_value_and_reads_no_exchange() {
    let mut cluster = Cluster::new(1);
    cluster.is_checked = true;
    cluster.submit(vec![page(2, 1)]);
    let adopted = TaskId::new(LayerId::new(CLIENT, 900), 0);
    cluster.client(FromClient::Adopt { task: adopted, key: Key(5002), index: None });
    // A second exchange that stands on the first one.
    let id = LayerId::new(CLIENT, 901);
    let page = Page {
        templates: vec![TemplateId(1)],
        template: vec![NO_TEMPLATE, 0],
        keys: vec![Key(7000), Key(7001)],
        arg_ends: vec![0, 0],
        dependency_ends: vec![1, 2],
        dependencies: vec![TaskId::new(LAYER, 2), TaskId::new(id, 0)],
        unwanted: vec![0],
        exchanges: vec![0],
        readings: vec![Reading { reader: 1, place: 0, parts: PartRange::one(0) }],
        ..Page::default()
    };
    let work = Work::Page(Box::new(page));
    cluster.submit(vec![Layer {
        id,
        count: 2,
        work,
        options: Default::default(),
        wants_values: false,
    }]);
    cluster.event(Event::Turn);
    let out = std::mem::take(&mut cluster.out).into_iter();
    let failed = out.filter_map(|action| match action {
        Action::ToClient(_, ToClient::Failed(failed)) => Some(failed),
        _ => None,
    });
    let failed: Vec<String> = failed.flatten().map(|(_, failure)| failure.text.clone()).collect();
    assert_eq!(failed.len(), 2, "{failed:?}");
    assert!(failed[0].contains("no value") && failed[1].contains("another exchange"), "{failed:?}");
}

#[test]
fn tasks_go_only_to_workers_that_run_their_kind() {
    let mut cluster = Cluster::new(0);
    cluster.is_checked = true;
    let join = |cluster: &mut Cluster, id: u32, runs: Kinds| {
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
            runs,
        };
        cluster.event(Event::WorkerJoined { worker: WorkerId(id), hello });
    };
    let map = map_layer(1, 50, vec![Input::Values(Column::range(0, 1, 50))]);
    let layer = map.id;
    cluster.submit(vec![map]);
    join(&mut cluster, 0, Kinds::NATIVE);
    assert_eq!(cluster.turn(), [], "Python's tasks wait for a worker with Python");
    join(&mut cluster, 1, Kinds::PYTHON);
    // Readers of values that lie anywhere.
    cluster.submit(vec![map_layer(2, 50, vec![Input::Tasks(TaskId::new(layer, 0))])]);
    cluster.run();
    assert_eq!(cluster.finished, 100);
    assert!(cluster.given.iter().all(|(worker, ..)| *worker == WorkerId(1)));
}

#[test]
fn whoever_asks_is_told_how_many_tasks_are_still_to_end() {
    let mut cluster = Cluster::new(2);
    cluster.is_checked = true;
    cluster.submit(vec![page(6, 8)]);
    let mut seen = Vec::new();
    let runs = vec![Run::new(LAYER, 0, 6), Run::new(LAYER, 7, 8), Run::new(LayerId(9), 0, 5)];
    loop {
        cluster.client(FromClient::Ask { id: 1, query: Query::Pending(runs.clone()) });
        cluster.event(Event::Turn);
        let left = cluster.out.iter().find_map(|action| match action {
            Action::ToClient(_, ToClient::Answer { answer: Datum::Int(left), .. }) => Some(*left),
            _ => None,
        });
        seen.push(left.expect("an answer"));
        if step(&mut cluster).0.is_empty() {
            break;
        }
    }
    assert_eq!((seen.first(), seen.last()), (Some(&14), Some(&0)));
    assert!(seen.len() > 3 && seen.is_sorted_by(|a, b| a >= b), "{seen:?}");
}
