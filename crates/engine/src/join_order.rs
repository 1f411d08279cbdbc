//! The order of joins, chosen by estimated rows.
//!
//! DataFusion joins tables in the order the query names them and only swaps the two sides of a
//! join. This rule takes each tree of inner, semi and anti hash joins apart into the tables it
//! joins and what must hold between them, looks for the cheapest order, and builds that.
//!
//! ```text
//! HashJoin ─┬─ HashJoin ─┬─ a        graph           search             build
//!           │            └─ b    ─▶  tables a b c ─▶ ((b ⋈ c) ⋈ a)  ─▶  HashJoin tree and a
//!           └─ c                     links a=b, b=c                     projection that restores
//!                                    predicates                         the columns' order
//! ```
//!
//! A semi or anti join only takes rows away from the tables that its keys come from, so it is
//! one more "table" here that can be joined as soon as those are: often that is far below the
//! place the query wrote it.

mod build;
mod graph;
mod search;

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::config::ConfigOptions;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::{ChildrenPropertiesMode, ExecutionPlan, ReplaceChildrenOptions};

use crate::estimate::estimate;
use graph::Graph;

/// Puts the joins of a plan into the order that is likely to cost least.
///
/// It stands right after DataFusion's own choice of join sides, before anything is partitioned.
#[derive(Debug, Default)]
pub(crate) struct JoinOrder;

impl PhysicalOptimizerRule for JoinOrder {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if !config.optimizer.join_reordering {
            return Ok(plan);
        }
        reorder(plan, config)
    }

    fn name(&self) -> &str {
        "join_order"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Reorders the joins of `plan`, and within each table that its joins join, those of that table.
fn reorder(plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
    if plan.downcast_ref::<HashJoinExec>().is_some()
        && let Some(mut graph) = Graph::of(&plan)
    {
        for table in &mut graph.tables {
            table.plan = reorder(Arc::clone(&table.plan), config)?;
            table.estimate = estimate(&table.plan);
        }
        let order = search::cheapest(&graph);
        return build::build(&graph, &order, &plan, config);
    }
    let children = plan.children();
    if children.is_empty() {
        return Ok(plan);
    }
    let mut changed = false;
    let mut replaced = Vec::with_capacity(children.len());
    for child in children {
        let new = reorder(Arc::clone(child), config)?;
        changed |= !Arc::ptr_eq(&new, child);
        replaced.push(new);
    }
    if !changed {
        return Ok(plan);
    }
    let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
    plan.replace_children(replaced, options)
}
