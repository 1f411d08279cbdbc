//! Segments over Unix sockets: places instead of bytes, and leases that come back.

use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rasker_store::{Arena, ArenaOptions, Segment};
use rasker_transport::{Attachment, BlockingConnection, Connection, Frame, LinkOptions};

fn run<T>(future: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().unwrap();
    let patience = Duration::from_secs(20);
    runtime.block_on(async { tokio::time::timeout(patience, future).await.expect("it hangs") })
}

fn arena() -> Arena {
    Arena::new(ArenaOptions::default())
}

fn segment(arena: &Arena, nbytes: usize, mark: u8) -> Segment {
    let mut slab = arena.allocate(nbytes).unwrap();
    slab.fill(mark);
    slab.seal()
}

fn with(segment: Segment) -> Frame {
    Frame { head: Bytes::from_static(b"value"), attachments: vec![Attachment::Segment(segment)] }
}

fn only_segment(frame: Frame) -> Segment {
    match frame.attachments.into_iter().next() {
        Some(Attachment::Segment(segment)) => segment,
        other => panic!("{other:?} instead of a segment"),
    }
}

/// Which file and place a mapped address belongs to: two maps of the same memory give the same
/// answer.
fn physical_place(segment: &Segment) -> (String, u64) {
    let address = segment.as_slice().as_ptr() as u64;
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    for line in maps.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (start, end) = fields[0].split_once('-').unwrap();
        let start = u64::from_str_radix(start, 16).unwrap();
        let end = u64::from_str_radix(end, 16).unwrap();
        if (start..end).contains(&address) {
            let offset = u64::from_str_radix(fields[2], 16).unwrap();
            return (fields[4].to_string(), offset + address - start);
        }
    }
    panic!("the address is not mapped");
}

fn wait_until(mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(10), "it never happened");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Lets the tasks of the loop run until something has happened.
async fn happens(mut condition: impl FnMut() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn async_pair() -> (Connection, Connection) {
    let (here, there) = UnixStream::pair().unwrap();
    let open = |stream| Connection::from_unix(stream, LinkOptions::default()).unwrap();
    (open(here), open(there))
}

fn blocking_pair() -> (BlockingConnection, BlockingConnection) {
    let (here, there) = UnixStream::pair().unwrap();
    let open = |stream| BlockingConnection::from_unix(stream, LinkOptions::default()).unwrap();
    (open(here), open(there))
}

#[test]
fn a_segment_crosses_a_socket_as_a_place() {
    run(async {
        let arena = arena();
        let (here, there) = async_pair();
        let (sender, _back) = here.split();
        let (_echo, mut receiver) = there.split();
        let sent = segment(&arena, 10 << 20, 5);
        for _ in 0..3 {
            sender.send(with(sent.clone())).unwrap();
            let found = only_segment(receiver.recv().await.unwrap().unwrap());
            assert_eq!(physical_place(&found), physical_place(&sent));
            assert_ne!(found.as_slice().as_ptr(), sent.as_slice().as_ptr());
            assert!(found.iter().all(|&byte| byte == 5));
        }
        assert!(sender.nbytes_sent() < 1000, "{} bytes for a place", sender.nbytes_sent());
    });
}

#[test]
fn a_lease_comes_back_when_the_last_reader_is_gone() {
    run(async {
        let arena = arena();
        let (here, there) = async_pair();
        let (sender, mut back) = here.split();
        let (_echo, mut receiver) = there.split();
        let reading = tokio::spawn(async move { back.recv().await.map(|frame| frame.is_some()) });
        sender.send(with(segment(&arena, 100_000, 1))).unwrap();
        let found = only_segment(receiver.recv().await.unwrap().unwrap());
        let map = found.map_private().unwrap();
        drop(found);
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert_eq!(sender.n_leases(), 1);
        assert!(arena.nbytes_in_use() > 0);
        assert!(map.as_slice().iter().all(|&byte| byte == 1));
        drop(map);
        happens(|| sender.n_leases() == 0).await;
        assert_eq!(arena.nbytes_in_use(), 0);
        drop((_echo, receiver));
        assert!(!reading.await.unwrap().unwrap());
    });
}

#[test]
fn a_lease_outlives_the_connection_handles() {
    run(async {
        let arena = arena();
        let (here, there) = async_pair();
        let (sender, back) = here.split();
        let (echo, mut receiver) = there.split();
        sender.send(with(segment(&arena, 5000, 1))).unwrap();
        let found = only_segment(receiver.recv().await.unwrap().unwrap());
        drop((sender, back, echo, receiver));
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert!(arena.nbytes_in_use() > 0, "the reader is still there");
        assert!(found.iter().all(|&byte| byte == 1));
        drop(found);
        happens(|| arena.nbytes_in_use() == 0).await;
    });
}

#[test]
fn leases_end_with_the_process_that_held_them() {
    run(async {
        let arena = arena();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let connection = Connection::from_unix(ours, LinkOptions::default()).unwrap();
        let (sender, mut back) = connection.split();
        sender.send(with(segment(&arena, 5000, 1))).unwrap();
        happens(|| sender.queued_nbytes() == 0).await;
        assert!(arena.nbytes_in_use() > 0);
        // What the kernel does to the sockets of a killed process.
        drop(theirs);
        let _ = back.recv().await;
        assert_eq!(arena.nbytes_in_use(), 0);
        assert!(sender.send(Frame::new("x")).is_err());
    });
}

#[test]
fn a_segment_can_be_passed_on() {
    run(async {
        let arena = arena();
        let ((a, b1), (b2, c)) = (async_pair(), async_pair());
        let ((a_sender, mut a_back), (_b1_sender, mut b_receiver)) = (a.split(), b1.split());
        let ((b_sender, mut b_back), (_c_sender, mut c_receiver)) = (b2.split(), c.split());
        tokio::spawn(async move { a_back.recv().await.map(|_| ()) });
        tokio::spawn(async move { b_back.recv().await.map(|_| ()) });
        let sent = segment(&arena, 5000, 3);
        let place = physical_place(&sent);
        a_sender.send(with(sent)).unwrap();
        b_sender.send(b_receiver.recv().await.unwrap().unwrap()).unwrap();
        let found = only_segment(c_receiver.recv().await.unwrap().unwrap());
        assert_eq!(physical_place(&found), place);
        assert!(arena.nbytes_in_use() > 0);
        drop(found);
        happens(|| arena.nbytes_in_use() == 0).await;
    });
}

#[test]
fn memory_of_a_returned_region_leaves_the_guest_too() {
    run(async {
        let arena = Arena::new(ArenaOptions { warm_nbytes: 0, ..ArenaOptions::default() });
        let (here, there) = async_pair();
        let ((sender, mut back), (_echo, mut receiver)) = (here.split(), there.split());
        tokio::spawn(async move { back.recv().await.map(|_| ()) });
        let n_maps = || {
            let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
            maps.lines().filter(|line| line.contains("memfd:rasker-arena")).count()
        };
        let sent = segment(&arena, 100 << 20, 3);
        let place = physical_place(&sent).0;
        let mapped = |inode: &str| {
            let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
            maps.lines().filter(|line| line.split_whitespace().nth(4) == Some(inode)).count()
        };
        sender.send(with(sent)).unwrap();
        let found = only_segment(receiver.recv().await.unwrap().unwrap());
        assert_eq!(mapped(&place), 2);
        assert!(n_maps() >= 2);
        drop(found);
        // The guest hears of it while it waits for its next frame.
        let waiting = tokio::spawn(async move { receiver.recv().await.map(|_| ()) });
        happens(|| mapped(&place) == 0).await;
        waiting.abort();
    });
}

#[test]
fn a_blocking_end_and_a_loop_exchange_segments_both_ways() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let executor = thread::spawn(move || {
        let arena = arena();
        let connection = BlockingConnection::from_unix(theirs, LinkOptions::default()).unwrap();
        let (sender, mut receiver) = connection.split();
        let mut n = 0;
        while let Some(frame) = receiver.recv().unwrap() {
            let found = only_segment(frame);
            let mark = found[0];
            assert!(found.iter().all(|&byte| byte == mark));
            sender.send([with(segment(&arena, 70_000, mark + 1)), Frame::new("done")]).unwrap();
            n += 1;
        }
        drop(sender);
        drop(receiver);
        wait_until(|| arena.nbytes_in_use() == 0);
        n
    });
    run(async {
        let arena = arena();
        let connection = Connection::from_unix(ours, LinkOptions::default()).unwrap();
        let (sender, mut receiver) = connection.split();
        for round in 0..200u8 {
            sender.send(with(segment(&arena, 50_000, round))).unwrap();
            let answer = only_segment(receiver.recv().await.unwrap().unwrap());
            assert!(answer.iter().all(|&byte| byte == round + 1));
            assert_eq!(&receiver.recv().await.unwrap().unwrap().head[..], b"done");
        }
        drop(sender);
        assert!(receiver.recv().await.unwrap().is_none());
        drop(receiver);
        happens(|| arena.nbytes_in_use() == 0).await;
        // The other end needs this loop to return what it was lent.
        tokio::task::spawn_blocking(move || assert_eq!(executor.join().unwrap(), 200))
            .await
            .unwrap();
    });
}

#[test]
fn many_threads_send_over_one_blocking_connection() {
    let (here, there) = blocking_pair();
    let ((sender, here_receiver), (echo, mut receiver)) = (here.split(), there.split());
    let arena = arena();
    let threads: Vec<_> = (0..4u8)
        .map(|mark| {
            let (sender, arena) = (sender.clone(), arena.clone());
            thread::spawn(move || {
                for i in 0..500u32 {
                    let head = [&[mark][..], &i.to_le_bytes()].concat();
                    let mut frame = with(segment(&arena, 100, mark));
                    frame.head = head.into();
                    frame.attachments.push(Attachment::Bytes(vec![mark; 6000].into()));
                    sender.send([frame]).unwrap();
                }
            })
        })
        .collect();
    drop(sender);
    // Leases come back while this end only sends.
    let reading = thread::spawn(move || {
        let mut here_receiver = here_receiver;
        while here_receiver.recv().unwrap().is_some() {}
    });
    let mut next = [0u32; 4];
    while let Some(frame) = receiver.recv().unwrap() {
        let mark = frame.head[0];
        assert_eq!(frame.head[1..], next[mark as usize].to_le_bytes());
        next[mark as usize] += 1;
        assert!(frame.attachments.iter().all(|a| a.as_slice().iter().all(|&byte| byte == mark)));
    }
    assert_eq!(next, [500; 4]);
    drop((echo, receiver));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    reading.join().unwrap();
    wait_until(|| arena.nbytes_in_use() == 0);
}

#[test]
fn leases_that_did_not_fit_into_the_socket_are_returned_later() {
    let (here, there) = blocking_pair();
    let ((sender, mut back), (_echo, mut receiver)) = (here.split(), there.split());
    let arena = arena();
    let n = 5000;
    let sending = sender.clone();
    let to_send = arena.clone();
    let sending = thread::spawn(move || {
        (0..n).for_each(|_| sending.send([with(segment(&to_send, 64, 1))]).unwrap());
    });
    let held: Vec<Frame> = (0..n).map(|_| receiver.recv().unwrap().unwrap()).collect();
    sending.join().unwrap();
    // Each comes back in a message of its own, and nobody reads: the socket is soon full.
    held.into_iter().for_each(drop);
    let waiting = thread::spawn(move || receiver.recv().map(|_| ()));
    let reading = thread::spawn(move || back.recv().map(|_| ()));
    wait_until(|| sender.n_leases() == 0);
    drop(sender);
    waiting.join().unwrap().unwrap();
    drop(_echo);
    reading.join().unwrap().unwrap();
}

#[test]
fn a_lease_is_returned_from_any_thread_while_the_receiver_waits() {
    let (here, there) = blocking_pair();
    let ((sender, mut back), (_echo, mut receiver)) = (here.split(), there.split());
    let arena = arena();
    sender.send([with(segment(&arena, 100, 1)), with(segment(&arena, 100, 2))]).unwrap();
    let (give, take) = mpsc::channel();
    let waiting = thread::spawn(move || {
        for _ in 0..2 {
            give.send(receiver.recv().unwrap().unwrap()).unwrap();
        }
        receiver.recv().unwrap().is_none()
    });
    thread::spawn(move || back.recv().map(|_| ()));
    let found: Vec<Frame> = take.iter().take(2).collect();
    assert_eq!(sender.n_leases(), 2);
    drop(found);
    wait_until(|| sender.n_leases() == 0);
    drop(sender);
    assert!(waiting.join().unwrap());
}

#[test]
fn two_blocking_ends_that_flood_each_other_do_not_lock_up() {
    let (here, there) = blocking_pair();
    let flood = |connection: BlockingConnection| {
        let (sender, mut receiver) = connection.split();
        let sending = thread::spawn(move || {
            for i in 0..300usize {
                let head = Bytes::from(vec![i as u8; 50_000]);
                sender.send([Frame::new(head)]).unwrap();
            }
        });
        let mut n = 0;
        while let Some(frame) = receiver.recv().unwrap() {
            assert_eq!(frame.head.len(), 50_000);
            n += 1;
        }
        sending.join().unwrap();
        n
    };
    let other = thread::spawn(move || flood(there));
    assert_eq!(flood(here), 300);
    assert_eq!(other.join().unwrap(), 300);
}
