//! Exceptions to failures and back, by way of `rasker._failure`.

use crate::values::{Encoded, Object, to_blob};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use rasker_protocol::{Failure, FailureKind};
use std::sync::Arc;

/// What an exception says of the task that raised it. Where runner and caller share a process the
/// exception itself is kept.
pub fn pack(py: Python<'_>, error: &PyErr, key: String, shares_objects: bool) -> Arc<Failure> {
    if let Some(traceback) = error.traceback(py) {
        let _ = error.value(py).setattr("__traceback__", traceback);
    }
    let packed = py
        .import("rasker._failure")
        .and_then(|module| module.call_method1("pack", (error.value(py), &key)))
        .and_then(|packed| packed.extract::<(Bound<'_, PyBytes>, String, String)>());
    let mut failure = Failure::new(FailureKind::Exception, key, String::new());
    match packed {
        Ok((bytes, text, traceback)) => {
            failure.error = bytes.as_bytes().to_vec().into();
            failure.text = text;
            failure.traceback = traceback;
        }
        Err(other) => failure.text = format!("{error} (and it could not be packed: {other})"),
    }
    if shares_objects {
        failure.error = to_blob(error.value(py).clone().into_any());
    }
    Arc::new(failure)
}

/// The exception that a failure stands for.
pub fn to_exception<'py>(py: Python<'py>, failure: &Failure) -> PyResult<Bound<'py, PyAny>> {
    if let Some(object) = failure.error.local::<Object>() {
        return Ok(object.0.bind(py).clone());
    }
    let error = Encoded::of(&failure.error)?;
    let bytes = error.bytes();
    let kind = match failure.kind {
        FailureKind::Exception => "exception",
        FailureKind::Killed => "killed",
        FailureKind::Lost => "lost",
        FailureKind::Unpicklable => "unpicklable",
        FailureKind::Cancelled => "cancelled",
        FailureKind::OutOfMemory => "memory",
    };
    let arguments = (
        kind,
        &failure.key,
        PyBytes::new(py, bytes),
        &failure.text,
        &failure.traceback,
        failure.attempts,
        &failure.worker,
        failure.history.clone(),
    );
    py.import("rasker._failure")?.call_method1("unpack", arguments)
}

/// Raises what a failure stands for.
pub fn raise(py: Python<'_>, failure: &Failure) -> PyErr {
    match to_exception(py, failure) {
        Ok(exception) => PyErr::from_value(exception),
        Err(error) => error,
    }
}
