//! Aggregates.

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Float64Type, Int64Type};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility,
};
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

pub(super) fn all() -> Vec<Arc<AggregateUDF>> {
    let kinds = [Kind::Single, Kind::Mode, Kind::Product];
    kinds
        .into_iter()
        .map(|kind| Arc::new(AggregateUDF::new_from_impl(Aggregate::new(kind))))
        .collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// The value of the only row; more rows are an error.
    Single,
    /// The value that is there most often; of several the least.
    Mode,
    Product,
}

#[derive(Debug)]
struct Aggregate {
    kind: Kind,
    signature: Signature,
}

impl Aggregate {
    fn new(kind: Kind) -> Aggregate {
        Aggregate { kind, signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl PartialEq for Aggregate {
    fn eq(&self, other: &Aggregate) -> bool {
        self.kind == other.kind
    }
}

impl Eq for Aggregate {}

impl Hash for Aggregate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.kind.hash(state);
    }
}

impl AggregateUDFImpl for Aggregate {
    fn name(&self) -> &str {
        match self.kind {
            Kind::Single => "__single",
            Kind::Mode => "mode",
            Kind::Product => "product",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(match self.kind {
            Kind::Product => DataType::Float64,
            Kind::Single | Kind::Mode => types[0].clone(),
        })
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let kind = args.return_field.data_type().clone();
        Ok(match self.kind {
            Kind::Single => Box::new(Single { value: ScalarValue::try_from(&kind)?, n: 0 }),
            Kind::Mode => Box::new(Mode { kind, counts: HashMap::new() }),
            Kind::Product => Box::new(Product { value: None }),
        })
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let kind = args.return_field.data_type();
        let field = |name: &str, kind: DataType| Arc::new(Field::new(name, kind, true));
        Ok(match self.kind {
            Kind::Single => vec![field("value", kind.clone()), field("n", DataType::Int64)],
            Kind::Mode => vec![
                field("values", DataType::new_list(kind.clone(), true)),
                field("counts", DataType::new_list(DataType::Int64, true)),
            ],
            Kind::Product => vec![field("value", DataType::Float64)],
        })
    }
}

#[derive(Debug)]
struct Single {
    value: ScalarValue,
    n: i64,
}

impl Single {
    fn add(&mut self, values: &ArrayRef, n: i64) -> Result<()> {
        self.n += n;
        if self.n > 1 {
            return exec_err!("a subquery that stands for one value gave more than one row");
        }
        self.value = ScalarValue::try_from_array(values, 0)?;
        Ok(())
    }
}

impl Accumulator for Single {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        match values[0].len() {
            0 => Ok(()),
            n => self.add(&values[0], n as i64),
        }
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let counts = states[1].as_primitive::<Int64Type>();
        for at in 0..counts.len() {
            if counts.is_valid(at) && counts.value(at) > 0 {
                self.add(&states[0].slice(at, 1), counts.value(at))?;
            }
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.value.clone(), ScalarValue::Int64(Some(self.n))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(self.value.clone())
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.value.size()
    }
}

#[derive(Debug)]
struct Mode {
    kind: DataType,
    counts: HashMap<ScalarValue, i64>,
}

impl Accumulator for Mode {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for at in 0..values[0].len() {
            if values[0].is_valid(at) {
                *self.counts.entry(ScalarValue::try_from_array(&values[0], at)?).or_insert(0) += 1;
            }
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let (values, counts) = (states[0].as_list::<i32>(), states[1].as_list::<i32>());
        for at in 0..values.len() {
            if values.is_null(at) {
                continue;
            }
            let (values, counts) = (values.value(at), counts.value(at));
            let counts = counts.as_primitive::<Int64Type>();
            for at in 0..values.len() {
                let value = ScalarValue::try_from_array(&values, at)?;
                *self.counts.entry(value).or_insert(0) += counts.value(at);
            }
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let (values, counts): (Vec<_>, Vec<_>) = self
            .counts
            .iter()
            .map(|(value, n)| (value.clone(), ScalarValue::Int64(Some(*n))))
            .unzip();
        Ok(vec![
            ScalarValue::List(ScalarValue::new_list_nullable(&values, &self.kind)),
            ScalarValue::List(ScalarValue::new_list_nullable(&counts, &DataType::Int64)),
        ])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let mut best: Option<(&ScalarValue, i64)> = None;
        for (value, n) in &self.counts {
            let is_better = best.is_none_or(|(other, most)| {
                *n > most || (*n == most && value.partial_cmp(other).is_some_and(|o| o.is_lt()))
            });
            if is_better {
                best = Some((value, *n));
            }
        }
        match best {
            Some((value, _)) => Ok(value.clone()),
            None => ScalarValue::try_from(&self.kind),
        }
    }

    fn size(&self) -> usize {
        let each = self.counts.keys().map(|value| value.size() + 16).sum::<usize>();
        size_of_val(self) + each
    }
}

#[derive(Debug)]
struct Product {
    value: Option<f64>,
}

impl Accumulator for Product {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = cast(&values[0], &DataType::Float64)?;
        for value in values.as_primitive::<Float64Type>().iter().flatten() {
            self.value = Some(self.value.unwrap_or(1.0) * value);
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::Float64(self.value)])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Float64(self.value))
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}
