//! Which part a row belongs to: a hash of our own, the same in every process and version.
//!
//! Keys that compare equal hash alike: both zeros, every NaN, text in any layout.

use crate::{EngineError, Kind, Result};
use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::row::{RowConverter, SortField};
use xxhash_rust::xxh3::xxh3_64;

const MISSING: u64 = 0x9E37_79B9_7F4A_7C15;

/// One hash for each row over all key columns.
pub(super) fn hash_rows(keys: &[ArrayRef], hashes: &mut Vec<u64>) -> Result<()> {
    let n = keys.first().map_or(0, |key| key.len());
    hashes.clear();
    hashes.resize(n, 0);
    keys.iter().try_for_each(|key| add(key, hashes))
}

/// Finalizer of MurmurHash3 over the sum, so that each bit depends on all.
fn mix(hash: u64, value: u64) -> u64 {
    let mut x = (hash.rotate_left(29) ^ value).wrapping_add(MISSING);
    x = (x ^ (x >> 33)).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    x = (x ^ (x >> 33)).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    x ^ (x >> 33)
}

fn add(key: &ArrayRef, hashes: &mut [u64]) -> Result<()> {
    use DataType as T;
    match key.data_type() {
        T::Dictionary(_, values) => return add(&cast(key, values)?, hashes),
        T::Boolean => {
            let key = key.as_boolean();
            each(hashes, key, |at| u64::from(key.value(at)));
        }
        T::Float32 => {
            let key = key.as_primitive::<datafusion::arrow::datatypes::Float32Type>();
            each(hashes, key, |at| float(f64::from(key.value(at))));
        }
        T::Float64 => {
            let key = key.as_primitive::<datafusion::arrow::datatypes::Float64Type>();
            each(hashes, key, |at| float(key.value(at)));
        }
        T::Utf8 => {
            let key = key.as_string::<i32>();
            each(hashes, key, |at| xxh3_64(key.value(at).as_bytes()));
        }
        T::LargeUtf8 => {
            let key = key.as_string::<i64>();
            each(hashes, key, |at| xxh3_64(key.value(at).as_bytes()));
        }
        T::Utf8View => {
            let key = key.as_string_view();
            each(hashes, key, |at| xxh3_64(key.value(at).as_bytes()));
        }
        T::Binary | T::LargeBinary | T::FixedSizeBinary(_) => {
            return add(&cast(key, &T::BinaryView)?, hashes);
        }
        T::BinaryView => {
            let key = key.as_binary_view();
            each(hashes, key, |at| xxh3_64(key.value(at)));
        }
        _ => return add_other(key, hashes),
    }
    Ok(())
}

fn float(value: f64) -> u64 {
    if value.is_nan() { f64::NAN.to_bits() } else { (value + 0.0).to_bits() }
}

fn each(hashes: &mut [u64], key: &dyn Array, value: impl Fn(usize) -> u64) {
    match key.nulls().filter(|nulls| nulls.null_count() > 0) {
        None => hashes.iter_mut().enumerate().for_each(|(at, hash)| *hash = mix(*hash, value(at))),
        Some(nulls) => hashes.iter_mut().enumerate().for_each(|(at, hash)| {
            *hash = mix(*hash, if nulls.is_valid(at) { value(at) } else { MISSING });
        }),
    }
}

/// Whole numbers of any width, and what is stored as one; else the row format of Arrow.
fn add_other(key: &ArrayRef, hashes: &mut [u64]) -> Result<()> {
    trait Folded {
        fn folded(&self) -> u64;
    }
    macro_rules! folded {
        ($($kind:ty),*) => { $(impl Folded for $kind {
            fn folded(&self) -> u64 {
                *self as i64 as u64
            }
        })* };
    }
    folded!(i8, i16, i32, i64, u8, u16, u32, u64);
    impl Folded for i128 {
        fn folded(&self) -> u64 {
            // Numbers that fit into 64 bits hash as those do.
            let low = *self as i64;
            match i128::from(low) == *self {
                true => low as u64,
                false => mix(low as u64, (*self >> 64) as u64),
            }
        }
    }
    macro_rules! whole {
        ($($kind:ident),*) => {
            match key.data_type() {
                $(kind if *kind == <datafusion::arrow::datatypes::$kind as
                    datafusion::arrow::datatypes::ArrowPrimitiveType>::DATA_TYPE => {
                    let key = key.as_primitive::<datafusion::arrow::datatypes::$kind>();
                    each(hashes, key, |at| key.value(at).folded());
                    return Ok(());
                })*
                _ => {}
            }
        };
    }
    whole!(
        Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
        Date32Type, Date64Type
    );
    if let DataType::Decimal128(..) = key.data_type() {
        let key = key.as_primitive::<datafusion::arrow::datatypes::Decimal128Type>();
        each(hashes, key, |at| key.value(at).folded());
        return Ok(());
    }
    if let DataType::Timestamp(..) | DataType::Time64(_) | DataType::Duration(_) = key.data_type() {
        return add(&cast(key, &DataType::Int64)?, hashes);
    }
    let unsupported = |error: datafusion::arrow::error::ArrowError| {
        let text = format!("rows cannot be shared out by a key of type {}", key.data_type());
        EngineError::new(Kind::Unsupported, format!("{text}: {error}"))
    };
    let field = SortField::new(key.data_type().clone());
    let converter = RowConverter::new(vec![field]).map_err(unsupported)?;
    let rows = converter.convert_columns(std::slice::from_ref(key)).map_err(unsupported)?;
    for (hash, row) in hashes.iter_mut().zip(rows.iter()) {
        *hash = mix(*hash, xxh3_64(row.as_ref()));
    }
    Ok(())
}

/// The part of a row among `n`, without the bias of a remainder.
pub(super) fn part_of(hash: u64, n: usize) -> usize {
    ((u128::from(hash) * n as u128) >> 64) as usize
}
