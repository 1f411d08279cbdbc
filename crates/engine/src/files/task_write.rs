//! Files written by many tasks, each in a folder of its own.
//!
//! A task may be run twice, and a worker that was given up may go on writing. So each attempt
//! writes to a folder that nobody else has, and says its name beside the number of rows: what is
//! let to appear is what the answers name.

use super::staging::{Commit, Staging};
use crate::{EngineError, Kind, Result};
use datafusion::arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray, UInt64Array};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::file_format::csv::CsvSink;
use datafusion::datasource::file_format::json::JsonSink;
use datafusion::datasource::file_format::parquet::ParquetSink;
use datafusion::datasource::listing::ListingTableUrl;
use datafusion::datasource::physical_plan::{FileSink, FileSinkConfig};
use datafusion::datasource::sink::{DataSink, DataSinkExec};
use datafusion::error::Result as DfResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::execution_plan::{
    Boundedness, EmissionType, ReplaceChildrenOptions,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties,
};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

type Plan = Arc<dyn ExecutionPlan>;

static N_FOLDERS: AtomicU64 = AtomicU64::new(0);

/// What an attempt wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub folder: String,
    pub n_rows: u64,
}

/// Writes the rows of each partition below a folder of its own.
#[derive(Clone, Debug)]
pub(crate) struct TaskWrite {
    input: Plan,
    /// Over no rows: it says where and how.
    sink: Arc<DataSinkExec>,
    partition: usize,
    properties: Arc<PlanProperties>,
}

impl TaskWrite {
    pub fn new(input: Plan, sink: Arc<DataSinkExec>) -> TaskWrite {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(columns()),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        TaskWrite { input, sink, partition: 0, properties: Arc::new(properties) }
    }

    pub fn sink(&self) -> &Arc<DataSinkExec> {
        &self.sink
    }

    /// The same for one partition, whose rows are all that `input` gives.
    pub fn only(&self, partition: usize, input: Plan) -> TaskWrite {
        TaskWrite { partition, ..TaskWrite::new(input, self.sink.clone()) }
    }
}

/// The plan that many tasks run for one that writes, and what lets their files appear.
pub(crate) fn by_tasks(plan: Plan, staging: Option<Staging>) -> Result<(Plan, Option<Staging>)> {
    let (plan, staging) = match plan.downcast_ref::<Commit>() {
        Some(commit) => (commit.input().clone(), Some(commit.staging().clone())),
        None => (plan, staging),
    };
    let Some(sink) = plan.downcast_ref::<DataSinkExec>() else { return Ok((plan, staging)) };
    let Some(staging) = staging else {
        // An object of a store appears when it is whole: two attempts would write the same one.
        return Err(EngineError::new(Kind::Unsupported, "one file in a store of objects"));
    };
    let input = match sink.input().downcast_ref::<CoalescePartitionsExec>() {
        Some(all) if all.fetch().is_none() && !staging.is_one_file => all.input().clone(),
        _ => sink.input().clone(),
    };
    let Some(here) = moved(sink.sink(), "")? else {
        return Err(EngineError::new(Kind::Unsupported, "a format that only one process writes"));
    };
    let nothing = Arc::new(EmptyExec::new(input.schema()));
    let sink = Arc::new(DataSinkExec::new(nothing, here, None));
    Ok((Arc::new(TaskWrite::new(input, sink)), Some(staging)))
}

/// The sink, writing below a folder; none for formats that do not travel.
fn moved(sink: &dyn DataSink, folder: &str) -> Result<Option<Arc<dyn DataSink>>> {
    if let Some(sink) = sink.downcast_ref::<ParquetSink>() {
        let config = below(sink.config(), folder)?;
        return Ok(Some(Arc::new(ParquetSink::new(config, sink.parquet_options().clone()))));
    }
    if let Some(sink) = sink.downcast_ref::<CsvSink>() {
        let config = below(sink.config(), folder)?;
        return Ok(Some(Arc::new(CsvSink::new(config, sink.writer_options().clone()))));
    }
    if let Some(sink) = sink.downcast_ref::<JsonSink>() {
        let config = below(sink.config(), folder)?;
        return Ok(Some(Arc::new(JsonSink::new(config, sink.writer_options().clone()))));
    }
    Ok(None)
}

fn below(config: &FileSinkConfig, folder: &str) -> Result<FileSinkConfig> {
    let mut config = config.clone();
    if folder.is_empty() {
        return Ok(config);
    }
    for path in &mut config.table_paths {
        let url = path.get_url();
        let file = url.path_segments().and_then(|mut parts| parts.next_back()).unwrap_or("");
        let moved = url.join(&format!("{folder}/{file}"));
        let moved = moved.map_err(|error| EngineError::plan(format!("{url}: {error}")))?;
        *path = ListingTableUrl::try_new(moved, None)?;
    }
    Ok(config)
}

/// A name that no other attempt has, which begins with the number of the partition.
fn own_folder(partition: usize) -> String {
    let started = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let moment = started.map_or(0, |started| started.as_nanos());
    let number = N_FOLDERS.fetch_add(1, Ordering::Relaxed);
    format!("{partition:05}-{:x}-{moment:x}-{number:x}", std::process::id())
}

fn columns() -> SchemaRef {
    let fields = [("folder", DataType::Utf8), ("n_rows", DataType::UInt64)];
    Arc::new(Schema::new(fields.map(|(name, kind)| Field::new(name, kind, false)).to_vec()))
}

/// What the rows of the last stage say.
pub(super) fn written(rows: &[RecordBatch]) -> Result<Vec<Written>> {
    let mut all = Vec::new();
    for batch in rows {
        let text = |column: &ArrayRef| cast(column, &DataType::Utf8);
        let folders = text(batch.column(0))?;
        let counts = batch.column(1).as_primitive::<UInt64Type>();
        let folders = folders.as_string::<i32>().iter().flatten();
        let pairs = folders.zip(counts.values());
        all.extend(pairs.map(|(folder, n)| Written { folder: folder.to_owned(), n_rows: *n }));
    }
    Ok(all)
}

impl DisplayAs for TaskWrite {
    fn fmt_as(&self, kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TaskWrite: ")?;
        self.sink.fmt_as(kind, f)
    }
}

impl ExecutionPlan for TaskWrite {
    fn name(&self) -> &'static str {
        "TaskWrite"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Plan> {
        vec![&self.input]
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Plan>,
        _: ReplaceChildrenOptions,
    ) -> DfResult<Plan> {
        Ok(Arc::new(self.only(self.partition, children.swap_remove(0))))
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Plan>) -> DfResult<Plan> {
        Ok(Arc::new(self.only(self.partition, children.swap_remove(0))))
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> DfResult<SendableRecordBatchStream> {
        let rows = self.input.execute(partition, context.clone())?;
        let folder = own_folder(self.partition + partition);
        let Some(sink) = moved(self.sink.sink(), &folder)? else {
            let text = "a format that only one process writes";
            return Err(EngineError::new(Kind::Internal, text).into());
        };
        let counted = async move {
            let n_rows = sink.write_all(rows, &context).await?;
            let columns: [ArrayRef; 2] = [
                Arc::new(StringArray::from(vec![folder])),
                Arc::new(UInt64Array::from(vec![n_rows])),
            ];
            Ok(RecordBatch::try_new(self::columns(), columns.to_vec())?)
        };
        let stream = futures::stream::once(counted);
        Ok(Box::pin(RecordBatchStreamAdapter::new(columns(), stream)))
    }
}
