//! Functions of the caller: over columns as they are, in the process that asks.

use crate::context::Context;
use crate::{EngineError, Result};
use datafusion::arrow::array::{Array, ArrayRef, AsArray, ListArray};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::compute::{cast, concat};
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{
    Accumulator, ColumnarValue, Expr, LogicalPlan, Volatility, create_udaf, create_udf,
};
use std::fmt;
use std::sync::Arc;

/// Whole columns in, a column out: of as many rows, or of one for an aggregate.
pub type OwnFunction = Arc<dyn Fn(&[ArrayRef]) -> Result<ArrayRef> + Send + Sync>;

/// What a function takes and gives.
#[derive(Clone, Debug)]
pub struct Signature {
    pub name: String,
    pub takes: Vec<DataType>,
    pub gives: DataType,
}

/// A column of the type that was promised.
fn checked(name: &str, column: &ArrayRef, kind: &DataType, n_rows: usize) -> Result<ArrayRef> {
    if column.len() != n_rows {
        return Err(EngineError::new(
            crate::Kind::Data,
            format!("the function {name} gave {} values for {n_rows} rows", column.len()),
        ));
    }
    cast(column, kind).map_err(|error| {
        let text = format!("the function {name} gave {}, not {kind}: {error}", column.data_type());
        EngineError::new(crate::Kind::Data, text)
    })
}

impl Context {
    /// Names a function of rows.
    pub fn create_scalar(&self, signature: Signature, function: OwnFunction) {
        let Signature { name, takes, gives } = signature;
        let (own, wanted) = (name.clone(), gives.clone());
        let call = move |columns: &[ColumnarValue]| {
            let arrays = ColumnarValue::values_to_arrays(columns)?;
            let n_rows = arrays.first().map_or(1, |array| array.len());
            let made = function(&arrays)?;
            Ok(ColumnarValue::Array(checked(&own, &made, &wanted, n_rows)?))
        };
        let function = create_udf(&name, takes, gives, Volatility::Stable, Arc::new(call));
        self.own_functions().lock().insert(name);
        self.session().register_udf(function);
    }

    /// Names a function of groups: it is given all rows of a group at once.
    pub fn create_aggregate(&self, signature: Signature, function: OwnFunction) {
        let Signature { name, takes, gives } = signature;
        let state = takes.iter().map(|kind| DataType::new_list(kind.clone(), true)).collect();
        let gathered = Gathered {
            name: name.clone(),
            gives: gives.clone(),
            columns: vec![Vec::new(); takes.len()],
            takes: takes.clone(),
            function,
        };
        let make = move |_: datafusion::logical_expr::function::AccumulatorArgs<'_>| {
            Ok(Box::new(gathered.clone()) as Box<dyn Accumulator>)
        };
        let function = create_udaf(
            &name,
            takes,
            Arc::new(gives),
            Volatility::Stable,
            Arc::new(make),
            Arc::new(state),
        );
        self.own_functions().lock().insert(name);
        self.session().register_udaf(function);
    }
}

/// The rows of one group so far.
#[derive(Clone)]
struct Gathered {
    name: String,
    takes: Vec<DataType>,
    gives: DataType,
    columns: Vec<Vec<ArrayRef>>,
    function: OwnFunction,
}

impl fmt::Debug for Gathered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gathered({})", self.name)
    }
}

impl Gathered {
    fn whole(&self) -> Result<Vec<ArrayRef>> {
        let whole = |(pieces, kind): (&Vec<ArrayRef>, &DataType)| match pieces.is_empty() {
            true => Ok(datafusion::arrow::array::new_empty_array(kind)),
            false => {
                let pieces: Vec<&dyn Array> = pieces.iter().map(AsRef::as_ref).collect();
                Ok(concat(&pieces)?)
            }
        };
        self.columns.iter().zip(&self.takes).map(whole).collect()
    }
}

impl Accumulator for Gathered {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        for (pieces, value) in self.columns.iter_mut().zip(values) {
            pieces.push(value.clone());
        }
        Ok(())
    }

    fn evaluate(&mut self) -> DfResult<ScalarValue> {
        let made = (self.function)(&self.whole()?)?;
        let made = checked(&self.name, &made, &self.gives, 1)?;
        ScalarValue::try_from_array(&made, 0)
    }

    fn size(&self) -> usize {
        let pieces = self.columns.iter().flatten();
        size_of::<Self>() + pieces.map(|piece| piece.get_array_memory_size()).sum::<usize>()
    }

    fn state(&mut self) -> DfResult<Vec<ScalarValue>> {
        let list = |whole: ArrayRef| {
            let field = Arc::new(Field::new_list_field(whole.data_type().clone(), true));
            let offsets = OffsetBuffer::from_lengths([whole.len()]);
            ScalarValue::List(Arc::new(ListArray::new(field, offsets, whole, None)))
        };
        Ok(self.whole()?.into_iter().map(list).collect())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DfResult<()> {
        for (pieces, state) in self.columns.iter_mut().zip(states) {
            let lists = state.as_list::<i32>();
            pieces.extend(
                (0..lists.len()).filter(|at| lists.is_valid(*at)).map(|at| lists.value(at)),
            );
        }
        Ok(())
    }
}

/// Whether a plan calls one of these functions, which only this process has.
pub(crate) fn calls_one_of(
    plan: &LogicalPlan,
    is_own: &dyn Fn(&str) -> bool,
) -> Result<Option<String>> {
    let mut found = None;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            use datafusion::common::tree_node::TreeNode;
            expr.apply(|expr| {
                let name = match expr {
                    Expr::ScalarFunction(call) => call.func.name(),
                    Expr::AggregateFunction(call) => call.func.name(),
                    _ => return Ok(TreeNodeRecursion::Continue),
                };
                if is_own(name) {
                    found = Some(name.to_owned());
                    return Ok(TreeNodeRecursion::Stop);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(found)
}
