//! Memory that is written to while others may read it.

use rasker_store::{Arena, ArenaOptions};

#[test]
fn a_shared_slab_is_used_again_only_when_its_readers_are_done() {
    let arena = Arena::new(ArenaOptions::default());
    let slab = arena.allocate(1 << 20).unwrap().share();
    // SAFETY: the slab is `1 << 20` bytes long and nobody reads it yet.
    unsafe { slab.as_mut_ptr().write_bytes(7, slab.len()) };
    let segment = slab.segment();
    drop(slab);
    let other = arena.allocate(1 << 20).unwrap();
    assert!(segment.iter().all(|byte| *byte == 7));
    assert_ne!(other.as_ptr(), segment.as_ptr());
    drop(segment);
    assert_eq!(arena.nbytes_in_use(), 1 << 20);
}

#[test]
fn a_fork_copies_memory_that_is_shared() {
    let arena = Arena::new(ArenaOptions::default());
    arena.survive_forks();
    let slab = arena.allocate(4096).unwrap().share();
    let byte = slab.as_mut_ptr();
    let mut pipe = [0; 2];
    // SAFETY: the pipe's array has two places. The child uses memory and system calls only, and
    // ends without returning; the byte lies in the slab, which is held to the end.
    let (child, seen) = unsafe {
        assert_eq!(libc::pipe(pipe.as_mut_ptr()), 0);
        byte.write(1);
        let child = libc::fork();
        if child == 0 {
            // Wait for the parent's change, see nothing of it, and make one of our own.
            let mut go = 0u8;
            libc::read(pipe[0], (&raw mut go).cast(), 1);
            let seen = byte.read_volatile();
            byte.write_volatile(9);
            libc::_exit(i32::from(seen));
        }
        byte.write_volatile(2);
        libc::write(pipe[1], byte.cast(), 1);
        let mut status = 0;
        libc::waitpid(child, &raw mut status, 0);
        (child, libc::WEXITSTATUS(status))
    };
    assert!(child > 0);
    assert_eq!(seen, 1, "the child saw what its parent wrote after the fork");
    // SAFETY: as above.
    assert_eq!(unsafe { byte.read_volatile() }, 2, "the parent sees what its child wrote");
    assert!(!rasker_store::is_forked_child());
}
