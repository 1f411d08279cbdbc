//! Lists.

use super::{Function, as_texts, gives_integer};
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, GenericListArray, Int64Array,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float64Type, Int64Type};
use datafusion::common::{Result, exec_err, plan_err};
use std::sync::Arc;

pub(super) const FUNCTIONS: &[Function] = &[
    Function { name: "__length", n_args: 1..=1, gives: gives_integer, call: length },
    Function { name: "__list_sum", n_args: 1..=1, gives: gives_sum, call: sum },
];

/// How many letters a text has, or how many values a list.
fn length(args: &[ArrayRef]) -> Result<ArrayRef> {
    let made: Int64Array = match args[0].data_type() {
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => {
            let lists = as_lists(&args[0])?;
            let lengths =
                (0..lists.len()).map(|at| lists.is_valid(at).then(|| lists.value_length(at)));
            lengths.collect()
        }
        _ => {
            let texts = as_texts(&args[0])?;
            texts.iter().map(|text| text.map(|text| text.chars().count() as i64)).collect()
        }
    };
    Ok(Arc::new(made))
}

fn as_lists(array: &ArrayRef) -> Result<GenericListArray<i64>> {
    let inner = match array.data_type() {
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
            field.clone()
        }
        other => return exec_err!("a list is expected, and this is {other}"),
    };
    Ok(cast(array, &DataType::LargeList(inner))?.as_list::<i64>().clone())
}

fn gives_sum(types: &[DataType]) -> Result<DataType> {
    match &types[0] {
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
            Ok(match field.data_type().is_integer() {
                true => DataType::Int64,
                false => DataType::Float64,
            })
        }
        other => plan_err!("list_sum takes a list of numbers, and this is {other}"),
    }
}

fn sum(args: &[ArrayRef]) -> Result<ArrayRef> {
    let lists = as_lists(&args[0])?;
    let parts = (0..lists.len()).map(|at| lists.is_valid(at).then(|| lists.value(at)));
    if gives_sum(&[args[0].data_type().clone()])? == DataType::Int64 {
        let made: Result<Int64Array> = parts
            .map(|part| {
                let Some(part) = part else { return Ok(None) };
                let values = cast(&part, &DataType::Int64)?;
                let values = values.as_primitive::<Int64Type>();
                let mut total = None;
                for value in values.iter().flatten() {
                    match total.unwrap_or(0_i64).checked_add(value) {
                        Some(sum) => total = Some(sum),
                        None => return exec_err!("list_sum: the sum is out of range"),
                    }
                }
                Ok(total)
            })
            .collect();
        return Ok(Arc::new(made?));
    }
    let made: Result<Float64Array> = parts
        .map(|part| {
            let Some(part) = part else { return Ok(None) };
            let values = cast(&part, &DataType::Float64)?;
            let values: Vec<f64> = values.as_primitive::<Float64Type>().iter().flatten().collect();
            Ok((!values.is_empty()).then(|| values.iter().sum()))
        })
        .collect();
    Ok(Arc::new(made?))
}
