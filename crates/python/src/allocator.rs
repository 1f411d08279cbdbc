//! The allocator of everything native: threads of the engine free much on each other's behalf.

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// `mi_option_purge_delay`, which the bindings do not name.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Memory that is free goes back to the system after so long, not after ten milliseconds: taking
/// it again costs page faults, a fifth of the time of TPC-H.
const PURGE_AFTER_MS: std::ffi::c_long = 100;

/// Sets it, unless the environment does.
pub fn set_up() {
    if std::env::var_os("MIMALLOC_PURGE_DELAY").is_none() {
        // SAFETY: the number is that of an option which the pinned version of the library has, and
        // the interpreter imports a module in one thread, before any other of ours is started.
        unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, PURGE_AFTER_MS) };
    }
}
