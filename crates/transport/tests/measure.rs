//! Prints how fast frames travel: `cargo test --release -p rasker-transport --test measure --
//! --ignored --nocapture`.

use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rasker_store::{Arena, ArenaOptions};
use rasker_transport::{
    Attachment, BlockingConnection, Connection, Credentials, Frame, LinkOptions, Listener,
    ListenerOptions, Peer, Token, connect,
};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
#[ignore = "a measurement, not a test"]
fn small_frames_between_a_loop_and_a_blocking_end() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    thread::spawn(move || {
        let connection = BlockingConnection::from_unix(theirs, LinkOptions::default()).unwrap();
        let (sender, mut receiver) = connection.split();
        while let Some(frame) = receiver.recv().unwrap() {
            let mut frames = vec![frame];
            while let Some(frame) = receiver.recv_arrived().unwrap() {
                frames.push(frame);
            }
            sender.send(frames).unwrap();
        }
    });
    runtime().block_on(async {
        let connection = Connection::from_unix(ours, LinkOptions::default()).unwrap();
        let (sender, mut receiver) = connection.split();
        for n_together in [1, 1, 100, 10_000] {
            let n_rounds = 20_000 / n_together;
            let started = Instant::now();
            for _ in 0..n_rounds {
                for _ in 0..n_together {
                    sender.send(Frame::new(Bytes::from_static(&[1; 64]))).unwrap();
                }
                for _ in 0..n_together {
                    receiver.recv().await.unwrap().unwrap();
                }
            }
            let took = started.elapsed();
            let per_round = took / n_rounds as u32;
            let per_frame = took / (n_rounds * n_together) as u32;
            println!("{n_together} frames there and back: {per_round:?}, each {per_frame:?}");
        }
    });
}

#[test]
#[ignore = "a measurement, not a test"]
fn a_large_value_over_tcp() {
    let nbytes = 128 << 20;
    for has_arena in [false, true] {
        let arena = has_arena.then(|| Arena::new(ArenaOptions::default()));
        let (give, take) = std::sync::mpsc::channel();
        let server = thread::spawn(move || {
            runtime().block_on(async {
                let link = LinkOptions { arena, ..LinkOptions::default() };
                let options = ListenerOptions { link, ..ListenerOptions::default() };
                let reply = |_: &Bytes, _: &Peer| Ok(Bytes::new());
                let credentials = Credentials { token: Token::from_bytes([1; 32]) };
                let address = "127.0.0.1:0".parse().unwrap();
                let bound = Listener::bind(&address, credentials, None, options, reply).await;
                let listener = bound.unwrap();
                give.send(listener.local_address().clone()).unwrap();
                let (sender, mut receiver) = listener.accept().await.unwrap().0.split();
                while let Some(frame) = receiver.recv().await.unwrap() {
                    drop(frame);
                    sender.send(Frame::new("got it")).unwrap();
                }
            });
        });
        let address = take.recv().unwrap();
        runtime().block_on(async {
            let credentials = Credentials { token: Token::from_bytes([1; 32]) };
            let timeout = Duration::from_secs(5);
            let link = LinkOptions::default();
            let connecting = connect(&address, &credentials, Bytes::new(), None, timeout, link);
            let (sender, mut receiver) = connecting.await.unwrap().0.split();
            let value = Bytes::from(vec![3; nbytes]);
            for _ in 0..4 {
                let attachments = vec![Attachment::Bytes(value.clone())];
                let started = Instant::now();
                sender.send(Frame { head: Bytes::new(), attachments }).unwrap();
                receiver.recv().await.unwrap().unwrap();
                let took = started.elapsed();
                let rate = nbytes as f64 / took.as_secs_f64() / 1e9;
                println!("128 MiB over TCP, arena {has_arena}: {took:?}, {rate:.2} GB/s");
            }
        });
        server.join().unwrap();
    }
}
