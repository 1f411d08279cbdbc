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

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::config::ConfigOptions;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
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

/// Reorders the joins below a projection that computes, so that they carry only what it reads.
fn reorder_below(
    projection: &ProjectionExec,
    config: &ConfigOptions,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let input = projection.input();
    let mut read = BTreeSet::new();
    for item in projection.expr() {
        read.extend(collect_columns(&item.expr).iter().map(Column::index));
    }
    if read.is_empty() || read.len() == input.schema().fields().len() {
        return Ok(None);
    }
    let place = |index: usize| read.range(..index).count();
    let narrow: Vec<ProjectionExpr> = read
        .iter()
        .map(|&index| {
            let name = input.schema().field(index).name().clone();
            ProjectionExpr::new(Arc::new(Column::new(&name, index)) as _, name)
        })
        .collect();
    let narrow: Arc<dyn ExecutionPlan> =
        Arc::new(ProjectionExec::try_new(narrow, Arc::clone(input))?);
    let joins = Graph::of(&narrow).map(|graph| order_graph(graph, &narrow, config));
    let Some(joins) = joins.transpose()? else { return Ok(None) };
    let schema = joins.schema();
    let exprs = projection.expr().iter().map(|item| {
        let to = |index| Column::new(schema.field(place(index)).name(), place(index));
        ProjectionExpr::new(graph::renumber(&item.expr, to), item.alias.clone())
    });
    Ok(Some(Arc::new(ProjectionExec::try_new(exprs.collect::<Vec<_>>(), Arc::clone(&joins))?)))
}

fn order_graph(
    mut graph: Graph,
    original: &Arc<dyn ExecutionPlan>,
    config: &ConfigOptions,
) -> Result<Arc<dyn ExecutionPlan>> {
    for table in &mut graph.tables {
        table.plan = reorder(Arc::clone(&table.plan), config)?;
        table.estimate = estimate(&table.plan);
    }
    let order = search::cheapest(&graph);
    build::build(&graph, &order, original)
}

/// Reorders the joins of `plan`, and within each table that its joins join, those of that table.
fn reorder(plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
    if plan.downcast_ref::<HashJoinExec>().is_some()
        && let Some(graph) = Graph::of(&plan)
    {
        return order_graph(graph, &plan, config);
    }
    if let Some(projection) = plan.downcast_ref::<ProjectionExec>()
        && graph::leads_to_join(projection.input())
        && let Some(narrowed) = reorder_below(projection, config)?
    {
        return Ok(narrowed);
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
