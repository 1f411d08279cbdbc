//! Workers with limits to their memory: values that leave for a disk and come back, disks that are
//! full or damage what they hold, and calls that take too much.

use crate::exchanges::cut;
use crate::executor::read;
use crate::random::mix;
use crate::world::{Event, World};
use rasker_protocol::{GotPiece, Value, WorkerId};
use rasker_worker::{Action as WorkerAction, Event as WorkerEvent, Measured, MemoryOptions};
use std::collections::BTreeMap;

/// Values are a small multiple of this, and so are limits, bytes.
const UNIT: u64 = 16 << 10;
const SIZES: u64 = 8;
/// Workers say how they are twice a second.
const TICK_NS: u64 = 500_000_000;
/// Looks at memory, and ticks, that one run may take: without an end it would not end.
const LOOKS_MAX: u64 = 600_000;

/// How large a value is said to be.
pub fn size(value: i64) -> u64 {
    UNIT * (1 + mix(value as u64, 16) % SIZES)
}

/// What a worker has written, by the number of the record.
#[derive(Default)]
pub(crate) struct Disk {
    records: BTreeMap<u64, Value>,
    /// Numbers that were given up, some of them while they were written or read.
    forgotten: Vec<u64>,
}

impl Disk {
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}

impl World {
    /// What a new worker may use.
    pub fn memory_options(&mut self) -> MemoryOptions {
        if self.swarm.memory == 0 {
            return MemoryOptions::default();
        }
        let quota = self.swarm.quota;
        MemoryOptions {
            limit_nbytes: self.swarm.memory * UNIT * SIZES,
            has_disk: true,
            disk_nbytes_max: if quota > 0 { quota * UNIT } else { u64::MAX },
            ..MemoryOptions::default()
        }
    }

    /// Performs what a worker wants of its disk.
    pub fn disk_does(&mut self, id: WorkerId, action: WorkerAction) {
        let after = 1 + self.random.below(self.swarm.call_ns);
        match action {
            WorkerAction::Spill { record, value } => {
                let is_full = !self.is_healed && self.random.chance(self.swarm.disk_full);
                let nbytes = value.nbytes();
                let result = match is_full {
                    true => Err("no space is left on the disk".to_owned()),
                    false => Ok(after),
                };
                if is_full {
                    self.book.count("a disk was full");
                    self.oracle.n_refusals += 1;
                } else {
                    self.book.count("a value was spilled");
                    let node = self.workers.get_mut(&id).expect("the worker that speaks");
                    node.disk.records.insert(record, value);
                }
                self.at(after, Event::Worker(id, WorkerEvent::Spilled { record, nbytes, result }));
            }
            WorkerAction::Restore { record } => {
                let result = self.read_record(id, record).map(|value| (value, after));
                self.at(after, Event::Worker(id, WorkerEvent::Restored { record, result }));
            }
            WorkerAction::ReadParts { request, reads } => {
                let mut pieces = Vec::new();
                for (record, task, parts) in reads {
                    self.book.count("parts of a spilled value were read");
                    let value = self.read_record(id, record).ok();
                    let value = value.and_then(|value| read(&value));
                    let piece = Ok(value.map(|value| cut(value, parts)));
                    pieces.push(GotPiece { task, parts, piece });
                }
                self.at(after, Event::Worker(id, WorkerEvent::Pieces { request, pieces }));
            }
            WorkerAction::Forget { record } => {
                let node = self.workers.get_mut(&id).expect("the worker that speaks");
                node.disk.records.remove(&record);
                node.disk.forgotten.push(record);
            }
            other => unreachable!("nothing for a disk: {other:?}"),
        }
    }

    /// Reads a record back: as it was written, or not at all, as checksums see to that.
    fn read_record(&mut self, id: WorkerId, record: u64) -> Result<Value, String> {
        let is_damaged = !self.is_healed && self.random.chance(self.swarm.damage);
        let node = self.workers.get_mut(&id).expect("the worker that speaks");
        let Some(value) = node.disk.records.get(&record).cloned() else {
            // One that was let go of meanwhile may still be asked for.
            if !node.disk.forgotten.contains(&record) {
                self.book.wrong.push(format!("{id:?} reads record {record}, never written (16)"));
            }
            return Err("its record is gone".to_owned());
        };
        if is_damaged {
            self.book.count("a record was damaged");
            self.oracle.n_losses += 1;
            return Err("its content does not match its checksum".to_owned());
        }
        self.book.count("a value came back from the disk");
        Ok(value)
    }

    /// After an event of a worker: memory is measured while there is something to see.
    pub fn watch_memory(&mut self, id: WorkerId) {
        if self.swarm.memory == 0 || self.n_looks > LOOKS_MAX {
            return;
        }
        let Some(node) = self.workers.get_mut(&id).filter(|node| node.is_there) else { return };
        let wants_measuring = node.machine.wants_measuring();
        let is_running = node.machine.is_running();
        let wants_ticks = wants_measuring || node.machine.waits_for_disk();
        let measure = wants_measuring && !std::mem::replace(&mut node.is_measured, wants_measuring);
        let tick = wants_ticks && !std::mem::replace(&mut node.is_ticking, wants_ticks);
        if measure {
            // Often while calls run, twice a second else.
            let pause = if is_running { self.swarm.call_ns.max(100_000) } else { TICK_NS };
            self.at(pause, Event::Measures(id));
        }
        if tick {
            self.at(TICK_NS, Event::WorkerTicks(id));
        }
    }

    pub fn measures(&mut self, id: WorkerId) {
        let Some(node) = self.workers.get_mut(&id).filter(|node| node.is_there) else { return };
        node.is_measured = false;
        let executors = node.executors.iter().map(|(id, e)| (*id, e.nbytes(), 0)).collect();
        self.n_looks += 1;
        let measured = Measured { executors, ..Measured::default() };
        self.worker_handles(id, WorkerEvent::Measured(measured));
    }

    pub fn worker_ticks(&mut self, id: WorkerId) {
        let Some(node) = self.workers.get_mut(&id).filter(|node| node.is_there) else { return };
        node.is_ticking = false;
        self.n_looks += 1;
        self.worker_handles(id, WorkerEvent::Tick { memory_nbytes: 0 });
    }
}
