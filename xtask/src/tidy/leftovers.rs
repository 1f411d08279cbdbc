//! What is forgotten while work is in progress.

use super::finding::Finding;
use super::source::{Line, find_word};
use super::tree::File;

const MACROS: &[(&str, &str)] = &[
    ("todo!", "is not an answer; build it or return an error that says so"),
    ("unimplemented!", "is not an answer; build it or return an error that says so"),
    ("dbg!", "is for debugging; remove it"),
];

const MARKS: &[&str] = &["TODO", "FIXME", "XXX"];

pub fn check(file: &File, lines: &[Line], findings: &mut Vec<Finding>) {
    for (number, line) in lines.iter().enumerate() {
        for (name, cure) in MACROS {
            if find_word(&line.code, &name[..name.len() - 1])
                .is_some_and(|at| line.code[at..].starts_with(name))
            {
                let message = format!("`{name}` {cure}");
                findings.push(Finding::error(&file.path, number + 1, "leftover", message));
            }
        }
        let text = format!("{} {}", line.comment, line.prose);
        for mark in MARKS {
            if let Some(at) = find_word(&text, mark)
                && !names_an_issue(&text[at + mark.len()..])
            {
                let message = format!("{mark} without its issue; write `{mark}(#12)`");
                findings.push(Finding::error(&file.path, number + 1, "leftover", message));
            }
        }
    }
}

fn names_an_issue(rest: &str) -> bool {
    let inside = rest.strip_prefix("(#").and_then(|rest| rest.split_once(')'));
    inside.is_some_and(|(n, _)| !n.is_empty() && n.chars().all(|c| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::super::source::{Language, scan};
    use super::*;

    fn found(text: &str) -> Vec<usize> {
        let mut findings = Vec::new();
        check(&File::new("a.rs", text), &scan(Language::Rust, text), &mut findings);
        findings.iter().map(|f| f.line).collect()
    }

    #[test]
    fn unfinished_work_is_found_in_code_and_not_in_literals() {
        assert_eq!(
            found("todo!()\nlet s = \"todo!()\";\nunimplemented!(\"x\")\ndbg!(y);\n"),
            [1, 3, 4]
        );
    }

    #[test]
    fn a_mark_names_its_issue() {
        assert_eq!(found("// TODO later\n// TODO(#12) later\n// FIXME(#) x\n"), [1, 3]);
    }
}
