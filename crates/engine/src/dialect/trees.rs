//! Pieces of trees, and trees from text.

use crate::dialect::grammar::Grammar;
use crate::{EngineError, Kind, Result};
use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident,
    ObjectName, Query, SelectItem, Statement, Value,
};
use datafusion::sql::sqlparser::parser::Parser;

/// An expression from a text of ours, made of texts of parts that were parsed before.
pub(super) fn expression(text: &str) -> Result<Expr> {
    let parsed =
        Parser::new(&Grammar).try_with_sql(text).and_then(|mut parser| parser.parse_expr());
    parsed.map_err(|error| broken(text, &error))
}

/// The same for a query.
pub(super) fn query(text: &str) -> Result<Query> {
    match Parser::parse_sql(&Grammar, text) {
        Ok(statements) => match statements.into_iter().next() {
            Some(Statement::Query(query)) => Ok(*query),
            _ => Err(broken(text, &"it is no query")),
        },
        Err(error) => Err(broken(text, &error)),
    }
}

fn broken(text: &str, error: &dyn std::fmt::Display) -> EngineError {
    EngineError::new(Kind::Internal, format!("a rewritten text is not SQL: {error}: {text}"))
}

pub(super) fn unsupported(what: impl Into<String>) -> EngineError {
    EngineError::new(Kind::Unsupported, format!("not supported: {}", what.into()))
}

/// A name in quotes, as it is.
pub(super) fn quoted(name: &str) -> Ident {
    Ident::with_quote('"', name)
}

pub(super) fn column(name: &str) -> Expr {
    Expr::Identifier(quoted(name))
}

pub(super) fn text(value: &str) -> Expr {
    Expr::value(Value::SingleQuotedString(value.to_owned()))
}

pub(super) fn number(value: i64) -> Expr {
    match value < 0 {
        true => Expr::UnaryOp {
            op: datafusion::sql::sqlparser::ast::UnaryOperator::Minus,
            expr: Box::new(number(-value)),
        },
        false => Expr::value(Value::Number(value.to_string(), false)),
    }
}

pub(super) fn call(name: &str, args: Vec<Expr>) -> Expr {
    let args = args.into_iter().map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg)));
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: args.collect(),
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

/// The one word a function is called by, in lower case.
pub(super) fn name_of(function: &Function) -> String {
    match function.name.0.as_slice() {
        [part] => part.as_ident().map_or_else(String::new, |name| name.value.to_lowercase()),
        _ => String::new(),
    }
}

/// The arguments, if all are expressions without names.
pub(super) fn arguments(function: &Function) -> Option<Vec<&Expr>> {
    match &function.args {
        FunctionArguments::None => Some(Vec::new()),
        FunctionArguments::Subquery(_) => None,
        FunctionArguments::List(list) => list
            .args
            .iter()
            .map(|arg| match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
                _ => None,
            })
            .collect(),
    }
}

pub(super) fn item(expr: Expr, alias: &str) -> SelectItem {
    SelectItem::ExprWithAlias { expr, alias: quoted(alias) }
}

/// What a text in single quotes says.
pub(super) fn literal(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => Some(text),
            _ => None,
        },
        _ => None,
    }
}

/// A whole number written out, with its sign.
pub(super) fn whole(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Number(text, _) => text.parse().ok(),
            _ => None,
        },
        Expr::UnaryOp { op: datafusion::sql::sqlparser::ast::UnaryOperator::Minus, expr } => {
            whole(expr).map(|n| -n)
        }
        Expr::Nested(inner) => whole(inner),
        _ => None,
    }
}
