//! Executors as their worker starts and ends them: threads of this process, or processes.

use crate::last_words::LastWords;
use crate::pool::Pool;
use crate::runner::Runner;
use crate::wire::{Outlet, outlet, pump};
use crate::worker_loop::{Input, WorkerInbox};
use parking_lot::Mutex;
use rasker_exchange::cut;
use rasker_graph::{Blob, LayerId, TaskId};
use rasker_protocol::{
    Datum, ExecutorCalls, ExecutorId, ExecutorWork, FromExecutor, Given, Kinds, ToExecutor, Written,
};
use rasker_store::{Segment, Words, read_board};
use rasker_transport::{Connection, LinkOptions, Sender, Token};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// What executors are made of.
#[derive(Clone)]
pub enum ExecutorKind {
    /// None: this worker runs no Python.
    None,
    /// Threads of this process.
    Threads(Arc<dyn Runner>),
    /// Processes that serve a socket which they find as their standard input.
    Processes { program: String, arguments: Vec<String>, settings: Datum },
}

/// Whose an executor is, and where its tasks find their scheduler.
pub(crate) struct Home<'a> {
    pub address: &'a str,
    pub name: &'a str,
    pub scheduler: &'a str,
    pub token: &'a Token,
    pub memory_limit: u64,
}

impl ExecutorKind {
    /// What a worker with these executors runs.
    pub(crate) fn runs(&self, native: bool) -> Kinds {
        Kinds { python: !matches!(self, ExecutorKind::None), native }
    }

    /// The same, told whose they are before anything else.
    pub(crate) fn at(&self, home: Home<'_>) -> ExecutorKind {
        let more = [
            ("worker_address", home.address.into()),
            ("worker_name", home.name.into()),
            ("scheduler", home.scheduler.into()),
            ("token", home.token.to_hex().into()),
            ("memory_limit", home.memory_limit.into()),
        ];
        let mut own = self.clone();
        match &mut own {
            ExecutorKind::Processes { settings: Datum::Map(pairs), .. } => {
                pairs.extend(more.into_iter().map(|(name, value)| (name.to_owned(), value)));
            }
            ExecutorKind::Processes { .. } | ExecutorKind::None => {}
            ExecutorKind::Threads(runner) => runner.set_up(&Datum::from(more)),
        }
        own
    }
}

/// An executor that was started; dropping it ends it.
pub(crate) struct ExecutorLink {
    pub outlet: Outlet<ToExecutor>,
    sender: Option<Sender>,
    child: Option<Arc<Mutex<Child>>>,
}

impl ExecutorLink {
    /// The process, if it is one.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(|child| child.lock().id())
    }

    /// Ends a process at once; its loss is noticed as any other.
    pub fn kill(&self) {
        if let Some(child) = &self.child {
            let _ = child.lock().kill();
        }
    }

    pub fn close(self) {
        (self.outlet)(ToExecutor::Close);
        if let Some(sender) = self.sender {
            sender.close();
        }
    }
}

pub(crate) fn launch(
    kind: &ExecutorKind,
    id: ExecutorId,
    nthreads: u32,
    link: &LinkOptions,
    inbox: &WorkerInbox,
) -> Result<ExecutorLink, String> {
    match kind {
        ExecutorKind::None => Err("this worker runs no Python".to_owned()),
        ExecutorKind::Threads(runner) => Ok(launch_threads(runner.clone(), id, nthreads, inbox)),
        ExecutorKind::Processes { program, arguments, settings } => {
            let (ours, theirs) = UnixStream::pair().map_err(|error| error.to_string())?;
            let mut child = Command::new(program)
                .args(arguments)
                .env("GLIBC_TUNABLES", tunables())
                // Executors run no queries: what they free natively is soon missed elsewhere.
                .env("MIMALLOC_PURGE_DELAY", "10")
                .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
                .stderr(Stdio::piped())
                .spawn()
                .map_err(|error| format!("{program} could not be started: {error}"))?;
            let words = LastWords::hear(child.stderr.take().expect("it was asked for"));
            let connection =
                Connection::from_unix(ours, link.clone()).map_err(|error| error.to_string())?;
            let (sender, receiver) = connection.split();
            let mut settings = settings.clone();
            if let Datum::Map(pairs) = &mut settings {
                pairs.push(("nthreads".into(), nthreads.into()));
            }
            let child = Arc::new(Mutex::new(child));
            let dying = child.clone();
            let to_executor = cutting(outlet(sender.clone()));
            to_executor(ToExecutor::Setup(settings));
            let inbox = inbox.clone();
            tokio::spawn(async move {
                let reports = inbox.clone();
                let mut board = None;
                let ended = pump(receiver, |mut message| {
                    match &mut message {
                        FromExecutor::Ready { board: Some(blob), .. } => {
                            board = blob.local::<Segment>();
                        }
                        // Answers leave the host as they are, also large ones.
                        FromExecutor::Answer { answer, .. } => *answer = copied(answer),
                        _ => {}
                    }
                    reports.send(Input::FromExecutor(id, message)).is_ok()
                })
                .await;
                let mut reason = end(&dying, ended).await;
                let lines = words.lines().await;
                if !lines.is_empty() {
                    reason.push_str("; the last lines of its standard error:");
                    lines.iter().for_each(|line| reason.extend(["\n    ", line.as_str()]));
                }
                let running = board.map(|board| running_on(&board));
                let _ = inbox.send(Input::ExecutorLost(id, reason, running));
            });
            Ok(ExecutorLink { outlet: to_executor, sender: Some(sender), child: Some(child) })
        }
    }
}

/// An executor of threads of this process.
pub(crate) fn launch_threads(
    runner: Arc<dyn Runner>,
    id: ExecutorId,
    nthreads: u32,
    inbox: &WorkerInbox,
) -> ExecutorLink {
    let reports = inbox.clone();
    let report = move |message| {
        let _ = reports.send(Input::FromExecutor(id, message));
    };
    let pool = Pool::new(runner, nthreads, Box::new(report), None);
    let _ = inbox.send(Input::FromExecutor(id, FromExecutor::Ready { pid: 0, board: None }));
    let outlet = Box::new(move |message| pool.handle(message));
    ExecutorLink { outlet, sender: None, child: None }
}

/// Huge pages for the heap, which only the environment can ask for. Without them NumPy and pandas
/// lose a tenth of their time to looking up pages.
fn tunables() -> String {
    let huge = "glibc.malloc.hugetlb=1";
    match std::env::var("GLIBC_TUNABLES") {
        Ok(own) if own.contains("glibc.malloc.hugetlb") => own,
        Ok(own) if !own.is_empty() => format!("{own}:{huge}"),
        _ => huge.to_owned(),
    }
}

/// An outlet to another process: of values that are here it gets no more than the parts it reads.
fn cutting(outlet: Outlet<ToExecutor>) -> Outlet<ToExecutor> {
    Box::new(move |mut message| {
        if let ToExecutor::Calls(calls) = &mut message {
            calls.iter_mut().for_each(cut_parts);
        }
        outlet(message)
    })
}

/// What cannot be cut goes as it is: the call says what is wrong with it.
fn cut_parts(calls: &mut ExecutorCalls) {
    let ExecutorWork::One { given, .. } = &mut calls.work else { return };
    for given in given {
        let Given::Parts { parts, written } = given else { continue };
        for written in written {
            if let Written::Whole(value) = written
                && let Ok(piece) = cut(value, *parts)
            {
                *written = Written::Piece(piece);
            }
        }
    }
}

/// The calls that were running when an executor died, by its own word.
fn running_on(board: &Segment) -> Vec<(TaskId, u32)> {
    let call = |[layer, place, _]: Words| {
        (TaskId::new(LayerId(layer), place as u32), (place >> 32) as u32)
    };
    read_board(board).into_iter().map(call).collect()
}

/// The bytes of a blob that may have come as a segment.
fn copied(blob: &Blob) -> Blob {
    match blob.local::<Segment>() {
        Some(segment) => segment.as_slice().to_vec().into(),
        None => blob.clone(),
    }
}

/// Waits for a process whose connection has ended; one that does not end is killed.
async fn end(child: &Mutex<Child>, connection: String) -> String {
    for wait_ms in [1, 4, 20, 50, 100, 200, 400, 800] {
        let ended = child.lock().try_wait();
        if let Ok(Some(status)) = ended {
            return describe(status);
        }
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
    }
    let mut child = child.lock();
    let _ = child.kill();
    match child.wait() {
        Ok(_) => format!("its executor did not end and was killed ({connection})"),
        Err(error) => error.to_string(),
    }
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("the executor was ended by signal {signal}{}", name(signal)),
        (None, Some(code)) => format!("the executor ended with exit code {code}"),
        (None, None) => "the executor ended".into(),
    }
}

fn name(signal: i32) -> &'static str {
    match signal {
        4 => " (SIGILL)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL)",
        11 => " (SIGSEGV)",
        15 => " (SIGTERM)",
        _ => "",
    }
}
