//! Values that hold descriptors, and are nothing in a fork of the process that has them.

use std::mem;

use crate::prepare::generation;

/// A value of one process: in a fork of it the descriptors may be somebody else's, so that it can be used
/// there for nothing and dropping it does nothing. For language layers, whose objects come along in forks.
#[derive(Debug)]
pub struct OfProcess<T> {
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
    pub fn new(value: T) -> Self {
        OfProcess { value: Some(value), owner: Process::this() }
    }

    /// The value, in its own process.
    pub fn own(&self) -> Option<&T> {
        self.value.as_ref().filter(|_| self.owner == Process::this())
    }

    /// The value for good, in its own process.
    pub fn take(mut self) -> Option<T> {
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
