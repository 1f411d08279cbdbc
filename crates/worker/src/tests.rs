use crate::{Action, Event, MemoryOptions, Worker, WorkerOptions};
use rasker_graph::*;
use rasker_protocol::*;
use smallvec::smallvec;

const LAYER: LayerId = LayerId(1 << 32);
const EXECUTOR: ExecutorId = ExecutorId(0);
const PEER: WorkerId = WorkerId(7);

fn run(start: u32, count: u32) -> Run {
    Run::new(LAYER, start, count)
}

/// A worker of one thread whose executor is up.
fn worker() -> Worker {
    let memory = MemoryOptions::default();
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

fn calls(run: Run, attempt: u32, work: CallWork) -> Calls {
    let label = Label { name: "inc".into(), key: Key(1), layer: true, text: None };
    let (template, fused, sources) = (TemplateId(1), smallvec![], smallvec![]);
    let priority = Priority::default();
    Calls {
        run,
        attempt,
        priority,
        template,
        fused,
        label,
        work,
        sources,
        alone: false,
        reads: smallvec![],
    }
}

fn map(run: Run, attempt: u32) -> Calls {
    let inputs = vec![Input::Values(Column::range(0, 1, run.count))];
    calls(run, attempt, CallWork::Map { inputs, constants: Blob::EMPTY })
}

pub(crate) fn reader(run: Run, input: TaskId) -> Calls {
    calls(run, 0, CallWork::One { args: Blob::EMPTY, dependencies: smallvec![input] })
}

pub(crate) fn compute(worker: &mut Worker, calls: Vec<Calls>) -> Vec<Action> {
    let message = ToWorker::Compute { templates: vec![], calls, peers: vec![], exchanges: vec![] };
    after(worker, Event::FromScheduler(message))
}

/// What an event leads to, its turn included.
pub(crate) fn after(worker: &mut Worker, event: Event) -> Vec<Action> {
    let mut out = vec![];
    worker.handle(event, &mut out);
    worker.handle(Event::Turn, &mut out);
    out
}

pub(crate) fn progress(actions: Vec<Action>) -> Vec<Progress> {
    let told = actions.into_iter().filter_map(|action| match action {
        Action::ToScheduler(FromWorker::Progress(progress)) => Some(progress),
        _ => None,
    });
    told.flatten().collect()
}

fn done(worker: &mut Worker, run: Run, attempt: u32, outcome: Outcome) -> Vec<Progress> {
    let done = Done { run, attempt, elapsed_ns: u64::from(run.count) * 100, outcome };
    says(worker, FromExecutor::Done(vec![done]))
}

fn says(worker: &mut Worker, message: FromExecutor) -> Vec<Progress> {
    progress(after(worker, Event::FromExecutor { executor: EXECUTOR, message }))
}

fn values(count: u32) -> Outcome {
    Outcome::Values(Column::range(0, 1, count))
}

/// A worker that knows how short its calls are, so that its executor is given many at once.
fn worker_with_short_calls() -> Worker {
    let mut worker = worker();
    compute(&mut worker, vec![map(run(1000, 1), 0)]);
    assert_eq!(done(&mut worker, run(1000, 1), 0, values(1)).len(), 1);
    after(&mut worker, Event::FromScheduler(ToWorker::Free(vec![run(1000, 1)])));
    worker
}

#[test]
fn an_answer_to_no_question_is_not_believed() {
    let mut worker = worker_with_short_calls();
    compute(&mut worker, vec![map(run(0, 4), 1)]);
    // Calls that were never given, partly so, and of another attempt.
    assert_eq!(done(&mut worker, run(10, 2), 1, values(2)), []);
    assert_eq!(done(&mut worker, run(3, 2), 1, values(2)), []);
    assert_eq!(done(&mut worker, run(0, 4), 0, values(4)), []);
    assert_eq!(says(&mut worker, FromExecutor::Recalled(vec![(run(8, 1), 1)])), []);
    let task = TaskId::new(LAYER, 0);
    assert_eq!(says(&mut worker, FromExecutor::Exported { task, value: Ok(None) }), []);
    assert!(!worker.held.contains(task));
    assert!(matches!(
        done(&mut worker, run(0, 3), 1, values(3))[..],
        [Progress::Finished { attempt: 1, .. }]
    ));
    // The same answer again.
    assert_eq!(done(&mut worker, run(0, 3), 1, values(3)), []);
    // An answer that does not fit its question ends the call all the same.
    assert!(matches!(done(&mut worker, run(3, 1), 1, values(2))[..], [Progress::Crashed { .. }]));
    after(&mut worker, Event::FromScheduler(ToWorker::Free(vec![run(0, 3)])));
    assert!(worker.is_idle(), "{}", worker.leftovers());
}

#[test]
fn a_call_without_inputs_is_given_back() {
    let mut worker = worker();
    let input = TaskId::new(LayerId(9), 0);
    let missing =
        |index, inputs| [Progress::Missing { task: TaskId::new(LAYER, index), attempt: 0, inputs }];
    // Nobody said where the input is.
    let told = progress(compute(&mut worker, vec![reader(run(0, 1), input)]));
    assert_eq!(told, missing(0, vec![(input, WorkerId::NOBODY)]));
    // It is not where it was said to be.
    let mut calls = reader(run(1, 1), input);
    calls.sources.push(Source { run: input.run(), worker: PEER, nbytes: 8 });
    let actions = compute(&mut worker, vec![calls]);
    let fetch = Action::Fetch { worker: PEER, address: String::new(), tasks: vec![input] };
    assert_eq!(actions, [fetch]);
    let values = vec![(input, None)];
    let told = progress(after(&mut worker, Event::Fetched { worker: PEER, values }));
    assert_eq!(told, missing(1, vec![(input, PEER)]));
    assert!(worker.is_idle(), "{}", worker.leftovers());
}

#[test]
fn calls_that_only_waited_are_not_blamed() {
    let mut worker = worker_with_short_calls();
    compute(&mut worker, vec![map(run(0, 5), 2), map(run(20, 3), 0)]);
    let reason = "killed".to_owned();
    let lost = Event::ExecutorLost { executor: EXECUTOR, reason: reason.clone(), running: None };
    let actions = after(&mut worker, lost);
    assert!(actions.contains(&Action::StartExecutor(ExecutorId(1), TemplateKind::Python)));
    let expected = [
        Progress::Crashed { run: run(0, 1), attempt: 2, reason },
        Progress::Retracted { run: run(1, 4), attempt: 2 },
        Progress::Retracted { run: run(20, 3), attempt: 0 },
        Progress::Threads { nthreads: 1 },
    ];
    assert_eq!(progress(actions), expected);
    assert!(worker.is_idle(), "{}", worker.leftovers());
}

#[test]
fn a_cancel_names_the_attempt_it_is_meant_for() {
    let mut worker = worker_with_short_calls();
    compute(&mut worker, vec![map(run(0, 1), 3)]);
    let cancel = Event::FromScheduler(ToWorker::Cancel(vec![(run(0, 1), 3)]));
    let told = Action::ToExecutor(EXECUTOR, ToExecutor::Cancel(vec![(run(0, 1), 3)]));
    assert_eq!(after(&mut worker, cancel), [told]);
    let late = Event::FromScheduler(ToWorker::Cancel(vec![(run(0, 1), 2)]));
    assert_eq!(after(&mut worker, late), []);
}

#[test]
fn a_recalled_attempt_leaves_no_earlier_value() {
    let mut worker = worker_with_short_calls();
    let live = TaskId::new(LAYER, 0);
    compute(&mut worker, vec![map(live.run(), 0)]);
    done(&mut worker, live.run(), 0, Outcome::Live { nbytes: 8 });
    // A call reads the value while it is freed and its task is to run again.
    compute(&mut worker, vec![reader(run(5, 1), live)]);
    after(&mut worker, Event::FromScheduler(ToWorker::Free(vec![live.run()])));
    compute(&mut worker, vec![map(live.run(), 1)]);
    says(&mut worker, FromExecutor::Recalled(vec![(live.run(), 1)]));
    let message = FromExecutor::Done(vec![Done {
        run: run(5, 1),
        attempt: 0,
        elapsed_ns: 100,
        outcome: values(1),
    }]);
    let actions = after(&mut worker, Event::FromExecutor { executor: EXECUTOR, message });
    let drop = Action::ToExecutor(EXECUTOR, ToExecutor::Drop(vec![live.run()]));
    assert!(actions.contains(&drop), "{actions:?}");
}

#[test]
fn a_suspect_runs_with_nothing_beside_it() {
    let given = |actions: &[Action]| -> Vec<Run> {
        let calls = actions.iter().filter_map(|action| match action {
            Action::ToExecutor(_, ToExecutor::Calls(calls)) => Some(calls),
            _ => None,
        });
        calls.flatten().map(|calls| calls.run).collect()
    };
    let mut worker = worker_with_short_calls();
    assert_eq!(given(&compute(&mut worker, vec![map(run(0, 1), 0)])), [run(0, 1)]);
    let mut suspect = map(run(1, 1), 1);
    suspect.alone = true;
    // It waits until the executor is empty, and the others until it is through.
    assert_eq!(given(&compute(&mut worker, vec![suspect, map(run(2, 2), 0)])), []);
    let done = |worker: &mut Worker, run: Run, attempt| {
        let outcome = values(run.count);
        let done = Done { run, attempt, elapsed_ns: 100, outcome };
        let message = FromExecutor::Done(vec![done]);
        given(&after(worker, Event::FromExecutor { executor: EXECUTOR, message }))
    };
    assert_eq!(done(&mut worker, run(0, 1), 0), [run(1, 1)]);
    assert_eq!(given(&compute(&mut worker, vec![map(run(4, 1), 0)])), []);
    assert_eq!(done(&mut worker, run(1, 1), 1), [run(2, 2), run(4, 1)]);
}

#[test]
fn a_suspect_that_waits_for_its_own_tasks_lets_them_run() {
    let given = |actions: &[Action]| -> Vec<Run> {
        let calls = actions.iter().filter_map(|action| match action {
            Action::ToExecutor(_, ToExecutor::Calls(calls)) => Some(calls),
            _ => None,
        });
        calls.flatten().map(|calls| calls.run).collect()
    };
    let alone = |run: Run| {
        let mut calls = map(run, 1);
        calls.alone = true;
        calls
    };
    let mut worker = worker_with_short_calls();
    assert_eq!(given(&compute(&mut worker, vec![alone(run(0, 1))])), [run(0, 1)]);
    assert_eq!(given(&compute(&mut worker, vec![alone(run(1, 1)), map(run(2, 1), 0)])), []);
    let message = FromExecutor::Seceded { by: 1 };
    let actions = after(&mut worker, Event::FromExecutor { executor: EXECUTOR, message });
    assert_eq!(given(&actions), [run(1, 1)]);
}

#[test]
fn a_worker_that_joins_again_tells_what_it_still_holds() {
    let mut worker = worker_with_short_calls();
    compute(&mut worker, vec![map(run(0, 4), 0), map(run(10, 2), 0)]);
    done(&mut worker, run(0, 4), 0, values(4));
    after(&mut worker, Event::SchedulerLost);
    // What runs on is not told: nobody asked this incarnation for it.
    worker.handle(
        Event::FromExecutor {
            executor: EXECUTOR,
            message: FromExecutor::Done(vec![Done {
                run: run(10, 2),
                attempt: 0,
                elapsed_ns: 100,
                outcome: values(2),
            }]),
        },
        &mut vec![],
    );
    let told = after(&mut worker, Event::Joined { is_same_epoch: true });
    let [Action::ToScheduler(FromWorker::Inventory(held))] = &told[..] else { panic!("{told:?}") };
    assert_eq!(held.iter().map(|(run, _)| *run).collect::<Vec<_>>(), [run(0, 4), run(10, 2)]);
    // A scheduler of another life gives the same names to other values.
    after(&mut worker, Event::SchedulerLost);
    after(&mut worker, Event::Joined { is_same_epoch: false });
    assert!(!worker.held.contains(TaskId::new(LAYER, 0)));
    assert!(worker.is_idle(), "{}", worker.leftovers());
}

#[test]
fn a_call_does_not_wait_for_a_peer_that_is_gone() {
    let mut worker = worker();
    let (input, copied) = (TaskId::new(LayerId(9), 0), TaskId::new(LayerId(9), 1));
    let mut calls = reader(run(1, 1), input);
    calls.sources.push(Source { run: input.run(), worker: PEER, nbytes: 8 });
    compute(&mut worker, vec![calls]);
    let source = Source { run: copied.run(), worker: PEER, nbytes: 8 };
    after(&mut worker, Event::FromScheduler(ToWorker::Copy(vec![source])));
    let told = progress(after(&mut worker, Event::FromScheduler(ToWorker::PeersGone(vec![PEER]))));
    let missing =
        Progress::Missing { task: TaskId::new(LAYER, 1), attempt: 0, inputs: vec![(input, PEER)] };
    assert_eq!(told, [missing, Progress::NotCopied { runs: vec![copied.run()] }]);
    assert!(worker.is_idle(), "{}", worker.leftovers());
    // What it says after all is of no use.
    let value = Value::Column(Column::range(0, 1, 1));
    let late = Event::Fetched { worker: PEER, values: vec![(copied, Some(value))] };
    assert_eq!(progress(after(&mut worker, late)), []);
    assert!(worker.is_idle(), "{}", worker.leftovers());
}

#[test]
fn a_copy_that_was_asked_for_is_kept() {
    let mut worker = worker();
    let task = TaskId::new(LayerId(9), 0);
    let source = Source { run: task.run(), worker: PEER, nbytes: 8 };
    let actions = after(&mut worker, Event::FromScheduler(ToWorker::Copy(vec![source])));
    assert!(matches!(&actions[..], [Action::Fetch { worker: PEER, .. }]));
    let values = vec![(task, Some(Value::Column(Column::range(0, 1, 1))))];
    let told = progress(after(&mut worker, Event::Fetched { worker: PEER, values }));
    assert!(matches!(&told[..], [Progress::Copied { .. }]));
    assert!(worker.held.contains(task));
}
