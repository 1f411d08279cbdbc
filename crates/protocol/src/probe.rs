//! Hooks by which the simulator breaks the machines on purpose, and sees which states they reach.
//!
//! Without the feature `mutants` both functions are empty and the compiler drops their callers.

#[cfg(feature = "mutants")]
mod on {
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeMap;

    thread_local! {
        static MUTANT: Cell<Option<&'static str>> = const { Cell::new(None) };
        static REACHED: RefCell<BTreeMap<&'static str, u64>> =
            const { RefCell::new(BTreeMap::new()) };
    }

    /// Breaks this thread's machines in one way, or in none.
    pub fn choose(name: Option<&'static str>) {
        MUTANT.set(name);
    }

    /// States that this thread's machines reached since the last time, and how often.
    pub fn take_reached() -> BTreeMap<&'static str, u64> {
        REACHED.take()
    }

    /// Whether the machines are to be broken in this way.
    #[inline]
    pub fn mutant(name: &str) -> bool {
        MUTANT.get().is_some_and(|chosen| chosen == name)
    }

    /// A state was reached that the simulator must reach now and then.
    #[inline]
    pub fn sometimes(name: &'static str) {
        REACHED.with_borrow_mut(|reached| *reached.entry(name).or_default() += 1);
    }
}

#[cfg(feature = "mutants")]
pub use on::{choose, mutant, sometimes, take_reached};

#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub const fn mutant(_: &str) -> bool {
    false
}

#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub const fn sometimes(_: &'static str) {}
