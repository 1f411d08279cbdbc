//! Values without a recipe, and values that many ask for.

use super::*;

impl Cluster {
    fn scatter(&mut self, layer: u32, holder: u32, nbytes: u64) -> TaskId {
        let id = LayerId::new(CLIENT, layer);
        self.client(FromClient::Scattered(Scattered {
            layer: id,
            keys: vec![Key(u128::from(layer) << 64)],
            names: vec!["data".into()],
            nbytes: vec![nbytes],
            holders: vec![vec![WorkerId(holder)]],
        }));
        TaskId::new(id, 0)
    }

    /// What the client was told in this turn: of which tasks, and whether they failed.
    fn told(&mut self) -> Vec<(Run, Option<FailureKind>)> {
        self.event(Event::Turn);
        let mut told = Vec::new();
        for action in self.out.drain(..) {
            match action {
                Action::ToClient(_, ToClient::Finished(items)) => {
                    told.extend(items.iter().map(|item| (item.run, None)));
                }
                Action::ToClient(_, ToClient::Failed(items)) => {
                    told.extend(items.iter().map(|(run, why)| (*run, Some(why.kind))));
                }
                _ => {}
            }
        }
        told
    }
}

#[test]
fn a_scattered_value_is_found_again_with_its_worker() {
    let mut cluster = Cluster::new(2);
    cluster.is_checked = true;
    let data = cluster.scatter(1, 0, 8);
    cluster.submit(vec![page(2, &[(2, 0, vec![data]), (3, 0, vec![task(2, 0)])])]);
    cluster.leave(0);
    let lost = Some(FailureKind::Lost);
    let reads = [task(2, 0).run(), task(2, 1).run()];
    let told = cluster.told();
    assert!(told.contains(&(data.run(), lost)), "{told:?}");
    assert!(reads.iter().all(|run| told.contains(&(*run, lost))), "{told:?}");
    // What is submitted over a lost value fails at once.
    cluster.submit(vec![page(3, &[(4, 0, vec![data])])]);
    assert_eq!(cluster.told(), [(task(3, 0).run(), lost)]);

    cluster.join(7);
    let message = FromWorker::Inventory(vec![(data.run(), 8)]);
    cluster.event(Event::FromWorker { worker: WorkerId(7), message });
    cluster.run();
    // The value, and the three that had failed for want of it.
    assert_eq!((cluster.finished, cluster.failed), (4, 0));
}

#[test]
fn a_value_that_many_want_spreads_over_those_that_get_it() {
    const N: u32 = 64;
    let mut cluster = Cluster::new(N);
    cluster.is_checked = true;
    cluster.call_ns = 10_000_000;
    let data = cluster.scatter(1, 0, 1 << 20);
    let readers: Vec<_> = (0..N as usize).map(|at| (key(2, at), at as u8, vec![data])).collect();
    cluster.submit(vec![page(2, &readers)]);
    let mut n_asked = [0; N as usize];
    let mut n_calls = 0;
    let mut take = |calls: &Calls| {
        n_calls += 1;
        for source in &calls.sources {
            n_asked[source.worker.0 as usize] += 1;
        }
    };
    cluster.event(Event::Turn);
    for action in cluster.out.drain(..) {
        if let Action::ToWorker(_, ToWorker::Compute { calls, .. }) = action {
            calls.iter().for_each(&mut take);
        }
    }
    // All of them at once, and its one holder serves a few of the 63 that do not have it.
    let most = n_asked.iter().copied().max();
    assert_eq!(n_calls, N);
    assert_eq!(n_asked.iter().sum::<u32>(), N - 1);
    assert!(n_asked[0] <= 12 && most <= Some(12), "{n_asked:?}");
}

#[test]
fn a_second_attempt_goes_to_a_holder() {
    let mut cluster = Cluster::new(3);
    cluster.is_checked = true;
    cluster.call_ns = 10_000_000;
    let data = cluster.scatter(1, 0, 1 << 20);
    let readers: Vec<_> = (0..3).map(|at| (key(2, at), at as u8, vec![data])).collect();
    cluster.submit(vec![page(2, &readers)]);
    let given = cluster.turn();
    let (reader, run, attempt) = *given.iter().find(|(id, ..)| id.0 == 1).expect("one for each");
    let task = TaskId::new(run.layer, run.start);
    let inputs = vec![(data, WorkerId(2))];
    cluster.progress(reader, Progress::Missing { task, attempt, inputs });
    cluster.event(Event::Turn);
    let again = cluster.out.drain(..).find_map(|action| match action {
        Action::ToWorker(id, ToWorker::Compute { calls, .. }) if id == reader => Some(calls),
        _ => None,
    });
    let calls = again.expect("it is given again");
    assert_eq!((calls[0].attempt, calls[0].sources[0].worker), (1, WorkerId(0)));
}

#[test]
fn the_story_of_a_task_says_what_happened_and_where() {
    let mut cluster = Cluster::new(1);
    cluster.is_checked = true;
    cluster.submit(vec![page(1, &[(1, 0, vec![])])]);
    let [(worker, run, attempt)] = cluster.turn()[..] else { panic!("one call") };
    cluster.progress(worker, Progress::Retracted { run, attempt });
    cluster.run();
    cluster.leave(0);
    cluster.client(FromClient::Ask { id: 1, query: Query::Story(vec![Key(1), Key(77)]) });
    cluster.event(Event::Turn);
    let story = cluster.out.drain(..).find_map(|action| match action {
        Action::ToClient(_, ToClient::Answer { answer: Datum::List(rows), .. }) => Some(rows),
        _ => None,
    });
    let text = |row: &Datum| match row {
        Datum::List(row) => match &row[..] {
            [_, Datum::Text(start), Datum::Text(finish), Datum::Text(cause), Datum::Float(_)] => {
                format!("{start} {finish}: {cause}")
            }
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    let told: Vec<String> = story.expect("an answer").iter().map(text).collect();
    assert_eq!(
        told,
        [
            "released waiting: a client submitted it",
            "waiting processing: given to tcp://w0",
            "processing released: handed back by tcp://w0",
            "waiting processing: given to tcp://w0",
            "processing memory: finished on tcp://w0",
            "memory released: lost with tcp://w0",
        ]
    );
}
