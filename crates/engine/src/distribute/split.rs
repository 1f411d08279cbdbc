//! Cuts a physical plan where rows must change places.

use super::TaskInput;
use super::given::{Given, MemoryTables};
use super::joins::gives_unmatched_left;
use super::range::{self, RangeStep, Step};
use crate::files::TaskWrite;
use crate::{EngineError, Kind, Result};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{AcrossPartitions, LexOrdering, Partitioning, PhysicalExpr};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, NestedLoopJoinExec, PartitionMode, SymmetricHashJoinExec,
};
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::memory::LazyMemoryExec;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use std::sync::Arc;

type Plan = Arc<dyn ExecutionPlan>;

/// How a task reads what another stage wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// Task `first + i` reads part `i` of every writer. Tasks of other branches of a union do not
    /// look at what they are given.
    Part { first: u32 },
    /// Every task reads the first part of every writer.
    All,
    /// Task `i` reads part `1 + i`, which holds what the writer of its number wrote.
    Own,
}

impl Reads {
    /// The part that a task reads of each writer's `n_parts`.
    pub fn part_of(self, task: u32, n_parts: u32) -> u32 {
        match self {
            Reads::All => 0,
            Reads::Own => 1 + task,
            Reads::Part { first } => {
                task.checked_sub(first).filter(|part| *part < n_parts).unwrap_or(0)
            }
        }
    }
}

/// Tasks that run the partitions of one plan.
#[derive(Clone, Debug)]
pub struct Stage {
    /// With a [`RepartitionExec`] on top where rows are shared out by hash, a [`RangeStep`] where
    /// they are by range.
    pub plan: Plan,
    pub n_tasks: u32,
    /// Parts that each task writes.
    pub n_parts: u32,
    /// Stages before it, with how each is read; a [`TaskInput`] names one by its place here.
    pub inputs: Vec<(usize, Reads)>,
    /// A table in memory: nothing runs, and what it holds is read as if tasks had written it.
    pub given: Option<Given>,
}

/// Cuts a plan into stages, each after those that it reads; the last one makes the result. Its
/// rows are made by several tasks where an order is asked for of rows for which `is_ranged`.
///
/// # Errors
///
/// [`Kind::Unsupported`] for plans that only one process can run.
pub(crate) fn split(
    plan: Plan,
    tables: MemoryTables,
    is_ranged: &dyn Fn(&Plan) -> bool,
) -> Result<Vec<Stage>> {
    let mut splitter = Splitter { stages: Vec::new(), tables };
    let last = match merge_on_top(&plan) {
        Some(merge) if is_ranged(merge.input()) => splitter.ranged(&plan, merge)?,
        _ => splitter.stage(plan)?,
    };
    debug_assert_eq!(last + 1, splitter.stages.len());
    Ok(splitter.stages)
}

struct Splitter {
    stages: Vec<Stage>,
    tables: MemoryTables,
}

impl Splitter {
    /// Makes a stage whose tasks write everything as one part.
    fn stage(&mut self, plan: Plan) -> Result<usize> {
        let mut inputs = Vec::new();
        let plan = self.cut(plan, &mut inputs)?;
        let n_tasks = n_partitions(&plan);
        self.stages.push(Stage { plan, n_tasks, n_parts: 1, inputs, given: None });
        Ok(self.stages.len() - 1)
    }

    /// A stage that gives a result in order by several tasks, a range of it each.
    fn ranged(&mut self, plan: &Plan, merge: &SortPreservingMergeExec) -> Result<usize> {
        let (input, ordering) = (merge.input().clone(), merge.expr().clone());
        let schema = input.schema();
        let (constants, known_order) = (constants(&input), self::ordering(&input));
        let (key_schema, key_order) = range::keys_of(&ordering, &schema)?;
        let mut inputs = Vec::new();
        let runs = self.cut(input, &mut inputs)?;
        let n = n_partitions(&runs);
        let in_parts = |n: u32| Partitioning::UnknownPartitioning(n as usize);

        let sample = RangeStep::new(Step::Sample, ordering.clone(), vec![runs])?;
        let sampled = self.push(sample, n, 1 + n, inputs);

        let samples = TaskInput::new(0, key_schema.clone(), in_parts(1), None, Vec::new())?;
        let bounds = RangeStep::new(Step::Bounds { n }, key_order, vec![Arc::new(samples)])?;
        let bounds = self.push(bounds, 1, 1, vec![(sampled, Reads::All)]);

        let rows = TaskInput::new(0, schema.clone(), in_parts(n), None, Vec::new())?;
        let starts = TaskInput::new(1, key_schema, in_parts(1), None, Vec::new())?;
        let cut = RangeStep::new(Step::Cut, ordering, vec![Arc::new(rows), Arc::new(starts)])?;
        let cut = self.push(cut, n, n, vec![(sampled, Reads::Own), (bounds, Reads::All)]);

        let read = TaskInput::new(0, schema, in_parts(n), known_order, constants)?;
        let plan = with_merged(plan, Arc::new(read.each()))?;
        let inputs = vec![(cut, Reads::Part { first: 0 })];
        self.stages.push(Stage { plan, n_tasks: n, n_parts: 1, inputs, given: None });
        Ok(self.stages.len() - 1)
    }

    fn push(
        &mut self,
        step: RangeStep,
        n_tasks: u32,
        n_parts: u32,
        inputs: Vec<(usize, Reads)>,
    ) -> usize {
        self.stages.push(Stage { plan: Arc::new(step), n_tasks, n_parts, inputs, given: None });
        self.stages.len() - 1
    }

    /// The plan of the stage that `inputs` belong to, with what is in other stages cut off.
    fn cut(&mut self, plan: Plan, inputs: &mut Vec<(usize, Reads)>) -> Result<Plan> {
        if let Some(repartition) = plan.downcast_ref::<RepartitionExec>() {
            return self.repartition(repartition, inputs);
        }
        if let Some(coalesce) = plan.downcast_ref::<CoalescePartitionsExec>() {
            return self.coalesce(coalesce, inputs);
        }
        if let Some(merge) = plan.downcast_ref::<SortPreservingMergeExec>() {
            let input = merge.input();
            if n_partitions(input) == 1 {
                return self.children(plan, inputs);
            }
            let read = self.read_each(input.clone(), inputs)?;
            return Ok(replace_children_if_necessary(plan.clone(), vec![read])?);
        }
        if let Some((given, columns)) = self.tables.given(plan.as_ref()) {
            return self.given(plan, given, columns, inputs);
        }
        if let Some(join) = plan.downcast_ref::<HashJoinExec>()
            && *join.partition_mode() != PartitionMode::Partitioned
        {
            return self.collected_join(join, inputs);
        }
        if let Some(join) = plan.downcast_ref::<CrossJoinExec>() {
            let left = self.read_all(join.left().clone(), inputs)?;
            let right = self.cut(join.right().clone(), inputs)?;
            return Ok(replace_children_if_necessary(plan.clone(), vec![left, right])?);
        }
        if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>() {
            let left = self.read_all(join.left().clone(), inputs)?;
            let right = match gives_unmatched_left(*join.join_type()) {
                true => self.single(join.right().clone(), inputs)?,
                false => self.cut(join.right().clone(), inputs)?,
            };
            return Ok(replace_children_if_necessary(plan.clone(), vec![left, right])?);
        }
        if plan.downcast_ref::<UnionExec>().is_some() {
            return self.union(plan, inputs);
        }
        if plan.downcast_ref::<RecursiveQueryExec>().is_some() {
            // Its parts hand each other tables in memory: it stays in one task, as it is.
            return Ok(plan);
        }
        if plan.downcast_ref::<LazyMemoryExec>().is_some() && plan.schema().fields().is_empty() {
            // The form in which plans travel leaves out that its column is not read.
            return Err(EngineError::new(Kind::Unsupported, "a series of which no column is read"));
        }
        if plan.downcast_ref::<SymmetricHashJoinExec>().is_some() {
            return Err(EngineError::new(Kind::Unsupported, "joins of endless streams"));
        }
        self.children(plan, inputs)
    }

    fn given(
        &mut self,
        plan: Plan,
        given: Given,
        columns: Option<Vec<usize>>,
        inputs: &mut Vec<(usize, Reads)>,
    ) -> Result<Plan> {
        let (n_parts, schema) = (given.n_parts(), given.schema());
        let fetch = plan.fetch();
        self.stages.push(Stage {
            plan,
            n_tasks: 0,
            n_parts,
            inputs: Vec::new(),
            given: Some(given),
        });
        let slot = inputs.len();
        inputs.push((self.stages.len() - 1, Reads::Part { first: 0 }));
        let partitioning = Partitioning::UnknownPartitioning(n_parts as usize);
        let all = TaskInput::new(slot, schema.clone(), partitioning, None, Vec::new())?;
        let mut read: Plan = Arc::new(all);
        if let Some(columns) = columns {
            let column = |at: usize| {
                let name = schema.field(at).name();
                ProjectionExpr::new(Arc::new(Column::new(name, at)), name.clone())
            };
            let columns: Vec<ProjectionExpr> = columns.into_iter().map(column).collect();
            read = Arc::new(ProjectionExec::try_new(columns, read)?);
        }
        Ok(match fetch {
            Some(fetch) => Arc::new(LocalLimitExec::new(read, fetch)),
            None => read,
        })
    }

    fn children(&mut self, plan: Plan, inputs: &mut Vec<(usize, Reads)>) -> Result<Plan> {
        let children: Vec<Plan> = plan.children().into_iter().cloned().collect();
        let cut: Result<Vec<Plan>> =
            children.into_iter().map(|child| self.cut(child, inputs)).collect();
        Ok(replace_children_if_necessary(plan, cut?)?)
    }

    /// The partitions of a union are those of its branches, one branch after the other.
    fn union(&mut self, plan: Plan, inputs: &mut Vec<(usize, Reads)>) -> Result<Plan> {
        let branches: Vec<Plan> = plan.children().into_iter().cloned().collect();
        let mut cut = Vec::with_capacity(branches.len());
        let mut before = 0;
        for branch in branches {
            let n_inputs = inputs.len();
            let branch = self.cut(branch, inputs)?;
            for (_, reads) in &mut inputs[n_inputs..] {
                if let Reads::Part { first } = reads {
                    *first += before;
                }
            }
            before += n_partitions(&branch);
            cut.push(branch);
        }
        Ok(replace_children_if_necessary(plan, cut)?)
    }

    fn repartition(
        &mut self,
        node: &RepartitionExec,
        inputs: &mut Vec<(usize, Reads)>,
    ) -> Result<Plan> {
        let Partitioning::Hash(exprs, n) = node.partitioning() else {
            // Rows that are only spread have no need to move: tasks are spread already.
            return self.cut(node.input().clone(), inputs);
        };
        if node.preserve_order() {
            return Err(EngineError::new(Kind::Unsupported, "an exchange that merges by order"));
        }
        self.hash(node.input().clone(), exprs.clone(), *n, inputs)
    }

    fn hash(
        &mut self,
        input: Plan,
        exprs: Vec<Arc<dyn PhysicalExpr>>,
        n: usize,
        inputs: &mut Vec<(usize, Reads)>,
    ) -> Result<Plan> {
        let (schema, constants) = (input.schema(), constants(&input));
        let mut own_inputs = Vec::new();
        let cut = self.cut(input, &mut own_inputs)?;
        let n_tasks = n_partitions(&cut);
        let partitioning = Partitioning::Hash(exprs, n);
        let plan: Plan = Arc::new(RepartitionExec::try_new(cut, partitioning.clone())?);
        let n_parts = n as u32;
        self.stages.push(Stage { plan, n_tasks, n_parts, inputs: own_inputs, given: None });
        let slot = inputs.len();
        inputs.push((self.stages.len() - 1, Reads::Part { first: 0 }));
        Ok(Arc::new(TaskInput::new(slot, schema, partitioning, None, constants)?))
    }

    fn coalesce(
        &mut self,
        node: &CoalescePartitionsExec,
        inputs: &mut Vec<(usize, Reads)>,
    ) -> Result<Plan> {
        let input = node.input().clone();
        let Some(fetch) = node.fetch() else { return self.read_all(input, inputs) };
        // No task needs to write more rows than are wanted of all.
        let limited: Plan = Arc::new(LocalLimitExec::new(input, fetch));
        let read = self.read_all(limited, inputs)?;
        Ok(Arc::new(GlobalLimitExec::new(read, 0, Some(fetch))))
    }

    /// Everything another stage writes, as one partition, in the order of its tasks.
    fn read_all(&mut self, input: Plan, inputs: &mut Vec<(usize, Reads)>) -> Result<Plan> {
        // What is collected anyway need not be collected in a stage of its own.
        if let Some(coalesce) = input.downcast_ref::<CoalescePartitionsExec>() {
            return self.coalesce(coalesce, inputs);
        }
        let (schema, constants) = (input.schema(), constants(&input));
        let ordering = (n_partitions(&input) == 1).then(|| ordering(&input)).flatten();
        let stage = self.stage(input)?;
        let slot = inputs.len();
        inputs.push((stage, Reads::All));
        let partitioning = Partitioning::UnknownPartitioning(1);
        Ok(Arc::new(TaskInput::new(slot, schema, partitioning, ordering, constants)?))
    }

    /// Everything another stage writes, each of its tasks as a partition of its own.
    fn read_each(&mut self, input: Plan, inputs: &mut Vec<(usize, Reads)>) -> Result<Plan> {
        let (schema, constants) = (input.schema(), constants(&input));
        let ordering = ordering(&input);
        let stage = self.stage(input)?;
        let n = self.stages[stage].n_tasks as usize;
        let slot = inputs.len();
        inputs.push((stage, Reads::All));
        let partitioning = Partitioning::UnknownPartitioning(n);
        let read = TaskInput::new(slot, schema, partitioning, ordering, constants)?;
        Ok(Arc::new(read.each()))
    }

    /// A plan with one partition, whatever it has.
    fn single(&mut self, plan: Plan, inputs: &mut Vec<(usize, Reads)>) -> Result<Plan> {
        match n_partitions(&plan) {
            1 => self.cut(plan, inputs),
            _ => self.read_all(plan, inputs),
        }
    }

    /// A join whose left side is collected for all tasks of the right side.
    fn collected_join(
        &mut self,
        join: &HashJoinExec,
        inputs: &mut Vec<(usize, Reads)>,
    ) -> Result<Plan> {
        let left = self.read_all(join.left().clone(), inputs)?;
        let right = match gives_unmatched_left(*join.join_type()) {
            // Whether anything is missing on the right, only one who sees all of it knows.
            true => self.single(join.right().clone(), inputs)?,
            false => self.cut(join.right().clone(), inputs)?,
        };
        let join = join.builder().with_partition_mode(PartitionMode::CollectLeft);
        Ok(join.with_new_children(vec![left, right])?.recompute_properties().build_exec()?)
    }
}

/// The merge of sorted partitions that gives a plan's rows their order, with nothing above it but
/// what handles each row for itself.
fn merge_on_top(plan: &Plan) -> Option<&SortPreservingMergeExec> {
    if let Some(merge) = plan.downcast_ref::<SortPreservingMergeExec>() {
        let is_merge = merge.fetch().is_none() && n_partitions(merge.input()) > 1;
        return is_merge.then_some(merge);
    }
    let passes_on = plan.downcast_ref::<ProjectionExec>().is_some()
        || plan.downcast_ref::<TaskWrite>().is_some();
    match plan.children().as_slice() {
        [below] if passes_on => merge_on_top(below),
        _ => None,
    }
}

/// The plan, its merge on top reading `runs`.
fn with_merged(plan: &Plan, runs: Plan) -> Result<Plan> {
    let below = match plan.downcast_ref::<SortPreservingMergeExec>() {
        Some(_) => runs,
        None => with_merged(plan.children()[0], runs)?,
    };
    Ok(replace_children_if_necessary(plan.clone(), vec![below])?)
}

fn n_partitions(plan: &Plan) -> u32 {
    plan.output_partitioning().partition_count() as u32
}

fn ordering(plan: &Plan) -> Option<LexOrdering> {
    plan.output_ordering().cloned()
}

/// Columns that have one value in all rows: operators above lean on it where they want an order.
fn constants(plan: &Plan) -> Vec<Arc<dyn PhysicalExpr>> {
    let known = plan.equivalence_properties().constants();
    let uniform = known
        .into_iter()
        .filter(|known| matches!(known.across_partitions, AcrossPartitions::Uniform(_)));
    uniform.map(|known| known.expr).collect()
}
