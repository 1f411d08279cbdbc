//! What went wrong, said for the person who asked.

use datafusion::arrow::error::ArrowError;
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use rasker_io::IoError;
use std::fmt;
use std::sync::Arc;

/// What kind of failure it was: callers tell them apart by this, people by the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The text is not SQL.
    Syntax,
    /// It is SQL, but asks for what is not there or does not fit.
    Plan,
    /// A file that is not there.
    Missing,
    /// A file that may not be read or written.
    Denied,
    /// Data that is damaged, or not what it was said to be.
    Data,
    /// More memory than there is.
    Memory,
    /// What is not supported.
    Unsupported,
    /// The caller asked to stop.
    Cancelled,
    /// A fault of the engine.
    Internal,
}

/// A failure and its text: what failed, why, what to do.
#[derive(Clone, Debug)]
pub struct EngineError {
    pub kind: Kind,
    pub text: String,
    /// What a function of the caller failed with, for him to find again.
    pub cause: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

pub type Result<T, E = EngineError> = std::result::Result<T, E>;

impl EngineError {
    pub fn new(kind: Kind, text: impl Into<String>) -> EngineError {
        EngineError { kind, text: text.into(), cause: None }
    }

    pub fn plan(text: impl Into<String>) -> EngineError {
        EngineError::new(Kind::Plan, text)
    }

    pub fn cancelled() -> EngineError {
        EngineError::new(Kind::Cancelled, "the query was cancelled")
    }

    /// The same, with what it came from.
    pub fn because(mut self, cause: impl std::error::Error + Send + Sync + 'static) -> EngineError {
        self.cause = Some(Arc::new(cause));
        self
    }

    /// The same, with what it was about in front.
    pub fn at(mut self, what: &str) -> EngineError {
        if !self.text.contains(what) {
            self.text = format!("{what}: {}", self.text);
        }
        self
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for EngineError {}

/// Through operators of the engine and back, without losing its kind.
impl From<EngineError> for DataFusionError {
    fn from(error: EngineError) -> DataFusionError {
        DataFusionError::External(Box::new(error))
    }
}

impl From<IoError> for EngineError {
    fn from(error: IoError) -> EngineError {
        let kind = match &error {
            IoError::Missing(_) | IoError::NothingMatches(_) | IoError::EmptyFolder(_) => {
                Kind::Missing
            }
            IoError::Denied { .. } => Kind::Denied,
            IoError::Malformed(..) | IoError::Option { .. } => Kind::Plan,
            IoError::Scheme { .. } | IoError::NotListed(_) => Kind::Unsupported,
            IoError::Unreachable { .. } => Kind::Data,
        };
        EngineError::new(kind, error.to_string())
    }
}

impl From<ArrowError> for EngineError {
    fn from(error: ArrowError) -> EngineError {
        DataFusionError::from(error).into()
    }
}

impl From<DataFusionError> for EngineError {
    fn from(error: DataFusionError) -> EngineError {
        of(&error)
    }
}

fn of(error: &DataFusionError) -> EngineError {
    use DataFusionError as E;
    let make = |kind, text: String| EngineError::new(kind, tidy(&text));
    match error {
        E::SQL(error, _) => make(Kind::Syntax, error.to_string()),
        E::SchemaError(error, _) => make(Kind::Plan, schema_text(error)),
        E::Plan(text) => make(plan_kind(text), text.clone()),
        E::Configuration(text) => make(Kind::Plan, text.clone()),
        E::NotImplemented(text) => {
            make(Kind::Unsupported, format!("not supported: {}", unsupported_text(text)))
        }
        E::ResourcesExhausted(text) => make(
            Kind::Memory,
            format!("{text}; raise the memory limit, or give the disk for spilling more room"),
        ),
        E::ArrowError(error, _) => of_arrow(error),
        E::ParquetError(error) => make(Kind::Data, format!("the Parquet file is damaged: {error}")),
        E::ObjectStore(error) => IoError::of(&place_of(error), store_error(error)).into(),
        E::IoError(error) => make(Kind::Data, error.to_string()),
        E::External(error) => match error.downcast_ref::<EngineError>() {
            Some(own) => own.clone(),
            None => match error.downcast_ref::<DataFusionError>() {
                Some(inner) => of(inner),
                None => make(Kind::Data, error.to_string()),
            },
        },
        E::Context(context, inner) => {
            let inner = of(inner);
            // Names of rules and of source files say nothing to a user.
            if context.contains(".rs:") || !context.contains(' ') {
                return inner;
            }
            EngineError { text: format!("{context}: {}", inner.text), ..inner }
        }
        E::Diagnostic(_, inner) => of(inner),
        E::Collection(all) => all.first().map_or_else(
            || EngineError::new(Kind::Internal, "several errors, of which none is known"),
            of,
        ),
        E::Shared(inner) => of(inner),
        E::Execution(text) => make(Kind::Data, text.clone()),
        E::ExecutionJoin(error) if error.is_cancelled() => EngineError::cancelled(),
        other => make(Kind::Internal, other.to_string()),
    }
}

fn of_arrow(error: &ArrowError) -> EngineError {
    match error {
        ArrowError::ExternalError(inner) => match inner.downcast_ref::<DataFusionError>() {
            Some(inner) => of(inner),
            None => match inner.downcast_ref::<EngineError>() {
                Some(own) => own.clone(),
                None => EngineError::new(Kind::Data, inner.to_string()),
            },
        },
        ArrowError::NotYetImplemented(text) => {
            EngineError::new(Kind::Unsupported, format!("not supported: {text}"))
        }
        ArrowError::DivideByZero => EngineError::new(Kind::Data, "division by zero"),
        other => {
            let text = other.to_string();
            // "Csv error: …", "Cast error: …": the kind of error is in the text that follows.
            let text = text.split_once(" error: ").map_or(text.as_str(), |(_, rest)| rest);
            EngineError::new(Kind::Data, tidy(text))
        }
    }
}

/// What the planner calls by the names of its types.
fn unsupported_text(text: &str) -> &str {
    const SUBQUERIES: [&str; 4] =
        ["ScalarSubquery", "OuterReferenceColumn", "Exists", "InSubquery"];
    let is_planner = text.contains("Physical plan does not support logical expression");
    if is_planner && SUBQUERIES.iter().any(|name| text.contains(name)) {
        "a subquery that depends on the row around it other than by equality, or within GROUP BY \
         or an aggregate; write it as a join"
    } else {
        text
    }
}

fn plan_kind(text: &str) -> Kind {
    if text.contains("not supported") || text.contains("Unsupported") {
        Kind::Unsupported
    } else {
        Kind::Plan
    }
}

fn schema_text(error: &SchemaError) -> String {
    let SchemaError::FieldNotFound { field, valid_fields } = error else {
        return error.to_string();
    };
    let mut names: Vec<String> = valid_fields.iter().map(|field| field.flat_name()).collect();
    let wanted = field.flat_name();
    let mut text = format!("there is no column {wanted}");
    let near = names
        .iter()
        .map(|name| (distance(&field.name, name.rsplit('.').next().unwrap_or(name)), name))
        .min()
        .filter(|(n, _)| *n <= 1 + field.name.chars().count() / 3);
    if let Some((_, near)) = near {
        text.push_str(&format!("; did you mean {near}?"));
    }
    let n_more = names.len().saturating_sub(20);
    names.truncate(20);
    text.push_str(&format!(" (columns are {}", names.join(", ")));
    text.push_str(&if n_more > 0 { format!(" and {n_more} more)") } else { ")".into() });
    text
}

/// How many letters two names differ by, whatever their case.
pub(crate) fn distance(a: &str, b: &str) -> usize {
    let lower = |text: &str| text.to_lowercase().chars().collect::<Vec<_>>();
    let (a, b) = (lower(a), lower(b));
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let change = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

/// Without the prefixes and advice that speak of the library beneath.
fn tidy(text: &str) -> String {
    let mut text = text.trim();
    for prefix in
        ["Error during planning: ", "sql parser error: ", "ParserError(", "External error: "]
    {
        text = text.strip_prefix(prefix).unwrap_or(text);
    }
    match text.find("This issue was likely caused by a bug in DataFusion") {
        Some(at) => text[..at].trim_end().to_owned(),
        None => text.to_owned(),
    }
}

fn place_of(error: &object_store::Error) -> String {
    match error {
        object_store::Error::NotFound { path, .. }
        | object_store::Error::PermissionDenied { path, .. }
        | object_store::Error::Unauthenticated { path, .. } => format!("/{path}"),
        other => other.to_string(),
    }
}

/// Errors of stores cannot be copied; what matters of them can.
fn store_error(error: &object_store::Error) -> object_store::Error {
    use object_store::Error;
    let source: Box<dyn std::error::Error + Send + Sync> = error.to_string().into();
    match error {
        Error::NotFound { path, .. } => Error::NotFound { path: path.clone(), source },
        Error::PermissionDenied { path, .. } => {
            Error::PermissionDenied { path: path.clone(), source }
        }
        Error::Unauthenticated { path, .. } => {
            Error::Unauthenticated { path: path.clone(), source }
        }
        _ => Error::Generic { store: "store", source },
    }
}
