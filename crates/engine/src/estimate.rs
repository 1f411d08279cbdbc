//! How many rows a plan is likely to give.
//!
//! Parquet files tell the number of rows and each column's least and greatest value, and hardly
//! ever the number of distinct values, which is what the order of joins hangs on. This estimator
//! makes up for it with the usual assumptions: values are spread evenly over their range, a
//! column's domain is no larger than its table, keys of the larger table are among those of the
//! smaller one. It is asked by the join order, by the rules that turn on row filters in scans and
//! bring rows together, and where an order is asked for. A wrong estimate costs time and never a
//! wrong row.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::common::stats::Precision;
use datafusion::logical_expr::JoinType;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};

use crate::selectivity::selectivity;

/// A table nobody knows anything about is taken to be neither small nor huge.
const UNKNOWN_ROWS: f64 = 1e6;

/// What a value of no fixed width is taken to have, bytes.
const TEXT_NBYTES: usize = 24;

/// What is thought of one column.
#[derive(Clone, Debug)]
pub(crate) struct ColumnEstimate {
    /// The least and greatest value as numbers, where the type has an order that maps to them.
    pub range: Option<(f64, f64)>,
    /// An upper bound of the distinct values in the table the column comes from, unfiltered.
    pub domain: f64,
    /// The rows of that table, unfiltered.
    pub table_rows: f64,
}

impl ColumnEstimate {
    fn unknown(rows: f64) -> Self {
        Self { range: None, domain: rows, table_rows: rows }
    }
}

/// What is thought of a plan's output.
#[derive(Clone, Debug)]
pub(crate) struct Estimate {
    pub rows: f64,
    pub columns: Vec<ColumnEstimate>,
}

impl Estimate {
    /// The distinct values a column is likely to hold after everything that took rows away.
    pub(crate) fn distinct(&self, column: usize) -> f64 {
        self.columns[column].domain.min(self.rows).max(1.0)
    }

    fn project(&self, indices: impl Iterator<Item = usize>) -> Self {
        let columns = indices.map(|index| self.columns[index].clone()).collect();
        Self { rows: self.rows, columns }
    }
}

/// What the rows of `plan` are likely to take, bytes.
pub(crate) fn estimated_nbytes(plan: &Arc<dyn ExecutionPlan>) -> f64 {
    let width = |kind: &DataType| kind.primitive_width().unwrap_or(TEXT_NBYTES);
    let row: usize = plan.schema().fields().iter().map(|field| width(field.data_type())).sum();
    estimate(plan).rows * row.max(1) as f64
}

/// The estimate of `plan`'s output.
pub(crate) fn estimate(plan: &Arc<dyn ExecutionPlan>) -> Estimate {
    if let Some(filter) = plan.downcast_ref::<FilterExec>() {
        return estimate_filter(filter);
    }
    if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        return estimate_projection(projection);
    }
    if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
        return estimate_join(join);
    }
    if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
        return estimate_aggregate(aggregate);
    }
    let children = plan.children();
    let passes_on = children.len() == 1 && children[0].schema() == plan.schema();
    if passes_on {
        let mut estimate = estimate(children[0]);
        if let Some(fetch) = plan.fetch() {
            estimate.rows = estimate.rows.min(fetch as f64);
        }
        return estimate;
    }
    estimate_leaf(plan)
}

fn estimate_leaf(plan: &Arc<dyn ExecutionPlan>) -> Estimate {
    let width = plan.schema().fields().len();
    let computed = StatisticsContext::new().compute(plan.as_ref(), &StatisticsArgs::new());
    let Ok(statistics) = computed else {
        let columns = vec![ColumnEstimate::unknown(UNKNOWN_ROWS); width];
        return Estimate { rows: UNKNOWN_ROWS, columns };
    };
    let rows = match statistics.num_rows {
        Precision::Exact(rows) | Precision::Inexact(rows) => rows as f64,
        Precision::Absent => UNKNOWN_ROWS,
    };
    let column = |index: usize| {
        let Some(known) = statistics.column_statistics.get(index) else {
            return ColumnEstimate::unknown(rows);
        };
        let range = as_number(known.min_value.get_value())
            .zip(as_number(known.max_value.get_value()))
            .filter(|(least, greatest)| least <= greatest);
        let domain = match (known.distinct_count.get_value(), range) {
            (Some(&distinct), _) => distinct as f64,
            (None, Some((least, greatest))) if is_discrete(&known.min_value) => {
                rows.min(greatest - least + 1.0)
            }
            _ => rows,
        };
        ColumnEstimate { range, domain: domain.max(1.0), table_rows: rows.max(1.0) }
    };
    Estimate { rows, columns: (0..width).map(column).collect() }
}

fn estimate_filter(filter: &FilterExec) -> Estimate {
    let mut input = estimate(filter.input());
    input.rows = (input.rows * selectivity(filter.predicate(), &input)).max(1.0);
    match filter.projection() {
        Some(indices) => input.project(indices.iter().copied()),
        None => input,
    }
}

fn estimate_projection(projection: &ProjectionExec) -> Estimate {
    let input = estimate(projection.input());
    let column = |expr: &Arc<dyn PhysicalExpr>| match expr.downcast_ref::<Column>() {
        Some(column) => input.columns[column.index()].clone(),
        None => ColumnEstimate::unknown(input.rows.max(1.0)),
    };
    let columns = projection.expr().iter().map(|item| column(&item.expr)).collect();
    Estimate { rows: input.rows, columns }
}

fn estimate_aggregate(aggregate: &AggregateExec) -> Estimate {
    let input = estimate(aggregate.input());
    let keys = aggregate.group_expr().expr();
    let mut groups = 1.0;
    let mut columns = Vec::with_capacity(aggregate.schema().fields().len());
    for (expr, _) in keys {
        let column = match expr.downcast_ref::<Column>() {
            Some(column) => input.columns[column.index()].clone(),
            None => ColumnEstimate::unknown(input.rows.max(1.0)),
        };
        groups *= column.domain;
        columns.push(column);
    }
    let rows = groups.min(input.rows).max(1.0);
    while columns.len() < aggregate.schema().fields().len() {
        columns.push(ColumnEstimate::unknown(rows));
    }
    for column in &mut columns {
        column.table_rows = column.table_rows.min(rows);
        column.domain = column.domain.min(rows);
    }
    Estimate { rows, columns }
}

fn estimate_join(join: &HashJoinExec) -> Estimate {
    let left = estimate(join.left());
    let right = estimate(join.right());
    let mut domains = 1.0;
    let mut shared = (1.0, 1.0);
    for (l, r) in join.on() {
        let l = l.downcast_ref::<Column>().map(|column| column.index());
        let r = r.downcast_ref::<Column>().map(|column| column.index());
        let l_domain = l.map_or(left.rows, |index| left.columns[index].domain);
        let r_domain = r.map_or(right.rows, |index| right.columns[index].domain);
        domains *= l_domain.min(r_domain).max(1.0);
        shared.0 *= l.map_or(left.rows, |index| left.distinct(index));
        shared.1 *= r.map_or(right.rows, |index| right.distinct(index));
    }
    let domains = domains.min(left.rows.max(right.rows)).max(1.0);
    let inner = left.rows * right.rows / domains;
    let left_kept = left.rows * (shared.1.min(right.rows) / domains).min(1.0);
    let right_kept = right.rows * (shared.0.min(left.rows) / domains).min(1.0);
    let rows = match join.join_type() {
        JoinType::Inner => inner,
        JoinType::Left => inner.max(left.rows),
        JoinType::Right => inner.max(right.rows),
        JoinType::Full => inner.max(left.rows + right.rows),
        JoinType::LeftSemi => left_kept,
        JoinType::RightSemi => right_kept,
        JoinType::LeftAnti => left.rows - left_kept,
        JoinType::RightAnti => right.rows - right_kept,
        JoinType::LeftMark => left.rows,
        JoinType::RightMark => right.rows,
    };
    let rows = rows.max(1.0);
    let mut columns = match join.join_type() {
        JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => left.columns,
        JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => right.columns,
        _ => [left.columns, right.columns].concat(),
    };
    while columns.len() < join.join_schema().fields().len() {
        columns.push(ColumnEstimate::unknown(2.0));
    }
    let estimate = Estimate { rows, columns };
    match &join.projection {
        Some(indices) => estimate.project(indices.iter().copied()),
        None => estimate,
    }
}

/// A scalar as a number on its type's own scale (days, nanoseconds, unscaled decimals): only
/// differences and comparisons within one column are ever taken.
pub(crate) fn as_number(value: Option<&ScalarValue>) -> Option<f64> {
    Some(match value? {
        ScalarValue::Int8(Some(v)) => f64::from(*v),
        ScalarValue::Int16(Some(v)) => f64::from(*v),
        ScalarValue::Int32(Some(v)) | ScalarValue::Date32(Some(v)) => f64::from(*v),
        ScalarValue::Int64(Some(v)) | ScalarValue::Date64(Some(v)) => *v as f64,
        ScalarValue::UInt8(Some(v)) => f64::from(*v),
        ScalarValue::UInt16(Some(v)) => f64::from(*v),
        ScalarValue::UInt32(Some(v)) => f64::from(*v),
        ScalarValue::UInt64(Some(v)) => *v as f64,
        ScalarValue::Float32(Some(v)) => f64::from(*v),
        ScalarValue::Float64(Some(v)) => *v,
        ScalarValue::Decimal128(Some(v), _, scale) => *v as f64 / 10f64.powi(i32::from(*scale)),
        ScalarValue::TimestampSecond(Some(v), _)
        | ScalarValue::TimestampMillisecond(Some(v), _)
        | ScalarValue::TimestampMicrosecond(Some(v), _)
        | ScalarValue::TimestampNanosecond(Some(v), _) => *v as f64,
        _ => return None,
    })
}

fn is_discrete(value: &Precision<ScalarValue>) -> bool {
    value.get_value().is_some_and(|value| {
        let kind = value.data_type();
        kind.is_integer() || kind == arrow::datatypes::DataType::Date32
    })
}
