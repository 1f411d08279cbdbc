//! Texts: regular expressions, hexadecimal numbers, bits.

use super::{
    Function, as_integers, as_texts, from_texts, gives_integer, gives_text, gives_texts, rows,
};
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, ListBuilder, StringArray, StringBuilder,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float64Type};
use datafusion::common::{Result, exec_err};
use regex::Regex;
use std::collections::HashMap;
use std::sync::Arc;

pub(super) const FUNCTIONS: &[Function] = &[
    Function { name: "__bit_xor", n_args: 2..=2, gives: gives_integer, call: bit_xor },
    Function { name: "__hex", n_args: 1..=1, gives: gives_text, call: hex },
    Function { name: "__whole", n_args: 1..=1, gives: gives_integer, call: whole },
    Function { name: "__regexp_extract", n_args: 3..=3, gives: gives_text, call: extract },
    Function { name: "regexp_extract_all", n_args: 2..=3, gives: gives_texts, call: extract_all },
    Function { name: "regexp_split_to_array", n_args: 2..=2, gives: gives_texts, call: split },
    Function { name: "soundex", n_args: 1..=1, gives: gives_text, call: soundex },
    Function { name: "format", n_args: 1..=64, gives: gives_text, call: format_braces },
    Function { name: "printf", n_args: 1..=64, gives: gives_text, call: format_percent },
    Function { name: "format_string", n_args: 1..=64, gives: gives_text, call: format_percent },
];

fn bit_xor(args: &[ArrayRef]) -> Result<ArrayRef> {
    let (left, right) = (as_integers(&args[0])?, as_integers(&args[1])?);
    let made: Int64Array = left.iter().zip(right.iter()).map(|(a, b)| Some(a? ^ b?)).collect();
    Ok(Arc::new(made))
}

/// Towards zero.
fn whole(args: &[ArrayRef]) -> Result<ArrayRef> {
    if args[0].data_type().is_integer() {
        return Ok(Arc::new(as_integers(&args[0])?));
    }
    let numbers = cast(&args[0], &DataType::Float64)?;
    let made: Result<Int64Array> = numbers
        .as_primitive::<Float64Type>()
        .iter()
        .map(|number| match number {
            // A float cast to an integer stays within its range, so the range is asked first.
            Some(n) if n.is_finite() && n.abs() < 9.3e18 => Ok(Some(n.trunc() as i64)),
            Some(n) => exec_err!("{n} is out of the range of integers"),
            None => Ok(None),
        })
        .collect();
    Ok(Arc::new(made?))
}

fn hex(args: &[ArrayRef]) -> Result<ArrayRef> {
    if args[0].data_type().is_integer() {
        let numbers = as_integers(&args[0])?;
        let made: StringArray = numbers.iter().map(|n| n.map(|n| format!("{n:X}"))).collect();
        return Ok(Arc::new(made));
    }
    let bytes = cast(&args[0], &DataType::Binary)?;
    let made: StringArray = bytes
        .as_binary::<i32>()
        .iter()
        .map(|bytes| {
            bytes.map(|bytes| bytes.iter().map(|b| format!("{b:02X}")).collect::<String>())
        })
        .collect();
    Ok(Arc::new(made))
}

/// Compiled patterns; mostly there is one for all rows.
#[derive(Default)]
struct Patterns(HashMap<String, Regex>);

impl Patterns {
    fn get(&mut self, pattern: &str) -> Result<&Regex> {
        if !self.0.contains_key(pattern) {
            let made = match Regex::new(pattern) {
                Ok(made) => made,
                Err(error) => return exec_err!("the regular expression '{pattern}': {error}"),
            };
            self.0.insert(pattern.to_owned(), made);
        }
        Ok(&self.0[pattern])
    }
}

/// The first match, or a group of it; an empty text if there is none.
fn extract(args: &[ArrayRef]) -> Result<ArrayRef> {
    let (texts, patterns) = (as_texts(&args[0])?, as_texts(&args[1])?);
    let groups = as_integers(&args[2])?;
    let mut known = Patterns::default();
    let made: Result<StringArray> = (0..texts.len())
        .map(|at| {
            if texts.is_null(at) || patterns.is_null(at) || groups.is_null(at) {
                return Ok(None);
            }
            let found = known.get(patterns.value(at))?.captures(texts.value(at));
            let group = usize::try_from(groups.value(at)).unwrap_or(usize::MAX);
            let part = found.as_ref().and_then(|found| found.get(group));
            Ok(Some(part.map_or("", |part| part.as_str()).to_owned()))
        })
        .collect();
    Ok(Arc::new(made?))
}

fn lists_of(
    args: &[&StringArray],
    mut parts: impl FnMut(&[&str], &mut Vec<String>) -> Result<()>,
) -> Result<ArrayRef> {
    let mut made = ListBuilder::new(StringBuilder::new());
    let mut found = Vec::new();
    for row in rows(args) {
        match row {
            None => made.append(false),
            Some(row) => {
                found.clear();
                parts(&row, &mut found)?;
                for part in &found {
                    made.values().append_value(part);
                }
                made.append(true);
            }
        }
    }
    Ok(Arc::new(made.finish()))
}

fn extract_all(args: &[ArrayRef]) -> Result<ArrayRef> {
    let (texts, patterns) = (as_texts(&args[0])?, as_texts(&args[1])?);
    let group = match args.get(2) {
        Some(group) => as_integers(group)?.iter().flatten().next().unwrap_or(0),
        None => 0,
    };
    let group = usize::try_from(group).unwrap_or(usize::MAX);
    let mut known = Patterns::default();
    lists_of(&[&texts, &patterns], |row, found| {
        for one in known.get(row[1])?.captures_iter(row[0]) {
            found.push(one.get(group).map_or("", |part| part.as_str()).to_owned());
        }
        Ok(())
    })
}

fn split(args: &[ArrayRef]) -> Result<ArrayRef> {
    let (texts, patterns) = (as_texts(&args[0])?, as_texts(&args[1])?);
    let mut known = Patterns::default();
    lists_of(&[&texts, &patterns], |row, found| {
        found.extend(known.get(row[1])?.split(row[0]).map(str::to_owned));
        Ok(())
    })
}

/// The first letter and three digits for the sounds that follow.
fn soundex(args: &[ArrayRef]) -> Result<ArrayRef> {
    let texts = as_texts(&args[0])?;
    from_texts(&[&texts], |row| {
        let digit = |letter: char| match letter {
            'B' | 'F' | 'P' | 'V' => '1',
            'C' | 'G' | 'J' | 'K' | 'Q' | 'S' | 'X' | 'Z' => '2',
            'D' | 'T' => '3',
            'L' => '4',
            'M' | 'N' => '5',
            'R' => '6',
            // H and W do not part equal sounds, vowels do.
            'H' | 'W' => '-',
            _ => '0',
        };
        let letters: Vec<char> = row[0]
            .chars()
            .filter(char::is_ascii_alphabetic)
            .map(|c| c.to_ascii_uppercase())
            .collect();
        let Some(first) = letters.first() else { return Ok(Some(row[0].to_owned())) };
        let mut made = first.to_string();
        let mut last = digit(*first);
        for letter in &letters[1..] {
            let new = digit(*letter);
            if new != '-' && new != last && new != '0' {
                made.push(new);
            }
            if new != '-' {
                last = new;
            }
        }
        Ok(Some(format!("{made:0<4}").chars().take(4).collect()))
    })
}

/// `{}` in turn, `{0}` by number, `{{` for itself.
fn format_braces(args: &[ArrayRef]) -> Result<ArrayRef> {
    formatted(args, |pattern, values| {
        let mut made = String::new();
        let mut next = 0;
        let mut letters = pattern.chars().peekable();
        while let Some(letter) = letters.next() {
            match letter {
                '{' | '}' if letters.peek() == Some(&letter) => {
                    letters.next();
                    made.push(letter);
                }
                '{' => {
                    let inside: String = letters.by_ref().take_while(|c| *c != '}').collect();
                    let at = match inside.is_empty() {
                        true => next,
                        false => match inside.parse() {
                            Ok(at) => at,
                            Err(_) => {
                                return exec_err!(
                                    "format: '{{{inside}}}' is not supported; \
                                 write {{}} or {{0}}"
                                );
                            }
                        },
                    };
                    next += 1;
                    let Some(value) = values.get(at) else {
                        return exec_err!("format: there is no value for '{{{inside}}}'");
                    };
                    made.push_str(value);
                }
                letter => made.push(letter),
            }
        }
        Ok(made)
    })
}

/// `%s`, `%d`, `%i`, `%f` with a precision, `%%`.
fn format_percent(args: &[ArrayRef]) -> Result<ArrayRef> {
    formatted(args, |pattern, values| {
        let mut made = String::new();
        let mut values = values.iter();
        let mut letters = pattern.chars();
        while let Some(letter) = letters.next() {
            if letter != '%' {
                made.push(letter);
                continue;
            }
            let mut written = String::new();
            let kind = loop {
                match letters.next() {
                    Some(c) if c.is_ascii_alphabetic() || c == '%' => break c,
                    Some(c) => written.push(c),
                    None => return exec_err!("printf: '%{written}' has no end"),
                }
            };
            if kind == '%' {
                made.push('%');
                continue;
            }
            let Some(value) = values.next() else {
                return exec_err!("printf: there is no value for '%{written}{kind}'");
            };
            made.push_str(&percent(&written, kind, value)?);
        }
        Ok(made)
    })
}

fn percent(written: &str, kind: char, value: &str) -> Result<String> {
    let (width, precision) = written.split_once('.').map_or((written, None), |(w, p)| (w, Some(p)));
    let text = match (kind, precision) {
        ('s', None) => value.to_owned(),
        ('d' | 'i', None) => match value.parse::<f64>() {
            Ok(_) => value.split('.').next().unwrap_or(value).to_owned(),
            Err(_) => return exec_err!("printf: '{value}' is no number"),
        },
        ('f', precision) => {
            let precision = precision.map_or(Ok(6), str::parse::<usize>);
            match (value.parse::<f64>(), precision) {
                (Ok(number), Ok(precision)) => format!("{number:.precision$}"),
                _ => return exec_err!("printf: '{value}' is no number"),
            }
        }
        _ => return exec_err!("printf: '%{written}{kind}' is not supported"),
    };
    let n = width.trim_start_matches(['-', '0']).parse::<usize>().unwrap_or(0);
    Ok(match (width.starts_with('-'), width.starts_with('0')) {
        (true, _) => format!("{text:<n$}"),
        (false, true) => match text.strip_prefix('-') {
            Some(digits) => format!("-{digits:0>width$}", width = n.saturating_sub(1)),
            None => format!("{text:0>n$}"),
        },
        (false, false) => format!("{text:>n$}"),
    })
}

fn formatted(
    args: &[ArrayRef],
    write: impl Fn(&str, &[&str]) -> Result<String>,
) -> Result<ArrayRef> {
    let texts: Vec<StringArray> = args.iter().map(as_texts).collect::<Result<_>>()?;
    let texts: Vec<&StringArray> = texts.iter().collect();
    from_texts(&texts, |row| write(row[0], &row[1..]).map(Some))
}
