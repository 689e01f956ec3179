//! Rust's errors as the exceptions of `mitosis._errors`: the class says the kind, the text is Rust's.

use mitosis::client::ClientError;
use mitosis::id::HandleError;
use mitosis::prepare::PrepareError;
use mitosis::wire::local::FailureKind;
use pyo3::prelude::*;

/// The exception for a failure of `kind` with `message`.
pub(crate) fn exception(py: Python<'_>, kind: FailureKind, message: String) -> PyErr {
    named(py, class_of(kind), message)
}

/// The exception of class `class` with `message`.
fn named(py: Python<'_>, class: &str, message: String) -> PyErr {
    let made = py
        .import("mitosis._errors")
        .and_then(|errors| errors.getattr(class))
        .and_then(|class| class.call1((message,)));
    match made {
        Ok(exception) => PyErr::from_value(exception),
        Err(error) => error,
    }
}

fn class_of(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::SeedGone => "SeedGone",
        FailureKind::KeyRefused => "KeyRefused",
        FailureKind::NotForkable => "NotForkable",
        FailureKind::HostUnfit => "HostUnfit",
        FailureKind::Unreachable => "Unreachable",
        FailureKind::Secret => "SecretError",
        FailureKind::Protocol => "ProtocolError",
        FailureKind::Argument => "ArgumentError",
        FailureKind::Limit => "LimitError",
        FailureKind::Missing => "MissingError",
        FailureKind::ChildGone => "ChildGone",
        // Internal, and what a newer core may add.
        _ => "Error",
    }
}

/// What this module's callers have to raise.
pub(crate) trait Raise<T> {
    /// The value, or the exception that the error stands for.
    fn or_raise(self, py: Python<'_>) -> PyResult<T>;
}

impl<T> Raise<T> for Result<T, ClientError> {
    fn or_raise(self, py: Python<'_>) -> PyResult<T> {
        self.map_err(|error| exception(py, error.kind(), error.to_string()))
    }
}

impl<T> Raise<T> for Result<T, PrepareError> {
    fn or_raise(self, py: Python<'_>) -> PyResult<T> {
        self.map_err(|error| exception(py, error.kind(), error.to_string()))
    }
}

impl<T> Raise<T> for Result<T, HandleError> {
    fn or_raise(self, py: Python<'_>) -> PyResult<T> {
        self.map_err(|error| exception(py, FailureKind::Argument, error.to_string()))
    }
}
