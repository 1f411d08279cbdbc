//! Why a task is not done yet: a reason for its own state, and those of what it waits for.

use crate::scheduler::Scheduler;
use crate::table::{State, TaskList, TaskRef};
use rasker_graph::{Key, TemplateKind};
use rasker_protocol::{Datum, WorkerId};

/// A chain of reasons goes no deeper than this.
const DEPTH_MAX: usize = 20;

impl Scheduler {
    pub(crate) fn explain(&self, key: Key) -> Datum {
        let Some(task) = self.task_of(key) else {
            return Datum::from([
                ("state", Datum::from("forgotten")),
                ("reason", "nobody wants it".into()),
            ]);
        };
        let chain = self.reasons(task);
        let mut lines = chain.iter().map(|(_, line)| line.clone());
        let mut reason = lines.next().unwrap_or_default();
        for (line, (key, _)) in lines.zip(chain.iter().skip(1)) {
            reason.push_str(&format!("; \"{key}\" {line}"));
        }
        let chain = chain.into_iter().map(|(key, line)| Datum::from(vec![key.into(), line.into()]));
        Datum::from([
            ("key", Datum::from(self.key_text(task))),
            ("state", self.state(task).name().into()),
            ("reason", reason.into()),
            ("chain", Datum::List(chain.collect())),
            ("attempt", u32::from(self.table.task(task).attempt).into()),
            ("holders", self.holders(task)),
        ])
    }

    /// The task's reason, and after it that of the first input it waits for, and so on.
    fn reasons(&self, task: TaskRef) -> Vec<(String, String)> {
        let mut chain = Vec::new();
        let mut next = Some(task);
        while let Some(task) = next.filter(|_| chain.len() < DEPTH_MAX) {
            next = None;
            let mut line = self.reason(task);
            if let State::Waiting { missing } = self.state(task) {
                let mut inputs = TaskList::new();
                self.table.dependencies(task, &mut inputs);
                let is_missing = |t: &TaskRef| !self.state(*t).is_there();
                next = inputs.into_iter().find(is_missing);
                let first = next.map_or(String::new(), |input| self.key_text(input));
                line = match missing {
                    1 => format!("waits for \"{first}\""),
                    n => format!("waits for {n} inputs, one of them \"{first}\""),
                };
            }
            chain.push((self.key_text(task), line));
        }
        chain
    }

    fn reason(&self, task: TaskRef) -> String {
        let n_deaths = self.table.task(task).suspicion;
        let alone = match n_deaths {
            0 => String::new(),
            n => format!(" (alone, as executors died under it: {n} so far)"),
        };
        match self.state(task) {
            State::Released => "is not needed by anybody now".to_owned(),
            State::Waiting { missing } => format!("waits for {missing} inputs"),
            State::Ready => self.reason_to_wait(task) + &alone,
            State::Processing { worker } => self.reason_in_hand(worker) + &alone,
            State::Memory { holder, .. } => match self.worker(holder) {
                Some(worker) => format!("is in memory on {}", worker.hello.address),
                None => "is in memory".to_owned(),
            },
            State::Open { .. } => "is open: all that is to be read is in memory".to_owned(),
            State::Failed { failure } => format!("failed: {}", self.failure(failure).text),
            State::Alias { .. } | State::Forgotten => "is not wanted by anybody".to_owned(),
        }
    }

    fn reason_in_hand(&self, id: WorkerId) -> String {
        let worker = self.worker(id).expect("alive");
        let silent = match worker.is_suspect {
            true => {
                let seconds = self.now_ns.saturating_sub(worker.heard_ns) / 1_000_000_000;
                format!("; nothing was heard of it for {seconds} s")
            }
            false => String::new(),
        };
        format!(
            "runs or is next in line on {}, which has {} calls in hand{silent}",
            worker.hello.address, worker.n_processing
        )
    }

    fn reason_to_wait(&self, task: TaskRef) -> String {
        if self.alive.is_empty() {
            return "is ready, and there is no worker".to_owned();
        }
        let options = self.table.options(task);
        if self.is_unplaceable(task) {
            let resources = options.resources.iter().map(|(name, n)| format!("{name}={n}"));
            let kind = match self.kind_of(task) {
                TemplateKind::Python => "Python",
                TemplateKind::Native => "native tasks",
            };
            let kind = self.lacking.has(self.kind_of(task)).then(|| kind.to_owned());
            let asked = options.workers.iter().cloned().chain(resources).chain(kind);
            let asked: Vec<String> = asked.collect();
            return format!(
                "is ready, and no worker has the names or the resources it asks for: {}",
                asked.join(", ")
            );
        }
        let there = self.alive.iter().map(|id| self.worker(*id).expect("alive"));
        let n_paused = there.filter(|worker| worker.status.is_paused).count();
        let mut line = "is ready, and withheld until a worker has room".to_owned();
        for (n, what) in
            [(n_paused, "short of memory"), (self.n_sidelined as usize, "not heard of or retiring")]
        {
            if n > 0 {
                line.push_str(&format!("; {n} of {} are {what}", self.alive.len()));
            }
        }
        line
    }
}
