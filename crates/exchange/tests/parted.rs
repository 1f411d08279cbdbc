//! Parted values: written, cut and damaged.

use rasker_exchange::{ALIGNMENT, Index, Layout, PartedError, PartedWriter, cut, parts_of};
use rasker_graph::{Blob, PartRange};
use rasker_protocol::{Value, Written};
use rasker_store::{Arena, ArenaOptions, Segment};
use std::io::Write;
use std::sync::Arc;

/// Part `i` of writer `w` has these bytes.
fn content(writer: usize, part: usize) -> Vec<u8> {
    let n = [0, 1, 63, 64, 65, 5000, 100_000][(writer + part) % 7];
    (0..n).map(|i| (i + 7 * writer + 31 * part) as u8).collect()
}

fn parted(writer: usize, n_parts: u32) -> Vec<u8> {
    let contents: Vec<Vec<u8>> = (0..n_parts as usize).map(|p| content(writer, p)).collect();
    let total = contents.iter().map(Vec::len).sum();
    let room = PartedWriter::<Vec<u8>>::nbytes_max(n_parts, total);
    let mut parts = PartedWriter::new(vec![0xaa; room], n_parts).expect("there is room");
    for content in &contents {
        // In two steps, as a writer of records would.
        let (a, b) = content.split_at(content.len() / 2);
        parts.write_all(a).expect("there is room");
        parts.write_all(b).expect("there is room");
        parts.end_part();
    }
    let (mut value, nbytes) = parts.finish();
    value.truncate(nbytes);
    let layout = Layout::of(contents.iter().map(|content| content.len() as u64));
    let mut same = vec![0xaa; layout.nbytes()];
    layout.write_index(&mut same);
    for (part, content) in (0..).zip(&contents) {
        same[layout.range(part)].copy_from_slice(content);
        assert_eq!(layout.range(part).start as u64 % ALIGNMENT, 0);
    }
    let (a, b) = (Index::open(&value).expect("an index"), Index::open(&same).expect("an index"));
    for part in 0..n_parts {
        assert_eq!(a.range(part), b.range(part), "both ways lay parts out alike");
    }
    value
}

fn encoded(bytes: Vec<u8>) -> Value {
    let nbytes = bytes.len() as u64;
    Value::Encoded { blob: bytes.into(), nbytes }
}

fn sealed(arena: &Arena, bytes: &[u8]) -> (Segment, Value) {
    let mut slab = arena.allocate(bytes.len()).expect("memory");
    slab.copy_from_slice(bytes);
    let segment = slab.seal();
    let blob = Blob::Local(Arc::new(segment.clone()));
    (segment, Value::Encoded { blob, nbytes: bytes.len() as u64 })
}

#[test]
fn parts_come_back_as_they_were_written() {
    let arena = Arena::new(ArenaOptions::default());
    for n_parts in [1, 2, 7, 40] {
        let values: Vec<Value> = (0..5)
            .map(|writer| match writer % 2 {
                0 => encoded(parted(writer, n_parts)),
                _ => sealed(&arena, &parted(writer, n_parts)).1,
            })
            .collect();
        for start in 0..n_parts {
            for end in start + 1..=n_parts.min(start + 3) {
                let parts = PartRange { start, end };
                // Some are cut by their holders, some by the reader.
                let written: Vec<Written> = (values.iter().enumerate())
                    .map(|(i, value)| match i % 3 {
                        0 => Written::Piece(cut(value, parts).expect("the parts are there")),
                        _ => Written::Whole(value.clone()),
                    })
                    .collect();
                let read = parts_of(&written, parts).expect("the parts are there");
                let mut expected = Vec::new();
                for part in start..end {
                    for writer in 0..5 {
                        let content = content(writer as usize, part as usize);
                        if !content.is_empty() {
                            expected.push((part, writer, content));
                        }
                    }
                }
                let found = read.parts.iter().map(|p| (p.part, p.writer, p.data.to_vec()));
                assert_eq!(found.collect::<Vec<_>>(), expected);
                assert_eq!(read.n_writers, 5);
            }
        }
    }
}

#[test]
fn damage_to_an_index_is_refused() {
    let value = parted(3, 6);
    assert_eq!(Index::open(&[]).err(), Some(PartedError::NotParted));
    assert_eq!(Index::open(&value[..10]).err(), Some(PartedError::NotParted));
    for byte in 0..16 + 8 * 6 + 8 {
        for bit in 0..8 {
            let mut damaged = value.clone();
            damaged[byte] ^= 1 << bit;
            assert!(Index::open(&damaged).is_err(), "bit {bit} of byte {byte}");
        }
    }
    for n in [16, 64, 127, 128, value.len() - 1] {
        assert!(Index::open(&value[..n]).is_err(), "cut off after {n} bytes");
    }
    let value = encoded(value);
    let beyond = PartRange { start: 5, end: 7 };
    assert_eq!(cut(&value, beyond).err(), Some(PartedError::NoPart { part: 6, n_parts: 6 }));
    let other = Written::Piece(cut(&value, PartRange::one(2)).expect("a part"));
    assert!(parts_of(&[other], PartRange { start: 2, end: 4 }).is_err());
}

#[test]
fn a_large_part_is_not_copied() {
    let arena = Arena::new(ArenaOptions::default());
    let (segment, value) = sealed(&arena, &parted(0, 7));
    let piece = cut(&value, PartRange::one(6)).expect("a part");
    let cut_out = piece.data.local::<Segment>().expect("a place in the same memory");
    assert_eq!(cut_out.as_slice(), content(0, 6));
    assert!(segment.as_ptr_range().contains(&cut_out.as_ptr()));
    // It keeps the memory, and its own checksum.
    assert_eq!(cut_out.checksum(), rasker_store::checksum(&content(0, 6)));
    let in_use = arena.nbytes_in_use();
    drop((segment, value, piece));
    assert_eq!(arena.nbytes_in_use(), in_use);
    drop(cut_out);
    assert_eq!(arena.nbytes_in_use(), 0);
    let small = cut(&encoded(parted(0, 7)), PartRange::one(1)).expect("a part");
    assert!(matches!(small.data, Blob::Bytes(_)));
}
