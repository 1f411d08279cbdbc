//! Parts of exchanges, and inputs of native calls.

use crate::parts::{HeldPart, PartReply};
use crate::tests::{after, progress};
use crate::{Action, Event, MemoryOptions, ReaderId, Worker, WorkerOptions};
use rasker_graph::*;
use rasker_protocol::*;
use smallvec::smallvec;
use std::sync::Arc;

const LAYER: LayerId = LayerId(1 << 32);
const PYTHON: ExecutorId = ExecutorId(0);
const NATIVE: ExecutorId = ExecutorId(1);
const NEAR: WorkerId = WorkerId(1);
const FAR: WorkerId = WorkerId(2);
const MIB: u64 = 1 << 20;

fn task(index: u32) -> TaskId {
    TaskId::new(LAYER, index)
}

fn worker(limit_nbytes: u64, shares_objects: bool) -> Worker {
    let memory = MemoryOptions { limit_nbytes, has_disk: true, ..MemoryOptions::default() };
    let options = WorkerOptions {
        nthreads: 1,
        runs: Kinds::BOTH,
        shares_objects,
        local_clients: false,
        memory,
    };
    let mut worker = Worker::new(options);
    worker.start(&mut vec![]);
    for executor in [PYTHON, NATIVE] {
        worker.handle(Event::ExecutorJoined { executor }, &mut vec![]);
    }
    worker
}

fn native() -> Template {
    let (id, kind) = (TemplateId(2), TemplateKind::Native);
    Template { id, kind, name: "read".into(), code: Blob::EMPTY }
}

/// A native call of task 100 that reads these.
fn call(dependencies: &[TaskId], reads: &[(u32, PartRange)]) -> Calls {
    Calls {
        run: task(100).run(),
        attempt: 0,
        priority: Priority::default(),
        template: TemplateId(2),
        fused: smallvec![],
        label: Label { name: "read".into(), key: Key(1), layer: false, text: None },
        work: CallWork::One { args: Blob::EMPTY, dependencies: dependencies.into() },
        sources: smallvec![],
        alone: false,
        reads: reads.into(),
    }
}

/// Writers 0 to 3: 0 and 2 are here, 1 and 3 at a peer; 50 is the exchange.
fn compute(worker: &mut Worker, calls: Calls) -> Vec<Action> {
    let source = |index: u32, worker| Source { run: task(index).run(), worker, nbytes: 8 };
    let writers = [source(0, NEAR), source(1, FAR), source(2, NEAR), source(3, FAR)];
    let message = ToWorker::Compute {
        templates: vec![native()],
        calls: vec![calls],
        peers: vec![Peer { worker: FAR, address: "far".into(), name: "far".into() }],
        exchanges: vec![OpenExchange { exchange: task(50), writers: Arc::new(writers) }],
    };
    after(worker, Event::FromScheduler(message))
}

fn value(nbytes: u64) -> Value {
    Value::Encoded { blob: Blob::EMPTY, nbytes }
}

fn put(worker: &mut Worker, index: u32, nbytes: u64) -> Vec<Action> {
    let message = ToHolder::Put { id: 1, values: vec![(task(index), value(nbytes))] };
    after(worker, Event::Request { reader: ReaderId(1), local: false, message })
}

fn piece(index: u32, parts: PartRange, nbytes: u64) -> GotPiece {
    let piece = Piece { ends: smallvec![nbytes], data: Blob::EMPTY };
    GotPiece { task: task(index), parts, piece: Ok(Some(piece)) }
}

/// What an executor was given.
fn given(actions: &[Action]) -> Vec<(ExecutorId, ExecutorWork)> {
    let calls = actions.iter().filter_map(|action| match action {
        Action::ToExecutor(id, ToExecutor::Calls(calls)) => Some((*id, calls[0].work.clone())),
        _ => None,
    });
    calls.collect()
}

#[test]
fn parts_are_asked_for_once_of_each_holder_and_given_in_order() {
    let mut worker = worker(0, false);
    put(&mut worker, 0, 100);
    put(&mut worker, 2, 100);
    let parts = PartRange::one(7);
    let actions = compute(&mut worker, call(&[task(50)], &[(0, parts)]));
    let reads = vec![(task(1).run(), parts), (task(3).run(), parts)];
    let address = "far".to_owned();
    assert_eq!(actions, [Action::FetchParts { request: 1, worker: FAR, address, reads }]);
    let pieces = vec![piece(3, parts, 5), piece(1, parts, 6)];
    let actions = after(&mut worker, Event::Pieces { request: 1, pieces });
    let [(NATIVE, ExecutorWork::One { given, .. })] = &given(&actions)[..] else {
        panic!("the call was not given: {actions:?}")
    };
    let Given::Parts { parts: read, written } = &given[0] else { panic!("{given:?}") };
    assert_eq!(*read, parts);
    let sizes: Vec<u64> = (written.iter())
        .map(|written| match written {
            Written::Piece(piece) => piece.nbytes(),
            Written::Whole(value) => value.nbytes(),
        })
        .collect();
    assert_eq!(sizes, [100, 6, 100, 5], "in the order of the writers");
    assert_eq!(worker.governor.pieces_nbytes, 11);
    let outcome = Outcome::Values(Column::ints(&[1]));
    let done = Done { run: task(100).run(), attempt: 0, elapsed_ns: 1, outcome };
    let message = FromExecutor::Done(vec![done]);
    after(&mut worker, Event::FromExecutor { executor: NATIVE, message });
    assert_eq!(worker.governor.pieces_nbytes, 0);
    after(&mut worker, Event::FromScheduler(ToWorker::Free(vec![Run::new(LAYER, 0, 101)])));
    assert!(worker.is_idle(), "{}", worker.leftovers());
}

#[test]
fn a_reader_whose_parts_are_gone_is_given_back() {
    let mut worker = worker(0, false);
    put(&mut worker, 0, 100);
    put(&mut worker, 2, 100);
    let parts = PartRange::one(0);
    compute(&mut worker, call(&[task(50)], &[(0, parts)]));
    // Of two parts one comes.
    let pieces = vec![piece(1, parts, 6)];
    let told = progress(after(&mut worker, Event::Pieces { request: 1, pieces }));
    let inputs = vec![(task(3), FAR)];
    assert_eq!(told, [Progress::Missing { task: task(100), attempt: 0, inputs }]);
    // The peer goes before it answers.
    compute(&mut worker, Calls { attempt: 1, ..call(&[task(50)], &[(0, parts)]) });
    let gone = ToWorker::PeersGone(vec![FAR]);
    let told = progress(after(&mut worker, Event::FromScheduler(gone)));
    let inputs = vec![(task(1), FAR), (task(3), FAR)];
    assert_eq!(told, [Progress::Missing { task: task(100), attempt: 1, inputs }]);
    after(&mut worker, Event::FromScheduler(ToWorker::Free(vec![Run::new(LAYER, 0, 51)])));
    assert!(worker.is_idle(), "{}", worker.leftovers());
}

#[test]
fn parts_of_a_spilled_value_are_read_and_nothing_else_of_it() {
    let mut worker = worker(100 * MIB, false);
    put(&mut worker, 0, 40 * MIB);
    let actions = put(&mut worker, 2, 40 * MIB);
    let Some(Action::Spill { record, .. }) =
        actions.iter().find(|a| matches!(a, Action::Spill { .. }))
    else {
        panic!("nothing left: {actions:?}")
    };
    let (record, result) = (*record, Ok(1));
    after(&mut worker, Event::Spilled { record, nbytes: 40 * MIB, result });
    // For a call here, and for a reader elsewhere.
    let parts = PartRange::one(3);
    let actions = compute(&mut worker, call(&[task(50)], &[(0, parts)]));
    let read = |request| Action::ReadParts { request, reads: vec![(record, task(0), parts)] };
    assert!(actions.contains(&read(1)), "{actions:?}");
    let message = ToHolder::GetParts { id: 9, reads: vec![(Run::new(LAYER, 0, 3), parts)] };
    let reader = ReaderId(5);
    let actions = after(&mut worker, Event::Request { reader, local: false, message });
    assert_eq!(actions, [read(3)]);
    let pieces = vec![piece(0, parts, MIB)];
    let actions = after(&mut worker, Event::Pieces { request: 3, pieces });
    let [Action::ReplyParts { parts: replies, .. }] = &actions[..] else { panic!("{actions:?}") };
    let is_whole = |reply: &PartReply| matches!(reply.part, Ok(Some(HeldPart::Whole(_))));
    let whole: Vec<(u32, bool)> = replies.iter().map(|r| (r.task.index, is_whole(r))).collect();
    assert_eq!(whole, [(2, true), (0, false)], "what is in memory is cut by who replies");
}

#[test]
fn an_object_becomes_bytes_before_a_native_call_reads_it() {
    let mut worker = worker(0, true);
    let object = Value::Object { object: Blob::Local(Arc::new(7u8)), nbytes: 8 };
    let message = ToHolder::Put { id: 1, values: vec![(task(1), object.clone())] };
    after(&mut worker, Event::Request { reader: ReaderId(1), local: true, message });
    let actions = compute(&mut worker, call(&[task(1)], &[]));
    let export = ToExecutor::Export(vec![(task(1), Some(object))]);
    assert_eq!(actions, [Action::ToExecutor(PYTHON, export)]);
    let message = FromExecutor::Exported { task: task(1), value: Ok(Some(value(8))) };
    let actions = after(&mut worker, Event::FromExecutor { executor: PYTHON, message });
    let expected =
        ExecutorWork::One { args: Blob::EMPTY, given: smallvec![Given::Value(value(8))] };
    assert_eq!(given(&actions), [(NATIVE, expected)]);
}

#[test]
fn memory_that_native_calls_reserve_makes_values_leave() {
    let mut worker = worker(100 * MIB, false);
    put(&mut worker, 0, 40 * MIB);
    let actions = after(&mut worker, Event::Reserved { nbytes: 50 * MIB });
    assert!(actions.iter().any(|a| matches!(a, Action::Spill { .. })), "{actions:?}");
    assert_eq!(worker.used_by_others(), 40 * MIB);
}

#[test]
fn parts_of_live_values_and_objects_become_bytes_before_a_python_call_reads_them() {
    for shares_objects in [false, true] {
        let mut worker = worker(0, shares_objects);
        let object = Value::Object { object: Blob::Local(Arc::new(7u8)), nbytes: 8 };
        match shares_objects {
            true => {
                let message = ToHolder::Put { id: 1, values: vec![(task(0), object.clone())] };
                after(&mut worker, Event::Request { reader: ReaderId(1), local: true, message });
            }
            false => live(&mut worker, 0),
        }
        // Another input that lives in the same executor stays there.
        live(&mut worker, 7);
        put(&mut worker, 2, 100);
        let parts = PartRange::one(7);
        let reads = Calls { template: TemplateId(1), ..call(&[task(50), task(7)], &[(0, parts)]) };
        compute(&mut worker, reads);
        let pieces = vec![piece(1, parts, 6), piece(3, parts, 5)];
        let actions = after(&mut worker, Event::Pieces { request: 1, pieces });
        let export = ToExecutor::Export(vec![(task(0), shares_objects.then_some(object))]);
        assert_eq!(actions, [Action::ToExecutor(PYTHON, export)]);
        let message = FromExecutor::Exported { task: task(0), value: Ok(Some(value(8))) };
        let actions = after(&mut worker, Event::FromExecutor { executor: PYTHON, message });
        let [(PYTHON, ExecutorWork::One { given, .. })] = &given(&actions)[..] else {
            panic!("the call was not given: {actions:?}")
        };
        let Given::Parts { written, .. } = &given[0] else { panic!("{given:?}") };
        assert_eq!((&written[0], written.len()), (&Written::Whole(value(8)), 4));
        assert_eq!(given[1], Given::Live(task(7)));
    }
}

/// Has a task run in the executor of Python, where its value stays.
fn live(worker: &mut Worker, index: u32) {
    let calls = Calls { run: task(index).run(), template: TemplateId(1), ..call(&[], &[]) };
    let message = ToWorker::Compute {
        templates: vec![],
        calls: vec![calls],
        peers: vec![],
        exchanges: vec![],
    };
    after(worker, Event::FromScheduler(message));
    let outcome = Outcome::Live { nbytes: 8 };
    let done = Done { run: task(index).run(), attempt: 0, elapsed_ns: 1, outcome };
    let message = FromExecutor::Done(vec![done]);
    after(worker, Event::FromExecutor { executor: PYTHON, message });
}

#[test]
fn calls_ask_for_parts_in_turn() {
    let mut worker = worker(0, false);
    put(&mut worker, 0, 100);
    put(&mut worker, 2, 100);
    let parts = PartRange::one(7);
    let call_of = |index: u32| {
        let mut call = call(&[task(50)], &[(0, parts)]);
        call.run = task(100 + index).run();
        call
    };
    let asked = |actions: &[Action]| -> Vec<u64> {
        let requests = actions.iter().filter_map(|action| match action {
            Action::FetchParts { request, .. } => Some(*request),
            _ => None,
        });
        requests.collect()
    };
    let mut open: Vec<u64> = Vec::new();
    for index in 0..40 {
        open.extend(asked(&compute(&mut worker, call_of(index))));
    }
    let least = open.len();
    assert!((1..5).contains(&least), "nothing is known of sizes: {least} have asked");
    // Parts are large: no more calls ask at a time than before.
    let mut n_asked = open.len();
    let mut given_away = Vec::new();
    while let Some(request) = open.pop() {
        let pieces = vec![piece(1, parts, 40 << 20), piece(3, parts, 40 << 20)];
        let mut actions = after(&mut worker, Event::Pieces { request, pieces });
        loop {
            let asks = asked(&actions);
            n_asked += asks.len();
            open.extend(asks);
            assert!(open.len() <= least, "{} calls ask for 80 MiB each", open.len());
            given_away.extend(actions.iter().filter_map(|action| match action {
                Action::ToExecutor(_, ToExecutor::Calls(calls)) => Some(calls[0].run),
                _ => None,
            }));
            let Some(run) = given_away.pop() else { break };
            let outcome = Outcome::Values(Column::ints(&[1]));
            let done = Done { run, attempt: 0, elapsed_ns: 1, outcome };
            let message = FromExecutor::Done(vec![done]);
            actions = after(&mut worker, Event::FromExecutor { executor: NATIVE, message });
        }
    }
    assert_eq!(n_asked, 40);
    // Small ones are asked for together.
    let actions: Vec<Action> = (40..140).flat_map(|n| compute(&mut worker, call_of(n))).collect();
    let mut open = asked(&actions);
    let mut most = 0;
    while let Some(request) = open.pop() {
        most = most.max(open.len());
        let pieces = vec![piece(1, parts, 10), piece(3, parts, 10)];
        open.extend(asked(&after(&mut worker, Event::Pieces { request, pieces })));
    }
    assert!(most > 20, "at most {most} calls have asked");
}
