//! Plans with and without our rules: the same rows, and the shape the rules are for.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::util::pretty::pretty_format_batches;
use datafusion::common::Result;
use datafusion::execution::SessionStateBuilder;
use datafusion::physical_plan::displayable;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};

/// A folder that goes when the test ends.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Result<Self> {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("rasker-hot-rules-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // A folder that cannot be removed is left to the system's own cleaning.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// (name, rows, range of the first key, range of the second key)
const TABLES: [(&str, i64, i64, i64); 5] = [
    ("fact", 6000, 500, 40),
    ("orders", 500, 500, 90),
    ("people", 90, 90, 7),
    ("places", 7, 7, 3),
    ("other", 300, 200, 40),
];

fn rows(rows: i64, first: i64, second: i64) -> RecordBatch {
    let mut state = 0x2545_f491_4f6c_dd1du64 ^ rows as u64;
    let mut next = move |limit: i64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 20) as i64 % limit
    };
    // The first key of a table no larger than its range is unique, as a primary key is.
    let unique = rows <= first;
    let a = (0..rows).map(|row| match (unique, next(20)) {
        (true, _) => Some(row),
        (false, 0) => None,
        (false, _) => Some(next(first)),
    });
    let a: Int64Array = a.collect();
    let b: Int64Array = (0..rows).map(|_| (next(25) != 0).then(|| next(second))).collect();
    let text = StringViewArray::from_iter_values((0..rows).map(|row| format!("t{}", row % 11)));
    let columns: Vec<ArrayRef> = vec![Arc::new(a), Arc::new(b), Arc::new(text)];
    let schema = Schema::new(vec![
        Field::new("a", DataType::Int64, true),
        Field::new("b", DataType::Int64, true),
        Field::new("t", DataType::Utf8View, true),
    ]);
    RecordBatch::try_new(Arc::new(schema), columns).expect("columns fit the schema")
}

/// Writes the tables as Parquet files, from which the rules have their statistics.
fn write_tables(directory: &Path) -> Result<()> {
    for (name, count, first, second) in TABLES {
        let batch = rows(count, first, second);
        let file = std::fs::File::create(directory.join(format!("{name}.parquet")))?;
        let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None)?;
        writer.write(&batch)?;
        writer.close()?;
    }
    Ok(())
}

async fn session(directory: &Path, ours: bool, threads: usize) -> Result<SessionContext> {
    let mut config = SessionConfig::new().with_target_partitions(threads);
    if ours {
        rasker_engine::hot::tune(&mut config);
    }
    let mut state = SessionStateBuilder::new_with_default_features().with_config(config);
    if ours {
        state = state.with_physical_optimizer_rules(rasker_engine::hot::physical_rules());
    }
    let session = SessionContext::new_with_state(state.build());
    for (name, ..) in TABLES {
        let path = directory.join(format!("{name}.parquet"));
        let path = path.to_str().expect("a path in Unicode");
        session.register_parquet(name, path, ParquetReadOptions::default()).await?;
    }
    Ok(session)
}

async fn answer(session: &SessionContext, query: &str) -> Result<Vec<String>> {
    let batches = session.sql(query).await?.collect().await?;
    let text = pretty_format_batches(&batches)?.to_string();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    Ok(lines)
}

const QUERIES: [&str; 16] = [
    "select fact.t, people.t, count(*) from fact, orders, people, places where fact.a = orders.a \
     and orders.b = people.a and people.b = places.a and places.t = 't3' group by fact.t, people.t",
    "select count(*), sum(fact.b + people.b) from fact, orders, people where fact.a = orders.a \
     and orders.b = people.a and (fact.t = 't1' and people.t = 't2' or fact.t = 't4')",
    "select orders.a, people.t from orders, people where orders.b = people.a and orders.a in \
     (select a from fact group by a having sum(b) > 300)",
    "select count(*), min(places.t) from fact join orders on fact.a = orders.a join people on \
     orders.b = people.a join places on people.b = places.a where exists (select 1 from other \
     where other.a = fact.a and other.b <> fact.b)",
    "select count(*), max(people.a) from fact, orders, people where fact.a = orders.a and \
     orders.b = people.a and not exists (select 1 from other where other.a = fact.a and \
     other.b <> fact.b) and not exists (select 1 from other where other.a = people.a)",
    "select count(*) from fact, orders, other where fact.a = orders.a and other.a = fact.a and \
     other.b = fact.b and orders.a < 120",
    "select people.t, count(x.a) from people left join (select orders.a, orders.b from orders, \
     fact where orders.a = fact.a and fact.b < 5) x on x.b = people.a group by people.t",
    "select count(*), sum(fact.b) from fact, places where fact.a = places.a and fact.b < (select \
     0.7 * avg(f.b) from fact f where f.a = places.a)",
    "select count(*) from orders where orders.b not in (select b from fact where b is not null)",
    "select p.t, q.t, count(*) from people p, people q, places where p.b = places.a and q.b = \
     places.a and p.a < q.a group by p.t, q.t",
    "select count(*), sum(o.b + q.b), min(f.t) from fact f, other o, orders q where f.a = o.a and \
     q.a = f.a and o.b = f.b and q.t = 't5'",
    "select count(*) from fact f, other o, orders q, people p where f.a = o.a and q.a = o.a and \
     p.a = q.a and f.b = p.b",
    "select count(*), sum(q.b) from fact f, orders q, people p where f.a = q.a and f.b = q.a and \
     p.a = f.a",
    "select count(*) from fact f, fact g, places p where f.a = f.b and g.a = f.b and p.a = g.a",
    "select count(*) from fact f, orders q, people p where f.a = q.a and p.a = q.a and exists \
     (select 1 from other o where o.a = q.a and o.a = f.b)",
    "select count(*) from fact f, orders q, people p where f.a = q.a and p.a = q.a and not exists \
     (select 1 from other o where o.a = q.a and o.b = p.b)",
];

#[test]
fn every_query_gives_the_same_rows_with_and_without_the_rules() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build()?;
    runtime.block_on(compare_all_queries())
}

async fn compare_all_queries() -> Result<()> {
    let directory = Directory::new()?;
    write_tables(&directory.0)?;
    for threads in [1, 2, 3] {
        let plain = session(&directory.0, false, threads).await?;
        let ours = session(&directory.0, true, threads).await?;
        for query in QUERIES {
            let expected = answer(&plain, query).await?;
            assert!(expected.len() > 4, "a query without rows shows nothing: {query}");
            assert_eq!(expected, answer(&ours, query).await?, "{threads} threads: {query}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_table_that_a_filter_makes_small_is_joined_before_the_large_one() -> Result<()> {
    let directory = Directory::new()?;
    write_tables(&directory.0)?;
    let ours = session(&directory.0, true, 2).await?;
    let plan = ours.sql(QUERIES[0]).await?.create_physical_plan().await?;
    let text = displayable(plan.as_ref()).indent(false).to_string();
    let place = |table: &str| text.find(&format!("{table}.parquet")).expect("the table is read");
    // The build side of a join stands above its probe side in the text.
    assert!(place("places") < place("people"), "{text}");
    assert!(place("people") < place("fact"), "{text}");
    assert!(text.contains("SpillingHashJoinExec"), "{text}");
    Ok(())
}

#[tokio::test]
async fn tables_that_a_third_one_links_are_joined_with_each_other_first() -> Result<()> {
    let directory = Directory::new()?;
    write_tables(&directory.0)?;
    let ours = session(&directory.0, true, 2).await?;
    let text = "select count(*) from fact f, other o, orders q where f.a = o.a and q.a = f.a and \
                f.b = o.b and q.a < 20";
    let plan = ours.sql(text).await?.create_physical_plan().await?;
    let text = displayable(plan.as_ref()).indent(false).to_string();
    let depth = |table: &str| {
        let line = text.lines().find(|line| line.contains(&format!("{table}.parquet")));
        line.expect("the table is read").find(|first| first != ' ').expect("a word")
    };
    // The two small ones are joined below their join with the large one.
    assert!(depth("fact") < depth("orders") && depth("fact") < depth("other"), "{text}");
    Ok(())
}

#[tokio::test]
async fn a_plan_is_the_same_each_time_it_is_made() -> Result<()> {
    let directory = Directory::new()?;
    write_tables(&directory.0)?;
    for query in QUERIES {
        let mut plans = vec![];
        for _ in 0..3 {
            let ours = session(&directory.0, true, 2).await?;
            let plan = ours.sql(query).await?.create_physical_plan().await?;
            plans.push(displayable(plan.as_ref()).indent(false).to_string());
        }
        assert_eq!(plans[0], plans[1], "{query}");
        assert_eq!(plans[0], plans[2], "{query}");
    }
    Ok(())
}

#[tokio::test]
async fn a_selective_join_above_an_aggregate_filters_the_rows_of_its_scan() -> Result<()> {
    let directory = Directory::new()?;
    write_tables(&directory.0)?;
    let ours = session(&directory.0, true, 2).await?;
    // One place is left, so few of the facts' groups are wanted.
    let query = format!("explain analyze {} and places.t = 't3'", QUERIES[7]);
    let text = answer(&ours, &query).await?.join("\n");
    let pruned = |line: &&str| {
        line.contains("pushdown_rows_pruned=") && !line.contains("pushdown_rows_pruned=0")
    };
    assert!(text.lines().any(|line| pruned(&line)), "{text}");
    Ok(())
}
