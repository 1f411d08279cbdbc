//! Letting peers in, and asking to be let in.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustls::pki_types::ServerName;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::connection::{Connection, Peer};
use crate::frame::LinkOptions;
use crate::stream::{Stream, prepare};
use crate::tls::{TlsClient, TlsServer};
use crate::token::Credentials;
use crate::{Address, TransportError, handshake};

/// Decides on a peer that has proved itself: our hello for it, or why it is refused.
pub type Reply = dyn Fn(&Bytes, &Peer) -> Result<Bytes, String> + Send + Sync;

/// How peers are let in.
#[derive(Clone)]
pub struct ListenerOptions {
    /// For each connection that is let in.
    pub link: LinkOptions,
    /// A peer that is not done by then is sent away.
    pub handshake_timeout: Duration,
    /// With this many handshakes going on, more connections are closed at once.
    pub n_pending_max: usize,
}

impl Default for ListenerOptions {
    fn default() -> Self {
        let handshake_timeout = Duration::from_secs(5);
        Self { link: LinkOptions::default(), handshake_timeout, n_pending_max: 256 }
    }
}

/// Connects to a peer and proves to it, and has it prove, that both know the token. Returns its
/// hello too.
pub async fn connect(
    address: &Address,
    credentials: &Credentials,
    hello: Bytes,
    tls: Option<&TlsClient>,
    timeout: Duration,
    options: LinkOptions,
) -> Result<(Connection, Bytes), TransportError> {
    let name = address.to_string();
    let greeting = async {
        let mut stream = open(address, tls).await?;
        let hello = handshake::greet(&mut stream, &name, credentials, hello).await?;
        Ok::<_, TransportError>((stream, hello))
    };
    let Ok(result) = tokio::time::timeout(timeout, greeting).await else {
        return Err(TransportError::Slow { peer: name, seconds: timeout.as_secs_f64() });
    };
    let (stream, hello) = result?;
    Ok((Connection::new(stream, name, options), hello))
}

async fn open(address: &Address, tls: Option<&TlsClient>) -> Result<Stream, TransportError> {
    let failed =
        |source: io::Error| TransportError::Connect { address: address.to_string(), source };
    match address {
        Address::Unix(path) => Ok(Stream::Unix(UnixStream::connect(path).await.map_err(failed)?)),
        Address::Tcp { host, port } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(failed)?;
            prepare(&stream).map_err(failed)?;
            Ok(Stream::Tcp(stream))
        }
        Address::Tls { host, port } => {
            let tls = tls.ok_or_else(|| TransportError::Tls {
                reason: format!("{address} needs the server's fingerprint or an authority file"),
            })?;
            let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(failed)?;
            prepare(&stream).map_err(failed)?;
            let server = ServerName::try_from(host.clone())
                .map_err(|error| TransportError::Tls { reason: error.to_string() })?;
            let stream = TlsConnector::from(tls.config.clone()).connect(server, stream).await;
            Ok(Stream::Tls(Box::new(stream.map_err(failed)?.into())))
        }
    }
}

/// Listens for peers. Each handshake runs in a task of its own, so that a slow peer holds up
/// nobody.
pub struct Listener {
    address: Address,
    arrivals: Mutex<mpsc::Receiver<Result<(Connection, Bytes), TransportError>>>,
    accepting: JoinHandle<()>,
    socket_path: Option<PathBuf>,
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// What each handshake needs.
struct Door {
    credentials: Credentials,
    tls: Option<TlsServer>,
    options: ListenerOptions,
    reply: Box<Reply>,
}

impl Listener {
    /// Must be called within a tokio runtime. Port 0 chooses a free one: see `local_address`.
    /// Whether the address may be listened on at all is for `check_exposure` to say.
    pub async fn bind(
        address: &Address,
        credentials: Credentials,
        tls: Option<&TlsServer>,
        options: ListenerOptions,
        reply: impl Fn(&Bytes, &Peer) -> Result<Bytes, String> + Send + Sync + 'static,
    ) -> Result<Self, TransportError> {
        let failed =
            |source: io::Error| TransportError::Listen { address: address.to_string(), source };
        let (socket, local, socket_path) = match address {
            Address::Unix(path) => {
                let socket = Socket::Unix(bind_unix(path).map_err(failed)?);
                (socket, address.clone(), Some(path.clone()))
            }
            Address::Tcp { host, port } | Address::Tls { host, port } => {
                let listener = TcpListener::bind((host.as_str(), *port)).await.map_err(failed)?;
                let port = listener.local_addr().map_err(failed)?.port();
                let host = host.clone();
                let local = match address {
                    Address::Tls { .. } => Address::Tls { host, port },
                    _ => Address::Tcp { host, port },
                };
                (Socket::Tcp(listener), local, None)
            }
        };
        let is_tls = matches!(address, Address::Tls { .. });
        if is_tls && tls.is_none() {
            return Err(TransportError::Tls { reason: format!("{address} needs a certificate") });
        }
        let tls = tls.filter(|_| is_tls).cloned();
        let door = Arc::new(Door { credentials, tls, options, reply: Box::new(reply) });
        let (sender, arrivals) = mpsc::channel(64);
        let accepting = tokio::spawn(accept_all(socket, door, sender));
        Ok(Self { address: local, arrivals: Mutex::new(arrivals), accepting, socket_path })
    }

    /// The address with the port that was chosen.
    pub fn local_address(&self) -> &Address {
        &self.address
    }

    /// The next peer that was let in, with its hello. An error tells of one that was not; listening
    /// goes on.
    pub async fn accept(&self) -> Result<(Connection, Bytes), TransportError> {
        let arrival = self.arrivals.lock().await.recv().await;
        arrival.unwrap_or_else(|| Err(TransportError::Closed { peer: self.address.to_string() }))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.accepting.abort();
        if let Some(path) = &self.socket_path {
            let _ = fs::remove_file(path);
        }
    }
}

/// A socket that only this user can connect to, from the moment it exists.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    remove_dead_socket(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::fs::fchmod(&fd, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&fd, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&fd, 1024)?;
    UnixListener::from_std(StdUnixListener::from(fd))
}

/// A socket whose process has died is in the way of its successor.
fn remove_dead_socket(path: &Path) -> io::Result<()> {
    let is_socket =
        fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    if !is_socket {
        return Ok(());
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}

async fn accept_all(
    socket: Socket,
    door: Arc<Door>,
    arrivals: mpsc::Sender<Result<(Connection, Bytes), TransportError>>,
) {
    let pending = Arc::new(Semaphore::new(door.options.n_pending_max));
    loop {
        let accepted = match &socket {
            Socket::Tcp(listener) => listener.accept().await.map(|(stream, address)| {
                let scheme = if door.tls.is_some() { "tls" } else { "tcp" };
                (Stream::Tcp(stream), format!("{scheme}://{address}"))
            }),
            Socket::Unix(listener) => {
                let accepted = listener.accept().await;
                accepted.map(|(stream, _)| (Stream::Unix(stream), "unix client".to_string()))
            }
        };
        let Ok((stream, peer)) = accepted else {
            // Too many open files, most likely: trying again at once would only burn time.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(permit) = pending.clone().try_acquire_owned() else {
            continue;
        };
        let (door, arrivals) = (door.clone(), arrivals.clone());
        tokio::spawn(async move {
            let result = let_in(stream, peer, &door).await;
            drop(permit);
            match result {
                Ok(arrival) => drop(arrivals.send(Ok(arrival)).await),
                // Failures that nobody looks at must not pile up.
                Err(error) => drop(arrivals.try_send(Err(error))),
            }
        });
    }
}

async fn let_in(
    stream: Stream,
    name: String,
    door: &Door,
) -> Result<(Connection, Bytes), TransportError> {
    let timeout = door.options.handshake_timeout;
    let welcoming = async {
        let mut stream = secure(stream, &name, door).await?;
        let peer = Peer { name: name.clone(), is_local: stream.is_local() };
        let reply = |hello: &Bytes| (door.reply)(hello, &peer);
        let hello = handshake::welcome(&mut stream, &name, &door.credentials, reply).await?;
        Ok::<_, TransportError>((stream, hello))
    };
    let Ok(result) = tokio::time::timeout(timeout, welcoming).await else {
        return Err(TransportError::Slow { peer: name, seconds: timeout.as_secs_f64() });
    };
    let (stream, hello) = result?;
    Ok((Connection::new(stream, name, door.options.link.clone()), hello))
}

async fn secure(stream: Stream, name: &str, door: &Door) -> Result<Stream, TransportError> {
    let failed = |source: io::Error| TransportError::Handshake {
        peer: name.into(),
        reason: format!("TLS: {source}"),
    };
    let Stream::Tcp(stream) = stream else {
        return Ok(stream);
    };
    prepare(&stream).map_err(failed)?;
    let Some(tls) = &door.tls else {
        return Ok(Stream::Tcp(stream));
    };
    let stream = TlsAcceptor::from(tls.config.clone()).accept(stream).await.map_err(failed)?;
    Ok(Stream::Tls(Box::new(stream.into())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Token;

    #[tokio::test]
    async fn a_socket_within_a_host_is_not_paced() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("tcp://{}", listener.local_addr().unwrap()).parse().unwrap();
        let (opened, accepted) = tokio::join!(open(&address, None), listener.accept());
        let door = Door {
            credentials: Credentials { token: Token::from_bytes([1; 32]) },
            tls: None,
            options: ListenerOptions::default(),
            reply: Box::new(|_, _| Ok(Bytes::new())),
        };
        let accepted = secure(Stream::Tcp(accepted.unwrap().0), "peer", &door).await;
        for end in [opened.unwrap(), accepted.unwrap()] {
            let Stream::Tcp(socket) = end else { panic!("it is a TCP socket") };
            let control = rustix::net::sockopt::tcp_congestion(&socket).unwrap();
            assert_eq!(control.trim_end_matches('\0'), "reno");
            assert!(socket.nodelay().unwrap());
        }
    }
}
