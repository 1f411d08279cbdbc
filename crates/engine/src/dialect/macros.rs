//! Functions that are other functions under a name people know. A line for each.

use crate::dialect::trees;
use datafusion::sql::sqlparser::ast::{Expr, VisitMut, VisitorMut};
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::LazyLock;

/// What is written, and what it means. An argument stands for itself wherever it occurs.
const MACROS: &[(&str, &str)] = &[
    // Choice.
    ("if(c, a, b)", "CASE WHEN c THEN a ELSE b END"),
    ("if(c, a)", "CASE WHEN c THEN a END"),
    ("iff(c, a, b)", "CASE WHEN c THEN a ELSE b END"),
    ("isnull(x)", "(x IS NULL)"),
    ("isnull(x, y)", "coalesce(x, y)"),
    ("nvl2(x, a, b)", "CASE WHEN x IS NOT NULL THEN a ELSE b END"),
    ("zeroifnull(x)", "coalesce(x, 0)"),
    ("nullifzero(x)", "nullif(x, 0)"),
    // Numbers.
    ("ceiling(x)", "ceil(x)"),
    ("sign(x)", "signum(x)"),
    ("mod(x, y)", "(x % y)"),
    ("truncate(x)", "trunc(x)"),
    ("truncate(x, n)", "trunc(x, n)"),
    ("negative(x)", "(-x)"),
    ("square(x)", "(x * x)"),
    ("bit_xor(x, y)", "__bit_xor(x, y)"),
    ("xor(x, y)", "__bit_xor(x, y)"),
    ("isinf(x)", "(abs(CAST(x AS double)) = CAST('inf' AS double))"),
    ("isfinite(x)", "(abs(CAST(x AS double)) < CAST('inf' AS double))"),
    ("try_divide(x, y)", "(x / nullif(y, 0))"),
    ("e()", "exp(1)"),
    ("rand()", "random()"),
    // Texts.
    ("ucase(x)", "upper(x)"),
    ("lcase(x)", "lower(x)"),
    ("len(x)", "__length(x)"),
    ("size(x)", "array_length(x)"),
    ("array_size(x)", "array_length(x)"),
    ("prefix(x, y)", "starts_with(x, y)"),
    ("startswith(x, y)", "starts_with(x, y)"),
    ("suffix(x, y)", "ends_with(x, y)"),
    ("endswith(x, y)", "ends_with(x, y)"),
    ("space(n)", "repeat(' ', n)"),
    ("char(n)", "chr(n)"),
    ("locate(x, y)", "strpos(y, x)"),
    ("charindex(x, y)", "strpos(y, x)"),
    (
        "locate(x, y, n)",
        "CASE WHEN strpos(substr(y, n), x) = 0 THEN 0 ELSE strpos(substr(y, n), x) + n - 1 END",
    ),
    ("split(x, y)", "string_to_array(x, y)"),
    ("string_split(x, y)", "string_to_array(x, y)"),
    ("str_split(x, y)", "string_to_array(x, y)"),
    ("substring_index(x, y, n)", "substr_index(x, y, n)"),
    ("hex(x)", "__hex(x)"),
    ("base64(x)", "encode(x, 'base64')"),
    ("unbase64(x)", "decode(x, 'base64')"),
    ("editdist3(x, y)", "levenshtein(x, y)"),
    ("sha1(x)", "digest(x, 'sha1')"),
    // Regular expressions.
    ("regexp_matches(x, y)", "regexp_like(x, y)"),
    ("regexp_matches(x, y, f)", "regexp_like(x, y, f)"),
    ("regexp_extract(x, y)", "__regexp_extract(x, y, 0)"),
    ("regexp_extract(x, y, n)", "__regexp_extract(x, y, n)"),
    // Days and times.
    ("year(x)", "date_part('year', x)"),
    ("quarter(x)", "date_part('quarter', x)"),
    ("month(x)", "date_part('month', x)"),
    ("week(x)", "date_part('week', x)"),
    ("weekofyear(x)", "date_part('week', x)"),
    ("day(x)", "date_part('day', x)"),
    ("dayofmonth(x)", "date_part('day', x)"),
    ("dayofyear(x)", "date_part('doy', x)"),
    ("dayofweek(x)", "(date_part('dow', x) + 1)"),
    ("weekday(x)", "((date_part('dow', x) + 6) % 7)"),
    ("isodow(x)", "((date_part('dow', x) + 6) % 7 + 1)"),
    ("hour(x)", "date_part('hour', x)"),
    ("minute(x)", "date_part('minute', x)"),
    ("second(x)", "date_part('second', x)"),
    ("millisecond(x)", "date_part('millisecond', x)"),
    ("microsecond(x)", "date_part('microsecond', x)"),
    ("epoch(x)", "date_part('epoch', x)"),
    ("epoch_ms(x)", "CAST(date_part('epoch', x) * 1000 AS bigint)"),
    ("unix_timestamp(x)", "CAST(date_part('epoch', x) AS bigint)"),
    ("monthname(x)", "to_char(x, '%B')"),
    ("dayname(x)", "to_char(x, '%A')"),
    ("strftime(x, f)", "to_char(x, f)"),
    ("last_day(x)", "CAST(date_trunc('month', x) + INTERVAL '1 month' - INTERVAL '1 day' AS date)"),
    ("add_months(x, n)", "(x + __units('month', n))"),
    ("date_add(x, n)", "(x + __units('day', n))"),
    ("date_sub(x, n)", "(x - __units('day', n))"),
    ("datediff(a, b)", "__date_boundaries('day', b, a)"),
    ("datediff(u, a, b)", "__date_boundaries(u, a, b)"),
    ("date_diff(u, a, b)", "__date_boundaries(u, a, b)"),
    ("timestampdiff(u, a, b)", "__date_units(u, a, b)"),
    ("date_sub(u, a, b)", "__date_units(u, a, b)"),
    ("months_between(a, b)", "__date_units('month', b, a)"),
    ("time_bucket(i, x)", "date_bin(i, x)"),
    ("getdate()", "now()"),
    ("sysdate()", "now()"),
    ("curdate()", "current_date()"),
    ("to_days(n)", "__units('day', n)"),
    ("to_months(n)", "__units('month', n)"),
    ("to_years(n)", "__units('year', n)"),
    ("to_hours(n)", "__units('hour', n)"),
    ("to_minutes(n)", "__units('minute', n)"),
    ("to_seconds(n)", "__units('second', n)"),
    // Lists.
    ("list_sum(x)", "__list_sum(x)"),
    ("list_avg(x)", "(__list_sum(x) / CAST(array_length(x) AS double))"),
    ("list_min(x)", "array_min(x)"),
    ("list_max(x)", "array_max(x)"),
    ("list_reverse(x)", "array_reverse(x)"),
    ("list_reverse_sort(x)", "array_sort(x, 'DESC')"),
    ("sort_array(x)", "array_sort(x)"),
    ("sequence(a, b)", "generate_series(a, b)"),
    ("map_from_arrays(k, v)", "map(k, v)"),
    // JSON.
    ("get_json_object(x, p)", "json_extract_string(x, p)"),
    ("json_extract_path_text(x, p)", "json_extract_string(x, p)"),
    ("json_value(x, p)", "json_extract_string(x, p)"),
    ("json_query(x, p)", "json_extract(x, p)"),
    ("json_extract_scalar(x, p)", "json_extract_string(x, p)"),
    // Types.
    ("typeof(x)", "arrow_typeof(x)"),
    ("to_varchar(x)", "CAST(x AS varchar)"),
    ("to_number(x)", "CAST(x AS double)"),
];

/// The macro of that name and number of arguments: the names of its arguments and its meaning.
type Meaning = (Vec<String>, Expr);

static MEANINGS: LazyLock<HashMap<(String, usize), Meaning>> = LazyLock::new(|| {
    let mut meanings = HashMap::new();
    for (written, meant) in MACROS {
        let (name, rest) = written.split_once('(').expect("a macro has parentheses");
        let inside = rest.trim_end_matches(')');
        let names: Vec<String> =
            inside.split(',').map(|n| n.trim().to_owned()).filter(|n| !n.is_empty()).collect();
        let meaning = trees::expression(meant).expect("the meaning of a macro is SQL");
        meanings.insert((name.to_owned(), names.len()), (names, meaning));
    }
    meanings
});

struct Substitute<'a> {
    names: &'a [String],
    values: &'a [&'a Expr],
}

impl VisitorMut for Substitute<'_> {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Identifier(ident) = expr
            && let Some(at) = self.names.iter().position(|name| *name == ident.value)
        {
            *expr = match self.values[at] {
                simple @ (Expr::Identifier(_)
                | Expr::CompoundIdentifier(_)
                | Expr::Value(_)
                | Expr::Nested(_)
                | Expr::Interval(_)
                | Expr::Function(_)) => simple.clone(),
                other => Expr::Nested(Box::new(other.clone())),
            };
        }
        ControlFlow::Continue(())
    }
}

/// What a call means, if its function is a macro.
pub(super) fn meaning(name: &str, values: &[&Expr]) -> Option<Expr> {
    let (names, meaning) = MEANINGS.get(&(name.to_owned(), values.len()))?;
    let mut meant = meaning.clone();
    let _ = meant.visit(&mut Substitute { names, values });
    Some(meant)
}
