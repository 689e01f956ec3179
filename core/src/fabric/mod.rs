//! One-sided READ behind one trait.
//!
//! A [`Fabric`] is a transport; [`Fabric::queue`] gives a pager thread its own [`ReadQueue`], which is
//! never shared: posting and reaping take no lock. A READ names the export, what to read and the buffer
//! to fill; it ends in exactly one [`Completion`], in any order. Nothing runs in the seed's process.
//!
//! ```text
//!   post(Read) --> in flight --> reap() --> Completion { tag, Ok | Err(ReadError) }
//!                      \-- cancel(tag): the completion is swallowed, the buffer comes back later
//! ```

use std::os::fd::RawFd;
use std::sync::Arc;

pub use arena::RemoteArena;
pub use buffers::{Buffer, Buffers};
pub use doorbells::Posted;

use crate::descriptor::{Export, SeedAddr};
use crate::id::SeedId;

pub mod arena;
mod arrivals;
pub mod buffers;
pub mod dc;
mod doorbells;
mod landings;
pub mod local;
mod mailbox;
mod pool;
mod queue;
pub mod rc;
pub mod tcp;
mod trust;

/// READs that one queue may have in flight; `post` answers `Full` beyond.
pub const MAX_IN_FLIGHT: usize = 64;
/// Bytes that one READ may ask for: a FUSE request's largest, and the size of a buffer.
pub const MAX_READ_BYTES: usize = 1 << 20;
/// Ranges that one READ may name.
pub const MAX_RANGES: usize = 64;

/// A transport that offers one-sided READ.
pub trait Fabric: Send + Sync + std::fmt::Debug {
    /// Its name in settings, logs and metrics.
    fn name(&self) -> &'static str;

    /// Whether a card carries its READs.
    fn is_rdma(&self) -> bool {
        false
    }

    /// Whether it can READ this export from this host.
    fn serves(&self, export: &Export) -> bool;

    /// What its queues have posted to a card.
    fn posted(&self) -> Posted {
        Posted::default()
    }

    /// A queue for one pager thread. Connections behind it come from the fabric's pool, keyed by peer
    /// host, and are shared by all images and children of the host.
    fn queue(self: Arc<Self>) -> Box<dyn ReadQueue>;
}

/// One pager thread's READs.
pub trait ReadQueue: Send + std::fmt::Debug {
    /// Starts a READ. An error is immediate: nothing is in flight then, and the buffer comes back with it.
    #[expect(clippy::result_large_err, reason = "a box would be an allocation on the miss path")]
    fn post(&mut self, read: Read) -> Result<(), PostError>;

    /// Sends what was posted, in as few steps as there can be; [`Self::reap`] does so, too. Whoever sleeps after
    /// a post calls one of them before.
    fn flush(&mut self) {}

    /// Gives every completion that is there to `done`, without waiting. Deadlines are enforced here: a
    /// READ past its own completes with `Unreachable`.
    fn reap(&mut self, done: &mut dyn FnMut(Completion));

    /// Adds the descriptors that become readable when `reap` has something to do.
    fn poll_fds(&self, fds: &mut Vec<RawFd>);

    /// READs in flight.
    fn in_flight(&self) -> usize;
}

/// One READ: the ranges are laid one behind the other into `buffer`.
#[derive(Debug)]
pub struct Read {
    /// Chosen by the caller; comes back in the completion.
    pub tag: u64,
    /// Whose bytes.
    pub seed: SeedId,
    /// How to get at them.
    pub export: Export,
    /// Where they lie for RDMA cards.
    pub arena: Option<Arc<RemoteArena>>,
    /// What to read: owner's addresses and lengths in bytes, at most [`MAX_RANGES`].
    pub ranges: Vec<(SeedAddr, u32)>,
    /// Filled from its start; at least as long as all ranges together.
    pub buffer: Buffer,
    /// When it fails with `Unreachable` if no answer has come.
    pub deadline: std::time::Instant,
}

/// How one READ ended; the buffer always comes back.
#[derive(Debug)]
pub struct Completion {
    /// The READ's.
    pub tag: u64,
    /// The READ's.
    pub buffer: Buffer,
    /// Whether all its bytes are there.
    pub result: Result<(), ReadError>,
}

/// Why a READ was not started.
#[derive(Debug)]
pub struct PostError {
    /// What is wrong.
    pub error: ReadError,
    /// The READ, whole.
    pub read: Read,
}

/// Why a READ failed. The kinds decide what the pager does next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The owner refuses: key, range or seed are no longer good. Asking again is useless.
    #[error("the owner refuses the READ: {0}")]
    Revoked(String),
    /// No answer by the deadline, or no connection.
    #[error("the owner's host does not answer: {0}")]
    Unreachable(String),
    /// Not to be had this way, or not yet; the owner's other exports have it.
    #[error("the bytes are not in the owner's arena yet")]
    NotYet,
    /// Ended by another READ's failure on the same connection; post it again.
    #[error("flushed with its connection; to be posted again")]
    Flushed,
    /// This side's fault: the queue is full, or the request exceeds a limit.
    #[error("the READ could not be posted: {0}")]
    Local(String),
}
