//! A cluster of this process whose calls are run by a toy that knows no Python.

#[path = "toy/toy.rs"]
mod toy;

use rasker_graph::{Column, Input, Run, TaskId};
use rasker_runtime::{Cluster, ClusterOptions, ExecutorKind, MemorySettings, Session};
use std::sync::Arc;
use std::time::Duration;
use toy::{SLEEP_MS, SQUARE, SUM, Toy, ends_within, enter, ints, map, teach};

fn cluster(n_workers: u32, nthreads: u32) -> Cluster {
    let options = ClusterOptions {
        name: "test".into(),
        n_workers,
        nthreads,
        memory: MemorySettings::default(),
        resources: Vec::new(),
        executors: ExecutorKind::Threads(Arc::new(Toy::default())),
        native: None,
        python: String::new(),
        listens: false,
        scheduler: Default::default(),
    };
    Cluster::start(&options).expect("a cluster starts")
}

fn connect(cluster: &Cluster) -> Session {
    let session = cluster.connect("test");
    teach(&session);
    session
}

#[test]
fn a_cluster_of_threads_runs_a_map() {
    const N: u32 = 10_000;
    let cluster = cluster(2, 2);
    let session = connect(&cluster);

    let numbers = Input::Values(Column::range(-5, 3, N));
    let squares = map(&session, SQUARE, 1, vec![numbers], N);
    let expected: Vec<i64> = (0..i64::from(N)).map(|i| (3 * i - 5).pow(2)).collect();
    assert_eq!(ints(&session, Run::new(squares, 0, N)), expected);

    // Inputs of this layer are the results of the one before, wherever they are.
    let both = vec![Input::Tasks(TaskId::new(squares, 0)), Input::Values(Column::range(1, 0, N))];
    let sums = map(&session, SUM, 2, both, N);
    let expected: Vec<i64> = expected.iter().map(|square| square + 1).collect();
    assert_eq!(ints(&session, Run::new(sums, 0, N)), expected);

    // Nothing sends what was entered here, except the wait.
    let of = [TaskId::new(sums, 0), TaskId::new(sums, N - 1)];
    let total = enter(&session, SUM, 3, 100, &of);
    let expected = 100 + expected[0] + expected[N as usize - 1];
    assert_eq!(ints(&session, total.run()), [expected]);
}

#[test]
fn a_result_is_reported_while_the_next_call_runs() {
    const LONG_MS: i64 = 300;
    const SOON: Duration = Duration::from_millis(100);
    let cluster = cluster(1, 1);
    let session = connect(&cluster);
    // What is known to be quick is given out in long runs.
    let quick = map(&session, SLEEP_MS, 1, vec![Input::Values(Column::range(0, 0, 1000))], 1000);
    assert_eq!(ints(&session, Run::new(quick, 0, 1000)), [0; 1000]);

    // Two tasks of one layer travel as one run; two that were submitted are calls of their own.
    let waits = Input::Values(Column::ints(&[0, LONG_MS]));
    let layer = map(&session, SLEEP_MS, 2, vec![waits], 2);
    check_first_is_seen(&session, TaskId::new(layer, 0), TaskId::new(layer, 1));
    let first = enter(&session, SLEEP_MS, 3, 0, &[]);
    let second = enter(&session, SLEEP_MS, 4, LONG_MS, &[]);
    check_first_is_seen(&session, first, second);

    fn check_first_is_seen(session: &Session, first: TaskId, second: TaskId) {
        assert!(ends_within(session, first.run(), SOON), "the first waits for the second");
        assert_eq!(session.ending(second), None, "the second was to take longer");
        assert_eq!(ints(session, first.run()), [0]);
        assert_eq!(ints(session, second.run()), [LONG_MS]);
    }
}
