//! Words that praise or pretend are refused in prose: comments, docstrings, documents.

use super::finding::Finding;
use super::source::Line;
use super::tree::File;

const REFUSED: &[&str] = &["simply", "obviously", "not to be confused with"];

pub fn check_source(file: &File, lines: &[Line], findings: &mut Vec<Finding>) {
    for (number, line) in lines.iter().enumerate() {
        check(file, number, &format!("{} {}", line.comment, line.prose), findings);
    }
}

pub fn check_markdown(file: &File, findings: &mut Vec<Finding>) {
    if !file.path.ends_with(".md") {
        return;
    }
    let mut fenced = false;
    for (number, line) in file.text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            check(file, number, line, findings);
        }
    }
}

fn check(file: &File, number: usize, text: &str, findings: &mut Vec<Finding>) {
    // What stands in backticks is quoted, not said.
    let said: String = text.split('`').step_by(2).collect::<Vec<_>>().join(" ");
    let said = said.to_lowercase();
    for words in REFUSED {
        if super::source::find_word(&said, words).is_some() {
            let message = format!("\"{words}\" says nothing to a reader who is lost; remove it");
            findings.push(Finding::error(&file.path, number + 1, "words", message));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::source::{Language, scan};
    use super::*;

    #[test]
    fn words_are_refused_in_comments_and_not_in_code() {
        let text = "// Obviously so.\nlet simply = \"simply\";\n/// `simply` quoted\n";
        let mut findings = Vec::new();
        check_source(&File::new("a.rs", text), &scan(Language::Rust, text), &mut findings);
        assert_eq!(findings.iter().map(|f| f.line).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn documents_are_read_outside_their_code() {
        let text = "Just\n```\nsimply\n```\nIt is simply so.\n";
        let mut findings = Vec::new();
        check_markdown(&File::new("a.md", text), &mut findings);
        assert_eq!(findings.iter().map(|f| f.line).collect::<Vec<_>>(), [5]);
    }
}
