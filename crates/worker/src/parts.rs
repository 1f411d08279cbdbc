//! Parts of exchanges: a reader's parts are brought together here, and those of values that are
//! held here are handed to readers elsewhere.
//!
//! ```text
//!   what a writer made is ...      its parts ...
//!   here, in memory                are cut out by whoever runs the reader
//!   here, on disk                  are read, and nothing else of it
//!   elsewhere                      are asked for, in one request to each holder
//! ```

use crate::Map;
use crate::calls::Inputs;
use crate::event::{Action, ReaderId};
use crate::held::Form;
use crate::worker::{Request, Waiting, Worker};
use rasker_graph::{PartRange, Run, TaskId};
use rasker_protocol::probe::{mutant, sometimes};
use rasker_protocol::{
    Calls, Failure, Given, GotPiece, Piece, Progress, Source, Value, WorkerId, Written,
};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) type PieceKey = (TaskId, PartRange);

/// Pieces that came for one call.
pub(crate) type Pieces = Map<PieceKey, Piece>;

/// Parts of a spilled value: its record, and what is read of it.
pub type RecordRead = (u64, TaskId, PartRange);

/// A request to a holder: its number, and what is read.
type PartsRequest = (u64, Vec<(Run, PartRange)>);

/// Parts that are brought ahead of use take about so much, bytes.
const AHEAD_NBYTES: f64 = (64 << 20) as f64;
/// They are brought for so many calls at most, however small they are.
const AHEAD_MOST: usize = 256;

/// Credits for parts between hosts: calls that wait for them ask in turn, so that what is brought
/// and not yet used has a limit, whatever the number of calls that this worker was given.
#[derive(Debug, Default)]
pub(crate) struct PartsAhead {
    /// What calls are still to ask for. Those that have no parts yet come after the others, which
    /// take room already and do not wait: else all could wait for each other.
    to_ask: BTreeMap<(bool, u64), Vec<(WorkerId, PartsRequest)>>,
    /// Calls that have asked and were not answered in full.
    asked: Vec<u64>,
    /// What a call is brought lately, bytes; none until one was.
    mean_nbytes: Option<f64>,
}

impl PartsAhead {
    /// For so many calls parts may be here or under way that no executor was given.
    fn most(&self, n_executors: usize) -> usize {
        let least = n_executors + 1;
        let n = self.mean_nbytes.map(|nbytes| (AHEAD_NBYTES / nbytes.max(1.0)) as usize);
        n.unwrap_or(0).clamp(least, AHEAD_MOST.max(least))
    }

    /// A call has some of its parts.
    fn hurry(&mut self, number: u64) {
        if let Some(requests) = self.to_ask.remove(&(true, number)) {
            self.to_ask.insert((false, number), requests);
        }
    }

    fn brought(&mut self, nbytes: u64) {
        let nbytes = nbytes as f64;
        self.mean_nbytes =
            Some(self.mean_nbytes.map_or(nbytes, |mean| (7.0 * mean + nbytes) / 8.0));
    }
}

/// Who waits for the answer to a request for parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PartsFor {
    /// A call that waits, and what was asked of whom; nothing if the parts are on disk here.
    Call { number: u64, asked: Option<Asked> },
    /// A reader's request.
    Reader { number: u64 },
}

/// What a worker was asked for: where writers are may be told anew before it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    of: WorkerId,
    reads: Vec<(Run, PartRange)>,
}

/// A part, or the value that it is to be cut from by whoever performs the reply.
#[derive(Clone, Debug, PartialEq)]
pub enum HeldPart {
    Piece(Piece),
    Whole(Value),
}

/// One part of an answer to `ToHolder::GetParts`.
#[derive(Clone, Debug, PartialEq)]
pub struct PartReply {
    pub task: TaskId,
    pub parts: PartRange,
    /// None if the value is not here.
    pub part: Result<Option<HeldPart>, Arc<Failure>>,
}

/// What of a call's parts is not at hand.
#[derive(Default)]
pub(crate) struct Absent {
    on_disk: Vec<RecordRead>,
    elsewhere: BTreeMap<WorkerId, Vec<(Run, PartRange)>>,
    /// In the heap of an executor: bytes are to be made first.
    pub live: Vec<TaskId>,
    /// Exchanges of which this worker was told nothing.
    unknown: Vec<TaskId>,
    /// Said to be at a worker that is not known here: mostly this one, which lost them.
    gone: Vec<(TaskId, WorkerId)>,
}

impl Absent {
    /// Whether anything has to be asked for now.
    pub fn is_to_be_asked_for(&self) -> bool {
        !self.on_disk.is_empty() || !self.elsewhere.is_empty()
    }

    pub fn is_empty(&self) -> bool {
        self.on_disk.is_empty() && self.elsewhere.is_empty() && self.live.is_empty()
    }
}

impl Worker {
    /// Parts that a call reads and that are neither here in memory nor brought already.
    pub(crate) fn absent_parts(&self, calls: &Calls) -> Absent {
        let mut absent = Absent::default();
        if calls.reads.is_empty() {
            return absent;
        }
        let reader = TaskId::new(calls.run.layer, calls.run.start);
        let brought = self.pieces.get(&(reader, calls.attempt));
        for (exchange, parts) in calls.exchanges() {
            let Some(writers) = self.exchanges.get(&exchange) else {
                absent.unknown.push(exchange);
                continue;
            };
            for source in writers.iter() {
                for writer in source.run.tasks() {
                    if brought.is_some_and(|pieces| pieces.contains_key(&(writer, parts))) {
                        continue;
                    }
                    match self.held.get(writer) {
                        Some(Form::Value(Value::Object { .. }))
                            if mutant("parts-of-object-given") => {}
                        Some(Form::Value(Value::Object { .. }) | Form::Live { .. }) => {
                            absent.live.push(writer);
                        }
                        Some(Form::Value(_)) => {}
                        Some(Form::Spilled { .. }) => {
                            let entry = self.governor.get(writer);
                            match entry.and_then(|entry| entry.record) {
                                Some(record) => absent.on_disk.push((record, writer, parts)),
                                None => absent.gone.push((writer, source.worker)),
                            }
                        }
                        None if !self.peers.contains_key(&source.worker) => {
                            absent.gone.push((writer, source.worker));
                        }
                        None => {
                            let reads = absent.elsewhere.entry(source.worker).or_default();
                            push_read(reads, writer, parts);
                        }
                    }
                }
            }
        }
        absent
    }

    /// Lets a call wait for whole inputs, which are told once each, and for parts, and asks for
    /// the latter.
    pub(crate) fn wait_for(&mut self, calls: Calls, inputs: Inputs, absent: Absent) {
        self.n_waiting += 1;
        let number = self.n_waiting;
        let has_some = !self.pieces.is_empty() && self.pieces.contains_key(&reader_of(&calls));
        let mut n_requests = 0;
        if !absent.on_disk.is_empty() {
            n_requests += 1;
            let request = self.parts_request(PartsFor::Call { number, asked: None });
            self.to_read.push((request, absent.on_disk));
        }
        for (worker, reads) in absent.elsewhere {
            n_requests += 1;
            let asked = Some(Asked { of: worker, reads: reads.clone() });
            let request = self.parts_request(PartsFor::Call { number, asked });
            let turn = (!has_some, number);
            self.parts_ahead.to_ask.entry(turn).or_default().push((worker, (request, reads)));
        }
        for input in &inputs {
            self.wanted_by.entry(*input).or_default().push(number);
        }
        let n_missing = inputs.len() as u32;
        self.waiting.insert(number, Waiting { calls, inputs, n_missing, n_requests });
    }

    /// Gives a call back that reads exchanges of which this worker was told nothing, or parts that
    /// nobody has; whether it did.
    pub(crate) fn give_back_unreadable(&mut self, calls: &Calls, absent: &Absent) -> bool {
        if absent.unknown.is_empty() && absent.gone.is_empty() {
            return false;
        }
        if !absent.unknown.is_empty() {
            sometimes("a call named an exchange that its worker did not know");
        }
        let task = TaskId::new(calls.run.layer, calls.run.start);
        let unknown = absent.unknown.iter().map(|exchange| (*exchange, WorkerId::NOBODY));
        let mut inputs: Vec<_> = unknown.chain(absent.gone.iter().copied()).collect();
        inputs.sort_unstable();
        inputs.dedup();
        self.drop_pieces(calls);
        self.progress.push(Progress::Missing { task, attempt: calls.attempt, inputs });
        true
    }

    fn parts_request(&mut self, whose: PartsFor) -> u64 {
        self.n_parts_requests += 1;
        self.parts_requests.insert(self.n_parts_requests, whose);
        self.n_parts_requests
    }

    /// Pieces that were brought for a call are of no use any more.
    pub(crate) fn drop_pieces(&mut self, calls: &Calls) {
        if self.pieces.is_empty() {
            return;
        }
        for task in calls.run.tasks() {
            if let Some(pieces) = self.pieces.remove(&(task, calls.attempt)) {
                self.governor.count_pieces(pieces.values().map(Piece::nbytes).sum::<u64>(), false);
            }
        }
    }

    /// Nothing that is known of exchanges holds any more.
    pub(crate) fn forget_exchanges(&mut self) {
        self.exchanges.clear();
        self.pieces.clear();
        self.governor.pieces_nbytes = 0;
        self.parts_ahead.to_ask.clear();
        self.parts_ahead.asked.clear();
        // Requests of readers are answered, those of calls are not waited for.
        self.to_read.retain(|(request, _)| {
            matches!(self.parts_requests.get(request), Some(PartsFor::Reader { .. }))
        });
        self.parts_requests.retain(|_, whose| matches!(whose, PartsFor::Reader { .. }));
    }

    /// What a call is given of an exchange; `missing` gets what is not at hand.
    pub(crate) fn given_parts(
        &self,
        exchange: TaskId,
        parts: PartRange,
        pieces: &Pieces,
        reads: &mut smallvec::SmallVec<[TaskId; 2]>,
        missing: &mut Inputs,
    ) -> Given {
        let writers = self.exchanges.get(&exchange).cloned().unwrap_or_else(|| Arc::new([]));
        let mut written = Vec::new();
        for writer in writers.iter().flat_map(|source| source.run.tasks()) {
            if let Some(piece) = pieces.get(&(writer, parts)) {
                // A writer may stand in an exchange twice.
                written.push(Written::Piece(piece.clone()));
            } else if let Some(Form::Value(value)) = self.held.get(writer) {
                if self.is_large_here(writer) {
                    reads.push(writer);
                }
                written.push(Written::Whole(value));
            } else {
                // A part that is left out would be a wrong result.
                missing.push(writer);
            }
        }
        if mutant("writers-out-of-order") {
            written.reverse();
        }
        let start = parts.start + u32::from(mutant("wrong-part-read"));
        Given::Parts { parts: PartRange { start, end: start + parts.end - parts.start }, written }
    }

    /// Parts came that were asked for.
    pub(crate) fn on_pieces(&mut self, request: u64, got: Vec<GotPiece>, out: &mut Vec<Action>) {
        match self.parts_requests.remove(&request) {
            Some(PartsFor::Call { number, asked }) => self.on_pieces_for(number, asked, got),
            Some(PartsFor::Reader { number }) => self.on_pieces_read(number, got, out),
            None => sometimes("parts came that nobody wanted any more"),
        }
    }

    fn on_pieces_for(&mut self, number: u64, asked: Option<Asked>, got: Vec<GotPiece>) {
        let is_own_disk = asked.is_none();
        let Some(waiting) = self.waiting.get_mut(&number) else {
            sometimes("parts came that nobody wanted any more");
            return self.let_go_of_lost(is_own_disk, &got);
        };
        waiting.n_requests = waiting.n_requests.saturating_sub(1);
        let calls = waiting.calls.clone();
        let reader = reader_of(&calls);
        let (mut gone, mut failed) = (Vec::new(), None);
        for GotPiece { task, parts, piece } in &got {
            match piece {
                Ok(Some(piece)) => {
                    self.governor.count_pieces(piece.nbytes(), true);
                    let pieces = self.pieces.entry(reader).or_default();
                    if let Some(twin) = pieces.insert((*task, *parts), piece.clone()) {
                        self.governor.count_pieces(twin.nbytes(), false);
                    }
                }
                Ok(None) => gone.push(*task),
                Err(failure) => failed = Some(failure.clone()),
            }
        }
        self.let_go_of_lost(is_own_disk, &got);
        let mut gone = self.with_holders(&calls, gone);
        if let Some(Asked { of, reads }) = asked {
            // What it was asked for and did not send, it does not have.
            let brought = self.pieces.get(&reader);
            let is_here = |key: PieceKey| brought.is_some_and(|pieces| pieces.contains_key(&key));
            gone.iter_mut().for_each(|(_, holder)| *holder = of);
            for (run, parts) in reads {
                let absent = run.tasks().filter(|task| !is_here((*task, parts)));
                gone.extend(absent.map(|task| (task, of)));
            }
        }
        if let Some(failure) = failed {
            self.waits_no_more(number);
            let (run, attempt) = (calls.run, calls.attempt);
            self.progress.push(Progress::Failed { run, attempt, failure });
        } else if !gone.is_empty() {
            sometimes("parts could not be had");
            self.waits_no_more(number);
            self.give_up_parts(&calls, gone);
        } else {
            self.parts_ahead.hurry(number);
            let is_last = self.waiting.get(&number).is_some_and(|w| w.n_requests == 0);
            if let (true, Some(pieces)) = (is_last, self.pieces.get(&reader)) {
                self.parts_ahead.brought(pieces.values().map(Piece::nbytes).sum());
            }
            self.move_on(number);
        }
    }

    /// A call that has all its inputs now is ready; what it waited for may have left since, which
    /// is found out when it is given to an executor.
    pub(crate) fn move_on(&mut self, number: u64) {
        let is_complete = |w: &Waiting| w.n_missing == 0 && w.n_requests == 0;
        if self.waiting.get(&number).is_some_and(is_complete) {
            let Waiting { calls, .. } = self.waiting.remove(&number).expect("just seen");
            self.ready.insert(calls);
        }
    }

    /// Values on this worker's own disk that could not be read are lost.
    fn let_go_of_lost(&mut self, is_own_disk: bool, got: &[GotPiece]) {
        if !is_own_disk {
            return;
        }
        for lost in got.iter().filter(|got| got.piece == Ok(None)) {
            if matches!(self.held.single(lost.task), Some(Form::Spilled { .. })) {
                self.let_go(lost.task.run());
                self.progress.push(Progress::Dropped { runs: vec![lost.task.run()] });
            }
        }
    }

    /// Writers of what a call reads, and where they are believed to be.
    fn with_holders(&self, calls: &Calls, writers: Vec<TaskId>) -> Vec<(TaskId, WorkerId)> {
        let exchanges = calls.exchanges();
        let named = exchanges.iter().filter_map(|(exchange, _)| self.exchanges.get(exchange));
        let sources: Vec<Source> = named.flat_map(|writers| writers.iter().copied()).collect();
        let holder = |task: TaskId| {
            let found = sources.iter().find(|source| source.run.contains(task));
            found.map_or(WorkerId(u32::MAX), |source| source.worker)
        };
        writers.into_iter().map(|task| (task, holder(task))).collect()
    }

    /// Tells the scheduler which writers' values were not where it had said.
    fn give_up_parts(&mut self, calls: &Calls, mut gone: Vec<(TaskId, WorkerId)>) {
        gone.sort_unstable();
        gone.dedup();
        let task = TaskId::new(calls.run.layer, calls.run.start);
        if !mutant("missing-part-not-told") {
            let (attempt, inputs) = (calls.attempt, gone.into_iter().collect());
            self.progress.push(Progress::Missing { task, attempt, inputs });
        }
    }

    /// Nothing comes any more of what these workers were asked for.
    pub(crate) fn parts_are_lost_with(&mut self, gone: &[WorkerId]) {
        for requests in self.parts_ahead.to_ask.values_mut() {
            requests.retain(|(worker, _)| !gone.contains(worker));
        }
        let lost = self.parts_requests.iter().filter_map(|(request, whose)| match whose {
            PartsFor::Call { number, asked: Some(asked) } if gone.contains(&asked.of) => {
                Some((*request, *number, asked.clone()))
            }
            _ => None,
        });
        let mut lost: Vec<(u64, u64, Asked)> = lost.collect();
        lost.sort_unstable_by_key(|(request, ..)| *request);
        for (request, number, Asked { of, reads }) in lost {
            self.parts_requests.remove(&request);
            let Some(waiting) = self.waiting.get(&number) else { continue };
            sometimes("a worker was lost that was asked for parts");
            let calls = waiting.calls.clone();
            let tasks = reads.iter().flat_map(|(run, _)| run.tasks());
            let lost = tasks.map(|task| (task, of)).collect();
            self.waits_no_more(number);
            self.give_up_parts(&calls, lost);
        }
    }

    /// Somebody asks for parts of what is held here.
    pub(crate) fn on_get_parts(
        &mut self,
        reader: ReaderId,
        id: u64,
        reads: Vec<(Run, PartRange)>,
        out: &mut Vec<Action>,
    ) {
        let number = self.n_requests;
        self.n_requests += 1;
        let mut request = Request { is_of_parts: true, ..Request::new(reader, id) };
        let mut on_disk = Vec::new();
        // What is not held costs nothing, however long a run claims to be.
        let held = reads.iter().flat_map(|(run, parts)| {
            self.held.within(*run).into_iter().map(move |task| (task, *parts))
        });
        for (task, parts) in held.collect::<Vec<_>>() {
            let (executor, value) = match self.held.get(task) {
                Some(Form::Live { executor, .. }) => (Some(executor), None),
                Some(Form::Value(value @ Value::Object { .. })) => {
                    (self.python_executor().map(|executor| executor.id), Some(value))
                }
                Some(Form::Spilled { .. }) => {
                    let record = self.governor.get(task).and_then(|entry| entry.record);
                    on_disk.extend(record.map(|record| (record, task, parts)));
                    continue;
                }
                Some(Form::Value(value)) => {
                    let part = Ok(Some(HeldPart::Whole(value)));
                    request.parts.push(PartReply { task, parts, part });
                    continue;
                }
                None => continue,
            };
            if let Some(executor) = executor {
                request.left += 1;
                request.awaited.push((task, parts));
                self.requests_for.entry(task).or_default().push(number);
                self.export(task, executor, value);
            }
        }
        if !on_disk.is_empty() {
            request.left += 1;
            let read = self.parts_request(PartsFor::Reader { number });
            self.to_read.push((read, on_disk));
        }
        if request.left == 0 {
            self.reply(request, out);
        } else {
            self.requests.insert(number, request);
        }
    }

    fn on_pieces_read(&mut self, number: u64, got: Vec<GotPiece>, out: &mut Vec<Action>) {
        self.let_go_of_lost(true, &got);
        let Some(request) = self.requests.get_mut(&number) else { return };
        request.parts.extend(got.into_iter().map(|got| PartReply {
            task: got.task,
            parts: got.parts,
            part: got.piece.map(|piece| piece.map(HeldPart::Piece)),
        }));
        request.left -= 1;
        if request.left == 0 {
            let request = self.requests.remove(&number).expect("just seen");
            self.reply(request, out);
        }
    }

    /// The answer to a request for parts: what is not among them is not here.
    pub(crate) fn reply_parts(request: Request) -> Action {
        let Request { reader, id, values, mut parts, awaited, .. } = request;
        let values: Map<TaskId, _> = values.into_iter().collect();
        for (task, range) in awaited {
            if let Some(value) = values.get(&task) {
                let part = value.clone().map(|value| value.map(HeldPart::Whole));
                parts.push(PartReply { task, parts: range, part });
            }
        }
        Action::ReplyParts { reader, id, parts }
    }

    /// Requests for parts that are to go out now.
    pub(crate) fn ask_for_parts(&mut self, may_fetch: bool, out: &mut Vec<Action>) {
        for (request, reads) in self.to_read.drain(..) {
            out.push(Action::ReadParts { request, reads });
        }
        if !may_fetch || self.parts_ahead.to_ask.is_empty() {
            return;
        }
        let waiting = &self.waiting;
        let is_open = |number: &u64| waiting.get(number).is_some_and(|call| call.n_requests > 0);
        self.parts_ahead.asked.retain(is_open);
        let most = self.parts_ahead.most(self.n_executors as usize);
        while let Some(first) = self.parts_ahead.to_ask.first_entry() {
            let (has_none, number) = *first.key();
            let n_ahead = self.parts_ahead.asked.len() + self.pieces.len();
            if has_none && n_ahead >= most {
                sometimes("a call waited for its turn to ask for parts");
                return;
            }
            self.parts_ahead.asked.push(number);
            for (worker, (request, reads)) in first.remove() {
                let address = self.peers.get(&worker).cloned().unwrap_or_default();
                out.push(Action::FetchParts { request, worker, address, reads });
            }
        }
    }

    /// A call is gone that may not have asked for all its parts yet.
    pub(crate) fn asks_no_more(&mut self, number: u64) {
        for turn in [(false, number), (true, number)] {
            for (_, (request, _)) in self.parts_ahead.to_ask.remove(&turn).into_iter().flatten() {
                self.parts_requests.remove(&request);
            }
        }
    }
}

/// Under which pieces are kept that came for a call.
fn reader_of(calls: &Calls) -> (TaskId, u32) {
    (TaskId::new(calls.run.layer, calls.run.start), calls.attempt)
}

fn push_read(reads: &mut Vec<(Run, PartRange)>, task: TaskId, parts: PartRange) {
    if let Some((run, last)) = reads.last_mut()
        && *last == parts
        && run.layer == task.layer
        && run.end() == task.index
    {
        run.count += 1;
        return;
    }
    reads.push((task.run(), parts));
}
