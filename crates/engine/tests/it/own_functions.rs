//! Functions of the caller: in one piece and in stages, of which those that call them bring them.

use crate::stages::{Data, GO_ON, texts};
use rasker_engine::arrow::array::{Array, ArrayRef, AsArray, Float64Array};
use rasker_engine::arrow::datatypes::{DataType, Float64Type};
use rasker_engine::{EngineError, Fragment, Kind, OwnFunction, Result, Signature};
use std::sync::Arc;

fn numbers(columns: &[ArrayRef]) -> impl Iterator<Item = Option<f64>> {
    columns[0].as_primitive::<Float64Type>().iter()
}

fn twice(columns: &[ArrayRef]) -> Result<ArrayRef> {
    Ok(Arc::new(numbers(columns).map(|x| x.map(|x| 2.0 * x)).collect::<Float64Array>()))
}

/// From the least to the greatest value of a group.
fn spread(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
    for x in numbers(columns).flatten() {
        (least, most) = (least.min(x), most.max(x));
    }
    Ok(Arc::new(Float64Array::from(vec![(least <= most).then_some(most - least)])))
}

/// The first value of a group, and how many there are.
fn first(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let found = numbers(columns).next().flatten().unwrap_or(-1.0);
    Ok(Arc::new(Float64Array::from(vec![1000.0 * found + columns[0].len() as f64])))
}

fn broken(_: &[ArrayRef]) -> Result<ArrayRef> {
    let cause = std::io::Error::other("the cause");
    Err(EngineError::new(Kind::Data, "not today").because(cause))
}

fn data(name: &str) -> Data {
    let data = Data::new(name);
    let create = |name: &str, is_aggregate, call: fn(&[ArrayRef]) -> Result<ArrayRef>| {
        let (takes, gives) = (vec![DataType::Float64], DataType::Float64);
        let signature = Signature { name: name.into(), takes, gives };
        let function = OwnFunction { signature, is_aggregate, call: Arc::new(call) };
        data.context.create_function(function).expect("a function");
    };
    create("twice", false, twice);
    create("broken", false, broken);
    create("spread", true, spread);
    create("first_of", true, first);
    data
}

/// Each with the stages that call functions, of all stages that three tasks have.
const QUERIES: [(&str, usize, usize); 13] = [
    ("SELECT id, twice(amount) FROM orders WHERE id < 50", 1, 1),
    ("SELECT count(*) FROM orders WHERE twice(amount) > 90", 1, 2),
    ("SELECT name, spread(amount), sum(id) FROM orders GROUP BY name", 1, 2),
    ("SELECT name, k, spread(amount) FROM orders GROUP BY ROLLUP (name, k)", 1, 2),
    ("SELECT spread(amount), count(*) FROM orders", 1, 2),
    ("SELECT twice(k), spread(amount) FROM orders GROUP BY twice(k)", 2, 2),
    ("SELECT name, spread(DISTINCT amount) FROM orders GROUP BY name", 1, 3),
    ("SELECT name, first_of(amount ORDER BY amount DESC) FROM orders GROUP BY name", 1, 2),
    ("SELECT name, spread(amount) FILTER (WHERE k < 5) FROM orders GROUP BY name", 1, 2),
    ("SELECT id, spread(amount) OVER (PARTITION BY name) FROM orders WHERE id < 60", 1, 2),
    ("SELECT p.city, spread(o.amount) FROM orders o JOIN places p USING (k) GROUP BY p.city", 1, 3),
    ("SELECT name, max(twice(amount)) FROM orders GROUP BY name", 1, 2),
    ("SELECT name, max(1 + twice(k)), sum(id) FROM orders GROUP BY name", 1, 2),
];

#[test]
fn functions_travel_with_the_stages_that_call_them_and_no_other() {
    let data = data("own");
    for (text, n_calling, n_stages) in QUERIES {
        let query = data.plan(text);
        let mut whole = texts(&query.collect(GO_ON).unwrap_or_else(|e| panic!("{text}: {e}")));
        whole.sort();
        for n in [1, 2, 3] {
            let (rows, _) = data.in_stages(&query, n).unwrap_or_else(|e| panic!("{text}: {e}"));
            let mut rows = texts(&rows);
            rows.sort();
            assert_eq!(rows, whole, "{n} tasks: {text}");
        }
        let stages = query.stages(3, u64::MAX, GO_ON).expect("stages");
        let calls = stages.stages.iter().filter(|stage| {
            !Fragment::new(stage, Vec::new()).expect("a fragment").functions.is_empty()
        });
        assert_eq!((calls.count(), stages.stages.len()), (n_calling, n_stages), "{text}");
    }
}

#[test]
fn rows_of_a_group_come_in_the_order_that_was_asked_for() {
    let data = data("ordered");
    for (text, expected) in [
        ("SELECT first_of(amount ORDER BY amount DESC) FROM orders", 4_501_500.0),
        ("SELECT first_of(amount ORDER BY k NULLS LAST, id DESC) FROM orders", 4_488_000.0),
        (
            "SELECT first_of(amount ORDER BY amount DESC) + first_of(amount ORDER BY id) \
             FROM orders WHERE k = 1 GROUP BY k",
            4_486_698.0 + 1_698.0,
        ),
        (
            "SELECT max(found) FROM (SELECT first_of(amount ORDER BY amount DESC) AS found, \
             count(DISTINCT k) FROM orders GROUP BY name)",
            4_499_100.0,
        ),
    ] {
        let query = data.plan(text);
        let whole = query.collect(GO_ON).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(numbers(whole[0].columns()).next(), Some(Some(expected)), "{text}");
        let (staged, _) = data.in_stages(&query, 3).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(texts(&staged), texts(&whole), "{text}");
    }
}

#[test]
fn what_a_function_fails_with_comes_back() {
    let data = data("broken");
    let query = data.plan("SELECT broken(amount) FROM orders");
    for error in [query.collect(GO_ON).err(), data.in_stages(&query, 2).err()] {
        let error = error.expect("it fails");
        assert_eq!((error.kind, error.text.as_str()), (Kind::Data, "not today"));
        assert_eq!(error.cause.expect("its cause").to_string(), "the cause");
    }
}
