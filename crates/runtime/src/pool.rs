//! A pool of threads that run calls: the inside of an executor, of either kind.

use crate::collector::Collector;
use crate::runner::{Runner, Sink};
use parking_lot::{Condvar, Mutex};
use rasker_graph::{LayerId, Run};
use rasker_protocol::{
    ExecutorCalls, ExecutorWork, Failure, FromExecutor, GivenInput, ToExecutor, Value,
};
use rasker_store::Board;
use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Results are reported at least this often while calls run.
pub(crate) const REPORT_EVERY: Duration = Duration::from_millis(1);

/// After this many ticks without work the reporting thread sleeps until there is some.
const TICKS_IDLE: u32 = 20;

/// Shared memory is reported when it has changed by so much.
const SHARED_STEP_NBYTES: u64 = 2 << 20;

/// What is reported; called from any thread.
pub type Report = Box<dyn Fn(FromExecutor) + Send + Sync>;

struct Queue {
    calls: VecDeque<ExecutorCalls>,
    /// Threads that are to run calls; those beyond it end.
    n_wanted: u32,
    n_threads: u32,
    n_idle: u32,
    cancelled: Vec<(Run, u32)>,
    /// Places on the board that are taken.
    slots: Vec<bool>,
    closing: bool,
}

struct Shared {
    runner: Arc<dyn Runner>,
    report: Report,
    /// Where each thread says what it runs.
    board: Option<Board>,
    nthreads: u32,
    queue: Mutex<Queue>,
    work_came: Condvar,
    /// Results of each thread that is at work.
    collectors: Mutex<Vec<Arc<Collector>>>,
    n_busy: AtomicU32,
    n_cancelled: AtomicU32,
    /// Whether the thread that reports while calls run is asleep.
    ticker_sleeps: AtomicBool,
    ticker: Mutex<bool>,
    /// Shared memory that was reported last.
    told_nbytes: AtomicU64,
    wake_ticker: Condvar,
}

/// See the module. Dropping it lets its threads end after their calls.
pub struct Pool(Arc<Shared>);

impl Pool {
    pub fn new(
        runner: Arc<dyn Runner>,
        nthreads: u32,
        report: Report,
        board: Option<Board>,
    ) -> Pool {
        let queue = Queue {
            calls: VecDeque::new(),
            n_wanted: nthreads,
            n_threads: 0,
            n_idle: 0,
            slots: Vec::new(),
            cancelled: Vec::new(),
            closing: false,
        };
        let shared = Arc::new(Shared {
            runner,
            report,
            board,
            nthreads,
            queue: Mutex::new(queue),
            work_came: Condvar::new(),
            collectors: Mutex::new(Vec::new()),
            n_busy: AtomicU32::new(0),
            n_cancelled: AtomicU32::new(0),
            ticker_sleeps: AtomicBool::new(false),
            ticker: Mutex::new(false),
            told_nbytes: AtomicU64::new(0),
            wake_ticker: Condvar::new(),
        });
        let ticking = shared.clone();
        let tick = move || ticking.tick_until_closed();
        std::thread::Builder::new()
            .name("rasker-report".to_owned())
            .stack_size(256 << 10)
            .spawn(tick)
            .expect("a thread can start");
        for _ in 0..nthreads {
            shared.clone().spawn();
        }
        Pool(shared)
    }

    /// Acts on a message; false if it asked to close.
    pub fn handle(&self, message: ToExecutor) -> bool {
        let shared = &self.0;
        match message {
            ToExecutor::Setup(settings) => shared.runner.set_up(&settings),
            ToExecutor::Define(templates) => shared.runner.define(templates),
            ToExecutor::Calls(calls) => {
                let n: u32 = calls.iter().map(|calls| calls.run.count).sum();
                let mut queue = shared.queue.lock();
                queue.calls.extend(calls);
                let wake = queue.n_idle.min(n);
                drop(queue);
                for _ in 0..wake {
                    shared.work_came.notify_one();
                }
            }
            ToExecutor::Drop(runs) => {
                shared.runner.drop_values(&runs);
                shared.report_memory();
            }
            ToExecutor::Export(tasks) => {
                for (task, value) in tasks {
                    let value = shared.runner.export(task, value);
                    (shared.report)(FromExecutor::Exported { task, value });
                }
                shared.report_memory();
            }
            ToExecutor::Recall => {
                let calls = std::mem::take(&mut shared.queue.lock().calls);
                let runs = calls.into_iter().map(|calls| (calls.run, calls.attempt)).collect();
                shared.flush();
                (shared.report)(FromExecutor::Recalled(runs));
            }
            ToExecutor::Cancel(runs) => {
                let mut queue = shared.queue.lock();
                queue.cancelled.extend_from_slice(&runs);
                shared.n_cancelled.store(queue.cancelled.len() as u32, Ordering::Relaxed);
                drop(queue);
                shared.runner.cancel(&runs);
            }
            ToExecutor::Run { id, call } => {
                let shared = shared.clone();
                let name = "rasker-run".to_owned();
                let answer = move || {
                    let answer = shared.runner.answer(&call);
                    (shared.report)(FromExecutor::Answer { id, answer });
                };
                std::thread::Builder::new().name(name).spawn(answer).expect("a thread can start");
            }
            ToExecutor::Trim => {
                shared.runner.trim();
                shared.report_memory();
            }
            ToExecutor::Crowded(is_crowded) => shared.runner.set_crowded(is_crowded),
            ToExecutor::Close => return false,
        }
        true
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let mut queue = self.0.queue.lock();
        queue.closing = true;
        queue.calls.clear();
        drop(queue);
        self.0.runner.close();
        self.0.work_came.notify_all();
        *self.0.ticker.lock() = true;
        self.0.wake_ticker.notify_all();
    }
}

impl Shared {
    fn spawn(self: Arc<Self>) {
        self.queue.lock().n_threads += 1;
        let work = move || self.work();
        std::thread::Builder::new()
            .name("rasker-exec".to_owned())
            .stack_size(8 << 20)
            .spawn(work)
            .expect("a thread can start");
    }

    fn work(self: Arc<Self>) {
        let collector = Arc::new(Collector::new());
        self.collectors.lock().push(collector.clone());
        let slot = self.take_slot();
        let port = Port {
            shared: self.clone(),
            collector: collector.clone(),
            last: Mutex::new(Instant::now()),
            slot,
            begun: Cell::new((LayerId(0), 0)),
        };
        while self.wait_for_work() {
            self.n_busy.fetch_add(1, Ordering::SeqCst);
            if self.ticker_sleeps.load(Ordering::SeqCst) {
                drop(self.ticker.lock());
                self.wake_ticker.notify_one();
            }
            self.runner.work(&mut || self.next(&port), &port);
            if let Some(board) = &self.board {
                board.write(slot, [0; 3]);
            }
            self.n_busy.fetch_sub(1, Ordering::Relaxed);
            self.flush();
        }
        self.flush();
        self.queue.lock().slots[slot] = false;
        self.collectors.lock().retain(|other| !Arc::ptr_eq(other, &collector));
    }

    fn take_slot(&self) -> usize {
        let slots = &mut self.queue.lock().slots;
        let free = slots.iter().position(|taken| !taken).unwrap_or(slots.len());
        match slots.get_mut(free) {
            Some(taken) => *taken = true,
            None => slots.push(true),
        }
        free
    }

    /// False when this thread is to end.
    fn wait_for_work(&self) -> bool {
        let mut queue = self.queue.lock();
        loop {
            if queue.closing || queue.n_threads > queue.n_wanted {
                queue.n_threads -= 1;
                return false;
            }
            if !queue.calls.is_empty() {
                return true;
            }
            queue.cancelled.clear();
            self.n_cancelled.store(0, Ordering::Relaxed);
            queue.n_idle += 1;
            self.work_came.wait(&mut queue);
            queue.n_idle -= 1;
        }
    }

    /// The next calls for one thread: a share of a run, so that others get theirs.
    fn next(&self, port: &Port) -> Option<ExecutorCalls> {
        if port.last.lock().elapsed() > REPORT_EVERY {
            self.flush();
            *port.last.lock() = Instant::now();
        }
        let mut queue = self.queue.lock();
        if queue.n_threads > queue.n_wanted {
            return None;
        }
        let first = queue.calls.front_mut()?;
        let share = if self.nthreads > 1 {
            (first.run.count / (2 * self.nthreads)).max(1)
        } else {
            u32::MAX
        };
        if first.run.count > share {
            return Some(split_front(first, share));
        }
        queue.calls.pop_front()
    }

    /// Reports now and then while calls run; sleeps when none has run for a while.
    fn tick_until_closed(&self) {
        let mut n_idle = 0;
        let mut closed = self.ticker.lock();
        while !*closed {
            if self.n_busy.load(Ordering::SeqCst) > 0 {
                n_idle = 0;
            } else {
                n_idle += 1;
            }
            if n_idle < TICKS_IDLE {
                self.wake_ticker.wait_for(&mut closed, REPORT_EVERY);
                self.flush();
                self.report_memory();
                continue;
            }
            self.ticker_sleeps.store(true, Ordering::SeqCst);
            if self.n_busy.load(Ordering::SeqCst) == 0 {
                self.wake_ticker.wait(&mut closed);
            }
            self.ticker_sleeps.store(false, Ordering::SeqCst);
            n_idle = 0;
        }
    }

    /// Says how much shared memory was taken, if that has changed by much.
    fn report_memory(&self) {
        let nbytes = self.runner.shared_nbytes();
        let told = self.told_nbytes.load(Ordering::Relaxed);
        if nbytes.abs_diff(told) >= SHARED_STEP_NBYTES {
            self.told_nbytes.store(nbytes, Ordering::Relaxed);
            (self.report)(FromExecutor::Shared { nbytes });
        }
    }

    fn flush(&self) {
        let mut done = Vec::new();
        for collector in self.collectors.lock().iter() {
            done.extend(collector.take());
        }
        if !done.is_empty() {
            (self.report)(FromExecutor::Done(done));
        }
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
                (GivenInput::Each(a), GivenInput::Each(b)) => {
                    *b = a.split_off(count as usize);
                }
                _ => unreachable!("clones have the same form"),
            }
        }
    }
    front
}

/// What one thread's results go through.
struct Port {
    shared: Arc<Shared>,
    collector: Arc<Collector>,
    last: Mutex<Instant>,
    /// Its place on the board, and the layer and attempt of the calls begun last.
    slot: usize,
    begun: Cell<(LayerId, u32)>,
}

impl Sink for Port {
    fn begin(&self, run: Run, attempt: u32) {
        self.collector.begin(run, attempt);
        self.begun.set((run.layer, attempt));
        // Reading its function may be the death of it as well.
        self.at(run.start);
    }
    fn at(&self, index: u32) {
        if let Some(board) = &self.shared.board {
            let (layer, attempt) = self.begun.get();
            let place = u64::from(attempt) << 32 | u64::from(index);
            board.write(self.slot, [layer.0, place, 1]);
        }
    }
    fn int(&self, index: u32, value: i64) {
        self.collector.int(index, value);
    }
    fn float(&self, index: u32, value: f64) {
        self.collector.float(index, value);
    }
    fn packed(&self, index: u32, value: &[u8]) {
        self.collector.packed(index, value);
    }
    fn live(&self, index: u32, nbytes: u64) {
        self.collector.live(index, nbytes);
    }
    fn value(&self, index: u32, value: Value) {
        self.collector.value(index, value);
    }
    fn failed(&self, index: u32, failure: Arc<Failure>) {
        self.collector.failed(index, failure);
    }
    fn seceded(&self, by: i32) {
        let mut queue = self.shared.queue.lock();
        queue.n_wanted = queue.n_wanted.saturating_add_signed(by);
        let more = queue.n_wanted > queue.n_threads;
        drop(queue);
        if more {
            self.shared.clone().spawn();
        }
        self.shared.flush();
        (self.shared.report)(FromExecutor::Seceded { by });
    }
    fn is_cancelled(&self, index: u32) -> bool {
        if self.shared.n_cancelled.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let (run, now) = self.collector.run();
        let mut queue = self.shared.queue.lock();
        // A later attempt of the same task runs: it is told apart by its number.
        let at = queue.cancelled.iter().position(|(cancelled, attempt)| {
            *attempt == now
                && cancelled.layer == run.layer
                && cancelled.start <= index
                && index < cancelled.end()
        });
        if let Some(at) = at
            && queue.cancelled[at].0.count == 1
        {
            queue.cancelled.swap_remove(at);
            self.shared.n_cancelled.store(queue.cancelled.len() as u32, Ordering::Relaxed);
        }
        at.is_some()
    }
}
