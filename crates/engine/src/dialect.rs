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
    Expr, Query, Select, Statement as SqlStatement, TableFactor, VisitMut, VisitorMut, With,
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
    let mut rules = Rules { known, withs: Vec::new(), n_made: 0 };
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

/// All rules, applied in one walk through the tree.
struct Rules<'a> {
    known: &'a Known,
    /// The common tables of the queries around the place where the walk is.
    withs: Vec<Option<With>>,
    /// How many names have been made up, so that each is new.
    n_made: usize,
}

impl Rules<'_> {
    /// The columns of a query that stands where the walk is.
    fn columns(&self, mut query: Query) -> Result<&[String], Stop> {
        for with in self.withs.iter().rev().flatten() {
            match &mut query.with {
                None => query.with = Some(with.clone()),
                Some(own) => {
                    own.recursive |= with.recursive;
                    own.cte_tables.splice(0..0, with.cte_tables.iter().cloned());
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
        self.withs.push(query.with.clone());
        flow(queries::before(query, self).and_then(|()| sets::before(query, self)))
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<Stop> {
        self.withs.pop();
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
