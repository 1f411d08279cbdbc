//! Scans that skip rows while they decode.
//!
//! A join gives its probe side a filter made of its build side. DataFusion uses it to skip row
//! groups; rows are left for the join itself to drop, which is right where the scan feeds the
//! join: looking a row up once is cheaper than twice. It is wrong where an aggregate stands
//! between the two, for that then groups millions of rows that the join drops. There this rule
//! turns on the Parquet reader's filtering of rows, if the estimates say that few rows pass.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::datasource::physical_plan::{FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{PhysicalExpr, conjunction, split_conjunction};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::joins::HashJoinExec;

use crate::estimate::estimate;

/// Rows are dropped while decoding where at most this share of them is likely to pass.
const FEW: f64 = 0.3;

/// Turns on filtering of rows inside the scans that profit from it.
#[derive(Debug, Default)]
pub(crate) struct RowFilter;

impl PhysicalOptimizerRule for RowFilter {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut shares = HashMap::new();
        collect_shares(&plan, &mut shares);
        if shares.is_empty() {
            return Ok(plan);
        }
        plan.transform_up(|node| match filtered_scan(&node, &shares) {
            Some(scan) => Ok(Transformed::yes(scan)),
            None => Ok(Transformed::no(node)),
        })
        .data()
    }

    fn name(&self) -> &str {
        "row_filter"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// For each filter that a join gives to a scan below an aggregate, the share of rows that it is
/// likely to pass, if they are few.
fn collect_shares(plan: &Arc<dyn ExecutionPlan>, shares: &mut HashMap<u64, f64>) {
    if let Some(join) = plan.downcast_ref::<HashJoinExec>()
        && has_aggregate(join.right())
    {
        for filter in join.dynamic_expressions_produced() {
            let share = share_kept(join);
            if let (Some(id), true) = (filter.expression_id(), share <= FEW) {
                shares.insert(id, share);
            }
        }
    }
    for child in plan.children() {
        collect_shares(child, shares);
    }
}

/// Whether the rows of `plan` went through an aggregate after the last join.
fn has_aggregate(plan: &Arc<dyn ExecutionPlan>) -> bool {
    if plan.downcast_ref::<AggregateExec>().is_some() {
        return true;
    }
    let children = plan.children();
    children.len() == 1 && has_aggregate(children[0])
}

fn share_kept(join: &HashJoinExec) -> f64 {
    let (left, right) = (estimate(join.left()), estimate(join.right()));
    let column = |expr: &Arc<dyn PhysicalExpr>| expr.downcast_ref::<Column>().map(Column::index);
    let mut share: f64 = 1.0;
    for (l, r) in join.on() {
        if let (Some(l), Some(r)) = (column(l), column(r)) {
            let domain = left.columns[l].domain.min(right.columns[r].domain).max(1.0);
            let met = overlap(left.columns[l].range, right.columns[r].range);
            share = share.min(left.distinct(l) / domain * met);
        }
    }
    share
}

/// The share of the second range that the first covers.
fn overlap(build: Option<(f64, f64)>, probe: Option<(f64, f64)>) -> f64 {
    let (Some(build), Some(probe)) = (build, probe) else { return 1.0 };
    let common = build.1.min(probe.1) - build.0.max(probe.0) + 1.0;
    (common / (probe.1 - probe.0 + 1.0)).clamp(0.0, 1.0)
}

fn filtered_scan(
    node: &Arc<dyn ExecutionPlan>,
    shares: &HashMap<u64, f64>,
) -> Option<Arc<dyn ExecutionPlan>> {
    let scan = node.downcast_ref::<DataSourceExec>()?;
    let (config, source) = scan.downcast_to_file_source::<ParquetSource>()?;
    let predicate = datafusion::datasource::physical_plan::FileSource::filter(source)?;
    if source.table_parquet_options().global.pushdown_filters {
        return None;
    }
    let parts: Vec<Arc<dyn PhysicalExpr>> = split_conjunction(&predicate)
        .into_iter()
        .filter(|part| part.expression_id().is_some_and(|id| shares.contains_key(&id)))
        .map(Arc::clone)
        .collect();
    if parts.is_empty() {
        return None;
    }
    let source = source.with_predicate(conjunction(parts)).with_pushdown_filters(true);
    let config = FileScanConfigBuilder::from(config.clone()).with_source(Arc::new(source)).build();
    Some(DataSourceExec::from_data_source(config))
}
