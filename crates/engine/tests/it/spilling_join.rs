//! The join that spills against the join it stands for, on random rows.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::pretty::pretty_format_batches;
use datafusion::common::{JoinSide, JoinType, NullEquality, Result};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, Column};
use datafusion::physical_plan::joins::utils::{ColumnIndex, JoinFilter};
use datafusion::physical_plan::joins::{HashJoinExec, HashJoinExecBuilder, PartitionMode};
use datafusion::physical_plan::{ExecutionPlan, collect};
use rasker_engine::join::SpillingHashJoinExec;

/// A small generator of numbers, so that a failing seed can be run again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 11) % limit
    }
}

fn schema(side: &str) -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new(format!("{side}_int"), DataType::Int64, true),
        Field::new(format!("{side}_text"), DataType::Utf8View, true),
        Field::new(format!("{side}_float"), DataType::Float64, true),
        Field::new(format!("{side}_payload"), DataType::Utf8, true),
    ]))
}

/// Rows with few distinct keys, with nulls, NaN, -0.0 and batches without rows.
fn rows(random: &mut Random, side: &str, count: u64) -> Vec<RecordBatch> {
    let mut batches = vec![];
    let mut left = count;
    while left > 0 {
        let size = random.below(300).min(left);
        left -= size.max(1).min(left);
        let mut ints = vec![];
        let mut texts = vec![];
        let mut floats = vec![];
        let mut payloads = vec![];
        for _ in 0..size {
            let null = random.below(10) == 0;
            ints.push((!null).then(|| random.below(60) as i64 - 5));
            let text = format!("a text longer than a view holds {}", random.below(40));
            texts.push((random.below(12) != 0).then_some(text));
            floats.push(match random.below(6) {
                0 => None,
                1 => Some(f64::NAN),
                2 => Some(-0.0),
                3 => Some(0.0),
                _ => Some(random.below(4) as f64),
            });
            payloads.push(Some(format!("{}", random.below(1000))));
        }
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(ints)),
            Arc::new(StringViewArray::from(texts)),
            Arc::new(Float64Array::from(floats)),
            Arc::new(StringArray::from(payloads)),
        ];
        batches.push(RecordBatch::try_new(schema(side), columns).expect("columns fit the schema"));
    }
    batches
}

fn source(side: &str, partitions: &[Vec<RecordBatch>]) -> Arc<dyn ExecutionPlan> {
    MemorySourceConfig::try_new_exec(partitions, schema(side), None).expect("a source")
}

struct Case {
    kind: JoinType,
    keys: Vec<usize>,
    nulls: NullEquality,
    filtered: bool,
}

fn join(case: &Case, left: &[RecordBatch], right: &[Vec<RecordBatch>]) -> Result<HashJoinExec> {
    let left = source("l", &[left.to_vec()]);
    let right = source("r", right);
    let column = |side: &SchemaRef, index: usize| {
        Arc::new(Column::new(side.field(index).name(), index)) as _
    };
    let on = case
        .keys
        .iter()
        .map(|&key| (column(&left.schema(), key), column(&right.schema(), key)))
        .collect();
    let filter = case.filtered.then(|| {
        let expr = BinaryExpr::new(
            Arc::new(Column::new("l", 0)),
            Operator::Lt,
            Arc::new(Column::new("r", 1)),
        );
        let columns = vec![
            ColumnIndex { index: 3, side: JoinSide::Left },
            ColumnIndex { index: 3, side: JoinSide::Right },
        ];
        let fields =
            vec![Field::new("l", DataType::Utf8, true), Field::new("r", DataType::Utf8, true)];
        JoinFilter::new(Arc::new(expr), columns, Arc::new(Schema::new(fields)))
    });
    HashJoinExecBuilder::new(left, right, on, case.kind)
        .with_filter(filter)
        .with_null_equality(case.nulls)
        .with_partition_mode(PartitionMode::CollectLeft)
        .build()
}

fn context(memory: usize) -> Arc<TaskContext> {
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(GreedyMemoryPool::new(memory)))
        .build_arc()
        .expect("a runtime");
    Arc::new(TaskContext::default().with_runtime(runtime))
}

async fn answer(plan: Arc<dyn ExecutionPlan>, context: Arc<TaskContext>) -> Result<Vec<String>> {
    let batches = collect(plan, context).await?;
    let text = pretty_format_batches(&batches)?.to_string();
    let mut lines: Vec<String> = text.lines().skip(3).map(str::to_owned).collect();
    lines.sort();
    Ok(lines)
}

const KINDS: [JoinType; 10] = [
    JoinType::Inner,
    JoinType::Left,
    JoinType::Right,
    JoinType::Full,
    JoinType::LeftSemi,
    JoinType::RightSemi,
    JoinType::LeftAnti,
    JoinType::RightAnti,
    JoinType::LeftMark,
    JoinType::RightMark,
];

#[test]
fn a_spilling_join_gives_the_rows_of_the_join_it_stands_for() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build()?;
    runtime.block_on(compare_random_joins())
}

async fn compare_random_joins() -> Result<()> {
    let mut spilled = 0;
    for seed in 1..=40u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let kind = KINDS[seed as usize % KINDS.len()];
        let keys = [vec![0], vec![1], vec![0, 1], vec![2], vec![0, 2]];
        let case = Case {
            kind,
            keys: keys[random.below(5) as usize].clone(),
            nulls: match random.below(2) {
                0 => NullEquality::NullEqualsNothing,
                _ => NullEquality::NullEqualsNull,
            },
            filtered: random.below(2) == 0,
        };
        let (build_rows, probe_rows) = (random.below(1500), random.below(600));
        let left = rows(&mut random, "l", build_rows);
        let right = [rows(&mut random, "r", probe_rows), rows(&mut random, "r", probe_rows)];
        let expected = answer(Arc::new(join(&case, &left, &right)?), context(1 << 30)).await?;
        // Enough for everything, for a part or so, and for hardly any.
        for memory in [1 << 30, 600_000, 100_000] {
            let spilling = Arc::new(SpillingHashJoinExec::new(join(&case, &left, &right)?));
            let plan: Arc<dyn ExecutionPlan> = spilling.clone();
            let got = match answer(plan, context(memory)).await {
                Ok(got) => got,
                // One key can hold more rows than the smallest memory does: that is said.
                Err(error) if error.to_string().contains("rows of one join key") => continue,
                Err(error) => return Err(error),
            };
            assert_eq!(expected, got, "seed {seed}, {kind}, {memory} bytes");
            let metrics = spilling.metrics().expect("the node has metrics");
            spilled += usize::from(metrics.spilled_rows().unwrap_or(0) > 0);
        }
    }
    assert!(spilled >= 12, "only {spilled} runs spilled, so the test shows little");
    Ok(())
}

#[tokio::test]
async fn a_key_that_alone_exceeds_memory_is_an_error_that_names_the_join_key() -> Result<()> {
    let size = 20_000;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![7; size])),
        Arc::new(StringViewArray::from(vec!["same"; size])),
        Arc::new(Float64Array::from(vec![1.0; size])),
        Arc::new(StringArray::from(vec!["payload"; size])),
    ];
    let left = RecordBatch::try_new(schema("l"), columns)?;
    let right = rows(&mut Random(9), "r", 50);
    let case = Case {
        kind: JoinType::LeftSemi,
        keys: vec![0],
        nulls: NullEquality::NullEqualsNothing,
        filtered: false,
    };
    let plan = Arc::new(SpillingHashJoinExec::new(join(&case, &[left], &[right])?));
    let error = answer(plan, context(50_000)).await.expect_err("it cannot fit");
    assert!(error.to_string().contains("rows of one join key do not fit"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_spilling_join_runs_again_from_the_same_plan() -> Result<()> {
    let left = rows(&mut Random(3), "l", 500);
    let right = [rows(&mut Random(4), "r", 300), rows(&mut Random(5), "r", 300)];
    let case = Case {
        kind: JoinType::Full,
        keys: vec![0],
        nulls: NullEquality::NullEqualsNothing,
        filtered: false,
    };
    let plan: Arc<dyn ExecutionPlan> =
        Arc::new(SpillingHashJoinExec::new(join(&case, &left, &right)?));
    let first = answer(Arc::clone(&plan), context(1 << 30)).await?;
    let second = answer(Arc::clone(&plan), context(1 << 30)).await?;
    let third = answer(plan.reset_state()?, context(150_000)).await?;
    assert_eq!(first, second);
    assert_eq!(first, third);
    Ok(())
}
