//! What the scheduler does when workers say that their memory runs short.

use crate::tests::{Cluster, inc, map_layer, task};
use crate::{Action, Event};
use rasker_graph::*;
use rasker_protocol::*;

/// A cluster whose workers may use 1,000 bytes each; a result takes 8, which is large here.
fn cluster(n_workers: u32) -> Cluster {
    let mut cluster = Cluster::new(0);
    cluster.memory_limit = 1000;
    cluster.call_ns = 1_000_000;
    cluster.is_checked = true;
    (0..n_workers).for_each(|id| cluster.join(id));
    cluster
}

fn says(cluster: &mut Cluster, worker: u32, is_paused: bool, is_crowded: bool) {
    let status = WorkerStatus { is_paused, is_crowded, ..WorkerStatus::default() };
    let message = FromWorker::Status(status);
    cluster.event(Event::FromWorker { worker: WorkerId(worker), message });
}

/// Two layers, the second over the first; how many of the first had run when each of the second
/// did.
fn order(is_crowded: bool) -> Vec<usize> {
    let mut cluster = cluster(1);
    let over = map_layer(2, 20, vec![Input::Tasks(task(1, 0))]);
    cluster.submit(vec![inc(1, 20), over]);
    cluster.step();
    says(&mut cluster, 0, false, is_crowded);
    cluster.run();
    assert_eq!(cluster.finished, 40);
    let (mut n, mut order) = (0, Vec::new());
    for (_, run, _) in &cluster.given {
        if run.layer == task(1, 0).layer {
            n += run.count as usize;
        } else {
            order.push(n);
        }
    }
    order
}

#[test]
fn a_crowded_worker_uses_up_values_first() {
    let usual = order(false);
    assert_eq!(usual[0], 20, "{usual:?}");
    let crowded = order(true);
    assert!(crowded[0] <= 2 && crowded[10] <= 13, "{crowded:?}");
}

#[test]
fn large_results_are_not_made_far_in_advance() {
    let mut cluster = cluster(1);
    cluster.call_ns = 1_000;
    cluster.submit(vec![inc(1, 10_000)]);
    for _ in 0..50 {
        let given = cluster.turn();
        let n: u32 = given.iter().map(|(_, run, _)| run.count).sum();
        // A twentieth of the memory are six results.
        assert!((1..=6).contains(&n), "{n} calls in hand");
        given.iter().for_each(|(worker, run, attempt)| cluster.finish(*worker, *run, *attempt));
    }
}

#[test]
fn a_paused_worker_gets_nothing_until_it_goes_on() {
    let mut cluster = cluster(2);
    says(&mut cluster, 0, true, true);
    cluster.submit(vec![inc(1, 100)]);
    for _ in 0..5 {
        let given = cluster.turn();
        assert!(!given.is_empty());
        assert!(given.iter().all(|(worker, ..)| *worker == WorkerId(1)), "{given:?}");
        given.iter().for_each(|(worker, run, attempt)| cluster.finish(*worker, *run, *attempt));
    }
    says(&mut cluster, 0, false, true);
    assert!(cluster.turn().iter().any(|(worker, ..)| *worker == WorkerId(0)));
}

#[test]
fn a_second_copy_goes_and_an_only_one_stays() {
    let mut cluster = cluster(2);
    cluster.submit(vec![inc(1, 1)]);
    let (holder, run, attempt) = cluster.turn()[0];
    cluster.finish(holder, run, attempt);
    let other = WorkerId(1 - holder.0);
    cluster.progress(other, Progress::Copied { run, nbytes: 8 });
    let free = |cluster: &mut Cluster, worker| {
        cluster.progress(worker, Progress::Spare { runs: vec![run] });
        cluster.event(Event::Turn);
        let out = std::mem::take(&mut cluster.out);
        out.contains(&Action::ToWorker(worker, ToWorker::Free(vec![run])))
    };
    assert!(!free(&mut cluster, holder));
    assert!(free(&mut cluster, other));
    assert!(!free(&mut cluster, other));
}
