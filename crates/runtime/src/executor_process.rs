//! The inside of an executor process: it serves one worker and ends with it.

use crate::pool::Pool;
use crate::runner::Runner;
use crate::wire::{from_frame, to_frame};
use rasker_graph::Blob;
use rasker_protocol::{Datum, FromExecutor, ToExecutor};
use rasker_store::{Arena, Board};
use rasker_transport::{BlockingConnection, LinkOptions};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// Threads beyond the first ones whose calls are still made known.
const EXTRA_SLOTS: usize = 62;

/// Serves the worker at the other end of `stream` until it closes.
///
/// `make_runner` gets the settings that the worker sends first.
pub fn serve_executor(
    stream: UnixStream,
    arena: Arena,
    make_runner: impl FnOnce(&Datum) -> Arc<dyn Runner>,
) -> Result<(), String> {
    let link = LinkOptions { arena: Some(arena.clone()), ..LinkOptions::default() };
    let connection = BlockingConnection::from_unix(stream, link).map_err(|e| e.to_string())?;
    let (sender, mut receiver) = connection.split();
    let mut make_runner = Some(make_runner);
    let mut pool = None;
    loop {
        let frame = match receiver.recv() {
            Ok(Some(frame)) => frame,
            Ok(None) => return Ok(()),
            Err(error) => return Err(error.to_string()),
        };
        let message: ToExecutor = from_frame(frame).map_err(|error| error.to_string())?;
        match (&mut pool, message) {
            (None, ToExecutor::Setup(settings)) => {
                let make = make_runner.take().expect("no pool yet");
                let runner = make(&settings);
                runner.set_up(&settings);
                let nthreads = nthreads(&settings);
                let report = sender.clone();
                let report = move |message: FromExecutor| match to_frame(&message) {
                    Ok(frame) => {
                        let _ = report.send([frame]);
                    }
                    Err(error) => eprintln!("rasker executor: {error}"),
                };
                // Threads that wait for others let more run than there are to begin with.
                let board = Board::new(&arena, nthreads as usize + EXTRA_SLOTS).ok();
                let seen = board.as_ref().map(|b| Blob::Local(Arc::new(b.segment())));
                report(FromExecutor::Ready { pid: std::process::id(), board: seen });
                pool = Some(Pool::new(runner, nthreads, Box::new(report), board));
            }
            (Some(pool), message) => {
                if !pool.handle(message) {
                    return Ok(());
                }
            }
            (None, _) => return Err("the first message was not the settings".into()),
        }
    }
}

fn nthreads(settings: &Datum) -> u32 {
    let Datum::Map(pairs) = settings else { return 1 };
    pairs.iter().find(|(name, _)| name == "nthreads").map_or(1, |(_, value)| match value {
        Datum::Int(n) => (*n).max(1) as u32,
        _ => 1,
    })
}
