//! The keeper: a tiny process, without threads or network, that is the parent of every template and
//! child of a host.
//!
//! ```text
//!  agent --fork, exec `mitosis keeper`--> keeper --fork--> template --clone3(CLONE_PARENT)--> child
//!    |  one seqpacket socket: requests, ends    | reaps both                |
//!    +------------------------------------------+                           | PDEATHSIG = SIGKILL
//!                                               dies => they die -----------+
//! ```
//!
//! It is apart from the agent so that the parent of children has no threads (a fork of it is whole), no
//! rseq and no secrets in its memory.
//!
//! - A keeper that dies takes its templates and children along, by their parent-death signal. What a child
//!   forked itself, and a child that has changed its user id since, does not get that signal.
//! - An agent that dies closes the socket: the keeper ends after [`AGENT_GRACE`], and all of them with
//!   it. Until then children run on as far as memory that they have already pulled carries them.
//! - Seeds outlive their agent: the keeper holds their descriptors, and leaves them to its *heir* ([`store`]),
//!   of which the next agent takes them ([`adoption`]).

pub mod adoption;
pub mod client;
mod message;
mod server;
pub mod store;

use std::time::Duration;

pub use adoption::{Heir, HeirError, KeptSeed};
pub use client::{Client, Exit, KeeperError, NewTemplate, TemplateRequest};
pub use server::run;

/// How long children outlive their agent: time to write out what they are at, and none to wait in.
pub const AGENT_GRACE: Duration = Duration::from_millis(500);
