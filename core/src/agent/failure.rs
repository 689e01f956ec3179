//! Failures as they go over a wire.

use crate::id::SeedId;
use crate::wire::local::{Failure, FailureKind};

/// A failure of a kind.
pub fn fail(kind: FailureKind, message: impl Into<String>) -> Failure {
    Failure { kind, message: message.into() }
}

/// The seed is not there.
pub fn seed_gone(id: SeedId) -> Failure {
    fail(
        FailureKind::SeedGone,
        format!(
            "there is no seed {id} here: it was dropped, has ended with its last child, or was never prepared"
        ),
    )
}
