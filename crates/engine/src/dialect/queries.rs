//! Clauses of a whole query: how many rows, in which order.

use crate::dialect::trees::{number, quoted, unsupported};
use crate::dialect::{Rules, Stop, names};
use datafusion::sql::sqlparser::ast::{
    Expr, LimitClause, OrderBy, OrderByExpr, OrderByKind, Query, Select, SelectFlavor, SelectItem,
    SetExpr, TopQuantity, WildcardAdditionalOptions,
};

pub(super) fn before(query: &mut Query, rules: &mut Rules) -> Result<(), Stop> {
    if let Some(lock) = query.locks.first() {
        return Err(unsupported(format!("{lock}: nobody else changes what a query reads")).into());
    }
    from_first(query);
    fetch(query)?;
    top(query)?;
    order_by_all(query, rules)?;
    order_by_items(query);
    Ok(())
}

/// `FROM t` alone is all of `t`.
fn from_first(query: &mut Query) {
    if let SetExpr::Select(select) = query.body.as_mut()
        && select.flavor == SelectFlavor::FromFirstNoSelect
    {
        select.flavor = SelectFlavor::Standard;
        select.projection = vec![SelectItem::Wildcard(WildcardAdditionalOptions::default())];
    }
}

fn limit_to(query: &mut Query, n: Expr) {
    match &mut query.limit_clause {
        Some(LimitClause::LimitOffset { limit, .. }) => *limit = Some(n),
        _ => {
            let (offset, limit_by) = (None, Vec::new());
            query.limit_clause =
                Some(LimitClause::LimitOffset { limit: Some(n), offset, limit_by });
        }
    }
}

/// `FETCH FIRST n ROWS ONLY`.
fn fetch(query: &mut Query) -> Result<(), Stop> {
    let Some(fetch) = query.fetch.take() else { return Ok(()) };
    if fetch.with_ties || fetch.percent {
        return Err(unsupported(format!("{fetch}")).into());
    }
    limit_to(query, fetch.quantity.unwrap_or_else(|| number(1)));
    Ok(())
}

/// `SELECT TOP n`.
fn top(query: &mut Query) -> Result<(), Stop> {
    let SetExpr::Select(select) = query.body.as_mut() else { return Ok(()) };
    let Some(top) = select.top.take() else { return Ok(()) };
    if top.with_ties || top.percent {
        return Err(unsupported(format!("{top}")).into());
    }
    let n = match top.quantity {
        Some(TopQuantity::Expr(n)) => n,
        Some(TopQuantity::Constant(n)) => number(i64::try_from(n).unwrap_or(i64::MAX)),
        None => return Err(unsupported("TOP without a number").into()),
    };
    limit_to(query, n);
    Ok(())
}

fn has_wildcards(select: &Select) -> bool {
    select.projection.iter().any(|item| match item {
        SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..) => true,
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => {
            names::is_many(expr)
        }
        SelectItem::ExprWithAliases { .. } => true,
    })
}

fn order_by_all(query: &mut Query, rules: &mut Rules) -> Result<(), Stop> {
    let Some(OrderBy { kind: OrderByKind::All(options), .. }) = &query.order_by else {
        return Ok(());
    };
    let options = *options;
    let n = match query.body.as_ref() {
        SetExpr::Select(select) if !has_wildcards(select) => select.projection.len(),
        _ => {
            let mut plain = query.clone();
            plain.order_by = None;
            plain.limit_clause = None;
            // What is around this query holds its own common tables as well.
            let own = rules.scopes.pop();
            let columns = rules.columns(plain).map(<[String]>::len);
            rules.scopes.extend(own);
            columns?
        }
    };
    let every = (1..=n as i64).map(|at| OrderByExpr { expr: number(at), options, with_fill: None });
    let kind = OrderByKind::Expressions(every.collect());
    query.order_by = Some(OrderBy { kind, interpolate: None });
    Ok(())
}

/// An item that is sorted by gets its name in the select; here it is called by that name.
fn order_by_items(query: &mut Query) {
    let SetExpr::Select(select) = query.body.as_ref() else { return };
    let Some(OrderBy { kind: OrderByKind::Expressions(keys), .. }) = &mut query.order_by else {
        return;
    };
    for key in keys {
        let is_item = |item: &SelectItem| {
            matches!(item, SelectItem::UnnamedExpr(expr)
                if names::needs_name(expr) && same(expr, &key.expr))
        };
        if select.projection.iter().filter(|item| is_item(item)).count() == 1
            && select.distinct.is_some()
        {
            key.expr = Expr::Identifier(quoted(&key.expr.to_string()));
        }
    }
}

fn same(one: &Expr, other: &Expr) -> bool {
    one == other || one.to_string() == other.to_string()
}
