//! A native runner that knows a few functions of bytes.

use parking_lot::Mutex;
use rasker_graph::{Blob, Column, Template, TemplateId, TemplateKind};
use rasker_protocol::{Failure, Value};
use rasker_runtime::{NativeCall, NativeContext, NativeInput, NativeRunner, Session, bytes_of};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Its functions, by the code of their templates.
pub const FILL: TemplateId = TemplateId(101);
pub const TOTAL: TemplateId = TemplateId(102);
pub const PANIC: TemplateId = TemplateId(103);
pub const WAIT: TemplateId = TemplateId(104);
pub const NAP: TemplateId = TemplateId(105);
pub const RESERVE: TemplateId = TemplateId(106);

#[derive(Default)]
pub struct Native {
    codes: Mutex<HashMap<TemplateId, Blob>>,
    /// Calls that run now, and the most that ever did.
    pub n_running: Arc<AtomicU32>,
    pub n_running_max: Arc<AtomicU32>,
    pub n_cancelled: Arc<AtomicU32>,
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

    fn run(&self, call: NativeCall, context: &NativeContext<'_>) -> Result<Value, Failure> {
        let n = self.n_running.fetch_add(1, Ordering::SeqCst) + 1;
        self.n_running_max.fetch_max(n, Ordering::SeqCst);
        let outcome = self.call(&call, context);
        self.n_running.fetch_sub(1, Ordering::SeqCst);
        outcome
    }
}

impl Native {
    fn call(&self, call: &NativeCall, context: &NativeContext<'_>) -> Result<Value, Failure> {
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
            other => Err(context.failure(format!("no such function: {other:?}"))),
        }
    }

    fn fill(&self, args: &[i64], at: u32, context: &NativeContext<'_>) -> Result<Value, Failure> {
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
    ];
    session.with(|machine, _| {
        for (id, name) in functions {
            let (kind, code) = (TemplateKind::Native, name.as_bytes().to_vec().into());
            machine.add_template(Template { id, kind, name: name.into(), code });
        }
    });
}
