//! How long a file, a function and a line may be.

use super::finding::Finding;
use super::functions;
use super::source::{Language, Line};
use super::tree::File;

const FILE_WARNING: usize = 500;
const FILE_LIMIT: usize = 800;
const FUNCTION_LIMIT: usize = 70;
const LINE_LIMIT: usize = 100;

pub fn check(file: &File, language: Language, lines: &[Line], findings: &mut Vec<Finding>) {
    let path = &file.path;
    let n_lines = lines.len();
    if n_lines > FILE_LIMIT {
        let message = format!("{n_lines} lines; the limit is {FILE_LIMIT}: split it by concept");
        findings.push(Finding::error(path, 1, "file-length", message));
    } else if n_lines > FILE_WARNING {
        let message = format!("{n_lines} lines; a file should have up to {FILE_WARNING}");
        findings.push(Finding::warning(path, 1, "file-length", message));
    }
    for function in functions::find(language, lines) {
        if function.n_lines > FUNCTION_LIMIT {
            let message = format!(
                "function `{}` has {} lines; the limit is {FUNCTION_LIMIT}",
                function.name, function.n_lines
            );
            findings.push(Finding::error(path, function.line, "function-length", message));
        }
    }
    for (number, line) in lines.iter().enumerate() {
        let width = line.text.chars().count();
        if width.saturating_sub(line.n_literal) > LINE_LIMIT && !is_table_row(line) {
            let message = format!("{width} characters; the limit is {LINE_LIMIT}");
            findings.push(Finding::error(path, number + 1, "line-length", message));
        }
    }
}

fn is_table_row(line: &Line) -> bool {
    let comment = line.comment.trim_start_matches(['/', '!', '#']).trim_start();
    line.code.trim().is_empty() && comment.starts_with('|')
}

#[cfg(test)]
mod tests {
    use super::super::source::scan;
    use super::*;

    fn rules(text: &str) -> Vec<(&'static str, usize)> {
        let file = File::new("a.rs", text);
        let mut findings = Vec::new();
        check(&file, Language::Rust, &scan(Language::Rust, text), &mut findings);
        findings.iter().map(|f| (f.rule, f.line)).collect()
    }

    #[test]
    fn a_line_may_be_long_only_as_a_literal_or_a_table_row() {
        let long = "x".repeat(101);
        assert_eq!(rules(&format!("// {long}\n")), [("line-length", 1)]);
        assert_eq!(rules(&format!("//! | {long} |\nlet a = \"{long}\";\n")), []);
    }

    #[test]
    fn a_function_of_seventy_one_lines_is_too_long() {
        let body = |n: usize| format!("fn f() {{\n{}}}\n", "    g();\n".repeat(n));
        assert_eq!(rules(&body(68)), []);
        assert_eq!(rules(&body(69)), [("function-length", 1)]);
    }

    #[test]
    fn a_file_is_warned_of_before_it_is_refused() {
        let text = "\n".repeat(501);
        let file = File::new("a.py", &text);
        let mut findings = Vec::new();
        check(&file, Language::Python, &scan(Language::Python, &text), &mut findings);
        assert_eq!(findings[0].severity, super::super::finding::Severity::Warning);
        assert_eq!(rules(&"\n".repeat(801)), [("file-length", 1)]);
    }
}
