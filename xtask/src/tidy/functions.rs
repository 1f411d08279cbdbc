//! Finds functions and their extents.

use super::source::{Language, Line, is_word};

/// A function's name, its first line and the lines of its body that count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    pub name: String,
    pub line: usize,
    pub n_lines: usize,
}

/// Every function of a file, nested ones included; lines inside literals do not count.
pub fn find(language: Language, lines: &[Line]) -> Vec<Function> {
    match language {
        Language::Rust => find_rust(lines),
        Language::Python => find_python(lines),
    }
}

fn measure(name: String, lines: &[Line], first: usize, last: usize) -> Function {
    let n_lines = lines[first..=last].iter().filter(|line| !line.inside_literal).count();
    Function { name, line: first + 1, n_lines }
}

/// A function whose body has not ended: where it began, and the depth of braces around it.
struct Open {
    name: String,
    first: usize,
    depth: usize,
    nesting: usize,
    has_body: bool,
}

fn find_rust(lines: &[Line]) -> Vec<Function> {
    let mut found = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    let (mut depth, mut nesting) = (0_usize, 0_usize);
    for (number, line) in lines.iter().enumerate() {
        for (at, char) in line.code.char_indices() {
            if char == 'f'
                && let Some(name) = function_name(&line.code, at)
            {
                open.push(Open { name, first: number, depth, nesting, has_body: false });
            }
            match char {
                '(' | '[' => nesting += 1,
                ')' | ']' => nesting = nesting.saturating_sub(1),
                '{' => {
                    if let Some(last) = open.last_mut()
                        && (depth, nesting) == (last.depth, last.nesting)
                    {
                        last.has_body = true;
                    }
                    depth += 1;
                }
                '}' => {
                    depth = depth.saturating_sub(1);
                    if open.last().is_some_and(|last| last.has_body && last.depth == depth) {
                        let Open { name, first, .. } = open.pop().expect("just looked at");
                        found.push(measure(name, lines, first, number));
                    }
                }
                ';' => {
                    // A declaration without a body: in a trait, or foreign.
                    let bare = |last: &Open| {
                        !last.has_body && (last.depth, last.nesting) == (depth, nesting)
                    };
                    if open.last().is_some_and(bare) {
                        open.pop();
                    }
                }
                _ => {}
            }
        }
    }
    found
}

fn function_name(code: &str, at: usize) -> Option<String> {
    let rest = code[at..].strip_prefix("fn ")?.trim_start();
    if code[..at].chars().next_back().is_some_and(is_word) {
        return None;
    }
    let name: String = rest.chars().take_while(|c| is_word(*c)).collect();
    (!name.is_empty()).then_some(name)
}

fn find_python(lines: &[Line]) -> Vec<Function> {
    let is_code = |line: &Line| !line.inside_literal && !line.code.trim().is_empty();
    let indent = |line: &Line| line.code.len() - line.code.trim_start().len();
    let mut found = Vec::new();
    for (first, line) in lines.iter().enumerate() {
        let code = line.code.trim_start();
        let code = code.strip_prefix("async ").unwrap_or(code);
        let Some(rest) = code.strip_prefix("def ") else {
            continue;
        };
        let name: String = rest.chars().take_while(|c| is_word(*c)).collect();
        // The head may span lines and close at the indentation of its `def`.
        // In a stub the body is an ellipsis behind it.
        let ends_head = |code: &str| code.ends_with(':') || code.ends_with(": ...");
        let head = (first..lines.len()).find(|n| ends_head(lines[*n].code.trim_end()));
        let head = head.unwrap_or(first);
        let mut last = head;
        for (number, other) in lines.iter().enumerate().skip(head + 1) {
            if is_code(other) {
                if indent(other) <= indent(line) {
                    break;
                }
                last = number;
            }
        }
        found.push(measure(name, lines, first, last));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::source::scan;
    use super::*;

    fn extents(language: Language, text: &str) -> Vec<(String, usize, usize)> {
        let functions = find(language, &scan(language, text));
        functions.into_iter().map(|f| (f.name, f.line, f.n_lines)).collect()
    }

    #[test]
    fn rust_functions_end_at_their_own_brace() {
        let text = "trait T { fn a(&self) -> [u8; 2]; }\nfn b(\n    x: u8,\n) {\n    if x > 0 {\n    }\n    \
                    fn c() {}\n}\nlet p: fn(u8) = d;\n";
        let expected = [("c".to_owned(), 7, 1), ("b".to_owned(), 2, 7)];
        assert_eq!(extents(Language::Rust, text), expected);
    }

    #[test]
    fn python_functions_end_at_their_last_deeper_line() {
        let text = "def a(\n    x,\n):\n    \"\"\"One.\n    two\n    \"\"\"\n    return x\n\n\nclass B:\n    \
                    async def c(self):\n        pass\n\n    y = 1\n";
        let expected = [("a".to_owned(), 1, 5), ("c".to_owned(), 11, 2)];
        assert_eq!(extents(Language::Python, text), expected);
    }

    #[test]
    fn functions_of_a_stub_end_with_their_heads() {
        let text = "def a(\n    x: int,\n) -> int: ...  # one\ndef b() -> None: ...\nclass C:\n    \
                    x: int\n";
        let expected = [("a".to_owned(), 1, 3), ("b".to_owned(), 4, 1)];
        assert_eq!(extents(Language::Python, text), expected);
    }
}
