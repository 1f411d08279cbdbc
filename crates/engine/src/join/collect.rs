//! What happens before the first row is joined: the build side is read, and if it does not fit
//! both sides are split into files.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute;
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use datafusion::common::runtime::JoinSet;
use datafusion::common::utils::memory::RecordBatchMemoryCounter;
use datafusion::common::{DataFusionError, Result, resources_datafusion_err};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation, UnboundedMemoryPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{SendableRecordBatchStream, SpillFile, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::DynamicFilterPhysicalExpr;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, SpillMetrics};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, SpillManager};
use futures::StreamExt;

use super::node::{Joined, SpillingHashJoinExec};
use super::parts::{PARTS, PartWriter};
use super::sources::{CollectedExec, InContextExec, SpilledExec};

/// What a row of the build side costs in the hash table, beside its own bytes.
const TABLE_BYTES_PER_ROW: usize = 32;
/// Sixteen to the power of this many parts: what does not fit then is one key.
const DEEPEST: usize = 5;
/// A directly indexed table may have so many slots whatever the number of rows (2 MB) ...
const SMALL_RANGE: i128 = 500_000;
/// ... or this many for each row.
const SLOTS_PER_ROW: i128 = 50;

/// Reads the build side of `join` and says how to go on.
pub(super) async fn prepare(
    join: Arc<HashJoinExec>,
    level: usize,
    metrics: ExecutionPlanMetricsSet,
    context: Arc<TaskContext>,
) -> Result<Joined> {
    let consumer = MemoryConsumer::new("SpillingHashJoin").with_can_spill(true);
    let reservation = consumer.register(context.memory_pool());
    let mut build = join.left().execute(0, Arc::clone(&context))?;
    let mut counter = RecordBatchMemoryCounter::new();
    let mut batches = vec![];
    while let Some(batch) = build.next().await {
        let batch = batch?;
        // DataFusion's join copies all of them into one batch, so for a moment they are twice.
        let size = 2 * counter.count_batch(&batch) + TABLE_BYTES_PER_ROW * batch.num_rows();
        let refused = reservation.try_grow(size).err();
        batches.push(batch);
        let Some(refused) = refused else { continue };
        if level >= DEEPEST {
            return Err(one_key(refused));
        }
        let spill = Spill { join, level, metrics, context };
        return spill.run(batches, build, reservation).await;
    }
    in_memory(&join, batches, reservation, &context)
}

fn one_key(refused: DataFusionError) -> DataFusionError {
    resources_datafusion_err!(
        "rows of one join key do not fit into memory: {refused}; give the query more memory, or \
         group the side of the join that repeats its keys first"
    )
}

/// DataFusion's join over the collected rows. Their memory is already reserved here, so the join
/// itself draws on a pool without a limit while its probe side stays in the query's own.
fn in_memory(
    join: &HashJoinExec,
    batches: Vec<RecordBatch>,
    reservation: MemoryReservation,
    context: &Arc<TaskContext>,
) -> Result<Joined> {
    let direct = direct_table_bytes(join, &batches)?
        .is_some_and(|bytes| reservation.try_grow(bytes).is_ok());
    let left = Arc::new(CollectedExec::new(&join.left().schema(), batches));
    let right = Arc::new(InContextExec::new(Arc::clone(join.right()), Arc::clone(context)));
    let mut inner = join.builder().reset_state().with_new_children(vec![left, right])?.build()?;
    for filter in dynamic_filters(join) {
        inner = inner.with_dynamic_filter_expr(filter)?;
    }
    let runtime = RuntimeEnvBuilder::from_runtime_env(&context.runtime_env())
        .with_memory_pool(Arc::new(UnboundedMemoryPool::default()))
        .build_arc()?;
    let context = Arc::new(inner_context(context, runtime, direct));
    Ok(Joined::InMemory { join: Arc::new(inner), context, _reservation: reservation })
}

/// The bytes of a table that a single integer key indexes directly, if that is worth having: such
/// a table answers with one look where hashing takes two or three, so it may be sparse.
fn direct_table_bytes(join: &HashJoinExec, batches: &[RecordBatch]) -> Result<Option<usize>> {
    let [(key, _)] = join.on() else { return Ok(None) };
    let mut range: Option<(i64, i64)> = None;
    let mut rows = 0;
    for batch in batches {
        rows += batch.num_rows();
        let array = key.evaluate(batch)?.into_array(batch.num_rows())?;
        let found = match array.data_type() {
            DataType::Int64 => {
                let array = array.as_primitive::<Int64Type>();
                compute::min(array).zip(compute::max(array))
            }
            DataType::Int32 => {
                let array = array.as_primitive::<Int32Type>();
                compute::min(array).map(i64::from).zip(compute::max(array).map(i64::from))
            }
            _ => return Ok(None),
        };
        if let Some((least, greatest)) = found {
            let known = range.get_or_insert((least, greatest));
            *known = (known.0.min(least), known.1.max(greatest));
        }
    }
    let Some((least, greatest)) = range else { return Ok(None) };
    let slots = i128::from(greatest) - i128::from(least) + 1;
    let worth = slots <= SMALL_RANGE || slots <= SLOTS_PER_ROW * rows as i128;
    Ok(worth.then_some(slots as usize * size_of::<u32>()))
}

fn inner_context(context: &TaskContext, runtime: Arc<RuntimeEnv>, direct: bool) -> TaskContext {
    let mut config = context.session_config().clone();
    let options = &mut config.options_mut().execution;
    (options.perfect_hash_join_small_build_threshold, options.perfect_hash_join_min_key_density) =
        if direct { (usize::MAX, 0.0) } else { (0, f64::MAX) };
    TaskContext::new(
        context.task_id(),
        context.session_id(),
        config,
        context.scalar_functions().clone(),
        context.higher_order_functions().clone(),
        context.aggregate_functions().clone(),
        context.window_functions().clone(),
        runtime,
    )
}

fn dynamic_filters(join: &HashJoinExec) -> Vec<Arc<DynamicFilterPhysicalExpr>> {
    let filters = join.dynamic_expressions_produced().into_iter();
    filters
        .filter_map(|filter| {
            let any = filter as Arc<dyn std::any::Any + Send + Sync>;
            any.downcast::<DynamicFilterPhysicalExpr>().ok()
        })
        .collect()
}

struct Spill {
    join: Arc<HashJoinExec>,
    level: usize,
    metrics: ExecutionPlanMetricsSet,
    context: Arc<TaskContext>,
}

type Files = Vec<Option<Arc<dyn SpillFile>>>;

impl Spill {
    fn manager(&self, side: &Arc<dyn ExecutionPlan>) -> SpillManager {
        let metrics = SpillMetrics::new(&self.metrics, 0);
        SpillManager::new(self.context.runtime_env(), metrics, side.schema())
            .with_compression_type(self.context.session_config().spill_compression())
    }

    async fn run(
        self,
        batches: Vec<RecordBatch>,
        mut rest: SendableRecordBatchStream,
        reservation: MemoryReservation,
    ) -> Result<Joined> {
        let (left_keys, right_keys): (Vec<_>, Vec<_>) = self.join.on().iter().cloned().unzip();
        let build_manager = self.manager(self.join.left());
        let mut writer = PartWriter::new(build_manager.clone(), left_keys, self.level);
        for batch in batches {
            writer.write(&batch)?;
        }
        reservation.free();
        while let Some(batch) = rest.next().await {
            writer.write(&batch?)?;
        }
        drop(rest);
        let build = writer.finish()?;
        // Nobody will narrow the probe side: it must not wait for a filter that never comes.
        for filter in dynamic_filters(&self.join) {
            filter.mark_complete();
        }
        let probe_manager = self.manager(self.join.right());
        let probe = self.split_probe(&probe_manager, right_keys).await?;
        let mut parts = Vec::with_capacity(PARTS);
        for (part, file) in build.into_iter().enumerate() {
            let build = file.into_iter().collect();
            let probe = probe.iter().filter_map(|files| files[part].clone()).collect();
            let left = Arc::new(SpilledExec::new(build_manager.clone(), build));
            let right = Arc::new(SpilledExec::new(probe_manager.clone(), probe));
            let inner =
                self.join.builder().reset_state().with_new_children(vec![left, right])?.build()?;
            parts.push(Arc::new(SpillingHashJoinExec::at_level(inner, self.level + 1)));
        }
        Ok(Joined::Spilled { parts })
    }

    /// Splits all partitions of the probe side, each on a task of its own.
    async fn split_probe(
        &self,
        manager: &SpillManager,
        keys: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Vec<Files>> {
        let right = self.join.right();
        let mut tasks = JoinSet::new();
        for partition in 0..right.output_partitioning().partition_count() {
            let mut stream = right.execute(partition, Arc::clone(&self.context))?;
            let mut writer = PartWriter::new(manager.clone(), keys.clone(), self.level);
            tasks.spawn(async move {
                while let Some(batch) = stream.next().await {
                    writer.write(&batch?)?;
                }
                writer.finish()
            });
        }
        let mut files = vec![];
        while let Some(done) = tasks.join_next().await {
            files.push(done.map_err(|error| DataFusionError::ExecutionJoin(Box::new(error)))??);
        }
        Ok(files)
    }
}
