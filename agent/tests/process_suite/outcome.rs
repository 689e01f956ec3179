//! How a program is forked, and what came of it.

use std::fmt;
use std::time::Duration;

/// How a program is forked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Plain,
    Fork,
    Whole,
}

/// What came of it.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    /// The last line that it said.
    pub(crate) line: String,
    /// Its exit status is 0.
    pub(crate) success: bool,
    pub(crate) err: String,
    pub(crate) took: Duration,
}

impl Way {
    pub(crate) const ALL: [Way; 3] = [Way::Plain, Way::Fork, Way::Whole];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Way::Plain => "plain",
            Way::Fork => "fork",
            Way::Whole => "whole",
        }
    }
}

impl Outcome {
    /// The kind of it.
    pub(crate) fn word(&self) -> &'static str {
        let kinds = ["carried", "new", "refused", "absent"];
        let begins = |kind: &&&str| self.line.starts_with(&format!("{kind}: "));
        if !self.success {
            return "differs";
        }
        kinds.iter().find(begins).copied().unwrap_or("differs")
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}'", self.line)?;
        if self.err.is_empty() { Ok(()) } else { write!(f, " ({})", self.err.trim_end()) }
    }
}
