//! Columns whose values stand in the names of folders: `year=2024/month=1/part.parquet`.

use crate::{EngineError, Result};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use datafusion::common::ScalarValue;
use rasker_io::FoundFile;
use std::sync::Arc;

/// What Hive writes for a missing value.
const MISSING: &str = "__HIVE_DEFAULT_PARTITION__";

#[derive(Clone, Debug, PartialEq)]
pub(super) struct PartitionColumn {
    pub name: String,
    pub kind: DataType,
}

impl PartitionColumn {
    pub fn field(&self) -> FieldRef {
        Arc::new(Field::new(&self.name, self.kind.clone(), true))
    }
}

/// Names and values in the folders of a file.
fn pairs(file: &FoundFile) -> impl Iterator<Item = (&str, &str)> {
    let folders = file.below.rsplit_once('/').map_or("", |(folders, _)| folders);
    folders.split('/').filter_map(|folder| folder.split_once('='))
}

/// The columns that all files have in their folders' names, with the types that all values fit.
pub(super) fn infer(files: &[FoundFile]) -> Vec<PartitionColumn> {
    let Some(first) = files.first() else { return Vec::new() };
    let names: Vec<&str> = pairs(first).map(|(name, _)| name).collect();
    let is_same = |file: &FoundFile| pairs(file).map(|(name, _)| name).eq(names.iter().copied());
    if names.is_empty() || !files.iter().all(is_same) {
        return Vec::new();
    }
    let mut kinds = vec![None; names.len()];
    for file in files {
        for (kind, (_, value)) in kinds.iter_mut().zip(pairs(file)) {
            if value != MISSING {
                *kind = Some(wider(kind.take(), kind_of(&decoded(value))));
            }
        }
    }
    let column = |(name, kind): (&&str, Option<DataType>)| PartitionColumn {
        name: (*name).to_owned(),
        kind: kind.unwrap_or(DataType::Utf8),
    };
    names.iter().zip(kinds).map(column).collect()
}

fn kind_of(value: &str) -> DataType {
    let is_number = value.parse::<i64>().is_ok_and(|n| n.to_string() == value);
    let is_date = value.len() == 10
        && value.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    match (is_number, is_date) {
        (true, _) => DataType::Int64,
        (_, true) => DataType::Date32,
        _ => DataType::Utf8,
    }
}

fn wider(known: Option<DataType>, kind: DataType) -> DataType {
    match known {
        None => kind,
        Some(known) if known == kind => kind,
        Some(_) => DataType::Utf8,
    }
}

fn decoded(value: &str) -> String {
    // Stores give paths with their signs encoded, as writers of such folders do.
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match hex.and_then(|two| u8::from_str_radix(two, 16).ok()).filter(|_| *byte == b'%') {
            Some(code) => {
                bytes.push(code);
                rest = &after[2..];
            }
            None => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| value.to_owned())
}

/// The values of the columns for one file.
pub(super) fn values(columns: &[PartitionColumn], file: &FoundFile) -> Result<Vec<ScalarValue>> {
    let value = |column: &PartitionColumn| {
        let found = pairs(file).find(|(name, _)| *name == column.name);
        let Some((_, text)) = found.filter(|(_, value)| *value != MISSING) else {
            return Ok(ScalarValue::try_from(&column.kind)?);
        };
        ScalarValue::try_from_string(decoded(text), &column.kind).map_err(|_| {
            EngineError::plan(format!(
                "the folder {}={text} of /{} does not hold a value of type {}; make the table \
                 anew, so that the type is found again",
                column.name, file.meta.location, column.kind
            ))
        })
    };
    columns.iter().map(value).collect()
}

/// A schema without the columns that folders give.
pub(super) fn without(schema: &SchemaRef, columns: &[PartitionColumn]) -> SchemaRef {
    let is_of_file = |field: &&FieldRef| columns.iter().all(|column| column.name != *field.name());
    let fields: Vec<FieldRef> = schema.fields().iter().filter(is_of_file).cloned().collect();
    if fields.len() == schema.fields().len() {
        return schema.clone();
    }
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// A type that values of both types can be read as, without loss.
pub(super) fn common_type(a: &DataType, b: &DataType) -> Option<DataType> {
    use DataType as T;
    let width = |kind: &DataType| match kind {
        T::Int8 => Some((8, true)),
        T::Int16 => Some((16, true)),
        T::Int32 => Some((32, true)),
        T::Int64 => Some((64, true)),
        T::UInt8 => Some((8, false)),
        T::UInt16 => Some((16, false)),
        T::UInt32 => Some((32, false)),
        _ => None,
    };
    match (a, b) {
        (a, b) if a == b => Some(a.clone()),
        (T::Null, other) | (other, T::Null) => Some(other.clone()),
        (T::Float32 | T::Float64, T::Float32 | T::Float64) => Some(T::Float64),
        (T::Float64 | T::Float32, other) | (other, T::Float64 | T::Float32) => {
            width(other).map(|_| T::Float64)
        }
        (T::Utf8 | T::LargeUtf8 | T::Utf8View, T::Utf8 | T::LargeUtf8 | T::Utf8View) => {
            Some(T::Utf8View)
        }
        (T::Timestamp(_, zone), T::Timestamp(_, other)) if zone == other => {
            Some(T::Timestamp(TimeUnit::Nanosecond, zone.clone()))
        }
        (T::Date32, T::Timestamp(..)) => Some(b.clone()),
        (T::Timestamp(..), T::Date32) => Some(a.clone()),
        _ => match (width(a), width(b)) {
            (Some(_), Some(_)) => Some(T::Int64),
            // Text holds whatever was read from text.
            _ if matches!(a, T::Utf8 | T::Utf8View) || matches!(b, T::Utf8 | T::Utf8View) => {
                Some(T::Utf8View)
            }
            _ => None,
        },
    }
}
