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
use datafusion::common::ScalarValue;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::lit;
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
    let wants_all =
        first.aggr_expr().iter().any(|one| OwnFunction::of_aggregate(one.fun()).is_some());
    let keys = first.group_expr().input_exprs();
    // Keys would be computed twice, which is dear, and wrong for those that change.
    let is_known = keys.iter().all(is_stable);
    if *first.mode() != AggregateMode::Partial || !wants_all || !is_known {
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
    !is_own(key) && !key.is_volatile_node() && key.children().into_iter().all(is_stable)
}

/// A final aggregate says what its functions were given, though all that it is given is what they
/// made of it. Calls of own functions there would make its stage bring them along, for nothing:
/// missing values of the same type stand for them.
pub(crate) fn without_idle_calls(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_down(|plan| {
        let Some(last) = plan.downcast_ref::<AggregateExec>() else {
            return Ok(Transformed::no(plan));
        };
        let is_final =
            matches!(last.mode(), AggregateMode::Final | AggregateMode::FinalPartitioned);
        if !is_final || !last.aggr_expr().iter().any(calls_own) {
            return Ok(Transformed::no(plan));
        }
        let idle = last.aggr_expr().iter().map(|one| match calls_own(one) {
            true => without_calls(one),
            false => Ok(one.clone()),
        });
        let idle = idle.collect::<Result<Vec<_>>>()?;
        Ok(Transformed::yes(Arc::new(last.with_new_aggr_exprs(idle))))
    })
    .data()
}

fn calls_own(aggregate: &Arc<AggregateFunctionExpr>) -> bool {
    let all = aggregate.all_expressions();
    all.args.iter().chain(&all.order_by_exprs).any(contains_own)
}

fn without_calls(aggregate: &Arc<AggregateFunctionExpr>) -> Result<Arc<AggregateFunctionExpr>> {
    let idle = |exprs: Vec<Arc<dyn PhysicalExpr>>| -> Result<Vec<_>> {
        exprs.into_iter().map(|expr| expr.transform_down(missing_for_own).data()).collect()
    };
    let all = aggregate.all_expressions();
    let (args, order) = (idle(all.args)?, idle(all.order_by_exprs)?);
    // One that runs backwards would not know any more that it does.
    let changed = match aggregate.is_reversed() {
        true => None,
        false => aggregate.with_new_expressions(args, order),
    };
    Ok(changed.map_or_else(|| aggregate.clone(), Arc::new))
}

fn missing_for_own(expr: Arc<dyn PhysicalExpr>) -> Result<Transformed<Arc<dyn PhysicalExpr>>> {
    if !is_own(&expr) {
        return Ok(Transformed::no(expr));
    }
    let call = expr.downcast_ref::<ScalarFunctionExpr>().expect("just seen");
    Ok(Transformed::yes(lit(ScalarValue::try_from(call.return_type())?)))
}

fn is_own(expr: &Arc<dyn PhysicalExpr>) -> bool {
    let call = expr.downcast_ref::<ScalarFunctionExpr>();
    call.is_some_and(|call| OwnFunction::of_scalar(call.fun()).is_some())
}

fn contains_own(expr: &Arc<dyn PhysicalExpr>) -> bool {
    is_own(expr) || expr.children().into_iter().any(contains_own)
}
