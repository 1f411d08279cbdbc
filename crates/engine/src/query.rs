//! A statement that is planned: its columns, its rows, its explanation.

use crate::distribute::{Fragment, MemoryTables, Reads, Stage, split};
use crate::environment::{Environment, caught};
use crate::estimate::estimated_nbytes;
use crate::files::{Commit, Staging, by_tasks};
use crate::gather_groups::without_idle_calls;
use crate::row_ranges::by_rows;
use crate::{EngineError, Kind, Result, hot};
use datafusion::arrow::array::{ArrayRef, RecordBatch, UInt64Array};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::SessionState;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::expr::NullTreatment;
use datafusion::logical_expr::{
    Expr, LogicalPlan, LogicalPlanBuilder, Partitioning as LogicalPartitioning, Repartition,
};
use datafusion::physical_expr::Partitioning;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::{ExecutionPlan, collect_partitioned, displayable, execute_stream};
use futures::StreamExt;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Batches that wait for whoever reads a stream.
const N_BUFFERED: usize = 4;

/// A task reads about so much of files.
const TASK_NBYTES: u64 = 128 << 20;

/// How many share a query's work, and from what size on.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    /// Tasks that run at once.
    pub n_slots: usize,
    /// Queries over fewer bytes of input are one task.
    pub whole_nbytes: u64,
    /// Fewer bytes of rows are put into order by one task, more by all.
    pub range_nbytes: u64,
}

/// A planned statement, as lazy as it was asked for: rows are made when they are asked for.
#[derive(Clone)]
pub struct Query {
    environment: Arc<Environment>,
    state: SessionState,
    plan: LogicalPlan,
    /// Where files are written before they appear.
    staging: Option<Staging>,
    /// The answer of a statement that was run at once.
    done: Option<Arc<Vec<RecordBatch>>>,
    /// What reads tables in this process, since it was last run here.
    reading: Arc<Mutex<Vec<Arc<dyn ExecutionPlan>>>>,
}

impl Query {
    pub(crate) fn new(
        environment: Arc<Environment>,
        state: SessionState,
        plan: LogicalPlan,
    ) -> Query {
        let reading = Arc::default();
        Query { environment, state, plan, staging: None, done: None, reading }
    }

    pub(crate) fn nothing(environment: Arc<Environment>, state: SessionState) -> Query {
        let plan = LogicalPlanBuilder::empty(false).build().expect("nothing can be planned");
        Query::new(environment, state, plan).done(Vec::new())
    }

    /// The same, writing files aside first.
    pub(crate) fn aside(mut self, staging: Option<Staging>) -> Query {
        self.staging = staging;
        self
    }

    /// Whether it changes something, and is therefore run when it is said.
    pub(crate) fn is_eager(&self) -> bool {
        self.done.is_none() && matches!(self.plan, LogicalPlan::Dml(_) | LogicalPlan::Copy(_))
    }

    /// Whether it was run when it was said: its rows are here.
    pub fn is_done(&self) -> bool {
        self.done.is_some()
    }

    pub(crate) fn done(mut self, rows: Vec<RecordBatch>) -> Query {
        self.done = Some(Arc::new(rows));
        self
    }

    pub(crate) fn logical(&self) -> &LogicalPlan {
        &self.plan
    }

    /// The columns; text is of plain types here, whatever it is within the engine.
    pub fn schema(&self) -> SchemaRef {
        // What was planned says types as they were written; `1` beside `2.5` is known to be no
        // integer only when both have been looked at.
        let analyzer = self.state.analyzer();
        let config = self.state.config_options();
        let analyzed = analyzer.execute_and_check(self.plan.clone(), config, |_, _| {});
        let plan = analyzed.as_ref().unwrap_or(&self.plan);
        plain_schema(plan.schema().inner())
    }

    /// All rows, in order: where no order was asked for, in that of the files.
    pub fn collect(&self, check: &dyn Fn() -> bool) -> Result<Vec<RecordBatch>> {
        if let Some(done) = &self.done {
            return Ok(done.to_vec());
        }
        let schema = self.schema();
        let collect = async {
            let plan = self.physical().await?;
            let parts = collect_partitioned(plan, self.state.task_ctx()).await?;
            let batches = parts.into_iter().flatten().filter(|batch| batch.num_rows() > 0);
            batches.map(|batch| plain(batch, &schema)).collect()
        };
        // On a thread of the engine, as its tasks wake each other there at less cost.
        self.environment.wait(collect, check)
    }

    /// Rows as they come.
    pub fn stream(&self, check: &dyn Fn() -> bool) -> Result<Batches> {
        let (sender, batches) = mpsc::channel(N_BUFFERED);
        if let Some(done) = &self.done {
            let done: Vec<_> = done.iter().cloned().map(Ok).collect();
            return Ok(Batches {
                schema: self.schema(),
                rest: done.into_iter(),
                batches,
                task: None,
            });
        }
        let mut stream = self.environment.wait(
            async {
                let plan = self.physical().await?;
                Ok(execute_stream(plan, self.state.task_ctx())?)
            },
            check,
        )?;
        let schema = self.schema();
        let task = self.environment.handle().spawn(async move {
            loop {
                let next = caught(async { Ok(stream.next().await.transpose()?) });
                let Some(batch) = next.await.transpose() else { break };
                let batch = batch.and_then(|batch| plain(batch, &schema));
                let is_last = batch.is_err();
                if sender.send(batch).await.is_err() || is_last {
                    break;
                }
            }
        });
        Ok(Batches {
            schema: self.schema(),
            rest: Vec::new().into_iter(),
            batches,
            task: Some((task, self.environment.clone())),
        })
    }

    /// Rows that this process has read of tables so far.
    pub fn n_rows_read(&self) -> u64 {
        let reading = self.reading.lock();
        let metrics = reading.iter().filter_map(|leaf| leaf.metrics());
        metrics.filter_map(|metrics| metrics.output_rows()).sum::<usize>() as u64
    }

    /// How it would be run, or with `analyze` how it was.
    pub fn explain(
        &self,
        analyze: bool,
        verbose: bool,
        check: &dyn Fn() -> bool,
    ) -> Result<String> {
        let plan =
            LogicalPlanBuilder::from(self.plan.clone()).explain(verbose, analyze)?.build()?;
        let explained = Query::new(self.environment.clone(), self.state.clone(), plan);
        let mut text = String::new();
        for batch in explained.collect(check)? {
            let column = |at: usize| cast(batch.column(at), &DataType::Utf8);
            let (kinds, plans) = (column(0)?, column(1)?);
            use datafusion::arrow::array::AsArray;
            for (kind, plan) in kinds.as_string::<i32>().iter().zip(plans.as_string::<i32>().iter())
            {
                text.push_str(&format!("{}\n{}\n", kind.unwrap_or(""), plan.unwrap_or("")));
            }
        }
        Ok(text)
    }

    /// How a cluster would run it: its stages, each with its plan.
    ///
    /// # Errors
    ///
    /// As [`Query::stages`].
    pub fn explain_stages(
        &self,
        spread: Spread,
        verbose: bool,
        check: &dyn Fn() -> bool,
    ) -> Result<String> {
        let all = self.stages_for(spread, check)?;
        let mut text = String::new();
        for (number, stage) in all.stages.iter().enumerate() {
            let reads = stage.inputs.iter().enumerate().map(|(slot, (from, reads))| {
                let what = match reads {
                    Reads::Part { .. } => "a part",
                    Reads::All => "all",
                    Reads::Own => "the same task's",
                };
                format!("; slot {slot} is {what} of stage {from}")
            });
            let tasks = match (stage.given.is_some(), stage.n_tasks) {
                (true, _) => {
                    format!("a table in memory, brought to workers in {} parts", stage.n_parts)
                }
                (false, 1) => "1 task".to_owned(),
                (false, n) => format!("{n} tasks"),
            };
            text.push_str(&format!("stage {number}: {tasks}{}\n", reads.collect::<String>()));
            for line in displayable(stage.plan.as_ref()).indent(verbose).to_string().lines() {
                text.push_str(&format!("  {line}\n"));
            }
        }
        Ok(text)
    }

    /// The same as stages of `n` tasks; rows of a result in order are shared out by range from
    /// `range_nbytes` on.
    ///
    /// # Errors
    ///
    /// [`crate::Kind::Unsupported`] for what only one process can run.
    pub fn stages(&self, n: usize, range_nbytes: u64, check: &dyn Fn() -> bool) -> Result<Stages> {
        travels(&self.plan)?;
        // The catalog is there, and would be made anew, empty.
        let mut config = self.state.config().clone().with_create_default_catalog_and_schema(false);
        let options = config.options_mut();
        options.execution.target_partitions = n;
        // What leans on partitions of one process seeing each other does not travel.
        options.execution.enable_file_stream_work_stealing = false;
        options.optimizer.enable_physical_uncorrelated_scalar_subquery = false;
        options.optimizer.enable_round_robin_repartition = false;
        options.optimizer.enable_dynamic_filter_pushdown = false;
        options.optimizer.enable_join_dynamic_filter_pushdown = false;
        options.optimizer.enable_topk_dynamic_filter_pushdown = false;
        options.optimizer.enable_aggregate_dynamic_filter_pushdown = false;
        options.optimizer.prefer_existing_sort = false;
        let state = SessionStateBuilder::new_from_existing(self.state.clone())
            .with_config(config)
            .with_physical_optimizer_rules(hot::planning_rules())
            .build();
        let (plan, keys) = shared_out(&self.plan);
        let physical = async { Ok(state.create_physical_plan(plan).await?) };
        let mut physical = without_idle_calls(self.environment.wait(physical, check)?)?;
        if let Some(keys) = keys {
            let keys =
                keys.iter().map(|key| state.create_physical_expr(key.clone(), plan.schema()));
            let keys = keys.collect::<std::result::Result<Vec<_>, _>>()?;
            let hash = Partitioning::Hash(keys, n.max(1));
            physical = Arc::new(RepartitionExec::try_new(physical, hash)?);
        }
        let (physical, files) = by_tasks(physical, self.staging.clone())?;
        // Several tasks would write several files.
        let is_alone = files.as_ref().is_some_and(|files| files.is_one_file);
        let is_ranged = |rows: &Arc<dyn ExecutionPlan>| {
            !is_alone && estimated_nbytes(rows) >= range_nbytes as f64
        };
        let stages = split(physical, MemoryTables::of(&self.plan)?, &is_ranged)?;
        Ok(Stages { stages, files, environment: self.environment.clone() })
    }

    /// The same for a cluster: as one task over few bytes, as more tasks than slots over many.
    ///
    /// # Errors
    ///
    /// As [`Query::stages`].
    pub fn stages_for(&self, spread: Spread, check: &dyn Fn() -> bool) -> Result<Stages> {
        let n_slots = spread.n_slots.max(1);
        let stages = self.stages(n_slots, spread.range_nbytes, check)?;
        let read = |stage: &Stage| match &stage.given {
            Some(given) => given.nbytes(),
            None => scanned_nbytes(&stage.plan),
        };
        let nbytes: u64 = stages.stages.iter().map(read).sum();
        let n_rounds = nbytes.div_ceil(TASK_NBYTES * n_slots as u64).max(1) as usize;
        let n = if nbytes < spread.whole_nbytes { 1 } else { n_slots * n_rounds };
        if n == n_slots { Ok(stages) } else { self.stages(n, spread.range_nbytes, check) }
    }

    /// A stage as it travels.
    ///
    /// # Errors
    ///
    /// [`crate::Kind::Unsupported`] for what cannot travel.
    pub fn fragment(&self, stage: &Stage) -> Result<Fragment> {
        Fragment::new(stage, self.environment.opened())
    }

    async fn physical(&self) -> Result<Arc<dyn ExecutionPlan>> {
        // Within one process all rows are together already.
        let plan = self.state.create_physical_plan(shared_out(&self.plan).0).await?;
        // Rows that are only filtered and computed stay in the order of their files: no partition
        // takes over what another one was to read.
        let plan = plan.with_preserve_order(true).unwrap_or(plan);
        let plan = by_rows(plan, self.state.runtime_env()).await?;
        *self.reading.lock() = leaves(&plan);
        Ok(match &self.staging {
            Some(staging) => Arc::new(Commit::new(plan, staging.clone())),
            None => plan,
        })
    }
}

/// A query as stages of tasks, each after those that it reads; the last one makes the rows, or of
/// a statement that writes the names of what it wrote.
pub struct Stages {
    pub stages: Vec<Stage>,
    files: Option<Staging>,
    environment: Arc<Environment>,
}

impl Stages {
    /// The answer, made of the rows of the last stage: what was written appears.
    ///
    /// # Errors
    ///
    /// If files cannot be moved to where they belong, or are not seen by this process; then none
    /// of them is left.
    pub fn finish(
        &self,
        rows: Vec<RecordBatch>,
        check: &dyn Fn() -> bool,
    ) -> Result<Vec<RecordBatch>> {
        let Some(files) = &self.files else { return Ok(rows) };
        let finish = files.finish(&self.environment.resources, &rows);
        let n_rows = self.environment.wait(finish, check)?;
        let count: ArrayRef = Arc::new(UInt64Array::from(vec![n_rows]));
        Ok(vec![RecordBatch::try_from_iter_with_nullable([("count", count, true)])?])
    }

    /// Removes what was written, if a task failed.
    pub fn give_up(&self) {
        if let Some(files) = &self.files {
            let removed = async {
                files.give_up(&self.environment.resources).await;
                Ok(())
            };
            // What cannot be removed is hidden from whoever lists the folder.
            let _ = self.environment.wait(removed, &|| true);
        }
    }
}

/// What is under a `DISTRIBUTE BY`, and by what rows are to be shared out.
fn shared_out(plan: &LogicalPlan) -> (&LogicalPlan, Option<&[Expr]>) {
    match plan {
        LogicalPlan::Repartition(Repartition {
            input,
            partitioning_scheme: LogicalPartitioning::DistributeBy(keys),
        }) => (input, Some(keys)),
        plan => (plan, None),
    }
}

/// Whether all of a plan is said by the form in which it travels.
///
/// That form leaves out the filter of a window function and how it treats missing values: elsewhere
/// the plan would be another one, and its rows wrong.
fn travels(plan: &LogicalPlan) -> Result<()> {
    let mut stays = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::WindowFunction(function) = expr {
                    stays |= function.params.filter.is_some()
                        || function.params.null_treatment == Some(NullTreatment::IgnoreNulls);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    match stays {
        true => Err(EngineError::new(
            Kind::Unsupported,
            "a window function with a filter or IGNORE NULLS runs in one process only",
        )),
        false => Ok(()),
    }
}

fn leaves(plan: &Arc<dyn ExecutionPlan>) -> Vec<Arc<dyn ExecutionPlan>> {
    match plan.children().as_slice() {
        [] => vec![plan.clone()],
        below => below.iter().flat_map(|below| leaves(below)).collect(),
    }
}

/// Bytes of the files that a plan reads.
fn scanned_nbytes(plan: &Arc<dyn ExecutionPlan>) -> u64 {
    let own = plan
        .downcast_ref::<DataSourceExec>()
        .and_then(|scan| scan.data_source().downcast_ref::<FileScanConfig>())
        .map_or(0, |scan| {
            let files = scan.file_groups.iter().flat_map(|group| group.iter());
            files.map(|file| file.effective_size()).sum()
        });
    own + plan.children().into_iter().map(scanned_nbytes).sum::<u64>()
}

/// Rows on their way; dropping it ends the query.
pub struct Batches {
    schema: SchemaRef,
    rest: std::vec::IntoIter<Result<RecordBatch>>,
    batches: mpsc::Receiver<Result<RecordBatch>>,
    task: Option<(tokio::task::JoinHandle<()>, Arc<Environment>)>,
}

impl Batches {
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Waits for the next batch; `check` is asked now and then whether to go on.
    pub fn next(&mut self, check: &dyn Fn() -> bool) -> Option<Result<RecordBatch>> {
        if let Some(batch) = self.rest.next() {
            return Some(batch);
        }
        let (_, environment) = self.task.as_ref()?;
        let batches = &mut self.batches;
        match environment.wait(async { Ok(batches.recv().await) }, check) {
            Ok(next) => next,
            Err(error) => Some(Err(error)),
        }
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        if let Some((task, _)) = self.task.take() {
            task.abort();
        }
    }
}

/// Views are a layout of the engine; what leaves it is text as everybody knows it.
fn plain_type(kind: &DataType) -> DataType {
    let inner = |field: &FieldRef| Arc::new(plain_field(field));
    match kind {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::List(field) => DataType::List(inner(field)),
        DataType::LargeList(field) => DataType::LargeList(inner(field)),
        DataType::FixedSizeList(field, n) => DataType::FixedSizeList(inner(field), *n),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(inner).collect()),
        DataType::Map(field, sorted) => DataType::Map(inner(field), *sorted),
        other => other.clone(),
    }
}

fn plain_field(field: &Field) -> Field {
    field.clone().with_data_type(plain_type(field.data_type()))
}

pub(crate) fn plain_schema(schema: &Schema) -> SchemaRef {
    // What a plan says of missing values and what its batches say differ at times.
    let fields = schema.fields().iter().map(|field| plain_field(field).with_nullable(true));
    let fields: Vec<Field> = fields.collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

pub(crate) fn plain(batch: RecordBatch, target: &SchemaRef) -> Result<RecordBatch> {
    if *target == batch.schema() {
        return Ok(batch);
    }
    let columns = batch.columns().iter().zip(target.fields());
    let columns = columns.map(|(column, field)| cast(column, field.data_type()));
    let options =
        datafusion::arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    Ok(RecordBatch::try_new_with_options(target.clone(), columns, &options)?)
}
