//! Each crate opens with an essay whose invariants name the tests that guard them.

use std::collections::BTreeSet;

use super::finding::Finding;
use super::source::{Language, Line, is_word};
use super::tree::File;

/// One invariant of an essay, and the names in backticks that it gives.
#[derive(Debug, PartialEq, Eq)]
pub struct Invariant {
    pub path: String,
    pub line: usize,
    pub names: Vec<String>,
}

/// Reads the essay of a crate's `lib.rs`.
pub fn check(
    file: &File,
    lines: &[Line],
    invariants: &mut Vec<Invariant>,
    findings: &mut Vec<Finding>,
) {
    if file.in_crate().is_none_or(|(_, inside)| inside != "src/lib.rs") {
        return;
    }
    let essay: Vec<&str> =
        lines.iter().map_while(|line| line.text.trim_start().strip_prefix("//!")).collect();
    let mut missing = |message: &str| {
        findings.push(Finding::error(&file.path, 1, "essay", message));
    };
    if essay.is_empty() {
        return missing("a crate opens with an essay: purpose, picture, invariants, reading order");
    }
    let is_heading = |text: &str| text.trim_start().starts_with('#');
    let heading = essay.iter().position(|text| {
        let title = text.trim().trim_matches(['*', ':', '.', '#', ' ']);
        text.contains("Invariants") && (is_heading(text) || title.starts_with("Invariants"))
    });
    let Some(heading) = heading else {
        return missing("the essay has no section \"Invariants\"");
    };
    let before = invariants.len();
    let mut in_item = false;
    for (number, text) in essay.iter().enumerate().skip(heading + 1) {
        if is_heading(text) {
            break;
        }
        if is_item(text) {
            in_item = true;
            invariants.push(Invariant {
                path: file.path.clone(),
                line: number + 1,
                names: Vec::new(),
            });
        }
        // What follows an empty line speaks of something else.
        in_item &= !text.trim().is_empty();
        if in_item && let Some(invariant) = invariants.last_mut() {
            invariant.names.extend(backticked(text));
        }
    }
    if invariants.len() == before {
        missing("the section \"Invariants\" lists none");
    }
}

fn is_item(text: &str) -> bool {
    let text = text.trim_start();
    let number = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let numbered = number.len() < text.len() && number.starts_with(". ");
    numbered || text.starts_with("- ") || text.starts_with("* ")
}

fn backticked(text: &str) -> impl Iterator<Item = String> {
    text.split('`').skip(1).step_by(2).map(|name| {
        let name = name.trim_end_matches("()").rsplit("::").next().unwrap_or_default();
        let name = name.rsplit('/').next().unwrap_or_default();
        name.split('.').next().unwrap_or_default().to_owned()
    })
}

/// The tests that a file defines: Rust functions below a test attribute, Python's `test_…`.
pub fn tests(language: Language, lines: &[Line]) -> Vec<String> {
    let mut found = Vec::new();
    let mut marked = false;
    for line in lines {
        let code = line.code.trim();
        let (keyword, is_test) = match language {
            Language::Rust => ("fn ", marked),
            Language::Python => ("def ", code.contains("def test_")),
        };
        if language == Language::Rust && code.starts_with("#[") && code.contains("test]") {
            marked = true;
        }
        if is_test && let Some((_, rest)) = code.split_once(keyword) {
            found.push(rest.chars().take_while(|c| is_word(*c)).collect());
            marked = false;
        }
    }
    found
}

/// A test script is a test by its name.
pub fn script_name(file: &File) -> Option<String> {
    let is_script = file.path.contains("/tests/") && file.path.ends_with(".md");
    is_script.then(|| file.stem().to_owned())
}

/// Reports the invariants that no existing test guards.
pub fn join(invariants: &[Invariant], tests: &BTreeSet<String>, findings: &mut Vec<Finding>) {
    for Invariant { path, line, names } in invariants {
        if names.iter().any(|name| tests.contains(name)) {
            continue;
        }
        let message = match names.as_slice() {
            [] => "this invariant names no test in backticks".to_owned(),
            names => format!("none of {} is a test in the tree", names.join(", ")),
        };
        findings.push(Finding::error(path, *line, "essay", message));
    }
}

#[cfg(test)]
mod cases {
    use super::super::source::scan;
    use super::*;

    fn findings(text: &str, known: &[&str]) -> Vec<(usize, String)> {
        let file = File::new("crates/graph/src/lib.rs", text);
        let (mut invariants, mut findings) = (Vec::new(), Vec::new());
        check(&file, &scan(Language::Rust, text), &mut invariants, &mut findings);
        let known = known.iter().map(|name| (*name).to_owned()).collect();
        join(&invariants, &known, &mut findings);
        findings.into_iter().map(|f| (f.line, f.message)).collect()
    }

    #[test]
    fn a_crate_without_essay_or_invariants_is_found() {
        assert_eq!(findings("pub mod key;\n", &[]).len(), 1);
        assert_eq!(findings("//! Tasks.\n", &[])[0].1, "the essay has no section \"Invariants\"");
        assert_eq!(findings("//! # Invariants\n//!\n//! # Order\n", &[]).len(), 1);
    }

    #[test]
    fn what_follows_the_list_guards_nothing() {
        let text = "//! Invariants:\n//! - One holds.\n//!\n//! Read `it_holds` first.\n";
        let found = findings(text, &["it_holds"]);
        assert_eq!(found[0].1, "this invariant names no test in backticks");
    }

    #[test]
    fn an_invariant_names_a_test_that_exists() {
        let text = "//! # Invariants\n//!\n//! 1. One holds, as\n//!    `graph::it_holds` shows.\n\
                    //! 2. Two holds (`gone`).\n//! - Three holds.\n";
        let found = findings(text, &["it_holds"]);
        assert_eq!(found.iter().map(|f| f.0).collect::<Vec<_>>(), [5, 6]);
    }

    #[test]
    fn tests_are_found_in_both_languages_and_as_scripts() {
        let rust = scan(Language::Rust, "#[test]\n#[cfg(unix)]\nfn it_holds() {}\nfn other() {}\n");
        assert_eq!(tests(Language::Rust, &rust), ["it_holds"]);
        let python = scan(Language::Python, "def test_it():\n    pass\ndef other(): pass\n");
        assert_eq!(tests(Language::Python, &python), ["test_it"]);
        let script = File::new("crates/scheduler/tests/scripts/first.md", "");
        assert_eq!(script_name(&script).as_deref(), Some("first"));
    }
}
