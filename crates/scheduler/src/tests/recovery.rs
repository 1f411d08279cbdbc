//! Workers that die, fall silent, come back, and are retired.

use super::*;

const SECOND: u64 = 1_000_000_000;

impl Cluster {
    /// So many seconds go by, with a tick in each; these workers are heard.
    fn pass(&mut self, seconds: u64, heard: &[u32]) {
        for _ in 0..seconds {
            self.now_ns += SECOND;
            for id in heard {
                let message = FromWorker::Status(WorkerStatus::default());
                self.event(Event::FromWorker { worker: WorkerId(*id), message });
            }
            self.event(Event::Tick);
        }
    }

    /// One turn: everything that was said to workers.
    fn said(&mut self) -> Vec<(WorkerId, ToWorker)> {
        self.event(Event::Turn);
        let out = std::mem::take(&mut self.out).into_iter();
        out.filter_map(|action| match action {
            Action::ToWorker(worker, message) => Some((worker, message)),
            Action::ToClient(..) => None,
        })
        .collect()
    }

    fn copied(&mut self, worker: u32, run: Run) {
        self.progress(WorkerId(worker), Progress::Copied { run, nbytes: 8 });
    }

    fn crash(&mut self, worker: WorkerId, run: Run, attempt: u32) {
        let reason = "signal 11".to_owned();
        self.progress(worker, Progress::Crashed { run, attempt, reason });
    }

    fn failures(&mut self) -> Vec<(Run, std::sync::Arc<Failure>)> {
        self.event(Event::Turn);
        let out = std::mem::take(&mut self.out).into_iter();
        let failed = out.filter_map(|action| match action {
            Action::ToClient(_, ToClient::Failed(failed)) => Some(failed),
            _ => None,
        });
        failed.flatten().collect()
    }
}

fn calls_of(said: &[(WorkerId, ToWorker)]) -> Vec<(WorkerId, Calls)> {
    let calls = said.iter().filter_map(|(worker, message)| match message {
        ToWorker::Compute { calls, .. } => Some(calls.iter().map(|c| (*worker, c.clone()))),
        _ => None,
    });
    calls.flatten().collect()
}

/// Two workers; the first holds the value of task 0, which task 1 reads after a long other input.
fn with_a_value_on_each() -> (Cluster, WorkerId) {
    let mut cluster = Cluster::new(2);
    cluster.is_checked = true;
    cluster.submit(vec![page(1, &[(1, 0, vec![])])]);
    let [(holder, run, attempt)] = cluster.turn()[..] else { panic!("one call") };
    cluster.finish(holder, run, attempt);
    cluster.turn();
    (cluster, holder)
}

#[test]
fn a_silent_worker_is_suspected_and_taken_back_with_its_data() {
    let (mut cluster, holder) = with_a_value_on_each();
    let other = 1 - holder.0;
    cluster.pass(6, &[other]);
    // Tasks go to the other one, also those whose input is beside the silent one.
    cluster.submit(vec![page(2, &[(2, 0, vec![task(1, 0)]), (3, 0, vec![])])]);
    for (worker, ..) in cluster.turn() {
        assert_eq!(worker, WorkerId(other));
    }
    cluster.pass(1, &[holder.0, other]);
    cluster.client(FromClient::Ask { id: 1, query: Query::WhoHas(vec![Key(1)]) });
    cluster.event(Event::Turn);
    let address = format!("tcp://w{}", holder.0);
    let answer = cluster.out.iter().find_map(|action| match action {
        Action::ToClient(_, ToClient::Answer { answer: Datum::Map(rows), .. }) => {
            Some(rows[0].1.clone())
        }
        _ => None,
    });
    assert_eq!(answer, Some(Datum::List(vec![address.into()])));
}

#[test]
fn a_value_of_a_frozen_worker_is_made_elsewhere_within_twenty_seconds() {
    let (mut cluster, holder) = with_a_value_on_each();
    let other = 1 - holder.0;
    cluster.submit(vec![page(2, &[(2, 0, vec![task(1, 0)])])]);
    let [(reader, run, attempt)] = cluster.turn()[..] else { panic!("one call") };
    assert_eq!(reader, holder);
    cluster.pass(16, &[other]);
    let said = cluster.said();
    assert!(said.iter().any(|(worker, message)| {
        *worker == holder && matches!(message, ToWorker::Dismissed { .. })
    }));
    assert!(said.contains(&(WorkerId(other), ToWorker::PeersGone(vec![holder]))));
    // The input is made again, and then the reader, on the one that is left; nobody is blamed.
    let calls = calls_of(&said);
    assert_eq!(calls.len(), 1);
    assert_eq!((calls[0].0, calls[0].1.run), (WorkerId(other), task(1, 0).run()));
    assert!(!calls[0].1.alone);
    cluster.finish(WorkerId(other), calls[0].1.run, calls[0].1.attempt);
    let [(worker, again, _)] = cluster.turn()[..] else { panic!("one call") };
    assert_eq!((worker, again), (WorkerId(other), run));
    // What the frozen one says late is void.
    let before = cluster.scheduler.n_stale();
    cluster.finish(holder, run, attempt);
    assert_eq!(cluster.scheduler.n_stale(), before + 1);
}

#[test]
fn a_scheduler_that_was_held_up_loses_nobody() {
    let (mut cluster, _) = with_a_value_on_each();
    cluster.pass(4, &[0, 1]);
    cluster.now_ns += 60 * SECOND;
    cluster.event(Event::Tick);
    cluster.pass(3, &[]);
    assert_eq!(cluster.said(), []);
    // From then on silence counts as ever.
    cluster.pass(14, &[0]);
    let said = cluster.said();
    assert!(said.iter().any(|(w, m)| *w == WorkerId(1) && matches!(m, ToWorker::Dismissed { .. })));
    assert!(
        !said.iter().any(|(w, m)| *w == WorkerId(0) && matches!(m, ToWorker::Dismissed { .. }))
    );
}

#[test]
fn what_a_suspect_has_not_begun_goes_elsewhere() {
    let mut cluster = Cluster::new(2);
    cluster.is_checked = true;
    cluster.submit(vec![inc(1, 3)]);
    // Calls are known to be short, so many are in hand.
    for (worker, run, attempt) in cluster.turn() {
        cluster.finish(worker, run, attempt);
    }
    cluster.run();
    cluster.submit(vec![inc(2, 40)]);
    let given = cluster.turn();
    let of = |id: u32| given.iter().filter(move |(worker, ..)| *worker == WorkerId(id));
    let silent: u32 = of(0).map(|(_, run, _)| run.count).sum();
    assert!(silent > 1);
    cluster.pass(6, &[1]);
    let cancelled = cluster.said().into_iter().find_map(|(worker, message)| match message {
        ToWorker::Cancel(runs) if worker == WorkerId(0) => Some(runs),
        _ => None,
    });
    let n: u32 = cancelled.expect("calls are taken back").iter().map(|(run, _)| run.count).sum();
    assert_eq!(n, silent - 1);
}

#[test]
fn a_copy_takes_the_place_of_a_lost_value() {
    let (mut cluster, holder) = with_a_value_on_each();
    let other = 1 - holder.0;
    cluster.copied(other, task(1, 0).run());
    cluster.leave(holder.0);
    // Nothing is computed again, and the client hears where the value is now.
    let actions = {
        cluster.event(Event::Turn);
        std::mem::take(&mut cluster.out)
    };
    let moved = actions.iter().any(|action| {
        matches!(action, Action::ToClient(_, ToClient::Finished(items))
            if items[0].holder == WorkerId(other))
    });
    assert!(moved, "{actions:?}");
    assert!(!actions.iter().any(|action| {
        matches!(action, Action::ToWorker(_, ToWorker::Compute { calls, .. }) if !calls.is_empty())
    }));
}

#[test]
fn readers_of_a_value_with_copies_spread_over_them() {
    let mut cluster = Cluster::new(8);
    cluster.is_checked = true;
    cluster.call_ns = 10_000_000;
    cluster.submit(vec![page(1, &[(1, 0, vec![])])]);
    cluster.run();
    let holder = cluster.given[0].0;
    let copy = WorkerId((holder.0 + 1) % 8);
    cluster.copied(copy.0, task(1, 0).run());
    let readers: Vec<_> = (0..8).map(|at| (key(2, at), at as u8, vec![task(1, 0)])).collect();
    cluster.submit(vec![page(2, &readers)]);
    let calls = calls_of(&cluster.said());
    let from = |id: WorkerId| {
        let sources = calls.iter().flat_map(|(_, calls)| &calls.sources);
        sources.filter(|source| source.worker == id).count()
    };
    assert_eq!((from(holder), from(copy)), (3, 3), "{calls:?}");
}

#[test]
fn a_worker_that_comes_back_brings_its_values() {
    let (mut cluster, holder) = with_a_value_on_each();
    let other = 1 - holder.0;
    cluster.submit(vec![page(2, &[(2, 0, vec![])])]);
    cluster.leave(holder.0);
    // The other one is busy with something long, so the value is still to be made again.
    cluster.leave(other);
    cluster.join(7);
    let held = vec![(task(1, 0).run(), 8), (task(9, 9).run(), 8)];
    let message = FromWorker::Inventory(held);
    cluster.event(Event::FromWorker { worker: WorkerId(7), message });
    let said = cluster.said();
    assert!(calls_of(&said).iter().all(|(_, calls)| calls.run != task(1, 0).run()), "{said:?}");
    // What nobody knows is freed.
    assert!(said.contains(&(WorkerId(7), ToWorker::Free(vec![task(9, 9).run()]))));
}

#[test]
fn a_task_that_ends_executors_is_found_alone() {
    let mut cluster = Cluster::new(1);
    cluster.is_checked = true;
    cluster.submit(vec![page(1, &[(1, 0, vec![]), (2, 0, vec![])])]);
    let poison = task(1, 1).run();
    let innocent = task(1, 0).run();
    // Both ran when the executor died the first time.
    let calls = loop {
        let calls = calls_of(&cluster.said());
        if calls.iter().any(|(_, calls)| calls.run == poison) {
            break calls;
        }
        for (worker, calls) in calls {
            cluster.finish(worker, calls.run, calls.attempt);
        }
    };
    let (worker, first) = calls.into_iter().find(|(_, c)| c.run == poison).expect("just seen");
    assert!(!first.alone);
    cluster.crash(worker, poison, first.attempt);
    for death in 2..=4 {
        let calls = calls_of(&cluster.said());
        let [(worker, calls)] = &calls[..] else { panic!("{calls:?}") };
        assert!(calls.alone && calls.run == poison, "death {death}");
        cluster.crash(*worker, poison, calls.attempt);
    }
    let failed = cluster.failures();
    let [(run, failure)] = &failed[..] else { panic!("{failed:?}") };
    assert_eq!((*run, failure.kind, failure.attempts), (poison, FailureKind::Killed, 4));
    assert_eq!(failure.history.len(), 4);
    assert!(failure.history[0].contains("signal 11") && failure.worker.contains("w0"));
    assert_ne!(*run, innocent);
}

#[test]
fn a_suspect_that_is_innocent_gets_through() {
    let mut cluster = Cluster::new(1);
    cluster.is_checked = true;
    cluster.submit(vec![page(1, &[(1, 0, vec![])])]);
    let [(worker, run, attempt)] = cluster.turn()[..] else { panic!("one call") };
    cluster.crash(worker, run, attempt);
    cluster.run();
    assert_eq!((cluster.finished, cluster.failed), (1, 0));
}

#[test]
fn the_loss_of_a_worker_blames_only_what_it_had_begun() {
    let mut cluster = Cluster::new(2);
    cluster.is_checked = true;
    cluster.submit(vec![inc(1, 4)]);
    cluster.run();
    cluster.submit(vec![inc(2, 40)]);
    cluster.turn();
    cluster.leave(0);
    let calls = calls_of(&cluster.said());
    let alone: u32 = calls.iter().filter(|(_, c)| c.alone).map(|(_, c)| c.run.count).sum();
    assert_eq!(alone, 1, "{calls:?}");
}

#[test]
fn a_retired_worker_leaves_nothing_behind() {
    let (mut cluster, holder) = with_a_value_on_each();
    let other = 1 - holder.0;
    let name = format!("w{}", holder.0);
    cluster.client(FromClient::Ask { id: 5, query: Query::Retire { workers: vec![name] } });
    let said = cluster.said();
    assert!(said.contains(&(holder, ToWorker::Retract)), "{said:?}");
    let source = Source { run: task(1, 0).run(), worker: holder, nbytes: 8 };
    assert!(said.contains(&(WorkerId(other), ToWorker::Copy(vec![source]))), "{said:?}");
    // It gets nothing new meanwhile.
    cluster.submit(vec![page(2, &[(2, 0, vec![task(1, 0)])])]);
    assert!(cluster.turn().iter().all(|(worker, ..)| *worker == WorkerId(other)));
    cluster.copied(other, task(1, 0).run());
    cluster.event(Event::Turn);
    let actions = std::mem::take(&mut cluster.out);
    assert!(actions.iter().any(|action| {
        matches!(action, Action::ToWorker(worker, ToWorker::Close { .. }) if *worker == holder)
    }));
    let address = Datum::from(format!("tcp://w{}", holder.0));
    let answer = ToClient::Answer { id: 5, answer: Datum::List(vec![address]) };
    assert!(actions.contains(&Action::ToClient(CLIENT, answer)), "{actions:?}");
    cluster.run();
    assert_eq!(cluster.failed, 0);
    assert_eq!(cluster.given.iter().filter(|(_, run, _)| *run == task(1, 0).run()).count(), 1);
}

#[test]
fn a_worker_is_not_retired_where_its_values_have_nowhere_to_go() {
    let mut cluster = Cluster::new(1);
    cluster.is_checked = true;
    cluster.submit(vec![page(1, &[(1, 0, vec![])])]);
    cluster.run();
    cluster.client(FromClient::Ask { id: 5, query: Query::Retire { workers: vec!["w0".into()] } });
    cluster.event(Event::Turn);
    let answer = ToClient::Answer { id: 5, answer: Datum::List(vec![]) };
    assert!(cluster.out.contains(&Action::ToClient(CLIENT, answer)));
    cluster.submit(vec![page(2, &[(2, 0, vec![])])]);
    cluster.run();
    assert_eq!(cluster.finished, 2);
}

#[test]
fn a_value_is_copied_to_as_many_workers_as_asked_for() {
    let (mut cluster, holder) = with_a_value_on_each();
    cluster.join(2);
    let query = Query::Replicate { keys: vec![Key(1)], n: 3, workers: vec![] };
    cluster.client(FromClient::Ask { id: 6, query });
    let said = cluster.said();
    let to: Vec<WorkerId> = said
        .iter()
        .filter(|(_, message)| matches!(message, ToWorker::Copy(_)))
        .map(|(worker, _)| *worker)
        .collect();
    assert_eq!(to.len(), 2);
    assert!(!to.contains(&holder));
    // One cannot be had, whatever is tried; the answer comes all the same.
    cluster.copied(to[0].0, task(1, 0).run());
    let mut answered = false;
    for _ in 0..3 {
        assert!(!answered);
        let runs = vec![task(1, 0).run()];
        cluster.progress(to[1], Progress::NotCopied { runs });
        cluster.event(Event::Turn);
        let answer = ToClient::Answer { id: 6, answer: Datum::Null };
        answered |= cluster.out.drain(..).any(|a| a == Action::ToClient(CLIENT, answer.clone()));
    }
    assert!(answered, "the answer comes when nothing is under way any more");
}

#[test]
fn rebalance_moves_values_to_workers_that_hold_less() {
    let mut cluster = Cluster::new(1);
    cluster.is_checked = true;
    cluster.submit(vec![inc(1, 10)]);
    cluster.run();
    cluster.join(1);
    cluster.client(FromClient::Ask {
        id: 1,
        query: Query::Rebalance { keys: vec![], workers: vec![] },
    });
    let said = cluster.said();
    let sources = said.iter().find_map(|(worker, message)| match message {
        ToWorker::Copy(sources) if *worker == WorkerId(1) => Some(sources.clone()),
        _ => None,
    });
    let runs: Vec<Run> = sources.expect("values are to move").iter().map(|s| s.run).collect();
    assert_eq!(runs.iter().map(|run| run.count).sum::<u32>(), 5);
    for run in &runs {
        cluster.copied(1, *run);
    }
    let freed: u32 = cluster
        .said()
        .into_iter()
        .filter_map(|(worker, message)| match message {
            ToWorker::Free(runs) if worker == WorkerId(0) => Some(runs),
            _ => None,
        })
        .flatten()
        .map(|run| run.count)
        .sum();
    assert_eq!(freed, 5);
}

#[test]
fn an_explanation_goes_down_to_what_is_in_the_way() {
    let mut cluster = Cluster::new(0);
    let tasks = [(1, 0, vec![]), (2, 0, vec![task(1, 0)]), (3, 0, vec![task(1, 1)])];
    cluster.submit(vec![page(1, &tasks)]);
    let explain = |cluster: &mut Cluster| {
        cluster.client(FromClient::Ask { id: 1, query: Query::Explain(Key(3)) });
        cluster.event(Event::Turn);
        let reason = cluster.out.drain(..).find_map(|action| match action {
            Action::ToClient(_, ToClient::Answer { answer: Datum::Map(rows), .. }) => {
                rows.into_iter().find(|(name, _)| name == "reason")
            }
            _ => None,
        });
        match reason {
            Some((_, Datum::Text(text))) => text,
            other => panic!("{other:?}"),
        }
    };
    let text = explain(&mut cluster);
    assert!(text.starts_with("waits for \"inc-"), "{text}");
    assert!(text.ends_with("is ready, and there is no worker"), "{text}");
    cluster.join(0);
    cluster.turn();
    let text = explain(&mut cluster);
    assert!(text.ends_with("on tcp://w0, which has 1 calls in hand"), "{text}");
}
