//! Rows as text, for people and for programs that read text.

use crate::{EngineError, Kind, Result};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::csv::WriterBuilder;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::json::LineDelimitedWriter;
use datafusion::arrow::util::display::FormatOptions;
use datafusion::arrow::util::pretty::pretty_format_batches_with_schema;

/// A form of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextKind {
    /// Boxes of columns.
    Table,
    Csv,
    /// An object on each line.
    Json,
}

impl TextKind {
    /// # Errors
    ///
    /// For a name that is none of `table`, `csv` and `json`.
    pub fn of_name(name: &str) -> Result<TextKind> {
        match name {
            "table" => Ok(TextKind::Table),
            "csv" => Ok(TextKind::Csv),
            "json" => Ok(TextKind::Json),
            _ => Err(EngineError::plan(format!("{name} is none of table, csv and json"))),
        }
    }
}

/// Batches as text; `is_first` says whether the names of the columns go before them.
pub fn text_of(
    schema: &SchemaRef,
    batches: &[RecordBatch],
    kind: TextKind,
    is_first: bool,
) -> Result<String> {
    let mut bytes = Vec::new();
    match kind {
        TextKind::Table => {
            let missing = FormatOptions::default().with_null("NULL").with_display_error(true);
            let drawn = pretty_table(schema, batches, &missing)?;
            bytes.extend(drawn.as_bytes());
        }
        TextKind::Csv => {
            let mut writer = WriterBuilder::new().with_header(is_first).build(&mut bytes);
            if batches.is_empty() && is_first {
                writer.write(&RecordBatch::new_empty(schema.clone()))?;
            }
            batches.iter().try_for_each(|batch| writer.write(batch))?;
        }
        TextKind::Json => {
            let mut writer = LineDelimitedWriter::new(&mut bytes);
            batches.iter().try_for_each(|batch| writer.write(batch))?;
            writer.finish()?;
        }
    }
    String::from_utf8(bytes)
        .map_err(|_| EngineError::new(Kind::Data, "rows hold text that is not UTF-8"))
}

fn pretty_table(
    schema: &SchemaRef,
    batches: &[RecordBatch],
    options: &FormatOptions<'_>,
) -> Result<String> {
    if batches.is_empty() {
        return Ok(pretty_format_batches_with_schema(schema.clone(), &[])?.to_string());
    }
    let drawn =
        datafusion::arrow::util::pretty::pretty_format_batches_with_options(batches, options)?;
    Ok(drawn.to_string())
}
