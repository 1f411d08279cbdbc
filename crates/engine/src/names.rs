//! Names as users write them: whatever their case, near misses, places for parameters.

use crate::context::TableEntry;
use crate::error::distance;
use crate::{EngineError, Kind};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::sql::parser::{CopyToSource, Statement};
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, JoinConstraint, JoinOperator, ObjectName, ObjectNamePart, Query, Select,
    SelectItem, Statement as SqlStatement, TableFactor, Value, VisitMut, VisitorMut,
};
use std::collections::HashMap;
use std::ops::ControlFlow;

/// How names are spelled, by their lower case.
struct Spelling {
    columns: HashMap<String, String>,
    tables: HashMap<String, String>,
}

/// Gives tables' names without quotes the spelling of the tables they mean.
pub(crate) fn spell_tables(statement: &mut Statement, tables: &[TableEntry]) {
    let is_lower = |name: &str| name == name.to_lowercase();
    let mut spellings = HashMap::new();
    for entry in tables.iter().filter(|entry| !is_lower(&entry.name)) {
        spellings.insert(entry.name.to_lowercase(), entry.name.clone());
    }
    // A table that is spelled in lower case is meant by itself.
    for entry in tables.iter().filter(|entry| is_lower(&entry.name)) {
        spellings.remove(&entry.name);
    }
    if !spellings.is_empty() {
        visit(statement, &mut Spelling { columns: HashMap::new(), tables: spellings });
    }
}

/// Gives columns' names without quotes the spelling of what they mean: `amount` finds `Amount`.
///
/// Without quotes SQL's names have no case; the engine lowers them. A name that differs from its
/// lower case, of a column or an alias, is put in quotes as it is spelled where it comes from.
pub(crate) fn spell_columns(statement: &mut Statement, schemas: &[SchemaRef]) {
    let mut columns = HashMap::new();
    for field in schemas.iter().flat_map(|schema| schema.fields()) {
        let lower = field.name().to_lowercase();
        // What is lower case itself needs no help, and wins.
        match lower == *field.name() {
            true => drop(columns.insert(lower, field.name().clone())),
            false => drop(columns.entry(lower).or_insert_with(|| field.name().clone())),
        }
    }
    let mut aliases = Aliases(HashMap::new());
    visit(statement, &mut aliases);
    for (lower, spelled) in aliases.0 {
        columns.entry(lower).or_insert(spelled);
    }
    columns.retain(|lower, spelled| lower != spelled);
    if !columns.is_empty() {
        visit(statement, &mut Spelling { columns, tables: HashMap::new() });
    }
}

/// Turns `?` into `$1`, `$2` …
pub(crate) fn number_placeholders(statement: &mut Statement) {
    visit(statement, &mut Placeholders(0));
}

fn visit<V: VisitorMut<Break = ()>>(statement: &mut Statement, visitor: &mut V) {
    match statement {
        Statement::Statement(statement) => drop(statement.visit(visitor)),
        Statement::CopyTo(copy) => {
            if let CopyToSource::Query(query) = &mut copy.source {
                let _ = query.visit(visitor);
            }
        }
        Statement::Explain(explain) => visit(&mut explain.statement, visitor),
        Statement::CreateExternalTable(_) | Statement::Reset(_) => {}
    }
}

struct Placeholders(usize);

impl VisitorMut for Placeholders {
    type Break = ();
    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Value(value) = expr
            && let Value::Placeholder(name) = &mut value.value
            && name == "?"
        {
            self.0 += 1;
            *name = format!("${}", self.0);
        }
        ControlFlow::Continue(())
    }
}

/// Aliases with capitals: the first spelling of each.
struct Aliases(HashMap<String, String>);

impl VisitorMut for Aliases {
    type Break = ();
    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        for item in &select.projection {
            if let SelectItem::ExprWithAlias { alias, .. } = item {
                self.0.entry(alias.value.to_lowercase()).or_insert_with(|| alias.value.clone());
            }
        }
        ControlFlow::Continue(())
    }
}

impl Spelling {
    fn column(&self, ident: &mut Ident) {
        fix(ident, &self.columns);
    }

    fn object(&self, name: &mut ObjectName) {
        if let Some(ObjectNamePart::Identifier(ident)) = name.0.last_mut() {
            fix(ident, &self.tables);
        }
    }
}

fn fix(ident: &mut Ident, spellings: &HashMap<String, String>) {
    if ident.quote_style.is_some() {
        return;
    }
    if let Some(spelled) = spellings.get(&ident.value.to_lowercase()) {
        ident.value = spelled.clone();
        ident.quote_style = Some('"');
    }
}

impl VisitorMut for Spelling {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Identifier(ident) => self.column(ident),
            Expr::CompoundIdentifier(parts) => {
                if let [qualifiers @ .., last] = parts.as_mut_slice() {
                    self.column(last);
                    qualifiers.iter_mut().for_each(|ident| fix(ident, &self.tables));
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &mut ObjectName) -> ControlFlow<()> {
        self.object(relation);
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        for item in &mut select.projection {
            if let SelectItem::ExprWithAlias { alias, .. } = item {
                self.column(alias);
            }
        }
        for join in select.from.iter_mut().flat_map(|from| &mut from.joins) {
            if let Some(JoinConstraint::Using(names)) = constraint(&mut join.join_operator) {
                for name in names {
                    if let Some(ObjectNamePart::Identifier(ident)) = name.0.last_mut() {
                        self.column(ident);
                    }
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        let alias = match factor {
            TableFactor::Table { alias, .. } | TableFactor::Derived { alias, .. } => alias,
            _ => return ControlFlow::Continue(()),
        };
        if let Some(alias) = alias {
            alias.columns.iter_mut().for_each(|column| self.column(&mut column.name));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        for table in query.with.iter_mut().flat_map(|with| &mut with.cte_tables) {
            table.alias.columns.iter_mut().for_each(|column| self.column(&mut column.name));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_statement(&mut self, statement: &mut SqlStatement) -> ControlFlow<()> {
        if let SqlStatement::Insert(insert) = statement {
            for name in &mut insert.columns {
                if let Some(ObjectNamePart::Identifier(ident)) = name.0.last_mut() {
                    fix(ident, &self.columns);
                }
            }
        }
        ControlFlow::Continue(())
    }
}

fn constraint(operator: &mut JoinOperator) -> Option<&mut JoinConstraint> {
    use JoinOperator as J;
    match operator {
        J::Join(on)
        | J::Inner(on)
        | J::Left(on)
        | J::LeftOuter(on)
        | J::Right(on)
        | J::RightOuter(on)
        | J::FullOuter(on)
        | J::Semi(on)
        | J::LeftSemi(on)
        | J::RightSemi(on)
        | J::Anti(on)
        | J::LeftAnti(on)
        | J::RightAnti(on) => Some(on),
        _ => None,
    }
}

/// There is no such table, and which one may have been meant.
pub(crate) fn no_table(name: &str, tables: &[TableEntry]) -> EngineError {
    let mut text = format!("there is no table {name}");
    let near = tables
        .iter()
        .map(|entry| (distance(name, &entry.name), &entry.name))
        .min()
        .filter(|(n, _)| *n <= 1 + name.chars().count() / 3);
    match near {
        Some((_, near)) => text.push_str(&format!("; did you mean {near}?")),
        None if tables.is_empty() => text.push_str("; no tables have been created yet"),
        None => {
            let names: Vec<&str> =
                tables.iter().take(20).map(|entry| entry.name.as_str()).collect();
            text.push_str(&format!(" (tables are {})", names.join(", ")));
        }
    }
    EngineError::new(Kind::Plan, text)
}

/// The engine's own words for a missing table, replaced by [`no_table`].
pub(crate) fn with_near_table(error: EngineError, tables: &[TableEntry]) -> EngineError {
    let missing = error.text.strip_prefix("table '").and_then(|rest| rest.split_once('\''));
    match missing {
        Some((name, after)) if after.trim().starts_with("not found") => {
            let name = name.rsplit('.').next().unwrap_or(name);
            no_table(name, tables)
        }
        _ => error,
    }
}
