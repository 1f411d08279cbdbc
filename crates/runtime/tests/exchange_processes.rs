//! Exchanges between worker processes, of which some are killed. A program of its own, as it is
//! its own workers.

#[allow(dead_code)]
#[path = "toy/native.rs"]
mod native;
#[allow(dead_code)]
#[path = "toy/processes.rs"]
mod processes;
#[allow(dead_code)]
#[path = "toy/toy.rs"]
mod toy;

use native::{Native, WRITE, expected, readers, teach_native, writers};
use processes::{Processes, serve_if_worker};
use rasker_client::Ending;
use rasker_graph::{PartRange, TaskId, Template};
use rasker_protocol::{Failure, Value};
use rasker_runtime::{NativeCall, NativeContext, NativeRunner, Session};
use std::sync::Arc;
use std::time::Duration;
use toy::{LIMIT, ends_within, ints};

/// The toy, which says each writer that it runs.
struct Loud(Native);

impl NativeRunner for Loud {
    fn define(&self, templates: Vec<Template>) {
        self.0.define(templates);
    }

    fn run(&self, call: NativeCall, context: &NativeContext<'_>) -> Result<Value, Box<Failure>> {
        if call.template == WRITE {
            println!("wrote {}", call.label.of(call.task.index));
        }
        self.0.run(call, context)
    }
}

const N_WRITERS: i64 = 24;
const MOST: i64 = 100_000;

fn ranges() -> Vec<PartRange> {
    (0..12).map(PartRange::one).collect()
}

fn check(session: &Session, found: &[TaskId]) {
    for (task, parts) in found.iter().zip(ranges()) {
        let expected = expected(N_WRITERS, i64::from(parts.start), i64::from(parts.end), MOST);
        assert_eq!(ints(session, task.run()), [expected], "parts {parts:?}");
    }
}

/// Ends all workers and counts how often writers ran, with what was said before.
fn n_written(mut cluster: Processes, mut said: Vec<String>) -> usize {
    said.extend(cluster.kill_all());
    said.iter().filter(|line| line.starts_with("wrote ")).count()
}

fn a_worker_killed_between_writers_and_readers_costs_its_own_writers() {
    let mut cluster = Processes::start(3);
    let session = cluster.session().clone();
    teach_native(&session);
    let written = writers(&session, 1, N_WRITERS, 12, MOST);
    let holders: Vec<_> = written
        .iter()
        .map(|task| {
            assert!(ends_within(&session, task.run(), LIMIT), "{task:?} has not ended");
            match session.ending(*task) {
                Some(Ending::Finished { holder, .. }) => holder,
                other => panic!("{task:?} ended so: {other:?}"),
            }
        })
        .collect();
    let first = session.workers()[0].0;
    let n_lost = holders.iter().filter(|holder| **holder == first).count();
    assert!(0 < n_lost && n_lost < N_WRITERS as usize, "several workers have written");
    let said = cluster.kill(0);
    let found = readers(&session, 100, &written, &ranges());
    check(&session, &found);
    let n_written = n_written(cluster, said);
    assert_eq!(n_written, N_WRITERS as usize + n_lost, "only what was lost was written again");
    println!("killed between writers and readers: {n_lost} of {N_WRITERS} written again");
}

fn workers_killed_at_any_time_change_no_result() {
    for round in 0..8u64 {
        let mut cluster = Processes::start(3);
        let session = cluster.session().clone();
        teach_native(&session);
        let written = writers(&session, 1, N_WRITERS, 12, MOST);
        let found = readers(&session, 100, &written, &ranges());
        session.flush();
        std::thread::sleep(Duration::from_millis(round * 4));
        let said = cluster.kill(round as usize % 3);
        check(&session, &found);
        let n = n_written(cluster, said);
        assert!(n <= 2 * N_WRITERS as usize, "{n} writers ran for {N_WRITERS}");
        println!("killed after {} ms: {} written again", round * 4, n - N_WRITERS as usize);
    }
}

fn main() {
    serve_if_worker(|| Arc::new(Loud(Native::default())));
    a_worker_killed_between_writers_and_readers_costs_its_own_writers();
    workers_killed_at_any_time_change_no_result();
}
