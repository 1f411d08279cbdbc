//! Memory that native calls ask for before they take it, joined to the worker's governor.
//!
//! ```text
//!   native call ── try_reserve ──► Budget ── Reserved ──► worker machine: values leave memory
//!        ▲                           ▲                          │
//!        └── granted, or refused ────┴──── others use so much ──┘
//! ```

use parking_lot::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// Native calls and values together take this share of the limit at most, as calls pause there.
const CEILING: f64 = 0.8;
/// So long a call waits for values to make room; a refused one goes to disk itself.
const PATIENCE: Duration = Duration::from_secs(2);
/// Results are not given up before so long.
const PATIENCE_OF_RESULTS: Duration = Duration::from_secs(20);
/// Memory may come back without a word.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// The worker is told of reservations when they have changed by this share of the limit.
const STEP: u64 = 64;

#[derive(Default)]
struct State {
    reserved_nbytes: u64,
    /// What waiting calls ask for.
    asked_nbytes: u64,
    /// What everything else uses, and how much of it could leave memory.
    others_nbytes: u64,
    movable_nbytes: u64,
    /// Waiting did not help when others used so much.
    hopeless_nbytes: u64,
    told_nbytes: u64,
}

/// One worker's memory as its native calls see it. Whoever reserves gives back.
pub struct Budget {
    limit_nbytes: u64,
    ceiling_nbytes: u64,
    n_slots: u32,
    state: Mutex<State>,
    changed: Condvar,
    tell: Box<dyn Fn(u64) + Send + Sync>,
}

impl Budget {
    /// `tell` gets the bytes that are reserved or asked for, when that changed by much.
    pub(crate) fn new(
        limit_nbytes: u64,
        n_slots: u32,
        tell: Box<dyn Fn(u64) + Send + Sync>,
    ) -> Budget {
        let ceiling_nbytes = match limit_nbytes {
            0 => u64::MAX,
            limit => (limit as f64 * CEILING) as u64,
        };
        let state = State { hopeless_nbytes: u64::MAX, ..State::default() };
        let (state, changed) = (Mutex::new(state), Condvar::new());
        Budget { limit_nbytes, ceiling_nbytes, n_slots: n_slots.max(1), state, changed, tell }
    }

    /// The worker's memory limit, bytes; none if it has no limit.
    pub fn limit_nbytes(&self) -> Option<u64> {
        (self.limit_nbytes > 0).then_some(self.limit_nbytes)
    }

    /// What one call may count on if all slots are in use, bytes; none if there is no limit.
    pub fn share_nbytes(&self) -> Option<u64> {
        self.limit_nbytes().map(|_| self.ceiling_nbytes / u64::from(self.n_slots))
    }

    pub fn reserved_nbytes(&self) -> u64 {
        self.state.lock().reserved_nbytes
    }

    /// Reserves memory if there is room, or if values can make some soon. It may wait for that, so
    /// it is for threads that run calls.
    pub fn try_reserve(&self, nbytes: u64) -> bool {
        let mut state = self.state.lock();
        let mut until = None;
        let is_granted = loop {
            let needed = state.reserved_nbytes.saturating_add(nbytes);
            let in_use = needed.saturating_add(state.others_nbytes);
            if in_use <= self.ceiling_nbytes {
                state.reserved_nbytes = needed;
                break true;
            }
            let excess = in_use - self.ceiling_nbytes;
            let is_hopeless = state.others_nbytes >= state.hopeless_nbytes;
            if needed > self.ceiling_nbytes || excess > state.movable_nbytes || is_hopeless {
                break false;
            }
            let until = *until.get_or_insert_with(|| {
                state.asked_nbytes += nbytes;
                Instant::now() + PATIENCE
            });
            self.tell(&mut state, true);
            if self.changed.wait_until(&mut state, until).timed_out() {
                state.hopeless_nbytes = state.others_nbytes;
                break false;
            }
        };
        if until.is_some() {
            state.asked_nbytes -= nbytes;
        }
        self.tell(&mut state, until.is_some());
        is_granted
    }

    /// Asks for room until `is_enough`, for a while: for what cannot be done with less.
    pub(crate) fn insist(&self, nbytes: u64, mut is_enough: impl FnMut() -> bool) {
        let until = Instant::now() + PATIENCE_OF_RESULTS;
        let mut state = self.state.lock();
        state.asked_nbytes += nbytes;
        self.tell(&mut state, true);
        while Instant::now() < until {
            self.changed.wait_for(&mut state, LOOK_AGAIN);
            drop(state);
            let is_over = is_enough();
            state = self.state.lock();
            if is_over {
                break;
            }
        }
        state.asked_nbytes -= nbytes;
        self.tell(&mut state, true);
    }

    /// Reserves memory that is taken already, whether there is room or not.
    pub fn reserve(&self, nbytes: u64) {
        let mut state = self.state.lock();
        state.reserved_nbytes = state.reserved_nbytes.saturating_add(nbytes);
        self.tell(&mut state, false);
    }

    /// Gives back what was reserved.
    pub fn release(&self, nbytes: u64) {
        let mut state = self.state.lock();
        state.reserved_nbytes = state.reserved_nbytes.saturating_sub(nbytes);
        self.tell(&mut state, false);
        drop(state);
        self.changed.notify_all();
    }

    fn tell(&self, state: &mut State, at_once: bool) {
        if self.limit_nbytes == 0 {
            return;
        }
        let now = state.reserved_nbytes.saturating_add(state.asked_nbytes);
        let step = (self.limit_nbytes / STEP).max(1);
        let is_much = now.abs_diff(state.told_nbytes) >= step;
        if is_much || (at_once || now == 0) && now != state.told_nbytes {
            state.told_nbytes = now;
            (self.tell)(now);
        }
    }

    /// How things stand beside native calls.
    pub(crate) fn publish(&self, others_nbytes: u64, movable_nbytes: u64) {
        let mut state = self.state.lock();
        let has_shrunk = others_nbytes < state.others_nbytes;
        state.others_nbytes = others_nbytes;
        state.movable_nbytes = movable_nbytes;
        if others_nbytes < state.hopeless_nbytes {
            state.hopeless_nbytes = u64::MAX;
        }
        drop(state);
        if has_shrunk {
            self.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    fn budget(limit_nbytes: u64) -> (Arc<Budget>, Arc<AtomicU64>) {
        let told = Arc::new(AtomicU64::new(0));
        let seen = told.clone();
        let tell = Box::new(move |nbytes| seen.store(nbytes, Ordering::SeqCst));
        (Arc::new(Budget::new(limit_nbytes, 2, tell)), told)
    }

    #[test]
    fn reservations_stay_within_the_limit_and_are_told() {
        let (budget, told) = budget(1000);
        assert_eq!(budget.limit_nbytes(), Some(1000));
        assert_eq!(budget.share_nbytes(), Some(400));
        assert!(budget.try_reserve(500));
        assert_eq!(told.load(Ordering::SeqCst), 500);
        assert!(!budget.try_reserve(400), "900 of 1000 bytes leave values no room");
        assert!(budget.try_reserve(300));
        budget.release(800);
        assert_eq!((budget.reserved_nbytes(), told.load(Ordering::SeqCst)), (0, 0));
        budget.publish(700, 0);
        assert!(!budget.try_reserve(200), "what others use cannot leave");
        let free = self::budget(0).0;
        assert!(free.try_reserve(u64::MAX / 2) && free.limit_nbytes().is_none());
    }

    #[test]
    fn a_call_waits_until_values_have_made_room() {
        let (budget, told) = budget(1000);
        budget.publish(700, 700);
        let asking = budget.clone();
        let call = std::thread::spawn(move || asking.try_reserve(500));
        let until = Instant::now() + Duration::from_secs(10);
        while told.load(Ordering::SeqCst) != 500 {
            assert!(Instant::now() < until, "the worker was not told what is asked for");
            std::thread::yield_now();
        }
        assert_eq!(budget.reserved_nbytes(), 0, "it is asked for and not granted");
        budget.publish(400, 400);
        budget.publish(300, 300);
        assert!(call.join().expect("no panic"));
        assert_eq!(budget.reserved_nbytes(), 500);
    }

    #[test]
    fn a_call_that_waited_in_vain_is_refused_at_once_the_next_time() {
        let (budget, _) = budget(1000);
        budget.publish(700, 700);
        assert!(!budget.try_reserve(500));
        let before = Instant::now();
        assert!(!budget.try_reserve(500));
        assert!(before.elapsed() < PATIENCE / 2);
        budget.publish(100, 100);
        assert!(budget.try_reserve(500));
    }
}
