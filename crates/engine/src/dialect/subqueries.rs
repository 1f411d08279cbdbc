//! Queries inside expressions.

use crate::Result;
use crate::dialect::names::{self, calls};
use crate::dialect::trees::{call, expression, query, unsupported};
use crate::dialect::{Rules, Stop};
use datafusion::execution::SessionStateDefaults;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, FunctionArgumentClause, FunctionArguments, GroupByExpr, LimitClause,
    OrderBy, OrderByKind, Query, Select, SelectItem, SetExpr, UnaryOperator, VisitMut, VisitorMut,
};
use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::LazyLock;

/// All names of aggregates.
static AGGREGATES: LazyLock<HashSet<String>> = LazyLock::new(|| {
    let known = SessionStateDefaults::default_aggregate_functions();
    let mut names: HashSet<String> = known
        .iter()
        .flat_map(|function| function.aliases().iter().cloned().chain([function.name().into()]))
        .collect();
    let ours = crate::functions::aggregates();
    names.extend(ours.iter().map(|function| function.name().to_owned()));
    let written = ["first", "last", "any_value", "list", "every", "listagg", "group_concat"];
    names.extend(written.map(str::to_owned));
    let written = ["arg_max", "arg_min", "max_by", "min_by", "count_if", "quantile_cont"];
    names.extend(written.map(str::to_owned));
    names
});

fn is_aggregate(name: &str) -> bool {
    AGGREGATES.contains(name)
}

pub(super) fn before(expr: &mut Expr, rules: &mut Rules) -> Result<(), Stop> {
    match expr {
        Expr::AnyOp { left, compare_op, right, .. } => {
            if let Expr::Subquery(query) = right.as_ref() {
                *expr = quantified(left, compare_op, query, false, rules)?;
            }
        }
        Expr::AllOp { left, compare_op, right } => {
            if let Expr::Subquery(query) = right.as_ref() {
                *expr = quantified(left, compare_op, query, true, rules)?;
            }
        }
        Expr::InSubquery { expr: left, subquery, negated } => {
            if let Expr::Tuple(parts) = left.as_ref() {
                *expr = tuple_in(parts, subquery, *negated, rules)?;
            }
        }
        Expr::Subquery(query) => single(query),
        _ => {}
    }
    Ok(())
}

/// `x > ALL (…)`, `x = ANY (…)` and the others, by the extremes of the query.
fn quantified(
    left: &Expr,
    op: &BinaryOperator,
    query: &Query,
    all: bool,
    rules: &mut Rules,
) -> Result<Expr> {
    use BinaryOperator as B;
    match (op, all) {
        (B::Eq, false) | (B::NotEq, true) => {
            return Ok(Expr::InSubquery {
                expr: Box::new(left.clone()),
                subquery: Box::new(query.clone()),
                negated: all,
            });
        }
        _ => {}
    }
    let table = rules.new_name("quantified");
    let ask = |what: &str| format!("(SELECT {what} FROM ({query}) AS {table}(__value))");
    let (least, most) = (ask("min(__value)"), ask("max(__value)"));
    let holds = match (op, all) {
        (B::Gt | B::GtEq, true) | (B::Lt | B::LtEq, false) => format!("({left} {op} {most})"),
        (B::Lt | B::LtEq, true) | (B::Gt | B::GtEq, false) => format!("({left} {op} {least})"),
        (B::Eq, true) => format!("({left} = {least} AND {left} = {most})"),
        (B::NotEq, false) => format!("({left} <> {least} OR {left} <> {most})"),
        _ => return Err(unsupported(format!("{op} before {}", if all { "ALL" } else { "ANY" }))),
    };
    let decided = if all { format!("NOT {holds}") } else { holds.clone() };
    let (missing, count) = (ask("count(*) - count(__value)"), ask("count(*)"));
    expression(&format!(
        "CASE WHEN {count} = 0 THEN {all} WHEN {decided} THEN {} WHEN {missing} > 0 THEN NULL \
         ELSE {holds} END",
        !all
    ))
}

/// `(a, b) IN (SELECT …)`: a row of the query that is equal, or for NOT IN may be.
fn tuple_in(
    parts: &[Expr],
    subquery: &Query,
    negated: bool,
    rules: &mut Rules,
) -> Result<Expr, Stop> {
    let n = rules.columns(subquery.clone())?.len();
    if n != parts.len() {
        let text = format!("{} values are compared with {n} columns of a subquery", parts.len());
        return Err(crate::EngineError::plan(text).into());
    }
    let table = rules.new_name("row");
    let names: Vec<String> = (0..n).map(|at| format!("__{at}")).collect();
    let pairs: Vec<String> =
        parts.iter().zip(&names).map(|(part, name)| format!("{part} = {table}.{name}")).collect();
    let pairs = pairs.join(" AND ");
    let condition = if negated { format!("({pairs}) IS NOT FALSE") } else { pairs };
    let list = names.join(", ");
    let made = format!("SELECT 1 FROM ({subquery}) AS {table}({list}) WHERE {condition}");
    Ok(Expr::Exists { subquery: Box::new(query(&made)?), negated })
}

// ---- queries whose value is used

/// The select of a query that gives a value for each row it finds, and no more than selects.
fn rows_of(query: &mut Query) -> Option<&mut Select> {
    let is_whole = query.with.is_none() && query.fetch.is_none();
    let SetExpr::Select(select) = query.body.as_mut() else { return None };
    let is_grouped = match &select.group_by {
        GroupByExpr::Expressions(keys, _) => !keys.is_empty(),
        GroupByExpr::All(_) => true,
    };
    let has_rows = is_whole
        && !is_grouped
        && select.having.is_none()
        && select.distinct.is_none()
        && select.qualify.is_none()
        && !select.from.is_empty();
    has_rows.then_some(select)
}

/// A query for one value, without an aggregate, gets one that allows for one row only: the planner
/// wants one where the query depends on the row around it, and takes it for never missing where not.
fn single(query: &mut Query) {
    let order = query.order_by.clone();
    let limit = query.limit_clause.clone();
    let Some(select) = rows_of(query) else { return };
    let [SelectItem::UnnamedExpr(value) | SelectItem::ExprWithAlias { expr: value, .. }] =
        select.projection.as_mut_slice()
    else {
        return;
    };
    if calls(value, &is_aggregate) || !names::is_one_value(value) {
        return;
    }
    let is_first = match &limit {
        None => false,
        Some(LimitClause::LimitOffset { limit: Some(n), offset: None, limit_by })
            if limit_by.is_empty() && n.to_string() == "1" =>
        {
            true
        }
        Some(_) => return,
    };
    let mut made = call(if is_first { "first_value" } else { "__single" }, vec![value.clone()]);
    if let (Expr::Function(function), true) = (&mut made, is_first)
        && let FunctionArguments::List(list) = &mut function.args
        && let Some(OrderBy { kind: OrderByKind::Expressions(keys), .. }) = order
    {
        list.clauses.push(FunctionArgumentClause::OrderBy(keys));
    }
    *value = made;
    query.order_by = None;
    query.limit_clause = None;
}

/// EXISTS and IN among the values of a select, where the planner knows them in conditions only.
pub(super) fn as_values(select: &mut Select, rules: &mut Rules) -> Result<(), Stop> {
    let mut values = Values { depth: 0, rules, error: None };
    for item in &mut select.projection {
        if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
            let _ = VisitMut::visit(expr, &mut values);
        }
    }
    if let GroupByExpr::Expressions(keys, _) = &mut select.group_by {
        let _ = VisitMut::visit(keys, &mut values);
    }
    let _ = VisitMut::visit(&mut select.having, &mut values);
    // In a condition only what is not a condition itself is a value.
    if let Some(condition) = &mut select.selection {
        below_conditions(condition, &mut values);
    }
    match values.error {
        Some(stop) => Err(stop),
        None => Ok(()),
    }
}

fn below_conditions(expr: &mut Expr, values: &mut Values) {
    match expr {
        Expr::BinaryOp { left, op: BinaryOperator::And | BinaryOperator::Or, right } => {
            below_conditions(left, values);
            below_conditions(right, values);
        }
        Expr::UnaryOp { op: UnaryOperator::Not, expr } | Expr::Nested(expr) => {
            below_conditions(expr, values);
        }
        Expr::Exists { .. } | Expr::InSubquery { .. } => {}
        Expr::AnyOp { .. } | Expr::AllOp { .. } => {}
        other => {
            let _ = VisitMut::visit(other, values);
        }
    }
}

struct Values<'a, 'b> {
    depth: usize,
    rules: &'a mut Rules<'b>,
    error: Option<Stop>,
}

impl VisitorMut for Values<'_, '_> {
    type Break = ();
    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }
    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }
    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.depth > 0 {
            return ControlFlow::Continue(());
        }
        let new = match expr {
            Expr::Exists { subquery, negated } => Some(exists(subquery, *negated)),
            Expr::InSubquery { expr: left, subquery, negated } => match left.as_ref() {
                Expr::Tuple(parts) => match tuple_in(parts, subquery, *negated, self.rules) {
                    Ok(Expr::Exists { subquery, negated }) => Some(exists(&subquery, negated)),
                    Ok(_) => None,
                    Err(stop) => {
                        self.error.get_or_insert(stop);
                        None
                    }
                },
                _ => Some(is_in(left, subquery, *negated, self.rules)),
            },
            Expr::AnyOp { left, compare_op: BinaryOperator::Eq, right, .. } => match right.as_ref()
            {
                Expr::Subquery(query) => Some(is_in(left, query, false, self.rules)),
                _ => None,
            },
            Expr::AllOp { left, compare_op: BinaryOperator::NotEq, right } => {
                match right.as_ref() {
                    Expr::Subquery(query) => Some(is_in(left, query, true, self.rules)),
                    _ => None,
                }
            }
            _ => None,
        };
        match new {
            Some(Ok(new)) => *expr = new,
            Some(Err(error)) => drop(self.error.get_or_insert(Stop::Error(error))),
            None => {}
        }
        match self.error {
            Some(_) => ControlFlow::Break(()),
            None => ControlFlow::Continue(()),
        }
    }
}

/// Whether there is a row, by counting.
fn exists(subquery: &Query, negated: bool) -> Result<Expr> {
    let mut counted = subquery.clone();
    let is_limited = counted.limit_clause.is_some();
    counted.order_by = None;
    let is_plain = match rows_of(&mut counted) {
        Some(select) if !is_limited => {
            let has_aggregate = select.projection.iter().any(|item| match item {
                SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => {
                    calls(expr, &is_aggregate)
                }
                _ => false,
            });
            if !has_aggregate {
                select.projection = vec![SelectItem::UnnamedExpr(expression("count(*)")?)];
            }
            !has_aggregate
        }
        _ => false,
    };
    let counted = match is_plain {
        true => counted.to_string(),
        false => format!("SELECT count(*) FROM ({subquery}) AS __rows"),
    };
    let op = if negated { "=" } else { ">" };
    expression(&format!("(coalesce(({counted}), 0) {op} 0)"))
}

/// Whether a value is among those of a query: true, false, or missing.
fn is_in(left: &Expr, subquery: &Query, negated: bool, rules: &mut Rules) -> Result<Expr> {
    let table = rules.new_name("among");
    let ask = |condition: &str| {
        format!("coalesce((SELECT count(*) FROM ({subquery}) AS {table}(__value){condition}), 0)")
    };
    let found = ask(&format!(" WHERE {table}.__value = {left}"));
    let (all, missing) = (ask(""), ask(&format!(" WHERE {table}.__value IS NULL")));
    expression(&format!(
        "CASE WHEN {all} = 0 THEN {negated} WHEN {left} IS NULL THEN NULL WHEN {found} > 0 \
         THEN {} WHEN {missing} > 0 THEN NULL ELSE {negated} END",
        !negated
    ))
}
