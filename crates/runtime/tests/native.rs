//! Native tasks beside those of a toy that stands for Python.

#[allow(dead_code)]
#[path = "toy/native.rs"]
mod native;
#[path = "toy/toy.rs"]
#[allow(dead_code)]
mod toy;

use native::{FILL, NAP, Native, PANIC, RESERVE, TOTAL, WAIT, teach_native};
use rasker_client::Ending;
use rasker_graph::{Column, Input, Run, TaskId};
use rasker_protocol::{FailureKind, Value};
use rasker_runtime::{
    Cluster, ClusterOptions, ExecutorKind, MemoryOptions, MemorySettings, Session, bytes_of,
};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use toy::{LIMIT, SLEEP_MS, SUM, Toy, ends_within, enter, ints, map, teach};

const MIB: i64 = 1 << 20;

struct Setting {
    nthreads: u32,
    has_python: bool,
    memory: MemorySettings,
}

impl Default for Setting {
    fn default() -> Setting {
        Setting { nthreads: 2, has_python: true, memory: MemorySettings::default() }
    }
}

fn cluster(setting: Setting, native: &Arc<Native>) -> (Cluster, Session) {
    let options = ClusterOptions {
        name: "test".into(),
        n_workers: 1,
        nthreads: setting.nthreads,
        memory: setting.memory,
        resources: Vec::new(),
        executors: match setting.has_python {
            true => ExecutorKind::Threads(Arc::new(Toy::default())),
            false => ExecutorKind::None,
        },
        native: Some(native.clone()),
        python: String::new(),
        listens: false,
        scheduler: Default::default(),
    };
    let cluster = Cluster::start(&options).expect("a cluster starts");
    let session = cluster.connect("test");
    teach(&session);
    teach_native(&session);
    (cluster, session)
}

/// The bytes of a task's value, brought from its holder.
fn fetched(session: &Session, task: TaskId) -> bytes::Bytes {
    assert!(ends_within(session, task.run(), LIMIT), "{task:?} has not ended");
    let Some(Ending::Finished { holder, held_as, .. }) = session.ending(task) else {
        panic!("{task:?} has no value")
    };
    let (_, answers) = session.fetch(vec![(holder, held_as)]);
    let got = answers.recv_timeout(LIMIT).expect("a holder answers");
    let (_, value) = got.into_iter().next().expect("one value");
    let value: Value = value.expect("no failure").expect("a value");
    bytes_of(&value).expect("an encoded value")
}

fn failure(session: &Session, task: TaskId) -> Arc<rasker_protocol::Failure> {
    assert!(ends_within(session, task.run(), LIMIT), "{task:?} has not ended");
    match session.ending(task) {
        Some(Ending::Failed(failure)) => failure,
        other => panic!("{task:?} ended so: {other:?}"),
    }
}

#[test]
fn native_tasks_and_others_read_each_other() {
    let native = Arc::new(Native::default());
    let (_cluster, session) = cluster(Setting::default(), &native);
    let sizes = Input::Values(Column::range(100_000, 1, 8));
    let filled = map(&session, FILL, 1, vec![sizes], 8);
    let expected: Vec<i64> = (0..8).map(|i| (100_000 + i) * (i % 2 + 1)).collect();
    let totals = map(&session, TOTAL, 2, vec![Input::Tasks(TaskId::new(filled, 0))], 8);
    assert_eq!(ints(&session, Run::new(totals, 0, 8)), expected);
    // The toy adds what native tasks made, and a native task what the toy made.
    let of: Vec<TaskId> = Run::new(totals, 0, 8).tasks().collect();
    let sum = enter(&session, SUM, 3, 5, &of);
    let again = enter(&session, TOTAL, 4, 0, &[sum, sum]);
    let expected = 5 + expected.iter().sum::<i64>();
    assert_eq!(ints(&session, sum.run()), [expected]);
    assert_eq!(ints(&session, again.run()), [2 * expected]);
    let bytes = fetched(&session, TaskId::new(filled, 3));
    assert!(bytes.len() == 100_003 && bytes.iter().all(|byte| *byte == 2));
}

#[test]
fn a_panic_fails_its_task_and_nothing_else() {
    let native = Arc::new(Native::default());
    let (_cluster, session) = cluster(Setting::default(), &native);
    let bad = enter(&session, PANIC, 1, 7, &[]);
    let reader = enter(&session, TOTAL, 2, 0, &[bad]);
    let found = failure(&session, reader);
    assert_eq!(found.kind, FailureKind::Exception);
    assert!(found.text.contains("panicked: on purpose: [7]"), "{}", found.text);
    // The thread and the worker go on.
    let naps: Vec<TaskId> = (0..4).map(|i| enter(&session, NAP, 10 + i, 1, &[])).collect();
    for nap in naps {
        assert_eq!(ints(&session, nap.run()), [1]);
    }
}

#[test]
fn a_cancelled_native_call_is_told_promptly() {
    let native = Arc::new(Native::default());
    let setting = Setting { nthreads: 1, ..Setting::default() };
    let (_cluster, session) = cluster(setting, &native);
    let waits = enter(&session, WAIT, 1, 0, &[]);
    session.flush();
    let until = Instant::now() + LIMIT;
    while native.n_running.load(Ordering::SeqCst) == 0 {
        assert!(Instant::now() < until, "the call has not begun");
        std::thread::sleep(Duration::from_millis(1));
    }
    session.with(|machine, out| machine.cancel(vec![waits.run()], "enough", out));
    session.flush();
    // Its thread is free for the next one.
    let next = enter(&session, NAP, 2, 1, &[]);
    assert!(ends_within(&session, next.run(), Duration::from_secs(5)), "the call was not told");
    assert_eq!(native.n_cancelled.load(Ordering::SeqCst), 1);
}

#[test]
fn a_worker_without_python_runs_native_tasks() {
    let native = Arc::new(Native::default());
    let (_cluster, session) = cluster(Setting { has_python: false, ..Setting::default() }, &native);
    let sizes = Input::Values(Column::range(10, 0, 100));
    let filled = map(&session, FILL, 1, vec![sizes], 100);
    let totals = map(&session, TOTAL, 2, vec![Input::Tasks(TaskId::new(filled, 0))], 100);
    let expected: Vec<i64> = (0..100).map(|i| 10 * (i % 2 + 1)).collect();
    assert_eq!(ints(&session, Run::new(totals, 0, 100)), expected);
    // What needs Python waits for a worker that runs it.
    let python = enter(&session, SUM, 3, 1, &[]);
    assert!(!ends_within(&session, python.run(), Duration::from_millis(50)));
}

#[test]
fn native_calls_and_others_share_the_slots() {
    let native = Arc::new(Native::default());
    let (_cluster, session) = cluster(Setting::default(), &native);
    // Of two slots one is taken for long.
    let long = enter(&session, SLEEP_MS, 1, 400, &[]);
    session.flush();
    std::thread::sleep(Duration::from_millis(50));
    let naps: Vec<TaskId> = (0..8).map(|i| enter(&session, NAP, 10 + i, 10, &[])).collect();
    for nap in naps {
        assert_eq!(ints(&session, nap.run()), [10]);
    }
    assert_eq!(session.ending(long), None, "the long call was to last longer");
    assert_eq!(native.n_running_max.load(Ordering::SeqCst), 1);
}

#[test]
fn native_results_go_to_disk_and_come_back() {
    let native = Arc::new(Native::default());
    let folder = std::env::temp_dir().join(format!("rasker-native-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for values");
    let options =
        MemoryOptions { limit_nbytes: 64 << 20, has_disk: true, ..MemoryOptions::default() };
    let memory = MemorySettings { options, folder: Some(folder.clone()) };
    let setting = Setting { nthreads: 1, has_python: false, memory };
    let (cluster, session) = cluster(setting, &native);
    let n = 24;
    let sizes = Input::Values(Column::range(8 * MIB, 0, n));
    let filled = map(&session, FILL, 1, vec![sizes], n);
    assert!(ends_within(&session, Run::new(filled, 0, n), LIMIT));
    let totals = map(&session, TOTAL, 2, vec![Input::Tasks(TaskId::new(filled, 0))], n);
    let expected: Vec<i64> = (0..i64::from(n)).map(|i| 8 * MIB * (i % 2 + 1)).collect();
    assert_eq!(ints(&session, Run::new(totals, 0, n)), expected);
    // A call that asks for more than there is goes without; one that asks for what values take
    // up gets it.
    let too_much = enter(&session, RESERVE, 3, 60 * MIB, &[]);
    let enough = enter(&session, RESERVE, 4, 40 * MIB, &[]);
    assert_eq!(ints(&session, too_much.run()), [0]);
    assert_eq!(ints(&session, enough.run()), [1]);
    cluster.close(LIMIT);
    let _ = std::fs::remove_dir_all(folder);
}
