//! Targets of fuzzing: each takes any bytes, and panics if something is wrong.
//!
//! The bytes are read as a list of decisions (`feed`), so that every input means something. The
//! same targets serve coverage-guided fuzzing (`fuzz/` beside the crates), the replay of its
//! corpus, and random inputs in the tests.

mod feed;
mod machines;
mod messages;

pub use machines::{client, scheduler, worker};

use feed::Feed;
use rasker_protocol::{
    FromClient, FromExecutor, FromHolder, FromWorker, Hello, ToClient, ToExecutor, ToHolder,
    ToWorker, Welcome, decode, encode,
};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;

/// A target by its name; the folders of the corpus have the same names.
pub const TARGETS: &[(&str, fn(&[u8]))] = &[
    ("decode", decode_anything),
    ("mutate", mutate_messages),
    ("scheduler", scheduler),
    ("worker", worker),
    ("client", client),
];

/// What can be read must be written and read again to the same.
fn again<M: Serialize + DeserializeOwned + Debug>(head: &[u8], attachments: Vec<bytes::Bytes>) {
    let attachments = attachments.into_iter().map(rasker_graph::Blob::Bytes).collect();
    let Ok(message) = decode::<M>(head, attachments) else { return };
    let same = written_and_read(&message);
    // Twice, as what is written leaves out bytes that belong to no value. Not `==`: a float may be
    // no number.
    assert_eq!(format!("{:?}", written_and_read(&same)), format!("{same:?}"));
}

fn written_and_read<M: Serialize + DeserializeOwned>(message: &M) -> M {
    let (head, attachments) = encode(message).expect("what was read can be written");
    decode(&head, attachments).expect("what was written can be read")
}

const KINDS: [fn(&[u8], Vec<bytes::Bytes>); 10] = [
    again::<FromClient>,
    again::<ToClient>,
    again::<FromWorker>,
    again::<ToWorker>,
    again::<FromExecutor>,
    again::<ToExecutor>,
    again::<FromHolder>,
    again::<ToHolder>,
    again::<Hello>,
    again::<Welcome>,
];

/// Any bytes as a message of any kind.
pub fn decode_anything(bytes: &[u8]) {
    let Some((kind, head)) = bytes.split_first() else { return };
    let attachment = bytes::Bytes::copy_from_slice(&head[..head.len().min(4)]);
    KINDS[usize::from(*kind) % KINDS.len()](head, vec![attachment]);
}

/// A message of any kind, whole and with some bytes changed.
pub fn mutate_messages(bytes: &[u8]) {
    let mut feed = Feed::new(bytes);
    let kind = feed.below(8) as usize;
    let encoded = match kind {
        0 => encode(&messages::from_client(&mut feed)),
        1 => encode(&messages::to_client(&mut feed)),
        2 => encode(&messages::from_worker(&mut feed)),
        3 => encode(&messages::to_worker(&mut feed)),
        4 => encode(&messages::from_executor(&mut feed)),
        5 => encode(&messages::to_executor(&mut feed)),
        6 => encode(&messages::from_holder(&mut feed)),
        _ => encode(&messages::to_holder(&mut feed)),
    };
    // Columns with offsets outside their bytes are not written.
    let Ok((head, attachments)) = encoded else { return };
    let attachments: Vec<bytes::Bytes> = attachments
        .into_iter()
        .filter_map(|blob| match blob {
            rasker_graph::Blob::Bytes(bytes) => Some(bytes),
            rasker_graph::Blob::Local(_) => None,
        })
        .collect();
    KINDS[kind](&head, attachments.clone());
    let mut head = head.to_vec();
    for _ in 0..1 + feed.below(4) {
        if head.is_empty() {
            break;
        }
        let at = feed.below(head.len() as u64) as usize;
        match feed.below(4) {
            0 => head[at] ^= 1 << feed.below(8),
            1 => head[at] = feed.byte(),
            2 => head.truncate(at),
            // A length that only claims to be long.
            _ => head.splice(at..=at, [0xFF, 0xFF, 0xFF, 0xFF, 0x07]).for_each(drop),
        }
    }
    KINDS[kind](&head, attachments);
}
