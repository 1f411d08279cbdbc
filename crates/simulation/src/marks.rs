//! States that a long run must reach at least once, or it proves less than it seems to.

/// Every mark there is: those of the simulator, and those of the machines (`probe::sometimes`).
pub const MARKS: &[&str] = &[];
