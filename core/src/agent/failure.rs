//! Failures as they go over a wire.

use crate::id::SeedId;
use crate::wire::local::{Failure, FailureKind};

/// A failure of a kind.
pub fn fail(kind: FailureKind, message: impl Into<String>) -> Failure {
    Failure { kind, message: message.into() }
}

/// The seed of a handle without an address is not there: it may be another host's.
pub fn no_local_seed(failure: Failure) -> Failure {
    if failure.kind != FailureKind::SeedGone {
        return failure;
    }
    let text = format!(
        "{}; a handle with 'local' is good on the host that made it alone: for others, start the agent there with \
         --listen and --secret-file and prepare again",
        failure.message
    );
    fail(failure.kind, text)
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
