//! Sealed hosts: Linux namespaces that stand in for machines.
//!
//! A host has its own network, processes, mounts, host name, IPC, cgroup root and clocks, and is
//! joined to the others by veth links alone. `host-a` has the root file system of this machine;
//! every further host has a tree in memory that holds only the files asked for, with the shared
//! libraries that they need, and clocks that are days ahead.
//!
//! ```text
//!  harness (a test)                  everything below dies with it, however it ends
//!    +- mitosis-hosts up            supervisor: one thread, builds, holds, takes down
//!         +- init of host-a          pid 1 there: reaps orphans, dies with the supervisor
//!         +- init of host-b
//!    +- mitosis-hosts exec -- CMD    enters a host, has CMD run there, relays signals and status
//! ```
//!
//! The harness asks for hosts through [`Pair`]; programs that are no Rust test use the binary.
//! Nothing is named outside: network namespaces, veth ends and tmpfs trees have no life but that
//! of the init that is in them, so that a killed harness leaves nothing to clean up.
#![deny(unsafe_code)]

mod cli;
mod guest;
mod init;
mod inventory;
mod link;
mod ns;
mod pair;
mod run;
mod spec;
mod supervisor;
mod tree;

pub use cli::main;
pub use pair::{ExecOptions, Host, Pair, PairConfig};
pub use spec::{BIN_ENV, FileSpec, HOSTS_ENV, HostRecord, Hosts};
