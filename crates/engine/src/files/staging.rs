//! Files that are written aside, and appear together when all of them are whole.

use super::task_write::{self, Written};
use crate::{EngineError, Result};
use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result as DfResult;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{
    Boundedness, EmissionType, ReplaceChildrenOptions,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, collect,
};
use futures::TryStreamExt;
use object_store::path::{Path, PathPart};
use object_store::{ObjectStore, ObjectStoreExt};
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use url::Url;

static N_STAGINGS: AtomicU64 = AtomicU64::new(0);

/// A folder within the target, hidden from whoever lists it.
#[derive(Clone, Debug)]
pub(crate) struct Staging {
    store: ObjectStoreUrl,
    target: Path,
    /// Where files are written first, below the target.
    pub aside: Url,
    /// Files that were there go when the new ones come.
    replaces: bool,
    /// What appears is one file, under the name that it was asked for.
    pub is_one_file: bool,
}

impl Staging {
    /// For a folder, whose URL ends with a slash.
    pub fn new(store: ObjectStoreUrl, folder: &Url, replaces: bool) -> Result<Staging> {
        let started = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let number = N_STAGINGS.fetch_add(1, Ordering::Relaxed);
        let moment = started.map_or(0, |started| started.as_nanos());
        let name = format!("_writing-{}-{moment:x}-{number}/", std::process::id());
        let malformed = |error: &dyn fmt::Display| {
            EngineError::plan(format!("{folder} is no place for files: {error}"))
        };
        let aside = folder.join(&name).map_err(|error| malformed(&error))?;
        let target = Path::from_url_path(folder.path()).map_err(|error| malformed(&error))?;
        Ok(Staging { store, target, aside, replaces, is_one_file: false })
    }

    /// The same for a single file.
    pub fn of_one_file(self) -> Staging {
        Staging { is_one_file: true, ..self }
    }

    fn prefix(&self) -> Result<Path> {
        let path = Path::from_url_path(self.aside.path());
        path.map_err(|error| EngineError::plan(format!("{}: {error}", self.aside)))
    }

    async fn list(store: &dyn ObjectStore, prefix: &Path) -> Result<Vec<Path>> {
        let of = |error| rasker_io::IoError::of(&format!("/{prefix}"), error);
        let found: Vec<_> = store.list(Some(prefix)).try_collect().await.map_err(of)?;
        Ok(found.into_iter().map(|meta| meta.location).collect())
    }

    /// Lets what was written appear: each file at once, under its own name.
    async fn commit(&self, store: &dyn ObjectStore) -> Result<()> {
        let prefix = self.prefix()?;
        let written = Self::list(store, &prefix).await?;
        let below = |from: &Path| -> Vec<String> {
            let parts = from.prefix_match(&prefix).into_iter().flatten();
            parts.map(|part| part.as_ref().to_owned()).collect()
        };
        let moves = written.iter().map(|from| (from.clone(), below(from))).collect();
        self.appear(store, moves).await
    }

    /// The same for what tasks wrote, each to a folder of its own; what others left goes.
    async fn commit_of_tasks(&self, store: &dyn ObjectStore, written: &[Written]) -> Result<()> {
        let prefix = self.prefix()?;
        let found = Self::list(store, &prefix).await?;
        let (mut moves, mut left) = (Vec::new(), Vec::new());
        let mut seen = HashSet::new();
        for from in found {
            let parts = from.prefix_match(&prefix).into_iter().flatten();
            let mut parts: Vec<String> = parts.map(|part| part.as_ref().to_owned()).collect();
            let Some(writer) = written.iter().find(|one| Some(&one.folder) == parts.first()) else {
                left.push(from);
                continue;
            };
            seen.insert(&writer.folder);
            let folder = parts.remove(0);
            if let (false, Some(name)) = (self.is_one_file, parts.last_mut()) {
                // Files in the order of their names are rows in the order of the tasks.
                let partition = folder.split('-').next().unwrap_or_default();
                *name = format!("{partition}_{name}");
            }
            moves.push((from, parts));
        }
        let missing = written.iter().find(|one| one.n_rows > 0 && !seen.contains(&one.folder));
        if missing.is_some() {
            return Err(EngineError::plan(format!(
                "workers wrote to /{} what this process does not see there; write to a file \
                 system that all of them share, or to a store of objects",
                self.target
            )));
        }
        self.appear(store, moves).await?;
        for path in left {
            let _ = store.delete(&path).await;
        }
        Ok(())
    }

    /// Moves files to where they are looked for, given below the target.
    async fn appear(&self, store: &dyn ObjectStore, moves: Vec<(Path, Vec<String>)>) -> Result<()> {
        let is_old = |path: &Path| {
            let mut below = path.prefix_match(&self.target).into_iter().flatten();
            !below.next().is_some_and(|part| part.as_ref().starts_with(['_', '.']))
        };
        let old = match self.replaces {
            true => Self::list(store, &self.target).await?.into_iter().filter(is_old).collect(),
            false => Vec::new(),
        };
        let mut new = Vec::with_capacity(moves.len());
        for (from, below) in moves {
            let below = below.iter().map(|part| PathPart::parse(part));
            let below = below.collect::<Result<Vec<_>, _>>();
            let below = below.map_err(|error| EngineError::plan(error.to_string()))?;
            let to: Path = self.target.parts().chain(below).collect();
            let of = |error| rasker_io::IoError::of(&format!("/{to}"), error);
            store.rename(&from, &to).await.map_err(of)?;
            new.push(to);
        }
        for path in old.iter().filter(|path| !new.contains(path)) {
            let of = |error| rasker_io::IoError::of(&format!("/{path}"), error);
            store.delete(path).await.map_err(of)?;
        }
        self.sweep();
        Ok(())
    }

    /// Lets appear what tasks wrote, as the rows of the last stage say; how many rows that is.
    pub async fn finish(&self, resources: &RuntimeEnv, rows: &[RecordBatch]) -> Result<u64> {
        let store = resources.object_store(&self.store)?;
        let written = task_write::written(rows)?;
        if let Err(error) = self.commit_of_tasks(store.as_ref(), &written).await {
            self.abort(store.as_ref()).await;
            return Err(error);
        }
        Ok(written.iter().map(|one| one.n_rows).sum())
    }

    /// Removes what was written.
    pub async fn give_up(&self, resources: &RuntimeEnv) {
        if let Ok(store) = resources.object_store(&self.store) {
            self.abort(store.as_ref()).await;
        }
    }

    async fn abort(&self, store: &dyn ObjectStore) {
        if let Ok(prefix) = self.prefix()
            && let Ok(written) = Self::list(store, &prefix).await
        {
            for path in written {
                let _ = store.delete(&path).await;
            }
        }
        self.sweep();
    }

    /// Stores have no folders, but disks do.
    fn sweep(&self) {
        if let Ok(folder) = self.aside.to_file_path() {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

/// Runs a plan that writes aside, then lets its files appear, or removes them if it failed.
#[derive(Debug)]
pub(crate) struct Commit {
    input: Arc<dyn ExecutionPlan>,
    staging: Staging,
    properties: Arc<PlanProperties>,
}

impl Commit {
    pub fn new(input: Arc<dyn ExecutionPlan>, staging: Staging) -> Commit {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(input.schema()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Commit { input, staging, properties: Arc::new(properties) }
    }

    pub fn input(&self) -> &Arc<dyn ExecutionPlan> {
        &self.input
    }

    pub fn staging(&self) -> &Staging {
        &self.staging
    }
}

impl DisplayAs for Commit {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Commit: target=/{}", self.staging.target)
    }
}

#[async_trait]
impl ExecutionPlan for Commit {
    fn name(&self) -> &'static str {
        "Commit"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Commit::new(children.swap_remove(0), self.staging.clone())))
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Commit::new(children.swap_remove(0), self.staging.clone())))
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn execute(&self, _: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let (input, staging) = (self.input.clone(), self.staging.clone());
        let schema: SchemaRef = self.input.schema();
        let counted = async move {
            let store = context.runtime_env().object_store(&staging.store)?;
            let written = match collect(input, context).await {
                Ok(written) => written,
                Err(error) => {
                    staging.abort(store.as_ref()).await;
                    return Err(error);
                }
            };
            if let Err(error) = staging.commit(store.as_ref()).await {
                staging.abort(store.as_ref()).await;
                return Err(error.into());
            }
            Ok(futures::stream::iter(written.into_iter().map(Ok)))
        };
        let stream = futures::stream::once(counted).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream)))
    }
}
