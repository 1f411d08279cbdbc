//! Connections in a tokio loop: a sender that queues, a task that writes, and a receiver.

use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::net::UnixStream;
use tokio::sync::Notify;

use crate::TransportError;
use crate::decoder::Decoder;
use crate::frame::{Frame, LinkOptions};
use crate::link::{Link, Wake};
use crate::outbox::InFlight;
use crate::stream::{Reader, Stream, Writer};

/// Who is at the other end, for messages to people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address, or what kind of private socket leads to it.
    pub name: String,
    /// Whether segments travel as places in shared memory.
    pub is_local: bool,
}

/// A connection to a peer that has been let in.
pub struct Connection {
    peer: Peer,
    sender: Sender,
    receiver: Receiver,
}

impl Connection {
    /// The end of a private pair of sockets, which needs no handshake. Must be called within a
    /// tokio runtime.
    pub fn from_unix(stream: StdUnixStream, options: LinkOptions) -> Result<Self, TransportError> {
        let peer = "private socket";
        let failed = |source| TransportError::Io { peer: peer.into(), source };
        stream.set_nonblocking(true).map_err(failed)?;
        let stream = UnixStream::from_std(stream).map_err(failed)?;
        Ok(Self::new(Stream::Unix(stream), peer.into(), options))
    }

    pub(crate) fn new(stream: Stream, peer: String, options: LinkOptions) -> Self {
        let is_local = stream.is_local();
        let (reader, writer) = stream.split();
        let notify = Arc::new(Notifiers::default());
        let link =
            Link::new(peer.clone(), is_local, options, Box::new(NotifyWriter(notify.clone())));
        tokio::spawn(write_all(link.clone(), notify.clone(), writer));
        let handle = Arc::new(SenderHandle { link: link.clone(), notify });
        let receiver = Receiver {
            inner: Some(Inner { decoder: Decoder::new(link.clone()), reader }),
            link,
            is_over: false,
        };
        Self { peer: Peer { name: peer, is_local }, sender: Sender { handle }, receiver }
    }

    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    pub fn split(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }
}

#[derive(Default)]
struct Notifiers {
    /// There is something to write.
    queued: Notify,
    /// Something was written, or nothing will be.
    written: Notify,
}

struct NotifyWriter(Arc<Notifiers>);

impl Wake for NotifyWriter {
    fn wake(&self, _: &Arc<Link>) {
        self.0.queued.notify_one();
    }
}

/// Queues frames; a task writes them, as many at once as there are. When the last clone is dropped,
/// the peer is told that no more frames follow.
#[derive(Clone)]
pub struct Sender {
    handle: Arc<SenderHandle>,
}

struct SenderHandle {
    link: Arc<Link>,
    notify: Arc<Notifiers>,
}

impl Drop for SenderHandle {
    fn drop(&mut self) {
        self.link.end();
    }
}

impl Sender {
    /// Queues a frame. Fails if the connection is closed, or if the frame is larger than the limits
    /// allow.
    pub fn send(&self, frame: Frame) -> Result<(), TransportError> {
        self.handle.link.send([frame])
    }

    /// Says that no more frames follow. What is queued is still sent.
    pub fn close(&self) {
        self.handle.link.end();
    }

    pub fn is_closed(&self) -> bool {
        self.handle.link.has_ended() || self.handle.link.is_closed()
    }

    /// Bytes that wait to be written to the socket.
    pub fn queued_nbytes(&self) -> usize {
        self.handle.link.queued_nbytes()
    }

    /// Bytes written to the socket so far.
    pub fn nbytes_sent(&self) -> u64 {
        self.handle.link.sent_nbytes.load(Ordering::Relaxed)
    }

    /// Segments that the peer holds.
    pub fn n_leases(&self) -> usize {
        self.handle.link.n_leases()
    }

    /// Waits until the queue is short enough for more, or the connection is closed.
    pub async fn ready(&self) {
        let SenderHandle { link, notify } = &*self.handle;
        loop {
            let written = notify.written.notified();
            if link.queued_nbytes() <= link.options.queued_nbytes_max || link.is_closed() {
                return;
            }
            written.await;
        }
    }
}

/// Writes what is queued until this side has ended and holds nothing of the peer's any more.
async fn write_all(link: Arc<Link>, notify: Arc<Notifiers>, mut writer: Writer) {
    let mut in_flight = InFlight::default();
    loop {
        in_flight.append(link.take_queued());
        if in_flight.is_empty() {
            if link.is_finished() {
                break;
            }
            notify.queued.notified().await;
            continue;
        }
        let is_written = tokio::select! {
            result = write_batch(&link, &notify, &mut writer, &mut in_flight) => result.is_ok(),
            () = closing(&link, &notify) => false,
        };
        if !is_written {
            link.on_write_error();
            break;
        }
    }
    drop(in_flight);
    notify.written.notify_waiters();
    writer.shutdown().await;
}

/// Waits until the connection is closed, so that a remote peer that does not read cannot keep it
/// open. A peer on this host may have to hear of leases still.
async fn closing(link: &Link, notify: &Notifiers) {
    while link.is_local || !link.is_closed() {
        notify.queued.notified().await;
    }
}

async fn write_batch(
    link: &Link,
    notify: &Notifiers,
    writer: &mut Writer,
    in_flight: &mut InFlight,
) -> std::io::Result<()> {
    while !in_flight.is_empty() {
        in_flight.prepare();
        let (nbytes, n_pieces) = {
            let (slices, fds) = in_flight.slices();
            (writer.write(&slices, &fds).await?, slices.len())
        };
        if nbytes == 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        in_flight.advance(nbytes, n_pieces);
        link.on_sent(nbytes);
        notify.written.notify_waiters();
    }
    writer.flush().await
}

/// Receives frames. Reading happens only while `recv` waits, so that a slow reader slows its peer
/// down.
pub struct Receiver {
    link: Arc<Link>,
    inner: Option<Inner>,
    is_over: bool,
}

struct Inner {
    decoder: Decoder,
    reader: Reader,
}

impl Receiver {
    /// The next frame, or nothing when no more follow. Loses nothing if it is dropped while it
    /// waits.
    pub async fn recv(&mut self) -> Result<Option<Frame>, TransportError> {
        let Some(inner) = self.inner.as_mut().filter(|_| !self.is_over) else {
            return Ok(None);
        };
        let result = inner.next(&self.link, true).await;
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
    async fn next(
        &mut self,
        link: &Link,
        stops_at_end: bool,
    ) -> Result<Option<Frame>, TransportError> {
        loop {
            match self.decoder.next() {
                Ok(None) => {}
                result => return result.inspect_err(|_| link.on_broken()),
            }
            if stops_at_end && self.decoder.has_ended() {
                return Ok(None);
            }
            let (space, fds) = self.decoder.space();
            match self.reader.read(space, fds).await {
                Ok(0) => {
                    link.on_end_of_stream(self.decoder.has_ended());
                    return self.decoder.on_end().map(|()| None);
                }
                Ok(nbytes) => self.decoder.advance(nbytes),
                Err(source) => {
                    link.on_peer_gone();
                    return Err(TransportError::Io { peer: link.peer.clone(), source });
                }
            }
        }
    }
}

impl Inner {
    /// Waits for the end of a stream that makes no sense any more.
    async fn discard(&mut self, link: &Link) {
        let mut bytes = vec![0; 4096];
        while link.needs_reader() {
            let mut fds = std::collections::VecDeque::new();
            if !matches!(self.reader.read(&mut bytes, &mut fds).await, Ok(1..)) {
                link.on_peer_gone();
            }
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let Some(mut inner) = self.inner.take() else {
            return;
        };
        let link = self.link.clone();
        link.on_receiver_dropped();
        if !link.needs_reader() {
            return;
        }
        // The peer may hold segments of ours: somebody must hear when they come back, or that it is
        // gone.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                while let Ok(Some(_)) = inner.next(&link, false).await {}
                inner.discard(&link).await;
            });
        }
    }
}
