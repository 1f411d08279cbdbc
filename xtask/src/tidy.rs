//! The rules that fail the test run.
//!
//! The tree is walked once and every file is read once. A check sees one file (as text, or as
//! [`source::Line`]s with comments and literals told apart) and reports findings; the few facts
//! that cross files, which tests exist and which invariants name them, are joined at the end.
//!
//! Reading order: [`finding`], [`tree`], [`source`], then one module per rule.

mod essays;
mod exceptions;
mod finding;
mod functions;
mod layers;
mod leftovers;
mod lengths;
mod names;
mod purity;
mod source;
mod tree;
mod unsafety;
mod words;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;

use finding::{Finding, Severity};
use source::Language;
use tree::File;

/// Runs every check below `root`, prints the findings, and fails if one is more than a warning.
pub fn command(root: &Path) -> ExitCode {
    let files = match tree::walk(root) {
        Ok(files) => files,
        Err(error) => {
            eprintln!("tree {} could not be read: {error}", root.display());
            return ExitCode::from(2);
        }
    };
    let mut findings = check(&files);
    findings.sort();
    for finding in &findings {
        println!("{finding}");
    }
    let errors = findings.iter().filter(|f| f.severity == Severity::Error).count();
    if errors > 0 {
        println!("tidy: {errors} findings in {} files", files.len());
        return ExitCode::FAILURE;
    }
    println!("tidy: {} files in order", files.len());
    ExitCode::SUCCESS
}

fn check(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut tests = BTreeSet::new();
    let mut invariants = Vec::new();
    for file in files {
        names::check(file, &mut findings);
        layers::check(file, &mut findings);
        words::check_markdown(file, &mut findings);
        tests.extend(essays::script_name(file));
        let Some(language) = Language::of(&file.path) else {
            continue;
        };
        let lines = source::scan(language, &file.text);
        lengths::check(file, language, &lines, &mut findings);
        purity::check(file, &lines, &mut findings);
        leftovers::check(file, &lines, &mut findings);
        words::check_source(file, &lines, &mut findings);
        tests.extend(essays::tests(language, &lines));
        if language == Language::Rust {
            unsafety::check(file, &lines, &mut findings);
            essays::check(file, &lines, &mut invariants, &mut findings);
        }
    }
    essays::join(&invariants, &tests, &mut findings);
    exceptions::apply(exceptions::EXCEPTIONS, findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_with_one_sound_crate_has_no_findings() {
        let manifest = "[package]\nname = \"rasker-graph\"\n";
        let essay = "//! Tasks.\n//!\n//! # Invariants\n//!\n//! - Order is total (`it_sorts`).\n\n\
                     #[test]\nfn it_sorts() {}\n";
        let files = [
            File::new("crates/graph/Cargo.toml", manifest),
            File::new("crates/graph/src/lib.rs", essay),
        ];
        assert_eq!(check(&files), []);
    }

    #[test]
    fn a_finding_prints_its_path_line_and_rule() {
        let files = [File::new("crates/graph/src/sort.rs", "fn f() {\n    dbg!(1);\n}\n")];
        let printed: Vec<_> = check(&files).iter().map(Finding::to_string).collect();
        assert_eq!(
            printed,
            ["crates/graph/src/sort.rs:2: leftover: `dbg!` is for debugging; remove it"]
        );
    }
}
