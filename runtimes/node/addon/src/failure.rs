//! Rust's errors as JavaScript's: `code` says the kind, the text is Rust's.

use mitosis::client::ClientError;
use mitosis::id::HandleError;
use mitosis::prepare::PrepareError;
use mitosis::wire::local::FailureKind;

/// What becomes an `Error` with a `code`.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

impl Failure {
    /// An argument cannot be right.
    pub(crate) fn argument(message: impl Into<String>) -> Self {
        Failure { code: code_of(FailureKind::Argument), message: message.into() }
    }

    /// A failure of `kind`.
    pub(crate) fn of(kind: FailureKind, message: impl Into<String>) -> Self {
        Failure { code: code_of(kind), message: message.into() }
    }
}

/// Part of the package's interface: a code is never given another meaning.
fn code_of(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::SeedGone => "ERR_MITOSIS_SEED_GONE",
        FailureKind::KeyRefused => "ERR_MITOSIS_KEY_REFUSED",
        FailureKind::NotForkable => "ERR_MITOSIS_NOT_FORKABLE",
        FailureKind::HostUnfit => "ERR_MITOSIS_HOST_UNFIT",
        FailureKind::Unreachable => "ERR_MITOSIS_UNREACHABLE",
        FailureKind::Secret => "ERR_MITOSIS_SECRET",
        FailureKind::Protocol => "ERR_MITOSIS_PROTOCOL",
        FailureKind::Argument => "ERR_MITOSIS_ARGUMENT",
        FailureKind::Limit => "ERR_MITOSIS_LIMIT",
        FailureKind::Missing => "ERR_MITOSIS_MISSING",
        FailureKind::ChildGone => "ERR_MITOSIS_CHILD_GONE",
        // Internal, and what a newer core may add.
        _ => "ERR_MITOSIS",
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Failure::of(error.kind(), error.to_string())
    }
}

impl From<PrepareError> for Failure {
    fn from(error: PrepareError) -> Self {
        Failure::of(error.kind(), error.to_string())
    }
}

impl From<HandleError> for Failure {
    fn from(error: HandleError) -> Self {
        Failure::argument(error.to_string())
    }
}
