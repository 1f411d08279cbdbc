//! Operators and intervals.

use crate::Result;
use crate::dialect::trees::{call, literal, number, text, unsupported, whole};
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, DateTimeField, Expr, Interval, UnaryOperator, Value,
};

pub(super) fn after(expr: &mut Expr) -> Result<()> {
    match expr {
        Expr::BinaryOp { left, op, right } => {
            if let Some(new) = binary(left, op, right) {
                *expr = new;
            }
        }
        Expr::UnaryOp { op: UnaryOperator::BitwiseNot, expr: inner } => {
            *expr = call("__bit_xor", vec![(**inner).clone(), number(-1)]);
        }
        Expr::RLike { negated, expr: inner, pattern, .. } => {
            let found = call("regexp_like", vec![(**inner).clone(), (**pattern).clone()]);
            *expr = match negated {
                true => Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(found) },
                false => found,
            };
        }
        Expr::SimilarTo { pattern, escape_char, .. } => similar(pattern, escape_char)?,
        Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. } => {
            escaped(pattern, escape_char)?;
        }
        Expr::Interval(interval) => {
            if let Some(new) = computed(interval)? {
                *expr = new;
            }
        }
        _ => {}
    }
    Ok(())
}

fn binary(left: &Expr, op: &BinaryOperator, right: &Expr) -> Option<Expr> {
    let both = || vec![left.clone(), right.clone()];
    match op {
        BinaryOperator::Arrow => Some(call("json_extract", both())),
        BinaryOperator::LongArrow => Some(call("json_extract_string", both())),
        BinaryOperator::HashArrow => Some(call("json_extract", both())),
        BinaryOperator::HashLongArrow => Some(call("json_extract_string", both())),
        BinaryOperator::MyIntegerDivide | BinaryOperator::DuckIntegerDivide => {
            let quotient = Expr::BinaryOp {
                left: Box::new(left.clone()),
                op: BinaryOperator::Divide,
                right: Box::new(right.clone()),
            };
            Some(call("__whole", vec![quotient]))
        }
        BinaryOperator::Multiply => match (stripped(left), stripped(right)) {
            (Expr::Interval(_), _) => Some(call("__times", both())),
            (_, Expr::Interval(_)) => Some(call("__times", vec![right.clone(), left.clone()])),
            _ => None,
        },
        _ => None,
    }
}

fn stripped(expr: &Expr) -> &Expr {
    match expr {
        Expr::Nested(inner) => stripped(inner),
        other => other,
    }
}

/// The planner knows the backslash as the escape of patterns, and no other.
fn escaped(pattern: &mut Expr, escape: &mut Option<datafusion::sql::sqlparser::ast::ValueWithSpan>) -> Result<()> {
    let Some(value) = escape else { return Ok(()) };
    let Value::SingleQuotedString(sign) = &value.value else { return Ok(()) };
    if sign == "\\" {
        return Ok(());
    }
    let Some(written) = literal(pattern) else {
        return Err(unsupported(format!("ESCAPE '{sign}' with a pattern that is no literal")));
    };
    let sign = sign.chars().next();
    let mut new = String::new();
    let mut letters = written.chars();
    while let Some(letter) = letters.next() {
        match letter {
            letter if Some(letter) == sign => {
                new.push('\\');
                new.extend(letters.next());
            }
            '\\' => new.push_str("\\\\"),
            letter => new.push(letter),
        }
    }
    *pattern = text(&new);
    *escape = None;
    Ok(())
}

/// SQL's own patterns are regular expressions with `%` and `_`, and match the whole text.
fn similar(pattern: &mut Expr, escape: &mut Option<datafusion::sql::sqlparser::ast::ValueWithSpan>) -> Result<()> {
    if escape.is_some() {
        return Err(unsupported("ESCAPE after SIMILAR TO"));
    }
    let Some(written) = literal(pattern) else {
        return Err(unsupported("SIMILAR TO with a pattern that is no literal"));
    };
    let mut new = String::from("^(?:");
    for letter in written.chars() {
        match letter {
            '%' => new.push_str(".*"),
            '_' => new.push('.'),
            '.' | '^' | '$' => {
                new.push('\\');
                new.push(letter);
            }
            letter => new.push(letter),
        }
    }
    new.push_str(")$");
    *pattern = text(&new);
    Ok(())
}

/// An interval whose number is computed from a column, or is not written as a text.
fn computed(interval: &Interval) -> Result<Option<Expr>> {
    let is_written = |expr: &Expr| literal(expr).is_some() || matches!(expr, Expr::Value(_));
    let value = stripped(&interval.value);
    if is_written(value) && matches!(*interval.value, Expr::Nested(_)) {
        return Ok(Some(Expr::Interval(Interval { value: Box::new(value.clone()), ..interval.clone() })));
    }
    if is_written(value) || whole(value).is_some() {
        return Ok(None);
    }
    let Some(unit) = &interval.leading_field else { return Ok(None) };
    units(unit, value.clone()).map(Some)
}

/// So many units of time as an interval.
fn units(unit: &DateTimeField, n: Expr) -> Result<Expr> {
    let unit = unit.to_string().to_lowercase();
    Ok(call("__units", vec![text(unit.trim_end_matches('s')), n]))
}
