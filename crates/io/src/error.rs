//! What can go wrong before a byte is read.

use thiserror::Error;

#[derive(Debug, Error)]
pub enum IoError {
    #[error("no file is at {0}; check the spelling, and that the path is seen from here")]
    Missing(String),
    #[error("no file matches {0}; the pattern is right, but nothing there fits it")]
    NothingMatches(String),
    #[error("the folder {0} holds no data files; names that begin with '.' or '_' do not count")]
    EmptyFolder(String),
    #[error("{place} may not be read: {reason}; check permissions or credentials")]
    Denied { place: String, reason: String },
    #[error("{0} is not a location: {1}; give a path, or a URL such as s3://bucket/key")]
    Malformed(String, String),
    #[error("{scheme}:// is not supported{hint}; use file, s3, gs, az, abfs, http or https")]
    Scheme { scheme: String, hint: &'static str },
    #[error("the option {name} is not known for {scheme}://; known are {known}")]
    Option { scheme: String, name: String, known: &'static str },
    #[error("{place} could not be reached: {reason}")]
    Unreachable { place: String, reason: String },
    #[error("{0}: files over HTTP cannot be listed; name each file")]
    NotListed(String),
}

impl IoError {
    /// From a store's error, with the place as the user knows it.
    pub fn of(place: &str, error: object_store::Error) -> IoError {
        use object_store::Error;
        let place = place.to_owned();
        match error {
            Error::NotFound { .. } => IoError::Missing(place),
            Error::PermissionDenied { .. } => {
                IoError::Denied { place, reason: "permission denied".into() }
            }
            Error::Unauthenticated { .. } => {
                IoError::Denied { place, reason: "the credentials were not accepted".into() }
            }
            other => {
                let reason = first_cause(&other);
                if reason.contains("Permission denied") {
                    IoError::Denied { place, reason: "permission denied".into() }
                } else {
                    IoError::Unreachable { place, reason }
                }
            }
        }
    }
}

/// The innermost cause, which names what happened; those around it name code.
fn first_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
