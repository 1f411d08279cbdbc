//! Tables of files.

mod format;
mod partitions;
mod staging;
mod table;
mod task_write;

pub use format::FormatOptions;
pub(crate) use staging::{Commit, Staging};
pub(crate) use table::FileTable;
pub use table::FilesOptions;
pub(crate) use task_write::{TaskWrite, by_tasks};

/// Whether a name in a query looks like the place of files.
pub(crate) fn is_place(name: &str) -> bool {
    name.contains('/') || name.contains('*') || format::of_name(name).0.is_some()
}
