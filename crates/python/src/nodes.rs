//! Processes of their own: `rasker scheduler`, `rasker worker`, and clients that join them.

use crate::cluster::{executor_settings, memory_settings, process_executors, python_version};
use crate::fragments::FragmentTasks;
use crate::lifetime::{Lifetime, Posts};
use crate::runner::PythonRunner;
use crate::session::Session;
use crate::task;
use pyo3::exceptions::{PyConnectionError, PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use rasker_runtime::{
    Credentials, ExecutorKind, Fingerprint, RemoteSession, SchedulerNode, SchedulerOptions,
    TlsClient, TlsServer, Token, Trust, WorkerNode, WorkerNodeOptions, host_toward,
};
use std::collections::HashMap;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Workers look for a scheduler that was lost so long, unless they are told otherwise.
const SEARCH_FOR: Duration = Duration::from_secs(300);
/// Workers that are asked to end have so long to hand over what only they hold.
const RETIRE_WITHIN: Duration = Duration::from_secs(20);

fn refused(error: impl std::fmt::Display) -> PyErr {
    PyOSError::new_err(error.to_string())
}

/// Where the token of a scheduler of this user is kept.
pub fn token_path(address: &str) -> PyResult<PathBuf> {
    let place = address.rsplit_once("://").map_or(address, |(_, place)| place);
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let folder = runtime
        .filter(|folder| folder.is_dir())
        .or(home)
        .ok_or_else(|| PyOSError::new_err("there is no home folder to keep a token in"))?
        .join("rasker");
    std::fs::DirBuilder::new().mode(0o700).recursive(true).create(&folder).map_err(refused)?;
    Ok(folder.join(format!("{}.token", place.replace([':', '/', '[', ']'], "_"))))
}

/// What a scheduler file says.
struct Place {
    address: String,
    token: Option<String>,
    fingerprint: Option<String>,
}

fn read_scheduler_file(py: Python<'_>, path: &str) -> PyResult<Place> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| PyOSError::new_err(format!("scheduler file {path}: {error}")))?;
    let found = py.import("json")?.call_method1("loads", (text,))?.cast_into::<PyDict>()?;
    let text = |name: &str| -> PyResult<Option<String>> {
        found.get_item(name)?.filter(|v| !v.is_none()).map(|v| v.extract()).transpose()
    };
    let address = text("address")?.ok_or_else(|| {
        PyValueError::new_err(format!("scheduler file {path} names no address; start it anew"))
    })?;
    Ok(Place { address, token: text("token")?, fingerprint: text("fingerprint")? })
}

/// Waits for a scheduler file that is still to be written.
fn await_scheduler_file(py: Python<'_>, path: &str, timeout: f64) -> PyResult<Place> {
    let until = std::time::Instant::now() + Duration::from_secs_f64(timeout.clamp(0.0, 1e6));
    while !Path::new(path).exists() && std::time::Instant::now() < until {
        py.detach(|| std::thread::sleep(LOOK_EVERY));
        py.check_signals()?;
    }
    read_scheduler_file(py, path)
}

fn place_of(
    py: Python<'_>,
    address: Option<&str>,
    scheduler_file: Option<&str>,
    timeout: f64,
) -> PyResult<Place> {
    match (address, scheduler_file) {
        (_, Some(path)) => await_scheduler_file(py, path, timeout),
        (Some(address), None) => {
            Ok(Place { address: normal(address), token: None, fingerprint: None })
        }
        (None, None) => {
            let text = "name a scheduler: an address, or --scheduler-file";
            Err(PyValueError::new_err(text))
        }
    }
}

fn trust_for(
    place: &Place,
    token_file: Option<&str>,
    tls_ca_file: Option<&str>,
    tls_fingerprint: Option<&str>,
) -> PyResult<Trust> {
    let home = task::home_token().filter(|_| task::home_scheduler() == place.address);
    let token = match (token_file, &place.token, home) {
        (Some(path), ..) => Token::from_file(Path::new(path)).map_err(refused)?,
        (None, Some(token), _) => Token::from_hex(token).map_err(refused)?,
        (None, None, Some(token)) => Token::from_hex(&token).map_err(refused)?,
        (None, None, None) => {
            let path = token_path(&place.address)?;
            Token::from_file(&path).map_err(|error| {
                PyConnectionError::new_err(format!(
                    "no token is known for {}: {error}; name the scheduler file or the token file",
                    place.address
                ))
            })?
        }
    };
    let fingerprint = tls_fingerprint.or(place.fingerprint.as_deref());
    let client = match (tls_ca_file, fingerprint) {
        (Some(path), _) => Some(TlsClient::from_authority_file(Path::new(path)).map_err(refused)?),
        (None, Some(text)) => {
            let fingerprint: Fingerprint = text.parse().map_err(refused)?;
            Some(TlsClient::pinned(fingerprint).map_err(refused)?)
        }
        (None, None) => None,
    };
    Ok(Trust { credentials: Credentials { token }, server: None, client, insecure: false })
}

#[pyfunction]
#[pyo3(signature = (
    address, *, token_file=None, tls_ca_file=None, tls_fingerprint=None, name=None, timeout=10.0
))]
pub fn connect(
    py: Python<'_>,
    address: &str,
    token_file: Option<&str>,
    tls_ca_file: Option<&str>,
    tls_fingerprint: Option<&str>,
    name: Option<&str>,
    timeout: f64,
) -> PyResult<Session> {
    let place = match address.strip_prefix("file://") {
        Some(path) => await_scheduler_file(py, path, timeout)?,
        None => Place { address: normal(address), token: None, fingerprint: None },
    };
    if place.address.starts_with("inproc://") {
        return Err(PyConnectionError::new_err(format!(
            "{} lives in another process and does not listen",
            place.address
        )));
    }
    let trust = trust_for(&place, token_file, tls_ca_file, tls_fingerprint)?;
    let python = python_version(py);
    let timeout = Duration::from_secs_f64(timeout.clamp(0.1, 1e6));
    let name = name.unwrap_or("client");
    let connected =
        py.detach(|| RemoteSession::connect(&place.address, &trust, name, &python, timeout));
    let remote = connected.map_err(PyConnectionError::new_err)?;
    let end = Box::new(remote.ender());
    let (inner, arena) = (remote.session.clone(), remote.arena.clone());
    Ok(Session::new(inner, None, Some(end), arena, false, place.address))
}

/// An address with its scheme.
fn normal(address: &str) -> String {
    if address.contains("://") { address.to_owned() } else { format!("tcp://{address}") }
}

/// Lets SIGTERM end the process in order, as Ctrl-C does.
fn end_on_signals(py: Python<'_>) -> PyResult<()> {
    let signal = py.import("signal")?;
    let handler = signal.getattr("default_int_handler")?;
    for name in ["SIGTERM", "SIGINT"] {
        signal.call_method1("signal", (signal.getattr(name)?, &handler))?;
    }
    Ok(())
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let partial = path.with_extension(format!("{}.partial", std::process::id()));
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(partial, path)
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host == "::1" || host.starts_with("127.")
}

#[pyfunction]
#[pyo3(signature = (
    *, host, port, scheduler_file=None, token_file=None, tls_cert=None, tls_key=None,
    insecure=false, name=None, idle_timeout=None, preload=Vec::new()
))]
#[allow(clippy::too_many_arguments)]
pub fn run_scheduler(
    py: Python<'_>,
    host: &str,
    port: u16,
    scheduler_file: Option<&str>,
    token_file: Option<&str>,
    tls_cert: Option<&str>,
    tls_key: Option<&str>,
    insecure: bool,
    name: Option<&str>,
    idle_timeout: Option<f64>,
    preload: Vec<String>,
) -> PyResult<i32> {
    let _ = (name, preload);
    end_on_signals(py)?;
    let token = match token_file {
        Some(path) if Path::new(path).exists() => Token::from_file(Path::new(path)),
        _ => Token::generate(),
    };
    let token = token.map_err(refused)?;
    let server = server_for(host, tls_cert, tls_key, insecure)?;
    let fingerprint = server.as_ref().map(|server| server.fingerprint().to_string());
    let credentials = Credentials { token: token.clone() };
    let trust = Trust { credentials, server, client: None, insecure };
    let options = scheduler_options(py);
    let node = py.detach(|| SchedulerNode::start(host, port, &trust, options)).map_err(refused)?;
    let kept = token_path(&node.address)?;
    let _ = std::fs::remove_file(&kept);
    token.to_file(&kept).map_err(refused)?;
    if let Some(path) = token_file
        && !Path::new(path).exists()
    {
        token.to_file(Path::new(path)).map_err(refused)?;
    }
    if let Some(path) = scheduler_file {
        let fingerprint = fingerprint.map_or("null".to_owned(), |text| format!("\"{text}\""));
        let text = format!(
            "{{\"type\": \"Scheduler\", \"address\": \"{}\", \"token\": \"{}\", \
             \"fingerprint\": {fingerprint}, \"pid\": {}}}\n",
            node.address,
            token.to_hex(),
            std::process::id()
        );
        write_private(Path::new(path), &text).map_err(refused)?;
    }
    println!("scheduler at {}", node.address);
    let mut is_idle = false;
    while !is_idle && py.check_signals().is_ok() {
        py.detach(|| std::thread::sleep(LOOK_EVERY));
        is_idle = idle_timeout.is_some_and(|most| node.idle_for().as_secs_f64() > most);
    }
    match idle_timeout {
        Some(most) if is_idle => println!("scheduler ends: there was no work for {most} s"),
        _ => println!("scheduler ends"),
    }
    py.detach(|| node.close());
    let _ = std::fs::remove_file(kept);
    if let Some(path) = scheduler_file {
        let _ = std::fs::remove_file(path);
    }
    Ok(0)
}

/// The interface that leads to a scheduler: others come the same way.
fn host_for(scheduler: &str) -> String {
    let place = scheduler.rsplit_once("://").map_or(scheduler, |(_, place)| place);
    let (host, port) = place.rsplit_once(':').unwrap_or((place, "0"));
    let host = host.trim_matches(['[', ']']);
    if is_loopback(host) {
        return host.to_owned();
    }
    let found = host_toward(host, port.parse().unwrap_or(0));
    found.map_or_else(|| "127.0.0.1".to_owned(), |ip| ip.to_string())
}

/// What hides the traffic of whoever listens on `host`: nothing where no other host can read along,
/// or where the user wants none.
fn server_for(
    host: &str,
    tls_cert: Option<&str>,
    tls_key: Option<&str>,
    insecure: bool,
) -> PyResult<Option<TlsServer>> {
    match (tls_cert, tls_key) {
        (Some(cert), Some(key)) => {
            let server = TlsServer::from_files(Path::new(cert), Path::new(key));
            Ok(Some(server.map_err(refused)?))
        }
        (None, None) if is_loopback(host) => Ok(None),
        (None, None) if insecure => {
            eprintln!("warning: listening on {host} without TLS: others may read and change all");
            Ok(None)
        }
        (None, None) => Ok(Some(TlsServer::self_signed(&[host]).map_err(refused)?)),
        _ => Err(PyValueError::new_err("--tls-cert and --tls-key go together")),
    }
}

fn name_of(name: &str, index: u32, nworkers: u32) -> String {
    if nworkers > 1 { format!("{name}-{index}") } else { name.to_owned() }
}

/// What the configuration says of schedulers.
pub fn scheduler_options(py: Python<'_>) -> SchedulerOptions {
    let key = "distributed.scheduler.allowed-failures";
    let asked = py.import("rasker.config").and_then(|c| c.call_method1("get", (key, 3)));
    let allowed = asked.and_then(|asked| asked.extract::<u64>()).unwrap_or(3);
    let allowed_failures = u8::try_from(allowed).unwrap_or(u8::MAX - 1);
    SchedulerOptions { allowed_failures, ..SchedulerOptions::default() }
}

/// Whether values may go to other processes of this host without a copy.
fn shares_memory(py: Python<'_>) -> bool {
    let key = "transport.shared-memory";
    let asked = py.import("rasker.config").and_then(|c| c.call_method1("get", (key, true)));
    asked.and_then(|asked| asked.is_truthy()).unwrap_or(true)
}

#[pyfunction]
#[pyo3(signature = (
    address, *, scheduler_file=None, host=None, port=0, name=None, nthreads=1, nworkers=1,
    memory_limit=0, memory=None, resources=None, preload=Vec::new(), local_directory=None,
    token_file=None, tls_ca_file=None, tls_fingerprint=None, tls_cert=None, tls_key=None,
    insecure=false, processes=true, python=true, death_timeout=None, lifetime=None
))]
#[allow(clippy::too_many_arguments)]
pub fn run_worker(
    py: Python<'_>,
    address: Option<&str>,
    scheduler_file: Option<&str>,
    host: Option<&str>,
    port: u16,
    name: Option<&str>,
    nthreads: u32,
    nworkers: u32,
    memory_limit: u64,
    memory: Option<HashMap<String, f64>>,
    resources: Option<HashMap<String, f64>>,
    preload: Vec<String>,
    local_directory: Option<&str>,
    token_file: Option<&str>,
    tls_ca_file: Option<&str>,
    tls_fingerprint: Option<&str>,
    tls_cert: Option<&str>,
    tls_key: Option<&str>,
    insecure: bool,
    processes: bool,
    python: bool,
    death_timeout: Option<f64>,
    lifetime: Option<Lifetime>,
) -> PyResult<i32> {
    let memory = memory_settings(memory_limit, memory, local_directory);
    end_on_signals(py)?;
    let timeout = death_timeout.unwrap_or(30.0);
    let place = place_of(py, address, scheduler_file, timeout)?;
    let mut trust = trust_for(&place, token_file, tls_ca_file, tls_fingerprint)?;
    let host = host.map_or_else(|| host_for(&place.address), str::to_owned);
    trust.server = server_for(&host, tls_cert, tls_key, insecure)?;
    trust.insecure = insecure;
    let mut resources: Vec<(String, f64)> = resources.unwrap_or_default().into_iter().collect();
    resources.sort_by(|a, b| a.0.cmp(&b.0));
    let executors = if !python {
        ExecutorKind::None
    } else if processes {
        process_executors(py, executor_settings(py, &preload)?)?
    } else {
        let runner = PythonRunner::new(crate::executor::arena(), true);
        ExecutorKind::Threads(Arc::new(runner))
    };
    let start = |py: Python<'_>, index: u32| -> PyResult<WorkerNode> {
        let own = name.map(|name| name_of(name, index, nworkers));
        let options = WorkerNodeOptions {
            scheduler: place.address.clone(),
            trust: trust.clone(),
            host: host.clone(),
            port: if nworkers > 1 { 0 } else { port },
            name: own,
            nthreads,
            memory: memory.clone(),
            n_workers: nworkers.max(1),
            resources: resources.clone(),
            executors: executors.clone(),
            native: Some(Arc::new(FragmentTasks::default())),
            python: python_version(py),
            shares_memory: shares_memory(py),
            timeout: seconds(timeout),
            search: death_timeout.map_or(SEARCH_FOR, seconds),
        };
        let node = py.detach(|| WorkerNode::start(options)).map_err(PyConnectionError::new_err)?;
        println!("worker at {} joined {}", node.address, place.address);
        Ok(node)
    };
    let mut posts = Posts::begin(py, nworkers.max(1), lifetime.unwrap_or_default(), &start)?;
    serve_to_the_end(py, &mut posts)
}

fn serve_to_the_end(py: Python<'_>, posts: &mut Posts<'_>) -> PyResult<i32> {
    let ended = match posts.serve(py)? {
        Some(reason) => Some(reason),
        None => retire_all(py, posts),
    };
    println!("worker ends: {}", ended.as_deref().unwrap_or("it was asked to"));
    let nodes: Vec<&WorkerNode> = posts.nodes().collect();
    py.detach(|| nodes.iter().for_each(|node| node.close()));
    Ok(0)
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.clamp(0.1, 1e6))
}

/// Lets workers hand over their values before they end; a second signal ends them at once.
fn retire_all(py: Python<'_>, posts: &Posts<'_>) -> Option<String> {
    posts.nodes().for_each(WorkerNode::retire);
    let until = std::time::Instant::now() + RETIRE_WITHIN;
    let mut ended = None;
    for node in posts.nodes() {
        let mut own = None;
        while own.is_none() && std::time::Instant::now() < until && py.check_signals().is_ok() {
            own = py.detach(|| node.wait(LOOK_EVERY));
        }
        ended = ended.or(own);
    }
    ended
}
