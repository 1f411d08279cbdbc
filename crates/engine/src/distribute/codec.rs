//! Plans as bytes: DataFusion's own form, and ours for the nodes that it does not know.

use super::TaskInput;
use super::input::Writers;
use super::range::{RangeStep, Step};
use crate::files::TaskWrite;
use crate::own_functions::OwnFunction;
use crate::{EngineError, Kind, Result};
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::datasource::sink::DataSinkExec;
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF};
use datafusion::physical_expr::{LexOrdering, Partitioning, PhysicalSortExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use datafusion::physical_plan::work_table::WorkTableExec;
use datafusion_proto::bytes::{
    physical_plan_from_bytes_with_extension_codec, physical_plan_to_bytes_with_extension_codec,
};
use datafusion_proto::physical_plan::from_proto::{
    parse_physical_sort_exprs, parse_protobuf_partitioning,
};
use datafusion_proto::physical_plan::to_proto::{
    serialize_partitioning, serialize_physical_sort_exprs,
};
use datafusion_proto::physical_plan::{
    PhysicalExtensionCodec, PhysicalPlanDecodeContext, PhysicalProtoConverterExtension,
};
use datafusion_proto::protobuf;
use parking_lot::Mutex;
use prost::Message;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Nodes of ours, and those that DataFusion's form leaves out.
const INPUT: u8 = 0;
const RECURSIVE: u8 = 1;
const WORK_TABLE: u8 = 2;
const WRITE: u8 = 3;
const SAMPLE: u8 = 4;
const BOUNDS: u8 = 5;
const CUT: u8 = 6;

/// Functions of the caller travel by name; those that a plan calls are gathered here.
#[derive(Debug, Default)]
struct Codec(Mutex<BTreeMap<String, OwnFunction>>);

/// A plan as bytes, and the functions of the caller that it calls.
pub(super) fn encode(plan: Arc<dyn ExecutionPlan>) -> Result<(Vec<u8>, Vec<OwnFunction>)> {
    let codec = Codec::default();
    let bytes = physical_plan_to_bytes_with_extension_codec(plan, &codec);
    let bytes = bytes.map_err(|error| {
        let inner = EngineError::from(error);
        // What follows is the whole plan, in the words of a debugger.
        let text = inner.text.split(". Plan: ").next().unwrap_or_default();
        EngineError::new(Kind::Unsupported, format!("a plan that cannot travel: {text}"))
    })?;
    let functions = std::mem::take(&mut *codec.0.lock()).into_values().collect();
    Ok((bytes.to_vec(), functions))
}

pub(super) fn decode(bytes: &[u8], context: &TaskContext) -> Result<Arc<dyn ExecutionPlan>> {
    Ok(physical_plan_from_bytes_with_extension_codec(bytes, context, &Codec::default())?)
}

type Exprs = protobuf::PhysicalSortExprNodeCollection;

/// A [`TaskInput`] in messages that already have all the fields that it needs: its partitions, its
/// order, its constants.
fn messages(
    node: &TaskInput,
    codec: &Codec,
    converter: &dyn PhysicalProtoConverterExtension,
) -> DfResult<(protobuf::Partitioning, Exprs, Exprs)> {
    let partitioning = serialize_partitioning(&node.properties().partitioning, codec, converter)?;
    let ordering =
        node.properties().eq_properties.output_ordering().map(|ordering| ordering.to_vec());
    let physical_sort_expr_nodes =
        serialize_physical_sort_exprs(ordering.into_iter().flatten(), codec, converter)?;
    let ordering = Exprs { physical_sort_expr_nodes };
    let constants = node.properties().eq_properties.constants();
    let constants = constants.into_iter().map(|one| PhysicalSortExpr::new_default(one.expr));
    let physical_sort_expr_nodes = serialize_physical_sort_exprs(constants, codec, converter)?;
    Ok((partitioning, ordering, Exprs { physical_sort_expr_nodes }))
}

fn malformed(what: &str) -> DataFusionError {
    EngineError::new(Kind::Internal, format!("a fragment is damaged: {what}")).into()
}

impl Codec {
    /// # Errors
    ///
    /// If the plan calls another one of this name: only one would be there where it runs.
    fn note(&self, function: Option<&OwnFunction>) -> DfResult<()> {
        let Some(function) = function else { return Ok(()) };
        let name = &function.signature.name;
        let mut noted = self.0.lock();
        let known = noted.entry(name.clone()).or_insert_with(|| function.clone());
        if known == function {
            return Ok(());
        }
        let text = format!("two functions of the name {name}, one of them in a view");
        Err(EngineError::new(Kind::Unsupported, text).into())
    }
}

impl PhysicalExtensionCodec for Codec {
    fn try_encode_udf(&self, function: &ScalarUDF, _: &mut Vec<u8>) -> DfResult<()> {
        self.note(OwnFunction::of_scalar(function))
    }

    fn try_encode_udaf(&self, function: &AggregateUDF, _: &mut Vec<u8>) -> DfResult<()> {
        self.note(OwnFunction::of_aggregate(function))
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        buf: &mut Vec<u8>,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> DfResult<()> {
        let damaged = |error: prost::EncodeError| malformed(&error.to_string());
        if let Some(query) = node.downcast_ref::<RecursiveQueryExec>() {
            buf.extend([RECURSIVE, u8::from(query.is_distinct())]);
            write_schema(&query.schema(), buf)?;
            buf.extend(query.name().as_bytes());
            return Ok(());
        }
        if let Some(table) = node.downcast_ref::<WorkTableExec>() {
            buf.push(WORK_TABLE);
            write_schema(&table.schema(), buf)?;
            buf.extend(table.name().as_bytes());
            return Ok(());
        }
        if let Some(write) = node.downcast_ref::<TaskWrite>() {
            buf.push(WRITE);
            let sink: Arc<dyn ExecutionPlan> = write.sink().clone();
            buf.extend(physical_plan_to_bytes_with_extension_codec(sink, self)?);
            return Ok(());
        }
        if let Some(range) = node.downcast_ref::<RangeStep>() {
            let (tag, n) = match range.step {
                Step::Sample => (SAMPLE, 0),
                Step::Bounds { n } => (BOUNDS, n),
                Step::Cut => (CUT, 0),
            };
            buf.push(tag);
            buf.extend(n.to_le_bytes());
            let ordering = range.ordering.iter().cloned();
            let physical_sort_expr_nodes =
                serialize_physical_sort_exprs(ordering, self, converter)?;
            let ordering = Exprs { physical_sort_expr_nodes };
            return ordering.encode_length_delimited(buf).map_err(damaged);
        }
        let Some(node) = node.downcast_ref::<TaskInput>() else {
            let text = format!("{} runs in one process only", node.name());
            return Err(EngineError::new(Kind::Unsupported, text).into());
        };
        buf.push(INPUT);
        let (partitioning, ordering, constants) = messages(node, self, converter)?;
        buf.extend((node.slot as u32).to_le_bytes());
        buf.push(u8::from(node.writers == Writers::Each));
        write_schema(&node.schema(), buf)?;
        partitioning.encode_length_delimited(buf).map_err(damaged)?;
        ordering.encode_length_delimited(buf).map_err(damaged)?;
        constants.encode_length_delimited(buf).map_err(damaged)
    }

    fn try_decode(
        &self,
        buf: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        context: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let (tag, rest) = buf.split_first().ok_or_else(|| malformed("a node is empty"))?;
        match (*tag, inputs) {
            (INPUT, _) => self.input(rest, context, converter),
            (RECURSIVE, [fixed, recursive]) => recursive_query(rest, fixed, recursive),
            (WRITE, [input]) => {
                let sink = physical_plan_from_bytes_with_extension_codec(rest, context, self)?;
                let Some(sink) = sink.downcast_ref::<DataSinkExec>() else {
                    return Err(malformed("where rows are written"));
                };
                Ok(Arc::new(TaskWrite::new(input.clone(), Arc::new(sink.clone()))))
            }
            (WORK_TABLE, _) => {
                let mut rest = rest;
                let schema = read_schema(&mut rest)?;
                Ok(Arc::new(WorkTableExec::new(text(rest)?, schema, None)?))
            }
            (SAMPLE | BOUNDS | CUT, [_, ..]) => self.range(*tag, rest, inputs, context, converter),
            _ => Err(malformed("a node of an unknown kind")),
        }
    }
}

fn damaged(error: prost::DecodeError) -> DataFusionError {
    malformed(&error.to_string())
}

fn write_schema(schema: &SchemaRef, buf: &mut Vec<u8>) -> DfResult<()> {
    let schema = protobuf::Schema::try_from(schema.as_ref())
        .map_err(|error| DataFusionError::External(Box::new(error)))?;
    schema.encode_length_delimited(buf).map_err(|error| malformed(&error.to_string()))
}

fn read_schema(buf: &mut &[u8]) -> DfResult<SchemaRef> {
    let schema = protobuf::Schema::decode_length_delimited(buf).map_err(damaged)?;
    let schema: Schema = (&schema).try_into().map_err(|_| malformed("the schema of an input"))?;
    Ok(Arc::new(schema))
}

fn text(bytes: &[u8]) -> DfResult<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| malformed("a name"))
}

fn recursive_query(
    rest: &[u8],
    fixed: &Arc<dyn ExecutionPlan>,
    recursive: &Arc<dyn ExecutionPlan>,
) -> DfResult<Arc<dyn ExecutionPlan>> {
    let (is_distinct, mut rest) =
        rest.split_first().ok_or_else(|| malformed("a recursive query"))?;
    let schema = read_schema(&mut rest)?;
    let name = text(rest)?;
    // Which columns of the growing table a leaf reads is known here, by their names.
    let leaves = |node: Arc<dyn ExecutionPlan>| {
        let Some(leaf) = node.downcast_ref::<WorkTableExec>().filter(|leaf| leaf.name() == name)
        else {
            return Ok(Transformed::no(node));
        };
        let columns = leaf.schema();
        let places = columns.fields().iter().map(|field| schema.index_of(field.name()));
        let places = places.collect::<Result<Vec<usize>, _>>()?;
        let leaf = WorkTableExec::new(name.clone(), schema.clone(), Some(places))?;
        Ok(Transformed::yes(Arc::new(leaf) as Arc<dyn ExecutionPlan>))
    };
    let recursive = recursive.clone().transform_up(leaves)?.data;
    let fixed = fixed.clone();
    let query =
        RecursiveQueryExec::try_new(name, schema.clone(), fixed, recursive, *is_distinct != 0)?;
    Ok(Arc::new(query))
}

impl Codec {
    fn range(
        &self,
        tag: u8,
        buf: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        context: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let Some((n, mut buf)) = buf.split_first_chunk::<4>() else {
            return Err(malformed("a range step is cut short"));
        };
        let ordering = Exprs::decode_length_delimited(&mut buf).map_err(damaged)?;
        let within = PhysicalPlanDecodeContext::new(context, self);
        let nodes = &ordering.physical_sort_expr_nodes;
        let ordering = parse_physical_sort_exprs(nodes, &within, &inputs[0].schema(), converter)?;
        let ordering = LexOrdering::new(ordering).ok_or_else(|| malformed("an order"))?;
        let step = match tag {
            SAMPLE => Step::Sample,
            BOUNDS => Step::Bounds { n: u32::from_le_bytes(*n) },
            _ => Step::Cut,
        };
        Ok(Arc::new(RangeStep::new(step, ordering, inputs.to_vec())?))
    }

    fn input(
        &self,
        buf: &[u8],
        context: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let Some((head, mut buf)) = buf.split_first_chunk::<5>() else {
            return Err(malformed("an input is cut short"));
        };
        let slot = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let schema = read_schema(&mut buf)?;
        let partitioning =
            protobuf::Partitioning::decode_length_delimited(&mut buf).map_err(damaged)?;
        let ordering = Exprs::decode_length_delimited(&mut buf).map_err(damaged)?;
        let constants = Exprs::decode_length_delimited(&mut buf).map_err(damaged)?;
        let within = PhysicalPlanDecodeContext::new(context, self);
        let partitioning: Option<Partitioning> =
            parse_protobuf_partitioning(Some(&partitioning), &within, &schema, converter)?;
        let exprs = |of: &Exprs| {
            parse_physical_sort_exprs(&of.physical_sort_expr_nodes, &within, &schema, converter)
        };
        let (ordering, constants) = (exprs(&ordering)?, exprs(&constants)?);
        let constants = constants.into_iter().map(|one| one.expr).collect();
        let partitioning = partitioning.ok_or_else(|| malformed("the parts of an input"))?;
        let ordering = LexOrdering::new(ordering);
        let input = TaskInput::new(slot, schema, partitioning, ordering, constants)?;
        Ok(Arc::new(if head[4] == 0 { input } else { input.each() }))
    }
}
