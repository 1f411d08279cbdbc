//! What queries of a process share: threads, memory, disk, stores.

use crate::{EngineError, Kind, Result};
use datafusion::execution::DiskManager;
use datafusion::execution::cache::cache_manager::CacheManagerConfig;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{
    GreedyMemoryPool, MemoryPool, TrackConsumersPool, UnboundedMemoryPool,
};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use futures::FutureExt;
use parking_lot::Mutex;
use rasker_io::{Location, StoreOptions};
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// What a context may use.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Threads that compute; 0 means one per core.
    pub threads: usize,
    /// Bytes that operators may hold; none means no limit.
    pub memory_limit: Option<u64>,
    /// Where operators put what does not fit; none means the system's folder.
    pub spill_folder: Option<PathBuf>,
}

impl Settings {
    pub fn n_threads(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
            n => n,
        }
    }
}

/// Threads and resources of one or more contexts.
pub struct Environment {
    runtime: Option<Runtime>,
    pub(crate) resources: Arc<RuntimeEnv>,
    pub(crate) n_threads: usize,
    /// Stores that were opened, for other processes to open too.
    opened: Mutex<BTreeMap<String, StoreOptions>>,
}

impl Environment {
    pub fn new(settings: &Settings) -> Result<Environment> {
        let n_threads = settings.n_threads();
        let runtime = Builder::new_multi_thread()
            .worker_threads(n_threads)
            .max_blocking_threads(16)
            .thread_name("rasker-engine")
            .thread_stack_size(8 << 20)
            .enable_all()
            .build()
            .map_err(|error| EngineError::plan(format!("threads could not start: {error}")))?;
        let largest = NonZeroUsize::new(5).expect("five");
        let pool: Arc<dyn MemoryPool> = match settings.memory_limit {
            Some(limit) => {
                Arc::new(TrackConsumersPool::new(GreedyMemoryPool::new(limit as usize), largest))
            }
            None => Arc::new(UnboundedMemoryPool::default()),
        };
        let mode = match &settings.spill_folder {
            Some(folder) => DiskManagerMode::Directories(vec![folder.clone()]),
            None => DiskManagerMode::OsTmpDirectory,
        };
        let disk: DiskManagerBuilder = DiskManager::builder().with_mode(mode);
        // Files may come and go between two queries: listings are made anew each time.
        let caches = CacheManagerConfig::default().with_list_files_cache_limit(0);
        let resources = RuntimeEnvBuilder::new()
            .with_memory_pool(pool)
            .with_disk_manager_builder(disk)
            .with_cache_manager(caches)
            .build_arc()?;
        let opened = Mutex::default();
        Ok(Environment { runtime: Some(runtime), resources, n_threads, opened })
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("it is there until it is dropped")
    }

    pub(crate) fn handle(&self) -> &tokio::runtime::Handle {
        self.runtime().handle()
    }

    /// Opens the store of a location for all who name it from now on.
    pub(crate) fn open(&self, at: &Location, options: &StoreOptions) -> Result<()> {
        let registry = &self.resources.object_store_registry;
        let is_known = || registry.get_store(&at.url).is_ok();
        if at.url.scheme() == "file" || (options.is_empty() && is_known()) {
            return Ok(());
        }
        let store = rasker_io::open(at, options)?;
        self.resources.register_object_store(&at.url, store);
        let root = at.url[..url::Position::BeforePath].to_owned();
        self.opened.lock().insert(root, options.clone());
        Ok(())
    }

    pub(crate) fn opened(&self) -> Vec<(String, StoreOptions)> {
        self.opened.lock().iter().map(|(url, options)| (url.clone(), options.clone())).collect()
    }

    /// Runs a future to its end on this thread; `check` is asked now and then whether to go on.
    pub(crate) fn wait<T>(
        &self,
        future: impl Future<Output = Result<T>>,
        check: &dyn Fn() -> bool,
    ) -> Result<T> {
        self.runtime().block_on(async {
            let mut future = std::pin::pin!(caught(future));
            loop {
                tokio::select! {
                    ended = &mut future => return ended,
                    () = tokio::time::sleep(Duration::from_millis(50)) => {
                        if !check() {
                            return Err(EngineError::cancelled());
                        }
                    }
                }
            }
        })
    }
}

/// A panic beneath ends its query, not the process.
pub(crate) async fn caught<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    let ended = std::panic::AssertUnwindSafe(future).catch_unwind().await;
    ended.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason");
        Err(EngineError::new(Kind::Internal, format!("the engine met a fault of its own: {text}")))
    })
}

impl Drop for Environment {
    fn drop(&mut self) {
        // Its last user may be one of its own threads, which cannot wait for itself.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
