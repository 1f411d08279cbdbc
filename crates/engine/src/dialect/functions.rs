//! Calls: what is more than another name for the same.

use crate::Result;
use crate::dialect::macros;
use crate::dialect::trees::{arguments, call, expression, literal, name_of, text, unsupported};
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArgumentClause, FunctionArgumentList, FunctionArguments, Ident, ObjectName,
    OrderByExpr, OrderByOptions, Value,
};

/// Other names of functions whose calls are otherwise the same, with all that may stand in them.
const RENAMED: &[(&str, &str)] = &[
    ("any_value", "first_value"),
    ("approx_count_distinct", "approx_distinct"),
    ("approx_quantile", "approx_percentile_cont"),
    ("char_index", "strpos"),
    ("collect_list", "array_agg"),
    ("collect_set", "array_agg"),
    ("every", "bool_and"),
    ("first", "first_value"),
    ("filter", "array_filter"),
    ("grouping_id", "grouping"),
    ("last", "last_value"),
    ("list", "array_agg"),
    ("list_apply", "array_transform"),
    ("list_filter", "array_filter"),
    ("list_transform", "array_transform"),
    ("list_value", "make_array"),
    ("logical_and", "bool_and"),
    ("logical_or", "bool_or"),
    ("percentile", "percentile_cont"),
    ("quantile", "percentile_cont"),
    ("quantile_cont", "percentile_cont"),
    ("struct_pack", "named_struct"),
    ("transform", "array_transform"),
    ("variance", "var"),
];

/// Functions whose first argument may be a unit of time without quotes.
const WITH_UNIT: &[&str] =
    &["timestampdiff", "timestampadd", "datediff", "date_diff", "dateadd", "date_add", "date_sub"];

/// Aggregates that pass over what is missing when they collect.
const WITHOUT_NULLS: &[&str] = &["collect_list", "collect_set", "any_value"];

/// Aggregates that give the same in whatever order rows come. The engine would take what they are
/// sorted by for another argument.
const WITHOUT_ORDER: &[&str] = &[
    "approx_distinct",
    "approx_median",
    "avg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "corr",
    "count",
    "max",
    "mean",
    "median",
    "min",
    "stddev",
    "stddev_pop",
    "sum",
    "var",
    "var_pop",
];

/// Rewrites a call whose arguments have been rewritten.
pub(super) fn after(expr: &mut Expr) -> Result<()> {
    let Expr::Function(function) = expr else { return Ok(()) };
    let name = name_of(function);
    if let Some(new) = special(&name, function)? {
        *expr = new;
        return Ok(());
    }
    let Expr::Function(function) = expr else { return Ok(()) };
    filter_of_window(function);
    if is_plain(function)
        && let Some(values) = arguments(function)
        && let Some(meant) = macros::meaning(&name, &values)
    {
        *expr = meant;
    }
    Ok(())
}

fn is_plain(function: &Function) -> bool {
    let clauses = match &function.args {
        FunctionArguments::List(list) => {
            list.clauses.is_empty() && list.duplicate_treatment.is_none()
        }
        _ => true,
    };
    clauses
        && function.filter.is_none()
        && function.over.is_none()
        && function.within_group.is_empty()
        && function.null_treatment.is_none()
}

fn special(name: &str, function: &mut Function) -> Result<Option<Expr>> {
    if WITH_UNIT.contains(&name) {
        unit_in_quotes(function);
    }
    if name == "date_add"
        && let Some(moved) = moved_by_units(function)
    {
        return Ok(Some(moved));
    }
    match name {
        "count" => count(function),
        "count_if" | "countif" => {
            if let Some([condition]) = arguments(function).as_deref() {
                let condition = (*condition).clone();
                if let FunctionArguments::List(list) = &mut function.args {
                    list.args = vec![FunctionArg::Unnamed(FunctionArgExpr::Wildcard)];
                }
                rename(function, "count");
                and_filter(function, condition);
            }
        }
        "listagg" | "group_concat" | "string_agg" => joined_texts(function)?,
        "arg_max" | "max_by" => return Ok(extreme(function, false)),
        "arg_min" | "min_by" => return Ok(extreme(function, true)),
        "decode" => return Ok(decode(function)),
        "timestampadd" | "dateadd" => return Ok(moved_by_units(function)),
        "date_add" | "date_sub" => return Ok(moved_by_interval(name, function)),
        "struct_pack" => named_fields(function)?,
        _ => {}
    }
    if WITHOUT_NULLS.contains(&name)
        && let Some([value]) = arguments(function).as_deref()
    {
        let condition = Expr::IsNotNull(Box::new((*value).clone()));
        and_filter(function, condition);
    }
    if name == "collect_set"
        && let FunctionArguments::List(list) = &mut function.args
    {
        list.duplicate_treatment = Some(DuplicateTreatment::Distinct);
    }
    if let Some((_, new)) = RENAMED.iter().find(|(old, _)| *old == name) {
        rename(function, new);
    }
    if function.over.is_none()
        && WITHOUT_ORDER.contains(&name_of(function).as_str())
        && let Some(list) = list_mut(function)
    {
        list.clauses.retain(|clause| !matches!(clause, FunctionArgumentClause::OrderBy(_)));
    }
    Ok(None)
}

fn rename(function: &mut Function, name: &str) {
    function.name = ObjectName::from(vec![Ident::new(name)]);
}

fn list_mut(function: &mut Function) -> Option<&mut FunctionArgumentList> {
    match &mut function.args {
        FunctionArguments::List(list) => Some(list),
        _ => None,
    }
}

fn and_filter(function: &mut Function, condition: Expr) {
    let condition = match function.filter.take() {
        None => condition,
        Some(given) => Expr::BinaryOp {
            left: Box::new(Expr::Nested(given)),
            op: BinaryOperator::And,
            right: Box::new(Expr::Nested(Box::new(condition))),
        },
    };
    function.filter = Some(Box::new(condition));
}

fn unit_in_quotes(function: &mut Function) {
    let Some(list) = list_mut(function) else { return };
    if list.args.len() != 3 {
        return;
    }
    if let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(unit))) = list.args.first_mut()
        && let Expr::Identifier(name) = unit
    {
        *unit = text(&name.value.to_lowercase());
    }
}

/// `COUNT(DISTINCT a, b)` counts pairs of which no part is missing; `COUNT()` counts rows.
fn count(function: &mut Function) {
    let Some(values) = arguments(function) else { return };
    let values: Vec<Expr> = values.into_iter().cloned().collect();
    let Some(list) = list_mut(function) else { return };
    if values.is_empty() {
        list.args = vec![FunctionArg::Unnamed(FunctionArgExpr::Wildcard)];
    }
    if values.len() < 2 || list.duplicate_treatment != Some(DuplicateTreatment::Distinct) {
        return;
    }
    list.args = vec![FunctionArg::Unnamed(FunctionArgExpr::Expr(call("struct", values.clone())))];
    for value in values {
        and_filter(function, Expr::IsNotNull(Box::new(value)));
    }
}

/// One form for what joins texts: `string_agg(x, sign ORDER BY …)`.
fn joined_texts(function: &mut Function) -> Result<()> {
    rename(function, "string_agg");
    let order = std::mem::take(&mut function.within_group);
    let Some(list) = list_mut(function) else { return Ok(()) };
    let mut sign = None;
    list.clauses.retain(|clause| match clause {
        FunctionArgumentClause::Separator(value) => {
            sign = Some(Expr::Value(value.clone()));
            false
        }
        _ => true,
    });
    if let Some(clause) =
        list.clauses.iter().find(|c| matches!(c, FunctionArgumentClause::OnOverflow(_)))
    {
        return Err(unsupported(format!("{clause} in LISTAGG")));
    }
    if !order.is_empty() {
        list.clauses.push(FunctionArgumentClause::OrderBy(order));
    }
    if list.args.len() == 1 {
        let sign = sign.unwrap_or_else(|| Expr::value(Value::SingleQuotedString(",".into())));
        list.args.push(FunctionArg::Unnamed(FunctionArgExpr::Expr(sign)));
    }
    Ok(())
}

/// `arg_max(x, y)`: the `x` of the row with the largest `y`.
fn extreme(function: &Function, is_least: bool) -> Option<Expr> {
    let values = arguments(function)?;
    let [value, by] = values.as_slice() else { return None };
    let mut made = function.clone();
    rename(&mut made, "first_value");
    let order = OrderByExpr {
        expr: (*by).clone(),
        options: OrderByOptions { asc: Some(is_least), nulls_first: Some(false) },
        with_fill: None,
    };
    let list = list_mut(&mut made)?;
    list.args = vec![FunctionArg::Unnamed(FunctionArgExpr::Expr((*value).clone()))];
    list.clauses = vec![FunctionArgumentClause::OrderBy(vec![order])];
    and_filter(&mut made, Expr::IsNotNull(Box::new((*by).clone())));
    and_filter(&mut made, Expr::IsNotNull(Box::new((*value).clone())));
    Some(Expr::Function(made))
}

/// `decode(x, a, b, …, otherwise)`; with two arguments it is another function.
fn decode(function: &Function) -> Option<Expr> {
    let values = arguments(function).filter(|values| values.len() > 2)?;
    let mut made = "CASE".to_owned();
    for pair in values[1..].chunks(2) {
        match pair {
            [case, result] => {
                made += &format!(" WHEN {} IS NOT DISTINCT FROM {case} THEN {result}", values[0]);
            }
            [otherwise] => made += &format!(" ELSE {otherwise}"),
            _ => {}
        }
    }
    expression(&format!("{made} END")).ok()
}

/// `date_add(day, INTERVAL …)` is a sum.
fn moved_by_interval(name: &str, function: &Function) -> Option<Expr> {
    let values = arguments(function)?;
    let [day, by] = values.as_slice() else { return None };
    let is_interval = match by {
        Expr::Interval(_) => true,
        Expr::Function(function) => matches!(name_of(function).as_str(), "__units" | "__times"),
        _ => false,
    };
    let op = if name == "date_add" { BinaryOperator::Plus } else { BinaryOperator::Minus };
    is_interval.then(|| {
        Expr::Nested(Box::new(Expr::BinaryOp {
            left: Box::new((*day).clone()),
            op,
            right: Box::new((*by).clone()),
        }))
    })
}

/// `timestampadd(unit, n, x)` is a sum; what is less than a day makes a time of a day.
fn moved_by_units(function: &Function) -> Option<Expr> {
    let values = arguments(function)?;
    let [unit, n, moment] = values.as_slice() else { return None };
    let name = literal(unit)?.to_lowercase();
    let is_small = ["hour", "minute", "second"].iter().any(|part| name.contains(part))
        || matches!(name.as_str(), "hh" | "mi" | "n" | "s" | "ms" | "us");
    let moment = match is_small {
        true => format!("CAST({moment} AS timestamp)"),
        false => format!("({moment})"),
    };
    expression(&format!("({moment} + __units({unit}, {n}))")).ok()
}

/// `sum(x) FILTER (WHERE c) OVER (…)` is the sum of `CASE WHEN c THEN x END`: the filter of a
/// window does not travel with its plan, and what an aggregate passes over does.
fn filter_of_window(function: &mut Function) {
    if function.over.is_none() || WITH_MISSING.contains(&name_of(function).as_str()) {
        return;
    }
    let Some(condition) = function.filter.clone() else { return };
    let Some(list) = list_mut(function) else { return };
    let Some(FunctionArg::Unnamed(value)) = list.args.first_mut() else { return };
    let counted = match value {
        FunctionArgExpr::Expr(value) => value.to_string(),
        _ => "1".to_owned(),
    };
    if let Ok(made) = expression(&format!("CASE WHEN {condition} THEN {counted} END")) {
        *value = FunctionArgExpr::Expr(made);
        function.filter = None;
    }
}

/// Aggregates that keep what is missing.
const WITH_MISSING: &[&str] = &["array_agg", "first_value", "last_value", "nth_value"];

/// `struct_pack(a := 1)` says its names before the values.
fn named_fields(function: &mut Function) -> Result<()> {
    let Some(list) = list_mut(function) else { return Ok(()) };
    let mut args = Vec::new();
    for arg in list.args.drain(..) {
        match arg {
            FunctionArg::Named { name, arg, .. } => {
                args.push(FunctionArg::Unnamed(FunctionArgExpr::Expr(text(&name.value))));
                args.push(FunctionArg::Unnamed(arg));
            }
            FunctionArg::ExprNamed { name, arg, .. } => {
                let name = match literal(&name) {
                    Some(name) => name.to_owned(),
                    None => name.to_string(),
                };
                args.push(FunctionArg::Unnamed(FunctionArgExpr::Expr(text(&name))));
                args.push(FunctionArg::Unnamed(arg));
            }
            FunctionArg::Unnamed(_) => {
                return Err(unsupported("struct_pack without names; write struct_pack(a := 1)"));
            }
        }
    }
    list.args = args;
    Ok(())
}
