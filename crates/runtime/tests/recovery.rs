//! Connections that are cut, while everything at their ends goes on.

#[path = "toy/toy.rs"]
#[allow(dead_code)]
mod toy;

use rasker_graph::{Column, Input, Run, TaskId};
use rasker_protocol::Query;
use rasker_runtime::{
    Credentials, ExecutorKind, MemorySettings, RemoteSession, SchedulerNode, SchedulerOptions,
    Token, Trust, WorkerNode, WorkerNodeOptions,
};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use toy::{LIMIT, SLEEP_MS, SQUARE, SUM, Toy, ends_within, enter, ints, map, teach};

/// A way to a scheduler that can be cut.
struct Cable {
    address: String,
    /// Where it leads.
    place: Arc<Mutex<String>>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    is_cut: Arc<AtomicBool>,
}

fn carry(mut from: TcpStream, mut to: TcpStream) {
    let mut bytes = [0; 16 << 10];
    while let Ok(n) = from.read(&mut bytes)
        && n > 0
        && to.write_all(&bytes[..n]).is_ok()
    {}
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

impl Cable {
    fn to(address: &str) -> Cable {
        let place = Arc::new(Mutex::new(address.trim_start_matches("tcp://").to_owned()));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("tcp://{}", listener.local_addr().expect("an address"));
        let open: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let is_cut = Arc::new(AtomicBool::new(false));
        let (ends, cut, to) = (open.clone(), is_cut.clone(), place.clone());
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                if cut.load(Ordering::SeqCst) {
                    continue;
                }
                let place = to.lock().expect("no panic").clone();
                let Ok(far) = TcpStream::connect(&place) else { continue };
                let pairs = [(&near, &far), (&far, &near)];
                for (from, to) in pairs {
                    let pair = (from.try_clone().expect("a copy"), to.try_clone().expect("a copy"));
                    std::thread::spawn(move || carry(pair.0, pair.1));
                }
                ends.lock().expect("no panic").extend([near, far]);
            }
        });
        Cable { address, place, open, is_cut }
    }

    fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
        for end in self.open.lock().expect("no panic").drain(..) {
            let _ = end.shutdown(Shutdown::Both);
        }
    }

    fn lead_to(&self, address: &str) {
        *self.place.lock().expect("no panic") = address.trim_start_matches("tcp://").to_owned();
    }

    fn mend(&self) {
        self.is_cut.store(false, Ordering::SeqCst);
    }
}

fn trust() -> Trust {
    let credentials = Credentials { token: Token::generate().expect("a token") };
    Trust { credentials, server: None, client: None, insecure: false }
}

fn scheduler(trust: &Trust) -> SchedulerNode {
    let options = SchedulerOptions::default();
    SchedulerNode::start("127.0.0.1", 0, trust, options).expect("a scheduler starts")
}

fn worker(address: &str, trust: &Trust, name: &str) -> WorkerNode {
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
        executors: ExecutorKind::Threads(Arc::new(Toy::default())),
        native: None,
        python: String::new(),
        shares_memory: false,
        timeout: LIMIT,
        search: LIMIT,
    };
    WorkerNode::start(options).expect("a worker starts")
}

fn client(address: &str, trust: &Trust) -> RemoteSession {
    let remote = RemoteSession::connect(address, trust, "test", "", LIMIT).expect("a client");
    teach(&remote.session);
    remote
}

/// What the scheduler says of its workers: how many there are.
fn n_workers(remote: &RemoteSession) -> usize {
    remote.session.workers().len()
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < until, "it never came about that {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_client_that_was_cut_off_comes_back_to_its_futures() {
    let trust = trust();
    let scheduler = scheduler(&trust);
    let _worker = worker(&scheduler.address, &trust, "w");
    let cable = Cable::to(&scheduler.address);
    let remote = client(&cable.address, &trust);
    let session = &remote.session;
    let slow = enter(session, SLEEP_MS, 1, 200, &[]);
    session.flush();
    let before = enter(session, SQUARE, 2, 7, &[]);
    assert_eq!(ints(session, before.run()), [49]);
    cable.cut();
    // What is entered while it is away is done when it is back, and what ended meanwhile is told.
    let after = enter(session, SUM, 3, 1, &[slow, before]);
    session.flush();
    assert!(!ends_within(session, after.run(), Duration::from_millis(400)));
    cable.mend();
    assert_eq!(ints(session, slow.run()), [200]);
    assert_eq!(ints(session, after.run()), [250]);
    // Again and again, in the midst of many messages; nothing is lost and nothing applied twice.
    for round in 0..5 {
        let layers: Vec<_> = (0..200)
            .map(|at| {
                if at == 100 {
                    cable.cut();
                    cable.mend();
                }
                let key = 1000 * (round + 1) + at;
                let task = enter(session, SQUARE, key, at as i64, &[]);
                session.flush();
                task
            })
            .collect();
        for (at, task) in (0_i64..).zip(&layers) {
            assert_eq!(ints(session, task.run()), [at * at]);
        }
    }
    remote.ender()();
    scheduler.close();
}

#[test]
fn a_client_without_its_scheduler_is_told_at_once() {
    let trust = trust();
    let scheduler = scheduler(&trust);
    let remote = client(&scheduler.address, &trust);
    let task = enter(&remote.session, SQUARE, 1, 3, &[]);
    remote.session.flush();
    scheduler.close();
    assert!(ends_within(&remote.session, task.run(), Duration::from_secs(5)));
    assert!(remote.session.ended().is_some());
}

#[test]
fn a_session_of_another_scheduler_is_not_taken_for_this_one() {
    let trust = trust();
    let first = scheduler(&trust);
    let cable = Cable::to(&first.address);
    let remote = client(&cable.address, &trust);
    let second = scheduler(&trust);
    let task = enter(&remote.session, SQUARE, 1, 3, &[]);
    remote.session.flush();
    cable.cut();
    cable.lead_to(&second.address);
    cable.mend();
    assert!(ends_within(&remote.session, task.run(), LIMIT));
    let ended = remote.session.ended().expect("the session is over");
    assert!(ended.contains("does not know this client"), "{ended}");
    second.close();
    first.close();
}

#[test]
fn a_worker_that_was_cut_off_comes_back_with_its_values() {
    let trust = trust();
    let scheduler = scheduler(&trust);
    let cable = Cable::to(&scheduler.address);
    let _worker = worker(&cable.address, &trust, "w");
    let remote = client(&scheduler.address, &trust);
    let session = &remote.session;
    eventually("the worker is there", || n_workers(&remote) == 1);
    let numbers = Input::Values(Column::range(0, 1, 100));
    let squares = map(session, SQUARE, 1, vec![numbers], 100);
    assert_eq!(ints(session, Run::new(squares, 0, 100)).len(), 100);
    let old = session.workers()[0].0;
    cable.cut();
    eventually("the worker is missed", || n_workers(&remote) == 0);
    cable.mend();
    eventually("the worker is back", || n_workers(&remote) == 1);
    assert_ne!(session.workers()[0].0, old, "it has another incarnation");
    let total = enter(session, SUM, 2, 0, &[TaskId::new(squares, 3), TaskId::new(squares, 4)]);
    assert_eq!(ints(session, total.run()), [25]);
    // Everything that it made before is still counted as its own.
    let answer = session.ask(Query::HasWhat).recv_timeout(LIMIT).expect("an answer");
    let rasker_protocol::Datum::Map(rows) = answer else { panic!("rows by worker") };
    let rasker_protocol::Datum::List(keys) = &rows[0].1 else { panic!("keys") };
    assert_eq!(keys.len(), 101);
    remote.ender()();
    scheduler.close();
}

#[test]
fn a_retired_worker_hands_its_values_over_and_ends() {
    let trust = trust();
    let scheduler = scheduler(&trust);
    let first = worker(&scheduler.address, &trust, "first");
    let remote = client(&scheduler.address, &trust);
    let session = &remote.session;
    let numbers = Input::Values(Column::range(0, 1, 50));
    let squares = map(session, SQUARE, 1, vec![numbers], 50);
    let all = Run::new(squares, 0, 50);
    assert_eq!(ints(session, all).len(), 50);
    let _second = worker(&scheduler.address, &trust, "second");
    eventually("both are there", || n_workers(&remote) == 2);
    first.retire();
    assert!(first.wait(LIMIT).is_some(), "it ends by itself");
    let answer = session.ask(Query::HasWhat).recv_timeout(LIMIT).expect("an answer");
    let rasker_protocol::Datum::Map(rows) = answer else { panic!("rows by worker") };
    assert_eq!(rows.len(), 1);
    let rasker_protocol::Datum::List(keys) = &rows[0].1 else { panic!("keys") };
    assert_eq!(keys.len(), 50);
    remote.ender()();
    scheduler.close();
}
