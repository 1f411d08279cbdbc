//! A shuffle of 1 GB: 64 writers and 64 readers on two worker processes of one thread each.
//!
//! Each writer copies its input once, into its parted value; readers map the parts where they are.
//! What is counted is processor time of all processes, with and without reading each byte.

#[allow(dead_code)]
#[path = "../tests/toy/processes.rs"]
mod processes;

use parking_lot::Mutex;
use processes::{Processes, serve_if_worker};
use rasker_client::{Ending, NewTask};
use rasker_exchange::Layout;
use rasker_graph::{Blob, Column, Key, PartRange, TaskId, Template, TemplateId, TemplateKind};
use rasker_protocol::{Failure, Value};
use rasker_runtime::{NativeCall, NativeContext, NativeInput, NativeRunner, Session};
use std::sync::Arc;
use std::time::{Duration, Instant};

const N: u32 = 64;
const PART_NBYTES: usize = 256 << 10;
const LIMIT: Duration = Duration::from_secs(120);

const WRITE: TemplateId = TemplateId(1);
const PASS: TemplateId = TemplateId(2);
const SUM: TemplateId = TemplateId(3);

/// Copies its own bytes into parts; reads nothing of parts, or each byte.
#[derive(Default)]
struct Shuffle {
    source: Mutex<Arc<Vec<u8>>>,
}

impl Shuffle {
    fn source(&self) -> Arc<Vec<u8>> {
        let mut source = self.source.lock();
        if source.is_empty() {
            let words = (0..PART_NBYTES as u64 / 8).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            *source = Arc::new(words.flat_map(u64::to_le_bytes).collect());
        }
        source.clone()
    }
}

impl NativeRunner for Shuffle {
    fn define(&self, _: Vec<Template>) {}

    fn run(&self, call: NativeCall, context: &NativeContext<'_>) -> Result<Value, Box<Failure>> {
        if call.template == WRITE {
            let source = self.source();
            let layout = Layout::of((0..N).map(|_| PART_NBYTES as u64));
            let slab = context.allocate(layout.nbytes());
            let mut slab = slab.map_err(|error| context.failure(error.to_string()))?;
            layout.write_index(&mut slab);
            for part in 0..N {
                slab[layout.range(part)].copy_from_slice(&source);
            }
            return Ok(context.seal(slab));
        }
        let NativeInput::Parts(read) = &call.inputs[0] else {
            return Err(context.failure("its input is no exchange"));
        };
        let found = match call.template {
            SUM => read.parts.iter().map(|part| sum(&part.data)).fold(0, i64::wrapping_add),
            _ => read.nbytes() as i64,
        };
        Ok(Value::Column(Column::ints(&[found])))
    }
}

fn sum(bytes: &[u8]) -> i64 {
    let words = bytes.chunks_exact(8);
    let words = words.map(|word| i64::from_le_bytes(word.try_into().expect("eight bytes")));
    words.fold(0, i64::wrapping_add)
}

/// Processor time of a process so far, seconds.
fn cpu_s(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(2);
    ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn all_cpu_s(cluster: &Processes) -> f64 {
    let workers = cluster.workers.iter().map(|(child, _)| cpu_s(child.id()));
    cpu_s(std::process::id()) + workers.sum::<f64>()
}

fn submit(session: &Session, round: u128, template: TemplateId) -> Vec<TaskId> {
    session.with(|machine, _| {
        let new = |key: u128, template, dependencies| NewTask {
            key: Key(key),
            name: None,
            template,
            args: &[],
            blob: None,
            dependencies,
            options: None,
            fused: &[],
        };
        let base = round * 10_000;
        let writers: Vec<TaskId> = (0..u128::from(N))
            .map(|writer| machine.submit_inner(new(base + writer, WRITE, &[])))
            .collect();
        let exchange = machine.exchange(Key(base + 1000), &writers);
        let of = [exchange];
        let reader = |part: u32| {
            let task = new(base + 2000 + u128::from(part), template, &of);
            machine.submit_reader(task, &[(0, PartRange::one(part))], true)
        };
        (0..N).map(reader).collect()
    })
}

fn run_once(cluster: &Processes, round: u128, template: TemplateId, expected: i64) {
    let session = cluster.session();
    let (started, before) = (Instant::now(), all_cpu_s(cluster));
    let readers = submit(session, round, template);
    for reader in &readers {
        if let Some((_, waiter)) = session.waiter(&[reader.run()], 1) {
            assert!(waiter.wait(Some(Instant::now() + LIMIT)), "{reader:?} has not ended");
        }
        match session.ending(*reader) {
            Some(Ending::Finished { value: Some(Value::Column(column)), .. }) => {
                assert_eq!(column.int(0), Some(expected));
            }
            other => panic!("{reader:?} ended so: {other:?}"),
        }
    }
    let (wall_s, cpu_s) = (started.elapsed().as_secs_f64(), all_cpu_s(cluster) - before);
    let mb = f64::from(N * N) * PART_NBYTES as f64 / 1e6;
    let what = if template == SUM { "each byte is read" } else { "parts are mapped" };
    println!(
        "{what:>18}: {mb:.0} MB in {wall_s:.2} s, {cpu_s:.2} CPU-s: {:.0} MB per CPU-second",
        mb / cpu_s.max(0.01)
    );
    session.with(|machine, _| readers.iter().for_each(|reader| machine.drop_task(*reader)));
    session.flush();
    std::thread::sleep(Duration::from_millis(100));
}

fn main() {
    serve_if_worker(|| Arc::new(Shuffle::default()));
    let cluster = Processes::start(2);
    cluster.session().with(|machine, _| {
        for id in [WRITE, PASS, SUM] {
            let (kind, name) = (TemplateKind::Native, "shuffle".into());
            machine.add_template(Template { id, kind, name, code: Blob::EMPTY });
        }
    });
    let each = Shuffle::default().source();
    let total = sum(&each).wrapping_mul(i64::from(N));
    let nbytes = i64::from(N) * PART_NBYTES as i64;
    // The first round takes the memory from the kernel, the others use it again.
    for round in 0..4 {
        run_once(&cluster, 2 * round, PASS, nbytes);
        run_once(&cluster, 2 * round + 1, SUM, total);
    }
}
