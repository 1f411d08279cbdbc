//! Where files are: locations as users write them, the stores behind them, and what is there.
//!
//! ```text
//!   "s3://bucket/year=*/*.parquet" ─► Location ─► open(location, options) ─► ObjectStore
//!                                        └──────► list(store, location) ──► files, sorted
//! ```
//!
//! A location is a path or a URL, of a file, a folder or a pattern. Its store is opened once per
//! host or bucket by whoever keeps stores; credentials come from options in the names of fsspec
//! and of the clouds' own tools, then from the environment, then from the user's AWS files.
//!
//! # Invariants
//!
//! - A pattern matches within one folder level unless it says `**`
//!   (guarded by `a_star_stays_within_its_folder`).
//! - What hides itself (names that begin with `.` or `_`) is not data
//!   (guarded by `hidden_files_are_not_data`).
//! - No secret is part of an error's text or of a location's name
//!   (guarded by `errors_hold_no_secret`).
//!
//! Reading order: `error`, `location`, `credentials`, `open`, `list`.

mod credentials;
mod error;
mod list;
mod location;
mod open;

pub use error::IoError;
pub use list::{FoundFile, list};
pub use location::Location;
pub use open::{StoreOptions, open};

#[cfg(test)]
mod tests;
