//! A catalog of tables, and statements over it.

use crate::dialect::{self, Rewritten};
use crate::environment::{Environment, Settings};
use crate::files::{FileTable, FilesOptions, is_place};
use crate::query::Query;
use crate::{EngineError, Kind, Result, functions, hot, names};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{MemTable, TableProvider};
use datafusion::common::{ParamValues, ScalarValue, TableReference};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::execution::{SessionState, SessionStateDefaults};
use datafusion::logical_expr::{CreateExternalTable, DdlStatement, LogicalPlan};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::Statement as SqlStatement;
use std::collections::HashMap;
use std::sync::Arc;

const CATALOG: &str = "rasker";
const SCHEMA: &str = "public";

/// Values for the placeholders of a statement.
#[derive(Clone, Debug)]
pub enum Parameters {
    None,
    /// For `?`, in their order, and for `$1`, `$2` …
    Positional(Vec<ScalarValue>),
    /// For `$name`.
    Named(HashMap<String, ScalarValue>),
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
        Context { environment, session }
    }

    /// What fragments are decoded with: the functions of this context, one partition at a time.
    pub(crate) fn fragment_state(&self) -> SessionState {
        let mut state = self.state();
        let execution = &mut state.config_mut().options_mut().execution;
        execution.target_partitions = 1;
        // A task that took files of its neighbors would read them a second time.
        execution.enable_file_stream_work_stealing = false;
        state
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
    /// else is done when this returns.
    pub fn sql(
        &self,
        text: &str,
        parameters: &Parameters,
        check: &dyn Fn() -> bool,
    ) -> Result<Query> {
        let mut statements = dialect::parse(text)?;
        let Some(last) = statements.pop() else {
            return Err(EngineError::new(Kind::Syntax, "there is no statement in the text"));
        };
        for statement in statements {
            let query = self.run(statement, parameters, check)?;
            query.collect(check)?;
        }
        self.run(last, parameters, check)
    }

    fn run(
        &self,
        mut statement: Statement,
        parameters: &Parameters,
        check: &dyn Fn() -> bool,
    ) -> Result<Query> {
        names::number_placeholders(&mut statement);
        let planned = self.environment.wait(self.plan(statement), check)?;
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
        self.environment.wait(self.act(plan), check).and_then(|query| match query.is_eager() {
            true => query.done(check),
            false => Ok(query),
        })
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
        let mut passing = Vec::new();
        let mut schemas = Vec::new();
        names::spell_tables(&mut statement, &self.tables());
        for table in state.resolve_table_references(&statement)? {
            let known = self.session.table_provider(table.clone()).await;
            let provider: Arc<dyn TableProvider> = match known {
                Ok(provider) => provider,
                Err(_) if is_place(table.table()) && table.schema().is_none() => {
                    let options = FilesOptions {
                        locations: vec![table.table().to_owned()],
                        hive: true,
                        ..FilesOptions::default()
                    };
                    let files = FileTable::new(&self.environment, &state, options).await?;
                    let files: Arc<dyn TableProvider> = Arc::new(files);
                    self.session.register_table(table.clone(), files.clone())?;
                    passing.push(table.clone());
                    files
                }
                // Planning says what is missing, and common table expressions are not tables.
                Err(_) => continue,
            };
            schemas.push(provider.schema());
        }
        names::spell_columns(&mut statement, &schemas);
        let planned = self.state().statement_to_plan(statement).await;
        for table in passing {
            self.session.deregister_table(table)?;
        }
        planned.map_err(|error| names::with_near_table(error.into(), &self.tables()))
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
            plan => Ok(Query::new(environment, state, plan)),
        }
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

/// The names of all functions that statements may call.
pub fn function_names() -> Vec<String> {
    let mut names: Vec<String> = SessionStateDefaults::default_scalar_functions()
        .iter()
        .map(|function| function.name().to_owned())
        .chain(
            SessionStateDefaults::default_aggregate_functions()
                .iter()
                .map(|function| function.name().to_owned()),
        )
        .collect();
    names.sort();
    names.dedup();
    names
}
