//! Connections without a loop, for executor processes: one thread receives, any thread sends.
//!
//! Whoever has something to send queues it and then writes whatever is queued. A lease that comes
//! back from a finalizer never waits: if another thread is writing, that thread takes it along; if
//! the socket is full, the next one does.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{RecvFlags, SendFlags, Shutdown};

use crate::TransportError;
use crate::decoder::Decoder;
use crate::descriptors;
use crate::frame::{Frame, LinkOptions};
use crate::link::{Link, Wake};
use crate::outbox::InFlight;

/// One end of a private pair of Unix sockets.
pub struct BlockingConnection {
    sender: BlockingSender,
    receiver: BlockingReceiver,
}

impl BlockingConnection {
    pub fn from_unix(stream: UnixStream, options: LinkOptions) -> Result<Self, TransportError> {
        let peer = "private socket";
        let failed = |source| TransportError::Io { peer: peer.into(), source };
        stream.set_nonblocking(false).map_err(failed)?;
        let writing = Arc::new(Writing { stream, in_flight: Mutex::default() });
        let link = Link::new(peer.into(), true, options, Box::new(WriteNow(writing.clone())));
        let handle = Arc::new(SenderHandle { link: link.clone(), writing: writing.clone() });
        let inner = Inner { decoder: Decoder::new(link.clone()), writing };
        let receiver = BlockingReceiver { link, inner: Some(inner), is_over: false };
        Ok(Self { sender: BlockingSender { handle }, receiver })
    }

    pub fn split(self) -> (BlockingSender, BlockingReceiver) {
        (self.sender, self.receiver)
    }
}

struct Writing {
    stream: UnixStream,
    in_flight: Mutex<InFlight>,
}

/// Writes without waiting whenever something is queued.
struct WriteNow(Arc<Writing>);

impl Wake for WriteNow {
    fn wake(&self, link: &Arc<Link>) {
        self.0.write_what_fits(link);
    }
}

impl Writing {
    /// Writes what is queued, and waits for the socket if need be.
    fn write_all(&self, link: &Link) -> Result<(), TransportError> {
        let mut in_flight = self.in_flight.lock();
        loop {
            if self.write(link, &mut in_flight)? {
                break;
            }
            self.wait(PollFlags::OUT, None).map_err(|source| failed(link, source))?;
        }
        drop(in_flight);
        // A lease that came back after the queue was taken found the lock held.
        self.write_what_fits(link);
        Ok(())
    }

    fn write_what_fits(&self, link: &Link) {
        // What did not fit before is in flight and not in the queue any more.
        let mut is_first = true;
        while is_first || link.has_queued() || link.is_finished() {
            is_first = false;
            // Whoever holds the lock looks at the queue again after letting it go.
            let Some(mut in_flight) = self.in_flight.try_lock() else {
                return;
            };
            match self.write(link, &mut in_flight) {
                Ok(true) if link.is_finished() => {
                    let _ = rustix::net::shutdown(&self.stream, Shutdown::Write);
                    return;
                }
                Ok(true) => {}
                Ok(false) | Err(_) => return,
            }
        }
    }

    /// Writes until all is written or the socket is full; says which.
    fn write(&self, link: &Link, in_flight: &mut InFlight) -> Result<bool, TransportError> {
        loop {
            in_flight.append(link.take_queued());
            if in_flight.is_empty() {
                return Ok(true);
            }
            in_flight.prepare();
            let (result, n_pieces) = {
                let (slices, fds) = in_flight.slices();
                (descriptors::send(&self.stream, &slices, &fds, SendFlags::DONTWAIT), slices.len())
            };
            match result {
                Ok(nbytes) => {
                    in_flight.advance(nbytes, n_pieces);
                    link.on_sent(nbytes);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    *in_flight = InFlight::default();
                    link.on_write_error();
                    return Err(failed(link, source));
                }
            }
        }
    }

    /// Waits until the socket is ready; says for what.
    fn wait(&self, flags: PollFlags, timeout: Option<&Timespec>) -> io::Result<PollFlags> {
        let mut fds = [PollFd::new(&self.stream, flags)];
        loop {
            match rustix::event::poll(&mut fds, timeout) {
                Ok(_) => return Ok(fds[0].revents()),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

fn failed(link: &Link, source: io::Error) -> TransportError {
    TransportError::Io { peer: link.peer.clone(), source }
}

/// Sends frames from any thread. When the last clone is dropped, the peer is told that no more
/// frames follow.
#[derive(Clone)]
pub struct BlockingSender {
    handle: Arc<SenderHandle>,
}

struct SenderHandle {
    link: Arc<Link>,
    writing: Arc<Writing>,
}

impl Drop for SenderHandle {
    fn drop(&mut self) {
        self.link.end();
    }
}

impl BlockingSender {
    /// Sends frames, together if the socket takes them. Returns when the socket has them all.
    pub fn send(&self, frames: impl IntoIterator<Item = Frame>) -> Result<(), TransportError> {
        let SenderHandle { link, writing } = &*self.handle;
        link.send(frames)?;
        writing.write_all(link)?;
        if link.is_closed() { Err(link.closed()) } else { Ok(()) }
    }

    pub fn close(&self) {
        self.handle.link.end();
    }

    pub fn nbytes_sent(&self) -> u64 {
        self.handle.link.sent_nbytes.load(Ordering::Relaxed)
    }

    /// Segments that the peer holds.
    pub fn n_leases(&self) -> usize {
        self.handle.link.n_leases()
    }
}

/// Receives frames, one thread at a time.
pub struct BlockingReceiver {
    link: Arc<Link>,
    inner: Option<Inner>,
    is_over: bool,
}

struct Inner {
    decoder: Decoder,
    writing: Arc<Writing>,
}

impl BlockingReceiver {
    /// Waits for the next frame; nothing when no more follow.
    pub fn recv(&mut self) -> Result<Option<Frame>, TransportError> {
        let Some(inner) = self.inner.as_mut().filter(|_| !self.is_over) else {
            return Ok(None);
        };
        let result = inner.next(&self.link, true);
        self.is_over = !matches!(result, Ok(Some(_)));
        result
    }

    /// A frame that has arrived already, without waiting and without a system call.
    pub fn recv_arrived(&mut self) -> Result<Option<Frame>, TransportError> {
        let Some(inner) = self.inner.as_mut().filter(|_| !self.is_over) else {
            return Ok(None);
        };
        inner.decoder.next()
    }

    pub fn nbytes_received(&self) -> u64 {
        self.link.received_nbytes.load(Ordering::Relaxed)
    }
}

impl Inner {
    fn next(&mut self, link: &Link, stops_at_end: bool) -> Result<Option<Frame>, TransportError> {
        loop {
            match self.decoder.next() {
                Ok(None) => {}
                result => return result.inspect_err(|_| link.on_broken()),
            }
            if stops_at_end && self.decoder.has_ended() {
                return Ok(None);
            }
            match self.read(link) {
                Ok(0) => {
                    link.on_end_of_stream(self.decoder.has_ended());
                    return self.decoder.on_end().map(|()| None);
                }
                Ok(nbytes) => self.decoder.advance(nbytes),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A peer that dies without having read everything is gone like any other.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    link.on_peer_gone();
                    return self.decoder.on_end().map(|()| None);
                }
                Err(source) => {
                    link.on_peer_gone();
                    return Err(failed(link, source));
                }
            }
        }
    }

    /// Waits for the end of a stream that makes no sense any more.
    fn discard(&mut self, link: &Link) {
        let mut bytes = vec![0; 4096];
        while link.needs_reader() {
            let mut fds = std::collections::VecDeque::new();
            let flags = RecvFlags::empty();
            let result = descriptors::receive(&self.writing.stream, &mut bytes, &mut fds, flags);
            if !matches!(result, Ok(1..)) {
                link.on_peer_gone();
            }
        }
    }

    fn has_stuck(&self, link: &Link) -> bool {
        if link.has_queued() || self.writing.in_flight.try_lock().is_some_and(|f| !f.is_empty()) {
            return true;
        }
        // Whoever found the lock held just now relies on this look at the queue.
        if link.is_finished() {
            self.writing.write_what_fits(link);
        }
        link.has_queued()
    }

    fn read(&mut self, link: &Link) -> io::Result<usize> {
        // While leases are stuck behind a full socket, waiting to read must also be waiting to
        // write them.
        while self.has_stuck(link) {
            let ready = self.writing.wait(PollFlags::IN | PollFlags::OUT, None)?;
            if ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                break;
            }
            self.writing.write_what_fits(link);
        }
        let (space, fds) = self.decoder.space();
        descriptors::receive(self.writing.stream.as_fd(), space, fds, RecvFlags::empty())
    }
}

impl Drop for BlockingReceiver {
    fn drop(&mut self) {
        let Some(mut inner) = self.inner.take() else {
            return;
        };
        let link = self.link.clone();
        link.on_receiver_dropped();
        if !link.needs_reader() || (link.has_ended() && link.n_leases() == 0) {
            return;
        }
        // The peer holds or gets segments of ours: somebody must hear when they come back, or that
        // it is gone.
        let drain = move || {
            while let Ok(Some(_)) = inner.next(&link, false) {}
            inner.discard(&link);
        };
        let _ = thread::Builder::new().name("rasker-leases".into()).spawn(drain);
    }
}
