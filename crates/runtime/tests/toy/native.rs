//! A native runner that knows a few functions of bytes.

use parking_lot::Mutex;
use rasker_client::NewTask;
use rasker_exchange::Layout;
use rasker_graph::{Blob, Column, Key, PartRange, TaskId, Template, TemplateId, TemplateKind};
use rasker_protocol::{Failure, Value};
use rasker_runtime::{NativeCall, NativeContext, NativeInput, NativeRunner, Session, bytes_of};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Its functions, by the code of their templates.
pub const FILL: TemplateId = TemplateId(101);
pub const TOTAL: TemplateId = TemplateId(102);
pub const PANIC: TemplateId = TemplateId(103);
pub const WAIT: TemplateId = TemplateId(104);
pub const NAP: TemplateId = TemplateId(105);
pub const RESERVE: TemplateId = TemplateId(106);
/// Writes parts: its arguments are its number, the number of parts, and the bytes of the largest.
pub const WRITE: TemplateId = TemplateId(107);
/// Reads parts of what such tasks wrote, and gives their digest.
pub const READ: TemplateId = TemplateId(108);

#[derive(Default)]
pub struct Native {
    codes: Mutex<HashMap<TemplateId, Blob>>,
    /// Calls that run now, and the most that ever did.
    pub n_running: Arc<AtomicU32>,
    pub n_running_max: Arc<AtomicU32>,
    pub n_cancelled: Arc<AtomicU32>,
    /// How often each writer ran.
    pub written: Arc<Mutex<HashMap<i64, u32>>>,
    /// Bytes of parts that were read, and how many of them lay in this process's own memory.
    pub n_read_nbytes: Arc<AtomicU64>,
}

/// Bytes of a part: not all have the same, and some have none.
pub fn part_nbytes(writer: i64, part: i64, most: i64) -> i64 {
    if (writer + part) % 11 == 7 { 0 } else { most - (writer * 13 + part * 7) % 64 }
}

pub fn part_byte(writer: i64, part: i64) -> u8 {
    (writer * 31 + part * 17 + 1) as u8
}

/// What a reader makes of parts, each with its writer, number of bytes, first and last byte.
pub fn digest(parts: impl Iterator<Item = (i64, i64, i64, u8, u8)>) -> i64 {
    parts.fold(7, |hash: i64, (part, writer, nbytes, first, last)| {
        let of_one = part * 1_000_003 + writer * 10_007 + nbytes * 101;
        hash.wrapping_mul(31).wrapping_add(of_one + i64::from(first) * 7 + i64::from(last))
    })
}

/// What a reader of parts `start..end` must come to.
pub fn expected(n_writers: i64, start: i64, end: i64, most: i64) -> i64 {
    let parts = (start..end).flat_map(|part| (0..n_writers).map(move |writer| (part, writer)));
    let parts = parts.map(|(part, writer)| {
        let byte = part_byte(writer, part);
        (part, writer, part_nbytes(writer, part, most), byte, byte)
    });
    digest(parts.filter(|(_, _, nbytes, ..)| *nbytes > 0))
}

fn numbers(args: &Blob) -> Vec<i64> {
    let Blob::Bytes(bytes) = args else { panic!("arguments are bytes") };
    bytes.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().expect("eight"))).collect()
}

fn int(value: i64) -> Value {
    Value::Column(Column::ints(&[value]))
}

/// The sum of an input: of its bytes, or the integer itself.
fn total(input: &NativeInput) -> i64 {
    match input {
        NativeInput::Value(Value::Column(column)) => column.int(0).expect("an integer"),
        NativeInput::Parts(read) => read.parts.iter().map(|p| p.data.len() as i64).sum(),
        NativeInput::Value(value) => {
            let bytes = bytes_of(value).expect("an encoded value");
            bytes.iter().map(|byte| i64::from(*byte)).sum()
        }
    }
}

impl NativeRunner for Native {
    fn define(&self, templates: Vec<Template>) {
        self.codes.lock().extend(templates.into_iter().map(|t| (t.id, t.code)));
    }

    fn run(&self, call: NativeCall, context: &NativeContext<'_>) -> Result<Value, Box<Failure>> {
        let n = self.n_running.fetch_add(1, Ordering::SeqCst) + 1;
        self.n_running_max.fetch_max(n, Ordering::SeqCst);
        let outcome = self.call(&call, context);
        self.n_running.fetch_sub(1, Ordering::SeqCst);
        outcome
    }
}

impl Native {
    fn call(&self, call: &NativeCall, context: &NativeContext<'_>) -> Result<Value, Box<Failure>> {
        let Some(Blob::Bytes(code)) = self.codes.lock().get(&call.template).cloned() else {
            panic!("templates come before calls, and are bytes")
        };
        let mut args = numbers(&call.args);
        match &code[..] {
            // Of a map, whose arguments are inputs.
            b"fill" if args.is_empty() => {
                let n = total(&call.inputs[0]);
                args = vec![n];
                self.fill(&args, call.task.index, context)
            }
            b"fill" => self.fill(&args, call.task.index, context),
            b"total" => Ok(int(call.inputs.iter().map(total).sum())),
            b"panic" => {
                self.n_running.fetch_sub(1, Ordering::SeqCst);
                panic!("on purpose: {args:?}")
            }
            b"wait" => {
                let until = Instant::now() + Duration::from_secs(20);
                while !context.is_cancelled() {
                    if Instant::now() > until {
                        return Err(context.failure("nobody cancelled it"));
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
                self.n_cancelled.fetch_add(1, Ordering::SeqCst);
                Err(context.cancelled())
            }
            b"nap" => {
                std::thread::sleep(Duration::from_millis(args[0] as u64));
                Ok(int(args[0]))
            }
            b"reserve" => {
                let nbytes = args[0] as u64;
                let is_granted = context.budget().try_reserve(nbytes);
                if is_granted {
                    context.budget().release(nbytes);
                }
                Ok(int(i64::from(is_granted)))
            }
            b"write" => self.write(&args, context),
            b"read" => {
                let mut found = Vec::new();
                for input in &call.inputs {
                    let NativeInput::Parts(read) = input else {
                        return Err(context.failure("its input is no exchange"));
                    };
                    self.n_read_nbytes.fetch_add(read.nbytes(), Ordering::SeqCst);
                    found.extend(read.parts.iter().map(|part| {
                        let (first, last) = (part.data[0], part.data[part.data.len() - 1]);
                        let nbytes = part.data.len() as i64;
                        (i64::from(part.part), i64::from(part.writer), nbytes, first, last)
                    }));
                }
                Ok(int(digest(found.into_iter())))
            }
            other => Err(context.failure(format!("no such function: {other:?}"))),
        }
    }

    fn write(&self, args: &[i64], context: &NativeContext<'_>) -> Result<Value, Box<Failure>> {
        let [writer, n_parts, most] = args[..] else { panic!("three arguments") };
        *self.written.lock().entry(writer).or_default() += 1;
        let sizes = (0..n_parts).map(|part| part_nbytes(writer, part, most) as u64);
        let layout = Layout::of(sizes);
        let slab = context.allocate(layout.nbytes());
        let mut slab = slab.map_err(|error| context.failure(error.to_string()))?;
        layout.write_index(&mut slab);
        for part in 0..n_parts {
            slab[layout.range(part as u32)].fill(part_byte(writer, part));
        }
        Ok(context.seal(slab))
    }

    fn fill(
        &self,
        args: &[i64],
        at: u32,
        context: &NativeContext<'_>,
    ) -> Result<Value, Box<Failure>> {
        let slab = context.allocate(args[0] as usize);
        let mut slab = slab.map_err(|error| context.failure(error.to_string()))?;
        slab.fill(at as u8 % 2 + 1);
        Ok(context.seal(slab))
    }
}

/// Makes the native functions known to a session.
pub fn teach_native(session: &Session) {
    let functions = [
        (FILL, "fill"),
        (TOTAL, "total"),
        (PANIC, "panic"),
        (WAIT, "wait"),
        (NAP, "nap"),
        (RESERVE, "reserve"),
        (WRITE, "write"),
        (READ, "read"),
    ];
    session.with(|machine, _| {
        for (id, name) in functions {
            let (kind, code) = (TemplateKind::Native, name.as_bytes().to_vec().into());
            machine.add_template(Template { id, kind, name: name.into(), code });
        }
    });
}

/// Enters writers of so many parts, the largest of so many bytes.
pub fn writers(session: &Session, key: u128, n: i64, n_parts: i64, most: i64) -> Vec<TaskId> {
    let enter = |writer: i64| {
        let args: Vec<u8> = [writer, n_parts, most].iter().flat_map(|n| n.to_le_bytes()).collect();
        let key = Key(key + writer as u128);
        session.with(|machine, _| machine.submit(new(key, WRITE, &args, &[])))
    };
    (0..n).map(enter).collect()
}

/// Enters an exchange of these writers, and a reader for each range of parts.
pub fn readers(
    session: &Session,
    key: u128,
    writers: &[TaskId],
    ranges: &[PartRange],
) -> Vec<TaskId> {
    session.with(|machine, _| {
        let exchange = machine.exchange(Key(key), writers);
        let enter = |(at, parts): (u128, &PartRange)| {
            let of = [exchange];
            let task = new(Key(key + 1 + at), READ, &[], &of);
            machine.submit_reader(task, &[(0, *parts)], true)
        };
        (0..).zip(ranges).map(enter).collect()
    })
}

pub fn new<'a>(
    key: Key,
    template: TemplateId,
    args: &'a [u8],
    dependencies: &'a [TaskId],
) -> NewTask<'a> {
    NewTask { key, name: None, template, args, blob: None, dependencies, options: None, fused: &[] }
}
