//! A hash join that goes to disk when its build side does not fit into memory.
//!
//! DataFusion's hash join keeps its build side in memory or fails. [`SpillingHashJoinExec`] reads
//! the build side first. If it fits, DataFusion's join runs over it as it is. If not, both sides
//! are split by the hash of their keys into files, and the parts are joined one after another by
//! this same node, which splits again what still does not fit (a Grace hash join).
//!
//! ```text
//! build ─▶ collect ─┬─ fits ──────────▶ HashJoinExec(collected, probe)
//!                   └─ does not fit ─▶ 16 files ┐
//! probe ─────────────────────────────▶ 16 files ┴▶ SpillingHashJoinExec(file i, file i)
//! ```
//!
//! Only rows of one and the same key cannot be split; when those alone do not fit, the query
//! fails with an error that says so.

mod collect;
mod node;
mod parts;
mod sources;

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, Partitioning};

pub use node::SpillingHashJoinExec;

/// Replaces hash joins by ones that can spill.
#[derive(Debug, Default)]
pub(crate) struct SpillJoin;

impl PhysicalOptimizerRule for SpillJoin {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| match replaceable(&node) {
            Some(join) => {
                let spilling = SpillingHashJoinExec::new(join.builder().build()?);
                Ok(Transformed::yes(Arc::new(spilling) as Arc<dyn ExecutionPlan>))
            }
            None => Ok(Transformed::no(node)),
        })
        .data()
    }

    fn name(&self) -> &str {
        "spill_join"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// A join whose rows may come in any order and from any partition: that is what spilling does to
/// them, so a plan that counts on more keeps DataFusion's join.
fn replaceable(node: &Arc<dyn ExecutionPlan>) -> Option<&HashJoinExec> {
    if node.name() == SpillingHashJoinExec::static_name() {
        return None;
    }
    let join = node.downcast_ref::<HashJoinExec>()?;
    let partitioning = node.output_partitioning();
    let loose = partitioning.partition_count() == 1
        || matches!(
            partitioning,
            Partitioning::UnknownPartitioning(_) | Partitioning::RoundRobinBatch(_)
        );
    let ours = *join.partition_mode() == PartitionMode::CollectLeft
        && join.left().output_partitioning().partition_count() == 1;
    (ours
        && loose
        && node.output_ordering().is_none()
        && join.fetch().is_none()
        && !join.null_aware)
        .then_some(join)
}
