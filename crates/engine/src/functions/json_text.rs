//! JSON as text: checked, and looked into without being built.
//!
//! A value is a part of the text it stands in. A reader walks over the text once, and stops at what
//! a path names.

/// Where a text is not JSON.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Malformed {
    pub(super) at: usize,
    pub(super) expected: &'static str,
}

type Result<T> = std::result::Result<T, Malformed>;

/// Objects and lists nested deeper than this are refused.
const DEEPEST: usize = 512;

/// A step from a value to one within it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    Key(String),
    /// From the end, if it is negative.
    Index(i64),
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Reader<'a> {
        Reader { text, at: 0 }
    }

    fn bytes(&self) -> &'a [u8] {
        self.text.as_bytes()
    }

    fn peek(&mut self) -> Option<u8> {
        while matches!(self.bytes().get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        self.bytes().get(self.at).copied()
    }

    fn fail<T>(&self, expected: &'static str) -> Result<T> {
        Err(Malformed { at: self.at, expected })
    }

    fn take(&mut self, sign: u8, expected: &'static str) -> Result<()> {
        match self.peek() {
            Some(found) if found == sign => {
                self.at += 1;
                Ok(())
            }
            _ => self.fail(expected),
        }
    }

    /// Passes over a value; the part of the text that it is.
    fn value(&mut self, depth: usize) -> Result<&'a str> {
        if depth > DEEPEST {
            return self.fail("less nesting");
        }
        let first = self.peek();
        let start = self.at;
        match first {
            Some(b'{') => self.members(depth, |_, reader, _| reader.value(depth + 1).map(drop))?,
            Some(b'[') => self.items(depth, |_, reader, _| reader.value(depth + 1).map(drop))?,
            Some(b'"') => drop(self.string()?),
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(b't') => self.word("true")?,
            Some(b'f') => self.word("false")?,
            Some(b'n') => self.word("null")?,
            _ => return self.fail("a value"),
        }
        Ok(&self.text[start..self.at])
    }

    fn word(&mut self, word: &'static str) -> Result<()> {
        match self.text[self.at..].starts_with(word) {
            true => {
                self.at += word.len();
                Ok(())
            }
            false => self.fail(word),
        }
    }

    fn digits(&mut self) -> Result<()> {
        let start = self.at;
        while matches!(self.bytes().get(self.at), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { self.fail("a digit") } else { Ok(()) }
    }

    fn number(&mut self) -> Result<()> {
        if self.bytes()[self.at] == b'-' {
            self.at += 1;
        }
        if self.bytes().get(self.at) == Some(&b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.bytes().get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.bytes().get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.bytes().get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    /// The inside of a string, with its escapes.
    fn string(&mut self) -> Result<&'a str> {
        self.take(b'"', "a string")?;
        let start = self.at;
        loop {
            match self.bytes().get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(&self.text[start..self.at - 1]);
                }
                Some(b'\\') => self.at += 2,
                Some(0..=0x1f) | None => return self.fail("the end of a string"),
                Some(_) => self.at += 1,
            }
        }
    }

    /// Calls `each` before the value of every member; it passes over the value.
    fn members(
        &mut self,
        _depth: usize,
        mut each: impl FnMut(&'a str, &mut Self, usize) -> Result<()>,
    ) -> Result<()> {
        self.take(b'{', "an object")?;
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        for n in 0.. {
            self.peek();
            let key = self.string()?;
            self.take(b':', "a colon")?;
            each(key, self, n)?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                _ => return self.fail("a comma or the end of an object"),
            }
        }
        self.at += 1;
        Ok(())
    }

    /// The same for every item of a list.
    fn items(
        &mut self,
        _depth: usize,
        mut each: impl FnMut(&'a str, &mut Self, usize) -> Result<()>,
    ) -> Result<()> {
        self.take(b'[', "a list")?;
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        for n in 0.. {
            each("", self, n)?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => return self.fail("a comma or the end of a list"),
            }
        }
        self.at += 1;
        Ok(())
    }
}

/// The whole text as a value, if it is one.
pub(super) fn check(text: &str) -> Result<&str> {
    let mut reader = Reader::new(text);
    let value = reader.value(0)?;
    match reader.peek() {
        None => Ok(value),
        Some(_) => reader.fail("the end of the text"),
    }
}

/// The value that the steps lead to; nothing if there is none.
pub(super) fn find<'a>(text: &'a str, steps: &[Step]) -> Result<Option<&'a str>> {
    let mut value = check(text)?;
    for step in steps {
        let found = match step {
            Step::Key(key) => member(value, key)?,
            Step::Index(at) => at_index(value, *at)?,
        };
        match found {
            Some(inner) => value = inner,
            None => return Ok(None),
        }
    }
    Ok(Some(value))
}

fn member<'a>(value: &'a str, wanted: &str) -> Result<Option<&'a str>> {
    if !value.starts_with('{') {
        return Ok(None);
    }
    let mut found = None;
    Reader::new(value).members(0, |key, reader, _| {
        let inner = reader.value(1)?;
        if found.is_none() && unescaped(key) == wanted {
            found = Some(inner);
        }
        Ok(())
    })?;
    Ok(found)
}

fn at_index(value: &str, at: i64) -> Result<Option<&str>> {
    let Some(all) = items(value)? else { return Ok(None) };
    let at = if at < 0 { at + all.len() as i64 } else { at };
    Ok(usize::try_from(at).ok().and_then(|at| all.get(at).copied()))
}

/// The items of a list; nothing if it is no list.
pub(super) fn items(value: &str) -> Result<Option<Vec<&str>>> {
    if !value.starts_with('[') {
        return Ok(None);
    }
    let mut all = Vec::new();
    Reader::new(value).items(0, |_, reader, _| {
        all.push(reader.value(1)?);
        Ok(())
    })?;
    Ok(Some(all))
}

/// The keys of an object; nothing if it is no object.
pub(super) fn keys(value: &str) -> Result<Option<Vec<String>>> {
    if !value.starts_with('{') {
        return Ok(None);
    }
    let mut all = Vec::new();
    Reader::new(value).members(0, |key, reader, _| {
        all.push(unescaped(key));
        reader.value(1).map(drop)
    })?;
    Ok(Some(all))
}

/// A value without the blanks between its parts.
pub(super) fn compact(value: &str) -> String {
    let mut made = String::with_capacity(value.len());
    let (mut inside, mut escaped) = (false, false);
    for letter in value.chars() {
        if !inside && letter.is_ascii_whitespace() {
            continue;
        }
        match letter {
            '"' if !escaped => inside = !inside,
            _ => {}
        }
        escaped = inside && letter == '\\' && !escaped;
        made.push(letter);
    }
    made
}

/// A value as a text of its own: strings without quotes, everything else as it is written.
pub(super) fn as_text(value: &str) -> Option<String> {
    match value.as_bytes().first() {
        Some(b'"') => Some(unescaped(&value[1..value.len() - 1])),
        Some(b'n') => None,
        _ => Some(compact(value)),
    }
}

fn unescaped(inside: &str) -> String {
    if !inside.contains('\\') {
        return inside.to_owned();
    }
    let mut made = String::with_capacity(inside.len());
    let mut letters = inside.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            made.push(letter);
            continue;
        }
        match letters.next() {
            Some('n') => made.push('\n'),
            Some('t') => made.push('\t'),
            Some('r') => made.push('\r'),
            Some('b') => made.push('\u{8}'),
            Some('f') => made.push('\u{c}'),
            Some('u') => made.push(unicode(&mut letters)),
            Some(other) => made.push(other),
            None => {}
        }
    }
    made
}

/// Four hexadecimal digits, or two times four for what needs a pair.
fn unicode(letters: &mut std::str::Chars) -> char {
    let four = |letters: &mut std::str::Chars| {
        let digits: String = letters.by_ref().take(4).collect();
        u32::from_str_radix(&digits, 16).unwrap_or(0xfffd)
    };
    let first = four(letters);
    if (0xd800..0xdc00).contains(&first) && letters.as_str().starts_with("\\u") {
        let mut ahead = letters.clone();
        ahead.nth(1);
        let second = four(&mut ahead);
        if (0xdc00..0xe000).contains(&second) {
            *letters = ahead;
            let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
            return char::from_u32(code).unwrap_or('\u{fffd}');
        }
    }
    char::from_u32(first).unwrap_or('\u{fffd}')
}

/// The steps of a path: `$.a.b[0]`, `/a/b/0`, or one key.
pub(super) fn path(text: &str) -> std::result::Result<Vec<Step>, String> {
    let Some(rest) = text.strip_prefix('$') else {
        if let Some(rest) = text.strip_prefix('/') {
            let steps = rest.split('/').map(|part| match part.parse() {
                Ok(at) => Step::Index(at),
                Err(_) => Step::Key(part.replace("~1", "/").replace("~0", "~")),
            });
            return Ok(steps.collect());
        }
        return Ok(vec![Step::Key(text.to_owned())]);
    };
    let mut steps = Vec::new();
    let mut rest = rest;
    while !rest.is_empty() {
        let broken = || format!("'{text}' is no path into JSON, at '{rest}'; write $.key[0]");
        if let Some(after) = rest.strip_prefix(".\"") {
            let end = after.find('"').ok_or_else(broken)?;
            steps.push(Step::Key(after[..end].to_owned()));
            rest = &after[end + 1..];
        } else if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            if end == 0 || &after[..end] == "*" {
                return Err(broken());
            }
            steps.push(Step::Key(after[..end].to_owned()));
            rest = &after[end..];
        } else if let Some(after) = rest.strip_prefix('[') {
            let end = after.find(']').ok_or_else(broken)?;
            let inside = after[..end].trim_matches(['\'', '"']);
            let is_key = inside.len() != end;
            let inside = inside.strip_prefix('#').filter(|_| !is_key).unwrap_or(inside);
            match (is_key, inside.parse()) {
                (false, Ok(at)) => steps.push(Step::Index(at)),
                (true, _) => steps.push(Step::Key(inside.to_owned())),
                _ => return Err(broken()),
            }
            rest = &after[end + 1..];
        } else {
            return Err(broken());
        }
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, steps: &str) -> Option<String> {
        find(text, &path(steps).unwrap()).unwrap().map(str::to_owned)
    }

    #[test]
    fn a_path_leads_to_a_value() {
        let text = r#" {"a": {"b c": [1, {"d": "x"}]}, "e": null} "#;
        assert_eq!(at(text, r#"$.a."b c"[1].d"#).as_deref(), Some("\"x\""));
        assert_eq!(at(text, "$.a['b c'][0]").as_deref(), Some("1"));
        assert_eq!(at(text, "$.a.b").as_deref(), None);
        assert_eq!(at(text, "/a/b c/-1/d").as_deref(), Some("\"x\""));
        assert_eq!(at(text, "e").as_deref(), Some("null"));
        assert_eq!(at(text, "$").as_deref(), Some(text.trim()));
        assert!(path("$.").is_err() && path("$[x").is_err() && path("$x").is_err());
    }

    #[test]
    fn what_is_not_json_is_refused_where_it_breaks() {
        for text in ["", "{", "[1,]", "{\"a\" 1}", "01", "1 2", "\"a", "nul", "{a: 1}", "-", "1."] {
            assert!(check(text).is_err(), "{text}");
        }
        assert_eq!(check("[1, x]"), Err(Malformed { at: 4, expected: "a value" }));
        assert!(check(&"[".repeat(100_000)).is_err());
        for text in ["0", "-1.5e+3", "[]", "{}", "\"\\u00e9\"", " true "] {
            assert!(check(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn strings_lose_their_escapes_and_nothing_else_changes() {
        assert_eq!(as_text(r#""a\"b\n\u00e9\ud83d\ude00""#).unwrap(), "a\"b\né😀");
        assert_eq!(as_text("null"), None);
        assert_eq!(compact("{ \"a b\" : [ 1, \" \\\" x\" ] }"), "{\"a b\":[1,\" \\\" x\"]}");
    }
}
