//! How calls are run. What runs them is installed from above: this crate knows no language.

use rasker_graph::{Blob, Run, TaskId, Template};
use rasker_protocol::{Datum, ExecutorCalls, Failure, Value};
use std::sync::Arc;

/// Runs calls, in as many threads at once as it is asked to.
pub trait Runner: Send + Sync + 'static {
    /// Settings, before anything else.
    fn set_up(&self, settings: &Datum);
    fn define(&self, templates: Vec<Template>);
    /// Runs the calls that `next` gives until it gives none; results go to `sink` as they come.
    fn work(&self, next: &mut dyn FnMut() -> Option<ExecutorCalls>, sink: &dyn Sink);
    /// Lets live values go.
    fn drop_values(&self, runs: &[Run]);
    /// Bytes of a live value, or of the object given; none if it is not here any more.
    fn export(&self, task: TaskId, value: Option<Value>) -> Result<Option<Value>, Arc<Failure>>;
    /// Shared memory taken so far, bytes; 0 where nobody counts it.
    fn shared_nbytes(&self) -> u64 {
        0
    }
    /// Gives memory that is not in use back to the system.
    fn trim(&self) {}
    /// Whether values may have to leave memory soon, so that they are best made where they can.
    fn set_crowded(&self, _: bool) {}
    /// A call out of band.
    fn answer(&self, call: &Blob) -> Blob;
    /// Calls of these attempts need not go on.
    fn cancel(&self, _: &[(Run, u32)]) {}
    /// Nothing that runs need go on.
    fn close(&self) {}
}

/// Where results go, in the order of the calls given.
pub trait Sink {
    /// Results of the task at `index` of the calls begun last.
    fn int(&self, index: u32, value: i64);
    fn float(&self, index: u32, value: f64);
    /// A small value in the compact encoding.
    fn packed(&self, index: u32, value: &[u8]);
    /// A value that stays alive in the executor.
    fn live(&self, index: u32, nbytes: u64);
    fn value(&self, index: u32, value: Value);
    fn failed(&self, index: u32, failure: Arc<Failure>);
    /// Calls begin whose results come next.
    fn begin(&self, run: Run, attempt: u32);
    /// The call at `index` of those begun last begins now.
    fn at(&self, index: u32);
    /// The call that is running waits for others, or has waited.
    fn seceded(&self, by: i32);
    /// Whether a task of the calls begun last was cancelled meanwhile.
    fn is_cancelled(&self, index: u32) -> bool;
}
