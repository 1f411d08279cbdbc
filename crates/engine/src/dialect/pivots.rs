//! What may stand after FROM: pivots, files by functions, samples.

use crate::dialect::trees::{query, quoted, unsupported};
use crate::dialect::{Rules, Stop, names};
use datafusion::sql::sqlparser::ast::{
    Expr, ExprWithAlias, Ident, NullInclusion, ObjectName, PivotValueSource, TableAlias,
    TableFactor, Visit, Visitor,
};
use std::collections::HashSet;
use std::ops::ControlFlow;

pub(super) fn before(factor: &mut TableFactor, rules: &mut Rules) -> Result<(), Stop> {
    match factor {
        TableFactor::Table { sample: Some(_), name, .. } => {
            Err(unsupported(format!("a sample of {name}; write WHERE random() < 0.1")).into())
        }
        TableFactor::Table { name, args, .. } => {
            if let Some(given) = args
                && let [part] = name.0.as_slice()
                && let Some(function) = part.as_ident()
                && let Some(file) = names::file_of(&function.value.to_lowercase(), &given.args)?
            {
                *name = ObjectName::from(vec![file]);
                *args = None;
            }
            Ok(())
        }
        TableFactor::Pivot {
            table,
            aggregate_functions,
            value_column,
            value_source,
            default_on_null,
            alias,
        } => {
            if default_on_null.is_some() {
                return Err(unsupported("DEFAULT ON NULL in PIVOT").into());
            }
            let text = pivot(table, aggregate_functions, value_column, value_source, rules)?;
            *factor = derived(&text, alias.take())?;
            Ok(())
        }
        TableFactor::Unpivot { table, value, name, columns, null_inclusion, alias } => {
            let keeps = matches!(null_inclusion, Some(NullInclusion::IncludeNulls));
            let text = unpivot(table, value, name, columns, keeps);
            *factor = derived(&text, alias.take())?;
            Ok(())
        }
        _ => Ok(()),
    }
}

fn derived(text: &str, alias: Option<TableAlias>) -> Result<TableFactor, Stop> {
    Ok(TableFactor::Derived {
        lateral: false,
        subquery: Box::new(query(text)?),
        alias,
        sample: None,
    })
}

#[derive(Default)]
struct Named(HashSet<String>);

impl Visitor for Named {
    type Break = ();
    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Identifier(ident) => drop(self.0.insert(ident.value.to_lowercase())),
            Expr::CompoundIdentifier(parts) => {
                self.0.extend(parts.last().map(|part| part.value.to_lowercase()));
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// An aggregate with a filter for each value, grouped by all columns that are not named.
fn pivot(
    table: &TableFactor,
    aggregates: &[ExprWithAlias],
    value_column: &[Expr],
    source: &PivotValueSource,
    rules: &Rules,
) -> Result<String, Stop> {
    let PivotValueSource::List(values) = source else {
        return Err(unsupported("PIVOT with values that are not written out").into());
    };
    let [by] = value_column else {
        return Err(unsupported("PIVOT by more than one column").into());
    };
    let mut named = Named::default();
    let _ = by.visit(&mut named);
    for aggregate in aggregates {
        let _ = aggregate.expr.visit(&mut named);
    }
    let columns = rules.columns(query(&format!("SELECT * FROM {table}"))?)?;
    let groups: Vec<String> = columns
        .iter()
        .filter(|column| !named.0.contains(&column.to_lowercase()))
        .map(|column| quoted(column).to_string())
        .collect();
    let mut items = groups.clone();
    for value in values {
        for aggregate in aggregates {
            let of = match &value.alias {
                Some(alias) => alias.value.clone(),
                None => value.expr.to_string().trim_matches('\'').to_owned(),
            };
            let name = match (&aggregate.alias, aggregates.len()) {
                (Some(alias), _) => format!("{of}_{}", alias.value),
                (None, 1) => of,
                (None, _) => format!("{of}_{}", aggregate.expr),
            };
            items.push(format!(
                "{} FILTER (WHERE {by} = {}) AS {}",
                aggregate.expr,
                value.expr,
                quoted(&name)
            ));
        }
    }
    let group_by = match groups.is_empty() {
        true => String::new(),
        false => format!(" GROUP BY {}", groups.join(", ")),
    };
    Ok(format!("SELECT {} FROM {table}{group_by}", items.join(", ")))
}

/// The table once for each column, with the column's name and value instead of the columns.
fn unpivot(
    table: &TableFactor,
    value: &Expr,
    name: &Ident,
    columns: &[ExprWithAlias],
    keeps_missing: bool,
) -> String {
    let list: Vec<String> = columns.iter().map(|column| column.expr.to_string()).collect();
    let part = |column: &ExprWithAlias| {
        let of = match &column.alias {
            Some(alias) => alias.value.clone(),
            None => column.expr.to_string().trim_matches('"').to_owned(),
        };
        let condition = match keeps_missing {
            true => String::new(),
            false => format!(" WHERE {} IS NOT NULL", column.expr),
        };
        format!(
            "SELECT * EXCLUDE ({}), '{}' AS {name}, {} AS {value} FROM {table}{condition}",
            list.join(", "),
            of.replace('\'', "''"),
            column.expr
        )
    };
    columns.iter().map(part).collect::<Vec<_>>().join(" UNION ALL ")
}
