//! Exchanges between the workers of a process, and between workers with sockets between them.

#[allow(dead_code)]
#[path = "toy/native.rs"]
mod native;
#[allow(dead_code)]
#[path = "toy/toy.rs"]
mod toy;

use native::{Native, READ, expected, new, readers, teach_native, writers};
use rasker_graph::{Key, PartRange, Run, TaskId};
use rasker_runtime::{
    Cluster, ClusterOptions, Credentials, ExecutorKind, MemoryOptions, MemorySettings,
    RemoteSession, SchedulerNode, SchedulerOptions, Session, Token, Trust, WorkerNode,
    WorkerNodeOptions,
};
use std::sync::Arc;
use std::time::{Duration, Instant};
use toy::{LIMIT, ends_within, ints};

fn cluster(n_workers: u32, memory: MemorySettings, native: &Arc<Native>) -> (Cluster, Session) {
    let options = ClusterOptions {
        name: "test".into(),
        n_workers,
        nthreads: 2,
        memory,
        resources: Vec::new(),
        executors: ExecutorKind::None,
        native: Some(native.clone()),
        python: String::new(),
        listens: false,
        scheduler: Default::default(),
    };
    let cluster = Cluster::start(&options).expect("a cluster starts");
    let session = cluster.connect("test");
    teach_native(&session);
    (cluster, session)
}

fn single(n: u32) -> Vec<PartRange> {
    (0..n).map(PartRange::one).collect()
}

fn check(session: &Session, found: &[TaskId], ranges: &[PartRange], n_writers: i64, most: i64) {
    for (task, parts) in found.iter().zip(ranges) {
        let expected = expected(n_writers, i64::from(parts.start), i64::from(parts.end), most);
        assert_eq!(ints(session, task.run()), [expected], "parts {parts:?}");
    }
}

fn trust() -> Trust {
    let credentials = Credentials { token: Token::generate().expect("a token") };
    Trust { credentials, server: None, client: None, insecure: false }
}

/// A worker with a process's sockets, though it is of this process.
fn node(
    address: &str,
    trust: &Trust,
    name: &str,
    shares: bool,
    native: &Arc<Native>,
) -> WorkerNode {
    let options = WorkerNodeOptions {
        scheduler: address.to_owned(),
        trust: trust.clone(),
        host: "127.0.0.1".into(),
        port: 0,
        name: Some(name.into()),
        nthreads: 1,
        memory: MemorySettings::default(),
        n_workers: 1,
        resources: Vec::new(),
        executors: ExecutorKind::None,
        native: Some(native.clone()),
        python: String::new(),
        shares_memory: shares,
        timeout: LIMIT,
        search: LIMIT,
    };
    WorkerNode::start(options).expect("a worker starts")
}

#[test]
fn readers_get_their_parts_in_the_order_of_the_writers() {
    let native = Arc::new(Native::default());
    let (_cluster, session) = cluster(2, MemorySettings::default(), &native);
    for (round, most) in [(0, 100), (1, 10_000), (2, 300_000)] {
        let writers = writers(&session, 1000 * round + 1, 12, 8, most);
        // One part each, several, all.
        let mut ranges = single(8);
        ranges.extend([(0, 3), (3, 8), (0, 8)].map(|(start, end)| PartRange { start, end }));
        let found = readers(&session, 1000 * round + 100, &writers, &ranges);
        check(&session, &found, &ranges, 12, most);
    }
    // Two exchanges in one reader, as the two sides of a join.
    let (left, right) = (writers(&session, 5000, 5, 4, 500), writers(&session, 6000, 3, 4, 700));
    let join = session.with(|machine, _| {
        let of = [machine.exchange(Key(5100), &left), machine.exchange(Key(6100), &right)];
        let reads = [(0, PartRange::one(2)), (1, PartRange::one(3))];
        machine.submit_reader(new(Key(7000), READ, &[], &of), &reads, true)
    });
    assert!(ends_within(&session, join.run(), LIMIT));
    assert_eq!(ints(&session, join.run()).len(), 1);
}

#[test]
fn an_exchange_larger_than_memory_goes_through_the_disk() {
    let native = Arc::new(Native::default());
    let folder = std::env::temp_dir().join(format!("rasker-exchange-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for values");
    let options =
        MemoryOptions { limit_nbytes: 48 << 20, has_disk: true, ..MemoryOptions::default() };
    let memory = MemorySettings { options, folder: Some(folder.clone()) };
    let (cluster, session) = cluster(2, memory, &native);
    // Of 160 MB in all, two workers hold 96 at most.
    let (n, most) = (20, 1 << 20);
    let written = writers(&session, 1, n, 8, most);
    let ranges = single(8);
    let found = readers(&session, 100, &written, &ranges);
    check(&session, &found, &ranges, n, most);
    let ran = native.written.lock().values().copied().max();
    assert_eq!(ran, Some(1), "nothing had to be written again");
    cluster.close(LIMIT);
    let _ = std::fs::remove_dir_all(folder);
}

#[test]
fn parts_come_over_sockets_and_a_lost_worker_costs_its_own_writers() {
    for shares_memory in [true, false] {
        let native = Arc::new(Native::default());
        let trust = trust();
        let options = SchedulerOptions::default();
        let scheduler =
            SchedulerNode::start("127.0.0.1", 0, &trust, options).expect("a scheduler starts");
        let address = &scheduler.address;
        let lost = node(address, &trust, "a", shares_memory, &native);
        let _kept = node(address, &trust, "b", shares_memory, &native);
        let remote = RemoteSession::connect(address, &trust, "test", "", LIMIT).expect("a client");
        let session = &remote.session;
        teach_native(session);
        let most = 200_000;
        let written = writers(session, 1, 16, 8, most);
        for writer in &written {
            assert!(ends_within(session, writer.run(), LIMIT));
        }
        let ranges = single(8);
        let before = readers(session, 100, &written, &ranges);
        check(session, &before, &ranges, 16, most);
        let n_lost = held_by(session, "a", &written);
        assert!(0 < n_lost && n_lost < 16, "both workers have written");
        lost.close();
        let ranges = [PartRange { start: 0, end: 4 }, PartRange { start: 4, end: 8 }];
        let after = readers(session, 200, &written, &ranges);
        check(session, &after, &ranges, 16, most);
        let n_written: u32 = native.written.lock().values().sum();
        assert_eq!(n_written, 16 + n_lost, "what was lost was written again, and nothing else");
    }
}

/// How many of these values a worker of this name holds.
fn held_by(session: &Session, name: &str, tasks: &[TaskId]) -> u32 {
    let workers = session.workers();
    let until = Instant::now() + LIMIT;
    assert_eq!(workers.len(), 2, "{workers:?}, until {until:?}");
    let holders: Vec<_> = tasks
        .iter()
        .map(|task| match session.ending(*task) {
            Some(rasker_client::Ending::Finished { holder, .. }) => holder,
            other => panic!("{task:?} ended so: {other:?}"),
        })
        .collect();
    // Workers are numbered in the order in which they joined.
    let mut ids: Vec<_> = workers.iter().map(|(id, _)| *id).collect();
    ids.sort_unstable();
    let id = ids[usize::from(name != "a")];
    holders.iter().filter(|holder| **holder == id).count() as u32
}

#[test]
fn a_cancelled_exchange_leaves_nothing_behind() {
    let native = Arc::new(Native::default());
    let (_cluster, session) = cluster(2, MemorySettings::default(), &native);
    let written = writers(&session, 1, 6, 4, 100_000);
    let ranges = single(4);
    let found = readers(&session, 100, &written, &ranges);
    check(&session, &found, &ranges, 6, 100_000);
    session.with(|machine, _| {
        written.iter().chain(&found).for_each(|task| machine.drop_task(*task));
    });
    session.flush();
    let until = Instant::now() + LIMIT;
    loop {
        let answers = session.ask(rasker_protocol::Query::HasWhat);
        let held = answers.recv_timeout(LIMIT).expect("an answer");
        let text = format!("{held:?}");
        if !text.contains("write-") && !text.contains("read-") {
            break;
        }
        assert!(Instant::now() < until, "values are left: {text}");
        std::thread::sleep(Duration::from_millis(5));
    }
    let again = writers(&session, 1, 6, 4, 100_000);
    let found = readers(&session, 100, &again, &ranges);
    check(&session, &found, &ranges, 6, 100_000);
    assert!(ends_within(&session, Run::new(found[0].layer, found[0].index, 1), LIMIT));
}
