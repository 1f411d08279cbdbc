//! A file, a folder or a pattern, as a user writes it.

use crate::IoError;
use glob::Pattern;
use url::Url;

/// Characters that make a pattern of a path.
const PATTERN: [char; 3] = ['*', '?', '['];

/// A parsed location: the deepest place without a pattern, and the pattern below it.
#[derive(Clone, Debug, PartialEq)]
pub struct Location {
    /// Absolute; ends with a slash where a folder is meant for certain.
    pub url: Url,
    /// What files below `url` must match.
    pub pattern: Option<Pattern>,
    /// As the user wrote it.
    pub text: String,
}

impl Location {
    /// Parses a path or URL.
    ///
    /// # Errors
    ///
    /// [`IoError::Malformed`] if it is neither; whether anything is there is not looked at.
    pub fn parse(text: &str) -> Result<Location, IoError> {
        let malformed = |why: &str| IoError::Malformed(text.to_owned(), why.to_owned());
        if text.is_empty() {
            return Err(malformed("it is empty"));
        }
        let (scheme, rest) = match text.split_once("://") {
            Some(("file", path)) => (None, path),
            Some((scheme, rest)) => (Some(scheme), rest),
            None => (None, text),
        };
        let Some(scheme) = scheme else {
            return Self::local(text, rest);
        };
        // A question mark begins a query over HTTP, and is a pattern elsewhere.
        let is_http = matches!(scheme, "http" | "https");
        let signs = if is_http { &PATTERN[..1] } else { &PATTERN[..] };
        let (fixed, pattern) = split(rest, signs);
        let url = Url::parse(&format!("{scheme}://{fixed}"))
            .map_err(|error| malformed(&error.to_string()))?;
        Self::new(text, url, pattern)
    }

    fn local(text: &str, path: &str) -> Result<Location, IoError> {
        let malformed = |why: &str| IoError::Malformed(text.to_owned(), why.to_owned());
        let path = match path.strip_prefix("~/") {
            Some(below) => match std::env::var("HOME") {
                Ok(home) => format!("{home}/{below}"),
                Err(_) => return Err(malformed("there is no home folder")),
            },
            None => path.to_owned(),
        };
        // A file whose name looks like a pattern is still that file.
        let is_there = std::path::Path::new(&path).exists();
        let signs = if is_there { &PATTERN[..0] } else { &PATTERN[..] };
        let (fixed, pattern) = split(&path, signs);
        let absolute = std::path::absolute(if fixed.is_empty() { "." } else { fixed })
            .map_err(|error| malformed(&error.to_string()))?;
        let url = if fixed.ends_with('/') || pattern.is_some() || absolute.is_dir() {
            Url::from_directory_path(&absolute)
        } else {
            Url::from_file_path(&absolute)
        };
        let url = url.map_err(|()| malformed("it is no path"))?;
        Self::new(text, url, pattern)
    }

    fn new(text: &str, url: Url, pattern: Option<&str>) -> Result<Location, IoError> {
        let pattern = pattern.map(Pattern::new).transpose().map_err(|error| {
            IoError::Malformed(text.to_owned(), format!("the pattern is wrong: {}", error.msg))
        })?;
        Ok(Location { url, pattern, text: text.to_owned() })
    }

    /// Whether it names a folder or a pattern for certain.
    pub fn is_collection(&self) -> bool {
        self.pattern.is_some() || self.url.path().ends_with('/')
    }
}

/// Cuts before the first part with one of the signs in it.
fn split<'a>(path: &'a str, signs: &[char]) -> (&'a str, Option<&'a str>) {
    match path.find(|letter| signs.contains(&letter)) {
        None => (path, None),
        Some(at) => {
            let cut = path[..at].rfind('/').map_or(0, |slash| slash + 1);
            (&path[..cut], Some(&path[cut..]))
        }
    }
}
