//! Tells code, comments and literals apart, line by line, for Rust and for Python.
//!
//! This is no parser: it knows just enough of both lexical grammars that a word in a string is
//! never taken for code, and a brace in a comment never for a block.

/// The languages whose lines are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    Rust,
    Python,
}

impl Language {
    pub fn of(path: &str) -> Option<Language> {
        match path.rsplit_once('.')?.1 {
            "rs" => Some(Language::Rust),
            "py" | "pyi" => Some(Language::Python),
            _ => None,
        }
    }
}

/// One line of a file, taken apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    /// The line as written.
    pub text: String,
    /// Code without comments and without what stands inside literals; the quotes remain.
    pub code: String,
    /// The text of comments, with their markers.
    pub comment: String,
    /// The text of a Python docstring.
    pub prose: String,
    /// How many characters stand inside literals.
    pub n_literal: usize,
    /// The whole line stands inside a literal that began above it.
    pub inside_literal: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Code,
    BlockComment { depth: usize },
    Quoted { quote: char, n_quotes: usize, escapes: bool, docstring: bool },
    Raw { n_hashes: usize },
}

/// Takes `text` apart into lines; the first is line 1 at index 0.
pub fn scan(language: Language, text: &str) -> Vec<Line> {
    let mut state = State::Code;
    text.lines()
        .map(|text| {
            let mut scanner = Scanner {
                language,
                chars: text.chars().collect(),
                at: 0,
                state,
                line: Line { text: text.to_owned(), ..Line::default() },
            };
            scanner.run();
            state = scanner.state;
            scanner.line
        })
        .collect()
}

struct Scanner {
    language: Language,
    chars: Vec<char>,
    at: usize,
    state: State,
    line: Line,
}

impl Scanner {
    fn run(&mut self) {
        let began_inside = matches!(self.state, State::Quoted { .. } | State::Raw { .. });
        while self.at < self.chars.len() {
            match self.state {
                State::Code => self.code(),
                State::BlockComment { depth } => self.block_comment(depth),
                State::Quoted { quote, n_quotes, escapes, docstring } => {
                    self.quoted(quote, n_quotes, escapes, docstring);
                }
                State::Raw { n_hashes } => self.raw(n_hashes),
            }
        }
        self.line.inside_literal = began_inside && self.line.code.trim_matches('"').is_empty();
        let single = matches!(self.state, State::Quoted { n_quotes: 1, .. });
        if single && self.language == Language::Python && !self.line.text.ends_with('\\') {
            self.state = State::Code;
        }
    }

    fn peek(&self, offset: usize) -> Option<char> {
        self.chars.get(self.at + offset).copied()
    }

    fn code(&mut self) {
        match (self.language, self.chars[self.at]) {
            (Language::Rust, '/') if self.peek(1) == Some('/') => self.line_comment(),
            (Language::Python, '#') => self.line_comment(),
            (Language::Rust, '/') if self.peek(1) == Some('*') => {
                self.state = State::BlockComment { depth: 0 };
            }
            (Language::Rust, '"') => self.open('"', 1, true, false),
            (Language::Rust, 'r') if self.opens_raw().is_some() => {
                let n_hashes = self.opens_raw().unwrap_or_default();
                self.at += 2 + n_hashes;
                self.line.code.push('"');
                self.state = State::Raw { n_hashes };
            }
            (Language::Rust, '\'') => self.char_or_lifetime(),
            (Language::Python, quote @ ('"' | '\'')) => {
                let triple = self.peek(1) == Some(quote) && self.peek(2) == Some(quote);
                let before = self.line.code.trim();
                let docstring = triple && matches!(before, "" | "r" | "u" | "R");
                self.open(quote, if triple { 3 } else { 1 }, true, docstring);
            }
            (_, char) => {
                self.line.code.push(char);
                self.at += 1;
            }
        }
    }

    fn open(&mut self, quote: char, n_quotes: usize, escapes: bool, docstring: bool) {
        self.line.code.push('"');
        self.at += n_quotes;
        self.state = State::Quoted { quote, n_quotes, escapes, docstring };
    }

    fn line_comment(&mut self) {
        self.line.comment.extend(&self.chars[self.at..]);
        self.at = self.chars.len();
    }

    fn block_comment(&mut self, depth: usize) {
        let pair = (self.chars[self.at], self.peek(1));
        let (taken, state) = match pair {
            ('/', Some('*')) => (2, State::BlockComment { depth: depth + 1 }),
            ('*', Some('/')) if depth == 1 => (2, State::Code),
            ('*', Some('/')) => (2, State::BlockComment { depth: depth - 1 }),
            _ => (1, self.state),
        };
        self.line.comment.extend(&self.chars[self.at..self.at + taken]);
        self.at += taken;
        self.state = state;
    }

    fn quoted(&mut self, quote: char, n_quotes: usize, escapes: bool, docstring: bool) {
        let char = self.chars[self.at];
        let closes = (0..n_quotes).all(|offset| self.peek(offset) == Some(quote));
        if closes {
            self.at += n_quotes;
            self.line.code.push('"');
            self.state = State::Code;
            return;
        }
        let taken = if escapes && char == '\\' { 2.min(self.chars.len() - self.at) } else { 1 };
        if docstring {
            self.line.prose.extend(&self.chars[self.at..self.at + taken]);
        }
        self.line.n_literal += taken;
        self.at += taken;
    }

    fn raw(&mut self, n_hashes: usize) {
        let hashes = (1..=n_hashes).all(|offset| self.peek(offset) == Some('#'));
        if self.chars[self.at] == '"' && hashes {
            self.at += 1 + n_hashes;
            self.line.code.push('"');
            self.state = State::Code;
        } else {
            self.at += 1;
            self.line.n_literal += 1;
        }
    }

    /// The number of hashes if a raw string opens at the `r` under the cursor.
    fn opens_raw(&self) -> Option<usize> {
        let mut before = self.line.code.chars().rev();
        let mut previous = before.next();
        if matches!(previous, Some('b' | 'c')) {
            previous = before.next();
        }
        if previous.is_some_and(is_word) {
            return None;
        }
        let n_hashes = self.chars[self.at + 1..].iter().take_while(|c| **c == '#').count();
        (self.peek(1 + n_hashes) == Some('"')).then_some(n_hashes)
    }

    fn char_or_lifetime(&mut self) {
        let length = match (self.peek(1), self.peek(2)) {
            (Some('\\'), _) => {
                // The escaped character itself may be a quote, so the search starts behind it.
                let rest = &self.chars[(self.at + 3).min(self.chars.len())..];
                rest.iter().position(|c| *c == '\'').map(|found| found + 4)
            }
            (Some(_), Some('\'')) => Some(3),
            _ => None,
        };
        match length {
            Some(length) => {
                self.line.code.push_str("''");
                self.line.n_literal += length - 2;
                self.at += length;
            }
            None => {
                self.line.code.push('\'');
                self.at += 1;
            }
        }
    }
}

pub fn is_word(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

/// The places where `word` stands in `code` as a whole word.
pub fn find_word(code: &str, word: &str) -> Option<usize> {
    code.match_indices(word).map(|(at, _)| at).find(|at| {
        let before = code[..*at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(language: Language, text: &str) -> Vec<String> {
        scan(language, text).into_iter().map(|line| line.code).collect()
    }

    #[test]
    fn rust_literals_and_comments_are_not_code() {
        let text =
            "let a = \"x // { \\\" y\"; // tail {\nlet b = r#\"q\" } \"#; let c = '}'; &'a T";
        assert_eq!(
            code(Language::Rust, text),
            ["let a = \"\"; ", "let b = \"\"; let c = ''; &'a T"]
        );
    }

    #[test]
    fn rust_block_comments_nest_and_span_lines() {
        let text = "a /* one /* two */ still\n */ b\nlet q = '\\''; c";
        assert_eq!(code(Language::Rust, text), ["a ", " b", "let q = ''; c"]);
    }

    #[test]
    fn rust_strings_span_lines() {
        let lines = scan(Language::Rust, "let a = \"one {\ntwo }\nthree\"; f()");
        assert_eq!(lines[0].code, "let a = \"");
        assert!(lines[1].inside_literal);
        assert_eq!(lines[2].code, "\"; f()");
    }

    #[test]
    fn python_docstrings_are_prose_and_hashes_in_strings_are_not_comments() {
        let lines = scan(
            Language::Python,
            "def f():\n    \"\"\"One.\n\n    # two\n    \"\"\"\n    a = '#' # no",
        );
        assert_eq!(lines[1].prose, "One.");
        assert_eq!(lines[3].prose.trim(), "# two");
        assert!(lines[3].inside_literal);
        assert_eq!((lines[5].code.trim(), lines[5].comment.as_str()), ("a = \"\"", "# no"));
    }

    #[test]
    fn a_word_is_found_only_whole() {
        assert_eq!(find_word("unsafe_code unsafe {", "unsafe"), Some(12));
        assert_eq!(find_word("not_unsafe", "unsafe"), None);
    }
}
