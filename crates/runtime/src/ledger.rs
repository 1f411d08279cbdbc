//! One end of a client's session over connections that come and go: what was sent is kept until
//! the other end has it, what came is counted.

use crate::wire::{WireError, to_frame};
use rasker_protocol::Tracked;
use rasker_transport::{Frame, Sender};
use serde::Serialize;
use std::collections::VecDeque;

/// What has come is acknowledged after so many messages, or so many bytes.
const TELL_AFTER: u64 = 32;
const TELL_AFTER_NBYTES: usize = 256 << 10;
/// Bytes that are kept for the other end while it is away.
const KEPT_NBYTES_MAX: usize = 256 << 20;

fn nbytes(frame: &Frame) -> usize {
    frame.head.len() + frame.attachments.iter().map(|a| a.len()).sum::<usize>()
}

/// See the module.
#[derive(Default)]
pub(crate) struct Ledger {
    link: Option<Sender>,
    /// Counts the connections: what comes over an earlier one is void.
    n_links: u64,
    /// Sent and not acknowledged, the earliest first.
    kept: VecDeque<Frame>,
    kept_nbytes: usize,
    n_acknowledged: u64,
    n_received: u64,
    n_told: u64,
    untold_nbytes: usize,
    /// Bytes that went over earlier connections.
    sent_nbytes: u64,
    is_over: bool,
}

impl Ledger {
    /// Goes on over this connection: says again what has not come to the other end. Returns the
    /// number of the connection.
    pub fn attach(&mut self, link: Sender, n_received: u64) -> u64 {
        self.part(self.n_links);
        self.acknowledge(n_received);
        for frame in &self.kept {
            let _ = link.send(frame.clone());
        }
        self.n_told = self.n_received;
        self.untold_nbytes = 0;
        self.link = Some(link);
        self.n_links += 1;
        self.n_links
    }

    /// The connection of this number ended. False if it is not the one in use.
    pub fn part(&mut self, number: u64) -> bool {
        let is_current = number == self.n_links;
        if is_current && let Some(link) = self.link.take() {
            self.sent_nbytes += link.nbytes_sent();
            link.close();
        }
        is_current
    }

    /// Whether the other end has been away since the connection of this number ended.
    pub fn is_away_since(&self, number: u64) -> bool {
        number == self.n_links && self.link.is_none()
    }

    /// Whether what comes over this connection counts.
    pub fn is_current(&self, number: u64) -> bool {
        number == self.n_links && self.link.is_some()
    }

    pub fn n_received(&self) -> u64 {
        self.n_received
    }

    /// Sends a message, now or when the other end is there again. False if the session is over.
    pub fn send<M: Serialize>(&mut self, message: &M) -> bool {
        if self.is_over {
            return false;
        }
        let Ok(frame) = to_frame(&Tracked::Message(message)) else { return false };
        self.kept_nbytes += nbytes(&frame);
        self.kept.push_back(frame.clone());
        match &self.link {
            // If it fails the connection is at its end, and the frame goes over the next one.
            Some(link) => drop(link.send(frame)),
            None => self.is_over = self.kept_nbytes > KEPT_NBYTES_MAX,
        }
        !self.is_over
    }

    /// A message came.
    pub fn receive(&mut self, nbytes: usize) {
        self.n_received += 1;
        self.untold_nbytes += nbytes;
        if self.n_received - self.n_told < TELL_AFTER && self.untold_nbytes < TELL_AFTER_NBYTES {
            return;
        }
        self.n_told = self.n_received;
        self.untold_nbytes = 0;
        self.say(&Tracked::Received(self.n_received));
    }

    /// So many messages are at the other end.
    pub fn acknowledge(&mut self, n_received: u64) {
        while self.n_acknowledged < n_received
            && let Some(frame) = self.kept.pop_front()
        {
            self.kept_nbytes -= nbytes(&frame);
            self.n_acknowledged += 1;
        }
    }

    /// Ends the session, on both sides if the other one is there.
    pub fn end(&mut self) {
        if !self.is_over {
            self.is_over = true;
            self.say(&Tracked::Goodbye);
        }
        self.kept.clear();
    }

    pub fn is_over(&self) -> bool {
        self.is_over
    }

    fn say(&self, message: &Tracked<()>) {
        let frame: Result<Frame, WireError> = to_frame(message);
        if let (Some(link), Ok(frame)) = (&self.link, frame) {
            let _ = link.send(frame);
        }
    }

    pub fn queued_nbytes(&self) -> usize {
        self.link.as_ref().map_or(0, Sender::queued_nbytes)
    }

    pub fn nbytes_sent(&self) -> u64 {
        self.sent_nbytes + self.link.as_ref().map_or(0, Sender::nbytes_sent)
    }

    pub fn close(&mut self) {
        self.part(self.n_links);
    }
}
