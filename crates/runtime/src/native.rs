//! Native calls: tasks that run in the worker core's process, on its compute threads.
//!
//! What runs them is installed from above as a [`NativeRunner`]; this room gives each call its
//! inputs, memory for its result, the worker's budget and word of its cancellation, and keeps a
//! panic from ending more than its task.

use crate::budget::Budget;
use crate::runner::{Runner, Sink};
use parking_lot::Mutex;
use rasker_exchange::{PartedError, PartsRead, parts_of};
use rasker_graph::{Blob, Run, TaskId, Template, TemplateId};
use rasker_protocol::{
    Datum, ExecutorCalls, ExecutorWork, Failure, FailureKind, Given, GivenInput, Label, Value,
};
use rasker_store::{Arena, Slab, StoreError};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Runs native calls, in as many threads at once as it is asked to.
pub trait NativeRunner: Send + Sync + 'static {
    /// Templates come before the first call that names them, and may come again.
    fn define(&self, templates: Vec<Template>);
    /// Runs one call to its end. A panic fails the task and nothing else.
    ///
    /// # Errors
    ///
    /// What the task fails with; `context.failure` and `context.cancelled` make one.
    fn run(&self, call: NativeCall, context: &NativeContext<'_>) -> Result<Value, Box<Failure>>;
    /// Gives memory that is not in use back to the system.
    fn trim(&self) {}
}

/// One native call.
#[derive(Clone, Debug)]
pub struct NativeCall {
    pub task: TaskId,
    /// Told apart from earlier executions of the same task.
    pub attempt: u32,
    pub template: TemplateId,
    pub label: Label,
    /// The task's own arguments, or the constants of its layer.
    pub args: Blob,
    /// In the order in which the layer lists them.
    pub inputs: Vec<NativeInput>,
}

/// One input of a native call.
#[derive(Clone, Debug)]
pub enum NativeInput {
    /// A column of one value, or bytes in the encoding of whoever made it.
    Value(Value),
    /// The parts that it reads of an exchange.
    Parts(PartsRead),
}

/// The bytes of an encoded value, where they are: nothing is copied.
pub fn bytes_of(value: &Value) -> Option<bytes::Bytes> {
    let Value::Encoded { blob, .. } = value else { return None };
    rasker_exchange::bytes_of(blob).ok()
}

type OnCancel = Box<dyn FnOnce() + Send>;

/// Whether a call was cancelled; may be kept and asked by any thread.
#[derive(Default)]
pub struct Cancellation {
    is_cancelled: AtomicBool,
    wake: Mutex<Vec<OnCancel>>,
}

impl Cancellation {
    pub fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Relaxed)
    }

    /// Calls `wake` when the call is cancelled, at once if it was before.
    pub fn on_cancel(&self, wake: impl FnOnce() + Send + 'static) {
        let mut waiting = self.wake.lock();
        if !self.is_cancelled() {
            return waiting.push(Box::new(wake));
        }
        drop(waiting);
        wake();
    }

    fn cancel(&self) {
        let waiting = {
            let mut waiting = self.wake.lock();
            self.is_cancelled.store(true, Ordering::Relaxed);
            std::mem::take(&mut *waiting)
        };
        waiting.into_iter().for_each(|wake| wake());
    }
}

/// What a native call can ask of its worker.
pub struct NativeContext<'a> {
    core: &'a NativeCore,
    call: (&'a Label, TaskId),
    cancellation: Arc<Cancellation>,
}

impl NativeContext<'_> {
    /// Memory for a result: other processes of the host map it where it is.
    ///
    /// # Errors
    ///
    /// If the worker's limit or the system has no more.
    pub fn allocate(&self, nbytes: usize) -> Result<Slab, StoreError> {
        let (arena, budget) = (&self.core.arena, &self.core.budget);
        // It counts as reserved until it is taken; values make room for it meanwhile.
        let is_reserved = budget.try_reserve(nbytes as u64);
        let mut taken = arena.allocate(nbytes);
        if taken.is_err() {
            let again = || match arena.allocate(nbytes) {
                _ if self.is_cancelled() => true,
                result => {
                    taken = result;
                    taken.is_ok()
                }
            };
            budget.insist(nbytes as u64, again);
        }
        if is_reserved {
            budget.release(nbytes as u64);
        }
        taken
    }

    /// Ends writing and makes a value of it.
    pub fn seal(&self, slab: Slab) -> Value {
        let segment = slab.seal();
        let nbytes = segment.len() as u64;
        Value::Encoded { blob: Blob::Local(Arc::new(segment)), nbytes }
    }

    /// The worker's memory: to be asked before large amounts are taken, other than by `allocate`.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.core.budget
    }

    pub fn cancellation(&self) -> &Arc<Cancellation> {
        &self.cancellation
    }

    pub fn is_cancelled(&self) -> bool {
        self.cancellation.is_cancelled()
    }

    /// The key of the task, as its user knows it.
    pub fn key(&self) -> String {
        self.call.0.of(self.call.1.index)
    }

    pub fn failure(&self, text: impl Into<String>) -> Box<Failure> {
        Box::new(Failure::new(FailureKind::Exception, self.key(), text))
    }

    /// What a call ends with that found itself cancelled.
    pub fn cancelled(&self) -> Box<Failure> {
        Box::new(Failure::new(FailureKind::Cancelled, self.key(), "cancelled"))
    }
}

/// What all native calls of a worker share.
pub(crate) struct NativeCore {
    pub runner: Arc<dyn NativeRunner>,
    pub arena: Arena,
    pub budget: Arc<Budget>,
    /// Address of the worker, for failures.
    pub worker: String,
    running: Mutex<HashMap<(TaskId, u32), Arc<Cancellation>>>,
    is_closed: AtomicBool,
}

impl NativeCore {
    pub fn new(
        runner: Arc<dyn NativeRunner>,
        arena: Arena,
        budget: Arc<Budget>,
        worker: String,
    ) -> NativeCore {
        let (running, is_closed) = (Mutex::default(), AtomicBool::new(false));
        NativeCore { runner, arena, budget, worker, running, is_closed }
    }

    fn call(
        &self,
        calls: &ExecutorCalls,
        index: u32,
        sink: &dyn Sink,
    ) -> Result<Value, Box<Failure>> {
        let task = TaskId::new(calls.run.layer, index);
        let cancellation = Arc::new(Cancellation::default());
        let number = (task, calls.attempt);
        self.running.lock().insert(number, cancellation.clone());
        // Asked only now: whoever cancels it later finds it among those that run.
        if sink.is_cancelled(index) || self.is_closed.load(Ordering::SeqCst) {
            cancellation.cancel();
        }
        let context = NativeContext { core: self, call: (&calls.label, task), cancellation };
        let outcome = match context.is_cancelled() {
            true => Err(context.cancelled()),
            false => {
                // What a panic leaves half done belongs to the call alone.
                let run = AssertUnwindSafe(|| {
                    let unreadable =
                        |error: PartedError| context.failure(format!("cannot be read: {error}"));
                    let call = native_call(calls, index).map_err(unreadable)?;
                    self.runner.run(call, &context)
                });
                catch_unwind(run).unwrap_or_else(|panic| Err(panicked(&context, &*panic)))
            }
        };
        self.running.lock().remove(&number);
        match outcome {
            Ok(value) if value.fits(1) && !matches!(value, Value::Object { .. }) => Ok(value),
            Ok(_) => Err(context.failure("a native task gave a value of a form that it must not")),
            Err(mut failure) => {
                failure.worker.clone_from(&self.worker);
                Err(failure)
            }
        }
    }
}

fn native_call(calls: &ExecutorCalls, index: u32) -> Result<NativeCall, PartedError> {
    let at = index - calls.run.start;
    let (args, inputs) = match &calls.work {
        ExecutorWork::One { args, given } => (args, given.iter().map(native_input).collect()),
        ExecutorWork::Map { inputs, constants } => {
            let input = |input: &GivenInput| match input {
                GivenInput::Values(column) => {
                    Ok(NativeInput::Value(Value::Column(column.slice(at, 1))))
                }
                GivenInput::Each(given) => native_input(&given[at as usize]),
            };
            (constants, inputs.iter().map(input).collect())
        }
    };
    let inputs: Result<Vec<NativeInput>, PartedError> = inputs;
    Ok(NativeCall {
        task: TaskId::new(calls.run.layer, index),
        attempt: calls.attempt,
        template: calls.template,
        label: calls.label.clone(),
        args: args.clone(),
        inputs: inputs?,
    })
}

fn native_input(given: &Given) -> Result<NativeInput, PartedError> {
    match given {
        Given::Value(value) => Ok(NativeInput::Value(value.clone())),
        Given::Parts { parts, written } => Ok(NativeInput::Parts(parts_of(written, *parts)?)),
        Given::Live(task) => unreachable!("{task:?} lives in an executor of another kind"),
    }
}

fn panicked(context: &NativeContext<'_>, panic: &(dyn std::any::Any + Send)) -> Box<Failure> {
    let said = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "it said nothing".to_owned());
    let key = context.key();
    context.failure(format!(
        "native task \"{key}\" panicked: {said}; this is a fault of Rasker, not of the task: \
         report it with the task's inputs"
    ))
}

impl Runner for NativeCore {
    fn set_up(&self, _: &Datum) {}

    fn define(&self, templates: Vec<Template>) {
        self.runner.define(templates);
    }

    fn work(&self, next: &mut dyn FnMut() -> Option<ExecutorCalls>, sink: &dyn Sink) {
        while let Some(calls) = next() {
            sink.begin(calls.run, calls.attempt);
            for index in calls.run.indices() {
                sink.at(index);
                match self.call(&calls, index, sink) {
                    Ok(value) => sink.value(index, value),
                    Err(failure) => sink.failed(index, failure.into()),
                }
            }
        }
    }

    fn drop_values(&self, _: &[Run]) {}

    fn export(&self, _: TaskId, value: Option<Value>) -> Result<Option<Value>, Arc<Failure>> {
        Ok(value)
    }

    fn trim(&self) {
        self.runner.trim();
        self.arena.trim();
    }

    fn answer(&self, _: &Blob) -> Blob {
        Blob::EMPTY
    }

    fn cancel(&self, runs: &[(Run, u32)]) {
        let running = self.running.lock();
        let is_meant = |(task, attempt): &(TaskId, u32)| {
            runs.iter().any(|(run, at)| at == attempt && run.contains(*task))
        };
        let meant: Vec<_> = (running.iter())
            .filter(|(number, _)| is_meant(number))
            .map(|(_, cancellation)| cancellation.clone())
            .collect();
        drop(running);
        meant.iter().for_each(|cancellation| cancellation.cancel());
    }

    fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        let running: Vec<_> = self.running.lock().values().cloned().collect();
        running.iter().for_each(|cancellation| cancellation.cancel());
    }
}
