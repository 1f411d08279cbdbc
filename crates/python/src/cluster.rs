//! `LocalCluster`: scheduler and workers as threads of this process.

use crate::fragments::FragmentTasks;
use crate::runner::PythonRunner;
use crate::session::Session;
use parking_lot::Mutex;
use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use rasker_protocol::Datum;
use rasker_runtime::{Cluster, ClusterOptions, ExecutorKind, MemoryOptions, MemorySettings};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

#[pyclass(frozen, module = "rasker._native")]
pub struct LocalCluster {
    cluster: Mutex<Option<Arc<Cluster>>>,
    shares_objects: bool,
    address: String,
}

pub fn python_version(py: Python<'_>) -> String {
    let version = py.version_info();
    format!("{}.{}.{}", version.major, version.minor, version.patch)
}

/// What an executor process is told before anything else.
pub fn executor_settings(py: Python<'_>, preload: &[String]) -> PyResult<Datum> {
    let sys = py.import("sys")?;
    let path: Vec<String> = sys.getattr("path")?.extract()?;
    let texts = |texts: &[String]| Datum::List(texts.iter().map(|t| t.clone().into()).collect());
    Ok(Datum::from([("path", texts(&path)), ("preload", texts(preload))]))
}

/// How memory is kept: shares of the limit by the names of Dask's configuration.
pub fn memory_settings(
    limit_nbytes: u64,
    shares: Option<HashMap<String, f64>>,
    folder: Option<&str>,
) -> MemorySettings {
    if limit_nbytes > 0 {
        crate::allocator::is_limited();
    }
    let shares = shares.unwrap_or_default();
    let usual = MemoryOptions::default();
    let share = |name: &str, usual: f64| shares.get(name).copied().unwrap_or(usual);
    let options = MemoryOptions {
        limit_nbytes,
        target: share("target", usual.target),
        spill: share("spill", usual.spill),
        pause: share("pause", usual.pause),
        terminate: share("terminate", usual.terminate),
        has_disk: limit_nbytes > 0 && share("max-spill", f64::MAX) > 0.0,
        disk_nbytes_max: share("max-spill", f64::MAX) as u64,
    };
    MemorySettings { options, folder: folder.map(Into::into) }
}

pub fn process_executors(py: Python<'_>, settings: Datum) -> PyResult<ExecutorKind> {
    let program: String = py.import("sys")?.getattr("executable")?.extract()?;
    let code = "from rasker._native import executor_main; executor_main()";
    let arguments = vec!["-c".to_owned(), code.to_owned()];
    Ok(ExecutorKind::Processes { program, arguments, settings })
}

#[pymethods]
impl LocalCluster {
    #[new]
    #[pyo3(signature = (
        *, n_workers, threads_per_worker, processes, memory_limit=0, memory=None, name=None,
        local_directory=None, resources=None, listen=None, preload=Vec::new()
    ))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        n_workers: u32,
        threads_per_worker: u32,
        processes: bool,
        memory_limit: u64,
        memory: Option<HashMap<String, f64>>,
        name: Option<String>,
        local_directory: Option<String>,
        resources: Option<HashMap<String, f64>>,
        listen: Option<String>,
        preload: Vec<String>,
    ) -> PyResult<LocalCluster> {
        let _ = listen;
        let memory = memory_settings(memory_limit, memory, local_directory.as_deref());
        let name = name.unwrap_or_else(|| format!("local-{}", std::process::id()));
        let mut resources: Vec<(String, f64)> = resources.unwrap_or_default().into_iter().collect();
        resources.sort_by(|a, b| a.0.cmp(&b.0));
        let executors = if processes {
            process_executors(py, executor_settings(py, &preload)?)?
        } else {
            let runner = PythonRunner::new(crate::executor::arena(), true);
            ExecutorKind::Threads(Arc::new(runner))
        };
        let options = ClusterOptions {
            name: name.clone(),
            n_workers,
            nthreads: threads_per_worker,
            memory,
            resources,
            executors,
            native: Some(Arc::new(FragmentTasks::default())),
            python: python_version(py),
            listens: processes,
            scheduler: crate::nodes::scheduler_options(py),
        };
        let cluster = py.detach(|| Cluster::start(&options));
        let cluster = cluster.map_err(|error| PyOSError::new_err(error.to_string()))?;
        if let Some(address) = &cluster.address {
            // Other processes of this user find the token there, and nobody else does.
            let kept = crate::nodes::token_path(address)?;
            let _ = std::fs::remove_file(&kept);
            let written = cluster.trust.credentials.token.to_file(&kept);
            written.map_err(|error| PyOSError::new_err(error.to_string()))?;
        }
        let address = cluster.address.clone().unwrap_or_else(|| format!("inproc://{name}"));
        let cluster = Mutex::new(Some(Arc::new(cluster)));
        Ok(LocalCluster { cluster, shares_objects: !processes, address })
    }

    #[getter]
    fn address(&self) -> String {
        self.address.clone()
    }

    #[pyo3(signature = (name=None))]
    fn connect(&self, py: Python<'_>, name: Option<String>) -> PyResult<Session> {
        let Some(cluster) = self.cluster.lock().clone() else {
            return Err(PyRuntimeError::new_err("the cluster was closed; start a new one"));
        };
        let name = name.unwrap_or_else(|| "client".to_owned());
        let inner = py.detach(|| cluster.connect(&name));
        let arena = cluster.arena().clone();
        let address = self.address();
        Ok(Session::new(inner, Some(cluster), None, arena, self.shares_objects, address))
    }

    #[pyo3(signature = (timeout=None))]
    fn close(&self, py: Python<'_>, timeout: Option<f64>) {
        let cluster = self.cluster.lock().take();
        let timeout = timeout.map_or(CLOSE_TIMEOUT, Duration::from_secs_f64);
        if let Some(cluster) = cluster {
            if cluster.address.is_some()
                && let Ok(kept) = crate::nodes::token_path(&self.address)
            {
                let _ = std::fs::remove_file(kept);
            }
            py.detach(|| cluster.close(timeout));
        }
    }
}
