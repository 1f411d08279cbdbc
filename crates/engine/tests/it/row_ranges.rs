//! Parquet files that several partitions read: each row once, and about as many by each.

use crate::stages::{GO_ON, texts};
use rasker_engine::{Context, Fragment, FragmentRunner, Parameters, Rows, batches_of};
use rasker_engine::{Environment, Settings};
use std::path::PathBuf;
use std::sync::Arc;

struct Files {
    folder: PathBuf,
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn context(threads: usize) -> (Arc<Environment>, Context) {
    let settings = Settings { threads, ..Settings::default() };
    let environment = Arc::new(Environment::new(&settings).expect("an environment"));
    (environment.clone(), Context::within(environment))
}

fn said(context: &Context, text: &str) -> Vec<String> {
    let query = context.sql(text, &Parameters::None, &Rows::here(GO_ON));
    let rows = query.and_then(|query| query.collect(GO_ON));
    texts(&rows.unwrap_or_else(|error| panic!("{text}: {error}")))
}

/// Files of 100,000 rows in row groups of so many.
fn files(name: &str, group_sizes: &[usize]) -> Files {
    let folder = std::env::temp_dir().join(format!("rasker-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let (_, context) = context(1);
    for size in group_sizes {
        let file = folder.join(format!("{size}.parquet"));
        said(
            &context,
            &format!(
                "COPY (SELECT value AS id, value % 1000 AS k, sha256(CAST(value AS VARCHAR)) AS h, \
                 CASE WHEN value % 3 = 0 THEN NULL ELSE 'text ' || (value % 77) END AS t \
                 FROM generate_series(0, 99999)) TO '{}' STORED AS PARQUET \
                 OPTIONS ('format.max_row_group_size' '{size}')",
                file.display()
            ),
        );
    }
    Files { folder }
}

const GROUP_SIZES: [usize; 4] = [100_000, 51_000, 30_000, 4_000];

#[test]
fn each_row_is_read_once_wherever_files_are_cut() {
    let files = files("cut", &GROUP_SIZES);
    for threads in [1, 2, 3, 5, 16] {
        let (_, context) = context(threads);
        for size in GROUP_SIZES {
            let table = format!("'{}/{size}.parquet'", files.folder.display());
            for (what, expected) in [
                (
                    "count(*), count(DISTINCT id), sum(id), count(t)",
                    "100000|100000|4999950000|66666",
                ),
                ("count(DISTINCT h)", "100000"),
            ] {
                let text = format!("SELECT {what} FROM {table}");
                assert_eq!(said(&context, &text), [expected], "{threads} threads: {text}");
            }
            for (condition, n) in
                [("k = 7", 100), ("id BETWEEN 49000 AND 52000", 3001), ("t = 'text 5'", 866)]
            {
                let text = format!("SELECT count(h) FROM {table} WHERE {condition}");
                assert_eq!(said(&context, &text), [n.to_string()], "{threads} threads: {text}");
            }
            // In the order of the file.
            let text = format!("SELECT id FROM {table} WHERE k < 10");
            let ids: Vec<i64> =
                said(&context, &text).iter().map(|id| id.parse().expect("a number")).collect();
            let shown = (ids.len(), ids.windows(2).position(|pair| pair[0] > pair[1]));
            assert_eq!(shown, (1000, None), "{threads} threads: {text}");
            let text = format!("SELECT id FROM {table} ORDER BY id DESC LIMIT 3");
            assert_eq!(said(&context, &text), ["99999", "99998", "99997"]);
        }
    }
}

#[test]
fn a_file_of_one_row_group_is_read_by_all_tasks() {
    let files = files("shared-out", &GROUP_SIZES);
    let (environment, context) = context(2);
    let runner = FragmentRunner::new(environment);
    for size in GROUP_SIZES {
        for n in [2, 3, 7] {
            let text = format!("SELECT id, h FROM '{}/{size}.parquet'", files.folder.display());
            let query = context.sql(&text, &Parameters::None, &Rows::here(GO_ON)).expect("a plan");
            let stages = query.stages(n, u64::MAX, GO_ON).expect("stages").stages;
            let [stage] = stages.as_slice() else { panic!("{} stages", stages.len()) };
            let fragment = Fragment::new(stage, Vec::new()).expect("a fragment");
            let mut counts = Vec::new();
            for task in 0..stage.n_tasks {
                let parts = runner.run(&fragment, task, Vec::new(), None, GO_ON).expect("rows");
                let bytes: Vec<&[u8]> = parts.0[0].iter().map(|buffer| buffer.as_slice()).collect();
                let (_, rows) = batches_of(bytes::Bytes::from(bytes.concat())).expect("batches");
                counts.push(rows.iter().map(|batch| batch.num_rows()).sum::<usize>());
            }
            assert_eq!((counts.len(), counts.iter().sum::<usize>()), (n, 100_000), "{size}");
            let fair = 100_000 / n;
            let most = fair + if size == 4_000 { 4_000 } else { fair / 5 };
            assert!(counts.iter().all(|count| *count <= most), "{n} tasks, {size}: {counts:?}");
        }
    }
}
