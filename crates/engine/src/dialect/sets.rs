//! `EXCEPT ALL` and `INTERSECT ALL`, which count how often a row is there.

use crate::dialect::trees::{query, quoted};
use crate::dialect::{Rules, Stop};
use datafusion::sql::sqlparser::ast::{Query, SetExpr, SetOperator, SetQuantifier};

pub(super) fn before(whole: &mut Query, rules: &mut Rules) -> Result<(), Stop> {
    numbered(&mut whole.body, rules)
}

/// The nth of equal rows is made unequal to the others by its number; then rows are a set.
fn numbered(body: &mut SetExpr, rules: &mut Rules) -> Result<(), Stop> {
    let SetExpr::SetOperation { op, set_quantifier, left, right } = body else { return Ok(()) };
    numbered(left, rules)?;
    numbered(right, rules)?;
    if *set_quantifier != SetQuantifier::All
        || !matches!(op, SetOperator::Except | SetOperator::Intersect | SetOperator::Minus)
    {
        return Ok(());
    }
    let columns = rules.columns(query(&left.to_string())?)?.to_vec();
    let names: Vec<String> = (0..columns.len()).map(|at| format!("__{at}")).collect();
    let list = names.join(", ");
    let side = |one: &SetExpr| {
        format!(
            "SELECT *, row_number() OVER (PARTITION BY {list}) AS __nth FROM ({one}) AS __side({list})"
        )
    };
    let word = if *op == SetOperator::Intersect { "INTERSECT" } else { "EXCEPT" };
    let shown: Vec<String> = names
        .iter()
        .zip(&columns)
        .map(|(name, column)| format!("{name} AS {}", quoted(column)))
        .collect();
    let made = format!(
        "SELECT {} FROM ({} {word} {}) AS __set",
        shown.join(", "),
        side(left),
        side(right)
    );
    *body = *query(&made)?.body;
    Ok(())
}
