//! Messages that can be decoded and mean nothing good: of layers of others, with numbers at the
//! ends of their ranges, with lists that do not fit together.

use super::feed::Feed;
use rasker_graph::*;
use rasker_protocol::*;
use smallvec::SmallVec;
use std::sync::Arc;

pub fn layer(feed: &mut Feed<'_>) -> LayerId {
    match feed.below(8) {
        7 => LayerId(u64::MAX - u64::from(feed.number())),
        _ => LayerId::new(ClientId(feed.below(4) as u32), feed.below(5) as u32),
    }
}

pub fn task(feed: &mut Feed<'_>) -> TaskId {
    TaskId::new(layer(feed), feed.number())
}

pub fn run(feed: &mut Feed<'_>) -> Run {
    Run::new(layer(feed), feed.number(), feed.number())
}

pub fn worker_id(feed: &mut Feed<'_>) -> WorkerId {
    WorkerId(feed.below(4) as u32)
}

fn key(feed: &mut Feed<'_>) -> Key {
    Key(u128::from(feed.below(6)))
}

fn template_id(feed: &mut Feed<'_>) -> TemplateId {
    TemplateId(u128::from(feed.below(4)))
}

fn template_kind(feed: &mut Feed<'_>) -> TemplateKind {
    TemplateKind::ALL[feed.below(2) as usize]
}

pub fn attempt(feed: &mut Feed<'_>) -> u32 {
    feed.number()
}

fn text(feed: &mut Feed<'_>) -> String {
    ["", "w0", "here", "\u{0}"][feed.below(4) as usize].to_owned()
}

fn blob(feed: &mut Feed<'_>) -> Blob {
    let n = [0, 8, 1024, 1025][feed.below(4) as usize];
    Blob::from(vec![feed.byte(); n])
}

pub fn column(feed: &mut Feed<'_>) -> Column {
    let n = feed.below(5) as u32;
    match feed.below(4) {
        // A user may enter as many tasks as there is memory for.
        0 => Column::range(i64::from(feed.byte()), 1, feed.number().min(1 << 12)),
        1 => Column::floats(&vec![f64::NAN; n as usize]),
        2 => Column::same(vec![feed.byte(); 3].into(), n),
        _ => Column::ints(&vec![7; n as usize]),
    }
}

pub fn value(feed: &mut Feed<'_>) -> Value {
    match feed.below(2) {
        0 => Value::Column(column(feed)),
        _ => Value::Encoded { blob: blob(feed), nbytes: u64::from(feed.number()) << 30 },
    }
}

pub fn parts(feed: &mut Feed<'_>) -> PartRange {
    PartRange { start: feed.number(), end: feed.number() }
}

fn piece(feed: &mut Feed<'_>) -> Piece {
    let ends = feed.list(2, |feed| u64::from(feed.number()) << 31);
    Piece { ends: ends.into(), data: blob(feed) }
}

pub fn got_piece(feed: &mut Feed<'_>) -> GotPiece {
    let (task, parts) = (TaskId::new(layer(feed), feed.below(8) as u32), parts(feed));
    let piece = match feed.below(3) {
        0 => Ok(None),
        1 => Ok(Some(piece(feed))),
        _ => Err(failure(feed)),
    };
    GotPiece { task, parts, piece }
}

fn failure(feed: &mut Feed<'_>) -> Arc<Failure> {
    let kinds = [FailureKind::Exception, FailureKind::Cancelled, FailureKind::Killed];
    Arc::new(Failure::new(kinds[feed.below(3) as usize], text(feed), text(feed)))
}

fn options(feed: &mut Feed<'_>) -> Arc<Options> {
    let amounts = [0.0, 1.0, -1.0, f64::NAN, f64::INFINITY];
    Arc::new(Options {
        priority: [0, 1, i64::MIN, i64::MAX][feed.below(4) as usize],
        retries: feed.byte(),
        workers: feed.list(1, text),
        allow_other_workers: feed.chance(128),
        resources: feed.list(1, |feed| ("gpu".into(), amounts[feed.below(5) as usize])),
    })
}

fn input(feed: &mut Feed<'_>) -> Input {
    match feed.below(3) {
        0 => Input::Values(column(feed)),
        1 => Input::Tasks(task(feed)),
        _ => Input::TaskList(feed.list(4, task).into()),
    }
}

fn datum(feed: &mut Feed<'_>, depth: u32) -> Datum {
    match feed.below(if depth == 0 { 3 } else { 4 }) {
        0 => Datum::Null,
        1 => Datum::Float(f64::NAN),
        2 => Datum::Text(text(feed)),
        _ => Datum::List(feed.list(2, |feed| datum(feed, depth - 1))),
    }
}

fn page(feed: &mut Feed<'_>) -> Page {
    let mut page = Page { templates: feed.list(2, template_id), ..Page::default() };
    for index in 0..feed.below(5) as u32 {
        page.template.push(feed.below(2) as u32);
        page.keys.push(key(feed));
        page.args.extend(feed.list(2, Feed::byte));
        page.arg_ends.push(page.args.len() as u32);
        page.dependencies.extend(feed.list(3, task));
        page.dependency_ends.push(page.dependencies.len() as u32);
        if feed.chance(40) {
            page.options.push((index, options(feed)));
        }
        if feed.chance(40) {
            page.fused.push((index, template_id(feed)));
        }
        if feed.chance(40) {
            page.blobs.push((index, blob(feed)));
        }
    }
    if feed.chance(60) {
        page.exchanges = feed.list(2, |feed| feed.below(5) as u32);
        page.exchanges.sort_unstable();
        page.exchanges.dedup();
        for at in page.exchanges.clone() {
            if let Some(template) = page.template.get_mut(at as usize) {
                *template = NO_TEMPLATE;
            }
        }
    }
    if feed.chance(60) {
        page.readings = feed.list(2, |feed| Reading {
            reader: feed.below(5) as u32,
            place: feed.below(3) as u32,
            parts: parts(feed),
        });
        page.readings.sort_unstable();
    }
    if feed.chance(60) {
        page.unwanted = feed.list(3, Feed::number);
    }
    if feed.chance(20) {
        page.dependency_ends.push(feed.number());
    }
    if feed.chance(20) {
        page.names = feed.list(2, |feed| (feed.number(), text(feed).into()));
    }
    page
}

fn a_layer(feed: &mut Feed<'_>) -> Layer {
    let id = layer(feed);
    let (count, work) = match feed.below(2) {
        0 => {
            let page = page(feed);
            (page.len() as u32, Work::Page(Box::new(page)))
        }
        _ => {
            let inputs = feed.list(2, input);
            let (template, key, name) = (template_id(feed), key(feed), text(feed).into());
            let constants = blob(feed);
            let count = inputs.first().map_or(1, |input| match input {
                Input::Values(column) => column.len(),
                Input::Tasks(_) => 3,
                Input::TaskList(tasks) => tasks.len() as u32,
            });
            (count, Work::Map(MapWork { template, key, name, inputs, constants }))
        }
    };
    let count = if feed.chance(20) { feed.number().min(1 << 12) } else { count };
    Layer { id, count, work, options: options(feed), wants_values: feed.chance(128) }
}

fn template(feed: &mut Feed<'_>) -> Template {
    Template {
        id: template_id(feed),
        kind: template_kind(feed),
        name: text(feed).into(),
        code: blob(feed),
    }
}

fn query(feed: &mut Feed<'_>) -> Query {
    match feed.below(13) {
        0 => Query::Info,
        1 => Query::WhoHas(feed.list(2, key)),
        2 => Query::HasWhat,
        3 => Query::Processing,
        4 => match feed.chance(128) {
            true => Query::Explain(key(feed)),
            false => Query::Story(feed.list(2, key)),
        },
        5 => Query::Call(key(feed)),
        6 => Query::Events(Some(text(feed))),
        7 => Query::LogEvent { topic: text(feed), message: datum(feed, 3) },
        8 => Query::Peers,
        9 => Query::Run { workers: feed.list(1, text), call: blob(feed) },
        10 => Query::CallStack,
        11 => Query::Pending(feed.list(3, run)),
        _ => Query::Info,
    }
}

pub fn from_client(feed: &mut Feed<'_>) -> FromClient {
    match feed.below(8) {
        0 | 1 => FromClient::Submit(Submit {
            templates: feed.list(2, template),
            layers: feed.list(2, a_layer),
        }),
        2 => FromClient::Release(feed.list(3, run)),
        3 => FromClient::Cancel { runs: feed.list(2, run), reason: text(feed) },
        4 => FromClient::Retry(feed.list(3, task)),
        5 => FromClient::Scattered(Scattered {
            layer: layer(feed),
            keys: feed.list(2, key),
            names: feed.list(2, |feed| text(feed).into()),
            nbytes: feed.list(2, |feed| u64::from(feed.number())),
            holders: feed.list(2, |feed| feed.list(3, worker_id)),
        }),
        6 => {
            let index = feed.chance(128).then(|| feed.number());
            FromClient::Adopt { task: task(feed), key: key(feed), index }
        }
        _ => FromClient::Ask { id: u64::from(feed.number()), query: query(feed) },
    }
}

pub fn to_client(feed: &mut Feed<'_>) -> ToClient {
    match feed.below(6) {
        0 | 1 => ToClient::Finished(feed.list(3, |feed| Finished {
            run: run(feed),
            held_as: task(feed),
            holder: worker_id(feed),
            nbytes: u64::from(feed.number()),
            values: feed.chance(128).then(|| value(feed)),
        })),
        2 => ToClient::Failed(feed.list(3, |feed| (run(feed), failure(feed)))),
        3 => ToClient::Pending(feed.list(3, run)),
        4 => ToClient::Answer { id: u64::from(feed.number()), answer: datum(feed, 3) },
        _ => ToClient::PeersGone(feed.list(2, worker_id)),
    }
}

fn progress(feed: &mut Feed<'_>) -> Progress {
    match feed.below(8) {
        0 | 1 => Progress::Finished {
            run: run(feed),
            attempt: attempt(feed),
            elapsed_ns: u64::from(feed.number()) << 31,
            nbytes: u64::from(feed.number()),
            values: feed.chance(128).then(|| value(feed)),
        },
        2 => Progress::Failed { run: run(feed), attempt: attempt(feed), failure: failure(feed) },
        3 => Progress::Crashed { run: run(feed), attempt: attempt(feed), reason: text(feed) },
        4 => Progress::Retracted { run: run(feed), attempt: attempt(feed) },
        5 => Progress::Missing {
            task: task(feed),
            attempt: attempt(feed),
            inputs: feed.list(2, |feed| (task(feed), worker_id(feed))),
        },
        6 => Progress::Copied { run: run(feed), nbytes: u64::from(feed.number()) },
        _ => match feed.below(4) {
            0 => Progress::Dropped { runs: feed.list(2, run) },
            1 => Progress::NotCopied { runs: feed.list(2, run) },
            2 => Progress::Spare { runs: feed.list(2, run) },
            _ => Progress::Threads { nthreads: feed.number() },
        },
    }
}

pub fn from_worker(feed: &mut Feed<'_>) -> FromWorker {
    match feed.below(8) {
        6 => FromWorker::Inventory(feed.list(3, |feed| (run(feed), u64::from(feed.number())))),
        7 if feed.chance(20) => FromWorker::Retire,
        0 => FromWorker::Answer { id: u64::from(feed.number()), answer: datum(feed, 3) },
        1 => FromWorker::Status(WorkerStatus { running: feed.number(), ..Default::default() }),
        _ => FromWorker::Progress(feed.list(3, progress)),
    }
}

pub fn calls(feed: &mut Feed<'_>) -> Calls {
    let start = feed.below(8) as u32;
    let tasks = Run::new(layer(feed), start, 1 + feed.below(4) as u32);
    let work = match feed.below(2) {
        0 => CallWork::Map {
            inputs: vec![
                Input::Values(Column::range(0, 1, tasks.count)),
                Input::Tasks(TaskId::new(layer(feed), feed.below(8) as u32)),
            ],
            constants: blob(feed),
        },
        _ => CallWork::One { args: blob(feed), dependencies: feed.list(3, task).into() },
    };
    let run = if matches!(work, CallWork::One { .. }) { Run { count: 1, ..tasks } } else { tasks };
    let text = feed.chance(60).then(|| text(feed).into());
    let label = Label { name: "f".into(), key: key(feed), layer: feed.chance(128), text };
    let source = |feed: &mut Feed<'_>| {
        let run = Run::new(layer(feed), feed.below(8) as u32, 1 + feed.below(3) as u32);
        Source { run, worker: worker_id(feed), nbytes: 8 }
    };
    Calls {
        run,
        attempt: feed.below(3) as u32,
        priority: Priority { user: 0, keeps: feed.chance(128), submission: feed.below(4) },
        template: template_id(feed),
        fused: feed.list(1, template_id).into(),
        label,
        work,
        sources: feed.list(3, source).into(),
        alone: feed.chance(60),
        reads: match feed.chance(60) {
            true => feed.list(2, |feed| (feed.below(3) as u32, parts(feed))).into(),
            false => SmallVec::new(),
        },
    }
}

/// What a scheduler in its right mind may say, in any order.
pub fn to_worker(feed: &mut Feed<'_>) -> ToWorker {
    let near =
        |feed: &mut Feed<'_>| Run::new(layer(feed), feed.below(8) as u32, feed.below(6) as u32);
    let source = |feed: &mut Feed<'_>| {
        let run = Run::new(layer(feed), feed.below(8) as u32, 1 + feed.below(3) as u32);
        Source { run, worker: worker_id(feed), nbytes: 8 }
    };
    match feed.below(10) {
        8 => ToWorker::Copy(feed.list(3, source)),
        9 => ToWorker::PeersGone(feed.list(2, worker_id)),
        0..3 => ToWorker::Compute {
            templates: feed.list(1, template),
            calls: feed.list(3, calls),
            peers: vec![],
            exchanges: feed.list(2, |feed| OpenExchange {
                exchange: TaskId::new(layer(feed), feed.below(8) as u32),
                writers: feed.list(3, source).into(),
            }),
        },
        3 => ToWorker::Free(feed.list(3, near)),
        4 => ToWorker::Cancel(feed.list(3, |feed| (near(feed), feed.below(3) as u32))),
        5 => ToWorker::Retract,
        6 => ToWorker::Run { id: 1, call: blob(feed) },
        _ if feed.chance(20) => ToWorker::Restart,
        _ => ToWorker::CallStack { id: 2 },
    }
}

pub fn from_executor(feed: &mut Feed<'_>) -> FromExecutor {
    let near = |feed: &mut Feed<'_>| match feed.chance(30) {
        true => run(feed),
        false => Run::new(layer(feed), feed.below(8) as u32, feed.below(4) as u32),
    };
    match feed.below(8) {
        0..4 => FromExecutor::Done(feed.list(3, |feed| {
            let outcome = match feed.below(4) {
                0 => Outcome::Values(column(feed)),
                1 => Outcome::Live { nbytes: u64::from(feed.number()) },
                2 => Outcome::Value(value(feed)),
                _ => Outcome::Failed(failure(feed)),
            };
            let elapsed_ns = u64::from(feed.number()) << 31;
            Done { run: near(feed), attempt: feed.below(3) as u32, elapsed_ns, outcome }
        })),
        4 => FromExecutor::Recalled(feed.list(3, |feed| (near(feed), feed.below(3) as u32))),
        5 => {
            let value = match feed.below(3) {
                0 => Ok(None),
                1 => Ok(Some(value(feed))),
                _ => Err(failure(feed)),
            };
            FromExecutor::Exported { task: TaskId::new(layer(feed), feed.below(8) as u32), value }
        }
        6 => FromExecutor::Seceded { by: [1, -1, i32::MAX, i32::MIN][feed.below(4) as usize] },
        _ => FromExecutor::Answer { id: 1, answer: blob(feed) },
    }
}

pub fn to_executor(feed: &mut Feed<'_>) -> ToExecutor {
    match feed.below(6) {
        0 => ToExecutor::Setup(datum(feed, 3)),
        1 => ToExecutor::Define(feed.list(2, template)),
        2 => ToExecutor::Drop(feed.list(2, run)),
        3 => ToExecutor::Export(feed.list(2, |feed| (task(feed), Some(value(feed))))),
        4 => ToExecutor::Cancel(feed.list(2, |feed| (run(feed), attempt(feed)))),
        _ => {
            let given = feed.list(2, |feed| Given::Value(value(feed))).into();
            let work = ExecutorWork::One { args: blob(feed), given };
            let label = Label { name: "f".into(), key: key(feed), layer: true, text: None };
            let (run, attempt, template) = (run(feed), attempt(feed), template_id(feed));
            ToExecutor::Calls(vec![ExecutorCalls { run, attempt, template, label, work }])
        }
    }
}

pub fn from_holder(feed: &mut Feed<'_>) -> FromHolder {
    let values = feed.list(3, |feed| {
        let value = match feed.below(3) {
            0 => Ok(None),
            1 => Ok(Some(value(feed))),
            _ => Err(failure(feed)),
        };
        (task(feed), value)
    });
    if feed.chance(60) {
        let pieces = feed.list(3, got_piece);
        return FromHolder::GotParts { id: u64::from(feed.number()), pieces };
    }
    FromHolder::Got { id: u64::from(feed.number()), values }
}

pub fn to_holder(feed: &mut Feed<'_>) -> ToHolder {
    let near = |feed: &mut Feed<'_>| TaskId::new(layer(feed), feed.below(8) as u32);
    let id = u64::from(feed.number());
    match feed.below(2) {
        0 => ToHolder::Get { id, tasks: feed.list(3, near) },
        _ => ToHolder::Put { id, values: feed.list(3, |feed| (near(feed), value(feed))) },
    }
}
