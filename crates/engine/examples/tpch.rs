//! Times the 22 queries of TPC-H over Parquet files.
//!
//! `cargo run --release -p rasker-engine --example tpch -- DIRECTORY [--plain] [--only 3,18]
//! [--repeat 3] [--threads 2] [--memory MiB] [--explain] [--check] [--set NAME=VALUE]`
//!
//! `--plain` leaves DataFusion as it comes; `--check` compares the answers with and without our
//! rules instead of timing them.

use std::sync::Arc;
use std::time::Instant;

use datafusion::arrow::record_batch::RecordBatch;
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::error::Result;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TABLES: [&str; 8] =
    ["customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier"];

struct Options {
    directory: String,
    plain: bool,
    explain: bool,
    check: bool,
    repeat: usize,
    threads: usize,
    memory: Option<usize>,
    only: Vec<usize>,
    settings: Vec<(String, String)>,
}

fn options() -> Options {
    let mut arguments = std::env::args().skip(1);
    let mut options = Options {
        directory: String::new(),
        plain: false,
        explain: false,
        check: false,
        repeat: 3,
        threads: 2,
        memory: None,
        only: (1..=22).collect(),
        settings: vec![],
    };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().expect("a value follows the option");
        match argument.as_str() {
            "--plain" => options.plain = true,
            "--explain" => options.explain = true,
            "--check" => options.check = true,
            "--repeat" => options.repeat = value().parse().expect("a number"),
            "--threads" => options.threads = value().parse().expect("a number"),
            "--memory" => options.memory = Some(value().parse().expect("a number")),
            "--only" => {
                let number = |part: &str| part.parse().expect("a number");
                options.only = value().split(',').map(number).collect();
            }
            "--set" => {
                let pair = value();
                let (name, value) = pair.split_once('=').expect("name=value");
                options.settings.push((name.into(), value.into()));
            }
            directory => options.directory = directory.into(),
        }
    }
    options
}

async fn context(options: &Options, plain: bool) -> Result<SessionContext> {
    let mut config = SessionConfig::new().with_target_partitions(options.threads);
    if !plain {
        rasker_engine::hot::tune(&mut config);
    }
    for (name, value) in &options.settings {
        config = config.set_str(name, value);
    }
    let mut state = SessionStateBuilder::new_with_default_features().with_config(config);
    if let Some(mebibytes) = options.memory {
        let pool = Arc::new(FairSpillPool::new(mebibytes << 20));
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(pool).build_arc()?;
        state = state.with_runtime_env(runtime);
    }
    if !plain {
        state = state.with_physical_optimizer_rules(rasker_engine::hot::physical_rules());
    }
    let context = SessionContext::new_with_state(state.build());
    for table in TABLES {
        let path = format!("{}/{table}.parquet", options.directory);
        context.register_parquet(table, path, ParquetReadOptions::default()).await?;
    }
    Ok(context)
}

fn queries() -> Vec<&'static str> {
    let text = include_str!("tpch.sql");
    text.split("-- Q").skip(1).map(|part| part.split_once('\n').expect("a line").1).collect()
}

async fn answer(context: &SessionContext, query: &str) -> Result<Vec<RecordBatch>> {
    context.sql(query.trim().trim_end_matches(';')).await?.collect().await
}

fn cpu_ms() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("procfs");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |index: usize| fields[index].parse::<f64>().unwrap_or(0.0);
    (ticks(11) + ticks(12)) * 10.0
}

async fn check(options: &Options) -> Result<()> {
    let (plain, ours) = (context(options, true).await?, context(options, false).await?);
    for &number in &options.only {
        let query = queries()[number - 1];
        let lines = |batches: Vec<RecordBatch>| -> Result<Vec<String>> {
            let text = pretty_format_batches(&batches)?.to_string();
            Ok(text.lines().map(str::to_owned).collect())
        };
        let expected = lines(answer(&plain, query).await?)?;
        let got = lines(answer(&ours, query).await?)?;
        let verdict = if expected == got { "same" } else { "DIFFERENT" };
        println!("Q{number:<2} {verdict} ({} lines)", got.len());
        assert!(expected == got, "Q{number}:\n{}\n{}", expected.join("\n"), got.join("\n"));
    }
    Ok(())
}

async fn time(options: &Options) -> Result<()> {
    let context = context(options, options.plain).await?;
    let (mut total, mut total_cpu) = (0.0, 0.0);
    for &number in &options.only {
        let query = queries()[number - 1];
        if options.explain {
            let text = format!("explain analyze {query}");
            let batches = answer(&context, &text).await?;
            println!("{}", pretty_format_batches(&batches)?);
            continue;
        }
        let mut best = f64::MAX;
        let cpu = cpu_ms();
        for _ in 0..options.repeat {
            let start = Instant::now();
            if let Err(error) = answer(&context, query).await {
                println!("Q{number:<2} failed: {error}");
                break;
            }
            best = best.min(start.elapsed().as_secs_f64() * 1e3);
        }
        let cpu = (cpu_ms() - cpu) / options.repeat as f64;
        total += best;
        total_cpu += cpu;
        println!("Q{number:<2} {best:8.1} ms {cpu:8.0} ms of processor");
    }
    println!("all {total:8.1} ms {total_cpu:8.0} ms of processor");
    Ok(())
}

fn main() -> Result<()> {
    let options = options();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(options.threads)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let work = tokio::spawn(async move {
            if options.check { check(&options).await } else { time(&options).await }
        });
        work.await.expect("the work does not panic")
    })
}
