//! A catalog of tables, and statements over it.

use crate::dialect::{self, Rewritten};
use crate::environment::{Environment, Settings};
use crate::files::{FileTable, FilesOptions, Staging, is_place};
use crate::query::{Query, plain};
use crate::rows::Rows;
use crate::{EngineError, Kind, Result, functions, hot, names};
use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{MemTable, TableProvider};
use datafusion::common::config::ConfigNonZeroUsize;
use datafusion::common::{ParamValues, ScalarValue, TableReference};
use datafusion::datasource::file_format::format_as_file_type;
use datafusion::datasource::listing::ListingTableUrl;
use datafusion::datasource::provider_as_source;
use datafusion::execution::SessionState;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::dml::CopyTo;
use datafusion::logical_expr::{
    CreateExternalTable, DdlStatement, LogicalPlan, LogicalPlanBuilder,
};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::Statement as SqlStatement;
use rasker_io::{Location, StoreOptions};
use std::collections::HashMap;
use std::sync::Arc;

const CATALOG: &str = "rasker";
const SCHEMA: &str = "public";

/// Rows of a batch in memory, at most.
const SLICE_ROWS: usize = 64 << 10;

/// Values for the placeholders of a statement.
#[derive(Clone, Debug)]
pub enum Parameters {
    None,
    /// For `?`, in their order, and for `$1`, `$2` …
    Positional(Vec<ScalarValue>),
    /// For `$name`.
    Named(HashMap<String, ScalarValue>),
}

/// Where and how rows are written.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// A path or URL: of a file if it has an extension, else of a folder.
    pub target: String,
    /// `parquet`, `csv`, `json` or `arrow`.
    pub format: String,
    /// Of the format; besides `overwrite` and `append` for folders that hold files.
    pub options: HashMap<String, String>,
    /// Columns whose values become names of folders.
    pub partition_by: Vec<String>,
}

/// A table as a catalog lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableEntry {
    pub schema: String,
    pub name: String,
    /// `table` or `view`.
    pub kind: &'static str,
}

/// Tables by name, and statements over them.
pub struct Context {
    environment: Arc<Environment>,
    session: SessionContext,
    /// Held while files that a statement names are tables.
    passing: tokio::sync::Mutex<()>,
}

impl Context {
    pub fn new(settings: &Settings) -> Result<Context> {
        Ok(Self::within(Arc::new(Environment::new(settings)?)))
    }

    pub fn within(environment: Arc<Environment>) -> Context {
        let mut config = SessionConfig::new()
            .with_target_partitions(environment.n_threads)
            .with_information_schema(true)
            .with_default_catalog_and_schema(CATALOG, SCHEMA)
            .with_create_default_catalog_and_schema(true);
        hot::tune(&mut config);
        let state = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(environment.resources.clone())
            .with_default_features()
            .with_physical_optimizer_rules(hot::physical_rules())
            .build();
        let session = SessionContext::new_with_state(state);
        functions::scalars().iter().for_each(|function| session.register_udf((**function).clone()));
        let ours = functions::aggregates();
        ours.iter().for_each(|function| session.register_udaf((**function).clone()));
        Context { environment, session, passing: Default::default() }
    }

    /// What fragments are decoded with: the functions of this context, one partition at a time.
    pub(crate) fn fragment_state(&self) -> SessionState {
        let mut state = self.state();
        let execution = &mut state.config_mut().options_mut().execution;
        execution.target_partitions = 1;
        // A task that took files of its neighbors would read them a second time.
        execution.enable_file_stream_work_stealing = false;
        // A task runs on one thread, and writes one file.
        if let Ok(one) = ConfigNonZeroUsize::try_new(1) {
            execution.minimum_parallel_output_files = one;
        }
        state
    }

    pub(crate) fn session(&self) -> &SessionContext {
        &self.session
    }

    pub fn environment(&self) -> &Arc<Environment> {
        &self.environment
    }

    fn state(&self) -> SessionState {
        self.session.state()
    }

    /// Names files as a table; `check` is asked now and then whether to go on.
    pub fn create_files(
        &self,
        name: &str,
        options: FilesOptions,
        check: &dyn Fn() -> bool,
    ) -> Result<()> {
        let state = self.state();
        let table = FileTable::new(&self.environment, &state, options);
        let table = self.environment.wait(table, check)?;
        self.register(name, Arc::new(table))
    }

    /// Names batches as a table that stays in memory.
    pub fn create_batches(
        &self,
        name: &str,
        schema: SchemaRef,
        batches: Vec<RecordBatch>,
    ) -> Result<()> {
        // One large batch would be the work of one thread; slices copy nothing.
        let slices = |batch: RecordBatch| {
            let starts = (0..batch.num_rows()).step_by(SLICE_ROWS);
            let slice = |start| batch.slice(start, SLICE_ROWS.min(batch.num_rows() - start));
            starts.map(slice).collect::<Vec<_>>()
        };
        let batches: Vec<RecordBatch> = batches.into_iter().flat_map(slices).collect();
        let n = self.environment.n_threads.min(batches.len()).max(1);
        // Neighbors stay together, so that rows keep their order.
        let share = batches.len().div_ceil(n).max(1);
        let mut parts: Vec<Vec<RecordBatch>> = batches.chunks(share).map(<[_]>::to_vec).collect();
        if parts.is_empty() {
            parts.push(Vec::new());
        }
        self.register(name, Arc::new(MemTable::try_new(schema, parts)?))
    }

    /// Names a table; one of that name is replaced.
    fn register(&self, name: &str, table: Arc<dyn TableProvider>) -> Result<()> {
        let reference = reference(name);
        self.session.deregister_table(reference.clone())?;
        self.session.register_table(reference, table)?;
        Ok(())
    }

    pub fn drop_table(&self, name: &str) -> Result<()> {
        match self.session.deregister_table(reference(name))? {
            Some(_) => Ok(()),
            None => Err(names::no_table(name, &self.tables())),
        }
    }

    pub fn tables(&self) -> Vec<TableEntry> {
        let Some(catalog) = self.session.catalog(CATALOG) else { return Vec::new() };
        let mut entries = Vec::new();
        for schema_name in catalog.schema_names() {
            let Some(schema) = catalog.schema(&schema_name) else { continue };
            for name in schema.table_names() {
                let found = futures::executor::block_on(schema.table(&name)).ok().flatten();
                let is_view = found.is_some_and(|table| {
                    table.table_type() == datafusion::datasource::TableType::View
                });
                let kind = if is_view { "view" } else { "table" };
                entries.push(TableEntry { schema: schema_name.clone(), name, kind });
            }
        }
        entries.sort_by(|a, b| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)));
        entries
    }

    pub fn schema_of(&self, name: &str) -> Result<SchemaRef> {
        let provider = futures::executor::block_on(self.session.table_provider(reference(name)));
        provider.map(|table| table.schema()).map_err(|_| names::no_table(name, &self.tables()))
    }

    /// Runs statements; all but the last are run to their end. A query is only planned, everything
    /// else is done when this returns, with rows that `rows` makes.
    pub fn sql(&self, text: &str, parameters: &Parameters, rows: &Rows<'_>) -> Result<Query> {
        let mut statements = dialect::parse(text)?;
        let Some(last) = statements.pop() else {
            return Err(EngineError::new(Kind::Syntax, "there is no statement in the text"));
        };
        for statement in statements {
            let query = self.run(statement, parameters, rows)?;
            if !query.is_done() {
                rows.of(&query)?;
            }
        }
        self.run(last, parameters, rows)
    }

    fn run(
        &self,
        mut statement: Statement,
        parameters: &Parameters,
        rows: &Rows<'_>,
    ) -> Result<Query> {
        names::number_placeholders(&mut statement);
        let planned = self.environment.wait(self.plan(statement), rows.check)?;
        let plan = match parameters {
            Parameters::None => planned,
            Parameters::Positional(values) => {
                let values: Vec<_> = values.iter().cloned().map(Into::into).collect();
                planned.with_param_values(ParamValues::List(values))?
            }
            Parameters::Named(values) => {
                let named =
                    |(name, value): (&String, &ScalarValue)| (name.clone(), value.clone().into());
                planned.with_param_values(ParamValues::Map(values.iter().map(named).collect()))?
            }
        };
        let plan = self.with_rows(plan, rows)?;
        let query = self.environment.wait(self.act(plan), rows.check)?;
        match query.is_eager() {
            true => {
                let made = rows.of(&query)?;
                Ok(query.done(made))
            }
            false => Ok(query),
        }
    }

    /// The plan of a `CREATE TABLE AS` with the rows of its query in the query's place.
    fn with_rows(&self, plan: LogicalPlan, rows: &Rows<'_>) -> Result<LogicalPlan> {
        let LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(mut create)) = plan else {
            return Ok(plan);
        };
        let exists = self.session.table_exist(create.name.clone())?;
        if !rows.are_elsewhere() || (exists && !create.or_replace) {
            return Ok(LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(create)));
        }
        let query = Query::new(self.environment.clone(), self.state(), (*create.input).clone());
        let made = rows.of(&query)?;
        let schema = create.input.schema().inner().clone();
        let made = made.into_iter().map(|batch| plain(batch, &schema));
        let made = MemTable::try_new(schema.clone(), vec![made.collect::<Result<_>>()?])?;
        let source = provider_as_source(Arc::new(made));
        create.input = Arc::new(LogicalPlanBuilder::scan("rows", source, None)?.build()?);
        Ok(LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(create)))
    }

    /// The statement in forms that the planner knows. Queries whose columns a rule of the dialect
    /// needs are planned on the way.
    async fn known_form(&self, statement: Statement) -> Result<Statement> {
        let mut known = dialect::Known::new();
        loop {
            match dialect::rewrite(&statement, &known)? {
                Rewritten::Done(statement) => return Ok(*statement),
                Rewritten::Wants(query) => {
                    let text = query.to_string();
                    let query = Statement::Statement(Box::new(SqlStatement::Query(query)));
                    let plan = Box::pin(self.plan(query)).await?;
                    let columns = plan.schema().fields().iter().map(|field| field.name().clone());
                    known.insert(text, columns.collect());
                }
            }
        }
    }

    async fn plan(&self, statement: Statement) -> Result<LogicalPlan> {
        let mut statement = self.known_form(statement).await?;
        let state = self.state();
        let mut places = Vec::new();
        let mut schemas = Vec::new();
        names::spell_tables(&mut statement, &self.tables());
        for table in state.resolve_table_references(&statement)? {
            let is_of_files = is_place(table.table()) && table.schema().is_none();
            let provider: Arc<dyn TableProvider> =
                match self.session.table_provider(table.clone()).await {
                    Ok(provider) => provider,
                    Err(_) if is_of_files => {
                        let options = FilesOptions {
                            locations: vec![table.table().to_owned()],
                            hive: true,
                            ..FilesOptions::default()
                        };
                        Arc::new(FileTable::new(&self.environment, &state, options).await?)
                    }
                    // Planning says what is missing, and common table expressions are not tables.
                    Err(_) => continue,
                };
            schemas.push(provider.schema());
            if is_of_files {
                places.push((table, provider));
            }
        }
        names::spell_columns(&mut statement, &schemas);
        let planned = self.plan_over(statement, places).await;
        planned.map_err(|error| names::with_near_table(error, &self.tables()))
    }

    /// Plans a statement that names files, which are tables for as long as that takes.
    async fn plan_over(
        &self,
        statement: Statement,
        places: Vec<(TableReference, Arc<dyn TableProvider>)>,
    ) -> Result<LogicalPlan> {
        // Another thread may name the same files: what one takes away the other would miss.
        let _alone = match places.is_empty() {
            true => None,
            false => Some(self.passing.lock().await),
        };
        let mut passing = Vec::new();
        for (table, provider) in places {
            if !self.session.table_exist(table.clone())? {
                self.session.register_table(table.clone(), provider)?;
                passing.push(table);
            }
        }
        let planned = self.state().statement_to_plan(statement).await;
        for table in passing {
            self.session.deregister_table(table)?;
        }
        Ok(planned?)
    }

    /// Does what a plan says to the catalog, or makes a query of it.
    async fn act(&self, plan: LogicalPlan) -> Result<Query> {
        let state = self.state();
        let environment = self.environment.clone();
        match plan {
            LogicalPlan::Ddl(DdlStatement::CreateExternalTable(command)) => {
                self.create_external(*command).await?;
                Ok(Query::nothing(environment, state))
            }
            LogicalPlan::Ddl(_) | LogicalPlan::Statement(_) => {
                let frame = self.session.execute_logical_plan(plan).await?;
                let (state, plan) = frame.into_parts();
                Ok(Query::new(environment, state, plan))
            }
            LogicalPlan::Copy(copy) => {
                let (copy, staging) = self.copy(copy).await?;
                Ok(Query::new(environment, state, LogicalPlan::Copy(copy)).aside(staging))
            }
            plan => Ok(Query::new(environment, state, plan)),
        }
    }

    /// Opens the target's store; a folder of files is written aside first.
    async fn copy(&self, mut copy: CopyTo) -> Result<(CopyTo, Option<Staging>)> {
        let mut take = |name: &str| {
            copy.options.remove(name).or_else(|| copy.options.remove(&format!("format.{name}")))
        };
        let is_true = |value: Option<String>| value.is_some_and(|value| value == "true");
        let (replaces, appends) = (is_true(take("overwrite")), is_true(take("append")));
        let at = Location::parse(&copy.output_url)?;
        if at.pattern.is_some() {
            return Err(EngineError::plan(format!("{} is a pattern, no place for files", at.text)));
        }
        self.environment.open(&at, &StoreOptions::new())?;
        let target = ListingTableUrl::try_new(at.url.clone(), None)?;
        let said = copy.options.get("single_file_output").map(|value| value == "true");
        let is_file = !target.is_collection() && target.file_extension().is_some();
        if said.unwrap_or(is_file) {
            return self.copy_to_file(copy, &at, &target);
        }
        let mut folder = at.url.clone();
        if !folder.path().ends_with('/') {
            folder.set_path(&format!("{}/", folder.path()));
        }
        let store = self.environment.resources.object_store(target.object_store())?;
        let is_there = !replaces && !appends && {
            let there = Location { url: folder.clone(), ..at.clone() };
            rasker_io::list(store.as_ref(), &there).await.is_ok()
        };
        if is_there {
            return Err(EngineError::plan(format!(
                "the folder {} holds files already; say OPTIONS (overwrite true) to replace them, \
                 or OPTIONS (append true) to add to them",
                at.text
            )));
        }
        let staging = Staging::new(target.object_store(), &folder, replaces)?;
        copy.output_url = staging.aside.to_string();
        Ok((copy, Some(staging)))
    }

    fn copy_to_file(
        &self,
        mut copy: CopyTo,
        at: &Location,
        target: &ListingTableUrl,
    ) -> Result<(CopyTo, Option<Staging>)> {
        copy.output_url = target.as_str().to_owned();
        // Other stores show an object only when it is whole.
        let name = at.url.path_segments().and_then(|mut parts| parts.next_back());
        let (Some(name), "file") = (name, at.url.scheme()) else { return Ok((copy, None)) };
        let wrong =
            |error| EngineError::plan(format!("{} is no place for a file: {error}", at.text));
        let folder = at.url.join(".").map_err(wrong)?;
        let staging = Staging::new(target.object_store(), &folder, false)?.of_one_file();
        copy.output_url = staging.aside.join(name).map_err(wrong)?.to_string();
        Ok((copy, Some(staging)))
    }

    /// Writes a query's rows to files, at once.
    ///
    /// # Errors
    ///
    /// For formats that are not known, folders that hold files already, and what writing says.
    pub fn write(&self, query: &Query, to: WriteOptions, rows: &Rows<'_>) -> Result<u64> {
        let state = self.state();
        let Some(factory) = state.get_file_format_factory(&to.format) else {
            let text =
                format!("rows cannot be written as {}; use parquet, csv, json, arrow", to.format);
            return Err(EngineError::plan(text));
        };
        let options = to.options.into_iter().map(|(name, value)| (format!("format.{name}"), value));
        let copy = LogicalPlanBuilder::copy_to(
            query.logical().clone(),
            to.target,
            format_as_file_type(factory),
            options.collect(),
            to.partition_by,
        )?;
        let copy = self.environment.wait(self.act(copy.build()?), rows.check)?;
        let written = rows.of(&copy)?;
        let count = written.first().filter(|batch| batch.num_rows() > 0).map(|batch| {
            batch.column(0).as_primitive::<datafusion::arrow::datatypes::UInt64Type>().value(0)
        });
        Ok(count.unwrap_or(0))
    }

    async fn create_external(&self, command: CreateExternalTable) -> Result<()> {
        let exists = self.session.table_exist(command.name.clone())?;
        if exists && command.if_not_exists {
            return Ok(());
        }
        if exists && !command.or_replace {
            let name = &command.name;
            return Err(EngineError::plan(format!(
                "the table {name} exists already; drop it first, or say CREATE OR REPLACE"
            )));
        }
        let mut options = FilesOptions {
            locations: command.locations,
            format: Some(command.file_type),
            hive: true,
            may_be_empty: true,
            ..FilesOptions::default()
        };
        if !command.schema.fields().is_empty() {
            options.schema = Some(command.schema.inner().clone());
        }
        for (name, value) in command.options {
            match name.strip_prefix("format.") {
                Some(name) => options.format_options.insert(name.to_owned(), value),
                None => options.store_options.insert(name, value),
            };
        }
        let table = FileTable::new(&self.environment, &self.state(), options).await?;
        self.session.deregister_table(command.name.clone())?;
        self.session.register_table(command.name, Arc::new(table))?;
        Ok(())
    }
}

/// A table's name as the API takes it: the name as it is, unless it is qualified by a schema.
fn reference(name: &str) -> TableReference {
    match name.split_once('.') {
        Some((schema, table)) if !is_place(name) => TableReference::partial(schema, table),
        _ => TableReference::bare(name),
    }
}
