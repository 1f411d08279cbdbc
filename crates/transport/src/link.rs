//! What the sending and the receiving side of a connection share.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rasker_store::{RegionId, RegionWatcher};

use crate::TransportError;
use crate::frame::{Frame, LinkOptions};
use crate::outbox::{Outbox, Piece};
use crate::wire::Kind;

/// Who is told that there is something to send.
pub(crate) trait Wake: Send + Sync {
    fn wake(&self, link: &Arc<Link>);
}

/// The state of one connection.
pub(crate) struct Link {
    this: Weak<Link>,
    pub(crate) peer: String,
    pub(crate) is_local: bool,
    pub(crate) options: LinkOptions,
    outbox: Mutex<Outbox>,
    waker: Box<dyn Wake>,
    queued_nbytes: AtomicUsize,
    pub(crate) sent_nbytes: AtomicU64,
    pub(crate) received_nbytes: AtomicU64,
    /// Segments of the peer's that this process still holds: until they are back, the connection
    /// stays open.
    n_borrowed: AtomicUsize,
    /// Whether the peer can hold nothing of ours any more, because its end of the connection is
    /// closed.
    peer_is_gone: AtomicBool,
    /// Until the receiver is dropped, segments of the peer's may still arrive and will have to be
    /// returned.
    has_receiver: AtomicBool,
    /// A process that was forked off has inherited the socket and must not speak on it.
    process: rustix::process::Pid,
}

impl Link {
    pub(crate) fn new(
        peer: String,
        is_local: bool,
        options: LinkOptions,
        waker: Box<dyn Wake>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            this: this.clone(),
            peer,
            is_local,
            options,
            outbox: Mutex::new(Outbox::new(is_local)),
            waker,
            queued_nbytes: AtomicUsize::new(0),
            sent_nbytes: AtomicU64::new(0),
            received_nbytes: AtomicU64::new(0),
            n_borrowed: AtomicUsize::new(0),
            peer_is_gone: AtomicBool::new(false),
            has_receiver: AtomicBool::new(true),
            process: rustix::process::getpid(),
        })
    }

    fn arc(&self) -> Arc<Self> {
        self.this.upgrade().expect("a link that is borrowed is alive")
    }

    pub(crate) fn closed(&self) -> TransportError {
        TransportError::Closed { peer: self.peer.clone() }
    }

    /// Queues frames and says that there are some.
    pub(crate) fn send(
        &self,
        frames: impl IntoIterator<Item = Frame>,
    ) -> Result<(), TransportError> {
        let watcher: Weak<dyn RegionWatcher> = self.this.clone();
        {
            let mut outbox = self.outbox.lock();
            for frame in frames {
                self.check(&frame)?;
                if outbox.is_closed || outbox.has_ended {
                    return Err(self.closed());
                }
                let nbytes = outbox.push(frame, &watcher);
                self.queued_nbytes.fetch_add(nbytes, Ordering::Relaxed);
            }
        }
        self.wake();
        Ok(())
    }

    /// Refuses what the peer would refuse, where the caller still knows what it was.
    fn check(&self, frame: &Frame) -> Result<(), TransportError> {
        let limits = self.options.limits;
        let too_large = |what, n: u64, limit: u64| {
            Err(TransportError::Limit { peer: "this side".into(), what, n, limit })
        };
        let head_limit = limits.head_nbytes.min(u32::MAX as usize);
        if frame.head.len() > head_limit {
            return too_large("a head", frame.head.len() as u64, head_limit as u64);
        }
        if frame.attachments.len() > limits.n_attachments {
            let n = frame.attachments.len() as u64;
            return too_large("a number of attachments", n, limits.n_attachments as u64);
        }
        match frame.attachments.iter().map(|a| a.len() as u64).max() {
            Some(n) if n > limits.attachment_nbytes => {
                too_large("an attachment", n, limits.attachment_nbytes)
            }
            _ => Ok(()),
        }
    }

    fn wake(&self) {
        self.waker.wake(&self.arc());
    }

    pub(crate) fn queued_nbytes(&self) -> usize {
        self.queued_nbytes.load(Ordering::Relaxed)
    }

    /// Takes all that is queued.
    pub(crate) fn take_queued(&self) -> VecDeque<Piece> {
        let (pieces, uncounted) = self.outbox.lock().take();
        self.queued_nbytes.fetch_add(uncounted, Ordering::Relaxed);
        if rustix::process::getpid() != self.process {
            return VecDeque::new();
        }
        pieces
    }

    pub(crate) fn has_queued(&self) -> bool {
        !self.outbox.lock().is_empty()
    }

    pub(crate) fn on_sent(&self, nbytes: usize) {
        // Closing sets the number to zero while the last bytes may still be on their way.
        let less = |queued: usize| Some(queued.saturating_sub(nbytes));
        let _ = self.queued_nbytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        self.sent_nbytes.fetch_add(nbytes as u64, Ordering::Relaxed);
    }

    /// Says that no user frame follows. Returning leases goes on.
    pub(crate) fn end(&self) {
        {
            let mut outbox = self.outbox.lock();
            if outbox.has_ended || outbox.is_closed {
                return;
            }
            outbox.has_ended = true;
            let nbytes = outbox.push_control(Kind::End, &[]);
            self.queued_nbytes.fetch_add(nbytes, Ordering::Relaxed);
        }
        self.wake();
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.outbox.lock().has_ended
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.outbox.lock().is_closed
    }

    /// Whether this side needs the connection no more. Within a host, it is needed for as long as
    /// anything borrowed over it is held, even if the peer says no more: it may still listen for
    /// what comes back.
    pub(crate) fn is_finished(&self) -> bool {
        let outbox = self.outbox.lock();
        if !self.is_local {
            return outbox.is_closed || (outbox.has_ended && outbox.is_empty());
        }
        let may_borrow = self.has_receiver.load(Ordering::SeqCst) && !outbox.is_closed;
        let says_no_more = outbox.is_closed || outbox.has_ended;
        let owes_nothing = self.n_borrowed.load(Ordering::SeqCst) == 0 && !may_borrow;
        says_no_more && outbox.is_empty() && owes_nothing
    }

    /// The socket takes no more: what is queued will not arrive.
    pub(crate) fn on_write_error(&self) {
        let pieces = {
            let mut outbox = self.outbox.lock();
            outbox.is_closed = true;
            outbox.take().0
        };
        drop(pieces);
        self.queued_nbytes.store(0, Ordering::Relaxed);
        self.wake();
    }

    /// The peer's end is closed: it holds nothing of ours any more.
    pub(crate) fn on_peer_gone(&self) {
        self.peer_is_gone.store(true, Ordering::SeqCst);
        let (pieces, leases) = {
            let mut outbox = self.outbox.lock();
            outbox.is_closed = true;
            (outbox.take().0, outbox.take_all_leases())
        };
        drop((pieces, leases));
        self.queued_nbytes.store(0, Ordering::Relaxed);
        self.wake();
    }

    /// What the peer sent makes no sense: nothing more is said to it. Within a host, the connection
    /// closes only when all that was borrowed over it is back.
    pub(crate) fn on_broken(&self) {
        if !self.is_local {
            return self.on_peer_gone();
        }
        let pieces = {
            let mut outbox = self.outbox.lock();
            outbox.has_ended = true;
            outbox.take().0
        };
        drop(pieces);
        self.wake();
    }

    /// The end of the stream from the peer.
    pub(crate) fn on_end_of_stream(&self, has_ended: bool) {
        // A remote peer that has said that it sends no more may still listen.
        if self.is_local || !has_ended {
            self.on_peer_gone();
        }
    }

    pub(crate) fn on_receiver_dropped(&self) {
        self.has_receiver.store(false, Ordering::SeqCst);
        self.wake();
    }

    pub(crate) fn needs_reader(&self) -> bool {
        self.is_local && !self.peer_is_gone.load(Ordering::SeqCst)
    }

    pub(crate) fn on_leases_back(&self, numbers: impl Iterator<Item = u64>) -> Result<(), u64> {
        let mut returned = Vec::new();
        {
            let mut outbox = self.outbox.lock();
            for number in numbers {
                returned.push(outbox.take_lease(number).ok_or(number)?);
            }
        }
        drop(returned);
        Ok(())
    }

    pub(crate) fn n_leases(&self) -> usize {
        self.outbox.lock().n_leases()
    }

    /// What a segment of the peer's does when its last clone is dropped.
    pub(crate) fn lease_return(&self, number: u64) -> Box<dyn FnOnce() + Send + Sync> {
        self.n_borrowed.fetch_add(1, Ordering::SeqCst);
        let link = self.arc();
        Box::new(move || {
            link.outbox.lock().return_lease(number);
            link.n_borrowed.fetch_sub(1, Ordering::SeqCst);
            link.wake();
        })
    }
}

impl RegionWatcher for Link {
    fn region_ended(&self, id: RegionId) {
        {
            let mut outbox = self.outbox.lock();
            let Some(number) = outbox.end_region(id) else {
                return;
            };
            if outbox.is_closed {
                return;
            }
            let nbytes = outbox.push_control(Kind::RegionEnd, &[number]);
            self.queued_nbytes.fetch_add(nbytes, Ordering::Relaxed);
        }
        self.wake();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if !*self.peer_is_gone.get_mut() {
            // The peer may still read what it holds. Memory that is never used again is a loss,
            // memory that changes under a reader is a wrong value.
            let leases: HashMap<_, _> = self.outbox.get_mut().take_all_leases();
            leases.into_values().for_each(std::mem::forget);
        }
    }
}
