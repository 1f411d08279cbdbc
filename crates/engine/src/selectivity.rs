//! Which share of the rows a predicate is likely to keep.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{
    BinaryExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, LikeExpr, Literal, NotExpr,
};
use datafusion::physical_expr::split_conjunction;

use crate::estimate::{Estimate, as_number};

/// Of a predicate nothing is known about.
const UNKNOWN: f64 = 0.3;
/// Of an equality on a column whose distinct values nobody counted, as those of strings.
const EQUAL: f64 = 0.05;
/// A table up to this many rows is a dimension: each row is its own value.
const SMALL_TABLE: f64 = 1000.0;

/// The share of `input`'s rows that `predicate` keeps, between 0 and 1.
pub(crate) fn selectivity(predicate: &Arc<dyn PhysicalExpr>, input: &Estimate) -> f64 {
    let mut intervals: BTreeMap<usize, (f64, f64)> = BTreeMap::new();
    let mut kept = 1.0;
    for part in split_conjunction(predicate) {
        // Both ends of a range on one column are one fact, not two that are independent.
        match bound(part, input) {
            Some((column, low, high)) => {
                let known = intervals.entry(column).or_insert((f64::MIN, f64::MAX));
                *known = (known.0.max(low), known.1.min(high));
            }
            None => kept *= single(part, input),
        }
    }
    for (column, (low, high)) in intervals {
        kept *= overlap(input, column, low, high);
    }
    kept.clamp(0.0, 1.0)
}

/// A comparison of a column that has a known range with a number, as an interval.
fn bound(part: &Arc<dyn PhysicalExpr>, input: &Estimate) -> Option<(usize, f64, f64)> {
    let binary = part.downcast_ref::<BinaryExpr>()?;
    let (column, value, flipped) = column_and_literal(binary)?;
    input.columns.get(column)?.range?;
    let value = as_number(Some(&value))?;
    let less = matches!(binary.op(), Operator::Lt | Operator::LtEq);
    let greater = matches!(binary.op(), Operator::Gt | Operator::GtEq);
    match (less != flipped, less || greater) {
        (_, false) => None,
        (true, true) => Some((column, f64::MIN, value)),
        (false, true) => Some((column, value, f64::MAX)),
    }
}

fn overlap(input: &Estimate, column: usize, low: f64, high: f64) -> f64 {
    let Some((least, greatest)) = input.columns[column].range else { return UNKNOWN };
    let width = greatest - least;
    if width <= 0.0 {
        return if low <= least && high >= least { 1.0 } else { 0.0 };
    }
    ((high.min(greatest) - low.max(least)) / width).clamp(0.0, 1.0)
}

fn column_and_literal(binary: &BinaryExpr) -> Option<(usize, ScalarValue, bool)> {
    let column =
        |expr: &Arc<dyn PhysicalExpr>| expr.downcast_ref::<Column>().map(|column| column.index());
    let literal = |expr: &Arc<dyn PhysicalExpr>| {
        expr.downcast_ref::<Literal>().map(|literal| literal.value().clone())
    };
    if let (Some(column), Some(value)) = (column(binary.left()), literal(binary.right())) {
        return Some((column, value, false));
    }
    Some((column(binary.right())?, literal(binary.left())?, true))
}

/// An equality's share: one value of those the column has.
fn equal(expr: &Arc<dyn PhysicalExpr>, input: &Estimate) -> f64 {
    let Some(column) = expr.downcast_ref::<Column>() else { return EQUAL };
    let Some(column) = input.columns.get(column.index()) else { return EQUAL };
    let counted = column.domain < column.table_rows || column.range.is_some();
    if counted || column.table_rows <= SMALL_TABLE {
        return 1.0 / column.domain.max(1.0);
    }
    EQUAL
}

fn single(part: &Arc<dyn PhysicalExpr>, input: &Estimate) -> f64 {
    if let Some(binary) = part.downcast_ref::<BinaryExpr>() {
        return compare(binary, input);
    }
    if let Some(not) = part.downcast_ref::<NotExpr>() {
        return 1.0 - selectivity(not.arg(), input);
    }
    if let Some(list) = part.downcast_ref::<InListExpr>() {
        let share = (equal(list.expr(), input) * list.list().len() as f64).min(1.0);
        return if list.negated() { 1.0 - share } else { share };
    }
    if let Some(like) = part.downcast_ref::<LikeExpr>() {
        return if like.negated() { 1.0 - EQUAL } else { EQUAL };
    }
    if part.downcast_ref::<IsNullExpr>().is_some() {
        return EQUAL;
    }
    if part.downcast_ref::<IsNotNullExpr>().is_some() {
        return 1.0 - EQUAL;
    }
    UNKNOWN
}

fn compare(binary: &BinaryExpr, input: &Estimate) -> f64 {
    let literal = column_and_literal(binary);
    match binary.op() {
        Operator::And => selectivity(binary.left(), input) * selectivity(binary.right(), input),
        Operator::Or => {
            let (l, r) = (selectivity(binary.left(), input), selectivity(binary.right(), input));
            l + r - l * r
        }
        Operator::Eq => match literal {
            Some((_, _, false)) => equal(binary.left(), input),
            Some((_, _, true)) => equal(binary.right(), input),
            None => EQUAL,
        },
        Operator::NotEq => 1.0 - EQUAL,
        // An aggregate compared with a constant (HAVING) is asked in order to find the few.
        Operator::Gt | Operator::Lt | Operator::GtEq | Operator::LtEq if literal.is_some() => 0.1,
        _ => UNKNOWN,
    }
}
