//! What spill files promise: the bytes come back as they were, or an error says that they do not.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::{env, fs, process};

use rasker_store::spill::SpillFolder;
use rasker_store::{Arena, ArenaOptions, StoreError};

/// A folder for one test, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("rasker-spill-test-{}-{name}", process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn entries(path: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

/// The one entry of a folder.
fn only_entry(path: &Path) -> PathBuf {
    let found = entries(path);
    assert_eq!(found.len(), 1, "{found:?}");
    found.into_iter().next().unwrap()
}

fn content(nbytes: usize, seed: u8) -> Vec<u8> {
    (0..nbytes).map(|i| (i as u32).wrapping_mul(2_654_435_761).to_le_bytes()[3] ^ seed).collect()
}

#[test]
fn a_spilled_value_comes_back_as_it_was() {
    let scratch = Scratch::new("round-trip");
    let folder = SpillFolder::new(&scratch.0).unwrap();
    let arena = Arena::new(ArenaOptions::default());
    for nbytes in [0, 1, 4096, 1_000_003, 9 << 20, (9 << 20) + 5] {
        let whole = content(nbytes, 1);
        let (head, tail) = whole.split_at(nbytes / 3);
        let value = folder.write(7, &[head, &[], tail]).unwrap();
        assert_eq!(value.len(), nbytes as u64);
        assert_eq!(value.checksum(), rasker_store::checksum(&whole));
        assert!(value.read().unwrap() == whole);
        let mut slab = arena.allocate(nbytes).unwrap();
        value.read_into(&mut slab).unwrap();
        assert!(slab[..] == whole[..]);
        // From memory at a page, as segments are, and back into memory that is not.
        let value = folder.write(8, &[&slab]).unwrap();
        assert!(value.read().unwrap() == whole);
    }
}

#[test]
fn spill_files_are_private_and_removed_with_their_values() {
    let scratch = Scratch::new("private");
    let folder = SpillFolder::new(&scratch.0).unwrap();
    let path = only_entry(&scratch.0);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o700);
    let value = folder.write(1, &[b"secret"]).unwrap();
    let file = only_entry(&path);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
    let other = folder.write(1, &[b"other"]).unwrap();
    drop(value);
    assert_eq!(entries(&path).len(), 1);
    assert!(!file.exists());
    drop(folder);
    assert_eq!(other.read().unwrap(), b"other", "a value keeps its folder");
    drop(other);
    assert!(!path.exists());
}

#[test]
fn two_hundred_kinds_of_damage_are_all_detected() {
    let scratch = Scratch::new("damage");
    let folder = SpillFolder::new(&scratch.0).unwrap();
    let path = only_entry(&scratch.0);
    let nbytes = 20_000;
    let value = folder.write(42, &[&content(nbytes, 5)]).unwrap();
    let file = only_entry(&path);
    let whole = fs::read(&file).unwrap();
    let same_key = folder.write(42, &[&content(nbytes, 5)]).unwrap();
    let other_key = folder.write(43, &[&content(nbytes, 6)]).unwrap();
    let others: Vec<_> = entries(&path).into_iter().filter(|p| *p != file).collect();
    let mut damaged: Vec<Vec<u8>> = Vec::new();
    for i in 0..100 {
        // Flipped bits: each of the first 64 falls into another byte of the header.
        let at = if i < 64 { i } else { 64 + (i - 64) * 660 };
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (i % 8);
        damaged.push(bytes);
    }
    for i in 0..50 {
        damaged.push(whole[..i * whole.len() / 50].to_vec());
    }
    for i in 0..20 {
        let mut bytes = whole.clone();
        // The header, then places of the content: what lies between is zero anyway.
        let start = if i == 0 { 0 } else { 4096 + i * 900 };
        bytes[start..start + 64.max(i * 40)].fill(0);
        damaged.push(bytes);
    }
    for i in 0..15 {
        let mut bytes = whole.clone();
        bytes.extend(std::iter::repeat_n(0, 1 + i));
        damaged.push(bytes);
    }
    for i in 0..13 {
        let mut bytes = whole.clone();
        bytes.swap(4196 + i, 10_002 + 2 * i);
        assert_ne!(bytes, whole);
        damaged.push(bytes);
    }
    damaged.extend(others.iter().map(|other| fs::read(other).unwrap()));
    assert_eq!(damaged.len(), 200);
    for (i, bytes) in damaged.iter().enumerate() {
        fs::write(&file, bytes).unwrap();
        let result = value.read().map(|_| "taken for whole");
        assert!(
            matches!(result, Err(StoreError::Damaged { key_hash: 42, .. })),
            "damage {i}: {result:?}"
        );
    }
    fs::write(&file, &whole).unwrap();
    assert_eq!(value.read().unwrap(), content(nbytes, 5));
    assert_eq!(same_key.read().unwrap(), content(nbytes, 5));
    assert_eq!(other_key.read().unwrap(), content(nbytes, 6));
}

#[test]
fn a_missing_file_or_a_link_is_damage() {
    let scratch = Scratch::new("link");
    let folder = SpillFolder::new(&scratch.0).unwrap();
    let value = folder.write(1, &[b"abc"]).unwrap();
    let file = only_entry(&only_entry(&scratch.0));
    let moved = scratch.0.join("moved");
    fs::rename(&file, &moved).unwrap();
    assert!(matches!(value.read(), Err(StoreError::Damaged { .. })));
    std::os::unix::fs::symlink(&moved, &file).unwrap();
    assert!(matches!(value.read(), Err(StoreError::Damaged { .. })));
}

#[test]
fn folders_of_the_dead_are_removed_and_those_of_the_living_are_not() {
    let scratch = Scratch::new("leftovers");
    let folder = SpillFolder::new(&scratch.0).unwrap();
    let value = folder.write(1, &[b"abc"]).unwrap();
    let left = scratch.0.join("rasker-spill-0123");
    fs::create_dir(&left).unwrap();
    fs::write(left.join("file"), b"left by one that was killed").unwrap();
    let foreign = scratch.0.join("somebody-else");
    fs::create_dir(&foreign).unwrap();
    assert_eq!(SpillFolder::remove_leftovers(&scratch.0).unwrap(), 1);
    assert!(!left.exists());
    assert!(foreign.exists());
    assert_eq!(value.read().unwrap(), b"abc");
    assert_eq!(SpillFolder::remove_leftovers(&scratch.0.join("missing")).unwrap(), 0);
}
