//! The machines are pure: what they do depends on their events alone.
//!
//! Sockets, clocks, threads, files, output and random order would each make two runs of one
//! seed differ, so the words that reach them are refused. Tests inside the crates are free.

use super::finding::Finding;
use super::source::{Line, find_word};
use super::tree::File;

const PURE: &[&str] = &["graph", "protocol", "scheduler", "worker", "client"];

/// What is refused, and what to do in its place.
const REFUSED: &[(&str, &str)] = &[
    ("tokio", "I/O belongs to `runtime`"),
    ("std::thread", "threads belong to `runtime`"),
    ("std::net", "sockets belong to `transport`"),
    ("std::fs", "files belong to `store` and `runtime`"),
    ("Instant::now", "take the time from the event"),
    ("SystemTime", "take the time from the event"),
    ("println!", "return an action"),
    ("eprintln!", "return an action"),
    ("print!", "return an action"),
    ("eprint!", "return an action"),
    ("thread_rng", "take a seed"),
    ("RandomState", "use a hasher with a fixed seed"),
];

pub fn check(file: &File, lines: &[Line], findings: &mut Vec<Finding>) {
    let Some((folder, inside)) = file.in_crate() else {
        return;
    };
    let tested = inside.contains("/tests/") || inside.ends_with("/tests.rs");
    if !PURE.contains(&folder) || !inside.starts_with("src/") || tested {
        return;
    }
    let mut report = |number: usize, what: &str, cure: &str| {
        let message = format!("`{what}` in machine crate \"{folder}\"; {cure}");
        findings.push(Finding::error(&file.path, number + 1, "purity", message));
    };
    let test_lines = test_regions(lines);
    let mut import: Option<(usize, String)> = None;
    for (number, line) in lines.iter().enumerate().filter(|(n, _)| !test_lines[*n]) {
        let code = line.code.trim();
        for (word, cure) in REFUSED {
            if find_word(code, word).is_some() {
                report(number, word, cure);
            }
        }
        let start =
            find_word(code, "use").filter(|_| code.starts_with("use ") || code.starts_with("pub"));
        if start.is_some() {
            import = Some((number, String::new()));
        }
        match &mut import {
            Some((first, text)) => {
                text.push_str(code);
                if code.contains(';') {
                    for (word, cure) in imports(text) {
                        report(*first, word, cure);
                    }
                    import = None;
                }
            }
            None => {
                if let Some(word) = random_map(code) {
                    report(number, word, "name a hasher with a fixed seed");
                }
            }
        }
    }
}

/// What a `use` statement that may span lines and braces brings in.
fn imports(text: &str) -> Vec<(&'static str, &'static str)> {
    let mut found = Vec::new();
    if text.contains("std::collections") {
        for word in ["HashMap", "HashSet"] {
            if find_word(text, word).is_some() {
                found.push((word, "its order is random; name a map with a fixed hasher"));
            }
        }
    }
    if text.contains("std::{") {
        for word in ["thread", "net", "fs"] {
            if find_word(text, word).is_some() {
                found.push((word, "a machine performs no I/O"));
            }
        }
    }
    found
}

/// A standard map named by its path without a hasher of its own.
fn random_map(code: &str) -> Option<&'static str> {
    for (word, n_parameters) in [("HashMap", 3), ("HashSet", 2)] {
        let path = format!("collections::{word}");
        if let Some(at) = find_word(code, &path)
            && type_parameters(&code[at + path.len()..]) < n_parameters
        {
            return Some(word);
        }
    }
    None
}

fn type_parameters(code: &str) -> usize {
    let mut depth = 0_usize;
    let mut n_parameters = 0;
    for char in code.trim_start_matches("::").chars() {
        match char {
            '<' | '(' | '[' => {
                depth += 1;
                n_parameters += usize::from(depth == 1);
            }
            '>' | ')' | ']' => depth = depth.saturating_sub(1),
            ',' => n_parameters += usize::from(depth == 1),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    n_parameters
}

/// Which lines stand in a module that only tests compile.
fn test_regions(lines: &[Line]) -> Vec<bool> {
    let mut inside = vec![false; lines.len()];
    let mut depth = 0_usize;
    let mut pending = false;
    for (number, line) in lines.iter().enumerate() {
        let code = line.code.trim();
        pending |= depth == 0 && code.starts_with("#[cfg(test)]");
        if pending || depth > 0 {
            inside[number] = true;
            for char in code.chars() {
                match char {
                    '{' => depth += 1,
                    '}' => depth = depth.saturating_sub(1),
                    _ => {}
                }
            }
            let ended = code.ends_with(';') || (code.ends_with('}') && depth == 0);
            pending = pending && depth == 0 && !ended;
        }
    }
    inside
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
    fn a_machine_has_no_clock_thread_or_socket() {
        let text = "use tokio::net;\nlet t = Instant::now();\nstd::thread::spawn(f);\n// tokio\n";
        assert_eq!(found("crates/worker/src/a.rs", text), [1, 2, 3]);
        assert_eq!(found("crates/runtime/src/a.rs", text), []);
        assert_eq!(found("crates/worker/tests/a.rs", text), []);
    }

    #[test]
    fn a_machine_has_no_map_of_random_order() {
        let path = "crates/scheduler/src/a.rs";
        assert_eq!(found(path, "use std::collections::{\n    BTreeMap, HashMap,\n};\n"), [1]);
        assert_eq!(found(path, "let m: std::collections::HashMap<u8, u8> = x;\n"), [1]);
        assert_eq!(found(path, "type M<K, V> = std::collections::HashMap<K, V, Fixed>;\n"), []);
        assert_eq!(found(path, "use std::{fs, fmt};\nuse hashbrown::HashMap;\n"), [1]);
    }

    #[test]
    fn tests_inside_a_machine_are_free() {
        let text =
            "#[cfg(test)]\nmod tests {\n    fn f() { println!(); }\n}\nfn g() { println!() }\n";
        assert_eq!(found("crates/client/src/a.rs", text), [5]);
        assert_eq!(
            found("crates/client/src/a.rs", "#[cfg(test)]\nmod tests;\nuse tokio::x;\n"),
            [3]
        );
    }
}
