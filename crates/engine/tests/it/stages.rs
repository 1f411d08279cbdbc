//! Queries cut into stages of tasks give what they give in one piece.

use bytes::Bytes;
use rasker_engine::arrow::array::RecordBatch;
use rasker_engine::arrow::util::display::{ArrayFormatter, FormatOptions};
use rasker_engine::{
    Context, Environment, Fragment, FragmentRunner, Parameters, Query, Result, Settings, batches_of,
};
use std::path::PathBuf;
use std::sync::Arc;

pub const GO_ON: &dyn Fn() -> bool = &|| true;

pub struct Data {
    folder: PathBuf,
    pub context: Context,
    runner: FragmentRunner,
}

impl Drop for Data {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Data {
    /// Two tables of several files, with missing values, equal keys and text.
    pub fn new(name: &str) -> Data {
        let folder = std::env::temp_dir().join(format!("rasker-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let settings = Settings { threads: 2, ..Settings::default() };
        let environment = Arc::new(Environment::new(&settings).expect("an environment"));
        let context = Context::within(environment.clone());
        let runner = FragmentRunner::new(environment);
        let data = Data { folder, context, runner };
        let shown = data.folder.display().to_string();
        for part in 0..3 {
            data.run(&format!(
                "COPY (SELECT i AS id, CASE WHEN i % 7 = 0 THEN NULL ELSE i % 13 END AS k, \
                 'name ' || (i % 5) AS name, i * 1.5 AS amount, \
                 arrow_cast(i % 100, 'Decimal128(15,2)') AS price \
                 FROM (SELECT value + {part} * 1000 AS i FROM generate_series(0, 999) AS t(value))) \
                 TO '{shown}/orders/{part}.parquet'"
            ));
            data.run(&format!(
                "COPY (SELECT CASE WHEN i = 4 THEN NULL ELSE i END AS k, 'city ' || (i % 3) AS city \
                 FROM (SELECT value * 3 + {part} AS i FROM generate_series(0, 4) AS t(value))) \
                 TO '{shown}/places/{part}.parquet'"
            ));
        }
        for table in ["orders", "places"] {
            data.run(&format!(
                "CREATE EXTERNAL TABLE {table} STORED AS PARQUET LOCATION '{shown}/{table}/'"
            ));
        }
        data
    }

    fn run(&self, text: &str) -> Vec<RecordBatch> {
        self.plan(text).collect(GO_ON).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    pub fn plan(&self, text: &str) -> Query {
        let planned = self.context.sql(text, &Parameters::None, GO_ON);
        planned.unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// Runs all tasks of all stages, one after the other.
    pub fn in_stages(&self, query: &Query, n: usize) -> Result<(Vec<RecordBatch>, usize)> {
        let stages = query.stages(n, GO_ON)?;
        let mut written: Vec<Vec<Vec<Bytes>>> = Vec::new();
        for stage in &stages {
            let own = Fragment::new(stage, Vec::new())?;
            let mut fragment = Fragment::from_bytes(&own.to_bytes())?;
            fragment.functions = own.functions;
            let mut outputs = Vec::new();
            for task in 0..stage.n_tasks {
                let inputs = stage.inputs.iter().map(|(from, reads)| {
                    let part = |parts: &Vec<Bytes>| {
                        parts[reads.part_of(task, parts.len() as u32) as usize].clone()
                    };
                    written[*from].iter().map(part).collect()
                });
                let parts = self.runner.run(&fragment, task, inputs.collect(), None, GO_ON)?;
                assert_eq!(parts.0.len(), stage.n_parts as usize);
                let joined = parts.0.iter().map(|part| {
                    let slices: Vec<&[u8]> = part.iter().map(|buffer| buffer.as_slice()).collect();
                    Bytes::from(slices.concat())
                });
                outputs.push(joined.collect());
            }
            written.push(outputs);
        }
        let last = written.pop().expect("a stage");
        let mut rows = Vec::new();
        for mut parts in last {
            rows.extend(batches_of(parts.remove(0))?.1);
        }
        Ok((rows, stages.len()))
    }
}

pub fn texts(batches: &[RecordBatch]) -> Vec<String> {
    let options = FormatOptions::default().with_null("-");
    let mut rows = Vec::new();
    for batch in batches {
        let columns: Vec<ArrayFormatter<'_>> = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column, &options).expect("a text form"))
            .collect();
        for row in 0..batch.num_rows() {
            let cells: Vec<String> =
                columns.iter().map(|column| column.value(row).to_string()).collect();
            rows.push(cells.join("|"));
        }
    }
    rows
}

const QUERIES: [&str; 34] = [
    "SELECT count(*), sum(amount), min(name), max(price) FROM orders",
    "SELECT name, count(*), sum(price) FROM orders GROUP BY name ORDER BY name",
    "SELECT k, count(DISTINCT name), avg(amount) FROM orders GROUP BY k ORDER BY k",
    "SELECT DISTINCT k, name FROM orders",
    "SELECT * FROM orders WHERE id < 20 ORDER BY amount DESC LIMIT 7 OFFSET 3",
    "SELECT id FROM orders ORDER BY id LIMIT 5",
    "SELECT o.id, p.city FROM orders o JOIN places p ON o.k = p.k WHERE o.id < 100",
    "SELECT o.id, p.city FROM orders o LEFT JOIN places p ON o.k = p.k WHERE o.id < 100",
    "SELECT o.id, p.k, p.city FROM orders o RIGHT JOIN places p ON o.k = p.k AND o.id < 30",
    "SELECT o.id, p.k FROM orders o FULL JOIN places p ON o.k = p.k AND o.id < 30",
    "SELECT p.k FROM places p LEFT JOIN orders o ON o.k = p.k AND o.id < 5",
    "SELECT p.k FROM places p WHERE EXISTS (SELECT 1 FROM orders o WHERE o.k = p.k)",
    "SELECT p.k FROM places p WHERE NOT EXISTS (SELECT 1 FROM orders o WHERE o.k = p.k)",
    "SELECT id FROM orders WHERE k IN (SELECT k FROM places WHERE city = 'city 1')",
    "SELECT k FROM places WHERE k NOT IN (SELECT k FROM orders WHERE k IS NOT NULL)",
    "SELECT k FROM places WHERE k NOT IN (SELECT k FROM orders)",
    "SELECT id, (SELECT max(amount) FROM orders) AS top FROM orders WHERE id < 4",
    "SELECT id FROM orders o WHERE amount = (SELECT max(amount) FROM orders i WHERE i.k = o.k)",
    "SELECT count(*) FROM orders, places",
    "SELECT o.id, p.k FROM orders o JOIN places p ON o.id < p.k",
    "SELECT p.k, o.id FROM places p LEFT JOIN orders o ON o.id < p.k - 10",
    "SELECT id, row_number() OVER (PARTITION BY k ORDER BY id) AS n FROM orders WHERE id < 60",
    "SELECT id, sum(amount) OVER (ORDER BY id) AS total FROM orders WHERE id < 60",
    "SELECT id, rank() OVER (ORDER BY name) AS r FROM orders WHERE id < 60",
    "SELECT id FROM orders WHERE id < 9 UNION ALL SELECT k FROM places",
    "SELECT name FROM orders UNION SELECT city FROM places",
    "SELECT k FROM orders INTERSECT SELECT k FROM places",
    "SELECT k FROM orders EXCEPT SELECT k FROM places",
    "SELECT name, k, count(*) FROM orders GROUP BY GROUPING SETS ((name), (k), ())",
    "SELECT name, k, sum(amount) FROM orders GROUP BY ROLLUP (name, k)",
    "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 20) SELECT sum(n) FROM t",
    "WITH big AS (SELECT k, sum(amount) AS s FROM orders GROUP BY k) \
     SELECT a.k, b.s FROM big a JOIN big b ON a.s = b.s",
    "SELECT city, array_agg(o.id ORDER BY o.id) FROM orders o JOIN places p USING (k) \
     WHERE o.id < 40 GROUP BY city",
    "SELECT 1 + 1, 'x'",
];

#[test]
fn stages_give_what_one_piece_gives() {
    let data = Data::new("stages");
    for text in QUERIES {
        let query = data.plan(text);
        let whole = texts(&query.collect(GO_ON).unwrap_or_else(|error| panic!("{text}: {error}")));
        for n in [1, 2, 5] {
            let (rows, _) =
                data.in_stages(&query, n).unwrap_or_else(|error| panic!("{text}: {error}"));
            let mut rows = texts(&rows);
            let mut whole = whole.clone();
            if !text.contains("ORDER BY") || text.contains("OVER") || text.contains("array_agg") {
                rows.sort();
                whole.sort();
            }
            assert_eq!(rows, whole, "{n} tasks: {text}");
        }
    }
}

#[test]
fn large_queries_have_several_stages() {
    let data = Data::new("several");
    let grouped = data.plan("SELECT name, count(*) FROM orders GROUP BY name ORDER BY name");
    let (_, n_stages) = data.in_stages(&grouped, 3).expect("rows");
    assert_eq!(n_stages, 3, "partial groups, whole groups in order, the merged result");
}
