//! The allocator of everything native: threads of the engine free much on each other's behalf.

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// `mi_option_purge_delay`, which the bindings do not name.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Memory that is free goes back to the system after so long, not after ten milliseconds: taking
/// it again costs page faults, a fifth of the time of TPC-H.
const PURGE_AFTER_MS: std::ffi::c_long = 10_000;

/// The same where memory has a limit, for it counts as used until then.
const PURGE_AFTER_MS_LIMITED: std::ffi::c_long = 100;

/// Sets it, unless the environment does.
pub fn set_up() {
    purge_after(PURGE_AFTER_MS);
}

/// What runs in this process from now on has a limit of memory.
pub fn is_limited() {
    purge_after(PURGE_AFTER_MS_LIMITED);
}

fn purge_after(ms: std::ffi::c_long) {
    if std::env::var_os("MIMALLOC_PURGE_DELAY").is_none() {
        // SAFETY: the number is that of an option which the pinned version of the library has;
        // options are words that the allocator reads and writes whole.
        unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, ms) };
    }
}
