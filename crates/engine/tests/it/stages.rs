//! Queries cut into stages of tasks give what they give in one piece.

use bytes::Bytes;
use rasker_engine::arrow::array::RecordBatch;
use rasker_engine::arrow::buffer::Buffer;
use rasker_engine::arrow::util::display::{ArrayFormatter, FormatOptions};
use rasker_engine::{
    Context, Environment, Fragment, FragmentRunner, Parameters, Parts, Query, Reservations, Result,
    Rows, Settings, batches_of,
};
use std::cell::Cell;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub const GO_ON: &dyn Fn() -> bool = &|| true;

pub struct Data {
    folder: PathBuf,
    pub context: Context,
    runner: FragmentRunner,
    /// Whether each task has an attempt before the one that counts.
    runs_twice: Cell<bool>,
    /// From so many bytes on, rows are put into order by several tasks.
    range_nbytes: Cell<u64>,
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
        let (runs_twice, range_nbytes) = (Cell::default(), Cell::new(u64::MAX));
        let data = Data { folder, context, runner, runs_twice, range_nbytes };
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
        let planned = self.context.sql(text, &Parameters::None, &Rows::here(GO_ON));
        planned.unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    pub fn in_stages(&self, query: &Query, n: usize) -> Result<(Vec<RecordBatch>, usize)> {
        self.in_stages_within(query, n, &|_| None)
    }

    /// Runs all tasks of all stages, one after the other, each with the memory that `limit` says.
    fn in_stages_within(
        &self,
        query: &Query,
        n: usize,
        limit: &dyn Fn(u32) -> Option<u64>,
    ) -> Result<(Vec<RecordBatch>, usize)> {
        let stages = query.stages(n, self.range_nbytes.get(), GO_ON)?;
        let mut written: Vec<Vec<Vec<Bytes>>> = Vec::new();
        for stage in &stages.stages {
            if let Some(given) = &stage.given {
                let joined = |parts: Parts| parts.0.iter().map(|part| joined(part)).collect();
                written.push(given.written()?.into_iter().map(joined).collect());
                continue;
            }
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
                let memory = limit(task).map(|limit| {
                    Arc::new(Limited { limit, taken: AtomicU64::new(0) }) as Arc<dyn Reservations>
                });
                let inputs: Vec<Vec<Bytes>> = inputs.collect();
                if self.runs_twice.get() {
                    self.runner.run(&fragment, task, inputs.clone(), None, GO_ON)?;
                }
                let parts = self.runner.run(&fragment, task, inputs, memory, GO_ON)?;
                assert_eq!(parts.0.len(), stage.n_parts as usize);
                outputs.push(parts.0.iter().map(|part| joined(part)).collect());
            }
            written.push(outputs);
        }
        let last = written.pop().expect("a stage");
        let mut rows = Vec::new();
        for mut parts in last {
            rows.extend(batches_of(parts.remove(0))?.1);
        }
        Ok((stages.finish(rows, GO_ON)?, stages.stages.len()))
    }
}

fn joined(part: &[Buffer]) -> Bytes {
    let slices: Vec<&[u8]> = part.iter().map(|buffer| buffer.as_slice()).collect();
    Bytes::from(slices.concat())
}

/// So many bytes and no more.
#[derive(Debug)]
struct Limited {
    limit: u64,
    taken: AtomicU64,
}

impl Reservations for Limited {
    fn try_reserve(&self, nbytes: u64) -> bool {
        let has_room = self.taken.load(Ordering::Relaxed) + nbytes <= self.limit;
        if has_room {
            self.reserve(nbytes);
        }
        has_room
    }

    fn reserve(&self, nbytes: u64) {
        self.taken.fetch_add(nbytes, Ordering::Relaxed);
    }

    fn release(&self, nbytes: u64) {
        self.taken.fetch_sub(nbytes, Ordering::Relaxed);
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

#[test]
fn rows_are_put_into_order_by_all_tasks() {
    let data = Data::new("ranged");
    data.range_nbytes.set(0);
    // The first two columns say the order; in the last one ties may come in any.
    for (text, n_stages) in [
        ("SELECT id, name FROM orders ORDER BY id", 4),
        ("SELECT id, name FROM orders ORDER BY id DESC", 4),
        ("SELECT k, amount, id FROM orders ORDER BY k, amount DESC", 4),
        ("SELECT k, id FROM orders ORDER BY k DESC NULLS LAST, id", 4),
        ("SELECT name, price, id FROM orders ORDER BY name DESC, price, id", 4),
        ("SELECT 2 * id AS twice, k IS NULL FROM orders ORDER BY amount % 77, id", 4),
        ("SELECT name, 1 AS one FROM orders WHERE k = 3 ORDER BY name", 4),
        ("SELECT id FROM orders WHERE id < 0 ORDER BY id", 4),
        ("SELECT id FROM orders WHERE id = 2001 ORDER BY amount", 4),
        ("SELECT k, count(*) AS n FROM orders GROUP BY k ORDER BY n, k", 5),
        ("SELECT o.id, p.city FROM orders o JOIN places p USING (k) ORDER BY o.id, p.city", 5),
        ("SELECT id FROM orders ORDER BY id LIMIT 2000", 2),
    ] {
        let query = data.plan(text);
        let whole = texts(&query.collect(GO_ON).unwrap_or_else(|error| panic!("{text}: {error}")));
        let (rows, found) =
            data.in_stages(&query, 3).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(texts(&rows), whole, "{text}");
        assert_eq!(found, n_stages, "{text}");
        for n in [1, 2, 7] {
            let (rows, _) = data.in_stages(&query, n).expect("rows");
            assert_eq!(texts(&rows), whole, "{n} tasks: {text}");
        }
    }
}

#[test]
fn ranges_have_about_as_many_rows_each() {
    let data = Data::new("even");
    data.range_nbytes.set(0);
    let shown = data.folder.display().to_string();
    let in_tasks = |query: &Query| data.in_stages(query, 3).map(|(rows, _)| Some(rows));
    let rows = Rows { check: GO_ON, elsewhere: Some(&in_tasks) };
    let text = format!(
        "COPY (SELECT a.id * a.id AS n, b.id FROM orders a, orders b WHERE b.id < 40 ORDER BY n) \
         TO '{shown}/sorted/' STORED AS PARQUET"
    );
    let said = data.context.sql(&text, &Parameters::None, &rows).expect("an answer");
    assert_eq!(texts(&said.collect(GO_ON).expect("rows")), ["120000"]);
    let mut names = files(&data.folder.join("sorted"));
    names.sort();
    let mut last = -1;
    for name in &names {
        let file = format!("FROM '{shown}/sorted/{name}'");
        let found = texts(&data.run(&format!("SELECT min(n), max(n), count(*) {file}")));
        let found: Vec<i64> = found[0].split('|').map(|n| n.parse().expect("a number")).collect();
        assert!(found[0] > last && (35_000..=45_000).contains(&found[2]), "{name}: {found:?}");
        last = found[1];
    }
    assert_eq!(names.len(), 3, "{names:?}");
}

#[test]
fn joins_of_which_some_tasks_go_to_disk_give_each_row_once() {
    let data = Data::new("half-spilled");
    let joins = [
        "SELECT a.id, b.name FROM orders a JOIN orders b ON a.id = b.id + 1",
        "SELECT a.id, b.id FROM orders a LEFT JOIN orders b ON a.id = b.id + 2000",
        "SELECT a.id, b.id FROM orders a FULL JOIN orders b ON a.id = b.id + 2000",
        "SELECT a.id FROM orders a WHERE EXISTS (SELECT 1 FROM orders b WHERE a.id = b.id + 900)",
        "SELECT a.id FROM orders a WHERE NOT EXISTS \
         (SELECT 1 FROM orders b WHERE a.id = b.id + 900)",
    ];
    let half = |task: u32| (task % 2 == 1).then_some(40_000);
    let all = |_: u32| Some(40_000);
    let limits: [&dyn Fn(u32) -> Option<u64>; 2] = [&half, &all];
    for text in joins {
        let query = data.plan(text);
        let mut whole = texts(&query.collect(GO_ON).expect("rows"));
        whole.sort();
        for limit in limits {
            let within = data.in_stages_within(&query, 3, limit);
            let (rows, _) = within.unwrap_or_else(|error| panic!("{text}: {error}"));
            let mut rows = texts(&rows);
            rows.sort();
            assert_eq!(rows, whole, "{text}");
        }
    }
}

/// Names of files below a folder.
fn files(folder: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"))
    {
        match entry.path() {
            path if path.is_dir() => found.extend(files(&path)),
            path => found.push(path.strip_prefix(folder).expect("below").display().to_string()),
        }
    }
    found
}

#[test]
fn what_tasks_write_appears_once_however_often_they_run() {
    let data = Data::new("written");
    data.runs_twice.set(true);
    let in_tasks = |query: &Query| data.in_stages(query, 3).map(|(rows, _)| Some(rows));
    let rows = Rows { check: GO_ON, elsewhere: Some(&in_tasks) };
    let shown = data.folder.display().to_string();
    let say = |text: String| {
        let said = data.context.sql(&text, &Parameters::None, &rows);
        let said = said.and_then(|query| query.collect(GO_ON));
        texts(&said.unwrap_or_else(|error| panic!("{text}: {error}")))
    };
    for (target, format, n_files) in
        [("all/", "parquet", 3), ("csv/", "csv", 3), ("json/", "json", 3), ("one.parquet", "", 1)]
    {
        let options = if format == "csv" { " OPTIONS (has_header true)" } else { "" };
        let stored = if format.is_empty() { "" } else { &format!(" STORED AS {format}") };
        let count = say(format!(
            "COPY (SELECT id, name FROM orders WHERE id % 3 = 0) TO '{shown}/{target}'{stored}{options}"
        ));
        assert_eq!(count, ["1000"], "{target}");
        let back =
            say(format!("SELECT count(*), count(DISTINCT id), sum(id) FROM '{shown}/{target}'"));
        assert_eq!(back, ["1000|1000|1498500"], "{target}");
        if target.ends_with('/') {
            assert_eq!(files(&data.folder.join(target)).len(), n_files, "{target}");
        }
    }
    // Folders by value, rows added, an order that is kept.
    say(format!(
        "COPY (SELECT id, k FROM orders) TO '{shown}/by' STORED AS PARQUET PARTITIONED BY (k)"
    ));
    assert_eq!(say(format!("SELECT count(*), count(DISTINCT k) FROM '{shown}/by/'")), ["3000|13"]);
    say(format!("CREATE EXTERNAL TABLE added STORED AS PARQUET LOCATION '{shown}/all/'"));
    assert_eq!(say("INSERT INTO added SELECT id, name FROM orders WHERE id < 10".into()), ["10"]);
    assert_eq!(say("SELECT count(*) FROM added".into()), ["1010"]);
    say(format!("COPY (SELECT id FROM orders ORDER BY id DESC) TO '{shown}/down.csv'"));
    assert_eq!(say(format!("SELECT id FROM '{shown}/down.csv' LIMIT 2")), ["2999", "2998"]);
    say("CREATE TABLE kept AS SELECT name, count(*) AS n FROM orders GROUP BY name".into());
    assert_eq!(say("SELECT sum(n), count(*) FROM kept".into()), ["3000|5"]);
}

#[test]
fn nothing_is_left_of_tasks_that_failed_to_write() {
    let data = Data::new("unwritten");
    let in_tasks = |query: &Query| {
        let stages = query.stages(3, u64::MAX, GO_ON)?;
        let of_last = stages.stages.last().expect("a stage");
        let fragment = Fragment::new(of_last, Vec::new())?;
        data.runner.run(&fragment, 0, Vec::new(), None, GO_ON)?;
        stages.give_up();
        stages.finish(Vec::new(), GO_ON).map(Some)
    };
    let rows = Rows { check: GO_ON, elsewhere: Some(&in_tasks) };
    let shown = data.folder.display().to_string();
    let text = format!("COPY (SELECT id FROM orders) TO '{shown}/lost/' STORED AS PARQUET");
    let said = data.context.sql(&text, &Parameters::None, &rows).expect("an answer");
    assert_eq!(texts(&said.collect(GO_ON).expect("rows")), ["0"]);
    let folder = data.folder.join("lost");
    assert!(!folder.exists() || files(&folder).is_empty());
}

#[test]
fn tables_in_memory_are_brought_to_tasks_once_and_give_the_same_rows() {
    let data = Data::new("memory");
    let rows = data.run("SELECT id, k, name, amount FROM orders");
    let large: Vec<RecordBatch> = std::iter::repeat_n(rows.clone(), 40).flatten().collect();
    data.context.create_batches("large", large[0].schema(), large).expect("a table");
    data.context.create_batches("small", rows[0].schema(), rows).expect("a table");
    let given = |text: &str| {
        let stages = data.plan(text).stages(3, u64::MAX, GO_ON).expect("stages").stages;
        stages.into_iter().filter_map(|stage| stage.given).collect::<Vec<_>>()
    };
    let texts_of = [
        "SELECT name, count(*), sum(k) FROM large WHERE amount > 100 GROUP BY name",
        "SELECT l.id, s.name FROM large l JOIN small s ON l.id = s.id WHERE l.k = 3",
        "SELECT sum(id) FROM (SELECT id FROM large ORDER BY id LIMIT 90)",
        "SELECT a.name, count(*) FROM large a JOIN large b ON a.id = b.id GROUP BY 1",
    ];
    for text in texts_of {
        let query = data.plan(text);
        let mut whole = texts(&query.collect(GO_ON).expect("rows"));
        let mut rows = texts(&data.in_stages(&query, 3).expect("rows").0);
        whole.sort();
        rows.sort();
        assert_eq!(rows, whole, "{text}");
        assert!(!given(text).is_empty(), "{text}");
    }
    assert!(given("SELECT * FROM small").is_empty(), "it is part of the plan");
    // The same table is known again, until it is another one.
    let of = |text: &str| given(text).remove(0);
    let (first, second) = (of("SELECT id FROM large"), of("SELECT name, k FROM large"));
    assert!(first.is_same(&second));
    let nbytes = first.nbytes();
    assert!((1 << 20..16 << 20).contains(&nbytes), "slices count for themselves: {nbytes}");
    assert!(first.table.upgrade().is_some());
    data.run("INSERT INTO large SELECT * FROM small");
    assert!(!first.is_same(&of("SELECT id FROM large")));
    data.run("DROP TABLE large");
    assert!(first.table.upgrade().is_none());
}

#[test]
fn tables_that_share_columns_are_not_taken_for_each_other() {
    use rasker_engine::arrow::array::{Array, ArrayRef, Int64Array, StructArray};
    use rasker_engine::arrow::datatypes::DataType;
    let data = Data::new("shared");
    let shared: ArrayRef = Arc::new(Int64Array::from_iter_values(0..100_000));
    let timed = shared.to_data().into_builder();
    let timed = timed.data_type(DataType::Date64).build().expect("an array of the same buffer");
    let nested = |start: i64| -> ArrayRef {
        let inner: ArrayRef = Arc::new(Int64Array::from_iter_values(start..start + 100_000));
        let fields = RecordBatch::try_from_iter([("v", inner)]).expect("a column");
        Arc::new(StructArray::from(fields))
    };
    let tables: [(&str, Vec<(&str, ArrayRef)>); 5] = [
        ("one", vec![("k", shared.clone()), ("s", nested(0))]),
        ("two", vec![("k", shared.clone()), ("s", nested(7))]),
        ("three", vec![("k", shared.clone())]),
        ("four", vec![("k", rasker_engine::arrow::array::make_array(timed))]),
        ("five", vec![("other", shared.clone())]),
    ];
    let mut all = Vec::new();
    for (name, columns) in tables {
        let batch = RecordBatch::try_from_iter(columns).expect("columns");
        data.context.create_batches(name, batch.schema(), vec![batch]).expect("a table");
        let stages =
            data.plan(&format!("SELECT * FROM {name}")).stages(3, u64::MAX, GO_ON).expect("stages");
        all.extend(stages.stages.into_iter().filter_map(|stage| stage.given));
    }
    assert_eq!(all.len(), 5);
    for (at, one) in all.iter().enumerate() {
        for (other_at, other) in all.iter().enumerate() {
            assert_eq!(one.is_same(other), at == other_at, "{at} and {other_at}");
        }
    }
}
