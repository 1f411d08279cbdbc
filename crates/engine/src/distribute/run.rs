//! Runs the tasks of fragments in a worker.

use super::Fragment;
use super::input::TaskInputs;
use super::narrow::narrow;
use super::parts::{PartWriter, Parts, Sharing};
use super::range::{Comparable, Cutter, RangeStep, Step};
use crate::environment::Environment;
use crate::row_ranges::by_rows;
use crate::{Context, EngineError, Result};
use ::bytes::Bytes;
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::execution::memory_pool::{MemoryPool, MemoryReservation};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SessionState, TaskContext};
use datafusion::physical_expr::Partitioning;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::filter_pushdown::FilterPushdown;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::{ExecutionPlan, collect};
use futures::StreamExt;
use rasker_io::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Memory that operators ask for, as whoever runs fragments keeps account of it.
pub trait Reservations: Send + Sync + std::fmt::Debug {
    /// Whether so many more bytes may be taken.
    fn try_reserve(&self, nbytes: u64) -> bool;
    /// They are taken, room or not.
    fn reserve(&self, nbytes: u64);
    fn release(&self, nbytes: u64);
}

/// What a worker needs to run fragments: shared by all its tasks.
pub struct FragmentRunner {
    environment: Arc<Environment>,
    state: SessionState,
}

impl FragmentRunner {
    pub fn new(environment: Arc<Environment>) -> FragmentRunner {
        let state = Context::within(environment.clone()).fragment_state();
        FragmentRunner { environment, state }
    }

    /// Runs one partition on this thread; `check` is asked now and then whether to go on.
    ///
    /// # Errors
    ///
    /// What operators say; [`crate::Kind::Cancelled`] if `check` said no.
    pub fn run(
        &self,
        fragment: &Fragment,
        partition: u32,
        inputs: Vec<Vec<Bytes>>,
        memory: Option<Arc<dyn Reservations>>,
        check: &dyn Fn() -> bool,
    ) -> Result<Parts> {
        for (url, options) in &fragment.stores {
            self.environment.open(&Location::parse(url)?, options)?;
        }
        let base = self.state.task_ctx();
        let config = base
            .session_config()
            .clone()
            .with_batch_size(fragment.batch_size as usize)
            .with_extension(Arc::new(TaskInputs(inputs)));
        let mut context = TaskContext::from(&self.state).with_session_config(config);
        if let Some(memory) = memory {
            let resources = RuntimeEnvBuilder::from_runtime_env(&self.environment.resources)
                .with_memory_pool(Arc::new(AskingPool::new(memory)));
            context = context.with_runtime(resources.build_arc()?);
        }
        for function in &fragment.functions {
            function.register(&mut context)?;
        }
        let context = Arc::new(context);
        let plan = fragment.plan(&context)?;
        let partition = partition as usize;
        let n_parts = fragment.n_parts as usize;
        let (plan, sharing) = self.shared_out(plan, partition, &context, check)?;
        let plan = self.improve(narrow(plan, partition)?)?;
        let mut writer = PartWriter::new(&plan.schema(), sharing, n_parts)?;
        self.environment.wait(
            async {
                let plan = by_rows(plan, &context.runtime_env()).await?;
                let mut rows = plan.execute(0, context)?;
                while let Some(batch) = rows.next().await {
                    writer.push(batch?)?;
                }
                Ok::<_, EngineError>(())
            },
            check,
        )?;
        writer.finish()
    }

    /// The plan beneath the node that says how its rows are shared out, and how.
    fn shared_out(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        partition: usize,
        context: &Arc<TaskContext>,
        check: &dyn Fn() -> bool,
    ) -> Result<(Arc<dyn ExecutionPlan>, Sharing)> {
        if let Some(node) = plan.downcast_ref::<RepartitionExec>() {
            let sharing = match node.partitioning() {
                Partitioning::Hash(keys, _) => Sharing::Hash(keys.clone()),
                _ => Sharing::None,
            };
            return Ok((node.input().clone(), sharing));
        }
        let Some(node) = plan.downcast_ref::<RangeStep>() else {
            return Ok((plan, Sharing::None));
        };
        let keys = Comparable::new(&node.ordering, &node.inputs[0].schema())?;
        let sharing = match (node.step, node.inputs.as_slice()) {
            (Step::Sample, _) => Sharing::Sample { keys, partition },
            (Step::Cut, [_, bounds]) => {
                let bounds = collect(bounds.clone(), context.clone());
                let bounds = self.environment.wait(async { Ok(bounds.await?) }, check)?;
                Sharing::Range(Cutter::new(keys, &bounds)?)
            }
            _ => return Ok((plan, Sharing::None)),
        };
        Ok((node.inputs[0].clone(), sharing))
    }

    /// What an optimizer can do only where the plan runs: filters that are made while it does go
    /// to the scans of the same task.
    fn improve(&self, plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        let config = self.state.config_options();
        let plan = FilterPushdown::new_post_optimization().optimize(plan, config)?;
        let rules = crate::hot::rules();
        let improved = rules.iter().try_fold(plan, |plan, rule| rule.optimize(plan, config));
        Ok(improved?)
    }
}

/// Passes on what operators ask for.
#[derive(Debug)]
struct AskingPool {
    memory: Arc<dyn Reservations>,
    reserved: AtomicUsize,
}

impl AskingPool {
    fn new(memory: Arc<dyn Reservations>) -> AskingPool {
        AskingPool { memory, reserved: AtomicUsize::new(0) }
    }
}

impl std::fmt::Display for AskingPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the worker's memory, of which {} bytes are reserved", self.reserved())
    }
}

impl MemoryPool for AskingPool {
    fn name(&self) -> &str {
        "worker"
    }

    fn grow(&self, _: &MemoryReservation, additional: usize) {
        self.memory.reserve(additional as u64);
        self.reserved.fetch_add(additional, Ordering::Relaxed);
    }

    fn shrink(&self, _: &MemoryReservation, shrink: usize) {
        self.memory.release(shrink as u64);
        self.reserved.fetch_sub(shrink, Ordering::Relaxed);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> DfResult<()> {
        if self.memory.try_reserve(additional as u64) {
            self.reserved.fetch_add(additional, Ordering::Relaxed);
            return Ok(());
        }
        Err(DataFusionError::ResourcesExhausted(format!(
            "{} asked for {additional} bytes more, which its worker does not have",
            reservation.consumer().name()
        )))
    }

    fn reserved(&self) -> usize {
        self.reserved.load(Ordering::Relaxed)
    }
}

impl Drop for AskingPool {
    fn drop(&mut self) {
        self.memory.release(self.reserved() as u64);
    }
}
