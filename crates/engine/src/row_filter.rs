//! Scans that skip rows while they decode.
//!
//! A Parquet scan can decode the columns of its filters first and the other columns only for the
//! rows that pass. That saves most of a scan when few rows pass and costs a tenth when many do,
//! so DataFusion leaves it off everywhere. This rule turns it on scan by scan, where the
//! estimates say that few rows pass: mostly below a join whose build side is small, whose hash
//! table then serves as the scan's filter.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::datasource::physical_plan::{FileScanConfig, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{PhysicalExpr, conjunction, split_conjunction};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::HashJoinExec;

use crate::estimate::{Estimate, estimate};
use crate::selectivity::selectivity;

/// Rows are skipped while decoding where at most this share is likely to pass.
const FEW: f64 = 0.12;
/// A join's filter that passes more than this is only used to skip whole row groups.
const SELECTIVE: f64 = 0.6;

/// Turns on filtering of rows inside the scans that profit.
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

/// For each filter that a join gives to its probe side, the share of rows it is likely to pass.
fn collect_shares(plan: &Arc<dyn ExecutionPlan>, shares: &mut HashMap<u64, f64>) {
    if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
        for filter in join.dynamic_expressions_produced() {
            if let Some(id) = filter.expression_id() {
                shares.insert(id, share_kept(join));
            }
        }
    }
    for child in plan.children() {
        collect_shares(child, shares);
    }
}

fn share_kept(join: &HashJoinExec) -> f64 {
    let (left, right) = (estimate(join.left()), estimate(join.right()));
    let column = |expr: &Arc<dyn PhysicalExpr>| expr.downcast_ref::<Column>().map(Column::index);
    let mut share: f64 = 1.0;
    for (l, r) in join.on() {
        if let (Some(l), Some(r)) = (column(l), column(r)) {
            let domain = left.columns[l].domain.min(right.columns[r].domain).max(1.0);
            share = share.min(left.distinct(l) / domain);
        }
    }
    share
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
    let table = table_estimate(config, node);
    let mut parts: Vec<(f64, Arc<dyn PhysicalExpr>)> = vec![];
    for part in split_conjunction(&predicate) {
        let share = match part.expression_id() {
            Some(id) => shares.get(&id).copied().unwrap_or(1.0),
            None => selectivity(part, &table),
        };
        if part.expression_id().is_none() || share <= SELECTIVE {
            parts.push((share, Arc::clone(part)));
        }
    }
    let kept: f64 = parts.iter().map(|(share, _)| share).product();
    if kept > FEW {
        return None;
    }
    parts.sort_by(|a, b| a.0.total_cmp(&b.0));
    let predicate = conjunction(parts.into_iter().map(|(_, part)| part));
    let source = source.with_predicate(predicate).with_pushdown_filters(true);
    let config = FileScanConfigBuilder::from(config.clone()).with_source(Arc::new(source)).build();
    Some(DataSourceExec::from_data_source(config))
}

/// The estimate of all columns of the table: a scan's filters count them so.
fn table_estimate(config: &FileScanConfig, node: &Arc<dyn ExecutionPlan>) -> Estimate {
    let rows = estimate(node).rows;
    crate::estimate::from_statistics(
        &config.statistics(),
        config.file_schema().fields().len(),
        rows,
    )
}
