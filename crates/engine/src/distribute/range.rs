//! Rows in order on many tasks: shared out by ranges of what they are ordered by.
//!
//! ```text
//!   sorted runs ─┬─ rows ────────────────────────► cut ───── parts ────► merge
//!                └─ every so many keys ─► bounds ──┘ a task for each run   a task for each range
//! ```
//!
//! Each run is written as it is, beside a sample of its keys. Bounds are made of all samples, so
//! that ranges have about as many rows each. Rows of equal keys are in one range.

use super::parts::Part;
use crate::{EngineError, Kind, Result};
use datafusion::arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use datafusion::arrow::compute::{concat_batches, take_record_batch};
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::arrow::row::{OwnedRow, RowConverter, SortField};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result as DfResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{
    EquivalenceProperties, LexOrdering, Partitioning, PhysicalExpr, PhysicalSortExpr,
};
use datafusion::physical_plan::execution_plan::{
    Boundedness, EmissionType, ReplaceChildrenOptions,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties,
};
use futures::TryStreamExt;
use std::fmt;
use std::sync::Arc;

type Plan = Arc<dyn ExecutionPlan>;

/// Of so many rows of a run, the key of one says where ranges may begin.
const SAMPLED: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Writes a sample of the keys as the first part, and the rows as a part that only the task
    /// of the same number reads.
    Sample,
    /// Makes of all samples the keys at which so many ranges begin, but for the first.
    Bounds { n: u32 },
    /// Shares rows in order out by the bounds, which are the second input.
    Cut,
}

/// A step on the way. Only bounds are made by executing it: for the other two, who runs a task
/// looks at it to know how rows are shared out.
#[derive(Clone, Debug)]
pub(super) struct RangeStep {
    pub step: Step,
    /// Of the first input.
    pub ordering: LexOrdering,
    pub inputs: Vec<Plan>,
    properties: Arc<PlanProperties>,
}

impl RangeStep {
    pub fn new(step: Step, ordering: LexOrdering, inputs: Vec<Plan>) -> DfResult<RangeStep> {
        let n_inputs = if step == Step::Cut { 2 } else { 1 };
        if inputs.len() != n_inputs {
            return Err(EngineError::new(Kind::Internal, "a range step without its inputs").into());
        }
        let n = match step {
            Step::Bounds { .. } => 1,
            _ => inputs[0].output_partitioning().partition_count(),
        };
        let properties = PlanProperties::new(
            EquivalenceProperties::new(inputs[0].schema()),
            Partitioning::UnknownPartitioning(n),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Ok(RangeStep { step, ordering, inputs, properties: Arc::new(properties) })
    }
}

/// The columns of samples and bounds, and the order of their rows.
pub(super) fn keys_of(ordering: &LexOrdering, rows: &Schema) -> DfResult<(SchemaRef, LexOrdering)> {
    let field = |(at, key): (usize, &PhysicalSortExpr)| {
        Ok(Field::new(format!("key{at}"), key.expr.data_type(rows)?, true))
    };
    let fields = ordering.iter().enumerate().map(field).collect::<DfResult<Vec<_>>>()?;
    let columns = ordering.iter().enumerate().map(|(at, key)| {
        let column = Arc::new(Column::new(&format!("key{at}"), at));
        PhysicalSortExpr::new(column, key.options)
    });
    let columns = LexOrdering::new(columns);
    let columns = columns.ok_or_else(|| EngineError::new(Kind::Internal, "an order of nothing"))?;
    Ok((Arc::new(Schema::new(fields)), columns))
}

/// Keys in a form whose order is that of their bytes.
pub(super) struct Comparable {
    converter: RowConverter,
    exprs: Vec<Arc<dyn PhysicalExpr>>,
    schema: SchemaRef,
}

impl Comparable {
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub fn new(ordering: &LexOrdering, rows: &Schema) -> Result<Comparable> {
        let (schema, _) = keys_of(ordering, rows)?;
        let fields = ordering.iter().zip(schema.fields()).map(|(key, field)| {
            SortField::new_with_options(field.data_type().clone(), key.options)
        });
        let converter = RowConverter::new(fields.collect())?;
        let exprs = ordering.iter().map(|key| key.expr.clone()).collect();
        Ok(Comparable { converter, exprs, schema })
    }

    fn keys(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let n = batch.num_rows();
        self.exprs.iter().map(|key| Ok(key.evaluate(batch)?.into_array(n)?)).collect()
    }

    /// The keys of every so many rows, counted on from `seen` rows before them.
    pub fn sample(&self, batch: &RecordBatch, seen: usize) -> Result<Option<RecordBatch>> {
        let first = (SAMPLED - seen % SAMPLED) % SAMPLED;
        let taken: Vec<u32> =
            (first..batch.num_rows()).step_by(SAMPLED).map(|r| r as u32).collect();
        if taken.is_empty() {
            return Ok(None);
        }
        let taken = take_record_batch(batch, &UInt32Array::from(taken))?;
        Ok(Some(self.batch(self.keys(&taken)?, taken.num_rows())?))
    }

    fn batch(&self, keys: Vec<ArrayRef>, n: usize) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(n));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), keys, &options)?)
    }

    /// The keys at which `n` ranges of about as many rows begin, but for the first.
    fn bounds(&self, samples: &[RecordBatch], n: usize) -> Result<RecordBatch> {
        let all = concat_batches(&self.schema, samples)?;
        let rows = self.converter.convert_columns(all.columns())?;
        let mut order: Vec<u32> = (0..rows.num_rows() as u32).collect();
        order.sort_unstable_by(|a, b| rows.row(*a as usize).cmp(&rows.row(*b as usize)));
        let mut bounds: Vec<u32> = Vec::new();
        for range in 1..n {
            let Some(at) = order.get(order.len() * range / n) else { break };
            let differs =
                bounds.last().is_none_or(|last| rows.row(*last as usize) != rows.row(*at as usize));
            if differs {
                bounds.push(*at);
            }
        }
        Ok(take_record_batch(&all, &UInt32Array::from(bounds))?)
    }

    fn owned(&self, bounds: &[RecordBatch]) -> Result<Vec<OwnedRow>> {
        let mut all = Vec::new();
        for batch in bounds {
            let rows = self.converter.convert_columns(batch.columns())?;
            all.extend(rows.iter().map(|row| row.owned()));
        }
        Ok(all)
    }
}

/// Shares sorted rows out to ranges.
pub(super) struct Cutter {
    keys: Comparable,
    bounds: Vec<OwnedRow>,
    /// Rows so far belong to ranges up to this one.
    range: usize,
}

impl Cutter {
    pub fn new(keys: Comparable, bounds: &[RecordBatch]) -> Result<Cutter> {
        let bounds = keys.owned(bounds)?;
        Ok(Cutter { keys, bounds, range: 0 })
    }

    pub fn push(&mut self, batch: &RecordBatch, parts: &mut [Part]) -> Result<()> {
        let keys = self.keys.converter.convert_columns(&self.keys.keys(batch)?)?;
        let mut start = 0;
        while start < batch.num_rows() {
            let end = match self.bounds.get(self.range) {
                // Rows are in order: those before the bound are a stretch.
                Some(bound) => {
                    let is_before = |row: usize| keys.row(row) < bound.row();
                    partition_point(start, batch.num_rows(), is_before)
                }
                None => batch.num_rows(),
            };
            if end > start {
                parts[self.range].push(batch.slice(start, end - start))?;
            }
            if end < batch.num_rows() {
                self.range += 1;
            }
            start = end;
        }
        Ok(())
    }
}

/// The first number from `low` on, below `high`, that is not `before`.
fn partition_point(mut low: usize, mut high: usize, is_before: impl Fn(usize) -> bool) -> usize {
    while low < high {
        let middle = low + (high - low) / 2;
        match is_before(middle) {
            true => low = middle + 1,
            false => high = middle,
        }
    }
    low
}

impl DisplayAs for RangeStep {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RangeStep: {:?}, by=[{}]", self.step, self.ordering)
    }
}

impl ExecutionPlan for RangeStep {
    fn name(&self) -> &'static str {
        "RangeStep"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Plan> {
        self.inputs.iter().collect()
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Plan>,
        _: ReplaceChildrenOptions,
    ) -> DfResult<Plan> {
        Ok(Arc::new(RangeStep::new(self.step, self.ordering.clone(), children)?))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Plan>) -> DfResult<Plan> {
        Ok(Arc::new(RangeStep::new(self.step, self.ordering.clone(), children)?))
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
        let Step::Bounds { n } = self.step else {
            return self.inputs[0].execute(partition, context);
        };
        let samples = self.inputs[0].execute(partition, context)?;
        let schema = samples.schema();
        let keys = Comparable::new(&self.ordering, &schema)?;
        let bounds = async move {
            let samples: Vec<RecordBatch> = samples.try_collect().await?;
            Ok(keys.bounds(&samples, n as usize)?)
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::once(bounds))))
    }
}
