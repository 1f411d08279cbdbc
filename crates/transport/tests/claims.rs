//! Lengths that a peer only claims. A program of its own, because it looks at the memory of the
//! whole process.

use std::time::Duration;

use rasker_transport::{Connection, Limits, LinkOptions, TransportError};

#[test]
fn a_huge_length_is_refused_or_allocates_nothing() {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().unwrap();
    runtime.block_on(async {
        let limits =
            Limits { head_nbytes: 1 << 30, attachment_nbytes: 1 << 45, n_attachments: 1 << 30 };
        let resident = || {
            let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
            statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
        };
        let fixed = |head: u32, n: u32| {
            let mut bytes = vec![0xA7, 1, 0, 0];
            bytes.extend(head.to_le_bytes());
            bytes.extend(n.to_le_bytes());
            bytes
        };
        let mut entry = vec![0];
        entry.extend((1u64 << 44).to_le_bytes());
        entry.extend([0; 16]);
        let claims = [
            fixed(1 << 29, 0),
            fixed(0, 1 << 29),
            [fixed(0, 1), entry.clone(), vec![5; 1000]].concat(),
        ];
        for (i, claim) in claims.iter().enumerate() {
            for is_limited in [true, false] {
                let limits = if is_limited { Limits::default() } else { limits };
                let (raw, ours) = std::os::unix::net::UnixStream::pair().unwrap();
                let options = LinkOptions { limits, ..LinkOptions::default() };
                let (_sender, mut receiver) = Connection::from_unix(ours, options).unwrap().split();
                let before = resident();
                std::io::Write::write_all(&mut &raw, claim).unwrap();
                let soon = Duration::from_millis(100);
                let result = tokio::time::timeout(soon, receiver.recv()).await;
                let is_refused = matches!(result, Ok(Err(TransportError::Limit { .. })));
                assert_eq!(is_refused, is_limited, "claim {i}: {result:?}");
                assert!(
                    resident() < before + (8 << 20),
                    "claim {i} made {} bytes",
                    resident() - before
                );
                drop(raw);
                if !is_limited {
                    let result = receiver.recv().await;
                    assert!(matches!(result, Err(TransportError::Truncated { .. })), "{result:?}");
                }
            }
        }
    });
}
