//! Differences between times, and intervals that are computed.

use super::{Function, as_integers, as_texts, constant, gives_integer};
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, IntervalMonthDayNanoArray,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    DataType, Float64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, TimeUnit,
    TimestampMicrosecondType,
};
use datafusion::common::{Result, exec_err, plan_err};
use std::sync::Arc;

pub(super) const FUNCTIONS: &[Function] = &[
    Function { name: "__date_boundaries", n_args: 3..=3, gives: gives_integer, call: boundaries },
    Function { name: "__date_units", n_args: 3..=3, gives: gives_integer, call: whole_units },
    Function { name: "__units", n_args: 2..=2, gives: gives_interval, call: units },
    Function { name: "__times", n_args: 2..=2, gives: gives_interval, call: times },
];

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

/// A unit of time: so many months, or so many microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Unit {
    Months(i64),
    Micros(i64),
    /// Weeks begin on Mondays.
    Week,
}

fn unit(name: &str) -> Result<Unit> {
    let name = name.to_lowercase();
    let plain = name.strip_suffix('s').filter(|_| name.len() > 2).unwrap_or(&name);
    Ok(match plain.strip_prefix("sql_tsi_").unwrap_or(plain) {
        "millennium" | "millennia" => Unit::Months(12_000),
        "century" | "centurie" => Unit::Months(1_200),
        "decade" => Unit::Months(120),
        "year" | "yy" | "yyyy" => Unit::Months(12),
        "quarter" | "qq" | "q" => Unit::Months(3),
        "month" | "mm" | "mon" => Unit::Months(1),
        "week" | "wk" | "ww" => Unit::Week,
        "day" | "dd" | "d" | "doy" | "dayofyear" => Unit::Micros(DAY),
        "hour" | "hh" | "h" => Unit::Micros(3_600 * SECOND),
        "minute" | "mi" | "n" | "min" => Unit::Micros(60 * SECOND),
        "second" | "s" | "sec" => Unit::Micros(SECOND),
        "millisecond" | "ms" => Unit::Micros(1_000),
        "microsecond" | "us" | "frac_second" => Unit::Micros(1),
        _ => {
            return plan_err!(
                "{name} is no unit of time; there are year, quarter, month, week, \
             day, hour, minute, second, millisecond and microsecond"
            );
        }
    })
}

/// Microseconds since 1970.
fn moments(array: &ArrayRef) -> Result<Int64Array> {
    let plain = DataType::Timestamp(TimeUnit::Microsecond, None);
    let moments = cast(array, &plain)?;
    let moments = moments.as_primitive::<TimestampMicrosecondType>();
    Ok(moments.reinterpret_cast::<datafusion::arrow::datatypes::Int64Type>())
}

/// Months since the year 0, the day in the month, the time of the day.
fn parts(moment: i64) -> (i64, i64, i64) {
    let (days, time) = (moment.div_euclid(DAY), moment.rem_euclid(DAY));
    // Civil date of a day number, with years that begin in March.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    ((year + era * 400) * 12 + march_month + 2, day, time)
}

/// How many borders of units lie between two times.
fn boundaries(args: &[ArrayRef]) -> Result<ArrayRef> {
    difference(args, |unit, from, to| match unit {
        Unit::Months(n) => parts(to).0.div_euclid(n) - parts(from).0.div_euclid(n),
        Unit::Week => {
            // Day 0 was a Thursday.
            let week = |moment: i64| (moment.div_euclid(DAY) + 3).div_euclid(7);
            week(to) - week(from)
        }
        Unit::Micros(n) => to.div_euclid(n) - from.div_euclid(n),
    })
}

/// How many whole units lie between two times.
fn whole_units(args: &[ArrayRef]) -> Result<ArrayRef> {
    difference(args, |unit, from, to| match unit {
        Unit::Months(n) => {
            let sign = if to < from { -1 } else { 1 };
            let (from, to) = (from.min(to), from.max(to));
            let ((first, day, time), (last, other_day, other_time)) = (parts(from), parts(to));
            // The last day of a month is as good as the day that the month does not have.
            let ends = parts(to + DAY).1 == 1;
            let lacks = (other_day, other_time) < (day, time)
                && !(ends && other_day < day && other_time >= time);
            sign * ((last - first - i64::from(lacks)) / n)
        }
        Unit::Week => (to - from) / (7 * DAY),
        Unit::Micros(n) => (to - from) / n,
    })
}

fn difference(args: &[ArrayRef], value: impl Fn(Unit, i64, i64) -> i64) -> Result<ArrayRef> {
    let names = as_texts(&args[0])?;
    if names.is_empty() {
        return Ok(Arc::new(Int64Array::from(Vec::<i64>::new())));
    }
    let unit = unit(constant(&names, "the unit of time")?)?;
    let (from, to) = (moments(&args[1])?, moments(&args[2])?);
    let made: Int64Array =
        from.iter().zip(to.iter()).map(|(from, to)| Some(value(unit, from?, to?))).collect();
    Ok(Arc::new(made))
}

fn gives_interval(_: &[DataType]) -> Result<DataType> {
    Ok(DataType::Interval(IntervalUnit::MonthDayNano))
}

fn interval(months: f64, days: f64, nanos: f64) -> Result<IntervalMonthDayNano> {
    // A part of a month is days of a month of 30, and a part of a day is hours.
    let days = days + (months - months.trunc()) * 30.0;
    let nanos = nanos + (days - days.trunc()) * (DAY as f64) * 1e3;
    let fits = months.abs() <= f64::from(i32::MAX)
        && days.abs() <= f64::from(i32::MAX)
        && nanos.abs() <= i64::MAX as f64;
    if !fits {
        return exec_err!("an interval of {months} months, {days} days is out of range");
    }
    Ok(IntervalMonthDayNano::new(months as i32, days as i32, nanos.round() as i64))
}

/// So many units of time.
fn units(args: &[ArrayRef]) -> Result<ArrayRef> {
    let names = as_texts(&args[0])?;
    let numbers = cast(&args[1], &DataType::Float64)?;
    let numbers: &Float64Array = numbers.as_primitive::<Float64Type>();
    if numbers.is_empty() {
        return Ok(Arc::new(IntervalMonthDayNanoArray::from(Vec::<IntervalMonthDayNano>::new())));
    }
    let unit = unit(constant(&names, "the unit of time")?)?;
    let value = |n: f64| match unit {
        Unit::Months(months) => interval(n * months as f64, 0.0, 0.0),
        Unit::Week => interval(0.0, n * 7.0, 0.0),
        Unit::Micros(DAY) => interval(0.0, n, 0.0),
        Unit::Micros(micros) => interval(0.0, 0.0, n * micros as f64 * 1e3),
    };
    let made: Result<IntervalMonthDayNanoArray> =
        numbers.iter().map(|n| n.map(value).transpose()).collect();
    Ok(Arc::new(made?))
}

/// An interval so many times.
fn times(args: &[ArrayRef]) -> Result<ArrayRef> {
    let intervals = cast(&args[0], &DataType::Interval(IntervalUnit::MonthDayNano))?;
    let intervals = intervals.as_primitive::<IntervalMonthDayNanoType>();
    if args[1].data_type().is_integer() {
        let numbers = as_integers(&args[1])?;
        let value = |one: IntervalMonthDayNano, n: i64| {
            let n32 = i32::try_from(n).ok()?;
            Some(IntervalMonthDayNano::new(
                one.months.checked_mul(n32)?,
                one.days.checked_mul(n32)?,
                one.nanoseconds.checked_mul(n)?,
            ))
        };
        let made: Result<IntervalMonthDayNanoArray> = intervals
            .iter()
            .zip(numbers.iter())
            .map(|(one, n)| match (one, n) {
                (Some(one), Some(n)) => match value(one, n) {
                    Some(made) => Ok(Some(made)),
                    None => exec_err!("an interval times {n} is out of range"),
                },
                _ => Ok(None),
            })
            .collect();
        return Ok(Arc::new(made?));
    }
    let numbers = cast(&args[1], &DataType::Float64)?;
    let made: Result<IntervalMonthDayNanoArray> = intervals
        .iter()
        .zip(numbers.as_primitive::<Float64Type>().iter())
        .map(|(one, n)| match (one, n) {
            (Some(one), Some(n)) => {
                let (months, days) = (f64::from(one.months) * n, f64::from(one.days) * n);
                interval(months, days, one.nanoseconds as f64 * n).map(Some)
            }
            _ => Ok(None),
        })
        .collect();
    Ok(Arc::new(made?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{Datelike, NaiveDate};

    #[test]
    fn months_and_days_of_a_moment_are_those_of_the_calendar() {
        for number in (-800_000..800_000).step_by(37) {
            let date =
                NaiveDate::from_ymd_opt(1970, 1, 1).unwrap() + chrono::Duration::days(number);
            let (months, day, _) = parts(number * DAY + 5);
            let expected = i64::from(date.year()) * 12 + i64::from(date.month0());
            assert_eq!((months, day), (expected, i64::from(date.day())), "{date}");
        }
    }
}
