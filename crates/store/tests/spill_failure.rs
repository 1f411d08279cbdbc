//! A disk that takes no more: a program of its own, because its limit holds for the whole process.

use std::{env, fs, process};

use rasker_store::StoreError;
use rasker_store::spill::SpillFolder;
use rustix::process::{Resource, Rlimit};

#[test]
fn a_failed_write_leaves_nothing_behind() {
    let parent = env::temp_dir().join(format!("rasker-spill-failure-{}", process::id()));
    let folder = SpillFolder::new(&parent).unwrap();
    let path = fs::read_dir(&parent).unwrap().next().unwrap().unwrap().path();
    // SAFETY: ignoring a signal runs no code of ours.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    let before = rustix::process::getrlimit(Resource::Fsize);
    let limit = Rlimit { current: Some(1 << 20), maximum: before.maximum };
    rustix::process::setrlimit(Resource::Fsize, limit).unwrap();
    let result = folder.write(1, &[&vec![7; 2 << 20]]);
    assert!(matches!(result.err(), Some(StoreError::System { .. })));
    assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    assert!(folder.write(1, &[b"small"]).is_ok());
    drop(folder);
    fs::remove_dir(&parent).unwrap();
}
