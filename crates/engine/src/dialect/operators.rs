//! Operators and intervals.

use crate::Result;
use crate::dialect::trees::{call, literal, number, text, unsupported, whole};
use datafusion::sql::sqlparser::ast::{
    AccessExpr, BinaryOperator, DataType, DateTimeField, ExactNumberInfo, Expr, Interval,
    LambdaSyntax, OneOrManyWithParens, Subscript, TimezoneInfo, UnaryOperator, Value,
    ValueWithSpan,
};

/// What has to be done before the parts of an expression are looked at.
pub(super) fn before(expr: &mut Expr) {
    if let Expr::Lambda(lambda) = expr
        && let OneOrManyWithParens::One(parameter) = &lambda.params
        && lambda.syntax == LambdaSyntax::Arrow
        && leftmost(&mut lambda.body.clone()).is_some()
    {
        let document = Expr::Identifier(parameter.name.clone());
        let mut body = (*lambda.body).clone();
        if let Some(path) = leftmost(&mut body) {
            *path = Expr::BinaryOp {
                left: Box::new(document),
                op: BinaryOperator::Arrow,
                right: Box::new(path.clone()),
            };
        }
        *expr = body;
    }
}

/// The literal that an expression begins with: `doc -> 'a' = 1` is read as a lambda whose body
/// begins with a literal, where a lambda's body begins with anything else.
fn leftmost(expr: &mut Expr) -> Option<&mut Expr> {
    match expr {
        Expr::Value(_) => Some(expr),
        Expr::BinaryOp { left, .. } => leftmost(left),
        Expr::Cast { expr, .. } => leftmost(expr),
        Expr::IsNull(expr) | Expr::IsNotNull(expr) => leftmost(expr),
        Expr::Like { expr, .. } | Expr::ILike { expr, .. } | Expr::Between { expr, .. } => {
            leftmost(expr)
        }
        Expr::InList { expr, .. } => leftmost(expr),
        _ => None,
    }
}

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
        Expr::CompoundFieldAccess { root, access_chain } => dots(root, access_chain),
        Expr::Cast { data_type, .. } => known_type(data_type),
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

/// `{'a': 1}.a` and `x[1].a` are fields, as `x[1]['a']` is; `t.s.a` stays as it is, since only
/// the planner knows which of the names is a table.
fn dots(root: &Expr, chain: &mut [AccessExpr]) {
    let mut is_value = !matches!(root, Expr::Identifier(_) | Expr::CompoundIdentifier(_));
    for access in chain {
        match access {
            AccessExpr::Subscript(_) => is_value = true,
            AccessExpr::Dot(Expr::Identifier(name)) if is_value => {
                *access = AccessExpr::Subscript(Subscript::Index { index: text(&name.value) });
            }
            AccessExpr::Dot(_) => {}
        }
    }
}

/// Types under the names of other systems.
pub(super) fn known_type(kind: &mut DataType) {
    let new = match &*kind {
        DataType::UTinyInt | DataType::UInt8 => DataType::TinyIntUnsigned(None),
        DataType::USmallInt | DataType::UInt16 => DataType::SmallIntUnsigned(None),
        DataType::UInt32 => DataType::IntegerUnsigned(None),
        DataType::UBigInt | DataType::UInt64 => DataType::BigIntUnsigned(None),
        DataType::HugeInt => DataType::Decimal(ExactNumberInfo::PrecisionAndScale(38, 0)),
        DataType::Datetime(precision) => DataType::Timestamp(*precision, TimezoneInfo::None),
        DataType::Blob(_) => DataType::Bytea,
        DataType::Custom(name, _) => match name.to_string().to_lowercase().as_str() {
            "uinteger" => DataType::IntegerUnsigned(None),
            "long" => DataType::BigInt(None),
            "short" => DataType::SmallInt(None),
            "byte" => DataType::TinyInt(None),
            "binary" => DataType::Bytea,
            "timestamp_s" => DataType::Timestamp(Some(0), TimezoneInfo::None),
            "timestamp_ms" => DataType::Timestamp(Some(3), TimezoneInfo::None),
            "timestamp_us" => DataType::Timestamp(Some(6), TimezoneInfo::None),
            "timestamp_ns" => DataType::Timestamp(Some(9), TimezoneInfo::None),
            _ => return,
        },
        _ => return,
    };
    *kind = new;
}

fn stripped(expr: &Expr) -> &Expr {
    match expr {
        Expr::Nested(inner) => stripped(inner),
        other => other,
    }
}

/// The planner knows the backslash as the escape of patterns, and no other.
fn escaped(pattern: &mut Expr, escape: &mut Option<ValueWithSpan>) -> Result<()> {
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
fn similar(pattern: &mut Expr, escape: &mut Option<ValueWithSpan>) -> Result<()> {
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
        return Ok(Some(Expr::Interval(Interval {
            value: Box::new(value.clone()),
            ..interval.clone()
        })));
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
