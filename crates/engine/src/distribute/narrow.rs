//! One partition of a stage's plan as a plan of its own.
//!
//! A task runs one partition, and what runs there must not act as if the others ran beside it: a
//! join that goes to disk would read the partitions of other tasks, and filters made of its build
//! side would wait for them. With one partition a join also need not know whether its sides were
//! brought together by hash or whether one of them was given to all tasks.

use super::TaskInput;
use crate::files::TaskWrite;
use crate::{EngineError, Kind, Result};
use datafusion::datasource::physical_plan::{FileScanConfig, FileScanConfigBuilder};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result as DfResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::Partitioning;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties,
};
use std::fmt;
use std::sync::Arc;

type Plan = Arc<dyn ExecutionPlan>;

/// The plan whose only partition is that one of `plan`. One that has no other is that of all
/// tasks, which are given different things to read.
pub(super) fn narrow(plan: Plan, partition: usize) -> Result<Plan> {
    let n = n_partitions(&plan);
    if n != 1 && partition >= n {
        let text = format!("a fragment of {n} partitions has none of number {partition}");
        return Err(EngineError::new(Kind::Internal, text));
    }
    if plan.children().is_empty() {
        return if n == 1 { Ok(plan) } else { leaf(plan, partition) };
    }
    if plan.downcast_ref::<UnionExec>().is_some() {
        return union(plan, partition);
    }
    let counts: Vec<usize> = plan.children().into_iter().map(n_partitions).collect();
    if n == 1 && counts.iter().any(|count| *count > 1) {
        // It brings partitions together, all of which are its own.
        return Ok(plan);
    }
    let children = plan.children().into_iter().cloned().zip(counts);
    let children = children.map(|(child, count)| match count {
        // All tasks read the whole of it.
        1 => narrow(child, 0),
        _ => narrow(child, partition),
    });
    let children = children.collect::<Result<Vec<Plan>>>()?;
    if let Some(write) = plan.downcast_ref::<TaskWrite>()
        && let [input] = children.as_slice()
    {
        return Ok(Arc::new(write.only(partition, input.clone())));
    }
    if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
        let join = join.builder().with_partition_mode(PartitionMode::CollectLeft);
        return Ok(join.with_new_children(children)?.recompute_properties().build_exec()?);
    }
    Ok(replace_children_if_necessary(plan, children)?)
}

fn n_partitions(plan: &Plan) -> usize {
    plan.output_partitioning().partition_count()
}

fn leaf(plan: Plan, partition: usize) -> Result<Plan> {
    if let Some(input) = plan.downcast_ref::<TaskInput>() {
        return Ok(Arc::new(input.clone().only(partition)));
    }
    let scan = plan.downcast_ref::<DataSourceExec>();
    let files = scan.and_then(|scan| scan.data_source().downcast_ref::<FileScanConfig>());
    if let Some(files) = files {
        let declared = files.output_partitioning.as_ref().map(of_one);
        let only = FileScanConfigBuilder::from(files.clone())
            .with_file_groups(vec![files.file_groups[partition].clone()])
            .with_output_partitioning(declared)
            .build();
        return Ok(DataSourceExec::from_data_source(only));
    }
    let properties = plan.properties().as_ref().clone();
    let partitioning = of_one(&properties.partitioning);
    let properties = Arc::new(properties.with_partitioning(partitioning));
    Ok(Arc::new(OnlyPartition { plan, partition, properties }))
}

/// How one partition of many is partitioned.
pub(super) fn of_one(partitioning: &Partitioning) -> Partitioning {
    match partitioning {
        Partitioning::Hash(keys, _) => Partitioning::Hash(keys.clone(), 1),
        _ => Partitioning::UnknownPartitioning(1),
    }
}

/// A union of one branch; the others give their columns, and no partition.
fn union(plan: Plan, partition: usize) -> Result<Plan> {
    let mut before = 0;
    let mut branches = Vec::new();
    for branch in plan.children() {
        let n = n_partitions(branch);
        branches.push(match partition.checked_sub(before) {
            Some(within) if within < n => narrow(branch.clone(), within)?,
            _ => Arc::new(EmptyExec::new(branch.schema()).with_partitions(0)),
        });
        before += n;
    }
    Ok(replace_children_if_necessary(plan, branches)?)
}

/// One partition of a leaf that knows only all of them.
#[derive(Debug)]
struct OnlyPartition {
    plan: Plan,
    partition: usize,
    properties: Arc<PlanProperties>,
}

impl DisplayAs for OnlyPartition {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OnlyPartition: {} of {}", self.partition, self.plan.name())
    }
}

impl ExecutionPlan for OnlyPartition {
    fn name(&self) -> &'static str {
        "OnlyPartition"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    crate::leaf::leaf_methods!();

    fn execute(&self, _: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        self.plan.execute(self.partition, context)
    }
}
