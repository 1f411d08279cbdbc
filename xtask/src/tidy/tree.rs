//! The files of the project: what is written by hand, not what is built, fetched or measured.

use std::fs;
use std::io;
use std::path::Path;

/// One text file, with its path from the root in forward slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub path: String,
    pub text: String,
}

impl File {
    #[cfg(test)]
    pub fn new(path: &str, text: &str) -> File {
        File { path: path.to_owned(), text: text.to_owned() }
    }

    /// The crate this file belongs to, and its path inside it: `("graph", "src/lib.rs")`.
    pub fn in_crate(&self) -> Option<(&str, &str)> {
        self.path.strip_prefix("crates/")?.split_once('/')
    }

    /// The file's name without its last extension.
    pub fn stem(&self) -> &str {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        name.rsplit_once('.').map_or(name, |(stem, _)| stem)
    }
}

const READ: &[&str] = &["rs", "py", "pyi", "toml", "md"];
const BUILT: &[&str] = &["target", "dist", "build", "__pycache__", "node_modules"];

/// Reads the tree below `root`, in the order of its paths.
pub fn walk(root: &Path) -> io::Result<Vec<File>> {
    let mut files = Vec::new();
    descend(root, "", &mut files)?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn descend(folder: &Path, prefix: &str, files: &mut Vec<File>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{prefix}{name}");
        let kind = entry.file_type()?;
        if kind.is_dir() {
            let built = BUILT.contains(&name.as_str()) || name.ends_with(".egg-info");
            if !built && !name.starts_with('.') {
                descend(&entry.path(), &format!("{path}/"), files)?;
            }
        } else if kind.is_file() {
            let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
            if READ.contains(&extension) {
                files.push(File { path, text: fs::read_to_string(entry.path())? });
            }
        }
    }
    Ok(())
}
