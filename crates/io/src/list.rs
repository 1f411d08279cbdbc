//! What is at a location.

use crate::{IoError, Location};
use futures::TryStreamExt;
use glob::MatchOptions;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};

/// Stars stay within a folder; `**` does not.
const MATCHING: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};

/// A file that was found.
#[derive(Clone, Debug)]
pub struct FoundFile {
    pub meta: ObjectMeta,
    /// Its path below the location: where the keys of hive partitions stand.
    pub below: String,
}

/// The files at a location, sorted by path; never none.
///
/// # Errors
///
/// Missing files, empty folders, patterns that nothing matches, and what the store says.
pub async fn list(store: &dyn ObjectStore, at: &Location) -> Result<Vec<FoundFile>, IoError> {
    let of = |error| IoError::of(&at.text, error);
    let path = Path::from_url_path(at.url.path())
        .map_err(|error| IoError::Malformed(at.text.clone(), error.to_string()))?;
    let is_http = matches!(at.url.scheme(), "http" | "https");
    if is_http && at.is_collection() {
        return Err(IoError::NotListed(at.text.clone()));
    }
    if !at.is_collection() {
        match store.head(&path).await {
            Ok(meta) => return Ok(vec![FoundFile { meta, below: String::new() }]),
            // It may be a folder that was named without its slash.
            Err(object_store::Error::NotFound { .. }) if !is_http => {}
            Err(error) => return Err(of(error)),
        }
    }
    check_local(at)?;
    let all: Vec<ObjectMeta> = store.list(Some(&path)).try_collect().await.map_err(of)?;
    let mut found: Vec<FoundFile> =
        all.into_iter().filter_map(|meta| fit(at, &path, meta)).collect();
    if found.is_empty() {
        let text = at.text.clone();
        return Err(match &at.pattern {
            Some(_) => IoError::NothingMatches(text),
            None if at.is_collection() => IoError::EmptyFolder(text),
            None => IoError::Missing(text),
        });
    }
    found.sort_by(|a, b| a.meta.location.cmp(&b.meta.location));
    Ok(found)
}

/// A folder that is missing, or may not be read, lists as an empty one.
fn check_local(at: &Location) -> Result<(), IoError> {
    if at.url.scheme() != "file" {
        return Ok(());
    }
    let Ok(folder) = at.url.to_file_path() else { return Ok(()) };
    match std::fs::read_dir(&folder) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            Err(IoError::Denied { place: at.text.clone(), reason: "permission denied".into() })
        }
        Err(_) if at.pattern.is_some() => Err(IoError::NothingMatches(at.text.clone())),
        Err(_) => Err(IoError::Missing(at.text.clone())),
    }
}

fn fit(at: &Location, folder: &Path, meta: ObjectMeta) -> Option<FoundFile> {
    let below: String = meta
        .location
        .prefix_match(folder)?
        .map(|part| part.as_ref().to_owned())
        .collect::<Vec<_>>()
        .join("/");
    if below.is_empty() {
        return None;
    }
    let fits = match &at.pattern {
        Some(pattern) => {
            // A pattern may name folders: then all files in them are meant.
            let parts: Vec<&str> = below.split('/').collect();
            let n_parts = pattern.as_str().trim_end_matches('/').split('/').count();
            let prefix = parts[..n_parts.min(parts.len())].join("/");
            let is_hidden = |part: &&str| is_hidden(part);
            pattern.matches_with(&below, MATCHING)
                || (parts.len() > n_parts
                    && pattern.matches_with(&prefix, MATCHING)
                    && !parts[n_parts..].iter().any(is_hidden))
        }
        None => !below.split('/').any(is_hidden),
    };
    fits.then_some(FoundFile { meta, below })
}

fn is_hidden(part: &str) -> bool {
    // Keys of partitions may begin with an underscore.
    part.starts_with('.') || (part.starts_with('_') && !part.contains('='))
}
