//! A worker's disk: two threads, one that writes values and one that reads them back.

use crate::worker_loop::{Input, WorkerInbox};
use parking_lot::Mutex;
use rasker_graph::Blob;
use rasker_protocol::Value;
use rasker_store::spill::{SpillFolder, SpilledValue};
use rasker_store::{Arena, ArenaOptions, Segment, StoreError};
use rasker_worker::Event;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Instant;

/// Smaller values come back as plain bytes.
const SEGMENT_NBYTES_MIN: usize = 64 << 10;

enum Job {
    Write { record: u64, value: Value },
    Read { record: u64 },
    Clean,
}

#[derive(Default)]
struct Shelf {
    records: Mutex<HashMap<u64, Arc<SpilledValue>>>,
    is_closing: AtomicBool,
}

/// See the module. Its threads start when they are first needed; all files go when it is dropped.
pub(crate) struct Disk {
    parent: PathBuf,
    /// Values that come back lie here.
    arena: Arena,
    inbox: WorkerInbox,
    shelf: Arc<Shelf>,
    writer: Option<Sender<Job>>,
    reader: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

/// Where values are spilled if nobody says: on a disk, not in memory again.
fn default_parent() -> PathBuf {
    const TMPFS: i64 = 0x0102_1994;
    let chosen = std::env::temp_dir();
    let is_memory = rustix::fs::statfs(&chosen).is_ok_and(|found| found.f_type == TMPFS);
    let on_disk = Path::new("/var/tmp");
    let is_default = std::env::var_os("TMPDIR").is_none();
    if is_memory && is_default && on_disk.is_dir() { on_disk.to_owned() } else { chosen }
}

impl Disk {
    pub fn new(parent: Option<PathBuf>, inbox: WorkerInbox) -> Disk {
        let arena = Arena::new(ArenaOptions { region_nbytes: 8 << 20, ..ArenaOptions::default() });
        Disk {
            parent: parent.unwrap_or_else(default_parent),
            arena,
            inbox,
            shelf: Arc::default(),
            writer: None,
            reader: None,
            threads: Vec::new(),
        }
    }

    /// Removes what dead processes have left, and keeps little memory of values that are gone.
    pub fn open(&mut self, memory_limit_nbytes: u64) {
        self.arena.fit(memory_limit_nbytes);
        if self.parent.is_dir() {
            self.ask_writer(Job::Clean);
        }
    }

    /// Memory in which values lie that came back.
    pub fn nbytes_in_memory(&self) -> u64 {
        self.arena.nbytes_reserved() as u64
    }

    pub fn write(&mut self, record: u64, value: Value) {
        self.ask_writer(Job::Write { record, value });
    }

    pub fn read(&mut self, record: u64) {
        if self.reader.is_none() {
            self.reader = self.start("rasker-disk-read");
        }
        send(self.reader.as_ref(), Job::Read { record });
    }

    pub fn forget(&self, record: u64) {
        self.shelf.records.lock().remove(&record);
    }

    fn ask_writer(&mut self, job: Job) {
        if self.writer.is_none() {
            self.writer = self.start("rasker-disk-write");
        }
        send(self.writer.as_ref(), job);
    }

    fn start(&mut self, name: &str) -> Option<Sender<Job>> {
        let (sender, jobs) = channel();
        let side = Side {
            parent: self.parent.clone(),
            folder: None,
            arena: self.arena.clone(),
            inbox: self.inbox.clone(),
            shelf: self.shelf.clone(),
        };
        let builder = std::thread::Builder::new().name(name.to_owned());
        let thread = builder.spawn(move || side.serve(&jobs)).ok()?;
        self.threads.push(thread);
        Some(sender)
    }
}

fn send(side: Option<&Sender<Job>>, job: Job) {
    // A side that could not start answers nothing: the value then stays where it is.
    if let Some(side) = side {
        let _ = side.send(job);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.shelf.is_closing.store(true, Ordering::Relaxed);
        self.writer.take();
        self.reader.take();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        self.shelf.records.lock().clear();
    }
}

/// One thread's view.
struct Side {
    parent: PathBuf,
    folder: Option<SpillFolder>,
    arena: Arena,
    inbox: WorkerInbox,
    shelf: Arc<Shelf>,
}

impl Side {
    fn serve(mut self, jobs: &Receiver<Job>) {
        while let Ok(job) = jobs.recv() {
            if self.shelf.is_closing.load(Ordering::Relaxed) {
                return;
            }
            let started = Instant::now();
            let elapsed_ns = || started.elapsed().as_nanos() as u64;
            let event = match job {
                Job::Clean => {
                    let _ = SpillFolder::remove_leftovers(&self.parent);
                    continue;
                }
                Job::Write { record, value } => {
                    let nbytes = value.nbytes();
                    let result = self.write(record, &value).map(|()| elapsed_ns());
                    // The memory is free before the worker hears of it.
                    drop(value);
                    Event::Spilled { record, nbytes, result: result.map_err(|e| e.to_string()) }
                }
                Job::Read { record } => {
                    let result = self.read(record).map(|value| (value, elapsed_ns()));
                    Event::Restored { record, result: result.map_err(|e| e.to_string()) }
                }
            };
            let _ = self.inbox.send(Input::Event(event));
        }
    }

    fn write(&mut self, record: u64, value: &Value) -> Result<(), StoreError> {
        let Value::Encoded { blob, .. } = value else {
            unreachable!("only bytes are spilled");
        };
        let folder = match &self.folder {
            Some(folder) => folder,
            None => self.folder.insert(SpillFolder::new(&self.parent)?),
        };
        let segment = blob.local::<Segment>();
        let bytes: &[u8] = match (&segment, blob) {
            (Some(segment), _) => segment.as_slice(),
            (None, Blob::Bytes(bytes)) => bytes,
            (None, Blob::Local(_)) => unreachable!("bytes of this process lie in segments"),
        };
        let spilled = folder.write(record, &[bytes])?;
        self.shelf.records.lock().insert(record, Arc::new(spilled));
        Ok(())
    }

    fn read(&self, record: u64) -> Result<Value, StoreError> {
        let spilled = self.shelf.records.lock().get(&record).cloned();
        let Some(spilled) = spilled else {
            let what = "its record is gone".to_owned();
            return Err(StoreError::Damaged { key_hash: record, what });
        };
        let nbytes = spilled.len();
        let is_large = nbytes as usize >= SEGMENT_NBYTES_MIN;
        let slab = is_large.then(|| self.arena.allocate(nbytes as usize).ok()).flatten();
        let Some(mut slab) = slab else {
            // Too little shared memory is no reason to lose a value.
            return Ok(Value::Encoded { blob: spilled.read()?.into(), nbytes });
        };
        spilled.read_into(&mut slab)?;
        Ok(Value::Encoded { blob: Blob::Local(Arc::new(slab.seal())), nbytes })
    }
}
