//! Joins: short names of kinds, and the shared column of an outer join.

use crate::dialect::trees::{expression, item, query, quoted, unsupported};
use crate::dialect::{Rules, Stop};
use datafusion::sql::sqlparser::ast::{
    ExcludeSelectItem, Expr, Ident, JoinConstraint, JoinOperator, ObjectName, Query, Select,
    SelectItem, SelectItemQualifiedWildcardKind, TableFactor, TableWithJoins, VisitMut, VisitorMut,
    WildcardAdditionalOptions,
};
use std::ops::ControlFlow;

pub(super) fn before(select: &mut Select, rules: &mut Rules) -> Result<(), Stop> {
    let mut is_shared = false;
    for table in &mut select.from {
        for join in &mut table.joins {
            kind(&mut join.join_operator)?;
            is_shared |= loses_left(&join.join_operator)?;
        }
    }
    if !is_shared {
        return Ok(());
    }
    match select.from.as_mut_slice() {
        [table] => {
            let shared = shared_columns(table)?;
            say_shared(select, &shared, rules)
        }
        _ => Err(unsupported("RIGHT or FULL JOIN USING beside a comma; write ON").into()),
    }
}

fn kind(operator: &mut JoinOperator) -> Result<(), Stop> {
    let taken = std::mem::replace(operator, JoinOperator::CrossJoin(JoinConstraint::None));
    *operator = match taken {
        JoinOperator::Semi(on) => JoinOperator::LeftSemi(on),
        JoinOperator::Anti(on) => JoinOperator::LeftAnti(on),
        JoinOperator::AsOf { .. } => return Err(unsupported("ASOF JOIN").into()),
        other => other,
    };
    Ok(())
}

/// Whether the left side's column is missing in rows that the join keeps of the right.
fn loses_left(operator: &JoinOperator) -> Result<bool, Stop> {
    let (JoinOperator::Right(on) | JoinOperator::RightOuter(on) | JoinOperator::FullOuter(on)) =
        operator
    else {
        return Ok(false);
    };
    match on {
        JoinConstraint::Using(_) => Ok(true),
        JoinConstraint::Natural => {
            Err(unsupported("NATURAL RIGHT or FULL JOIN; name the columns by USING or ON").into())
        }
        _ => Ok(false),
    }
}

struct Shared {
    name: Ident,
    /// The value, whichever side has it.
    value: Expr,
}

struct Table {
    name: Ident,
    written: String,
    own: Vec<Ident>,
}

impl Table {
    fn new(factor: &TableFactor) -> Result<Table, Stop> {
        Ok(Table { name: called(factor)?, written: factor.to_string(), own: Vec::new() })
    }
}

struct Columns {
    shared: Vec<Shared>,
    /// Each table as it is called and as it is written, and the shared columns it has.
    tables: Vec<Table>,
}

fn called(factor: &TableFactor) -> Result<Ident, Stop> {
    let alias = match factor {
        TableFactor::Table { alias, .. }
        | TableFactor::Derived { alias, .. }
        | TableFactor::TableFunction { alias, .. }
        | TableFactor::UNNEST { alias, .. } => alias.as_ref().map(|alias| alias.name.clone()),
        _ => None,
    };
    let name = alias.or_else(|| match factor {
        TableFactor::Table { name, .. } => name.0.last().and_then(|part| part.as_ident().cloned()),
        _ => None,
    });
    name.ok_or_else(|| {
        unsupported("JOIN USING of a table without a name; give it one by AS").into()
    })
}

fn names_of(columns: &[ObjectName]) -> Vec<Ident> {
    columns.iter().filter_map(|name| name.0.last().and_then(|p| p.as_ident().cloned())).collect()
}

/// Turns USING into ON, and says where each shared column is found.
fn shared_columns(table: &mut TableWithJoins) -> Result<Columns, Stop> {
    let mut columns = Columns { shared: Vec::new(), tables: vec![Table::new(&table.relation)?] };
    for join in &mut table.joins {
        let mut right_table = Table::new(&join.relation)?;
        let right = right_table.name.clone();
        let keeps_right = loses_left(&join.join_operator)?;
        let is_full = matches!(join.join_operator, JoinOperator::FullOuter(_));
        if let Some(constraint) = constraint(&mut join.join_operator)
            && let JoinConstraint::Using(names) = constraint
        {
            let mut conditions = Vec::new();
            for name in names_of(names) {
                let left = left_value(&mut columns, &name)?;
                conditions.push(format!("{left} = {right}.{name}"));
                let value = match (is_full, keeps_right) {
                    (true, _) => format!("coalesce({left}, {right}.{name})"),
                    (false, true) => format!("{right}.{name}"),
                    (false, false) => left,
                };
                let value = expression(&value)?;
                match columns.shared.iter_mut().find(|s| s.name.value == name.value) {
                    Some(known) => known.value = value,
                    None => columns.shared.push(Shared { name: name.clone(), value }),
                }
                right_table.own.push(name);
            }
            *constraint = JoinConstraint::On(expression(&conditions.join(" AND "))?);
        }
        columns.tables.push(right_table);
    }
    Ok(columns)
}

fn constraint(operator: &mut JoinOperator) -> Option<&mut JoinConstraint> {
    match operator {
        JoinOperator::Join(on)
        | JoinOperator::Inner(on)
        | JoinOperator::Left(on)
        | JoinOperator::LeftOuter(on)
        | JoinOperator::Right(on)
        | JoinOperator::RightOuter(on)
        | JoinOperator::FullOuter(on)
        | JoinOperator::LeftSemi(on)
        | JoinOperator::LeftAnti(on) => Some(on),
        _ => None,
    }
}

/// A column of what stands left of a join: shared already, or of the only table there.
fn left_value(columns: &mut Columns, name: &Ident) -> Result<String, Stop> {
    if let Some(known) = columns.shared.iter().find(|shared| shared.name.value == name.value) {
        return Ok(known.value.to_string());
    }
    match columns.tables.as_mut_slice() {
        [table] => {
            table.own.push(name.clone());
            Ok(format!("{}.{name}", table.name))
        }
        _ => Err(unsupported(format!(
            "USING ({name}) after several tables, with RIGHT or FULL JOIN; write ON"
        ))
        .into()),
    }
}

struct Replace<'a> {
    depth: usize,
    shared: &'a [Shared],
}

impl VisitorMut for Replace<'_> {
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
        if self.depth == 0
            && let Expr::Identifier(ident) = expr
            && let Some(found) = self.shared.iter().find(|s| is_same(&s.name, ident))
        {
            *expr = found.value.clone();
        }
        ControlFlow::Continue(())
    }
}

fn is_same(one: &Ident, other: &Ident) -> bool {
    one.value == other.value || one.value.eq_ignore_ascii_case(&other.value)
}

/// Says the shared columns as what they are, in all clauses of the select.
fn say_shared(select: &mut Select, columns: &Columns, rules: &Rules) -> Result<(), Stop> {
    let mut items = Vec::new();
    for given in std::mem::take(&mut select.projection) {
        match given {
            SelectItem::Wildcard(options) => {
                let left_out = left_out(&options);
                for shared in &columns.shared {
                    if !left_out.iter().any(|name| is_named(name, &shared.name)) {
                        items.push(item(shared.value.clone(), &shared.name.value));
                    }
                }
                for table in &columns.tables {
                    items.push(without(table, &options, rules)?);
                }
            }
            SelectItem::UnnamedExpr(Expr::Identifier(ident)) => {
                let found = columns.shared.iter().find(|s| is_same(&s.name, &ident));
                items.push(match found {
                    Some(shared) => item(shared.value.clone(), &ident.value),
                    None => SelectItem::UnnamedExpr(Expr::Identifier(ident)),
                });
            }
            other => items.push(other),
        }
    }
    select.projection = items;
    let mut replace = Replace { depth: 0, shared: &columns.shared };
    for given in &mut select.projection {
        if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = given {
            let _ = expr.visit(&mut replace);
        }
    }
    let _ = select.selection.visit(&mut replace);
    let _ = select.group_by.visit(&mut replace);
    let _ = select.having.visit(&mut replace);
    let _ = select.qualify.visit(&mut replace);
    Ok(())
}

fn left_out(options: &WildcardAdditionalOptions) -> Vec<ObjectName> {
    match &options.opt_exclude {
        Some(ExcludeSelectItem::Single(one)) => vec![one.clone()],
        Some(ExcludeSelectItem::Multiple(many)) => many.clone(),
        None => Vec::new(),
    }
}

fn is_named(name: &ObjectName, ident: &Ident) -> bool {
    name.0.last().and_then(|part| part.as_ident()).is_some_and(|last| is_same(last, ident))
}

/// `table.* EXCLUDE (shared columns)`, and of what is left out what this table has.
fn without(
    table: &Table,
    given: &WildcardAdditionalOptions,
    rules: &Rules,
) -> Result<SelectItem, Stop> {
    if given.opt_replace.is_some() || given.opt_rename.is_some() || given.opt_except.is_some() {
        return Err(unsupported("REPLACE, RENAME or EXCEPT after * of an outer JOIN USING").into());
    }
    let mut options = given.clone();
    let mut names: Vec<ObjectName> = left_out(given);
    if !names.is_empty() {
        let columns = rules.columns(query(&format!("SELECT * FROM {}", table.written))?)?;
        names.retain(|name| columns.iter().any(|column| is_named(name, &quoted(column))));
        names.retain(|name| !table.own.iter().any(|own| is_named(name, own)));
    }
    names.extend(table.own.iter().map(|name| ObjectName::from(vec![quoted(&name.value)])));
    options.opt_exclude = (!names.is_empty()).then_some(ExcludeSelectItem::Multiple(names));
    let name = ObjectName::from(vec![table.name.clone()]);
    Ok(SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options))
}
