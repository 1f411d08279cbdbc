//! Groups of which the caller's functions want all rows at once: their rows are brought together
//! before they are grouped.
//!
//! ```text
//!   aggregate, final                      aggregate
//!     exchange by group                     exchange by group
//!       aggregate, partial: rows as lists     rows
//! ```
//!
//! Grouping first would make nothing smaller, and would turn rows into lists and back. It would
//! also make two stages of a plan call functions where one is enough.

use crate::own_functions::OwnFunction;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use std::sync::Arc;

/// Before the rule that puts exchanges where operators want them.
#[derive(Debug)]
pub(crate) struct GatherGroups;

impl PhysicalOptimizerRule for GatherGroups {
    fn name(&self) -> &str {
        "gather_groups"
    }

    fn schema_check(&self) -> bool {
        true
    }

    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_down(|plan| match gathered(&plan)? {
            Some(aggregate) => Ok(Transformed::yes(aggregate)),
            None => Ok(Transformed::no(plan)),
        })
        .data()
    }
}

fn gathered(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(last) = plan.downcast_ref::<AggregateExec>() else { return Ok(None) };
    let mode = match last.mode() {
        AggregateMode::Final => AggregateMode::Single,
        AggregateMode::FinalPartitioned => AggregateMode::SinglePartitioned,
        _ => return Ok(None),
    };
    let Some(first) = last.input().downcast_ref::<AggregateExec>() else { return Ok(None) };
    // A row belongs to several groups where there are several sets of keys: all stay in one place.
    let mode = if first.group_expr().is_single() { mode } else { AggregateMode::Single };
    let is_own = first.aggr_expr().iter().any(|one| OwnFunction::of_aggregate(one.fun()).is_some());
    let keys = first.group_expr().input_exprs();
    // Keys would be computed twice, which is dear, and wrong for those that change.
    let is_known = keys.iter().all(is_stable);
    if *first.mode() != AggregateMode::Partial || !is_own || !is_known {
        return Ok(None);
    }
    let aggregate = AggregateExec::try_new(
        mode,
        first.group_expr().clone(),
        first.aggr_expr().to_vec(),
        first.filter_expr().to_vec(),
        first.input().clone(),
        first.input_schema(),
    )?;
    Ok(Some(Arc::new(aggregate.with_limit_options(last.limit_options()))))
}

fn is_stable(key: &Arc<dyn PhysicalExpr>) -> bool {
    let own = key
        .downcast_ref::<ScalarFunctionExpr>()
        .is_some_and(|call| OwnFunction::of_scalar(call.fun()).is_some());
    !own && !key.is_volatile_node() && key.children().into_iter().all(is_stable)
}
