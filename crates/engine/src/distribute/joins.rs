//! Which joins bring both sides together by hash, and which give one side to every task.
//!
//! A side that every task gets is read and indexed by each of them; bringing rows together writes
//! and reads both sides once. So the smaller side goes to all as long as that is little work.

use crate::estimate::estimated_nbytes;
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::JoinType;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};
use std::sync::Arc;

/// So few bytes are given to any number of tasks.
const FEW_NBYTES: f64 = (2 << 20) as f64;
/// So many are too much for a task, however many rows are on the other side.
const MANY_NBYTES: f64 = (256 << 20) as f64;

/// Decides it for plans of many tasks.
///
/// It stands before the rule that puts exchanges in, which knows what is together already.
#[derive(Debug, Default)]
pub(crate) struct BringTogether;

impl PhysicalOptimizerRule for BringTogether {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let n_tasks = config.execution.target_partitions;
        if n_tasks < 2 {
            return Ok(plan);
        }
        plan.transform_up(|node| match node.downcast_ref::<HashJoinExec>() {
            Some(join) if is_better_brought_together(join, n_tasks) => {
                let join = join.builder().with_partition_mode(PartitionMode::Partitioned);
                Ok(Transformed::yes(join.recompute_properties().build_exec()?))
            }
            _ => Ok(Transformed::no(node)),
        })
        .data()
    }

    fn name(&self) -> &str {
        "bring_together"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn is_better_brought_together(join: &HashJoinExec, n_tasks: usize) -> bool {
    if join.null_aware {
        // One missing value on the right changes what all left rows give.
        return false;
    }
    let (build, probe) = (estimated_nbytes(join.left()), estimated_nbytes(join.right()));
    if gives_unmatched_left(*join.join_type()) {
        // Only who sees all that a left row may match knows whether nothing does.
        return build + probe > FEW_NBYTES;
    }
    build > FEW_NBYTES && (build > MANY_NBYTES || build * (n_tasks - 1) as f64 > probe)
}

/// Whether rows of the left side come out that match nothing, or once whatever they match.
pub(super) fn gives_unmatched_left(join: JoinType) -> bool {
    use JoinType as J;
    matches!(join, J::Left | J::Full | J::LeftSemi | J::LeftAnti | J::LeftMark)
}
