//! The leaves of the joins that this node runs inside: rows in memory, rows in files, and a
//! child that keeps the memory pool it was planned with.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_err};
use datafusion::execution::{SendableRecordBatchStream, SpillFile, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
    ReplaceChildrenOptions, SpillManager,
};
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;

type Visitor<'a> = &'a mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>;

fn one_partition(schema: &SchemaRef) -> Arc<PlanProperties> {
    Arc::new(PlanProperties::new(
        EquivalenceProperties::new(Arc::clone(schema)),
        Partitioning::UnknownPartitioning(1),
        EmissionType::Incremental,
        Boundedness::Bounded,
    ))
}

/// What every leaf here says in the same words.
macro_rules! leaf {
    ($name:ident) => {
        impl DisplayAs for $name {
            fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        }

        impl ExecutionPlan for $name {
            fn name(&self) -> &str {
                stringify!($name)
            }

            fn properties(&self) -> &Arc<PlanProperties> {
                &self.properties
            }

            crate::leaf::leaf_methods!();

            fn execute(
                &self,
                _partition: usize,
                _context: Arc<TaskContext>,
            ) -> Result<SendableRecordBatchStream> {
                self.open()
            }
        }
    };
}

/// Rows in memory, handed out once, so that nobody holds them twice.
#[derive(Debug)]
pub(super) struct CollectedExec {
    batches: Mutex<Option<Vec<RecordBatch>>>,
    properties: Arc<PlanProperties>,
}

impl CollectedExec {
    pub(super) fn new(schema: &SchemaRef, batches: Vec<RecordBatch>) -> Self {
        Self { batches: Mutex::new(Some(batches)), properties: one_partition(schema) }
    }

    fn open(&self) -> Result<SendableRecordBatchStream> {
        let Some(batches) = self.batches.lock().take() else {
            return internal_err!("collected rows were asked for twice");
        };
        let stream = futures::stream::iter(batches.into_iter().map(Ok));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream)))
    }
}

leaf!(CollectedExec);

/// Rows in files.
pub(super) struct SpilledExec {
    manager: SpillManager,
    files: Vec<Arc<dyn SpillFile>>,
    properties: Arc<PlanProperties>,
}

impl fmt::Debug for SpilledExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpilledExec").field("files", &self.files.len()).finish()
    }
}

impl SpilledExec {
    pub(super) fn new(manager: SpillManager, files: Vec<Arc<dyn SpillFile>>) -> Self {
        let properties = one_partition(manager.schema());
        Self { manager, files, properties }
    }

    fn open(&self) -> Result<SendableRecordBatchStream> {
        let manager = self.manager.clone();
        let stream = futures::stream::iter(self.files.clone())
            .map(move |file| manager.read_spill_as_stream_unbuffered(file, None))
            .try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream)))
    }
}

leaf!(SpilledExec);

/// A child that runs in the context it was executed in, whatever the join above it runs in.
#[derive(Debug)]
pub(super) struct InContextExec {
    child: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
}

impl InContextExec {
    pub(super) fn new(child: Arc<dyn ExecutionPlan>, context: Arc<TaskContext>) -> Self {
        Self { child, context }
    }
}

impl DisplayAs for InContextExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("InContextExec")
    }
}

impl ExecutionPlan for InContextExec {
    fn name(&self) -> &str {
        "InContextExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.child.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.child]
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let child = children.remove(0);
        Ok(Arc::new(Self { child, context: Arc::clone(&self.context) }))
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let child = children.remove(0);
        Ok(Arc::new(Self { child, context: Arc::clone(&self.context) }))
    }

    fn apply_expressions(&self, _: Visitor<'_>) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn execute(
        &self,
        partition: usize,
        _context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        self.child.execute(partition, Arc::clone(&self.context))
    }
}
