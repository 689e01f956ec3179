//! Values that hold descriptors, and are nothing in a fork of the process that has them.

use std::mem;

use mitosis::prepare::generation;
use mitosis::wire::local::FailureKind;

use crate::failure::Failure;

/// A value of one process: in a fork of it the descriptors may be somebody else's.
#[derive(Debug)]
pub(crate) struct OfProcess<T> {
    /// Always there but while it is dropped.
    value: Option<T>,
    owner: Process,
}

/// Which process this is: a process id may come again on another host, a generation not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process(u32, u64);

impl Process {
    fn this() -> Self {
        Process(std::process::id(), generation())
    }
}

impl<T> OfProcess<T> {
    /// A value of this process.
    pub(crate) fn new(value: T) -> Self {
        OfProcess { value: Some(value), owner: Process::this() }
    }

    /// The value, in its own process; `what` it is, for the error.
    pub(crate) fn own(&self, what: &str) -> Result<&T, Failure> {
        self.value.as_ref().filter(|_| self.owner == Process::this()).ok_or_else(|| {
            let message = format!(
                "this {what} belongs to another process, of which this one is a fork: only that one can use \
                 it"
            );
            Failure::of(FailureKind::Argument, message)
        })
    }

    /// The value for good, in its own process.
    pub(crate) fn take(mut self) -> Option<T> {
        if self.owner == Process::this() { self.value.take() } else { None }
    }
}

impl<T> Drop for OfProcess<T> {
    fn drop(&mut self) {
        if self.owner != Process::this() {
            mem::forget(self.value.take());
        }
    }
}
