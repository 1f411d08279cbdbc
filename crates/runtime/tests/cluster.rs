//! A cluster of this process whose calls are run by a toy that knows no Python.

use parking_lot::Mutex;
use rasker_client::{Ending, NewTask};
use rasker_graph::{Blob, Column, Input, Key, LayerId, MapWork, Run, TaskId, Template, TemplateId};
use rasker_protocol::{Datum, ExecutorCalls, ExecutorWork, Failure, Given, GivenInput, Value};
use rasker_runtime::{
    Cluster, ClusterOptions, ExecutorKind, MemorySettings, Runner, Session, Sink,
};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

const SQUARE: TemplateId = TemplateId(1);
const SUM: TemplateId = TemplateId(2);
const SLEEP_MS: TemplateId = TemplateId(3);

/// No test waits longer than this.
const LIMIT: Duration = Duration::from_secs(20);

/// Knows three functions of integers by the code of their templates.
#[derive(Default)]
struct Toy(Mutex<HashMap<TemplateId, Blob>>);

impl Toy {
    fn call(&self, template: TemplateId, arguments: &[i64]) -> i64 {
        let code = self.0.lock().get(&template).cloned().expect("templates come before calls");
        let Blob::Bytes(code) = code else { panic!("code that is not bytes") };
        match &code[..] {
            b"square" => arguments[0] * arguments[0],
            b"sum" => arguments.iter().sum(),
            b"sleep_ms" => {
                std::thread::sleep(Duration::from_millis(arguments[0] as u64));
                arguments[0]
            }
            other => panic!("no such function: {other:?}"),
        }
    }
}

fn given_int(given: &Given) -> i64 {
    match given {
        Given::Value(Value::Column(column)) => column.int(0).expect("an integer"),
        other => panic!("not an integer: {other:?}"),
    }
}

impl Runner for Toy {
    fn set_up(&self, _: &Datum) {}

    fn define(&self, templates: Vec<Template>) {
        self.0.lock().extend(templates.into_iter().map(|template| (template.id, template.code)));
    }

    fn work(&self, next: &mut dyn FnMut() -> Option<ExecutorCalls>, sink: &dyn Sink) {
        while let Some(calls) = next() {
            sink.begin(calls.run, calls.attempt);
            for index in calls.run.indices() {
                let at = index - calls.run.start;
                let arguments: Vec<i64> = match &calls.work {
                    ExecutorWork::One { args: Blob::Bytes(args), given } => {
                        let own = args.chunks_exact(8);
                        let own = own.map(|b| i64::from_le_bytes(b.try_into().expect("eight")));
                        own.chain(given.iter().map(given_int)).collect()
                    }
                    ExecutorWork::One { .. } => panic!("arguments that are not bytes"),
                    ExecutorWork::Map { inputs, .. } => inputs
                        .iter()
                        .map(|input| match input {
                            GivenInput::Values(column) => column.int(at).expect("an integer"),
                            GivenInput::Each(given) => given_int(&given[at as usize]),
                        })
                        .collect(),
                };
                sink.int(index, self.call(calls.template, &arguments));
            }
        }
    }

    fn drop_values(&self, _: &[Run]) {}

    fn export(&self, _: TaskId, value: Option<Value>) -> Result<Option<Value>, Arc<Failure>> {
        Ok(value)
    }

    fn answer(&self, call: &Blob) -> Blob {
        call.clone()
    }
}

fn cluster(n_workers: u32, nthreads: u32) -> Cluster {
    let options = ClusterOptions {
        name: "test".into(),
        n_workers,
        nthreads,
        memory: MemorySettings::default(),
        resources: Vec::new(),
        executors: ExecutorKind::Threads(Arc::new(Toy::default())),
        python: String::new(),
        listens: false,
        scheduler: Default::default(),
    };
    Cluster::start(&options).expect("a cluster starts")
}

fn connect(cluster: &Cluster) -> Session {
    let session = cluster.connect("test");
    session.with(|machine, _| {
        for (id, name) in [(SQUARE, "square"), (SUM, "sum"), (SLEEP_MS, "sleep_ms")] {
            let code = name.as_bytes().to_vec().into();
            machine.add_template(Template { id, name: name.into(), code });
        }
    });
    session
}

fn map(session: &Session, template: TemplateId, key: u128, inputs: Vec<Input>, n: u32) -> LayerId {
    let name = "mapped".into();
    let work = MapWork { template, key: Key(key), name, inputs, constants: Blob::EMPTY };
    session.with(|machine, out| machine.map(work, n, Arc::default(), out))
}

/// Enters a task and sends nothing.
fn enter(session: &Session, template: TemplateId, key: u128, arg: i64, of: &[TaskId]) -> TaskId {
    session.with(|machine, _| {
        machine.submit(NewTask {
            key: Key(key),
            name: None,
            template,
            args: &arg.to_le_bytes(),
            blob: None,
            dependencies: of,
            options: None,
            fused: &[],
        })
    })
}

/// Whether all tasks of the run ended within `limit`.
fn ends_within(session: &Session, run: Run, limit: Duration) -> bool {
    match session.waiter(&[run], run.count) {
        Some((_, waiter)) => waiter.wait(Some(Instant::now() + limit)),
        None => true,
    }
}

/// The integers that the tasks of a run ended with.
fn ints(session: &Session, run: Run) -> Vec<i64> {
    assert!(ends_within(session, run, LIMIT), "{run:?} has not ended");
    let int = |task| match session.ending(task) {
        Some(Ending::Finished { value: Some(Value::Column(column)), .. }) => {
            column.int(0).expect("an integer")
        }
        other => panic!("{task:?} ended so: {other:?}"),
    };
    run.tasks().map(int).collect()
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
