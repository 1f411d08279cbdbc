//! NumPy's large arrays are born in shared memory: when another process wants one, it maps it as it
//! is.
//!
//! Without this, a value that leaves its executor is copied once, at the speed of memory, and that
//! copy is nearly all the time it takes. Each array has some room before its first element, in
//! which its pickle is written when it is lent out; array and pickle are one segment then.
//!
//! NumPy asks for memory through a handler that is set for each context (NEP 49).

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict};
use rasker_store::{Arena, Segment, SharedSlab};
use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Smaller arrays come from the heap, which keeps what was freed and may have huge pages, as shared
/// memory mostly may not: without them pandas was a tenth slower, which no copy saved makes up for.
const NBYTES_MIN: usize = crate::executor::MAPPED_NBYTES;
/// Where memory fills up, arrays from this size on come from shared memory too: most of them will
/// have to leave for the disk, and leave without a copy then. As much memory as such a copy takes
/// is what there is too little of.
const NBYTES_MIN_CROWDED: usize = 1 << 20;
/// Larger ones may be wanted for being sparse, and come page by page as always.
const NBYTES_MAX: usize = 1 << 30;
/// Room before the first element: a page, so that the elements begin at one.
pub const HEAD_NBYTES: usize = 4096;

const CAPSULE_NAME: &CStr = c"mem_handler";
/// Places in NumPy's table of functions, which never change.
const SET_HANDLER: usize = 304;
const GET_HANDLER: usize = 305;
const FEATURE_VERSION: usize = 211;
/// NumPy 1.22.
const FEATURE_VERSION_MIN: u32 = 0xf;

#[repr(C)]
#[derive(Clone, Copy)]
struct Allocator {
    context: *mut c_void,
    malloc: unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void,
    calloc: unsafe extern "C" fn(*mut c_void, usize, usize) -> *mut c_void,
    realloc: unsafe extern "C" fn(*mut c_void, *mut c_void, usize) -> *mut c_void,
    free: unsafe extern "C" fn(*mut c_void, *mut c_void, usize),
}

#[repr(C)]
struct Handler {
    name: [c_char; 127],
    version: u8,
    allocator: Allocator,
}

struct Array {
    slab: SharedSlab,
    /// Its head is written once, as readers may keep it.
    has_head: bool,
}

struct Memory {
    arena: Arena,
    /// NumPy's own, for everything that is not ours.
    plain: Allocator,
    /// By address of the first element.
    arrays: parking_lot::Mutex<HashMap<usize, Array, foldhash::fast::FixedState>>,
    /// Addresses outside these bounds are not ours, which is seen without the lock.
    low: AtomicUsize,
    high: AtomicUsize,
    capsule: Py<PyAny>,
    set_handler: unsafe extern "C" fn(*mut ffi::PyObject) -> *mut ffi::PyObject,
}

// SAFETY: the allocators are tables of functions that any thread may call.
unsafe impl Send for Memory {}
// SAFETY: as above; what changes stands behind a lock or is atomic.
unsafe impl Sync for Memory {}

static IS_CROWDED: AtomicBool = AtomicBool::new(false);

/// Says whether values may have to leave memory soon.
pub fn set_crowded(is_crowded: bool) {
    IS_CROWDED.store(is_crowded, Ordering::Relaxed);
}

static MEMORY: OnceLock<Option<Memory>> = OnceLock::new();

/// Lets arrays that are made from here on, in this thread and context, be born in `arena`.
/// Does nothing as long as NumPy is not imported.
pub fn install(py: Python<'_>, arena: &Arena) {
    let memory = match MEMORY.get() {
        Some(memory) => memory,
        None => {
            let Some(made) = find_numpy(py).map(|table| make(py, table, arena)) else { return };
            MEMORY.get_or_init(|| made)
        }
    };
    let Some(memory) = memory else { return };
    // SAFETY: the function takes a borrowed capsule and returns the former one, which is ours to
    // let go; the interpreter is attached.
    unsafe {
        let former = (memory.set_handler)(memory.capsule.as_ptr());
        if former.is_null() {
            ffi::PyErr_Clear();
        } else {
            ffi::Py_DECREF(former);
        }
    }
}

/// NumPy's table of functions, if it is imported to the end.
fn find_numpy(py: Python<'_>) -> Option<*const *const c_void> {
    // SAFETY: `PyImport_GetModuleDict` lends a dictionary that lives as long as the interpreter.
    let modules = unsafe { Bound::from_borrowed_ptr(py, ffi::PyImport_GetModuleDict()) };
    let modules = modules.cast_into::<PyDict>().ok()?;
    let names = ["numpy._core._multiarray_umath", "numpy.core._multiarray_umath"];
    let module = names.iter().find_map(|name| modules.get_item(name).ok()?)?;
    let capsule = module.getattr("_ARRAY_API").ok()?.cast_into::<PyCapsule>().ok()?;
    // SAFETY: the capsule has no name, which is NumPy's choice, and holds its table.
    let table = unsafe { ffi::PyCapsule_GetPointer(capsule.as_ptr(), std::ptr::null()) };
    (!table.is_null()).then_some(table.cast())
}

/// None if this NumPy cannot be told where to take memory from.
fn make(py: Python<'_>, table: *const *const c_void, arena: &Arena) -> Option<Memory> {
    // SAFETY: the table is NumPy's, of which this place has been the same since 1.4.
    let version: unsafe extern "C" fn() -> u32 =
        unsafe { std::mem::transmute(*table.add(FEATURE_VERSION)) };
    // SAFETY: it takes nothing and returns a number.
    if unsafe { version() } < FEATURE_VERSION_MIN {
        return None;
    }
    // SAFETY: from this version on the table has these two, with these signatures.
    let set_handler = unsafe { std::mem::transmute(*table.add(SET_HANDLER)) };
    // SAFETY: as above.
    let get_handler: unsafe extern "C" fn() -> *mut ffi::PyObject =
        unsafe { std::mem::transmute(*table.add(GET_HANDLER)) };
    // SAFETY: it returns a reference that is ours, or null with an error set.
    let plain = unsafe { Bound::from_owned_ptr_or_err(py, get_handler()) }.ok()?;
    // SAFETY: a handler's capsule has this name and holds a `Handler`, which lives as long as the
    // module; the allocator is copied.
    let plain = unsafe {
        let handler = ffi::PyCapsule_GetPointer(plain.as_ptr(), CAPSULE_NAME.as_ptr());
        handler.cast::<Handler>().as_ref()?.allocator
    };
    let mut name = [0; 127];
    for (to, from) in name.iter_mut().zip(b"rasker") {
        *to = *from as c_char;
    }
    let allocator = Allocator { context: std::ptr::null_mut(), malloc, calloc, realloc, free };
    // Arrays keep it for as long as they live, which may be longer than anything of ours.
    let handler = Box::leak(Box::new(Handler { name, version: 1, allocator }));
    // SAFETY: the handler lives for ever, and the name is static.
    let capsule = unsafe {
        let handler = std::ptr::from_mut(handler).cast();
        let capsule = ffi::PyCapsule_New(handler, CAPSULE_NAME.as_ptr(), None);
        Bound::from_owned_ptr_or_err(py, capsule).ok()?.unbind()
    };
    arena.survive_forks();
    Some(Memory {
        arena: arena.clone(),
        plain,
        arrays: parking_lot::Mutex::default(),
        low: AtomicUsize::new(usize::MAX),
        high: AtomicUsize::new(0),
        capsule,
        set_handler,
    })
}

/// The array whose elements are these bytes, with `head` before them, as one segment. None if they
/// are not ours, not most of their array, or lent out with another head already.
pub fn lend(elements: &[u8], head: &[u8]) -> Option<Segment> {
    let memory = MEMORY.get()?.as_ref()?;
    let address = elements.as_ptr() as usize;
    if head.len() != HEAD_NBYTES || !memory.may_own(address) || rasker_store::is_forked_child() {
        return None;
    }
    let mut arrays = memory.arrays.lock();
    let array = arrays.get_mut(&address)?;
    let capacity = array.slab.len() - HEAD_NBYTES;
    if elements.len() > capacity || elements.len() < capacity / 2 {
        return None;
    }
    let segment = array.slab.segment();
    if !array.has_head {
        array.has_head = true;
        // SAFETY: the head lies before the elements, nobody has it yet, and the lock is held.
        unsafe {
            let to = array.slab.as_mut_ptr();
            std::ptr::copy_nonoverlapping(head.as_ptr(), to, HEAD_NBYTES);
        }
    }
    (segment.as_slice()[..HEAD_NBYTES] == *head).then_some(segment)
}

impl Memory {
    fn may_own(&self, address: usize) -> bool {
        self.low.load(Ordering::Relaxed) <= address && address <= self.high.load(Ordering::Relaxed)
    }

    /// Memory for an array, unless it should come from elsewhere.
    fn allocate(&self, nbytes: usize) -> Option<*mut c_void> {
        let least =
            if IS_CROWDED.load(Ordering::Relaxed) { NBYTES_MIN_CROWDED } else { NBYTES_MIN };
        if !(least..=NBYTES_MAX).contains(&nbytes) || rasker_store::is_forked_child() {
            return None;
        }
        let slab = self.arena.allocate(nbytes + HEAD_NBYTES).ok()?.share();
        // SAFETY: the slab is longer than its head.
        let elements = unsafe { slab.as_mut_ptr().add(HEAD_NBYTES) };
        let address = elements as usize;
        self.low.fetch_min(address, Ordering::Relaxed);
        self.high.fetch_max(address, Ordering::Relaxed);
        self.arrays.lock().insert(address, Array { slab, has_head: false });
        Some(elements.cast())
    }

    fn take(&self, address: usize) -> Option<Array> {
        if !self.may_own(address) {
            return None;
        }
        self.arrays.lock().remove(&address)
    }
}

fn memory() -> &'static Memory {
    MEMORY.get().and_then(Option::as_ref).expect("the handler is set after it is made")
}

// SAFETY: only NumPy calls it, with memory that it got from these functions.
unsafe extern "C" fn malloc(_: *mut c_void, nbytes: usize) -> *mut c_void {
    let memory = memory();
    match memory.allocate(nbytes) {
        Some(elements) => elements,
        // SAFETY: NumPy's own function, with its own context.
        None => unsafe { (memory.plain.malloc)(memory.plain.context, nbytes) },
    }
}

// SAFETY: only NumPy calls it, with memory that it got from these functions.
unsafe extern "C" fn calloc(_: *mut c_void, count: usize, nbytes: usize) -> *mut c_void {
    // Zeros come from the kernel only when they are touched: better than writing them.
    let plain = &memory().plain;
    // SAFETY: NumPy's own function, with its own context.
    unsafe { (plain.calloc)(plain.context, count, nbytes) }
}

// SAFETY: only NumPy calls it, with memory that it got from these functions.
unsafe extern "C" fn realloc(_: *mut c_void, old: *mut c_void, nbytes: usize) -> *mut c_void {
    let memory = memory();
    let capacity = match memory.arrays.lock().get(&(old as usize)) {
        Some(array) => array.slab.len() - HEAD_NBYTES,
        None => {
            // SAFETY: memory that is not ours is NumPy's own.
            return unsafe { (memory.plain.realloc)(memory.plain.context, old, nbytes) };
        }
    };
    // SAFETY: as in `malloc`.
    let new = unsafe { malloc(std::ptr::null_mut(), nbytes) };
    if !new.is_null() {
        // SAFETY: both are at least as long as the shorter of the two, and do not overlap.
        unsafe {
            std::ptr::copy_nonoverlapping(old.cast::<u8>(), new.cast(), capacity.min(nbytes))
        };
        drop(memory.take(old as usize));
    }
    new
}

// SAFETY: only NumPy calls it, with memory that it got from these functions.
unsafe extern "C" fn free(_: *mut c_void, old: *mut c_void, nbytes: usize) {
    let memory = memory();
    if memory.take(old as usize).is_none() {
        // SAFETY: memory that is not ours is NumPy's own.
        unsafe { (memory.plain.free)(memory.plain.context, old, nbytes) };
    }
}
