//! SQL as people write it, brought into the SQL that the engine plans.
//!
//! ```text
//!   text ─► tokens ─► statement ─► statement that the planner knows
//!         grammar      rewrite ▲
//!                              └─ columns of a query, where a rule needs to know them
//! ```
//!
//! `grammar` says what may be written, and gives forms that no parser knows to the parser in those
//! it does. `rewrite` then works on the tree alone: it asks for nothing and keeps nothing. A rule
//! that depends on the columns of a query (`ORDER BY ALL`, `EXCEPT ALL`, `PIVOT` …) asks its caller
//! for them by [`Rewritten::Wants`]; the caller plans that query and rewrites anew.
//!
//! What a rule cannot bring into a known form is an error that names it: nothing is left out in
//! silence.

mod functions;
mod grammar;
mod joins;
mod macros;
mod names;
mod operators;
mod pivots;
mod queries;
mod sets;
mod subqueries;
mod trees;

pub(crate) use grammar::parse;

use crate::{EngineError, Result};
use datafusion::sql::parser::{CopyToSource, Statement};
use datafusion::sql::sqlparser::ast::{
    Cte, Expr, Query, Select, SetExpr, Statement as SqlStatement, TableFactor, VisitMut,
    VisitorMut, With,
};
use std::collections::HashMap;
use std::ops::ControlFlow;

/// The names of the columns of queries, by the text of the query.
pub(crate) type Known = HashMap<String, Vec<String>>;

/// What came of an attempt.
pub(crate) enum Rewritten {
    Done(Box<Statement>),
    /// The columns of this query are needed first; then it is to be tried again.
    Wants(Box<Query>),
}

/// Why a visit ends before the tree does.
#[derive(Debug)]
enum Stop {
    Error(EngineError),
    Wants(Box<Query>),
}

impl From<EngineError> for Stop {
    fn from(error: EngineError) -> Stop {
        Stop::Error(error)
    }
}

/// The statement in a form that the planner knows.
pub(crate) fn rewrite(statement: &Statement, known: &Known) -> Result<Rewritten> {
    let mut statement = statement.clone();
    let mut rules = Rules { known, scopes: Vec::new(), n_made: 0 };
    match walk(&mut statement, &mut rules) {
        Ok(()) => Ok(Rewritten::Done(Box::new(statement))),
        Err(Stop::Wants(query)) => Ok(Rewritten::Wants(query)),
        Err(Stop::Error(error)) => Err(error),
    }
}

fn walk(statement: &mut Statement, rules: &mut Rules) -> Result<(), Stop> {
    let flow = match statement {
        Statement::Statement(inner) => {
            plain(inner);
            inner.visit(rules)
        }
        Statement::Explain(explain) => return walk(&mut explain.statement, rules),
        Statement::CopyTo(copy) => match &mut copy.source {
            CopyToSource::Query(query) => query.visit(rules),
            CopyToSource::Relation(_) => return Ok(()),
        },
        Statement::CreateExternalTable(_) | Statement::Reset(_) => return Ok(()),
    };
    match flow {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(stop) => Err(stop),
    }
}

/// A table that goes with its session is a table here: a context is a session.
fn plain(statement: &mut SqlStatement) {
    match statement {
        SqlStatement::CreateTable(table) => {
            table.temporary = false;
            table
                .columns
                .iter_mut()
                .for_each(|column| operators::known_type(&mut column.data_type));
        }
        SqlStatement::CreateView(view) => view.temporary = false,
        _ => {}
    }
}

/// A query that the walk is in.
struct Scope {
    with: Option<With>,
    /// How many of its common tables may be named here: a definition sees those before it.
    n_visible: usize,
    /// Whether it defines a common table of the query around it.
    is_definition: bool,
}

impl Scope {
    fn n_tables(&self) -> usize {
        self.with.as_ref().map_or(0, |with| with.cte_tables.len())
    }

    /// The common tables that may be named where the walk is. One that is being defined from itself
    /// has the columns of what it begins with.
    fn visible(&self) -> Vec<Cte> {
        let Some(with) = &self.with else { return Vec::new() };
        let mut tables = with.cte_tables[..self.n_visible].to_vec();
        if let Some(own) = with.cte_tables.get(self.n_visible)
            && with.recursive
            && let SetExpr::SetOperation { left, .. } = own.query.body.as_ref()
        {
            let mut own = own.clone();
            own.query.body = left.clone();
            tables.push(own);
        }
        tables
    }
}

/// All rules, applied in one walk through the tree.
struct Rules<'a> {
    known: &'a Known,
    /// The queries around the place where the walk is, from the outermost.
    scopes: Vec<Scope>,
    /// How many names have been made up, so that each is new.
    n_made: usize,
}

impl Rules<'_> {
    /// The columns of a query that stands where the walk is.
    fn columns(&self, mut query: Query) -> Result<&[String], Stop> {
        for scope in self.scopes.iter().rev() {
            let tables = scope.visible();
            if tables.is_empty() {
                continue;
            }
            let recursive = scope.with.as_ref().is_some_and(|with| with.recursive);
            match &mut query.with {
                None => {
                    let mut with = scope.with.clone();
                    if let Some(with) = &mut with {
                        with.cte_tables = tables;
                    }
                    query.with = with;
                }
                Some(own) => {
                    own.recursive |= recursive;
                    own.cte_tables.splice(0..0, tables);
                }
            }
        }
        match self.known.get(&query.to_string()) {
            Some(columns) => Ok(columns),
            None => Err(Stop::Wants(Box::new(query))),
        }
    }

    fn new_name(&mut self, what: &str) -> String {
        self.n_made += 1;
        format!("__{what}_{}", self.n_made)
    }
}

fn flow(done: Result<(), Stop>) -> ControlFlow<Stop> {
    match done {
        Ok(()) => ControlFlow::Continue(()),
        Err(stop) => ControlFlow::Break(stop),
    }
}

impl VisitorMut for Rules<'_> {
    type Break = Stop;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Stop> {
        let is_definition =
            self.scopes.last().is_some_and(|around| around.n_visible < around.n_tables());
        let mut scope = Scope { with: query.with.clone(), n_visible: 0, is_definition };
        scope.n_visible = scope.n_tables();
        self.scopes.push(scope);
        let done = queries::before(query, self).and_then(|()| sets::before(query, self));
        // What follows first are the definitions of its common tables.
        if let Some(scope) = self.scopes.last_mut() {
            scope.n_visible = 0;
        }
        flow(done)
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<Stop> {
        let ended = self.scopes.pop();
        if ended.is_some_and(|scope| scope.is_definition)
            && let Some(around) = self.scopes.last_mut()
        {
            around.n_visible += 1;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Stop> {
        let done = joins::before(select, self)
            .and_then(|()| names::before(select, self))
            .and_then(|()| subqueries::as_values(select, self));
        flow(done)
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Stop> {
        flow(pivots::before(factor, self))
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Stop> {
        operators::before(expr);
        flow(subqueries::before(expr, self))
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Stop> {
        let done = operators::after(expr).and_then(|()| functions::after(expr));
        flow(done.map_err(Stop::Error))
    }
}
