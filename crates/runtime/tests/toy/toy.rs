//! A runner that knows no Python, and a session's calls in a line.

use parking_lot::Mutex;
use rasker_client::{Ending, NewTask};
use rasker_graph::{Blob, Input, Key, LayerId, MapWork, Run, TaskId, Template, TemplateId};
use rasker_protocol::{Datum, ExecutorCalls, ExecutorWork, Failure, Given, GivenInput, Value};
use rasker_runtime::{Runner, Session, Sink};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub const SQUARE: TemplateId = TemplateId(1);
pub const SUM: TemplateId = TemplateId(2);
pub const SLEEP_MS: TemplateId = TemplateId(3);

/// No test waits longer than this.
pub const LIMIT: Duration = Duration::from_secs(20);

/// Knows three functions of integers by the code of their templates.
#[derive(Default)]
pub struct Toy(Mutex<HashMap<TemplateId, Blob>>);

impl Toy {
    fn call(&self, template: TemplateId, arguments: &[i64]) -> i64 {
        let code = self.0.lock().get(&template).cloned().expect("templates come before calls");
        let Blob::Bytes(code) = code else { panic!("code that is not bytes") };
        match &code[..] {
            b"square" => arguments[0] * arguments[0],
            b"sum" => arguments.iter().sum(),
            b"sleep_ms" => {
                std::thread::sleep(Duration::from_millis(arguments[0] as u64));
                arguments[0]
            }
            other => panic!("no such function: {other:?}"),
        }
    }
}

fn given_int(given: &Given) -> i64 {
    match given {
        Given::Value(Value::Column(column)) => column.int(0).expect("an integer"),
        other => panic!("not an integer: {other:?}"),
    }
}

impl Runner for Toy {
    fn set_up(&self, _: &Datum) {}

    fn define(&self, templates: Vec<Template>) {
        self.0.lock().extend(templates.into_iter().map(|template| (template.id, template.code)));
    }

    fn work(&self, next: &mut dyn FnMut() -> Option<ExecutorCalls>, sink: &dyn Sink) {
        while let Some(calls) = next() {
            sink.begin(calls.run, calls.attempt);
            for index in calls.run.indices() {
                let at = index - calls.run.start;
                let arguments: Vec<i64> = match &calls.work {
                    ExecutorWork::One { args: Blob::Bytes(args), given } => {
                        let own = args.chunks_exact(8);
                        let own = own.map(|b| i64::from_le_bytes(b.try_into().expect("eight")));
                        own.chain(given.iter().map(given_int)).collect()
                    }
                    ExecutorWork::One { .. } => panic!("arguments that are not bytes"),
                    ExecutorWork::Map { inputs, .. } => inputs
                        .iter()
                        .map(|input| match input {
                            GivenInput::Values(column) => column.int(at).expect("an integer"),
                            GivenInput::Each(given) => given_int(&given[at as usize]),
                        })
                        .collect(),
                };
                sink.int(index, self.call(calls.template, &arguments));
            }
        }
    }

    fn drop_values(&self, _: &[Run]) {}

    fn export(&self, _: TaskId, value: Option<Value>) -> Result<Option<Value>, Arc<Failure>> {
        Ok(value)
    }

    fn answer(&self, call: &Blob) -> Blob {
        call.clone()
    }
}

/// Makes the toy's functions known to a session.
pub fn teach(session: &Session) {
    session.with(|machine, _| {
        for (id, name) in [(SQUARE, "square"), (SUM, "sum"), (SLEEP_MS, "sleep_ms")] {
            let code = name.as_bytes().to_vec().into();
            machine.add_template(Template {
                id,
                kind: Default::default(),
                name: name.into(),
                code,
            });
        }
    });
}

pub fn map(
    session: &Session,
    template: TemplateId,
    key: u128,
    inputs: Vec<Input>,
    n: u32,
) -> LayerId {
    let name = "mapped".into();
    let work = MapWork { template, key: Key(key), name, inputs, constants: Blob::EMPTY };
    session.with(|machine, out| machine.map(work, n, Arc::default(), out))
}

/// Enters a task and sends nothing.
pub fn enter(
    session: &Session,
    template: TemplateId,
    key: u128,
    arg: i64,
    of: &[TaskId],
) -> TaskId {
    session.with(|machine, _| {
        machine.submit(NewTask {
            key: Key(key),
            name: None,
            template,
            args: &arg.to_le_bytes(),
            blob: None,
            dependencies: of,
            options: None,
            fused: &[],
        })
    })
}

/// Whether all tasks of the run ended within `limit`.
pub fn ends_within(session: &Session, run: Run, limit: Duration) -> bool {
    match session.waiter(&[run], run.count) {
        Some((_, waiter)) => waiter.wait(Some(Instant::now() + limit)),
        None => true,
    }
}

/// The integers that the tasks of a run ended with.
pub fn ints(session: &Session, run: Run) -> Vec<i64> {
    run.tasks().map(|task| int(session, task)).collect()
}

fn int(session: &Session, task: TaskId) -> i64 {
    loop {
        assert!(ends_within(session, task.run(), LIMIT), "{task:?} has not ended");
        match session.ending(task) {
            Some(Ending::Finished { value: Some(Value::Column(column)), .. }) => {
                return column.int(0).expect("an integer");
            }
            // It had ended, and was lost with its worker: it is pending again.
            None => {}
            other => panic!("{task:?} ended so: {other:?}"),
        }
    }
}
