//! The leaf of a fragment: rows that other tasks wrote.

use super::bytes::Decoded;
use super::narrow::of_one;
use crate::EngineError;
use ::bytes::Bytes;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result as DfResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{
    AcrossPartitions, ConstExpr, EquivalenceProperties, LexOrdering, Partitioning, PhysicalExpr,
};
use datafusion::physical_plan::execution_plan::{
    Boundedness, EmissionType, ReplaceChildrenOptions,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use std::fmt;
use std::sync::Arc;

/// What a task was given to read: by slot, one run of bytes for each writer, in their order.
#[derive(Debug, Default)]
pub(crate) struct TaskInputs(pub Vec<Vec<Bytes>>);

/// Whose rows are a partition of a [`TaskInput`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writers {
    /// Those of all writers, as far as the task was given them.
    All,
    /// Each writer's own.
    Each,
    /// Those of one writer are the only partition.
    One(usize),
}

/// Reads a slot of the [`TaskInputs`] that the task's context carries.
#[derive(Clone, Debug)]
pub(crate) struct TaskInput {
    pub slot: usize,
    pub writers: Writers,
    properties: Arc<PlanProperties>,
}

impl TaskInput {
    /// `constants` have one value in all rows of all partitions.
    pub fn new(
        slot: usize,
        schema: SchemaRef,
        partitioning: Partitioning,
        ordering: Option<LexOrdering>,
        constants: Vec<Arc<dyn PhysicalExpr>>,
    ) -> DfResult<TaskInput> {
        let mut equivalences = EquivalenceProperties::new(schema);
        let uniform = |one| ConstExpr::new(one, AcrossPartitions::Uniform(None));
        equivalences.add_constants(constants.into_iter().map(uniform))?;
        if let Some(ordering) = ordering {
            equivalences.add_ordering(ordering);
        }
        let properties = PlanProperties::new(
            equivalences,
            partitioning,
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(TaskInput { slot, writers: Writers::All, properties: Arc::new(properties) })
    }

    /// The same, with each writer as a partition of its own.
    pub fn each(self) -> TaskInput {
        TaskInput { writers: Writers::Each, ..self }
    }

    /// One of its partitions.
    pub fn only(self, partition: usize) -> TaskInput {
        let partitioning = of_one(&self.properties.partitioning);
        let properties = self.properties.as_ref().clone().with_partitioning(partitioning);
        let writers = match self.writers {
            Writers::Each => Writers::One(partition),
            writers => writers,
        };
        TaskInput { writers, properties: Arc::new(properties), ..self }
    }
}

impl DisplayAs for TaskInput {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskInput: slot={}, partitioning={}", self.slot, self.properties.partitioning)
    }
}

impl ExecutionPlan for TaskInput {
    fn name(&self) -> &'static str {
        "TaskInput"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
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
        let inputs = context.session_config().get_extension::<TaskInputs>();
        let given = inputs.as_ref().and_then(|inputs| inputs.0.get(self.slot));
        let Some(given) = given else {
            let text = format!("the task was given nothing to read in slot {}", self.slot);
            return Err(EngineError::new(crate::Kind::Internal, text).into());
        };
        let one = |writer: usize| given.get(writer).cloned().into_iter().collect();
        let writers = match self.writers {
            Writers::All => given.clone(),
            Writers::Each => one(partition),
            Writers::One(writer) => one(writer),
        };
        let schema = self.schema();
        let expected = schema.clone();
        let batches = writers.into_iter().flat_map(move |bytes| {
            let expected = expected.clone();
            Decoded::new(bytes).map(move |batch| fit(batch?, &expected))
        });
        let stream = futures::stream::iter(batches);
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream)))
    }
}

/// Batches with the schema that the plan names: what travels is the same but for its metadata.
fn fit(batch: RecordBatch, schema: &SchemaRef) -> DfResult<RecordBatch> {
    if batch.schema_ref() == schema {
        return Ok(batch);
    }
    let n = batch.num_rows();
    let options = datafusion::arrow::array::RecordBatchOptions::new().with_row_count(Some(n));
    let columns = batch.columns().to_vec();
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}
