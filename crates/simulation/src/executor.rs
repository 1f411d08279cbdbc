//! An executor that computes hashes: so many calls at once, each for a seeded time.

use crate::exchanges::{cut, read_piece};
use crate::memory::size;
use crate::oracle::{Deed, deed, kind, value_of};
use crate::random::Random;
use rasker_graph::{Blob, Column, LocalObject, Run, TaskId, TemplateId, TemplateKind};
use rasker_protocol::{
    Done, ExecutorCalls, ExecutorWork, Failure, FailureKind, FromExecutor, Given, GivenInput,
    Outcome, ToExecutor, Value, Written,
};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

/// What a call takes that takes too much: more than any worker may use.
const HOG_NBYTES: u64 = 64 << 20;

/// Calls of a run that one thread took, and what they will come to.
struct Share {
    run: Run,
    attempt: u32,
    elapsed_ns: u64,
    results: Vec<Result<i64, Arc<Failure>>>,
    deed: Deed,
}

#[derive(Default)]
pub struct Executor {
    kind: TemplateKind,
    nthreads: u32,
    queue: VecDeque<ExecutorCalls>,
    running: BTreeMap<u64, Share>,
    /// Shares whose threads went on to other calls.
    seceded: HashSet<u64>,
    n_shares: u64,
    live: HashMap<TaskId, i64>,
    cancelled: Vec<(Run, u32)>,
    known: HashSet<TemplateId>,
    pub is_up: bool,
    /// Values are said to be large, as memory counts.
    is_measured: bool,
    /// The call that ends it.
    deadly: Option<(TaskId, u32)>,
    /// What should never have been asked of an executor.
    pub complaints: Vec<String>,
}

/// What a thread that took a share wants from the world.
pub enum Begun {
    /// The share ends after so many ns.
    Ends { share: u64, after_ns: u64 },
    /// The call ends the executor.
    Dies,
    /// The share runs until it is cancelled.
    Never,
    /// The call submits tasks of its own and waits for them; its thread is free meanwhile.
    Submits { share: u64 },
}

impl Executor {
    pub fn new(kind: TemplateKind, nthreads: u32, is_measured: bool) -> Executor {
        Executor { kind, nthreads, is_measured, ..Executor::default() }
    }

    /// The calls that run, with their attempts: the first of each share.
    pub fn running_calls(&self) -> Vec<(TaskId, u32)> {
        let shares = self.running.iter().filter(|(number, _)| !self.seceded.contains(number));
        let first = |(_, share): (_, &Share)| {
            (TaskId::new(share.run.layer, share.run.start), share.attempt)
        };
        shares.map(first).chain(self.deadly).collect()
    }

    /// Memory that is measured of it: live values, and what calls take that take too much.
    pub fn nbytes(&self) -> u64 {
        let live: u64 = self.live.values().map(|value| size(*value)).sum();
        let hogs = self.running.values().filter(|share| share.deed == Deed::Hog).count();
        live + hogs as u64 * HOG_NBYTES
    }

    fn encoded(&self, value: i64) -> Value {
        let nbytes = if self.is_measured { size(value) } else { 8 };
        Value::Encoded { blob: Blob::from(value.to_le_bytes().to_vec()), nbytes }
    }

    /// Calls that run now and do not only wait for others.
    pub fn n_running(&self) -> u32 {
        (self.running.len() - self.seceded.len()) as u32
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.running.is_empty() && self.live.is_empty()
    }

    /// What keeps the executor from being empty, in words.
    pub fn leftovers(&self) -> String {
        let (queued, running) = (self.queue.len(), self.running.len());
        format!("{queued} queued, {running} running, live {:?}", self.live.keys())
    }

    pub fn runs(&self, share: u64) -> bool {
        self.running.contains_key(&share)
    }

    /// Returns the shares that end because they were cancelled.
    pub fn handle(&mut self, message: ToExecutor, say: &mut Vec<FromExecutor>) -> Vec<u64> {
        match message {
            ToExecutor::Setup(_)
            | ToExecutor::Trim
            | ToExecutor::Crowded(_)
            | ToExecutor::Close => {}
            ToExecutor::Define(templates) => self.known.extend(templates.iter().map(|t| t.id)),
            ToExecutor::Calls(calls) => self.queue.extend(calls),
            ToExecutor::Drop(runs) => {
                for task in runs.into_iter().flat_map(Run::tasks) {
                    if self.live.remove(&task).is_none() {
                        // A drop after a failed attempt is idle, never wrong.
                        continue;
                    }
                }
            }
            ToExecutor::Export(tasks) => {
                for (task, value) in tasks {
                    let value = self.export(task, value);
                    say.push(FromExecutor::Exported { task, value: value.map(Some) });
                }
            }
            ToExecutor::Recall => {
                let back = self.queue.drain(..).map(|calls| (calls.run, calls.attempt)).collect();
                say.push(FromExecutor::Recalled(back));
            }
            ToExecutor::Cancel(runs) => {
                self.cancelled.extend(runs);
                return self.cancel_endless();
            }
            ToExecutor::Run { id, .. } => {
                say.push(FromExecutor::Answer { id, answer: Blob::EMPTY })
            }
        }
        Vec::new()
    }

    /// Calls that would run for ever end when they are cancelled.
    fn cancel_endless(&mut self) -> Vec<u64> {
        let mut ended = Vec::new();
        for (share, running) in self.running.iter_mut().filter(|(_, r)| r.deed == Deed::Endless) {
            let task = TaskId::new(running.run.layer, running.run.start);
            let is_meant =
                |(run, attempt): &(Run, u32)| run.contains(task) && *attempt == running.attempt;
            if self.cancelled.iter().any(is_meant) {
                let failure = Failure::new(FailureKind::Cancelled, "", "cancelled");
                running.results = vec![Err(Arc::new(failure))];
                ended.push(*share);
            }
        }
        ended
    }

    fn export(&mut self, task: TaskId, value: Option<Value>) -> Result<Value, Arc<Failure>> {
        let found = match &value {
            Some(value) => read(value),
            None => self.live.get(&task).copied(),
        };
        match found {
            Some(value) => Ok(self.encoded(value)),
            None => {
                self.complaints.push(format!("{task:?} is to be exported and is not here"));
                let text = "not here";
                Err(Arc::new(Failure::new(FailureKind::Lost, format!("{task:?}"), text)))
            }
        }
    }

    /// Gives queued calls to free threads.
    pub fn work(&mut self, random: &mut Random, call_ns: u64) -> Vec<Begun> {
        let mut begun = Vec::new();
        while self.is_up && (self.running.len() as u32) < self.nthreads {
            let Some(mut calls) = self.queue.pop_front() else {
                if self.running.is_empty() {
                    self.cancelled.clear();
                }
                break;
            };
            let most = match deed(calls.template) {
                Deed::Endless | Deed::Nested | Deed::Hog => 1,
                _ => random.between(1, 64) as u32,
            };
            if calls.run.count > most {
                let front = split_front(&mut calls, most);
                self.queue.push_front(calls);
                calls = front;
            }
            if !self.known.contains(&calls.template) {
                self.complaints.push(format!("{:?} calls an unknown template", calls.run));
            }
            if kind(deed(calls.template)) != self.kind {
                self.complaints.push(format!("{:?} runs in {:?}", calls.run, self.kind));
            }
            if deed(calls.template) == Deed::Poison {
                self.deadly = Some((TaskId::new(calls.run.layer, calls.run.start), calls.attempt));
                begun.push(Begun::Dies);
                break;
            }
            let share = self.begin(&calls, random, call_ns);
            self.n_shares += 1;
            let after_ns = share.elapsed_ns.max(1);
            let is_cancelled = share.results.iter().all(Result::is_err);
            self.running.insert(self.n_shares, share);
            begun.push(match deed(calls.template) {
                Deed::Endless if !is_cancelled => Begun::Never,
                Deed::Nested if !is_cancelled => {
                    self.nthreads += 1;
                    self.seceded.insert(self.n_shares);
                    Begun::Submits { share: self.n_shares }
                }
                _ => Begun::Ends { share: self.n_shares, after_ns },
            });
        }
        begun
    }

    fn begin(&mut self, calls: &ExecutorCalls, random: &mut Random, call_ns: u64) -> Share {
        let mut elapsed_ns = 0;
        let deed = deed(calls.template);
        let mut results = Vec::new();
        for at in 0..calls.run.count {
            let task = TaskId::new(calls.run.layer, calls.run.start + at);
            elapsed_ns += random.below(call_ns) + 1;
            if deed == Deed::Hog {
                elapsed_ns += call_ns * 200;
            }
            let key = || calls.label.of(task.index);
            let of_now =
                |(run, attempt): &(Run, u32)| run.contains(task) && *attempt == calls.attempt;
            if self.cancelled.iter().any(of_now) {
                let failure = Failure::new(FailureKind::Cancelled, key(), "cancelled");
                results.push(Err(Arc::new(failure)));
                continue;
            }
            let raises = deed == Deed::Raises || (deed == Deed::Flaky && random.chance(30));
            let (arg, inputs) = self.inputs(&calls.work, at, task);
            results.push(if raises {
                Err(Arc::new(Failure::new(FailureKind::Exception, key(), "raised")))
            } else {
                Ok(value_of(calls.template, arg, &inputs))
            });
        }
        Share { run: calls.run, attempt: calls.attempt, elapsed_ns, results, deed }
    }

    fn inputs(&mut self, work: &ExecutorWork, at: u32, task: TaskId) -> (i64, Vec<i64>) {
        let mut inputs = Vec::new();
        let mut arg = 0;
        let is_native = self.kind == TemplateKind::Native;
        let (mut n_objects, mut n_uncut) = (0, 0);
        let mut take = |given: &Given| {
            n_objects += u32::from(matches!(given, Given::Value(Value::Object { .. })));
            n_uncut += u32::from(has_object(given));
            match self.given(given) {
                Some(values) => inputs.extend(values),
                None => {
                    self.complaints.push(format!("{task:?} runs without its input {given:?}"));
                }
            }
        };
        match work {
            ExecutorWork::One { args, given } => {
                let Blob::Bytes(bytes) = args else { unreachable!("arguments are bytes") };
                arg = i64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
                given.iter().for_each(&mut take);
            }
            ExecutorWork::Map { inputs: columns, .. } => {
                for column in columns {
                    match column {
                        GivenInput::Values(column) => arg = column.int(at).expect("integers"),
                        GivenInput::Each(given) => take(&given[at as usize]),
                    }
                }
            }
        }
        if is_native && n_objects > 0 {
            self.complaints.push(format!("native {task:?} is given an object"));
        }
        if n_uncut > 0 {
            self.complaints.push(format!("{task:?} is to read parts of an object"));
        }
        (arg, inputs)
    }

    /// The numbers that an input stands for: one, or all that is read of an exchange.
    fn given(&self, given: &Given) -> Option<Vec<i64>> {
        match given {
            Given::Live(task) => Some(vec![*self.live.get(task)?]),
            Given::Value(value) => Some(vec![read(value)?]),
            Given::Parts { parts, written } => {
                let mut numbers = Vec::new();
                for written in written {
                    numbers.extend(match written {
                        Written::Piece(piece) => read_piece(piece),
                        Written::Whole(value) => read_piece(&cut(read(value)?, *parts)),
                    });
                }
                Some(numbers)
            }
        }
    }

    /// A share is done: what is reported.
    pub fn end(&mut self, share: u64) -> Option<FromExecutor> {
        let Share { run, attempt, elapsed_ns, results, deed } = self.running.remove(&share)?;
        if self.seceded.remove(&share) {
            self.nthreads -= 1;
        }
        let each_ns = elapsed_ns / u64::from(run.count);
        let mut dones: Vec<Done> = Vec::new();
        let mut small: Vec<i64> = Vec::new();
        let flush = |small: &mut Vec<i64>, dones: &mut Vec<Done>, end: u32| {
            if !small.is_empty() {
                let n = small.len() as u32;
                let run = Run::new(run.layer, end - n, n);
                let outcome = Outcome::Values(Column::ints(small));
                let elapsed_ns = each_ns * u64::from(n);
                dones.push(Done { run, attempt, elapsed_ns, outcome });
                small.clear();
            }
        };
        for (index, result) in run.indices().zip(results) {
            let task = TaskId::new(run.layer, index);
            let outcome = match (result, deed) {
                (Err(failure), _) => Outcome::Failed(failure),
                (Ok(value), Deed::Live) => {
                    self.live.insert(task, value);
                    Outcome::Live { nbytes: if self.is_measured { size(value) } else { 100 } }
                }
                (Ok(value), Deed::Encoded | Deed::Native) => Outcome::Value(self.encoded(value)),
                (Ok(value), Deed::Object) => {
                    let object: LocalObject = Arc::new(value);
                    Outcome::Value(Value::Object { object: Blob::Local(object), nbytes: 50 })
                }
                (Ok(value), _) => {
                    small.push(value);
                    continue;
                }
            };
            flush(&mut small, &mut dones, index);
            dones.push(Done { run: task.run(), attempt, elapsed_ns: each_ns, outcome });
        }
        flush(&mut small, &mut dones, run.end());
        Some(FromExecutor::Done(dones))
    }
}

/// The number that a value of any form stands for.
pub fn read(value: &Value) -> Option<i64> {
    match value {
        Value::Column(column) => column.int(0),
        Value::Object { object, .. } => object.local::<i64>().map(|value| *value),
        Value::Encoded { blob: Blob::Bytes(bytes), .. } => {
            Some(i64::from_le_bytes(bytes[..].try_into().ok()?))
        }
        Value::Encoded { .. } => None,
    }
}

fn split_front(calls: &mut ExecutorCalls, count: u32) -> ExecutorCalls {
    let mut front = calls.clone();
    front.run.count = count;
    calls.run.start += count;
    calls.run.count -= count;
    if let (ExecutorWork::Map { inputs: a, .. }, ExecutorWork::Map { inputs: b, .. }) =
        (&mut front.work, &mut calls.work)
    {
        for (a, b) in a.iter_mut().zip(b) {
            match (a, b) {
                (GivenInput::Values(a), GivenInput::Values(b)) => {
                    *a = b.slice(0, count);
                    *b = b.slice(count, b.len() - count);
                }
                (GivenInput::Each(a), GivenInput::Each(b)) => *b = a.split_off(count as usize),
                _ => unreachable!("clones have the same form"),
            }
        }
    }
    front
}

/// Whether parts are to be cut out of an object, of which nobody but Python knows any bytes.
fn has_object(given: &Given) -> bool {
    let Given::Parts { written, .. } = given else { return false };
    written.iter().any(|written| matches!(written, Written::Whole(Value::Object { .. })))
}
