//! Machines that are told anything by peers that got in: no panic, a sound state, and nothing of
//! others touched.

use super::feed::Feed;
use super::messages;
use rasker_client::{Client, NewTask};
use rasker_graph::*;
use rasker_protocol::*;
use rasker_scheduler::{Action, Event, Scheduler};
use rasker_worker::{Event as WorkerEvent, MemoryOptions, ReaderId, Worker, WorkerOptions};

/// Messages of one input.
const MOST: u32 = 200;
/// Whose tasks nobody else may touch.
const INNOCENT: ClientId = ClientId(1);
const HOSTILE: ClientId = ClientId(2);
const HONEST_WORKER: WorkerId = WorkerId(0);
const HOSTILE_WORKER: WorkerId = WorkerId(1);

fn hello(worker: WorkerId) -> WorkerHello {
    WorkerHello {
        name: format!("w{}", worker.0),
        address: format!("fuzz://{}", worker.0),
        routes: String::new(),
        host: "here".into(),
        pid: 0,
        nthreads: 2,
        memory_limit: 0,
        resources: vec![("gpu".into(), 1.0)],
        python: String::new(),
        runs: Kinds::BOTH,
    }
}

fn innocent_work() -> FromClient {
    let template = Template {
        id: TemplateId(9),
        kind: Default::default(),
        name: "inc".into(),
        code: Blob::EMPTY,
    };
    let inputs = vec![Input::Values(Column::range(0, 1, 6))];
    let (key, name, constants) = (Key(900), "inc".into(), Blob::EMPTY);
    let work = Work::Map(MapWork { template: template.id, key, name, inputs, constants });
    let map = Layer {
        id: LayerId::new(INNOCENT, 1),
        count: 6,
        work,
        options: Default::default(),
        wants_values: true,
    };
    FromClient::Submit(Submit { templates: vec![template], layers: vec![map] })
}

/// A scheduler with a client whose map is done, on a worker that tells the truth.
fn peaceful() -> Scheduler {
    let mut scheduler = Scheduler::default();
    let mut out = Vec::new();
    let mut events = vec![
        Event::ClientJoined { client: INNOCENT, name: "innocent".into() },
        Event::WorkerJoined { worker: HONEST_WORKER, hello: hello(HONEST_WORKER) },
        Event::FromClient { client: INNOCENT, message: innocent_work() },
    ];
    while !events.is_empty() {
        events.into_iter().for_each(|event| scheduler.handle(0, event, &mut out));
        scheduler.handle(0, Event::Turn, &mut out);
        events = out.drain(..).filter_map(answer).collect();
    }
    scheduler
}

/// What a worker that tells the truth says to calls.
fn answer(action: Action) -> Option<Event> {
    let Action::ToWorker(worker, ToWorker::Compute { calls, .. }) = action else { return None };
    let finished = calls.into_iter().map(|calls| Progress::Finished {
        run: calls.run,
        attempt: calls.attempt,
        elapsed_ns: 100,
        nbytes: 8,
        values: None,
    });
    let message = FromWorker::Progress(finished.collect());
    (worker == HONEST_WORKER).then_some(Event::FromWorker { worker, message })
}

/// Whether a client may change tasks of others by this message: any of them may cancel and retry.
fn is_allowed(message: &FromClient) -> bool {
    matches!(message, FromClient::Cancel { .. } | FromClient::Retry(_))
}

fn hostile_event(feed: &mut Feed<'_>) -> (Event, bool) {
    match feed.below(5) {
        0..2 => {
            let message = messages::from_client(feed);
            let is_allowed = is_allowed(&message);
            (Event::FromClient { client: HOSTILE, message }, is_allowed)
        }
        2..4 => {
            let message = messages::from_worker(feed);
            (Event::FromWorker { worker: HOSTILE_WORKER, message }, false)
        }
        // From peers that are not there.
        _ => match feed.below(2) {
            0 => {
                let message = messages::from_client(feed);
                (Event::FromClient { client: ClientId(77), message }, false)
            }
            _ => {
                let message = messages::from_worker(feed);
                (Event::FromWorker { worker: WorkerId(77), message }, false)
            }
        },
    }
}

/// A client and a worker that say anything, beside ones that do not.
pub fn scheduler(bytes: &[u8]) {
    let mut feed = Feed::new(bytes);
    let mut scheduler = peaceful();
    let mut out = Vec::new();
    let joined = Event::ClientJoined { client: HOSTILE, name: "hostile".into() };
    scheduler.handle(0, joined, &mut out);
    let joined = Event::WorkerJoined { worker: HOSTILE_WORKER, hello: hello(HOSTILE_WORKER) };
    scheduler.handle(0, joined, &mut out);
    for _ in 0..MOST {
        if feed.is_empty() {
            break;
        }
        let (event, may_touch) = hostile_event(&mut feed);
        let said = format!("{event:?}");
        let before = scheduler.fingerprint(INNOCENT);
        scheduler.handle(0, event, &mut out);
        assert_eq!(scheduler.check(), Vec::<String>::new(), "after {said}");
        assert!(
            may_touch || scheduler.fingerprint(INNOCENT) == before,
            "{said} touched tasks of another client"
        );
        if feed.chance(128) {
            scheduler.handle(0, Event::Turn, &mut out);
            assert_eq!(scheduler.check(), Vec::<String>::new(), "after a turn after {said}");
            if feed.chance(128) {
                let answers: Vec<Event> = out.drain(..).filter_map(answer).collect();
                answers.into_iter().for_each(|event| scheduler.handle(0, event, &mut out));
            }
        }
    }
    for client in [HOSTILE, INNOCENT] {
        scheduler.handle(0, Event::ClientLeft { client }, &mut out);
        assert_eq!(scheduler.check(), Vec::<String>::new(), "after {client:?} left");
    }
    assert_eq!(scheduler.n_tasks(), 0, "all clients have left");
}

/// An executor, readers and peers that say anything.
pub fn worker(bytes: &[u8]) {
    let mut feed = Feed::new(bytes);
    let memory = MemoryOptions::default();
    let options = WorkerOptions {
        runs: Kinds::BOTH,
        nthreads: 2,
        shares_objects: false,
        local_clients: false,
        memory,
    };
    let mut worker = Worker::new(options);
    let mut out = Vec::new();
    worker.start(&mut out);
    let mut executor = ExecutorId(0);
    for _ in 0..MOST {
        if feed.is_empty() {
            break;
        }
        let event = match feed.below(9) {
            0..3 => WorkerEvent::FromScheduler(messages::to_worker(&mut feed)),
            3..6 => {
                WorkerEvent::FromExecutor { executor, message: messages::from_executor(&mut feed) }
            }
            6 => {
                let reader = ReaderId(feed.below(3));
                let message = messages::to_holder(&mut feed);
                WorkerEvent::Request { reader, local: feed.chance(128), message }
            }
            7 => {
                let values = feed.list(3, |feed| {
                    let task = TaskId::new(messages::layer(feed), feed.below(8) as u32);
                    (task, feed.chance(160).then(|| messages::value(feed)))
                });
                WorkerEvent::Fetched { worker: messages::worker_id(&mut feed), values }
            }
            _ => match feed.below(4) {
                3 => WorkerEvent::Pieces {
                    request: feed.below(6),
                    pieces: feed.list(3, messages::got_piece),
                },
                0 => WorkerEvent::ExecutorJoined { executor },
                1 => WorkerEvent::ReaderLeft { reader: ReaderId(feed.below(3)) },
                _ => {
                    let reason = "killed".into();
                    WorkerEvent::ExecutorLost { executor, reason, running: None }
                }
            },
        };
        let said = format!("{event:?}");
        worker.handle(event, &mut out);
        if feed.chance(128) {
            worker.handle(WorkerEvent::Turn, &mut out);
        }
        for action in out.drain(..) {
            if let rasker_worker::Action::StartExecutor(id, _) = action {
                executor = id;
            }
        }
        assert_eq!(worker.audit(), Vec::<String>::new(), "after {said}");
    }
}

/// A client whose scheduler says anything.
pub fn client(bytes: &[u8]) {
    let mut feed = Feed::new(bytes);
    let mut client = Client::new(ClientId(1));
    let mut out = Vec::new();
    client.add_template(Template {
        id: TemplateId(1),
        kind: Default::default(),
        name: "f".into(),
        code: Blob::EMPTY,
    });
    let mut tasks = Vec::new();
    for key in 0..5 {
        tasks.push(client.submit(NewTask {
            key: Key(key),
            name: None,
            template: TemplateId(1),
            args: &[],
            blob: None,
            dependencies: &[],
            options: None,
            fused: &[],
        }));
    }
    let inputs = vec![Input::Values(Column::range(0, 1, 8))];
    let (key, name, constants) = (Key(100), "f".into(), Blob::EMPTY);
    let work = MapWork { template: TemplateId(1), key, name, inputs, constants };
    let map = client.map(work, 8, Default::default(), &mut out);
    client.wait(&[Run::new(map, 0, 8)], 8);
    for _ in 0..MOST {
        if feed.is_empty() {
            break;
        }
        match feed.below(8) {
            0 => client.cancel(vec![Run::new(map, feed.below(4) as u32, 2)], "", &mut out),
            1 if !tasks.is_empty() => {
                let at = feed.below(tasks.len() as u64) as usize;
                client.drop_task(tasks.swap_remove(at));
            }
            2 => client.flush(&mut out),
            _ => client.handle(messages::to_client(&mut feed), &mut out),
        }
        out.clear();
        for index in 0..8 {
            let _ = client.ending(TaskId::new(map, index));
            let _ = client.stretch(TaskId::new(map, index));
        }
    }
}
