//! `unsafe` stays in four rooms, and each use carries its proof directly above.

use super::finding::Finding;
use super::source::{Line, find_word};
use super::tree::File;

const ROOMS: &[&str] = &["store", "transport", "kernels", "python"];

pub fn check(file: &File, lines: &[Line], findings: &mut Vec<Finding>) {
    let allowed = file.in_crate().is_some_and(|(folder, _)| ROOMS.contains(&folder));
    for (number, line) in lines.iter().enumerate() {
        let Some(at) = find_word(&line.code, "unsafe") else {
            continue;
        };
        if is_type(&line.code[at..]) {
            continue;
        }
        if !allowed {
            let message = format!("`unsafe` belongs to the crates {}", ROOMS.join(", "));
            findings.push(Finding::error(&file.path, number + 1, "unsafe", message));
        } else if !has_proof(lines, number) {
            let message = "`unsafe` without a `// SAFETY:` comment directly above";
            findings.push(Finding::error(&file.path, number + 1, "unsafe", message));
        }
    }
}

/// The type of an unsafe function pointer needs no proof; its calls do.
fn is_type(code: &str) -> bool {
    let rest = code["unsafe".len()..].trim_start();
    let rest = rest.strip_prefix("extern \"\"").unwrap_or(rest).trim_start();
    rest.strip_prefix("fn").is_some_and(|rest| rest.trim_start().starts_with('('))
}

/// Looks upwards from the statement that holds `unsafe` through the comment that ends above it.
fn has_proof(lines: &[Line], number: usize) -> bool {
    let proves =
        |line: &Line| line.comment.contains("SAFETY:") || line.comment.contains("# Safety");
    let is_comment = |line: &Line| line.code.trim().is_empty() && !line.comment.is_empty();
    if proves(&lines[number]) {
        return true;
    }
    let mut above = lines[..number].iter().rev().peekable();
    while let Some(line) = above.next_if(|line| !is_comment(line)) {
        let code = line.code.trim();
        let ends_statement = code.is_empty() || code.ends_with([';', '{', '}', ',']);
        if ends_statement && !code.starts_with("#[") {
            return false;
        }
    }
    above.take_while(|line| is_comment(line)).any(proves)
}

#[cfg(test)]
mod tests {
    use super::super::source::{Language, scan};
    use super::*;

    fn found(path: &str, text: &str) -> Vec<usize> {
        let mut findings = Vec::new();
        check(&File::new(path, text), &scan(Language::Rust, text), &mut findings);
        findings.iter().map(|f| f.line).collect()
    }

    #[test]
    fn unsafe_outside_its_rooms_is_refused_even_with_a_proof() {
        assert_eq!(found("crates/graph/src/a.rs", "// SAFETY: true.\nunsafe { f() }\n"), [2]);
    }

    #[test]
    fn unsafe_needs_its_proof_directly_above() {
        let path = "crates/store/src/a.rs";
        assert_eq!(
            found(path, "// SAFETY: the\n// map lives.\nlet x =\n    unsafe { f() };\n"),
            []
        );
        assert_eq!(found(path, "// SAFETY: old.\nlet y = 1;\nunsafe { f() }\n"), [3]);
        assert_eq!(
            found(path, "/// # Safety\n///\n/// Aligned.\n#[inline]\nunsafe fn f() {}\n"),
            []
        );
        assert_eq!(found(path, "drop: unsafe fn(*mut u8),\n#![deny(unsafe_code)]\n"), []);
    }
}
