//! What a fork does to memory that is shared by nature: the child gets a copy of its own.
//!
//! A forked process expects its memory to be as it was, and to be its own. Shared mappings break
//! both promises, in both directions. So the child copies every region and puts the copy in its
//! place, and the parent waits for that.

use crate::arena::{Arena, Shared};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Once};

static ARENAS: Mutex<Vec<Arc<Shared>>> = Mutex::new(Vec::new());
static IS_CHILD: AtomicBool = AtomicBool::new(false);
/// The pipe whose end of file tells the parent that the child has its copies.
static PIPE: [AtomicI32; 2] = [AtomicI32::new(-1), AtomicI32::new(-1)];

impl Arena {
    /// From here on forked processes get copies of this arena's memory. Meant for memory that user
    /// code works in; an arena of sealed values does not need it.
    pub fn survive_forks(&self) {
        static ONCE: Once = Once::new();
        ARENAS.lock().push(self.shared().clone());
        ONCE.call_once(|| {
            // SAFETY: the three functions take no argument and are there for as long as the
            // process; in the child they use memory that is mapped, system calls and locks that
            // `prepare` holds, nothing that allocates.
            unsafe { libc::pthread_atfork(Some(prepare), Some(in_parent), Some(in_child)) };
        });
    }
}

/// Whether this process was forked off one that has such memory: values made here cannot be lent
/// out.
pub fn is_forked_child() -> bool {
    IS_CHILD.load(Ordering::Relaxed)
}

/// Holds all locks over the fork, so that the child finds everything whole.
extern "C" fn prepare() {
    let arenas = ARENAS.lock();
    for arena in arenas.iter() {
        arena.lock_over_fork();
    }
    std::mem::forget(arenas);
    let mut ends = [-1; 2];
    // SAFETY: two descriptors are written to an array of two.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } == 0 {
        PIPE[0].store(ends[0], Ordering::Relaxed);
        PIPE[1].store(ends[1], Ordering::Relaxed);
    }
}

/// Opens a lock that was taken before a fork and whose guard was forgotten.
///
/// # Safety
///
/// This thread has taken it; with `in_child`, it is the only thread of the process.
pub(crate) unsafe fn unlock<T>(mutex: &Mutex<T>, in_child: bool) {
    use parking_lot::lock_api::RawMutex as _;
    if in_child {
        // Those who waited for it were threads of the parent: nobody is to be woken.
        // SAFETY: no other thread can look at the lock while it is made new.
        unsafe {
            let raw = std::ptr::from_ref(mutex.raw()).cast_mut();
            raw.write(parking_lot::RawMutex::INIT);
        }
    } else {
        // SAFETY: the caller's word.
        unsafe { mutex.force_unlock() };
    }
}

fn release(in_child: bool) {
    // SAFETY: `prepare` took these locks on this thread and forgot the guards.
    unsafe {
        for arena in (*ARENAS.data_ptr()).iter() {
            arena.unlock_after_fork(in_child);
        }
        unlock(&ARENAS, in_child);
    }
}

fn close(end: usize) {
    let fd = PIPE[end].swap(-1, Ordering::Relaxed);
    if fd >= 0 {
        // SAFETY: `prepare` made this descriptor and nothing else knows it.
        unsafe { libc::close(fd) };
    }
}

extern "C" fn in_parent() {
    close(1);
    let read = PIPE[0].load(Ordering::Relaxed);
    let mut byte = 0u8;
    loop {
        // SAFETY: one byte of this frame is written to.
        let n = unsafe { libc::read(read, (&raw mut byte).cast(), 1) };
        let is_interrupted = std::io::Error::last_os_error().raw_os_error() == Some(libc::EINTR);
        if n >= 0 || !is_interrupted {
            break;
        }
    }
    close(0);
    release(false);
}

extern "C" fn in_child() {
    IS_CHILD.store(true, Ordering::Relaxed);
    // SAFETY: this thread holds the lock since `prepare`, and it is the only thread.
    for arena in unsafe { (*ARENAS.data_ptr()).iter() } {
        // SAFETY: as above.
        let copied = unsafe { arena.copy_regions() };
        if !copied {
            // Going on would change the parent's values.
            let text = b"rasker: too little memory for a forked process\n";
            // SAFETY: the text is there; the process ends without running anything else.
            unsafe {
                libc::write(2, text.as_ptr().cast(), text.len());
                libc::_exit(1);
            }
        }
    }
    release(true);
    close(0);
    close(1);
}
