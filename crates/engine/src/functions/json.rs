//! Functions of JSON texts.

use super::json_text::{self, Malformed, Step};
use super::{
    Function, as_texts, from_texts, gives_boolean, gives_integer, gives_text, gives_texts, rows,
};
use datafusion::arrow::array::{
    Array, ArrayRef, BooleanArray, Int64Array, ListBuilder, StringArray, StringBuilder,
};
use datafusion::common::{Result, exec_err};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

pub(super) const FUNCTIONS: &[Function] = &[
    Function { name: "json_extract", n_args: 2..=2, gives: gives_text, call: extract },
    Function { name: "json_extract_string", n_args: 2..=2, gives: gives_text, call: extract_text },
    Function { name: "json_array_length", n_args: 1..=2, gives: gives_integer, call: length },
    Function { name: "json_valid", n_args: 1..=1, gives: gives_boolean, call: is_valid },
    Function { name: "json_exists", n_args: 2..=2, gives: gives_boolean, call: exists },
    Function { name: "json_type", n_args: 1..=2, gives: gives_text, call: kind },
    Function { name: "json_keys", n_args: 1..=2, gives: gives_texts, call: keys },
];

/// Paths that were read before; mostly there is one for all rows.
#[derive(Default)]
struct Paths(RefCell<HashMap<String, Arc<[Step]>>>);

impl Paths {
    fn get(&self, text: &str) -> Result<Arc<[Step]>> {
        if let Some(known) = self.0.borrow().get(text) {
            return Ok(known.clone());
        }
        match json_text::path(text) {
            Ok(steps) => {
                let steps: Arc<[Step]> = steps.into();
                self.0.borrow_mut().insert(text.to_owned(), steps.clone());
                Ok(steps)
            }
            Err(error) => exec_err!("{error}"),
        }
    }
}

fn json<T>(text: &str, made: std::result::Result<T, Malformed>) -> Result<T> {
    match made {
        Ok(made) => Ok(made),
        Err(Malformed { at, expected }) => {
            let shown: String = text.chars().take(60).collect();
            exec_err!("malformed JSON: {expected} is expected at byte {at} of '{shown}'")
        }
    }
}

/// Texts, and paths that may be numbers: `doc -> 0` is an item of a list.
fn with_paths(args: &[ArrayRef]) -> Result<(StringArray, StringArray)> {
    let texts = as_texts(&args[0])?;
    let paths = match args.get(1) {
        None => StringArray::from_iter_values(std::iter::repeat_n("$", texts.len())),
        Some(paths) => {
            let is_index = paths.data_type().is_integer();
            let written = as_texts(paths)?;
            match is_index {
                true => written.iter().map(|at| at.map(|at| format!("$[{at}]"))).collect(),
                false => written,
            }
        }
    };
    Ok((texts, paths))
}

fn extract(args: &[ArrayRef]) -> Result<ArrayRef> {
    let (texts, paths) = with_paths(args)?;
    let known = Paths::default();
    from_texts(&[&texts, &paths], |row| {
        let found = json(row[0], json_text::find(row[0], &known.get(row[1])?))?;
        Ok(found.map(json_text::compact))
    })
}

fn extract_text(args: &[ArrayRef]) -> Result<ArrayRef> {
    let (texts, paths) = with_paths(args)?;
    let known = Paths::default();
    from_texts(&[&texts, &paths], |row| {
        let found = json(row[0], json_text::find(row[0], &known.get(row[1])?))?;
        Ok(found.and_then(json_text::as_text))
    })
}

fn length(args: &[ArrayRef]) -> Result<ArrayRef> {
    let (texts, paths) = with_paths(args)?;
    let known = Paths::default();
    let made: Result<Int64Array> = rows(&[&texts, &paths])
        .map(|row| {
            let Some(row) = row else { return Ok(None) };
            let found = json(row[0], json_text::find(row[0], &known.get(row[1])?))?;
            match found {
                None => Ok(None),
                Some(value) => {
                    let items = json(row[0], json_text::items(value))?;
                    Ok(Some(items.map_or(0, |items| items.len() as i64)))
                }
            }
        })
        .collect();
    Ok(Arc::new(made?))
}

fn is_valid(args: &[ArrayRef]) -> Result<ArrayRef> {
    let texts = as_texts(&args[0])?;
    let made: BooleanArray =
        texts.iter().map(|text| text.map(|text| json_text::check(text).is_ok())).collect();
    Ok(Arc::new(made))
}

fn exists(args: &[ArrayRef]) -> Result<ArrayRef> {
    let (texts, paths) = with_paths(args)?;
    let known = Paths::default();
    let made: Result<BooleanArray> = rows(&[&texts, &paths])
        .map(|row| {
            let Some(row) = row else { return Ok(None) };
            let found = json(row[0], json_text::find(row[0], &known.get(row[1])?))?;
            Ok(Some(found.is_some()))
        })
        .collect();
    Ok(Arc::new(made?))
}

fn kind(args: &[ArrayRef]) -> Result<ArrayRef> {
    let (texts, paths) = with_paths(args)?;
    let known = Paths::default();
    from_texts(&[&texts, &paths], |row| {
        let found = json(row[0], json_text::find(row[0], &known.get(row[1])?))?;
        Ok(found.map(|value| {
            let name = match value.as_bytes().first() {
                Some(b'{') => "OBJECT",
                Some(b'[') => "ARRAY",
                Some(b'"') => "VARCHAR",
                Some(b't' | b'f') => "BOOLEAN",
                Some(b'n') => "NULL",
                _ if value.contains(['.', 'e', 'E']) => "DOUBLE",
                _ if value.starts_with('-') => "BIGINT",
                _ => "UBIGINT",
            };
            name.to_owned()
        }))
    })
}

fn keys(args: &[ArrayRef]) -> Result<ArrayRef> {
    let (texts, paths) = with_paths(args)?;
    let known = Paths::default();
    let mut made = ListBuilder::new(StringBuilder::new());
    for row in rows(&[&texts, &paths]) {
        let found = match row {
            None => None,
            Some(row) => {
                let value = json(row[0], json_text::find(row[0], &known.get(row[1])?))?;
                match value {
                    None => None,
                    Some(value) => json(row[0], json_text::keys(value))?,
                }
            }
        };
        for key in found.iter().flatten() {
            made.values().append_value(key);
        }
        made.append(found.is_some());
    }
    Ok(Arc::new(made.finish()))
}
