//! Frames over all kinds of connections: they arrive as they were sent, or an error says why not.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rasker_store::{Arena, ArenaOptions};
use rasker_transport::{
    Address, Attachment, Connection, Credentials, Frame, Limits, LinkOptions, Listener,
    ListenerOptions, TlsClient, TlsServer, Token, TransportError, connect,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const PATIENCE: Duration = Duration::from_secs(20);

fn run<T>(future: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await.expect("it hangs") })
}

fn credentials() -> Credentials {
    Credentials { token: Token::from_bytes([7; 32]) }
}

fn socket_path() -> PathBuf {
    static N: AtomicUsize = AtomicUsize::new(0);
    let n = N.fetch_add(1, Ordering::SeqCst);
    std::env::temp_dir().join(format!("rasker-frames-{}-{n}", std::process::id()))
}

/// The addresses of one listener of each kind.
fn addresses() -> Vec<Address> {
    let unix = Address::Unix(socket_path());
    vec!["127.0.0.1:0".parse().unwrap(), "tls://127.0.0.1:0".parse().unwrap(), unix]
}

/// Two ends of one connection through a listener.
async fn pair(address: &Address, options: &LinkOptions) -> (Connection, Connection) {
    let server = TlsServer::self_signed(&["localhost"]).unwrap();
    let client = TlsClient::pinned(server.fingerprint()).unwrap();
    let door = ListenerOptions { link: options.clone(), ..ListenerOptions::default() };
    let reply = |_: &Bytes, _: &_| Ok(Bytes::from_static(b"server"));
    let listener =
        Listener::bind(address, credentials(), Some(&server), door, reply).await.unwrap();
    let local = listener.local_address().clone();
    let (hello, link) = (Bytes::from_static(b"client"), options.clone());
    let credentials = credentials();
    let connecting = connect(&local, &credentials, hello, Some(&client), PATIENCE, link);
    let (connected, accepted) = tokio::join!(connecting, listener.accept());
    let ((here, their_hello), (there, our_hello)) = (connected.unwrap(), accepted.unwrap());
    assert_eq!((&their_hello[..], &our_hello[..]), (&b"server"[..], &b"client"[..]));
    (here, there)
}

fn pattern(nbytes: usize, seed: usize) -> Bytes {
    (0..nbytes).map(|i| ((i * 31 + i / 251 + seed) % 256) as u8).collect()
}

/// Frames of many shapes; with segments of an arena among the attachments.
fn frames(arena: &Arena) -> Vec<Frame> {
    let sizes = [0, 1, 100, 4095, 4096, 4097, 40_000, 65_536, 70_000, 600_000, 3_000_001];
    let mut frames: Vec<Frame> = sizes.iter().map(|&n| Frame::new(pattern(n, n))).collect();
    for (i, &nbytes) in sizes.iter().enumerate() {
        let mut attachments = vec![Attachment::Bytes(pattern(nbytes, i))];
        let mut slab = arena.allocate(nbytes).unwrap();
        slab.copy_from_slice(&pattern(nbytes, i + 1));
        attachments.push(Attachment::Segment(slab.seal()));
        attachments.push(Attachment::Bytes(pattern(3, i)));
        frames.push(Frame { head: pattern(i * 1000, i), attachments });
    }
    let many = (0..1000).map(|i| Attachment::Bytes(pattern(i % 7, i))).collect();
    frames.push(Frame { head: Bytes::new(), attachments: many });
    frames
}

fn assert_same(found: &Frame, expected: &Frame) {
    assert!(
        found.head == expected.head,
        "heads of {} and {}",
        found.head.len(),
        expected.head.len()
    );
    assert_eq!(found.attachments.len(), expected.attachments.len());
    for (found, expected) in found.attachments.iter().zip(&expected.attachments) {
        assert!(found.as_slice() == expected.as_slice(), "an attachment of {}", expected.len());
    }
}

#[test]
fn frames_of_all_sizes_make_the_round_trip() {
    run(async {
        for address in addresses() {
            for arena in [None, Some(Arena::new(ArenaOptions::default()))] {
                let options = LinkOptions { arena: arena.clone(), ..LinkOptions::default() };
                let (here, there) = pair(&address, &options).await;
                let (sender, mut back) = here.split();
                let (echo, mut receiver) = there.split();
                let sent = frames(&Arena::new(ArenaOptions::default()));
                let echoing = tokio::spawn(async move {
                    while let Some(frame) = receiver.recv().await.unwrap() {
                        echo.send(frame).unwrap();
                    }
                    receiver.nbytes_received()
                });
                for frame in &sent {
                    sender.send(frame.clone()).unwrap();
                }
                for frame in &sent {
                    let found = back.recv().await.unwrap().unwrap();
                    assert_same(&found, frame);
                    let is_large = |a: &Attachment| a.len() >= 65_536;
                    if arena.is_some() {
                        let mut large = found.attachments.iter().filter(|a| is_large(a));
                        assert!(large.all(|a| matches!(a, Attachment::Segment(_))));
                    }
                }
                drop(sender);
                assert!(back.recv().await.unwrap().is_none());
                // What is sent after the last frame is only what this crate says to itself.
                assert!(echoing.await.unwrap() > 0);
            }
        }
    });
}

#[test]
fn ten_thousand_small_frames_travel_together() {
    run(async {
        for address in addresses() {
            let (here, there) = pair(&address, &LinkOptions::default()).await;
            let (sender, _back) = here.split();
            let (_echo, mut receiver) = there.split();
            for i in 0..10_000u32 {
                sender.send(Frame::new(Bytes::copy_from_slice(&i.to_le_bytes()))).unwrap();
            }
            assert!(sender.queued_nbytes() >= 40_000);
            let mut n_arrived_with_others = 0;
            let mut expected = 0u32;
            while expected < 10_000 {
                let mut next = receiver.recv().await.unwrap();
                while let Some(frame) = next {
                    assert_eq!(frame.head[..], expected.to_le_bytes());
                    expected += 1;
                    next = receiver.recv_arrived().unwrap();
                    n_arrived_with_others += u32::from(next.is_some());
                }
            }
            assert!(n_arrived_with_others > 9_900, "only {n_arrived_with_others} in company");
            assert_eq!(sender.queued_nbytes(), 0);
            assert_eq!(sender.nbytes_sent(), receiver.nbytes_received());
        }
    });
}

#[test]
fn a_sender_waits_until_the_queue_is_short() {
    run(async {
        let options = LinkOptions { queued_nbytes_max: 1 << 20, ..LinkOptions::default() };
        let (here, there) = pair(&"127.0.0.1:0".parse().unwrap(), &options).await;
        let (sender, _back) = here.split();
        let (_echo, mut receiver) = there.split();
        sender.ready().await;
        sender.send(Frame::new(pattern(32 << 20, 1))).unwrap();
        let soon = Duration::from_millis(50);
        assert!(tokio::time::timeout(soon, sender.ready()).await.is_err());
        let (frame, ()) = tokio::join!(receiver.recv(), sender.ready());
        assert_eq!(frame.unwrap().unwrap().head.len(), 32 << 20);
        assert!(sender.queued_nbytes() <= 1 << 20);
        // Nobody waits for a connection that is closed.
        sender.send(Frame::new(pattern(32 << 20, 1))).unwrap();
        drop((receiver, _echo));
        sender.ready().await;
    });
}

#[test]
fn a_send_after_the_peer_is_gone_fails() {
    run(async {
        for address in addresses() {
            let (here, there) = pair(&address, &LinkOptions::default()).await;
            let (sender, mut back) = here.split();
            drop(there);
            assert!(back.recv().await.unwrap().is_none());
            drop(back);
            let mut result = Ok(());
            for _ in 0..1000 {
                result = sender.send(Frame::new("x"));
                if result.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert!(matches!(result, Err(TransportError::Closed { .. })), "{address}");
        }
    });
}

/// Forwards one connection to `target` and flips a bit of what the client sends after `flip_after`
/// bytes.
async fn flipping_proxy(target: Address, flip_after: usize) -> Address {
    let Address::Tcp { port, .. } = target else { panic!("a proxy is for TCP") };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address =
        Address::Tcp { host: "127.0.0.1".into(), port: listener.local_addr().unwrap().port() };
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
        let mut n_seen = 0;
        let mut bytes = vec![0; 8192];
        while let Ok(n @ 1..) = from_client.read(&mut bytes).await {
            if (n_seen..n_seen + n).contains(&flip_after) {
                bytes[flip_after - n_seen] ^= 0x10;
            }
            n_seen += n;
            if to_server.write_all(&bytes[..n]).await.is_err() {
                break;
            }
        }
    });
    address
}

#[test]
fn a_flipped_byte_is_detected() {
    run(async {
        // The client's part of the handshake: magic, version, nonce, length, hello; verdict and
        // proof.
        let handshake_nbytes = 4 + 2 + 32 + 4 + 6 + 1 + 32;
        let frame = Frame {
            head: pattern(50, 1),
            attachments: vec![
                Attachment::Bytes(pattern(100, 2)),
                Attachment::Bytes(pattern(200_000, 3)),
            ],
        };
        let whole = 12 + 2 * 25 + 50 + 8 + 100 + 8 + 200_000 + 8;
        let places = (0..230).chain([300, 70_000, 199_000, 200_220, whole - 1]);
        let mut n_named = [0; 3];
        for place in places {
            let reply = |_: &Bytes, _: &_| Ok(Bytes::new());
            let options = ListenerOptions::default();
            let any = "127.0.0.1:0".parse().unwrap();
            let listener = Listener::bind(&any, credentials(), None, options, reply).await.unwrap();
            let target = listener.local_address().clone();
            let address = flipping_proxy(target, handshake_nbytes + place).await;
            let credentials = credentials();
            let hello = Bytes::from_static(b"client");
            let link = LinkOptions::default();
            let connecting = connect(&address, &credentials, hello, None, PATIENCE, link);
            let (connected, accepted) = tokio::join!(connecting, listener.accept());
            let (sender, _back) = connected.unwrap().0.split();
            let (_echo, mut receiver) = accepted.unwrap().0.split();
            sender.send(frame.clone()).unwrap();
            sender.close();
            let error = receiver.recv().await.expect_err(&format!("byte {place} was flipped"));
            if let TransportError::Damaged { what, .. } = &error {
                let names = ["the head of a frame", "attachment 0", "attachment 1"];
                n_named[names.iter().position(|name| name == what).unwrap()] += 1;
            }
        }
        assert!(n_named[0] > 40 && n_named[1] >= 100 && n_named[2] > 4, "{n_named:?}");
    });
}

#[test]
fn garbage_ends_the_connection_with_an_error() {
    run(async {
        let mut state = 88_172_645_463_325_252u64;
        for round in 0..300 {
            let (raw, ours) = std::os::unix::net::UnixStream::pair().unwrap();
            let (_sender, mut receiver) =
                Connection::from_unix(ours, LinkOptions::default()).unwrap().split();
            let mut garbage: Vec<u8> = (0..200)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state as u8
                })
                .collect();
            // Most rounds begin like a frame, so that the later checks are reached too.
            if round % 4 > 0 {
                garbage[..2].copy_from_slice(&[0xA7, 1]);
                garbage[2] %= 6;
                garbage[3] = 0;
                garbage[5..8].fill(0);
                garbage[9..12].fill(0);
                garbage[8] %= 3;
            }
            std::io::Write::write_all(&mut &raw, &garbage).unwrap();
            drop(raw);
            let mut n_frames = 0;
            while let Ok(Some(_)) = receiver.recv().await {
                n_frames += 1;
            }
            assert!(n_frames <= 16);
        }
    });
}

#[test]
fn a_frame_beyond_the_limits_is_refused_where_it_is_sent() {
    run(async {
        let limits = Limits { head_nbytes: 10, attachment_nbytes: 20, n_attachments: 1 };
        let options = LinkOptions { limits, ..LinkOptions::default() };
        let (here, _there) = pair(&"127.0.0.1:0".parse().unwrap(), &options).await;
        let (sender, _back) = here.split();
        let with = |head, sizes: &[usize]| Frame {
            head: pattern(head, 0),
            attachments: sizes.iter().map(|&n| Attachment::Bytes(pattern(n, 0))).collect(),
        };
        for frame in [with(11, &[]), with(0, &[21]), with(0, &[1, 1])] {
            assert!(matches!(sender.send(frame), Err(TransportError::Limit { .. })));
        }
        sender.send(with(10, &[20])).unwrap();
    });
}
