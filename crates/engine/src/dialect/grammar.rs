//! What may be written. Forms that the parser does not know are turned into forms it does, token
//! by token, so that places in errors stay true.

use crate::Result;
use crate::dialect::trees;
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr};
use datafusion::sql::sqlparser::dialect::{Dialect, GenericDialect, Precedence};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};
use std::any::TypeId;

/// The generic dialect and what people bring from elsewhere.
#[derive(Debug)]
pub(super) struct Grammar;

macro_rules! allowed {
    ($($name:ident)*) => { $(fn $name(&self) -> bool { true })* };
}

impl Dialect for Grammar {
    /// The parser asks which dialect it reads; in what it does not ask by name, ours is generic.
    fn dialect(&self) -> TypeId {
        TypeId::of::<GenericDialect>()
    }

    fn is_delimited_identifier_start(&self, letter: char) -> bool {
        letter == '"' || letter == '`'
    }

    fn is_identifier_start(&self, letter: char) -> bool {
        GenericDialect {}.is_identifier_start(letter)
    }

    fn is_identifier_part(&self, letter: char) -> bool {
        GenericDialect {}.is_identifier_part(letter)
    }

    allowed! {
        supports_unicode_string_literal
        supports_group_by_expr
        supports_group_by_with_modifier
        supports_left_associative_joins_without_parens
        supports_window_function_null_treatment_arg
        supports_dictionary_syntax
        supports_window_clause_named_window_reference
        supports_parenthesized_set_variables
        supports_select_wildcard_except
        support_map_literal_syntax
        allow_extract_custom
        allow_extract_single_quotes
        supports_extract_comma_syntax
        supports_parens_around_table_factor
        supports_values_as_table_factor
        supports_explain_with_utility_options
        supports_limit_comma
        supports_from_first_select
        supports_projection_trailing_commas
        supports_try_convert
        supports_bitwise_shift_operators
        supports_named_fn_args_with_assignment_operator
        supports_struct_literal
        supports_nested_comments
        supports_string_escape_constant
        supports_array_typedef_with_brackets
        supports_comma_separated_set_assignments
        supports_filter_during_aggregation
        supports_select_wildcard_exclude
        supports_select_wildcard_replace
        supports_select_wildcard_ilike
        supports_select_wildcard_rename
        supports_interval_options
        supports_comma_separated_trim
        supports_lambda_functions
        supports_order_by_all
        supports_numeric_literal_underscores
    }

    fn parse_infix(
        &self,
        parser: &mut Parser,
        left: &Expr,
        precedence: u8,
    ) -> Option<Result<Expr, ParserError>> {
        if !parser.parse_keyword(Keyword::DIV) {
            return None;
        }
        let right = parser.parse_subexpr(precedence);
        Some(right.map(|right| Expr::BinaryOp {
            left: Box::new(left.clone()),
            op: BinaryOperator::MyIntegerDivide,
            right: Box::new(right),
        }))
    }

    fn prec_value(&self, precedence: Precedence) -> u8 {
        match precedence {
            // `doc ->> 'name' = 'Ann'` compares what the arrow gives.
            Precedence::PgOther => 45,
            other => GenericDialect {}.prec_value(other),
        }
    }
}

/// The statements of a text.
pub(crate) fn parse(text: &str) -> Result<Vec<Statement>> {
    let tokens = Tokenizer::new(&Grammar, text)
        .tokenize_with_location()
        .map_err(|error| datafusion::error::DataFusionError::from(ParserError::from(error)))?;
    let tokens = known_forms(tokens);
    not_statements(&tokens)?;
    let statements = DFParserBuilder::new(tokens)
        .with_dialect(&Grammar)
        .build()
        .and_then(|mut parser| parser.parse_statements())?;
    Ok(statements.into_iter().collect())
}

fn known_forms(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    // Blanks and comments say nothing to the parser, and would only be in the way here.
    let mut tokens: Vec<_> =
        tokens.into_iter().filter(|t| !matches!(t.token, Token::Whitespace(_))).collect();
    without_materialized(&mut tokens);
    with_copy_options(&mut tokens);
    tokens
}

/// Statements that other systems have, and what to write here.
const ELSEWHERE: &[(&str, &str)] = &[
    ("pivot", "PIVOT as a statement; write SELECT * FROM t PIVOT (sum(a) FOR b IN ('x', 'y'))"),
    ("unpivot", "UNPIVOT as a statement; write SELECT * FROM t UNPIVOT (v FOR n IN (a, b))"),
    ("summarize", "SUMMARIZE; DESCRIBE tells columns and types"),
    ("attach", "ATTACH; name files by CREATE EXTERNAL TABLE"),
    ("pragma", "PRAGMA; SET changes settings, SHOW ALL lists them"),
];

fn not_statements(tokens: &[TokenWithSpan]) -> Result<()> {
    let begins = |at: usize| at == 0 || tokens[at - 1].token == Token::SemiColon;
    for (at, token) in tokens.iter().enumerate().filter(|(at, _)| begins(*at)) {
        let found = ELSEWHERE.iter().find(|(word, _)| is_word(Some(token), word));
        // `PIVOT` may be a name elsewhere; as the first word it is none.
        if let Some((_, text)) = found
            && at + 1 < tokens.len()
        {
            let place = token.span.start;
            let text = format!("{text} (line {}, column {})", place.line, place.column);
            return Err(trees::unsupported(text));
        }
    }
    Ok(())
}

fn is_word(token: Option<&TokenWithSpan>, word: &str) -> bool {
    matches!(token.map(|t| &t.token), Some(Token::Word(w))
        if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word))
}

/// `AS [NOT] MATERIALIZED (`: whether a common table is kept is the engine's choice.
fn without_materialized(tokens: &mut Vec<TokenWithSpan>) {
    let mut at = 0;
    while at < tokens.len() {
        let negated = usize::from(is_word(tokens.get(at + 1), "not"));
        let follows = matches!(tokens.get(at + 2 + negated).map(|t| &t.token), Some(Token::LParen));
        if is_word(tokens.get(at), "as")
            && is_word(tokens.get(at + 1 + negated), "materialized")
            && follows
        {
            tokens.drain(at + 1..at + 2 + negated);
        }
        at += 1;
    }
}

/// `COPY t TO 'f' (FORMAT csv, HEADER, DELIMITER ';')` as `STORED AS csv OPTIONS ('format.…' …)`.
fn with_copy_options(tokens: &mut Vec<TokenWithSpan>) {
    let mut start = 0;
    while start < tokens.len() {
        let end = tokens[start..]
            .iter()
            .position(|t| t.token == Token::SemiColon)
            .map_or(tokens.len(), |n| start + n);
        if is_word(tokens.get(start), "copy")
            && let Some(open) = copy_options(&tokens[start..end])
        {
            let rest = tokens.split_off(end);
            let options = tokens.split_off(start + open);
            tokens.extend(stored_as(&options));
            start = tokens.len() + 1;
            tokens.extend(rest);
        } else {
            start = end + 1;
        }
    }
}

/// Where the options of a COPY begin, if they directly follow its target.
fn copy_options(tokens: &[TokenWithSpan]) -> Option<usize> {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate() {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            _ if depth == 0 && is_word(Some(token), "to") => {
                let open = at + 2 + usize::from(is_word(tokens.get(at + 2), "with"));
                let is_open = tokens.get(open).is_some_and(|t| t.token == Token::LParen);
                return is_open.then_some(at + 2);
            }
            _ => {}
        }
    }
    None
}

/// How options are called where they are read.
fn option_name(name: &str) -> String {
    match name {
        "header" => "format.has_header".into(),
        "delim" | "sep" | "delimiter" => "format.delimiter".into(),
        "nullstr" | "null" => "format.null_value".into(),
        "row_group_size" => "format.max_row_group_size".into(),
        "codec" => "format.compression".into(),
        other => format!("format.{other}"),
    }
}

fn stored_as(options: &[TokenWithSpan]) -> Vec<TokenWithSpan> {
    let place = options[0].span;
    let make = |token| TokenWithSpan { token, span: place };
    let word = |text: &str| make(Token::make_word(text, None));
    let quoted = |text: String| make(Token::SingleQuotedString(text));
    let inside: Vec<_> = options
        .iter()
        .filter(|t| !is_word(Some(t), "with"))
        .map(|t| &t.token)
        .filter(|token| !matches!(token, Token::LParen | Token::RParen | Token::Eq))
        .collect();
    let mut made = Vec::new();
    let mut pairs: Vec<(String, String)> = Vec::new();
    for option in inside.split(|token| **token == Token::Comma).filter(|o| !o.is_empty()) {
        let name = bare(option[0]).to_lowercase();
        let value = option.get(1).map_or("true".to_owned(), |token| bare(token));
        match name.as_str() {
            "format" => made.extend([word("STORED"), word("AS"), word(&value.to_uppercase())]),
            _ => pairs.push((option_name(&name), value)),
        }
    }
    if !pairs.is_empty() {
        made.extend([word("OPTIONS"), make(Token::LParen)]);
        for (at, (name, value)) in pairs.into_iter().enumerate() {
            if at > 0 {
                made.push(make(Token::Comma));
            }
            made.extend([quoted(name), quoted(value)]);
        }
        made.push(make(Token::RParen));
    }
    made
}

/// A token without its quotes.
fn bare(token: &Token) -> String {
    match token {
        Token::SingleQuotedString(text) => text.clone(),
        Token::Word(word) => word.value.clone(),
        other => other.to_string(),
    }
}
