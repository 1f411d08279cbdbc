//! What a worker does as memory runs short, event by event.

use crate::tests::{after, compute, progress, reader};
use crate::{Action, Event, Measured, MemoryOptions, ReaderId, Worker, WorkerOptions};
use rasker_graph::*;
use rasker_protocol::*;

const MIB: u64 = 1 << 20;
const LIMIT: u64 = 100 * MIB;
const EXECUTOR: ExecutorId = ExecutorId(0);
const READER: ReaderId = ReaderId(1);
const PEER: WorkerId = WorkerId(7);

fn limited() -> Worker {
    let memory = MemoryOptions { limit_nbytes: LIMIT, has_disk: true, ..MemoryOptions::default() };
    let options = WorkerOptions {
        runs: Kinds::PYTHON,
        nthreads: 1,
        shares_objects: false,
        local_clients: false,
        memory,
    };
    let mut worker = Worker::new(options);
    worker.start(&mut vec![]);
    worker.handle(Event::ExecutorJoined { executor: EXECUTOR }, &mut vec![]);
    worker
}

fn data(index: u32) -> TaskId {
    TaskId::new(LayerId(5 << 32), index)
}

fn value(nbytes: u64) -> Value {
    Value::Encoded { blob: Blob::EMPTY, nbytes }
}

fn put(worker: &mut Worker, index: u32, nbytes: u64) -> Vec<Action> {
    let message = ToHolder::Put { id: 0, values: vec![(data(index), value(nbytes))] };
    after(worker, Event::Request { reader: READER, local: false, message })
}

fn get(worker: &mut Worker, index: u32) -> Vec<Action> {
    let message = ToHolder::Get { id: 9, tasks: vec![data(index)] };
    after(worker, Event::Request { reader: READER, local: false, message })
}

fn free(worker: &mut Worker, index: u32) -> Vec<Action> {
    after(worker, Event::FromScheduler(ToWorker::Free(vec![data(index).run()])))
}

/// Records that are to be written, with their sizes.
fn spills(actions: &[Action]) -> Vec<(u64, u64)> {
    let spills = actions.iter().filter_map(|action| match action {
        Action::Spill { record, value } => Some((*record, value.nbytes())),
        _ => None,
    });
    spills.collect()
}

fn restores(actions: &[Action]) -> Vec<u64> {
    let restores = actions.iter().filter_map(|action| match action {
        Action::Restore { record } => Some(*record),
        _ => None,
    });
    restores.collect()
}

fn written(worker: &mut Worker, (record, nbytes): (u64, u64)) -> Vec<Action> {
    after(worker, Event::Spilled { record, nbytes, result: Ok(1) })
}

fn measured(worker: &mut Worker, nbytes: u64) -> Vec<Action> {
    let executors = vec![(EXECUTOR, nbytes, 0)];
    after(worker, Event::Measured(Measured { executors, ..Measured::default() }))
}

/// A worker with one value on disk: 0, of 30 MiB; and its record.
fn with_one_away() -> (Worker, u64) {
    let mut worker = limited();
    put(&mut worker, 0, 30 * MIB);
    let actions = put(&mut worker, 1, 40 * MIB);
    let spill = spills(&actions)[0];
    assert_eq!(spill.1, 30 * MIB, "the oldest value goes first");
    written(&mut worker, spill);
    assert_eq!(worker.held.nbytes, 40 * MIB);
    (worker, spill.0)
}

#[test]
fn inputs_in_use_stay_in_memory() {
    let mut worker = limited();
    put(&mut worker, 0, 30 * MIB);
    let run = Run::new(LayerId(6 << 32), 0, 1);
    assert!(!compute(&mut worker, vec![reader(run, data(0))]).is_empty());
    // The oldest value is being read, so the one after it leaves.
    put(&mut worker, 1, 25 * MIB);
    let spill = spills(&put(&mut worker, 2, 20 * MIB));
    assert_eq!(spill[0].1, 25 * MIB);
    written(&mut worker, spill[0]);
    // There is only the newest left that may leave.
    let actions = put(&mut worker, 3, 35 * MIB);
    assert!(spills(&actions).iter().all(|(_, nbytes)| *nbytes != 30 * MIB), "{actions:?}");
    let mut open = spills(&actions);
    while let Some(spill) = open.pop() {
        open.extend(spills(&written(&mut worker, spill)));
    }
    let done =
        Done { run, attempt: 0, elapsed_ns: 100, outcome: Outcome::Values(Column::range(0, 1, 1)) };
    let message = FromExecutor::Done(vec![done]);
    let mut actions = after(&mut worker, Event::FromExecutor { executor: EXECUTOR, message });
    actions.extend(put(&mut worker, 4, 31 * MIB));
    assert!(spills(&actions).iter().any(|(_, nbytes)| *nbytes == 30 * MIB), "{actions:?}");
}

#[test]
fn values_stay_within_the_limit() {
    let mut worker = limited();
    let mut writing = std::collections::VecDeque::new();
    let mut reading = std::collections::VecDeque::new();
    let mut state = 1u64;
    for step in 0..20_000u32 {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let dice = (state >> 33) as u32;
        let actions = match dice % 8 {
            // Newcomers come one by one, each after the disk has caught up.
            0 | 1 if writing.is_empty() => {
                put(&mut worker, step, u64::from(dice >> 3) % (8 * MIB) + 20_000)
            }
            2 | 3 => get(&mut worker, step.saturating_sub((dice >> 3) % 512)),
            4 => free(&mut worker, step.saturating_sub((dice >> 3) % 512)),
            5 | 6 => match writing.pop_front() {
                Some(spill) => written(&mut worker, spill),
                None => continue,
            },
            _ => match reading.pop_front() {
                Some((record, nbytes)) => {
                    let result = Ok((value(nbytes), 1));
                    after(&mut worker, Event::Restored { record, result })
                }
                None => continue,
            },
        };
        writing.extend(spills(&actions));
        for record in restores(&actions) {
            let task = worker.governor.reading[&record];
            reading.push_back((record, worker.governor.get(task).unwrap().nbytes));
        }
        let reserved = worker.held.nbytes + worker.governor.coming_nbytes;
        assert!(reserved <= LIMIT, "step {step}: {reserved} bytes");
    }
    assert!(worker.governor.disk.written_nbytes > 50 * LIMIT, "little was spilled");
    let read = worker.governor.disk.read_nbytes;
    assert!(read > 5 * LIMIT, "{read} bytes were read back");
}

#[test]
fn what_is_spilled_and_what_is_in_memory_is_all_that_is_held() {
    let mut worker = limited();
    let mut total = 0;
    for index in 0..60 {
        let nbytes = MIB * u64::from(index % 7 + 1);
        total += nbytes;
        let mut open = spills(&put(&mut worker, index, nbytes));
        while let Some(spill) = open.pop() {
            open.extend(spills(&written(&mut worker, spill)));
        }
        assert_eq!(worker.held.nbytes + worker.governor.away_nbytes(), total);
        assert_eq!(worker.governor.disk_nbytes, worker.governor.away_nbytes());
        assert!(worker.held.nbytes <= LIMIT * 6 / 10);
    }
    let mut forgotten = 0;
    for index in 0..60 {
        let actions = free(&mut worker, index);
        forgotten += actions.iter().filter(|a| matches!(a, Action::Forget { .. })).count();
    }
    assert!(forgotten > 30, "{forgotten}");
    assert_eq!((worker.held.nbytes, worker.governor.disk_nbytes), (0, 0));
    assert!(worker.is_idle(), "{}", worker.leftovers());
}

#[test]
fn a_spilled_value_comes_back_for_its_reader_and_is_not_written_again() {
    let (mut worker, record) = with_one_away();
    let asked = get(&mut worker, 0);
    assert_eq!(restores(&asked), [record]);
    // There is too little room for both, so the other one leaves meanwhile.
    let other = spills(&asked)[0];
    assert_eq!(other.1, 40 * MIB);
    let result = Ok((value(30 * MIB), 1));
    let actions = after(&mut worker, Event::Restored { record, result });
    let answer = vec![(data(0), Ok(Some(value(30 * MIB))))];
    let answer = FromHolder::Got { id: 9, values: answer };
    assert!(actions.contains(&Action::Reply(READER, answer)), "{actions:?}");
    // The first goes again, without being written.
    written(&mut worker, other);
    assert_eq!(spills(&put(&mut worker, 2, 50 * MIB)), []);
    assert_eq!(worker.held.nbytes, 50 * MIB);
}

#[test]
fn a_call_waits_for_its_spilled_input() {
    let (mut worker, record) = with_one_away();
    let run = Run::new(LayerId(6 << 32), 0, 1);
    let actions = compute(&mut worker, vec![reader(run, data(0))]);
    assert_eq!(restores(&actions), [record]);
    let is_call = |a: &Action| matches!(a, Action::ToExecutor(_, ToExecutor::Calls(_)));
    assert!(!actions.iter().any(is_call));
    let result = Ok((value(30 * MIB), 1));
    let actions = after(&mut worker, Event::Restored { record, result });
    assert!(actions.iter().any(is_call), "{actions:?}");
}

#[test]
fn a_damaged_record_is_a_lost_value() {
    let (mut worker, record) = with_one_away();
    get(&mut worker, 0);
    let run = Run::new(LayerId(6 << 32), 0, 1);
    compute(&mut worker, vec![reader(run, data(0))]);
    let result = Err("its content does not match its checksum".to_owned());
    let actions = after(&mut worker, Event::Restored { record, result });
    let answer = FromHolder::Got { id: 9, values: vec![(data(0), Ok(None))] };
    assert!(actions.contains(&Action::Reply(READER, answer)), "{actions:?}");
    let told = progress(actions);
    assert_eq!(told[0], Progress::Dropped { runs: vec![data(0).run()] });
    assert!(matches!(told[1], Progress::Missing { .. }), "{told:?}");
    assert_eq!(worker.governor.disk.n_lost, 1);
    assert!(worker.held.get(data(0)).is_none());
}

#[test]
fn a_value_that_is_freed_while_it_is_written_leaves_no_record() {
    let mut worker = limited();
    put(&mut worker, 0, 30 * MIB);
    let spill = spills(&put(&mut worker, 1, 40 * MIB))[0];
    assert_eq!(free(&mut worker, 0), []);
    assert_eq!(written(&mut worker, spill), [Action::Forget { record: spill.0 }]);
    assert_eq!(worker.governor.disk_nbytes, 0);
    // Likewise while it is read.
    let (mut worker, record) = with_one_away();
    get(&mut worker, 0);
    assert!(free(&mut worker, 0).contains(&Action::Forget { record }));
    let result = Ok((value(30 * MIB), 1));
    after(&mut worker, Event::Restored { record, result });
    assert_eq!((worker.held.nbytes, worker.governor.coming_nbytes), (40 * MIB, 0));
}

#[test]
fn second_copies_go_before_anything_is_written() {
    let mut worker = limited();
    let run = Run::new(LayerId(6 << 32), 0, 1);
    let mut calls = reader(run, data(0));
    calls.sources.push(Source { run: data(0).run(), worker: PEER, nbytes: 30 * MIB });
    compute(&mut worker, vec![calls]);
    let values = vec![(data(0), Some(value(30 * MIB)))];
    after(&mut worker, Event::Fetched { worker: PEER, values });
    let outcome = Outcome::Values(Column::range(0, 1, 1));
    let done = Done { run, attempt: 0, elapsed_ns: 100, outcome };
    let message = FromExecutor::Done(vec![done]);
    after(&mut worker, Event::FromExecutor { executor: EXECUTOR, message });
    let actions = put(&mut worker, 1, 20 * MIB);
    assert_eq!(spills(&actions), []);
    let told = progress(put(&mut worker, 2, 20 * MIB));
    assert_eq!(told, [Progress::Spare { runs: vec![data(0).run()] }]);
    assert_eq!(free(&mut worker, 0).len(), 0);
    assert!(worker.held.nbytes < 41 * MIB);
}

#[test]
fn a_live_value_becomes_bytes_before_it_is_written() {
    let mut worker = limited();
    let run = Run::new(LayerId(6 << 32), 0, 1);
    let task = TaskId::new(run.layer, 0);
    put(&mut worker, 0, 20 * MIB);
    compute(&mut worker, vec![reader(run, data(0))]);
    let done =
        Done { run, attempt: 0, elapsed_ns: 100, outcome: Outcome::Live { nbytes: 50 * MIB } };
    let message = FromExecutor::Done(vec![done]);
    let first = after(&mut worker, Event::FromExecutor { executor: EXECUTOR, message });
    written(&mut worker, spills(&first)[0]);
    let actions = put(&mut worker, 1, 15 * MIB);
    let export = ToExecutor::Export(vec![(task, None)]);
    assert!(actions.contains(&Action::ToExecutor(EXECUTOR, export)), "{actions:?}");
    let message = FromExecutor::Exported { task, value: Ok(Some(value(51 * MIB))) };
    let actions = after(&mut worker, Event::FromExecutor { executor: EXECUTOR, message });
    let dropped = ToExecutor::Drop(vec![task.run()]);
    assert!(actions.contains(&Action::ToExecutor(EXECUTOR, dropped)), "{actions:?}");
    let spill = spills(&actions)[0];
    assert_eq!(spill.1, 51 * MIB);
    written(&mut worker, spill);
    assert_eq!((worker.held.nbytes, worker.held.live_nbytes), (15 * MIB, 0));
}

#[test]
fn a_full_disk_leaves_values_in_memory_and_is_tried_again() {
    let mut worker = limited();
    put(&mut worker, 0, 30 * MIB);
    let (record, nbytes) = spills(&put(&mut worker, 1, 40 * MIB))[0];
    let result = Err("disk full".to_owned());
    let actions = after(&mut worker, Event::Spilled { record, nbytes, result });
    assert_eq!(spills(&actions), []);
    assert_eq!((worker.held.nbytes, worker.governor.disk_nbytes), (70 * MIB, 0));
    let mut retried = Vec::new();
    for _ in 0..4 {
        retried.extend(spills(&after(&mut worker, Event::Tick { memory_nbytes: 0 })));
    }
    assert_eq!(retried, [(record + 1, nbytes)]);
}

#[test]
fn a_worker_short_of_memory_takes_no_new_call_while_one_runs() {
    let is_call = |a: &Action| matches!(a, Action::ToExecutor(_, ToExecutor::Calls(_)));
    let status = |actions: &[Action]| {
        actions.iter().find_map(|action| match action {
            Action::ToScheduler(FromWorker::Status(status)) => Some(status.is_paused),
            _ => None,
        })
    };
    let mut worker = limited();
    put(&mut worker, 0, 20_000);
    let run = |index| Run::new(LayerId(6 << 32), index, 1);
    assert!(compute(&mut worker, vec![reader(run(0), data(0))]).iter().any(is_call));
    let actions = measured(&mut worker, 85 * MIB);
    assert_eq!(status(&actions), Some(true));
    assert!(!compute(&mut worker, vec![reader(run(1), data(0))]).iter().any(is_call));
    // When nothing runs and nothing can leave, waiting would be for ever: one call goes on.
    let outcome = Outcome::Values(Column::range(0, 1, 1));
    let done = Done { run: run(0), attempt: 0, elapsed_ns: 100, outcome };
    let message = FromExecutor::Done(vec![done]);
    let actions = after(&mut worker, Event::FromExecutor { executor: EXECUTOR, message });
    assert_eq!(actions.iter().filter(|a| is_call(a)).count(), 1);
    assert_eq!(status(&measured(&mut worker, 50 * MIB)), Some(false));
}

#[test]
fn the_call_that_takes_all_memory_fails_and_no_other() {
    let mut worker = limited();
    put(&mut worker, 0, 20_000);
    let run = |index| Run::new(LayerId(6 << 32), index, 1);
    let calls = (0..3).map(|index| reader(run(index), data(0))).collect();
    compute(&mut worker, calls);
    assert!(!measured(&mut worker, 30 * MIB).contains(&Action::KillExecutor(EXECUTOR)));
    let actions = measured(&mut worker, 120 * MIB);
    assert!(actions.contains(&Action::KillExecutor(EXECUTOR)), "{actions:?}");
    // It is ended once.
    assert!(!measured(&mut worker, 150 * MIB).contains(&Action::KillExecutor(EXECUTOR)));
    let reason = "killed".to_owned();
    let told = progress(after(
        &mut worker,
        Event::ExecutorLost { executor: EXECUTOR, reason, running: None },
    ));
    match &told[0] {
        Progress::Failed { run: failed, failure, .. } => {
            assert_eq!((*failed, failure.kind), (run(0), FailureKind::OutOfMemory));
            assert!(failure.text.contains("120 MiB"), "{}", failure.text);
        }
        other => panic!("{other:?}"),
    }
    assert!(!told.iter().any(|p| matches!(p, Progress::Crashed { .. })), "{told:?}");
}

/// A worker in which a call runs, with values of so many bytes on disk, and 20 MiB in memory.
fn busy_with_away(sizes: &[u64]) -> Worker {
    let mut worker = limited();
    let n = sizes.len() as u32;
    for (index, nbytes) in (0..).zip(sizes) {
        put(&mut worker, index, *nbytes);
    }
    let mut open = spills(&put(&mut worker, n, 60 * MIB));
    while let Some(spill) = open.pop() {
        open.extend(spills(&written(&mut worker, spill)));
    }
    free(&mut worker, n);
    assert_eq!(worker.held.nbytes, 0, "all of them are on disk");
    put(&mut worker, n + 1, 20 * MIB);
    compute(&mut worker, vec![reader(Run::new(LayerId(6 << 32), 0, 1), data(n + 1))]);
    worker
}

fn measured_core(worker: &mut Worker, core: u64, idle: u64, executor: u64) -> Vec<Action> {
    let executors = vec![(EXECUTOR, executor, 0)];
    let measured = Measured { core_nbytes: core, idle_nbytes: idle, executors };
    after(worker, Event::Measured(measured))
}

#[test]
fn values_that_come_back_fill_what_is_kept_for_them() {
    for (idle, n_restored) in [(20 * MIB, 1), (0, 0)] {
        let mut worker = busy_with_away(&[20 * MIB]);
        measured_core(&mut worker, 20 * MIB, idle, 45 * MIB);
        let actions = get(&mut worker, 0);
        assert_eq!(restores(&actions).len(), n_restored, "{idle} idle bytes: {actions:?}");
    }
}

#[test]
fn memory_of_a_value_that_came_back_and_went_again_serves_the_next_at_once() {
    let mut worker = busy_with_away(&[20 * MIB, 20 * MIB]);
    measured_core(&mut worker, 20 * MIB, 20 * MIB, 45 * MIB);
    let record = restores(&get(&mut worker, 0))[0];
    let result = Ok((value(20 * MIB), 1));
    after(&mut worker, Event::Restored { record, result });
    // Nothing is measured meanwhile; the first leaves for the second, which takes its place.
    let actions = get(&mut worker, 1);
    assert_eq!(restores(&actions).len(), 1, "{actions:?}");
    assert_eq!(worker.held.nbytes, 20 * MIB);
}

#[test]
fn no_more_values_come_back_at_once_than_are_about_to_be_read() {
    let mut worker = busy_with_away(&[5 * MIB, 5 * MIB, 5 * MIB]);
    let n_restored: usize = (0..3).map(|index| restores(&get(&mut worker, index)).len()).sum();
    assert_eq!(n_restored, 2);
    let record = *worker.governor.reading.keys().min().expect("two are on their way");
    let result = Ok((value(5 * MIB), 1));
    assert_eq!(restores(&after(&mut worker, Event::Restored { record, result })).len(), 1);
}

#[test]
fn memory_kept_for_values_is_given_back_before_a_worker_pauses() {
    let mut worker = busy_with_away(&[20 * MIB]);
    assert!(!measured_core(&mut worker, 20 * MIB, 20 * MIB, 55 * MIB).contains(&Action::Trim));
    let actions = measured_core(&mut worker, 20 * MIB, 20 * MIB, 65 * MIB);
    assert!(actions.contains(&Action::Trim), "{actions:?}");
    assert!(!worker.governor.is_paused);
}

#[test]
fn executors_hear_that_memory_fills_up_and_that_it_does_no_more() {
    let heard = |actions: &[Action]| -> Vec<bool> {
        let news = actions.iter().filter_map(|action| match action {
            Action::ToExecutor(_, ToExecutor::Crowded(is_crowded)) => Some(*is_crowded),
            _ => None,
        });
        news.collect()
    };
    let mut worker = limited();
    assert_eq!(heard(&put(&mut worker, 0, 10 * MIB)), []);
    assert_eq!(heard(&put(&mut worker, 1, 20 * MIB)), [true]);
    assert_eq!(heard(&put(&mut worker, 2, 10 * MIB)), []);
    // One that takes its place is told as well.
    let reason = "killed".to_owned();
    after(&mut worker, Event::ExecutorLost { executor: EXECUTOR, reason, running: None });
    let next = worker.executors[0].id;
    assert_eq!(heard(&after(&mut worker, Event::ExecutorJoined { executor: next })), [true]);
    assert_eq!(heard(&[free(&mut worker, 1), free(&mut worker, 2)].concat()), [false]);
}
