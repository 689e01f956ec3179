//! Parsers of Mitosis against bytes that nobody meant to send, and what must hold of them.
//!
//! Each [`Target`] takes any bytes, gives them to the parser that meets a stranger's bytes in the agent, and panics
//! where a property does not hold: no panic of the parser's own, what is parsed is written as it was read, and
//! memory in proportion to the bytes that have come. `run.sh` has libFuzzer choose the bytes by what code they
//! reach; `tests/corpus.rs` goes through those that are kept in `corpus/`.
#![deny(unsafe_code)]

mod allocation;
mod targets;

use std::fmt;

/// One parser and its properties.
pub struct Target {
    /// As its folder in `corpus/` is called.
    pub name: &'static str,
    /// Panics where a property does not hold. True: the bytes were taken for what they should be.
    pub run: fn(&[u8]) -> bool,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// All of them.
pub const TARGETS: [Target; 9] = [
    Target { name: "header", run: targets::descriptor::header },
    Target { name: "descriptor", run: targets::descriptor::whole },
    Target { name: "page_table", run: targets::descriptor::page_table },
    Target { name: "report", run: targets::report::run },
    Target { name: "control", run: targets::messages::control },
    Target { name: "handshake", run: targets::handshake::run },
    Target { name: "read", run: targets::read_stream::run },
    Target { name: "seal", run: targets::seal::run },
    Target { name: "local", run: targets::messages::local },
];

impl Target {
    /// The one of this name.
    pub fn named(name: &str) -> Option<&'static Target> {
        TARGETS.iter().find(|target| target.name == name)
    }
}
