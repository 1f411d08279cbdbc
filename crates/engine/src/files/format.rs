//! The format of files: by their names, by what was said, by a look at their beginning.

use crate::{EngineError, Kind, Result};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::parsers::CompressionTypeVariant::UNCOMPRESSED;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::execution::SessionState;
use futures::StreamExt;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt};
use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;

/// Of a file that is looked through, so much at a time.
const SCANNED_NBYTES: usize = 1 << 20;

/// How much of a file is looked at.
const HEAD_NBYTES: u64 = 64 << 10;

/// Options of a format by name, such as `delimiter` or `has_header`.
pub type FormatOptions = HashMap<String, String>;

/// The name of a format and of a compression, as far as a file's name tells.
pub(super) fn of_name(name: &str) -> (Option<&'static str>, Option<&'static str>) {
    let lower = name.to_ascii_lowercase();
    let (base, compression) = match lower.rsplit_once('.') {
        Some((base, "gz" | "gzip")) => (base.to_owned(), Some("gzip")),
        Some((base, "bz2")) => (base.to_owned(), Some("bzip2")),
        Some((base, "xz")) => (base.to_owned(), Some("xz")),
        Some((base, "zst" | "zstd")) => (base.to_owned(), Some("zstd")),
        _ => (lower, None),
    };
    let format = match base.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "parquet" | "pq" | "parq" => Some("parquet"),
        "csv" | "tsv" | "tbl" => Some("csv"),
        "json" | "ndjson" | "jsonl" => Some("json"),
        "arrow" | "ipc" | "feather" | "arrows" => Some("arrow"),
        _ => None,
    };
    (format, compression)
}

/// The format of files, made of what the user said, the name of the first and a look into it.
pub(super) async fn decide(
    state: &SessionState,
    store: &Arc<dyn ObjectStore>,
    first: &ObjectMeta,
    named: Option<&str>,
    options: &FormatOptions,
) -> Result<Arc<dyn FileFormat>> {
    let name = first.location.filename().unwrap_or("");
    let (by_name, compression) = of_name(name);
    let format = match named.map(str::to_ascii_lowercase) {
        Some(named) => match named.as_str() {
            "tsv" => "csv".to_owned(),
            "ndjson" | "jsonl" => "json".to_owned(),
            "ipc" | "feather" => "arrow".to_owned(),
            _ => named,
        },
        None => by_name.map(str::to_owned).ok_or_else(|| unknown(name))?,
    };
    let mut options: FormatOptions =
        options.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect();
    if let Some(compression) = compression
        && matches!(format.as_str(), "csv" | "json")
    {
        options.entry("compression".into()).or_insert_with(|| compression.into());
    }
    if options.contains_key("null_regex") {
        let text = "null_regex is not supported; name the texts that stand for missing values \
                    with null_values";
        return Err(EngineError::new(Kind::Unsupported, text));
    }
    if let Some(texts) = take_missing(&mut options) {
        // For the types to be inferred by; `missing` makes NULL of them when rows are read.
        let texts: Vec<String> = texts.iter().map(|text| regex::escape(text)).collect();
        options.insert("null_regex".into(), format!("^({})$", texts.join("|")));
    }
    let is_plain = options.get("compression").is_none_or(|name| name == "uncompressed");
    let head = match format.as_str() {
        "csv" | "json" if is_plain && first.size > 0 => Some(head(store, first).await?),
        _ => None,
    };
    match format.as_str() {
        "csv" => {
            let is_tabs = name.to_ascii_lowercase().contains(".tsv") || named == Some("tsv");
            let by_look = || head.as_deref().map_or(',', delimiter).to_string();
            options
                .entry("delimiter".into())
                .or_insert_with(|| if is_tabs { "\t".into() } else { by_look() });
            if !options.contains_key("newlines_in_values")
                && head.as_ref().is_some_and(|head| head.contains(&b'"'))
            {
                // Lines within quotes must not be cut: what cuts files looks for line ends only.
                let has_lines = quoted_lines(store, first).await?;
                options.insert("newlines_in_values".into(), has_lines.to_string());
            }
        }
        "json" => {
            let is_array = head.as_deref().is_some_and(begins_an_array);
            let is_lines = (!is_array).to_string();
            options.entry("newline_delimited".into()).or_insert(is_lines);
        }
        _ => {}
    }
    let Some(factory) = state.get_file_format_factory(&format) else {
        return Err(EngineError::plan(format!(
            "there is no file format {format}; known are parquet, csv, json and arrow"
        )));
    };
    let prefixed = options.into_iter().map(|(name, value)| (format!("format.{name}"), value));
    Ok(factory.create(state, &prefixed.collect())?)
}

/// What separates the texts of `null_values`.
const SEPARATOR: char = '\u{1f}';

/// The texts that stand for missing values; the empty one always does.
fn take_missing(options: &mut FormatOptions) -> Option<Vec<String>> {
    let given = options.remove("null_values")?;
    let mut texts: Vec<String> = given.split(SEPARATOR).map(str::to_owned).collect();
    texts.push(String::new());
    texts.dedup();
    Some(texts)
}

/// The same, of options as the user gave them.
pub(super) fn missing(options: &FormatOptions) -> Option<Vec<String>> {
    let mut own = options.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone()));
    take_missing(&mut own.by_ref().collect())
}

fn unknown(name: &str) -> EngineError {
    EngineError::plan(format!(
        "the format of {name} is not known from its name; say which: \
         format='parquet', 'csv', 'json' or 'arrow'"
    ))
}

pub(super) async fn head(store: &Arc<dyn ObjectStore>, file: &ObjectMeta) -> Result<Vec<u8>> {
    let end = HEAD_NBYTES.min(file.size);
    let options = GetOptions { range: Some(GetRange::Bounded(0..end)), ..GetOptions::default() };
    let of = |error| rasker_io::IoError::of(&format!("/{}", file.location), error);
    let got = match store.get_opts(&file.location, options).await {
        // Some servers give a file whole or not at all; then the rest of it is not waited for.
        Err(object_store::Error::NotSupported { .. }) => store.get(&file.location).await,
        got => got,
    };
    let mut bytes = got.map_err(of)?.into_stream();
    let mut head = Vec::new();
    while let Some(more) = bytes.next().await.transpose().map_err(of)? {
        head.extend_from_slice(&more);
        if head.len() as u64 >= end {
            break;
        }
    }
    head.truncate(end as usize);
    Ok(head)
}

/// The delimiter that the first line has most of.
fn delimiter(head: &[u8]) -> char {
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or(b"");
    let mut within = false;
    let mut counts = [(b',', 0), (b'\t', 0), (b';', 0), (b'|', 0)];
    for byte in line {
        within ^= *byte == b'"';
        if let Some((_, n)) = counts.iter_mut().find(|(sign, _)| sign == byte && !within) {
            *n += 1;
        }
    }
    // The first of those with the most: a comma unless another is there more often.
    let most = counts.iter().map(|(_, n)| *n).max().unwrap_or(0);
    counts.iter().find(|(_, n)| *n == most).map_or(',', |(sign, _)| *sign as char)
}

/// The columns of a file of text, where the format itself would look for line ends only.
pub(super) async fn csv_schema(
    format: &CsvFormat,
    store: &Arc<dyn ObjectStore>,
    file: &ObjectMeta,
) -> Result<Option<SchemaRef>> {
    let options = format.options();
    if options.newlines_in_values != Some(true) || options.compression != UNCOMPRESSED {
        return Ok(None);
    }
    let head = head(store, file).await?;
    // The last line may be cut short: up to the last end of a line that is not within quotes.
    let mut is_within = false;
    let mut end = head.len();
    for at in memchr::memchr2_iter(options.quote, b'\n', &head) {
        match head[at] {
            b'\n' if !is_within && file.size > head.len() as u64 => end = at + 1,
            b'\n' => {}
            _ => is_within = !is_within,
        }
    }
    let mut reader = datafusion::arrow::csv::reader::Format::default()
        .with_header(options.has_header.unwrap_or(true))
        .with_delimiter(options.delimiter)
        .with_quote(options.quote);
    if let Some(escape) = options.escape {
        reader = reader.with_escape(escape);
    }
    if let Some(comment) = options.comment {
        reader = reader.with_comment(comment);
    }
    if let Some(missing) = &options.null_regex {
        let missing = regex::Regex::new(missing);
        reader = reader.with_null_regex(missing.map_err(|e| EngineError::plan(e.to_string()))?);
    }
    let (schema, _) = reader.infer_schema(&head[..end], options.schema_infer_max_rec)?;
    Ok(Some(Arc::new(schema)))
}

/// Whether text within quotes goes over several lines. What is far away is not read for it: there
/// it is taken to be so.
async fn quoted_lines(store: &Arc<dyn ObjectStore>, file: &ObjectMeta) -> Result<bool> {
    if !store.to_string().starts_with("LocalFileSystem") {
        return Ok(true);
    }
    let path = std::path::PathBuf::from(format!("/{}", file.location));
    let scan = move || quoted_lines_of(&path, b'"');
    let found = tokio::task::spawn_blocking(scan).await;
    let found = found.map_err(|error| EngineError::new(Kind::Internal, error.to_string()))?;
    found.map_err(|error| EngineError::new(Kind::Data, format!("/{}: {error}", file.location)))
}

fn quoted_lines_of(path: &std::path::Path, quote: u8) -> std::io::Result<bool> {
    let mut file = std::fs::File::open(path)?;
    let mut buffer = vec![0; SCANNED_NBYTES];
    let mut is_within = false;
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok(false);
        }
        let bytes = &buffer[..n];
        let mut from = 0;
        for at in memchr::memchr_iter(quote, bytes) {
            if is_within && bytes[from..at].contains(&b'\n') {
                return Ok(true);
            }
            is_within = !is_within;
            from = at;
        }
        if is_within && bytes[from..].contains(&b'\n') {
            return Ok(true);
        }
    }
}

fn begins_an_array(head: &[u8]) -> bool {
    head.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[')
}

/// An error of a kind for a file that is damaged, with its name.
pub(super) fn damaged(file: &ObjectMeta, error: EngineError) -> EngineError {
    match error.kind {
        Kind::Data | Kind::Internal => {
            EngineError::new(Kind::Data, error.text).at(&format!("/{}", file.location))
        }
        _ => error,
    }
}
