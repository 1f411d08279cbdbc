//! A table of files: listed when it is scanned, pruned by the values in their folders' names.

use super::format::{self, FormatOptions};
use super::partitions::{self, PartitionColumn};
use super::staging::{Commit, Staging};
use crate::environment::{Environment, caught};
use crate::{EngineError, Result};
use async_trait::async_trait;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{DFSchema, ScalarValue, SchemaExt, Statistics, project_schema};
use datafusion::datasource::TableType;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::listing::helpers::{expr_applicable_for_cols, filter_partitioned_file};
use datafusion::datasource::listing::{ListingTableUrl, PartitionedFile};
use datafusion::datasource::physical_plan::{
    FileGroup, FileOutputMode, FileScanConfigBuilder, FileSinkConfig,
};
use datafusion::datasource::table_schema::TableSchemaBuilder;
use datafusion::error::Result as DfResult;
use datafusion::execution::SessionState;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{Column, case, cast as cast_expr, in_list, lit};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion_datasource::compute_all_files_statistics;
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectMeta, ObjectStore};
use parking_lot::Mutex;
use rasker_io::{FoundFile, Location, StoreOptions, list};
use std::collections::HashMap;
use std::sync::Arc;

/// Files whose metadata is read at once.
const N_AT_ONCE: usize = 32;

/// Files that give their schemas to a table; of more, the first ones do.
const N_FOR_SCHEMA: usize = 64;

/// What a table of files is made of.
#[derive(Clone, Debug, Default)]
pub struct FilesOptions {
    /// Paths, URLs or patterns; all in one store.
    pub locations: Vec<String>,
    /// `parquet`, `csv`, `json` or `arrow`; none means by the name of the first file.
    pub format: Option<String>,
    pub format_options: FormatOptions,
    /// Columns, when they are not to be inferred.
    pub schema: Option<SchemaRef>,
    /// Whether `name=value` in the names of folders makes a column.
    pub hive: bool,
    pub store_options: StoreOptions,
    /// The folder may be empty or missing as yet: something is going to be written there.
    pub may_be_empty: bool,
}

/// Statistics of a file as it was when they were taken.
type Known = HashMap<String, (ObjectMeta, Arc<Statistics>)>;

pub(crate) struct FileTable {
    locations: Vec<Location>,
    format: Arc<dyn FileFormat>,
    file_schema: SchemaRef,
    /// Columns whose values stand in the names of folders.
    partitions: Vec<PartitionColumn>,
    schema: SchemaRef,
    store_url: ObjectStoreUrl,
    known: Mutex<Known>,
    may_be_empty: bool,
    /// Texts that stand for missing values; then files are read as text, and cast here.
    missing: Option<Vec<String>>,
}

impl std::fmt::Debug for FileTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let texts: Vec<&str> = self.locations.iter().map(|at| at.text.as_str()).collect();
        write!(f, "FileTable({})", texts.join(", "))
    }
}

impl FileTable {
    /// Looks at the files and makes a table of them.
    pub async fn new(
        environment: &Environment,
        state: &SessionState,
        options: FilesOptions,
    ) -> Result<FileTable> {
        let locations = options
            .locations
            .iter()
            .map(|text| Location::parse(text))
            .collect::<Result<Vec<_>, _>>()?;
        let Some(first) = locations.first() else {
            return Err(EngineError::plan("a table of files needs at least one path"));
        };
        environment.open(first, &options.store_options)?;
        let store_url = ListingTableUrl::try_new(first.url.clone(), None)?.object_store();
        for other in &locations {
            if ListingTableUrl::try_new(other.url.clone(), None)?.object_store() != store_url {
                return Err(EngineError::plan(format!(
                    "{} and {} are in different stores; make a table of each, and a view that \
                     unites them",
                    first.text, other.text
                )));
            }
        }
        let store = environment.resources.object_store(&store_url)?;
        let found = match list_all(store.as_ref(), &locations).await {
            Err(error) if error.kind == crate::Kind::Missing && options.may_be_empty => Vec::new(),
            found => found?,
        };
        let nothing = ObjectMeta {
            location: object_store::path::Path::from_url_path(first.url.path())
                .map_err(object_store::Error::from)
                .map_err(|error| rasker_io::IoError::of(&first.text, error))?,
            last_modified: chrono::DateTime::UNIX_EPOCH,
            size: 0,
            e_tag: None,
            version: None,
        };
        let sample = found.iter().map(|file| &file.meta).find(|meta| meta.size > 0);
        let sample = sample.or(found.first().map(|file| &file.meta)).unwrap_or(&nothing);
        let named = options.format.as_deref();
        let format = format::decide(state, &store, sample, named, &options.format_options).await?;
        let partitions = if options.hive { partitions::infer(&found) } else { Vec::new() };
        let file_schema = match options.schema {
            Some(schema) => partitions::without(&schema, &partitions),
            None => infer_schema(state, &store, format.as_ref(), &found).await?,
        };
        let file_schema = partitions::without(&file_schema, &partitions);
        let mut fields: Vec<FieldRef> = file_schema.fields().to_vec();
        fields.extend(partitions.iter().map(PartitionColumn::field));
        let schema = Arc::new(Schema::new_with_metadata(fields, file_schema.metadata().clone()));
        Ok(FileTable {
            locations,
            format,
            file_schema,
            partitions,
            schema,
            store_url,
            known: Mutex::default(),
            may_be_empty: options.may_be_empty,
            missing: format::missing(&options.format_options),
        })
    }

    /// The columns of a file as they are read from it.
    fn read_schema(&self) -> SchemaRef {
        if self.missing.is_none() {
            return self.file_schema.clone();
        }
        let text = |field: &FieldRef| Field::new(field.name(), DataType::Utf8View, true);
        Arc::new(Schema::new(self.file_schema.fields().iter().map(text).collect::<Vec<_>>()))
    }

    /// Makes NULL of texts that say so, and values of the others.
    fn cast_texts(&self, scan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(texts) = &self.missing else { return Ok(scan) };
        let schema = scan.schema();
        let cast = |(at, field): (usize, &FieldRef)| -> Result<(Arc<dyn PhysicalExpr>, String)> {
            let name = field.name().clone();
            let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(&name, at));
            let Ok(wanted) = self.file_schema.field_with_name(&name) else {
                return Ok((column, name));
            };
            let is_missing =
                texts.iter().map(|text| lit(ScalarValue::Utf8View(Some(text.clone()))));
            let is_missing =
                in_list(column.clone(), is_missing.collect(), &false, schema.as_ref())?;
            let kind = wanted.data_type().clone();
            let value = cast_expr(column, schema.as_ref(), kind.clone())?;
            let nothing = lit(ScalarValue::try_from(&kind)?);
            Ok((case(None, vec![(is_missing, nothing)], Some(value))?, name))
        };
        let columns = schema.fields().iter().enumerate().map(cast).collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(ProjectionExec::try_new(columns, scan)?))
    }

    /// The files that filters on the folders' names leave, with what is known of each.
    async fn files(&self, state: &dyn Session, filters: &[Expr]) -> Result<Vec<PartitionedFile>> {
        let store = state.runtime_env().object_store(&self.store_url)?;
        let found = match list_all(store.as_ref(), &self.locations).await {
            Err(error) if error.kind == crate::Kind::Missing && self.may_be_empty => Vec::new(),
            found => found?,
        };
        let fields: Vec<FieldRef> = self.partitions.iter().map(PartitionColumn::field).collect();
        let partition_schema = DFSchema::try_from(Schema::new(fields))?;
        let mut files = Vec::with_capacity(found.len());
        for file in found {
            let values = partitions::values(&self.partitions, &file)?;
            let mut file = PartitionedFile::from(file.meta);
            file.partition_values = values;
            if filters.is_empty() {
                files.push(file);
            } else {
                files.extend(filter_partitioned_file(file, filters, &partition_schema)?);
            }
        }
        if !state.config().collect_statistics() {
            return Ok(files);
        }
        let with_statistics = files.into_iter().map(|file| async {
            let statistics = self.statistics(state, &store, &file.object_meta).await?;
            Ok::<_, EngineError>(file.with_statistics(statistics))
        });
        futures::stream::iter(with_statistics).buffered(N_AT_ONCE).try_collect().await
    }

    async fn statistics(
        &self,
        state: &dyn Session,
        store: &Arc<dyn ObjectStore>,
        meta: &ObjectMeta,
    ) -> Result<Arc<Statistics>> {
        let name = meta.location.to_string();
        if let Some((known, statistics)) = self.known.lock().get(&name)
            && known.size == meta.size
            && known.last_modified == meta.last_modified
            && known.e_tag == meta.e_tag
        {
            return Ok(statistics.clone());
        }
        let inferred = self.format.infer_stats(state, store, self.file_schema.clone(), meta);
        let inferred = caught(async { Ok(inferred.await?) }).await;
        let statistics = inferred.map_err(|error| format::damaged(meta, error))?;
        let statistics = Arc::new(statistics);
        self.known.lock().insert(name, (meta.clone(), statistics.clone()));
        Ok(statistics)
    }

    async fn plan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let names: Vec<&str> = self.partitions.iter().map(|column| column.name.as_str()).collect();
        let of_folders: Vec<Expr> =
            filters.iter().filter(|filter| is_of_folders(&names, filter)).cloned().collect();
        let all_of_folders = of_folders.len() == filters.len();
        let mut files = self.files(state, &of_folders).await?;
        if files.is_empty() {
            return Ok(Arc::new(EmptyExec::new(project_schema(&self.schema, projection)?)));
        }
        // Files beyond a limit need not be opened, where it is known how many rows each has.
        let mut is_cut = false;
        if let Some(limit) = limit.filter(|_| all_of_folders) {
            let mut n_rows = 0;
            let enough = files.iter().position(|file| {
                let known = file.statistics.as_ref().map(|statistics| statistics.num_rows);
                n_rows += match known {
                    Some(Precision::Exact(n)) => n,
                    _ => 0,
                };
                n_rows >= limit
            });
            is_cut = enough.is_some_and(|at| at + 1 < files.len());
            files.truncate(enough.map_or(files.len(), |at| at + 1));
        }
        let groups = FileGroup::new(files).split_files(state.config().target_partitions());
        let collects = state.config().collect_statistics();
        let (groups, statistics) =
            compute_all_files_statistics(groups, self.schema.clone(), collects, is_cut)?;
        let columns: Vec<FieldRef> = self.partitions.iter().map(PartitionColumn::field).collect();
        let table_schema = TableSchemaBuilder::from(&self.read_schema())
            .with_table_partition_cols(columns)
            .build();
        let source = self.format.file_source(table_schema);
        let scan = FileScanConfigBuilder::new(self.store_url.clone(), source)
            .with_file_groups(groups)
            .with_statistics(statistics)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        self.cast_texts(self.format.create_physical_plan(state, scan).await?)
    }
}

fn is_of_folders(names: &[&str], filter: &Expr) -> bool {
    !names.is_empty() && expr_applicable_for_cols(names, filter)
}

#[async_trait]
impl TableProvider for FileTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        Ok(self.plan(state, projection, filters, limit).await?)
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> DfResult<Vec<TableProviderFilterPushDown>> {
        let names: Vec<&str> = self.partitions.iter().map(|column| column.name.as_str()).collect();
        let support = |filter: &&Expr| match is_of_folders(&names, filter) {
            true => TableProviderFilterPushDown::Exact,
            false => TableProviderFilterPushDown::Inexact,
        };
        Ok(filters.iter().map(support).collect())
    }

    async fn insert_into(
        &self,
        state: &dyn Session,
        input: Arc<dyn ExecutionPlan>,
        insert_op: InsertOp,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        self.schema.logically_equivalent_names_and_types(&input.schema())?;
        let at = &self.locations[0];
        if self.locations.len() != 1 || at.pattern.is_some() || !at.is_collection() {
            return Err(EngineError::plan(format!(
                "rows can only be added to a table that is one folder; {} is not one",
                at.text
            ))
            .into());
        }
        let replaces = insert_op != InsertOp::Append;
        let staging = Staging::new(self.store_url.clone(), &at.url, replaces)?;
        let partition = |column: &PartitionColumn| (column.name.clone(), column.kind.clone());
        let config = FileSinkConfig {
            original_url: at.text.clone(),
            object_store_url: self.store_url.clone(),
            file_group: FileGroup::default(),
            table_paths: vec![ListingTableUrl::try_new(staging.aside.clone(), None)?],
            output_schema: self.schema.clone(),
            table_partition_cols: self.partitions.iter().map(partition).collect(),
            insert_op: InsertOp::Append,
            keep_partition_by_columns: false,
            file_extension: self.format.get_ext(),
            file_output_mode: FileOutputMode::Directory,
        };
        let writer = self.format.create_writer_physical_plan(input, state, config, None).await?;
        Ok(Arc::new(Commit::new(writer, staging)))
    }
}

/// All files of all locations, each once, in order.
async fn list_all(store: &dyn ObjectStore, locations: &[Location]) -> Result<Vec<FoundFile>> {
    let mut all: Vec<FoundFile> = Vec::new();
    for at in locations {
        all.extend(list(store, at).await?);
    }
    let mut seen = std::collections::HashSet::new();
    all.retain(|file| seen.insert(file.meta.location.clone()));
    Ok(all)
}

/// The columns of all files, in the order in which they are met; types must agree.
async fn infer_schema(
    state: &SessionState,
    store: &Arc<dyn ObjectStore>,
    format: &dyn FileFormat,
    found: &[FoundFile],
) -> Result<SchemaRef> {
    let inferred =
        found.iter().filter(|file| file.meta.size > 0).take(N_FOR_SCHEMA).map(|file| async {
            if let Some(csv) = format.downcast_ref::<CsvFormat>()
                && let Some(schema) = format::csv_schema(csv, store, &file.meta).await?
            {
                return Ok(schema);
            }
            let meta = std::slice::from_ref(&file.meta);
            let schema = caught(async { Ok(format.infer_schema(state, store, meta).await?) }).await;
            schema.map_err(|error| format::damaged(&file.meta, error))
        });
    let schemas: Vec<SchemaRef> =
        futures::stream::iter(inferred).buffered(N_AT_ONCE).try_collect().await?;
    let mut merged: Vec<FieldRef> = Vec::new();
    for (schema, file) in schemas.iter().zip(found) {
        for field in schema.fields() {
            let Some(known) = merged.iter_mut().find(|known| known.name() == field.name()) else {
                merged.push(field.clone());
                continue;
            };
            let Some(kind) = partitions::common_type(known.data_type(), field.data_type()) else {
                return Err(EngineError::plan(format!(
                    "the column {} is {} in /{} and {} in files before it; give a schema, or make \
                     a table of each",
                    field.name(),
                    field.data_type(),
                    file.meta.location,
                    known.data_type()
                )));
            };
            let nullable = known.is_nullable() || field.is_nullable();
            *known = Arc::new(Field::new(known.name(), kind, nullable));
        }
    }
    if let [one] = schemas.as_slice() {
        return Ok(one.clone());
    }
    Ok(Arc::new(Schema::new(merged)))
}
