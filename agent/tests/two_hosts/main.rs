//! The whole path between two sealed hosts, with the real binary: what works, and how it fails.
//!
//! Each test has its own pair of hosts. They need root, /dev/fuse and iproute2 and fail without them; the
//! programs that are forked come from `tests/process_suite` (`cargo build -p mitosis-process-suite`).
#![allow(missing_docs)]

mod descriptors;
mod encryption;
mod files;
mod forking;
mod losses;
mod memory;
mod process;
mod refusals;
mod restarts;
mod state;
mod threads;
mod trace;
mod transport;
mod verbs;
#[allow(dead_code, reason = "shared with failures and chaos, which halt agents and look at them")]
mod world;
