//! Results of a thread that runs calls, gathered into columns until they are reported.
//!
//! The thread writes after each call; whoever reports takes what is there, also while a long call
//! runs, so that results never wait for the call after them.

use parking_lot::Mutex;
use rasker_graph::{Column, Run};
use rasker_protocol::{Done, Failure, Outcome, Value};
use std::sync::Arc;
use std::time::Instant;

#[derive(Default)]
enum Gathered {
    #[default]
    None,
    Ints(Vec<i64>),
    Floats(Vec<f64>),
    Packed {
        ends: Vec<u32>,
        data: Vec<u8>,
    },
}

/// A column is closed at this many bytes of packed values.
const PACKED_MAX: usize = 1 << 20;

struct Piece {
    run: Run,
    attempt: u32,
    start: u32,
    gathered: Gathered,
    since: Instant,
    done: Vec<Done>,
}

/// See the module.
pub(crate) struct Collector(Mutex<Piece>);

impl Collector {
    pub fn new() -> Collector {
        let run = Run::new(rasker_graph::LayerId(0), 0, 0);
        Collector(Mutex::new(Piece {
            run,
            attempt: 0,
            start: 0,
            gathered: Gathered::None,
            since: Instant::now(),
            done: Vec::new(),
        }))
    }

    pub fn begin(&self, run: Run, attempt: u32) {
        let mut piece = self.0.lock();
        piece.close();
        piece.run = run;
        piece.attempt = attempt;
        piece.since = Instant::now();
    }

    pub fn int(&self, index: u32, value: i64) {
        let mut piece = self.0.lock();
        match &mut piece.gathered {
            Gathered::Ints(values) => values.push(value),
            _ => piece.open(index, Gathered::Ints(vec![value])),
        }
    }

    pub fn float(&self, index: u32, value: f64) {
        let mut piece = self.0.lock();
        match &mut piece.gathered {
            Gathered::Floats(values) => values.push(value),
            _ => piece.open(index, Gathered::Floats(vec![value])),
        }
    }

    pub fn packed(&self, index: u32, value: &[u8]) {
        let mut piece = self.0.lock();
        if !matches!(&piece.gathered, Gathered::Packed { data, .. } if data.len() < PACKED_MAX) {
            piece.open(index, Gathered::Packed { ends: Vec::new(), data: Vec::new() });
        }
        if let Gathered::Packed { ends, data } = &mut piece.gathered {
            data.extend_from_slice(value);
            ends.push(data.len() as u32);
        }
    }

    pub fn live(&self, index: u32, nbytes: u64) {
        self.0.lock().single(index, Outcome::Live { nbytes });
    }

    pub fn value(&self, index: u32, value: Value) {
        self.0.lock().single(index, Outcome::Value(value));
    }

    pub fn failed(&self, index: u32, failure: Arc<Failure>) {
        self.0.lock().single(index, Outcome::Failed(failure));
    }

    /// The run that began last, and its attempt.
    pub fn run(&self) -> (Run, u32) {
        let piece = self.0.lock();
        (piece.run, piece.attempt)
    }

    /// Takes what has gathered.
    pub fn take(&self) -> Vec<Done> {
        let mut piece = self.0.lock();
        piece.close();
        std::mem::take(&mut piece.done)
    }
}

impl Piece {
    fn open(&mut self, index: u32, gathered: Gathered) {
        self.close();
        self.start = index;
        self.gathered = gathered;
    }

    fn single(&mut self, index: u32, outcome: Outcome) {
        self.close();
        self.push(index, 1, outcome);
    }

    fn close(&mut self) {
        let (count, column) = match std::mem::take(&mut self.gathered) {
            Gathered::None => return,
            Gathered::Ints(values) => (values.len(), Column::ints(&values)),
            Gathered::Floats(values) => (values.len(), Column::floats(&values)),
            Gathered::Packed { ends, data } => (ends.len(), Column::packed(&ends, data)),
        };
        self.push(self.start, count as u32, Outcome::Values(column));
    }

    fn push(&mut self, start: u32, count: u32, outcome: Outcome) {
        let now = Instant::now();
        let elapsed_ns = now.duration_since(self.since).as_nanos() as u64;
        self.since = now;
        let run = Run::new(self.run.layer, start, count);
        self.done.push(Done { run, attempt: self.attempt, elapsed_ns, outcome });
    }
}
