//! Which process this is, also after a fork onto another host, where the pid may be the same.

use std::process;

use mitosis_core::prepare::generation;

use crate::error::{Failed, MitosisErr};

/// A process, told from its children of either kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pid: u32,
    generation: u64,
}

impl Process {
    pub(crate) fn current() -> Self {
        Process { pid: process::id(), generation: generation() }
    }

    /// For the functions of an object that this process has made.
    pub(crate) fn check(self, what: &str) -> Result<(), Failed> {
        if self == Process::current() {
            return Ok(());
        }
        Err(Failed::new(
            MitosisErr::OtherProcess,
            format!(
                "this {what} belongs to the process that made it (pid {}), of which this one is a fork",
                self.pid
            ),
        ))
    }

    /// Whether descriptors that it had open are what they were: a resumed child has none of them, and
    /// their numbers may be other files'.
    pub(crate) fn shares_descriptors(self) -> bool {
        self.generation == generation()
    }
}
