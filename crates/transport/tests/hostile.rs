//! Peers that mean no good, all at once: they are gone within ten seconds, cost little memory, and
//! hold up nobody. A program of its own, because it looks at the memory of the whole process.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rasker_transport::{
    Address, Credentials, LinkOptions, Listener, ListenerOptions, Peer, Token, TransportError,
    connect,
};

const SOON: Duration = Duration::from_secs(10);

fn credentials() -> Credentials {
    Credentials { token: Token::from_bytes([7; 32]) }
}

fn resident_nbytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Waits until the other end closes.
fn until_closed(mut stream: TcpStream) {
    stream.set_read_timeout(Some(SOON * 2)).unwrap();
    let mut answer = [0; 256];
    while matches!(stream.read(&mut answer), Ok(n) if n > 0) {}
}

/// Bytes that no program means.
fn garbage(seed: u64, n: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        (state >> 56) as u8
    };
    (0..n).map(|_| next()).collect()
}

/// A connection that leads to nothing: a third says nothing, a third begins well, a third says
/// anything.
fn open(port: u16, at: u64) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let _ = match at % 3 {
        0 => Ok(()),
        1 => stream.write_all(b"RSKR\x01\x00"),
        _ => stream.write_all(&garbage(at, 64)),
    };
    stream
}

#[test]
fn five_hundred_idle_connections_are_closed_and_hold_up_nobody() {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().unwrap();
    let reply = |_: &Bytes, _: &Peer| Ok(Bytes::from_static(b"welcome"));
    runtime.block_on(async {
        let address = "127.0.0.1:0".parse().unwrap();
        let options = ListenerOptions::default();
        let listener = Listener::bind(&address, credentials(), None, options, reply).await.unwrap();
        let address = listener.local_address().clone();
        let Address::Tcp { port, .. } = address else { panic!("not TCP") };
        let (before, started) = (resident_nbytes(), Instant::now());
        let idle = tokio::task::spawn_blocking(move || {
            let idle: Vec<TcpStream> = (0..500).map(|at| open(port, at)).collect();
            idle.into_iter().for_each(until_closed);
        });
        let honest = async {
            // While the door is crowded some are turned away at once; they come again.
            loop {
                let (hello, link) = (Bytes::from_static(b"hello"), LinkOptions::default());
                match connect(&address, &credentials(), hello, None, SOON, link).await {
                    Ok((_connection, welcome)) => return welcome,
                    Err(_) if started.elapsed() < SOON => {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    Err(error) => panic!("not let in: {error}"),
                }
            }
        };
        let listening = async {
            loop {
                // Whoever is sent away is an error here, and no more than that.
                drop(listener.accept().await);
            }
        };
        let both = async { tokio::join!(idle, honest) };
        let (closed, welcome) = tokio::select! { () = listening => unreachable!(), x = both => x };
        closed.unwrap();
        assert_eq!(&welcome[..], b"welcome");
        assert!(started.elapsed() < SOON, "the last was closed after {:?}", started.elapsed());
        let made = resident_nbytes().saturating_sub(before);
        assert!(made < 16 << 20, "{made} bytes for 500 connections");
    });
}

/// Everything that a client with the token said, said again by somebody without it.
#[test]
fn a_replayed_handshake_is_refused() {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().unwrap();
    let reply = |_: &Bytes, _: &Peer| Ok(Bytes::from_static(b"welcome"));
    runtime.block_on(async {
        let address = "127.0.0.1:0".parse().unwrap();
        let options = ListenerOptions::default();
        let listener = Listener::bind(&address, credentials(), None, options, reply).await.unwrap();
        let Address::Tcp { port, .. } = *listener.local_address() else { panic!("not TCP") };
        let tap = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let tapped =
            Address::Tcp { host: "127.0.0.1".into(), port: tap.local_addr().unwrap().port() };
        let recording = std::thread::spawn(move || record(&tap, port));
        let (hello, link) = (Bytes::from_static(b"hello"), LinkOptions::default());
        let credentials = credentials();
        let connecting = connect(&tapped, &credentials, hello, None, SOON, link);
        let (connected, accepted) = tokio::join!(connecting, listener.accept());
        assert!(accepted.is_ok());
        drop((connected.unwrap(), accepted));
        let said = tokio::task::spawn_blocking(|| recording.join().unwrap()).await.unwrap();
        assert!(said.len() > 32, "a handshake was recorded");
        let replaying = std::thread::spawn(move || {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            stream.write_all(&said).unwrap();
            let started = Instant::now();
            until_closed(stream);
            started.elapsed()
        });
        let error = listener.accept().await.err().expect("a replay is refused");
        assert!(matches!(error, TransportError::Token { .. }), "{error}");
        assert!(replaying.join().unwrap() < SOON);
    });
}

/// Passes one connection on; returns what the client said.
fn record(tap: &std::net::TcpListener, port: u16) -> Vec<u8> {
    let (client, _) = tap.accept().unwrap();
    let server = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let (mut back_from, mut back_to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    let back = std::thread::spawn(move || {
        let _ = std::io::copy(&mut back_from, &mut back_to);
    });
    let (mut client, mut server) = (client, server);
    let mut said = Vec::new();
    let mut bytes = [0; 4096];
    while let Ok(n) = client.read(&mut bytes) {
        if n == 0 || server.write_all(&bytes[..n]).is_err() {
            break;
        }
        said.extend_from_slice(&bytes[..n]);
    }
    let _ = server.shutdown(std::net::Shutdown::Both);
    back.join().unwrap();
    said
}
