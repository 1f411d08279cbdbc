//! A worker's disk: threads that write values, and threads that read them back.
//!
//! While one of them hashes what it has read, or waits to be told of more, the disk would have
//! nothing to do: so there are two for each direction.

use crate::worker_loop::{Input, WorkerInbox};
use parking_lot::Mutex;
use rasker_exchange::Index;
use rasker_graph::{Blob, PartRange};
use rasker_protocol::{Failure, FailureKind, GotPiece, Piece, Value};
use rasker_store::spill::{SpillFolder, SpilledValue};
use rasker_store::{Arena, ArenaOptions, Segment, StoreError, checksum};
use rasker_worker::{Event, RecordRead};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Instant;

/// Threads for each direction.
const N_THREADS: usize = 2;
/// This part of the worker's memory is kept empty for the next values that come back. With it, a
/// worker that fills its memory with values (to 0.7 of it) has not to pause (at 0.8).
const WARM_PART: u64 = 8;
/// Smaller values come back as plain bytes.
const SEGMENT_NBYTES_MIN: usize = 64 << 10;

enum Job {
    Write { record: u64, value: Value },
    Read { record: u64 },
    ReadParts { request: u64, reads: Vec<RecordRead> },
    Clean,
}

#[derive(Default)]
struct Shelf {
    records: Mutex<HashMap<u64, Arc<Kept>>>,
    /// Made when the first value is written.
    folder: Mutex<Option<SpillFolder>>,
    is_closing: AtomicBool,
    /// Bytes of memory that is being filled.
    filling_nbytes: AtomicU64,
    /// Something came back since it was looked at last.
    was_read: AtomicBool,
}

/// A record, and where its parts are if it was written to an exchange.
struct Kept {
    value: SpilledValue,
    parts: Vec<KeptPart>,
}

/// Where a part lies in its value, and its checksum: the record has one of the whole only.
struct KeptPart {
    start: u64,
    end: u64,
    checksum: u64,
}

fn kept_parts(value: &[u8]) -> Vec<KeptPart> {
    let Ok(index) = Index::open(value) else { return Vec::new() };
    let ranges = (0..index.n_parts()).map_while(|part| index.range(part).ok());
    let part = |range: std::ops::Range<usize>| KeptPart {
        start: range.start as u64,
        end: range.end as u64,
        checksum: checksum(&value[range]),
    };
    ranges.map(part).collect()
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
        self.arena.keep_warm((memory_limit_nbytes / WARM_PART) as usize);
        if self.parent.is_dir() {
            self.ask_writer(Job::Clean);
        }
    }

    /// Memory in which values lie that came back.
    pub fn nbytes_in_memory(&self) -> u64 {
        self.arena.nbytes_reserved() as u64
    }

    /// What of it is empty and kept for the next values that come back, or is being filled.
    pub fn nbytes_idle(&self) -> u64 {
        self.arena.nbytes_idle() as u64 + self.shelf.filling_nbytes.load(Ordering::Relaxed)
    }

    /// Gives back what is kept for the next values.
    pub fn trim(&self) {
        self.arena.trim();
    }

    /// The same, if no value has come back since this was called the last time.
    pub fn trim_at_rest(&self) {
        if !self.shelf.was_read.swap(false, Ordering::Relaxed) {
            self.trim();
        }
    }

    pub fn write(&mut self, record: u64, value: Value) {
        self.ask_writer(Job::Write { record, value });
    }

    pub fn read(&mut self, record: u64) {
        self.ask_reader(Job::Read { record });
    }

    pub fn read_parts(&mut self, request: u64, reads: Vec<RecordRead>) {
        self.ask_reader(Job::ReadParts { request, reads });
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

    fn ask_reader(&mut self, job: Job) {
        if self.reader.is_none() {
            self.reader = self.start("rasker-disk-read");
        }
        send(self.reader.as_ref(), job);
    }

    /// Starts the threads of one direction; none if not even one of them could start.
    fn start(&mut self, name: &str) -> Option<Sender<Job>> {
        let (sender, jobs) = channel();
        let jobs = Arc::new(Mutex::new(jobs));
        let before = self.threads.len();
        for _ in 0..N_THREADS {
            let side = Side {
                parent: self.parent.clone(),
                arena: self.arena.clone(),
                inbox: self.inbox.clone(),
                shelf: self.shelf.clone(),
            };
            let jobs = jobs.clone();
            let builder = std::thread::Builder::new().name(name.to_owned());
            self.threads.extend(builder.spawn(move || side.serve(&jobs)));
        }
        (self.threads.len() > before).then_some(sender)
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
        self.shelf.folder.lock().take();
    }
}

/// One thread's view.
struct Side {
    parent: PathBuf,
    arena: Arena,
    inbox: WorkerInbox,
    shelf: Arc<Shelf>,
}

impl Side {
    fn serve(self, jobs: &Mutex<Receiver<Job>>) {
        loop {
            // Whoever waits for the next job holds the lock, and the others wait for that one.
            let Ok(job) = jobs.lock().recv() else { return };
            if self.shelf.is_closing.load(Ordering::Relaxed) {
                return;
            }
            let started = Instant::now();
            let elapsed_ns = || started.elapsed().as_nanos() as u64;
            let event = match job {
                Job::ReadParts { request, reads } => {
                    let pieces = reads.into_iter().map(|read| self.got_piece(read)).collect();
                    Event::Pieces { request, pieces }
                }
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

    fn write(&self, record: u64, value: &Value) -> Result<(), StoreError> {
        let Value::Encoded { blob, .. } = value else {
            unreachable!("only bytes are spilled");
        };
        let folder = self.folder()?;
        let segment = blob.local::<Segment>();
        let bytes: &[u8] = match (&segment, blob) {
            (Some(segment), _) => segment.as_slice(),
            (None, Blob::Bytes(bytes)) => bytes,
            (None, Blob::Local(_)) => unreachable!("bytes of this process lie in segments"),
        };
        let value = folder.write(record, &[bytes])?;
        let kept = Kept { value, parts: kept_parts(bytes) };
        self.shelf.records.lock().insert(record, Arc::new(kept));
        Ok(())
    }

    fn folder(&self) -> Result<SpillFolder, StoreError> {
        let mut folder = self.shelf.folder.lock();
        if let Some(folder) = &*folder {
            return Ok(folder.clone());
        }
        Ok(folder.insert(SpillFolder::new(&self.parent)?).clone())
    }

    fn read(&self, record: u64) -> Result<Value, StoreError> {
        let kept = self.kept(record)?;
        let spilled = &kept.value;
        let nbytes = spilled.len();
        let is_large = nbytes as usize >= SEGMENT_NBYTES_MIN;
        let slab = is_large.then(|| self.arena.allocate(nbytes as usize).ok()).flatten();
        let Some(mut slab) = slab else {
            // Too little shared memory is no reason to lose a value.
            return Ok(Value::Encoded { blob: spilled.read()?.into(), nbytes });
        };
        self.shelf.was_read.store(true, Ordering::Relaxed);
        self.shelf.filling_nbytes.fetch_add(nbytes, Ordering::Relaxed);
        let filled = spilled.read_into(&mut slab);
        self.shelf.filling_nbytes.fetch_sub(nbytes, Ordering::Relaxed);
        filled?;
        Ok(Value::Encoded { blob: Blob::Local(Arc::new(slab.seal())), nbytes })
    }

    fn kept(&self, record: u64) -> Result<Arc<Kept>, StoreError> {
        let kept = self.shelf.records.lock().get(&record).cloned();
        kept.ok_or_else(|| {
            let what = "its record is gone".to_owned();
            StoreError::Damaged { key_hash: record, what }
        })
    }

    fn got_piece(&self, (record, task, parts): RecordRead) -> GotPiece {
        let unreadable = |text: String| {
            let text = format!("parts {}..{} cannot be read: {text}", parts.start, parts.end);
            Arc::new(Failure::new(FailureKind::Exception, format!("{task:?}"), text))
        };
        let piece = match self.read_piece(record, parts) {
            Ok(Some(piece)) => Ok(Some(piece)),
            Ok(None) => Err(unreadable("its value has no such parts".to_owned())),
            // It is computed again.
            Err(_) => Ok(None),
        };
        GotPiece { task, parts, piece }
    }

    /// Reads neighboring parts and nothing else of a record; none if it has no such parts.
    fn read_piece(&self, record: u64, range: PartRange) -> Result<Option<Piece>, StoreError> {
        let kept = self.kept(record)?;
        let parts = kept.parts.get(range.start as usize..range.end as usize);
        let Some(parts @ [first, ..]) = parts else { return Ok(None) };
        let end = parts.last().expect("there is a first").end;
        let from = first.start - first.start % SpilledValue::BLOCK_NBYTES;
        let place = |at: u64| (at - from) as usize;
        let read = |content: &mut [u8]| {
            kept.value.read_range(from, content)?;
            let is_whole =
                |p: &KeptPart| checksum(&content[place(p.start)..place(p.end)]) == p.checksum;
            if parts.iter().all(is_whole) {
                return Ok(());
            }
            let what = "a part of it does not match its checksum".to_owned();
            Err(StoreError::Damaged { key_hash: record, what })
        };
        let (nbytes, wanted) = (place(end), place(first.start)..place(end));
        let is_large = nbytes >= SEGMENT_NBYTES_MIN;
        let slab = is_large.then(|| self.arena.allocate(nbytes).ok()).flatten();
        let data = match slab {
            Some(mut slab) => {
                read(&mut slab)?;
                Blob::Local(Arc::new(slab.seal().slice(wanted)))
            }
            None => {
                let mut content = vec![0; nbytes];
                read(&mut content)?;
                content.drain(..wanted.start);
                content.into()
            }
        };
        let ends = parts.iter().map(|part| part.end - first.start).collect();
        Ok(Some(Piece { ends, data }))
    }
}
