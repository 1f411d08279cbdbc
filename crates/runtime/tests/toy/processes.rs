//! A cluster whose workers are processes: this program again, told to be one.

use rasker_runtime::{
    Credentials, ExecutorKind, MemorySettings, NativeRunner, RemoteSession, SchedulerNode,
    SchedulerOptions, Session, Token, Trust, WorkerNode, WorkerNodeOptions,
};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Nothing here takes longer.
const LIMIT: Duration = Duration::from_secs(30);

fn trust(token: Token) -> Trust {
    Trust { credentials: Credentials { token }, server: None, client: None, insecure: false }
}

/// Runs a worker, if this process was started as one, until it is killed or closed.
pub fn serve_if_worker(native: impl FnOnce() -> Arc<dyn NativeRunner>) {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, role, address, name] = &arguments[..] else { return };
    if role != "worker" {
        return;
    }
    let mut token = String::new();
    std::io::stdin().read_line(&mut token).expect("a token");
    let options = WorkerNodeOptions {
        scheduler: address.clone(),
        trust: trust(Token::from_hex(token.trim()).expect("a token")),
        host: "127.0.0.1".into(),
        port: 0,
        name: Some(name.clone()),
        nthreads: 1,
        memory: MemorySettings::default(),
        n_workers: 1,
        resources: Vec::new(),
        executors: ExecutorKind::None,
        native: Some(native()),
        python: String::new(),
        shares_memory: true,
        timeout: LIMIT,
        search: Duration::from_secs(1),
    };
    let node = WorkerNode::start(options).expect("a worker starts");
    while node.wait(Duration::from_secs(60)).is_none() {}
    std::process::exit(0);
}

pub struct Processes {
    // Dropped first: a client must not outlive its scheduler.
    remote: RemoteSession,
    scheduler: SchedulerNode,
    token: Token,
    pub workers: Vec<(Child, BufReader<ChildStdout>)>,
}

impl Processes {
    pub fn start(n_workers: usize) -> Processes {
        let token = Token::generate().expect("a token");
        let trust = trust(token.clone());
        let options = SchedulerOptions::default();
        let scheduler =
            SchedulerNode::start("127.0.0.1", 0, &trust, options).expect("a scheduler starts");
        let remote = RemoteSession::connect(&scheduler.address, &trust, "test", "", LIMIT);
        let remote = remote.expect("a client");
        let mut cluster = Processes { remote, scheduler, token, workers: Vec::new() };
        for _ in 0..n_workers {
            cluster.add_worker();
        }
        cluster
    }

    pub fn session(&self) -> &Session {
        &self.remote.session
    }

    /// Starts a worker and waits until it has joined: ids ascend in this order.
    pub fn add_worker(&mut self) {
        let n_before = self.session().workers().len();
        let program = std::env::current_exe().expect("this program");
        let mut child = Command::new(program)
            .args(["worker", &self.scheduler.address, &format!("w{}", self.workers.len())])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a worker process starts");
        let mut stdin = child.stdin.take().expect("it was asked for");
        writeln!(stdin, "{}", self.token.to_hex()).expect("it reads");
        let said = BufReader::new(child.stdout.take().expect("it was asked for"));
        self.workers.push((child, said));
        let until = Instant::now() + LIMIT;
        while self.session().workers().len() <= n_before {
            assert!(Instant::now() < until, "a worker did not join");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends a process at once, as a crash would. What it had said before.
    pub fn kill(&mut self, at: usize) -> Vec<String> {
        let (mut child, said) = self.workers.remove(at);
        child.kill().expect("a process of ours");
        child.wait().expect("a process of ours");
        said.lines().map_while(Result::ok).collect()
    }

    /// Ends all of them. None is left meanwhile to make the values of the others again.
    pub fn kill_all(&mut self) -> Vec<String> {
        for (child, _) in &mut self.workers {
            child.kill().expect("a process of ours");
        }
        let n_workers = self.workers.len();
        (0..n_workers).flat_map(|_| self.kill(0)).collect()
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.kill_all();
    }
}
