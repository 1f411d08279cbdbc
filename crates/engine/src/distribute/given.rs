//! Tables in memory: brought to workers once, and read there like what tasks write.

use super::bytes::Encoded;
use super::parts::Parts;
use crate::Result;
use datafusion::arrow::array::{Array, ArrayRef, RecordBatch};
use datafusion::arrow::buffer::Buffer;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{MemTable, TableProvider};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use std::collections::HashMap;
use std::sync::{Arc, Weak};

/// Tables below this size travel within the plan.
const SMALL_NBYTES: usize = 256 << 10;

/// Where the first values of a column lie, and how many there are: never the same for two columns
/// that live at the same time and differ.
type Place = (usize, usize);

/// A table of the planning process, by partitions.
#[derive(Clone, Debug)]
pub struct Given {
    /// Of the catalog; gone when it was dropped or replaced.
    pub table: Weak<dyn TableProvider>,
    partitions: Vec<Vec<RecordBatch>>,
    schema: SchemaRef,
}

impl Given {
    pub fn n_parts(&self) -> u32 {
        self.partitions.len() as u32
    }

    pub fn nbytes(&self) -> u64 {
        let batches = self.partitions.iter().flatten();
        batches.map(|batch| batch.get_array_memory_size() as u64).sum()
    }

    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Equal for equal partitions of equal batches, as long as one of them is kept.
    pub fn identity(&self) -> Vec<Vec<Place>> {
        let places = |batch: &RecordBatch| {
            batch.columns().iter().map(|column| place(column)).collect::<Vec<_>>()
        };
        let of_partition = |part: &Vec<RecordBatch>| part.iter().flat_map(places).collect();
        self.partitions.iter().map(of_partition).collect()
    }

    /// For each partition what a task would have written whose rows all go to its part.
    ///
    /// # Errors
    ///
    /// If a column cannot be written.
    pub fn written(&self) -> Result<Vec<Parts>> {
        let n = self.partitions.len();
        let written = |(at, batches): (usize, &Vec<RecordBatch>)| {
            let mut encoded = Encoded::new(&self.schema)?;
            batches.iter().try_for_each(|batch| encoded.push(batch))?;
            encoded.finish()?;
            let mut parts: Vec<Vec<Buffer>> = vec![Vec::new(); n];
            parts[at] = encoded.buffers;
            Ok(Parts(parts))
        };
        self.partitions.iter().enumerate().map(written).collect()
    }
}

fn place(column: &ArrayRef) -> Place {
    let data = column.to_data();
    let start = data.buffers().first().map_or(0, |buffer| buffer.as_ptr() as usize);
    (start + data.offset(), column.len())
}

/// Where the memory of a column begins, whatever slice of it this is.
fn memory(column: &ArrayRef) -> Option<usize> {
    column.to_data().buffers().first().map(|buffer| buffer.data_ptr().as_ptr() as usize)
}

/// The tables in memory that a statement names.
#[derive(Default)]
pub(crate) struct MemoryTables(HashMap<usize, Weak<dyn TableProvider>>);

impl MemoryTables {
    pub fn of(plan: &LogicalPlan) -> Result<MemoryTables> {
        let mut found = HashMap::new();
        plan.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node
                && let Ok(table) = source_as_provider(&scan.source)
                && let Some(memory) = table.downcast_ref::<MemTable>()
            {
                for partition in memory.batches.iter().filter_map(|part| part.try_read().ok()) {
                    let first = partition.iter().flat_map(RecordBatch::columns);
                    let places = first.filter_map(self::memory);
                    found.extend(places.map(|place| (place, Arc::downgrade(&table))));
                }
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(MemoryTables(found))
    }

    /// A leaf over one of them, and which of its columns are read; none for what is better left in
    /// the plan.
    pub fn given(&self, plan: &dyn ExecutionPlan) -> Option<(Given, Option<Vec<usize>>)> {
        let scan = plan.downcast_ref::<DataSourceExec>()?;
        let memory = scan.data_source().downcast_ref::<MemorySourceConfig>()?;
        let batches = memory.partitions().iter().flatten();
        let nbytes: usize = batches.clone().map(RecordBatch::get_array_memory_size).sum();
        if nbytes < SMALL_NBYTES || !memory.sort_information().is_empty() {
            return None;
        }
        let mut columns = batches.flat_map(RecordBatch::columns);
        let table = columns.find_map(|column| self.0.get(&self::memory(column)?))?;
        let partitions = memory.partitions().to_vec();
        let given = Given { table: table.clone(), partitions, schema: memory.original_schema() };
        Some((given, memory.projection().clone()))
    }
}
