//! The chores of the house: `cargo xtask tidy` checks every rule that a machine can check.
//!
//! It depends on the standard library alone, so that it builds in a second on a fresh machine.

mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("tidy") => tidy::command(&arguments.next().map_or_else(project_root, PathBuf::from)),
        other => {
            if let Some(name) = other {
                eprintln!("chore \"{name}\" not found");
            }
            eprintln!("usage: cargo xtask tidy [ROOT]");
            ExitCode::from(2)
        }
    }
}

fn project_root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}
