//! From an order back to a plan.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::{JoinSide, NullEquality, Result};
use datafusion::logical_expr::JoinType;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::utils::{ColumnIndex, JoinFilter};
use datafusion::physical_plan::joins::{HashJoinExecBuilder, PartitionMode};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};

use super::graph::{Graph, GraphColumn, Link, Predicate, Role, Tables, renumber};
use super::search::Order;

struct Built {
    plan: Arc<dyn ExecutionPlan>,
    tables: Tables,
    columns: Vec<GraphColumn>,
}

struct Builder<'a> {
    graph: &'a Graph,
}

/// The plan that joins the graph's tables in `order` and gives what `original` gave.
pub(super) fn build(
    graph: &Graph,
    order: &Order,
    original: &Arc<dyn ExecutionPlan>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let builder = Builder { graph };
    let built = builder.build(order)?;
    let schema = original.schema();
    let mut exprs = Vec::with_capacity(graph.output.len());
    for (column, field) in graph.output.iter().zip(schema.fields()) {
        let index = position(&built.columns, *column);
        let name = built.plan.schema().field(index).name().clone();
        let expr: Arc<dyn PhysicalExpr> = Arc::new(Column::new(&name, index));
        exprs.push(ProjectionExpr::new(expr, field.name().clone()));
    }
    let same = built.columns == graph.output && built.plan.schema() == schema;
    if same { Ok(built.plan) } else { Ok(Arc::new(ProjectionExec::try_new(exprs, built.plan)?)) }
}

impl Builder<'_> {
    fn build(&self, order: &Order) -> Result<Built> {
        match order {
            Order::Table(table) => {
                let plan = Arc::clone(&self.graph.tables[*table].plan);
                let count = plan.schema().fields().len();
                let columns = (0..count).map(|column| GraphColumn { table: *table, column });
                Ok(Built { plan, tables: 1 << table, columns: columns.collect() })
            }
            Order::Join(build, probe) => self.join(self.build(build)?, self.build(probe)?),
        }
    }

    fn join(&self, left: Built, right: Built) -> Result<Built> {
        let tables = left.tables | right.tables;
        let (join_type, kept) = self.join_type(&left, &right);
        let equal = self.equal(left.tables, right.tables);
        let on = equal.into_iter().map(|(l, r)| (column(&left, l), column(&right, r))).collect();
        let filter = self.filter(&left, &right, tables);
        let needed = self.needed(tables);
        let all: Vec<GraphColumn> = match kept {
            JoinSide::Left => left.columns.clone(),
            JoinSide::Right => right.columns.clone(),
            JoinSide::None => [left.columns.clone(), right.columns.clone()].concat(),
        };
        let projection: Vec<usize> =
            (0..all.len()).filter(|&index| needed.contains(&all[index])).collect();
        let columns = projection.iter().map(|&index| all[index]).collect();
        let whole = projection.len() == all.len();
        let plan = HashJoinExecBuilder::new(left.plan, right.plan, on, join_type)
            .with_filter(filter)
            .with_projection((!whole).then_some(projection))
            // One table is built and shared: probing one that is larger than the caches costs
            // less than sending both sides through a partitioning, and it spills if it must.
            .with_partition_mode(PartitionMode::CollectLeft)
            .with_null_equality(NullEquality::NullEqualsNothing)
            .build_exec()?;
        Ok(Built { plan, tables, columns })
    }

    /// The kind of the join and the side whose columns it keeps (`None`: both).
    fn join_type(&self, left: &Built, right: &Built) -> (JoinType, JoinSide) {
        let role = |built: &Built| match built.tables.count_ones() {
            1 => self.graph.tables[built.tables.trailing_zeros() as usize].role,
            _ => Role::Joined,
        };
        match (role(left), role(right)) {
            (Role::Reducer(true), _) => (JoinType::RightSemi, JoinSide::Right),
            (Role::Reducer(false), _) => (JoinType::RightAnti, JoinSide::Right),
            (_, Role::Reducer(true)) => (JoinType::LeftSemi, JoinSide::Left),
            (_, Role::Reducer(false)) => (JoinType::LeftAnti, JoinSide::Left),
            _ => (JoinType::Inner, JoinSide::None),
        }
    }

    /// Columns that must be equal where `left` and `right` meet. Within each of them the columns
    /// of a key are equal already: one stands for all.
    fn equal(&self, left: Tables, right: Tables) -> Vec<(GraphColumn, GraphColumn)> {
        let keys = self.graph.keys.iter();
        let by_key = keys.filter_map(|key| {
            Some((Graph::key_within(key, left)?, Graph::key_within(key, right)?))
        });
        let has = |tables: Tables, column: GraphColumn| tables & (1 << column.table) != 0;
        let by_link = self.graph.links.iter().filter_map(|&Link { left: l, right: r }| {
            if has(left, l) && has(right, r) {
                return Some((l, r));
            }
            (has(left, r) && has(right, l)).then_some((r, l))
        });
        by_key.chain(by_link).collect()
    }

    /// The conditions that can be decided for the first time where `left` and `right` meet.
    fn filter(&self, left: &Built, right: &Built, tables: Tables) -> Option<JoinFilter> {
        let due = |predicate: &&Predicate| {
            let wanted = predicate.all_tables();
            wanted & !tables == 0 && wanted & !left.tables != 0 && wanted & !right.tables != 0
        };
        let mut columns: Vec<ColumnIndex> = vec![];
        let mut fields = vec![];
        let mut whole: Option<Arc<dyn PhysicalExpr>> = None;
        for predicate in self.graph.predicates.iter().filter(due) {
            let base = columns.len();
            for &wanted in &predicate.columns {
                let (built, side) = match left.tables & (1 << wanted.table) != 0 {
                    true => (left, JoinSide::Left),
                    false => (right, JoinSide::Right),
                };
                let index = position(&built.columns, wanted);
                fields.push(built.plan.schema().field(index).clone());
                columns.push(ColumnIndex { index, side });
            }
            let expr = renumber(&predicate.expr, |index| {
                Column::new(fields[base + index].name(), base + index)
            });
            whole = Some(match whole {
                None => expr,
                Some(first) => conjunction(first, expr),
            });
        }
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        whole.map(|expr| JoinFilter::new(expr, columns, schema))
    }

    /// The columns that the result, or a join above one of `tables`, still asks for.
    fn needed(&self, tables: Tables) -> Vec<GraphColumn> {
        let mut needed = self.graph.output.clone();
        let outside = |column: GraphColumn| tables & (1 << column.table) == 0;
        for key in &self.graph.keys {
            if key.iter().any(|column| outside(*column)) {
                needed.extend(Graph::key_within(key, tables));
            }
        }
        for link in &self.graph.links {
            if outside(link.left) || outside(link.right) {
                needed.extend([link.left, link.right]);
            }
        }
        for predicate in &self.graph.predicates {
            if predicate.all_tables() & !tables != 0 {
                needed.extend(&predicate.columns);
            }
        }
        needed
    }
}

fn conjunction(a: Arc<dyn PhysicalExpr>, b: Arc<dyn PhysicalExpr>) -> Arc<dyn PhysicalExpr> {
    use datafusion::logical_expr::Operator;
    use datafusion::physical_expr::expressions::BinaryExpr;
    Arc::new(BinaryExpr::new(a, Operator::And, b))
}

fn position(columns: &[GraphColumn], wanted: GraphColumn) -> usize {
    let found = columns.iter().position(|column| *column == wanted);
    found.expect("a column that is needed above is kept below")
}

fn column(built: &Built, wanted: GraphColumn) -> Arc<dyn PhysicalExpr> {
    let index = position(&built.columns, wanted);
    Arc::new(Column::new(built.plan.schema().field(index).name(), index))
}
