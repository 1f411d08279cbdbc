//! The byte streams below connections.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustix::net::{RecvFlags, SendFlags};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream, tcp};
use tokio_rustls::TlsStream;

use crate::descriptors;

/// A connected stream, as the handshake sees it.
pub(crate) enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

pub(crate) enum Reader {
    Tcp(tcp::OwnedReadHalf),
    Tls(tokio::io::ReadHalf<TlsStream<TcpStream>>),
    Unix(Arc<UnixStream>),
}

pub(crate) enum Writer {
    Tcp(tcp::OwnedWriteHalf),
    Tls(tokio::io::WriteHalf<TlsStream<TcpStream>>),
    Unix(Arc<UnixStream>),
}

/// Prepares a TCP socket on which nothing was said yet: small messages leave at once.
pub(crate) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    if stream.local_addr()?.ip() == stream.peer_addr()?.ip() {
        // Within a host no packet is lost and no other traffic is in the way, but BBR, which many
        // systems use for all, still sends by a timer: a large value takes more than twice as long.
        // A system that forbids the choice is only slower.
        let _ = rustix::net::sockopt::set_tcp_congestion(stream, "reno");
    }
    Ok(())
}

impl Stream {
    pub(crate) fn is_local(&self) -> bool {
        matches!(self, Self::Unix(_))
    }

    pub(crate) fn split(self) -> (Reader, Writer) {
        match self {
            Self::Tcp(stream) => {
                let (reader, writer) = stream.into_split();
                (Reader::Tcp(reader), Writer::Tcp(writer))
            }
            Self::Tls(stream) => {
                let (reader, writer) = tokio::io::split(*stream);
                (Reader::Tls(reader), Writer::Tls(writer))
            }
            Self::Unix(stream) => {
                let stream = Arc::new(stream);
                (Reader::Unix(stream.clone()), Writer::Unix(stream))
            }
        }
    }
}

impl Reader {
    /// Reads some bytes, none at the end. Loses nothing if it is dropped while it waits.
    pub(crate) async fn read(
        &mut self,
        bytes: &mut [u8],
        found: &mut VecDeque<OwnedFd>,
    ) -> io::Result<usize> {
        match self {
            Self::Tcp(reader) => reader.read(bytes).await,
            Self::Tls(reader) => reader.read(bytes).await,
            Self::Unix(stream) => loop {
                stream.readable().await?;
                let receive = || descriptors::receive(&**stream, bytes, found, RecvFlags::DONTWAIT);
                match stream.try_io(Interest::READABLE, receive) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    // A peer that dies without having read everything is gone like any other.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(0),
                    result => return result,
                }
            },
        }
    }
}

impl Writer {
    /// Writes some of the bytes.
    pub(crate) async fn write(
        &mut self,
        slices: &[IoSlice<'_>],
        fds: &[BorrowedFd<'_>],
    ) -> io::Result<usize> {
        match self {
            Self::Tcp(writer) => writer.write_vectored(slices).await,
            Self::Tls(writer) => writer.write_vectored(slices).await,
            Self::Unix(stream) => loop {
                let send = || descriptors::send(&**stream, slices, fds, SendFlags::DONTWAIT);
                match stream.try_io(Interest::WRITABLE, send) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    result => return result,
                }
                stream.writable().await?;
            },
        }
    }

    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tls(writer) => writer.flush().await,
            Self::Tcp(_) | Self::Unix(_) => Ok(()),
        }
    }

    pub(crate) async fn shutdown(&mut self) {
        // The peer may have closed first: there is nobody left to tell.
        let _ = match self {
            Self::Tcp(writer) => writer.shutdown().await,
            Self::Tls(writer) => writer.shutdown().await,
            Self::Unix(stream) => rustix::net::shutdown(&**stream, rustix::net::Shutdown::Write)
                .map_err(io::Error::from),
        };
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(ctx, buffer),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(ctx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(ctx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(ctx, bytes),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(ctx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(ctx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(ctx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(ctx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(ctx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(ctx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(ctx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(ctx),
        }
    }
}
