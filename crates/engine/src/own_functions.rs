//! Functions of the caller: over columns as they are, wherever a plan that calls them runs.
//!
//! The planner sees them as functions like any other. A plan that travels names them, and whoever
//! runs it elsewhere brings functions of these names along: [`crate::Fragment::functions`].

use crate::context::Context;
use crate::{EngineError, Kind, Result};
use datafusion::arrow::array::{Array, ArrayRef, AsArray, ListArray};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::compute::{CastOptions, cast_with_options, concat};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::registry::FunctionRegistry;
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature as Takes, Volatility,
};
use std::any::Any;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Whole columns in, a column out: of as many rows, or of one for an aggregate.
pub trait ColumnCall: Any + Send + Sync {
    /// # Errors
    ///
    /// What the caller is to hear.
    fn call(&self, columns: &[ArrayRef]) -> Result<ArrayRef>;
}

impl<F: Fn(&[ArrayRef]) -> Result<ArrayRef> + Any + Send + Sync> ColumnCall for F {
    fn call(&self, columns: &[ArrayRef]) -> Result<ArrayRef> {
        self(columns)
    }
}

/// What a function takes and gives.
#[derive(Clone, Debug)]
pub struct Signature {
    pub name: String,
    pub takes: Vec<DataType>,
    pub gives: DataType,
}

/// A function of the caller.
#[derive(Clone)]
pub struct OwnFunction {
    pub signature: Signature,
    /// It is given all rows of a group at once; else as many rows as come.
    pub is_aggregate: bool,
    pub call: Arc<dyn ColumnCall>,
}

impl fmt::Debug for OwnFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OwnFunction({})", self.signature.name)
    }
}

// Two of one name may differ: they are told apart by what they call.
impl PartialEq for OwnFunction {
    fn eq(&self, other: &OwnFunction) -> bool {
        Arc::ptr_eq(&self.call, &other.call) && self.signature.name == other.signature.name
    }
}

impl Eq for OwnFunction {}

impl Hash for OwnFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.signature.name.hash(state);
    }
}

impl OwnFunction {
    fn takes(&self) -> Takes {
        // Without arguments it would be called once, when the statement is planned.
        let volatility = match self.signature.takes.is_empty() {
            true => Volatility::Volatile,
            false => Volatility::Stable,
        };
        Takes::exact(self.signature.takes.clone(), volatility)
    }

    /// Makes it known under its name; one of that name is replaced.
    pub(crate) fn register(&self, registry: &mut dyn FunctionRegistry) -> DfResult<()> {
        let (takes, function) = (self.takes(), self.clone());
        match self.is_aggregate {
            true => {
                let function = AggregateUDF::from(Aggregate { function, takes });
                registry.register_udaf(Arc::new(function)).map(|_| ())
            }
            false => {
                let function = ScalarUDF::from(Scalar { function, takes });
                registry.register_udf(Arc::new(function)).map(|_| ())
            }
        }
    }

    /// The caller's function behind one of the planner's.
    pub(crate) fn of_scalar(function: &ScalarUDF) -> Option<&OwnFunction> {
        let found: &dyn Any = function.inner().as_ref();
        found.downcast_ref::<Scalar>().map(|scalar| &scalar.function)
    }

    pub(crate) fn of_aggregate(function: &AggregateUDF) -> Option<&OwnFunction> {
        let found: &dyn Any = function.inner().as_ref();
        found.downcast_ref::<Aggregate>().map(|aggregate| &aggregate.function)
    }

    /// Calls it, and sees that it gives a column of the type that was promised.
    fn checked(&self, columns: &[ArrayRef], n_rows: usize) -> Result<ArrayRef> {
        let column = self.call.call(columns)?;
        let Signature { name, gives, .. } = &self.signature;
        if column.len() != n_rows {
            let n = column.len();
            let text = format!("the function {name} gave {n} values for {n_rows} rows");
            return Err(EngineError::new(Kind::Data, text));
        }
        // What does not fit is an error, and no missing value.
        let strictly = CastOptions { safe: false, ..CastOptions::default() };
        cast_with_options(&column, gives, &strictly).map_err(|error| {
            let made = column.data_type();
            let text = format!("the function {name} gave {made}, not {gives}: {error}");
            EngineError::new(Kind::Data, text)
        })
    }
}

impl Context {
    /// Names a function of the caller; one of that name is replaced.
    pub fn create_function(&self, function: OwnFunction) -> Result<()> {
        let state = self.session().state_ref();
        let mut state = state.write();
        // The planner asks for a function of rows first.
        match function.is_aggregate {
            true => state.deregister_udf(&function.signature.name)?.map(|_| ()),
            false => state.deregister_udaf(&function.signature.name)?.map(|_| ()),
        };
        Ok(function.register(&mut *state)?)
    }
}

/// A function of rows, as the planner sees it.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Scalar {
    function: OwnFunction,
    takes: Takes,
}

impl ScalarUDFImpl for Scalar {
    fn name(&self) -> &str {
        &self.function.signature.name
    }

    fn signature(&self) -> &Takes {
        &self.takes
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(self.function.signature.gives.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let is_constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        // One value stands for all rows where every argument does.
        let n_rows = if is_constant { 1 } else { args.number_rows };
        let columns = args.args.iter().map(|arg| arg.to_array(n_rows));
        let columns = columns.collect::<DfResult<Vec<ArrayRef>>>()?;
        let made = self.function.checked(&columns, n_rows)?;
        Ok(match is_constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&made, 0)?),
            false => ColumnarValue::Array(made),
        })
    }
}

/// A function of groups, as the planner sees it. What it keeps of a group are its rows, as lists
/// where they have to move: [`GatherGroups`](crate::gather_groups::GatherGroups) has them moved
/// before they are grouped, where it can.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Aggregate {
    function: OwnFunction,
    takes: Takes,
}

impl AggregateUDFImpl for Aggregate {
    fn name(&self) -> &str {
        &self.function.signature.name
    }

    fn signature(&self) -> &Takes {
        &self.takes
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(self.function.signature.gives.clone())
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> DfResult<Box<dyn Accumulator>> {
        if args.is_distinct {
            let text = format!(
                "not supported: DISTINCT in {} beside other aggregates; let a subquery take the \
                 distinct values",
                self.name()
            );
            return Err(EngineError::new(Kind::Unsupported, text).into());
        }
        let columns = vec![Vec::new(); self.function.signature.takes.len()];
        Ok(Box::new(Gathered { function: self.function.clone(), columns }))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> DfResult<Vec<FieldRef>> {
        let list = |(at, kind): (usize, &DataType)| {
            let name = format_state_name(args.name, &at.to_string());
            Arc::new(Field::new(name, DataType::new_list(kind.clone(), true), true))
        };
        Ok(self.function.signature.takes.iter().enumerate().map(list).collect())
    }
}

/// The rows of one group so far.
#[derive(Debug)]
struct Gathered {
    function: OwnFunction,
    columns: Vec<Vec<ArrayRef>>,
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
        self.columns.iter().zip(&self.function.signature.takes).map(whole).collect()
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
        let made = self.function.checked(&self.whole()?, 1)?;
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
