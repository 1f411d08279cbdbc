//! Functions that the engine lacks and people call every day.
//!
//! What is only another name for a known function, or a combination of some, is a line in
//! `dialect::macros`; here stands what has to be computed. Names that begin with two underscores
//! are what macros and rules of the dialect are made of, and are not for people.
//!
//! Workers find functions by name, so everybody registers all of them.

mod aggregates;
mod dates;
mod json;
mod json_text;
mod lists;
mod texts;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::{
    AggregateUDF, ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// All scalar functions of ours.
pub(crate) fn scalars() -> Vec<Arc<ScalarUDF>> {
    let lists = [dates::FUNCTIONS, texts::FUNCTIONS, lists::FUNCTIONS, json::FUNCTIONS];
    let all = lists.iter().flat_map(|list| list.iter());
    all.map(|function| Arc::new(ScalarUDF::new_from_impl(Scalar::new(function)))).collect()
}

/// All aggregate functions of ours.
pub(crate) fn aggregates() -> Vec<Arc<AggregateUDF>> {
    aggregates::all()
}

/// A function of whole arrays, all of one length; constants among them are spread out.
struct Function {
    name: &'static str,
    n_args: std::ops::RangeInclusive<usize>,
    gives: fn(&[DataType]) -> Result<DataType>,
    call: fn(&[ArrayRef]) -> Result<ArrayRef>,
}

#[derive(Debug)]
struct Scalar {
    function: &'static Function,
    signature: Signature,
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Scalar {
    fn new(function: &'static Function) -> Scalar {
        Scalar { function, signature: Signature::variadic_any(Volatility::Immutable) }
    }
}

// A function is known by its name: there is one of each.
impl PartialEq for Scalar {
    fn eq(&self, other: &Scalar) -> bool {
        self.function.name == other.function.name
    }
}

impl Eq for Scalar {}

impl Hash for Scalar {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.function.name.hash(state);
    }
}

impl ScalarUDFImpl for Scalar {
    fn name(&self) -> &str {
        self.function.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        if !self.function.n_args.contains(&types.len()) {
            let name = shown(self.function.name);
            let (least, most) = (self.function.n_args.start(), self.function.n_args.end());
            let takes = match least == most {
                true => least.to_string(),
                false => format!("{least} to {most}"),
            };
            return datafusion::common::plan_err!(
                "{name} takes {takes} arguments, and {} were given",
                types.len()
            );
        }
        (self.function.gives)(types)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let n = if is_constant { 1 } else { args.number_rows };
        let arrays: Result<Vec<ArrayRef>> =
            args.args.into_iter().map(|arg| arg.into_array(n)).collect();
        let made = (self.function.call)(&arrays?)?;
        match is_constant {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&made, 0)?)),
            false => Ok(ColumnarValue::Array(made)),
        }
    }
}

/// The name as people know it.
fn shown(name: &str) -> &str {
    name.trim_start_matches('_')
}

// ---- arguments

fn as_texts(array: &ArrayRef) -> Result<StringArray> {
    Ok(cast(array, &DataType::Utf8)?.as_string::<i32>().clone())
}

fn as_integers(array: &ArrayRef) -> Result<Int64Array> {
    Ok(cast(array, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
}

/// A text for each row in which nothing is missing.
fn from_texts(
    args: &[&StringArray],
    value: impl Fn(&[&str]) -> Result<Option<String>>,
) -> Result<ArrayRef> {
    let made: Result<StringArray> = rows(args)
        .map(|row| match row {
            Some(row) => value(&row),
            None => Ok(None),
        })
        .collect();
    Ok(Arc::new(made?))
}

/// The texts of each row; nothing where one is missing.
fn rows<'a>(args: &'a [&'a StringArray]) -> impl Iterator<Item = Option<Vec<&'a str>>> + 'a {
    (0..args[0].len())
        .map(move |at| args.iter().map(|arg| arg.is_valid(at).then(|| arg.value(at))).collect())
}

/// The one value of an argument that has to be a constant.
fn constant<'a>(texts: &'a StringArray, what: &str) -> Result<&'a str> {
    let mut values = texts.iter().flatten();
    let Some(first) = values.next() else { return exec_err!("{what} is missing") };
    match values.all(|value| value == first) {
        true => Ok(first),
        false => exec_err!("{what} must be the same for all rows"),
    }
}

fn gives_integer(_: &[DataType]) -> Result<DataType> {
    Ok(DataType::Int64)
}

fn gives_text(_: &[DataType]) -> Result<DataType> {
    Ok(DataType::Utf8)
}

fn gives_boolean(_: &[DataType]) -> Result<DataType> {
    Ok(DataType::Boolean)
}

fn gives_texts(_: &[DataType]) -> Result<DataType> {
    Ok(DataType::new_list(DataType::Utf8, true))
}
