//! Statements over files and tables: what is found, what is written, what is said when it fails.

use rasker_engine::arrow::array::RecordBatch;
use rasker_engine::{
    Context, Kind, Parameters, Result, Rows, ScalarValue, Settings, TextKind, text_of,
};
use std::fs;
use std::path::PathBuf;

const GO_ON: &dyn Fn() -> bool = &|| true;

struct Place {
    folder: PathBuf,
    context: Context,
}

impl Place {
    fn new(name: &str) -> Place {
        let folder = std::env::temp_dir().join(format!("rasker-sql-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let settings = Settings { threads: 2, ..Settings::default() };
        Place { folder, context: Context::new(&settings).expect("a context") }
    }

    fn file(&self, name: &str, text: &str) {
        let path = self.folder.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    fn try_run(&self, text: &str) -> Result<Vec<RecordBatch>> {
        let text = text.replace("$F", &self.folder.display().to_string());
        self.context.sql(&text, &Parameters::None, &Rows::here(GO_ON))?.collect(GO_ON)
    }

    /// Rows as CSV without a header.
    fn rows(&self, text: &str) -> String {
        let batches = self.try_run(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        csv(&batches)
    }

    fn error(&self, text: &str) -> rasker_engine::EngineError {
        match self.try_run(text) {
            Err(error) => error,
            Ok(rows) => panic!("{text} gave {}", csv(&rows)),
        }
    }
}

fn csv(batches: &[RecordBatch]) -> String {
    let Some(first) = batches.first() else { return String::new() };
    text_of(&first.schema(), batches, TextKind::Csv, false).expect("text")
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn names_are_found_whatever_their_case() {
    let place = Place::new("names");
    place.file("Sales.csv", "Amount,Who\n3,a\n4,b\n");
    place.rows("CREATE EXTERNAL TABLE \"Sales\" STORED AS CSV LOCATION '$F/Sales.csv'");
    assert_eq!(place.rows("SELECT sum(amount) FROM sales"), "7\n");
    assert_eq!(place.rows("SELECT s.WHO FROM SALES s WHERE s.AMOUNT > 3"), "b\n");
    let total = "SELECT who, sum(Amount) AS Total FROM sales GROUP BY who ORDER BY total DESC";
    assert_eq!(place.rows(total), "b,4\na,3\n");
    let within = "SELECT q.amount FROM (SELECT Amount FROM sales) q ORDER BY AMOUNT";
    assert_eq!(place.rows(within), "3\n4\n");
}

#[test]
fn files_that_come_later_are_seen() {
    let place = Place::new("later");
    place.file("t/1.csv", "a\n1\n");
    place.rows("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '$F/t/'");
    assert_eq!(place.rows("SELECT sum(a) FROM t"), "1\n");
    place.file("t/2.csv", "a\n5\n");
    assert_eq!(place.rows("SELECT sum(a) FROM t"), "6\n");
    fs::remove_file(place.folder.join("t/1.csv")).expect("it is there");
    assert_eq!(place.rows("SELECT sum(a) FROM t"), "5\n");
}

#[test]
fn folders_named_by_values_are_columns() {
    let place = Place::new("hive");
    place.file("t/year=2023/a.csv", "x\n1\n");
    place.file("t/year=2024/a.csv", "x\n2\n3\n");
    assert_eq!(
        place.rows("SELECT year, sum(x) FROM '$F/t' GROUP BY year ORDER BY year"),
        "2023,1\n2024,5\n"
    );
    assert_eq!(place.rows("SELECT x FROM '$F/t/**/*.csv' WHERE year = 2023"), "1\n");
}

#[test]
fn text_is_read_as_it_looks() {
    let place = Place::new("looks");
    place.file("semicolons.csv", "a;b\n1;x\n");
    place.file("tabs.tsv", "a\tb\n2\ty\n");
    place.file("lines.json", "{\"a\": 3}\n{\"a\": 4}\n");
    place.file("array.json", "[{\"a\": 5}, {\"a\": 6}]");
    assert_eq!(place.rows("SELECT b, a FROM '$F/semicolons.csv'"), "x,1\n");
    assert_eq!(place.rows("SELECT b, a FROM '$F/tabs.tsv'"), "y,2\n");
    assert_eq!(place.rows("SELECT sum(a) FROM '$F/lines.json'"), "7\n");
    assert_eq!(place.rows("SELECT sum(a) FROM '$F/array.json'"), "11\n");
}

#[test]
fn line_ends_within_quotes_belong_to_the_text() {
    let place = Place::new("quoted");
    let row = |i: usize| format!("{i},\"line one of {i}\nline two, with a comma\"\n");
    let text: String = std::iter::once("a,b\n".into()).chain((0..60_000).map(row)).collect();
    place.file("long.csv", &text);
    let answer = place.rows("SELECT count(*), sum(a), count(DISTINCT b) FROM '$F/long.csv'");
    assert_eq!(answer, "60000,1799970000,60000\n");
}

#[test]
fn parameters_take_their_places() {
    let place = Place::new("parameters");
    let values = vec![ScalarValue::from(2i64), ScalarValue::from("x")];
    let run = |text: &str, values: &Parameters| {
        let rows = place
            .context
            .sql(text, values, &Rows::here(GO_ON))
            .and_then(|query| query.collect(GO_ON));
        csv(&rows.expect("rows"))
    };
    assert_eq!(run("SELECT ? + 1, ?", &Parameters::Positional(values.clone())), "3,x\n");
    assert_eq!(run("SELECT $2, $1", &Parameters::Positional(values)), "x,2\n");
    let named = [("n".to_owned(), ScalarValue::from(5i64))].into();
    assert_eq!(run("SELECT $n * $n", &Parameters::Named(named)), "25\n");
}

#[test]
fn files_named_in_queries_leave_nothing_behind() {
    let place = Place::new("passing");
    place.file("a.csv", "x\n1\n");
    assert_eq!(place.rows("SELECT x FROM '$F/a.csv'"), "1\n");
    place.error("SELECT 1 FROM '$F/a.csv', '$F/missing.csv'");
    place.error("SELECT nothing FROM '$F/a.csv'");
    assert_eq!(place.context.tables(), []);
}

#[test]
fn many_threads_may_name_the_same_file() {
    let place = Place::new("threads");
    place.file("a.csv", "x\n1\n");
    let ask = || (0..50).for_each(|_| assert_eq!(place.rows("SELECT x FROM '$F/a.csv'"), "1\n"));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(ask);
        }
    });
}

#[test]
fn errors_say_what_and_where() {
    let place = Place::new("errors");
    place.file("t.csv", "amount,name\n1,a\n2,b\n");
    place.file("empty/.keep", "");
    place.file("broken.parquet", "PAR1 this is no Parquet file PAR1");
    place.file("wide.csv", "a,b\n1,2\n3,4,5\n6,7\n");
    place.rows("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '$F/t.csv'");
    let says = |text: &str, kind: Kind, parts: &[&str]| {
        let error = place.error(text);
        assert_eq!(error.kind, kind, "{text}: {error}");
        for part in parts {
            assert!(error.text.contains(part), "{text}: {part:?} is not in {error}");
        }
        assert!(!error.text.to_lowercase().contains("datafusion"), "{error}");
    };
    says("SELEC 1", Kind::Syntax, &["Line: 1"]);
    says("SELECT amont FROM t", Kind::Plan, &["amont", "did you mean t.amount?"]);
    says("SELECT 1 FROM tt", Kind::Plan, &["no table tt", "did you mean t?"]);
    says("SELECT 1 FROM '$F/nothing.csv'", Kind::Missing, &["nothing.csv"]);
    says("SELECT 1 FROM '$F/*.arrow'", Kind::Missing, &["*.arrow", "no file matches"]);
    says("SELECT 1 FROM '$F/empty/'", Kind::Missing, &["holds no data files"]);
    says("SELECT 1 FROM '$F/broken.parquet'", Kind::Data, &["broken.parquet"]);
    says("SELECT sum(a) FROM '$F/wide.csv'", Kind::Data, &["wide.csv", "line 3"]);
    says("SELECT CAST(name AS INT) FROM t", Kind::Data, &["'a'"]);
    says("SELECT nofunction(1)", Kind::Plan, &["nofunction"]);
}

#[test]
fn what_is_written_is_whole_or_not_there() {
    let place = Place::new("whole");
    let fails = "SELECT CASE WHEN value = 90000 THEN CAST('x' || value AS INT) ELSE value END AS v \
                 FROM generate_series(1, 100000) AS t(value)";
    for target in ["out.parquet", "out", "out.csv"] {
        let format = if target.ends_with("csv") { "CSV" } else { "PARQUET" };
        place.error(&format!("COPY ({fails}) TO '$F/{target}' STORED AS {format}"));
    }
    let left: Vec<_> = walk(&place.folder);
    assert!(left.is_empty(), "{left:?}");
    place.rows("COPY (SELECT 1 AS a) TO '$F/out' STORED AS PARQUET");
    assert_eq!(place.rows("SELECT a FROM '$F/out'"), "1\n");
    let error = place.error("COPY (SELECT 2 AS a) TO '$F/out' STORED AS PARQUET");
    assert!(error.text.contains("holds files already"), "{error}");
    place.rows("COPY (SELECT 2 AS a) TO '$F/out' STORED AS PARQUET OPTIONS (append true)");
    assert_eq!(place.rows("SELECT sum(a) FROM '$F/out'"), "3\n");
    place.rows("COPY (SELECT 7 AS a) TO '$F/out' STORED AS PARQUET OPTIONS (overwrite true)");
    assert_eq!(place.rows("SELECT a FROM '$F/out'"), "7\n");
}

#[test]
fn rows_are_added_to_tables_of_files() {
    let place = Place::new("insert");
    place.rows("CREATE EXTERNAL TABLE t (a BIGINT, b TEXT) STORED AS PARQUET LOCATION '$F/t/'");
    assert_eq!(place.rows("SELECT count(*) FROM t"), "0\n");
    assert_eq!(place.rows("INSERT INTO t VALUES (1, 'x'), (2, 'y')"), "2\n");
    assert_eq!(place.rows("INSERT INTO t SELECT 3, 'z'"), "1\n");
    assert_eq!(place.rows("SELECT sum(a), max(b) FROM t"), "6,z\n");
    place.rows("INSERT OVERWRITE t VALUES (9, 'w')");
    assert_eq!(place.rows("SELECT a, b FROM t"), "9,w\n");
}

fn walk(folder: &std::path::Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        match entry.path() {
            path if path.is_dir() => found.extend(walk(&path)),
            path => found.push(path),
        }
    }
    found
}

#[test]
fn texts_stand_for_missing_values() {
    let place = Place::new("missing");
    place.file("t.csv", "n,city\n1,NASHVILLE\nNA,NA\n3,\n");
    place.rows(
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '$F/t.csv' OPTIONS (null_values 'NA')",
    );
    assert_eq!(
        place.rows("SELECT sum(n), count(n), count(city), max(city) FROM t"),
        "4,2,1,NASHVILLE\n"
    );
    assert_eq!(place.rows("SELECT city FROM t WHERE n = 1"), "NASHVILLE\n");
}
