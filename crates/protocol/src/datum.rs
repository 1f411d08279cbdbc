//! Answers to questions: plain data that every side can read.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use std::cell::Cell;

/// A plain value, as in JSON, with integers and bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Datum {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    List(#[serde(deserialize_with = "deeper")] Vec<Datum>),
    /// Pairs in the order they were made.
    Map(#[serde(deserialize_with = "deeper")] Vec<(String, Datum)>),
}

/// Lists within lists: more would only serve to use up the reader's stack.
const DEPTH_MAX: u32 = 100;

thread_local! {
    /// How deep the value lies that is being read here.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

fn deeper<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    let depth = DEPTH.get();
    if depth == DEPTH_MAX {
        return Err(D::Error::custom("a value nested too deeply"));
    }
    DEPTH.set(depth + 1);
    let value = T::deserialize(deserializer);
    DEPTH.set(depth);
    value
}

impl From<&str> for Datum {
    fn from(text: &str) -> Datum {
        Datum::Text(text.to_owned())
    }
}
impl From<String> for Datum {
    fn from(text: String) -> Datum {
        Datum::Text(text)
    }
}
impl From<u32> for Datum {
    fn from(value: u32) -> Datum {
        Datum::Int(i64::from(value))
    }
}
impl From<u64> for Datum {
    fn from(value: u64) -> Datum {
        Datum::Int(value as i64)
    }
}
impl From<f64> for Datum {
    fn from(value: f64) -> Datum {
        Datum::Float(value)
    }
}
impl From<Vec<Datum>> for Datum {
    fn from(values: Vec<Datum>) -> Datum {
        Datum::List(values)
    }
}
impl<const N: usize> From<[(&str, Datum); N]> for Datum {
    fn from(pairs: [(&str, Datum); N]) -> Datum {
        Datum::Map(pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }
}
