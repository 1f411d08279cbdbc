//! Names in a select: what a column is called, aliases that are used beside where they are given,
//! and items that stand for many columns.

use crate::EngineError;
use crate::dialect::trees::{column, item, literal, name_of, query, quoted, unsupported};
use crate::dialect::{Rules, Stop};
use datafusion::sql::sqlparser::ast::{
    ExcludeSelectItem, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Query,
    RenameSelectItem, Select, SelectItem, Visit, VisitMut, Visitor, VisitorMut,
    WildcardAdditionalOptions,
};
use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

pub(super) fn before(select: &mut Select, rules: &mut Rules) -> Result<(), Stop> {
    many_columns(select, rules)?;
    aliases(select, rules)?;
    item_names(select);
    Ok(())
}

/// The names of the columns that `what` stands for in this select.
fn columns_of(select: &Select, what: &str, rules: &Rules) -> Result<Vec<String>, Stop> {
    if select.from.is_empty() {
        return Ok(Vec::new());
    }
    let from: Vec<String> = select.from.iter().map(ToString::to_string).collect();
    let text = format!("SELECT {what} FROM {}", from.join(", "));
    Ok(rules.columns(query(&text)?)?.to_vec())
}

// ---- items that stand for many columns

/// Whether an item contains `COLUMNS(…)`.
pub(super) fn is_many(expr: &Expr) -> bool {
    pattern_in(expr).is_some()
}

/// The pattern of `COLUMNS('…')` within an expression; that of `COLUMNS(*)` matches everything.
fn pattern_in(expr: &Expr) -> Option<String> {
    struct Find(Option<String>);
    impl Visitor for Find {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            if let Expr::Function(function) = expr
                && name_of(function) == "columns"
                && let FunctionArguments::List(list) = &function.args
            {
                match list.args.as_slice() {
                    [FunctionArg::Unnamed(FunctionArgExpr::Wildcard)] => {
                        self.0 = Some(String::new());
                    }
                    [FunctionArg::Unnamed(FunctionArgExpr::Expr(pattern))] => {
                        self.0 = literal(pattern).map(str::to_owned);
                    }
                    _ => {}
                }
            }
            ControlFlow::Continue(())
        }
    }
    let mut find = Find(None);
    let _ = expr.visit(&mut find);
    find.0
}

struct InPlace<'a>(&'a str);

impl VisitorMut for InPlace<'_> {
    type Break = ();
    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if matches!(expr, Expr::Function(function) if name_of(function) == "columns") {
            *expr = column(self.0);
        }
        ControlFlow::Continue(())
    }
}

fn many_columns(select: &mut Select, rules: &Rules) -> Result<(), Stop> {
    let mut items = Vec::with_capacity(select.projection.len());
    for given in &select.projection {
        match given {
            SelectItem::Wildcard(options) if options.opt_rename.is_some() => {
                let columns = columns_of(select, "*", rules)?;
                items.extend(renamed(options, &columns, None)?);
            }
            SelectItem::QualifiedWildcard(of, options) if options.opt_rename.is_some() => {
                let columns = columns_of(select, &of.to_string(), rules)?;
                let table = of.to_string().trim_end_matches(".*").to_owned();
                items.extend(renamed(options, &columns, Some(&table))?);
            }
            SelectItem::UnnamedExpr(expr) if is_many(expr) => {
                let pattern = pattern_in(expr).unwrap_or_default();
                let pattern = regex::Regex::new(&pattern)
                    .map_err(|error| EngineError::plan(format!("COLUMNS('{pattern}'): {error}")))?;
                let columns = columns_of(select, "*", rules)?;
                let n_before = items.len();
                for name in columns.iter().filter(|name| pattern.is_match(name)) {
                    let mut expr = expr.clone();
                    let _ = VisitMut::visit(&mut expr, &mut InPlace(name));
                    items.push(item(expr, name));
                }
                if items.len() == n_before {
                    let names = columns.join(", ");
                    let text = format!("no column matches COLUMNS('{pattern}'); there are {names}");
                    return Err(EngineError::plan(text).into());
                }
            }
            other => items.push(other.clone()),
        }
    }
    select.projection = items;
    Ok(())
}

fn same_name(ident: &Ident, name: &str) -> bool {
    match ident.quote_style {
        Some(_) => ident.value == name,
        None => ident.value.eq_ignore_ascii_case(name),
    }
}

/// `* RENAME (a AS b)`, with EXCLUDE and REPLACE beside it, column by column.
fn renamed(
    options: &WildcardAdditionalOptions,
    columns: &[String],
    table: Option<&str>,
) -> Result<Vec<SelectItem>, Stop> {
    let renames = match &options.opt_rename {
        Some(RenameSelectItem::Single(one)) => std::slice::from_ref(one),
        Some(RenameSelectItem::Multiple(many)) => many,
        None => &[],
    };
    let left_out: Vec<String> = match &options.opt_exclude {
        Some(ExcludeSelectItem::Single(one)) => vec![one.to_string()],
        Some(ExcludeSelectItem::Multiple(many)) => many.iter().map(ToString::to_string).collect(),
        None => Vec::new(),
    };
    if let Some(unknown) = renames.iter().find(|r| !columns.iter().any(|c| same_name(&r.ident, c)))
    {
        let text = format!(
            "RENAME: there is no column {}; there are {}",
            unknown.ident,
            columns.join(", ")
        );
        return Err(EngineError::plan(text).into());
    }
    let mut items = Vec::new();
    for name in columns {
        if left_out.iter().any(|out| out.trim_matches('"').eq_ignore_ascii_case(name)) {
            continue;
        }
        let replaced = options.opt_replace.iter().flat_map(|replace| &replace.items);
        let replaced = replaced.into_iter().find(|one| same_name(&one.column_name, name));
        let expr = match (replaced, table) {
            (Some(one), _) => one.expr.clone(),
            (None, None) => column(name),
            (None, Some(table)) => Expr::CompoundIdentifier(vec![Ident::new(table), quoted(name)]),
        };
        let new = renames.iter().find(|one| same_name(&one.ident, name));
        items.push(item(expr, new.map_or(name, |one| &one.alias.value)));
    }
    Ok(items)
}

// ---- aliases used beside where they are given

/// The identifiers of an expression itself, not of queries within it.
struct Used {
    depth: usize,
    names: HashSet<String>,
}

impl Visitor for Used {
    type Break = ();
    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }
    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }
    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if self.depth == 0
            && let Expr::Identifier(ident) = expr
        {
            self.names.insert(ident.value.to_lowercase());
        }
        ControlFlow::Continue(())
    }
}

fn used(expr: &Expr) -> HashSet<String> {
    let mut found = Used { depth: 0, names: HashSet::new() };
    let _ = expr.visit(&mut found);
    found.names
}

struct Replace<'a> {
    depth: usize,
    meanings: &'a HashMap<String, Expr>,
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
            && let Some(meaning) = self.meanings.get(&ident.value.to_lowercase())
        {
            *expr = Expr::Nested(Box::new(meaning.clone()));
        }
        ControlFlow::Continue(())
    }
}

/// `SELECT a + 1 AS x, x * 2 AS y … WHERE x > 1`: where a name is no column but an alias.
///
/// A column of the tables goes before an alias, as in other systems.
fn aliases(select: &mut Select, rules: &Rules) -> Result<(), Stop> {
    let mut given: HashSet<String> = HashSet::new();
    let mut candidates: HashSet<String> = HashSet::new();
    for item in &select.projection {
        match item {
            SelectItem::UnnamedExpr(expr) => {
                candidates.extend(used(expr).intersection(&given).cloned());
            }
            SelectItem::ExprWithAlias { expr, alias } => {
                candidates.extend(used(expr).intersection(&given).cloned());
                let alias = alias.value.to_lowercase();
                // `a AS a` and `t.a AS a` mean the column in any case.
                let last = match expr {
                    Expr::Identifier(ident) => Some(ident),
                    Expr::CompoundIdentifier(parts) => parts.last(),
                    _ => None,
                };
                if last.is_none_or(|ident| ident.value.to_lowercase() != alias) {
                    given.insert(alias);
                }
            }
            _ => {}
        }
    }
    if let Some(condition) = &select.selection {
        candidates.extend(used(condition).intersection(&given).cloned());
    }
    if candidates.is_empty() {
        return Ok(());
    }
    for name in columns_of(select, "*", rules)? {
        candidates.remove(&name.to_lowercase());
    }
    let mut meanings: HashMap<String, Expr> = HashMap::new();
    for item in &mut select.projection {
        if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
            let _ = VisitMut::visit(expr, &mut Replace { depth: 0, meanings: &meanings });
        }
        if let SelectItem::ExprWithAlias { expr, alias } = item {
            let alias = alias.value.to_lowercase();
            if candidates.contains(&alias) {
                meanings.insert(alias, expr.clone());
            }
        }
    }
    if let Some(condition) = &mut select.selection {
        let _ = VisitMut::visit(condition, &mut Replace { depth: 0, meanings: &meanings });
    }
    Ok(())
}

// ---- what items are called

/// Whether an item is called by its text: columns have names, and some items are many columns.
pub(super) fn needs_name(expr: &Expr) -> bool {
    struct Unnests(bool);
    impl Visitor for Unnests {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            self.0 |= matches!(expr, Expr::Function(f) if name_of(f) == "unnest");
            ControlFlow::Continue(())
        }
    }
    if matches!(
        expr,
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::CompoundFieldAccess { .. }
    ) {
        return false;
    }
    let mut unnests = Unnests(false);
    let _ = expr.visit(&mut unnests);
    !unnests.0
}

/// Whether an item is one column: not several, and not one of many rows.
pub(super) fn is_one_value(expr: &Expr) -> bool {
    let is_column = matches!(
        expr,
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::CompoundFieldAccess { .. }
    );
    is_column || needs_name(expr)
}

/// An item is called what is written; of several with one name the later get a number.
fn item_names(select: &mut Select) {
    // `t.a` beside an alias `a` is one name to the planner; two of `t.a` and `u.a` are not.
    let aliases: HashSet<String> = select
        .projection
        .iter()
        .filter_map(|item| match item {
            SelectItem::ExprWithAlias { alias, .. } => Some(alias.value.clone()),
            SelectItem::UnnamedExpr(expr) if needs_name(expr) => Some(expr.to_string()),
            _ => None,
        })
        .collect();
    let mut known: HashMap<String, usize> = HashMap::new();
    for item in &mut select.projection {
        let Some((name, is_qualified)) = name_of_item(item) else { continue };
        let is_apart = is_qualified && !aliases.contains(&name);
        let key = if is_apart { item.to_string() } else { name.clone() };
        let n = *known.entry(key).and_modify(|n| *n += 1).or_insert(0);
        let expr = match item {
            SelectItem::ExprWithAlias { expr, .. } if n > 0 => expr.clone(),
            SelectItem::UnnamedExpr(expr)
                if n > 0 || needs_name(expr) || is_qualified && !is_apart =>
            {
                expr.clone()
            }
            _ => continue,
        };
        let name = if n > 0 { format!("{name}_{n}") } else { name };
        *item = self::item(expr, &name);
    }
}

/// What an item is called, and whether it is the column of a table that is named as well.
fn name_of_item(item: &SelectItem) -> Option<(String, bool)> {
    match item {
        SelectItem::UnnamedExpr(Expr::Identifier(ident)) => Some((ident.value.clone(), false)),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => {
            Some((parts.last()?.value.clone(), true))
        }
        SelectItem::UnnamedExpr(expr) if needs_name(expr) => Some((expr.to_string(), false)),
        SelectItem::ExprWithAlias { alias, .. } => Some((alias.value.clone(), false)),
        _ => None,
    }
}

/// Whether an expression is a call of one of these functions, for rules that must tell.
pub(super) fn calls(expr: &Expr, is_one: &dyn Fn(&str) -> bool) -> bool {
    struct Calls<'a> {
        is_one: &'a dyn Fn(&str) -> bool,
        depth: usize,
        found: bool,
    }
    impl Visitor for Calls<'_> {
        type Break = ();
        fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            self.depth += 1;
            ControlFlow::Continue(())
        }
        fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            self.depth -= 1;
            ControlFlow::Continue(())
        }
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            if self.depth == 0
                && let Expr::Function(function) = expr
            {
                self.found |= (self.is_one)(&name_of(function)) && function.over.is_none();
            }
            ControlFlow::Continue(())
        }
    }
    let mut calls = Calls { is_one, depth: 0, found: false };
    let _ = expr.visit(&mut calls);
    calls.found
}

/// A table function with one text: the file of that name.
pub(super) fn file_of(function: &str, args: &[FunctionArg]) -> Result<Option<Ident>, Stop> {
    const READERS: &[&str] = &[
        "read_parquet",
        "parquet_scan",
        "read_csv",
        "read_csv_auto",
        "read_json",
        "read_json_auto",
        "read_ndjson",
        "read_ndjson_auto",
        "read_arrow",
    ];
    if !READERS.contains(&function) {
        return Ok(None);
    }
    match args {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(path))] if literal(path).is_some() => {
            Ok(literal(path).map(quoted))
        }
        _ => Err(unsupported(format!(
            "{function} with more than one path in quotes; name the files by CREATE EXTERNAL \
             TABLE … OPTIONS, or by Context.create_table"
        ))
        .into()),
    }
}
