//! The plan node.

use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, Statistics};
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::distribution_requirements::InputDistributionRequirements;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
    ReplaceChildrenOptions,
};
use futures::future::{BoxFuture, Shared};
use futures::{FutureExt, StreamExt, TryStreamExt};
use parking_lot::Mutex;

use super::collect::prepare;

/// How a join goes on once its build side was read.
pub(super) enum Joined {
    /// The build side fits.
    InMemory {
        join: Arc<HashJoinExec>,
        context: Arc<TaskContext>,
        /// Held as long as any stream of the join runs.
        _reservation: MemoryReservation,
    },
    /// Both sides lie in files; each part is a join of its own.
    Spilled { parts: Vec<Arc<SpillingHashJoinExec>> },
}

type Prepared = Shared<BoxFuture<'static, Result<Arc<Joined>, Arc<DataFusionError>>>>;

/// The preparation that all partitions of one execution wait for.
#[derive(Default)]
struct Round {
    prepared: Option<Prepared>,
    started: usize,
}

/// A hash join that spills. It is described by the join it stands for, which it shows to whoever
/// looks for a hash join in the plan.
pub struct SpillingHashJoinExec {
    join: Arc<HashJoinExec>,
    level: usize,
    round: Mutex<Round>,
    /// The join that ran, for its metrics.
    ran: Arc<Mutex<Option<Arc<HashJoinExec>>>>,
    metrics: ExecutionPlanMetricsSet,
}

impl SpillingHashJoinExec {
    /// The node that joins as `join` does, whose build side is collected into one table.
    pub fn new(join: HashJoinExec) -> Self {
        Self::at_level(join, 0)
    }

    pub(super) fn at_level(join: HashJoinExec, level: usize) -> Self {
        Self {
            join: Arc::new(join),
            level,
            round: Mutex::default(),
            ran: Arc::default(),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }

    /// The preparation of this execution; a plan that is executed again prepares again.
    fn prepared(&self, context: &Arc<TaskContext>) -> Prepared {
        let mut round = self.round.lock();
        let prepared = round.prepared.clone().unwrap_or_else(|| {
            let join = Arc::clone(&self.join);
            let work = prepare(join, self.level, self.metrics.clone(), Arc::clone(context));
            let ran = Arc::clone(&self.ran);
            let work = work.map(move |joined| {
                if let Ok(Joined::InMemory { join, .. }) = &joined {
                    *ran.lock() = Some(Arc::clone(join));
                }
                joined.map(Arc::new).map_err(Arc::new)
            });
            work.boxed().shared()
        });
        round.started += 1;
        let all = round.started == self.properties().partitioning.partition_count();
        *round = match all {
            true => Round::default(),
            false => Round { prepared: Some(prepared.clone()), started: round.started },
        };
        prepared
    }

    fn with_join(&self, join: HashJoinExec) -> Arc<dyn ExecutionPlan> {
        Arc::new(Self::at_level(join, self.level))
    }
}

impl fmt::Debug for SpillingHashJoinExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpillingHashJoinExec").field("join", &self.join).finish_non_exhaustive()
    }
}

impl DisplayAs for SpillingHashJoinExec {
    fn fmt_as(&self, kind: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        if !matches!(kind, DisplayFormatType::TreeRender) {
            f.write_str("Spilling")?;
        }
        self.join.fmt_as(kind, f)
    }
}

impl ExecutionPlan for SpillingHashJoinExec {
    fn name(&self) -> &'static str {
        "SpillingHashJoinExec"
    }

    fn downcast_delegate(&self) -> Option<&dyn ExecutionPlan> {
        Some(self.join.as_ref())
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.join.properties()
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        self.join.input_distribution_requirements()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.join.children()
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let builder = match options.children_properties {
            ChildrenPropertiesMode::Keep => self.join.builder(),
            ChildrenPropertiesMode::Recompute => self.join.builder().recompute_properties(),
        };
        Ok(self.with_join(builder.with_new_children(children)?.build()?))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
        self.replace_children(children, options)
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.join.apply_expressions(f)
    }

    fn dynamic_expressions_produced(&self) -> Vec<Arc<dyn PhysicalExpr>> {
        self.join.dynamic_expressions_produced()
    }

    fn reset_state(self: Arc<Self>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self.with_join(self.join.builder().reset_state().build()?))
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let prepared = self.prepared(&context);
        let partitions = self.properties().partitioning.partition_count();
        let schema = self.schema();
        let stream = async move {
            let joined = prepared.await.map_err(DataFusionError::Shared)?;
            stream_of(&joined, partition, partitions, context)
        };
        let stream = futures::stream::once(stream).try_flatten();
        // Whoever has built the table has woken the partitions that waited for it, on its own
        // thread, from where no other takes them as long as this one goes on.
        let mut is_first = partitions > 1;
        let stream = stream.then(move |batch| {
            let gives_way = std::mem::take(&mut is_first);
            async move {
                if gives_way {
                    tokio::task::yield_now().await;
                }
                batch
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        let mut metrics = self.metrics.clone_inner();
        if let Some(inner) = self.ran.lock().as_ref().and_then(|join| join.metrics()) {
            for metric in inner.iter() {
                metrics.push(Arc::clone(metric));
            }
        }
        Some(metrics)
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        self.join.child_stats_requests(partition)
    }

    fn statistics_from_inputs(
        &self,
        inputs: &[Arc<Statistics>],
        args: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        self.join.statistics_from_inputs(inputs, args)
    }
}

/// The rows of one output partition: its share of the probe side, or its share of the parts.
fn stream_of(
    joined: &Arc<Joined>,
    partition: usize,
    partitions: usize,
    context: Arc<TaskContext>,
) -> Result<SendableRecordBatchStream> {
    let held = Arc::clone(joined);
    match joined.as_ref() {
        Joined::InMemory { join, context, .. } => {
            let stream = join.execute(partition, Arc::clone(context))?;
            let schema = stream.schema();
            let stream = stream.inspect(move |_| {
                let _memory_is_held_until_the_stream_ends = &held;
            });
            Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream)))
        }
        Joined::Spilled { parts } => {
            let schema = parts[0].schema();
            let mine: Vec<_> = parts.iter().skip(partition).step_by(partitions).cloned().collect();
            let stream = futures::stream::iter(mine)
                .map(move |part| part.execute(0, Arc::clone(&context)))
                .try_flatten();
            Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream)))
        }
    }
}
