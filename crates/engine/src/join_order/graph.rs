//! A tree of joins taken apart: the tables, and what must hold between their columns.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{JoinSide, NullEquality};
use datafusion::logical_expr::JoinType;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::projection::ProjectionExec;

use crate::estimate::{Estimate, estimate};

/// A set of tables, one bit each.
pub(super) type Tables = u64;

/// More tables than this are left in the order the query gave: the bits of `Tables` are few.
const MOST_TABLES: usize = 48;

/// A column of one of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct GraphColumn {
    pub table: usize,
    pub column: usize,
}

/// What a table does in the join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Its columns are part of the result.
    Joined,
    /// It keeps the rows that have a match in it (`true`) or have none (`false`).
    Reducer(bool),
}

pub(super) struct Table {
    pub plan: Arc<dyn ExecutionPlan>,
    pub estimate: Estimate,
    pub role: Role,
}

/// Two columns that must be equal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub left: GraphColumn,
    pub right: GraphColumn,
}

/// A condition between tables that is not an equality of columns.
pub(super) struct Predicate {
    /// Its columns are numbered by their place in `columns`.
    pub expr: Arc<dyn PhysicalExpr>,
    pub columns: Vec<GraphColumn>,
    /// The reducer whose matches it decides, if it belongs to a semi or anti join.
    pub reducer: Option<usize>,
}

impl Predicate {
    pub(super) fn tables(&self) -> Tables {
        self.columns.iter().fold(0, |tables, column| tables | (1 << column.table))
    }

    /// The tables that must meet before it can be decided.
    pub(super) fn all_tables(&self) -> Tables {
        self.tables() | self.reducer.map_or(0, |reducer| 1 << reducer)
    }
}

/// The tables and conditions of a tree of joins.
pub(super) struct Graph {
    pub tables: Vec<Table>,
    /// Columns of tables, one of each, that are all equal to one another: any two of the tables
    /// can be joined by them, also those that the query does not join with each other.
    pub keys: Vec<Vec<GraphColumn>>,
    /// What must be equal besides.
    pub links: Vec<Link>,
    pub predicates: Vec<Predicate>,
    /// The columns of the tree's result.
    pub output: Vec<GraphColumn>,
}

impl Graph {
    /// Takes `plan` apart; `None` where its top is not a join this rule can move.
    pub(super) fn of(plan: &Arc<dyn ExecutionPlan>) -> Option<Self> {
        let (tables, keys, links) = (vec![], vec![], vec![]);
        let mut graph = Self { tables, keys, links, predicates: vec![], output: vec![] };
        if !leads_to_join(plan) {
            return None;
        }
        graph.output = graph.take_apart(plan);
        graph.find_keys();
        // A condition on one side alone has no join to wait for; the planner has pushed it down
        // already, or had a reason not to.
        let spans = |predicate: &Predicate| predicate.all_tables().count_ones() > 1;
        let movable = graph.tables.len() <= MOST_TABLES && graph.predicates.iter().all(spans);
        movable.then_some(graph)
    }

    /// Makes keys of the links that chain columns of different tables.
    fn find_keys(&mut self) {
        let is_joined = |column: GraphColumn| self.tables[column.table].role == Role::Joined;
        let joined = self.links.iter().filter(|link| is_joined(link.left) && is_joined(link.right));
        let kind = |column: &GraphColumn| {
            let schema = self.tables[column.table].plan.schema();
            schema.field(column.column).data_type().clone()
        };
        let is_key = |class: &Vec<GraphColumn>| {
            let mut tables: Vec<usize> = class.iter().map(|column| column.table).collect();
            tables.sort_unstable();
            tables.dedup();
            tables.len() == class.len() && class.iter().all(|c| kind(c) == kind(&class[0]))
        };
        self.keys = classes(Vec::new(), joined).into_iter().filter(is_key).collect();
        let keys = &self.keys;
        let is_of_key = |link: &Link| {
            keys.iter().any(|key| key.contains(&link.left) && key.contains(&link.right))
        };
        self.links.retain(|link| !is_of_key(link));
    }

    /// The column of a key that stands for it among `tables`.
    pub(super) fn key_within(key: &[GraphColumn], tables: Tables) -> Option<GraphColumn> {
        key.iter().find(|column| tables & (1 << column.table) != 0).copied()
    }

    /// The tables a reducer needs before it can be joined.
    pub(super) fn required(&self, reducer: usize) -> Tables {
        let links = self.links.iter().filter(|link| link.right.table == reducer);
        let tables = links.fold(0, |tables, link| tables | (1 << link.left.table));
        let predicates = self.predicates.iter().filter(|p| p.reducer == Some(reducer));
        predicates.fold(tables, |tables, p| tables | p.tables()) & !(1 << reducer)
    }

    fn add_table(&mut self, plan: &Arc<dyn ExecutionPlan>, role: Role) -> Vec<GraphColumn> {
        let table = self.tables.len();
        self.tables.push(Table { plan: Arc::clone(plan), estimate: estimate(plan), role });
        (0..plan.schema().fields().len()).map(|column| GraphColumn { table, column }).collect()
    }

    fn take_apart(&mut self, plan: &Arc<dyn ExecutionPlan>) -> Vec<GraphColumn> {
        if let Some(projection) = plan.downcast_ref::<ProjectionExec>()
            && leads_to_join(projection.input())
            && let Some(indices) = plain_columns(projection)
        {
            let input = self.take_apart(projection.input());
            return indices.into_iter().map(|index| input[index]).collect();
        }
        match plan.downcast_ref::<HashJoinExec>() {
            Some(join) if is_movable(join) => self.take_join_apart(join),
            _ => self.add_table(plan, Role::Joined),
        }
    }

    fn take_join_apart(&mut self, join: &HashJoinExec) -> Vec<GraphColumn> {
        let (left, right) = match join.join_type() {
            JoinType::Inner => (self.take_apart(join.left()), self.take_apart(join.right())),
            JoinType::LeftSemi | JoinType::LeftAnti => {
                let keeps = *join.join_type() == JoinType::LeftSemi;
                let left = self.take_apart(join.left());
                (left, self.add_table(join.right(), Role::Reducer(keeps)))
            }
            _ => {
                let keeps = *join.join_type() == JoinType::RightSemi;
                let right = self.take_apart(join.right());
                (self.add_table(join.left(), Role::Reducer(keeps)), right)
            }
        };
        let reducer = match join.join_type() {
            JoinType::Inner => None,
            _ => Some(self.tables.len() - 1),
        };
        for (l, r) in join.on() {
            let l = left[column_of(l).expect("a movable join is on columns")];
            let r = right[column_of(r).expect("a movable join is on columns")];
            let swap = reducer == Some(l.table);
            let (left, right) = if swap { (r, l) } else { (l, r) };
            self.links.push(Link { left, right });
        }
        if let Some(filter) = join.filter() {
            self.predicates.push(predicate(filter, &left, &right, reducer));
        }
        let all = match join.join_type() {
            JoinType::Inner => [left, right].concat(),
            JoinType::LeftSemi | JoinType::LeftAnti => left,
            _ => right,
        };
        match &join.projection {
            Some(indices) => indices.iter().map(|&index| all[index]).collect(),
            None => all,
        }
    }
}

/// The columns that links make equal, as classes; `known` ones grow.
pub(super) fn classes<'a>(
    known: Vec<Vec<GraphColumn>>,
    links: impl Iterator<Item = &'a Link>,
) -> Vec<Vec<GraphColumn>> {
    let mut classes = known;
    for link in links {
        let find = |column| classes.iter().position(|class| class.contains(&column));
        match (find(link.left), find(link.right)) {
            (Some(a), Some(b)) if a != b => {
                let moved = std::mem::take(&mut classes[b]);
                classes[a].extend(moved);
                classes.retain(|class| !class.is_empty());
            }
            (Some(_), Some(_)) => {}
            (Some(a), None) => classes[a].push(link.right),
            (None, Some(b)) => classes[b].push(link.left),
            (None, None) => classes.push(vec![link.left, link.right]),
        }
    }
    classes
}

fn predicate(
    filter: &JoinFilter,
    left: &[GraphColumn],
    right: &[GraphColumn],
    reducer: Option<usize>,
) -> Predicate {
    let side = |index: &datafusion::physical_plan::joins::utils::ColumnIndex| match index.side {
        JoinSide::Left => left[index.index],
        _ => right[index.index],
    };
    let columns = filter.column_indices().iter().map(side).collect();
    Predicate { expr: Arc::clone(filter.expression()), columns, reducer }
}

/// Whether `join` means the same wherever in the tree it stands.
fn is_movable(join: &HashJoinExec) -> bool {
    let kind = matches!(
        join.join_type(),
        JoinType::Inner
            | JoinType::LeftSemi
            | JoinType::RightSemi
            | JoinType::LeftAnti
            | JoinType::RightAnti
    );
    let mark =
        |index: &datafusion::physical_plan::joins::utils::ColumnIndex| index.side == JoinSide::None;
    kind && !join.null_aware
        && join.null_equality() == NullEquality::NullEqualsNothing
        && join.fetch().is_none()
        && !join.filter().is_some_and(|filter| filter.column_indices().iter().any(mark))
        && join.on().iter().all(|(l, r)| column_of(l).is_some() && column_of(r).is_some())
}

pub(super) fn leads_to_join(plan: &Arc<dyn ExecutionPlan>) -> bool {
    if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        return leads_to_join(projection.input());
    }
    plan.downcast_ref::<HashJoinExec>().is_some_and(is_movable)
}

fn plain_columns(projection: &ProjectionExec) -> Option<Vec<usize>> {
    projection.expr().iter().map(|item| column_of(&item.expr)).collect()
}

pub(super) fn column_of(expr: &Arc<dyn PhysicalExpr>) -> Option<usize> {
    expr.downcast_ref::<Column>().map(Column::index)
}

/// `expr` with its columns renumbered (and renamed) by `to`.
pub(super) fn renumber(
    expr: &Arc<dyn PhysicalExpr>,
    to: impl Fn(usize) -> Column,
) -> Arc<dyn PhysicalExpr> {
    let rewritten = Arc::clone(expr).transform_up(|node| {
        Ok(match column_of(&node) {
            Some(index) => Transformed::yes(Arc::new(to(index)) as Arc<dyn PhysicalExpr>),
            None => Transformed::no(node),
        })
    });
    rewritten.expect("renumbering never fails").data
}
