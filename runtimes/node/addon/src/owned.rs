//! Values that hold descriptors, and are nothing in a fork of the process that has them.

use mitosis::client::OfProcess;
use mitosis::wire::local::FailureKind;

use crate::failure::Failure;

/// The value, in its own process; `what` it is, for the error.
pub(crate) fn own<'a, T>(value: &'a OfProcess<T>, what: &str) -> Result<&'a T, Failure> {
    value.own().ok_or_else(|| {
        let message = format!(
            "this {what} belongs to another process, of which this one is a fork: only that one can use it"
        );
        Failure::of(FailureKind::Argument, message)
    })
}
